"""``facewise evaluate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.options import Model, Verbose, check_folder, local_path, speak
from facewise.cli.outputs import Outputs
from facewise.data.tight_crops import DETECTION_BORDER
from facewise.errors import OptionError, needs_extra

logger = logging.getLogger("facewise.cli")


def evaluate(
    model: Model = "default",
    data: Annotated[
        Path,
        typer.Option(
            envvar="FACEWISE_DATA",
            parser=local_path,
            metavar="PATH",
            help="Folder of the data sets, a folder or tar of UTKFace or FairFace, or a CSV of "
            "paths and labels.",
        ),
    ] = Path("../shared/data"),
    labels: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="FILE.csv",
            help="FairFace's labels, if --data is a FairFace folder or tar.",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(help="Split to score, or all; data without splits is scored whole."),
    ] = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Also give figures by this column of the CSV, or of FairFace's labels: skin tone, "
            "camera, country. May be repeated.",
        ),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="First calibrate on the splits calibration and val.")
    ] = False,
    border: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Grey border around each picture, as a share of its width, for tight crops; 0 "
            "scores pictures as they are, as predict does.",
        ),
    ] = DETECTION_BORDER,
    degraded: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Faces per data set to degrade on purpose, 0 for none. Default: 450 with --fit "
            "and on the shared data sets, else 0.",
        ),
    ] = None,
    split_list: Annotated[
        Path | None,
        typer.Option(
            "--splits",
            parser=local_path,
            metavar="FILE.csv",
            help="CSV with columns file (or path), split and optionally duplicate_group, as "
            "written by facewise dedupe; replaces the data's own splits and groups.",
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            metavar="FILE.csv",
            help="CSV with a column file (or path): pictures to leave out. Default: those that "
            "facewise dedupe found across the splits of the shared data sets.",
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Also write the model's card, beside its spec.")
    ] = False,
    store: Annotated[
        Path, typer.Option(help="Folder that keeps outcomes, for scoring again.")
    ] = Path("cache/outcomes"),
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs/evaluate"),
    faces: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Also write each face's answer to this CSV."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    verbose: Verbose = 0,
) -> None:
    """Score a model, detection and alignment included; with --fit, calibrate it first."""
    with needs_extra("evaluation", "evaluate"):
        import crepes  # noqa: F401
        import fairlearn  # noqa: F401
        import sklearn  # noqa: F401
    from facewise.evaluation.card import card_paths, hand_written, is_card, write_card
    from facewise.evaluation.data import read_data
    from facewise.evaluation.faces import COLUMNS, write_faces
    from facewise.evaluation.report import is_report, report_paths, write_reports
    from facewise.evaluation.results import write_results
    from facewise.evaluation.run import Runner, check_fit, default_degraded, evaluate_model
    from facewise.evaluation.summary import summary
    from facewise.files import has_header
    from facewise.models import WEIGHTS_FOLDER, load_spec

    if border != DETECTION_BORDER and (fit or card):
        raise OptionError(
            "--border with --fit or --card: the figures in specs and cards are of pictures in a "
            f"border of {DETECTION_BORDER:g} of their width; leave --border out"
        )
    speak()
    pictures = read_data(
        data, labels=labels, split=split, splits=split_list, exclude=exclude, by=by or ()
    )
    spec = load_spec(model)
    outputs = Outputs("--out or --faces", [spec.path, data, labels, split_list, exclude])
    path, *pages = report_paths(out, spec.name)
    for output in (path, *pages):
        outputs.add(output, is_report)
    # Checked now rather than failing after hours of scoring.
    check_folder("--out", out)
    check_folder("--store", store)
    if fit or card:
        check_folder("--model", spec.path.parent)
    if card:
        hand_written(spec)
        for output in card_paths(spec):
            outputs.add(output, is_card)
    if faces is not None:
        check_folder("--faces", faces.parent)
        outputs.add(faces, lambda path: has_header(path, COLUMNS))
    pictures.check_left(["calibration", "val", pictures.split] if fit else [pictures.split])
    if fit:
        check_fit(spec, pictures)
    if (fit or card) and spec.path.resolve().is_relative_to(WEIGHTS_FOLDER.resolve()):
        logger.warning(
            "replaces the %s of the installed %s, for everything that uses the model here. To %s "
            "a copy instead, pass the path of a copied spec as --model",
            "calibration" if fit else "figures",
            spec.name,
            "calibrate" if fit else "describe",
        )
    if degraded is None:
        degraded = default_degraded(pictures, calibrate=fit)
        if not degraded:
            logger.info(
                "no picture of your own is degraded on purpose unless you ask: --degraded N scores "
                "N of them blurred, dark, turned and so on, too"
            )
    runner = Runner(model, pictures, degraded=degraded, store=store, workers=workers, border=border)
    spec, results, scored = evaluate_model(runner, calibrate=fit)
    stated = spec if fit or card else None
    write_results(results, path, stated=stated)
    typer.echo(summary(results))
    written = [path, *([stated.path] if stated else []), *write_reports(out, spec.name)]
    if card:
        written += write_card(spec, out)
    if faces is not None:
        samples = (sample for data_set in pictures.sets for sample in data_set.samples)
        write_faces(faces, scored, {(str(s.dataset), s.key): s.split for s in samples})
        written.append(faces)
    typer.echo(f"results written to: {', '.join(map(str, written))}")
    typer.echo(
        f"answers about each picture are kept in {store} for the next run: delete them there, or "
        "choose another place with --store"
    )
