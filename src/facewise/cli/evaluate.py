"""``facewise evaluate``."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facewise.cli.options import Verbose, check_folder
from facewise.cli.train import data_sets
from facewise.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facewise.datasets import DataSet
    from facewise.evaluation.outcomes import Outcomes

logger = logging.getLogger("facewise.cli")

EXCLUSIONS = Path(__file__).parent.parent / "evaluation" / "exclusions.csv"
"""Pictures of the shared data sets whose photo is in an earlier split, too; see docs/dedupe.md."""


def evaluate(
    model: Annotated[str, typer.Option(help="Name, name@version, or a spec's path.")] = "default",
    data: Annotated[
        Path,
        typer.Option(
            envvar="FACEWISE_DATA",
            help="Folder of the data sets, a UTKFace folder or tar, or a CSV of paths and labels.",
        ),
    ] = Path("../shared/data"),
    labels: Annotated[
        Path | None, typer.Option(help="FairFace's labels, if --data is a FairFace folder or tar.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to score; data without splits is scored whole.")
    ] = "test",
    fit: Annotated[
        bool, typer.Option("--fit", help="First calibrate on the splits calibration and val.")
    ] = False,
    degraded: Annotated[
        int, typer.Option(min=0, help="Faces per data set to degrade on purpose; 0 for none.")
    ] = 450,
    split_list: Annotated[
        Path | None,
        typer.Option(
            "--splits",
            help="CSV with columns file (or path), split and optionally duplicate_group, as "
            "written by facewise dedupe; replaces the data's own splits and groups.",
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column file (or path): pictures to leave out. Default: those that "
            "facewise dedupe found across the splits of the shared data sets."
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
    try:
        import crepes  # noqa: F401
        import fairlearn  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("evaluation", "evaluate") from error
    from facewise.calibration import Calibration
    from facewise.datasets import split_name
    from facewise.evaluation.card import hand_written, write_card
    from facewise.evaluation.coverage import fit_baseline
    from facewise.evaluation.degrade import DEGRADATIONS
    from facewise.evaluation.faces import write_faces
    from facewise.evaluation.fit import check_faces, fit_calibration
    from facewise.evaluation.gates import GATE_FACES, fit_gates, gate_curves, with_gates
    from facewise.evaluation.noise import suspects_of
    from facewise.evaluation.outcomes import collect
    from facewise.evaluation.report import write_reports
    from facewise.evaluation.results import (
        by_reason,
        calibrated,
        score_model,
        summary,
        write_results,
    )
    from facewise.evaluation.scoring import Scored
    from facewise.models import WEIGHTS_FOLDER, load_spec
    from facewise.reporting.confusions import fit_sources

    logging.getLogger("facewise").setLevel(logging.INFO)
    sets, split = _read(data, labels), split_name(split)
    if not any(data_set.samples for data_set in sets):
        reasons = by_reason([pair for data_set in sets for pair in data_set.skipped])
        named = f"; skipped: {'; '.join(reasons)}" if reasons else ""
        raise OptionError(f"{data} has no face that can be used{named}")
    if split_list is not None:
        sets = _with_splits(sets, split_list)
    keys = [sample.key for data_set in sets for sample in data_set.samples]
    if exclude is not None:
        excluded = _excluded(exclude, keys, named=True)
    elif split_list is None and _has_shared_splits(data, labels):
        excluded = _excluded(EXCLUSIONS, keys)
    else:
        excluded = frozenset()
    splits = {sample.split for data_set in sets for sample in data_set.samples}
    if splits == {""}:
        split = ""
    whole = [_in_split(data_set, split) for data_set in sets]
    unreadable: dict[str, str] = {}
    spec = load_spec(model)
    if (out / f"{spec.name}.json").resolve() == spec.path.resolve():
        raise OptionError(f"--out {out} holds the model's own spec: choose another folder")
    # What would fail after hours of scoring.
    check_folder("--out", out)
    check_folder("--store", store)
    if fit or card:
        check_folder("--model", spec.path.parent)
    if card:
        hand_written(spec)
    if faces is not None:
        check_folder("--faces", faces.parent)
        _check_faces(faces, [data, labels, split_list, exclude])

    def none_left(part: str, to: str = "", advice: str = "") -> OptionError:
        return OptionError(
            f"nothing is left{to} of {f'split {part}' if part else 'the data'} after --exclude "
            f"{exclude or EXCLUSIONS}: leave out fewer pictures{advice}"
        )

    for part in ("calibration", "val", split) if fit else (split,):  # before hours of detection
        of = whole if part == split else sets
        there = {s.key for data_set in of for s in data_set.samples if part in ("", s.split)}
        if there and there <= excluded:
            raise none_left(part)

    def run(part: str, degradation: str | None = None) -> Outcomes:
        worsened = degraded if part == split else min(degraded, GATE_FACES)
        sample = worsened if degradation else None
        everything = collect(
            model,
            whole if part == split else sets,
            part,
            store=store,
            workers=workers,
            sample=sample,
            degradation=degradation,
            skipped=unreadable,
        )
        left = everything.without(excluded)
        if not len(left):  # the others cannot be read, or were not drawn
            raise none_left(part, *((" to worsen", ", or raise --degraded") if sample else ()))
        return left

    baseline, curves = None, {}
    if fit:
        if missing := {"calibration", "val"} - splits:
            raise OptionError(
                f"--fit needs the splits calibration and val; {data} lacks "
                f"{' and '.join(sorted(missing))}"
            )
        if spec.path.resolve().is_relative_to(WEIGHTS_FOLDER.resolve()):
            logger.warning(
                "replaces the calibration of the installed %s: from then on, whatever uses the "
                "model here answers by it. To calibrate a copy, pass the path of a copied spec as "
                "--model",
                spec.name,
            )
        calibration = run("calibration")
        fitted = fit_calibration(calibration)
        ungated = Calibration.from_dict(fitted)
        val = run("val")
        check_faces(val, "val")
        worsened = {name: run("val", name) for name in DEGRADATIONS if degraded}
        gates = fit_gates(
            Scored(val, ungated), {n: Scored(o, ungated) for n, o in worsened.items()}
        )
        gated = with_gates(fitted, gates)
        c = Scored(calibration, ungated)
        classes = {name: (p, c.truth[name]) for name, p in c.probabilities.items()}
        o = c.outcomes
        confusions = fit_sources(o.datasets, o.found, o.groups, c.ages, o.age_ranges, classes)
        stored = {**fitted, "gates": gates, "confusions": confusions}
        spec = calibrated(spec, stored)
        baseline = fit_baseline(Scored(calibration, gated))
        curves["val"] = gate_curves(
            Scored(val, gated), {n: Scored(o, gated) for n, o in worsened.items()}
        )
    outcomes = run(split)
    results = score_model(
        spec,
        outcomes,
        split or "all",
        degraded={name: run(split, name) for name in DEGRADATIONS if degraded},
        baseline=baseline,
        curves=curves,
        data_sets=sets,
        skipped=[
            *(pair for data_set in whole for pair in data_set.skipped),
            *(pair for pair in unreadable.items() if pair[0] not in excluded),
        ],
        excluded=sorted(excluded),
    )
    scored = Scored(outcomes, Calibration.from_dict(spec.calibration))
    results["suspect_labels"] = suspects_of(scored)
    path = out / f"{spec.name}.json"
    write_results(results, path, stated=spec if fit or card else None)
    typer.echo(summary(results))
    written = [path, *([spec.path] if fit else []), *write_reports(out, spec.name)]
    if card:
        written += write_card(spec, out)
    if faces is not None:
        samples = (sample for data_set in sets for sample in data_set.samples)
        write_faces(faces, scored, {(str(s.dataset), s.key): s.split for s in samples})
        written.append(faces)
    typer.echo(f"all of it: {', '.join(map(str, written))}")


def _check_faces(path: Path, read: Sequence[Path | None]) -> None:
    """Refuse to write the faces over a file of this run, or over what no run wrote."""
    from facewise.evaluation.dedupe_lists import has_header
    from facewise.evaluation.faces import COLUMNS

    if path.resolve() in {other.resolve() for other in read if other is not None}:
        raise OptionError(f"--faces {path} is read, and would be written over: name another file")
    if path.exists() and not has_header(path, COLUMNS):
        raise OptionError(
            f"--faces {path} is there already, and facewise evaluate did not write it: name "
            "another file, or remove it first"
        )


def _has_shared_splits(data: Path, labels: Path | None) -> bool:
    """Whether the splits are those of the shared data sets, a folder or a file beside its list."""
    folders = [data, data.parent, *([labels.parent] if labels is not None else [])]
    return data.suffix.lower() != ".csv" and any(
        (folder / "utkface_splits.csv").exists() for folder in folders
    )


def _in_split(data_set: DataSet, split: str) -> DataSet:
    """A data set that has no splits of its own, as if all of it were in one.

    Of one that has, rows without a split, or of a split that nobody knows, are named as skipped.
    """
    if not any(sample.split for sample in data_set.samples):
        samples = (dataclasses.replace(sample, split=split) for sample in data_set.samples)
        return dataclasses.replace(data_set, samples=tuple(samples))
    from facewise.datasets import SPLITS

    lost = [
        (s.key, f"split {s.split!r} is none of {', '.join(SPLITS)}" if s.split else "no split")
        for s in data_set.samples
        if split and s.split not in (*SPLITS, split)
    ]
    if lost:
        text = "%d pictures are in no split that is known, the first %s: %s"
        logger.warning(text, len(lost), *lost[0])
    return dataclasses.replace(data_set, skipped=(*data_set.skipped, *lost))


def _with_splits(sets: Sequence[DataSet], path: Path) -> list[DataSet]:
    """Data sets dealt out by a list; pictures that it does not name are in no split."""
    from facewise.datasets import split_name
    from facewise.evaluation.dedupe_lists import read_lists, rows_by_picture

    listed = read_lists([path])
    rows = rows_by_picture(listed, [sample.key for data_set in sets for sample in data_set.samples])
    dealt = [
        dataclasses.replace(
            data_set,
            samples=tuple(
                dataclasses.replace(
                    sample,
                    split=split_name(rows.get(sample.key, {}).get("split")),
                    group=rows.get(sample.key, {}).get("duplicate_group") or sample.key,
                )
                for sample in data_set.samples
            ),
        )
        for data_set in sets
    ]
    if not any(sample.split for data_set in dealt for sample in data_set.samples):
        raise OptionError(f"{path} has no split of any picture: check --splits and --data")
    return dealt


def _read(data: Path, labels: Path | None) -> list[DataSet]:
    """Whatever ``--data`` points at."""
    from facewise.datasets import read_csv, read_fairface, read_utkface

    if labels is not None:
        return [read_fairface(data, labels)]
    if data.suffix.lower() == ".csv":
        return [read_csv(data)]
    named = any((data / name).exists() for name in ("utkface.tar", "UTKFace", "fairface.tar"))
    if named or (data / "FairFace").exists():
        return data_sets(data)
    splits = data.parent / "utkface_splits.csv"
    one = read_utkface(data, splits if splits.exists() else None)
    if not one.samples:
        raise OptionError(
            f"{data} holds no picture named as UTKFace's are: pass --labels for FairFace, or a CSV "
            "with the columns path, age, gender, ethnicity"
        )
    return [one]


def _excluded(path: Path, keys: Sequence[str], *, named: bool = False) -> frozenset[str]:
    """Which pictures a CSV lists, by their names or by the ends of their paths.

    Of a list that the user named, what is of no picture is said.
    """
    from facewise.datasets import read_rows
    from facewise.evaluation.dedupe_lists import rows_by_picture

    names = {row["file"]: row for row in read_rows(path, ("file",))}
    excluded = frozenset(keys) & rows_by_picture(names, keys).keys()
    if named and len(excluded) < len(names):
        text = f"{len(names) - len(excluded)} of {len(names)} excluded names are in no data set"
        if not excluded:
            raise OptionError(f"{path}: {text}, or in several folders: check --exclude and --data")
        logger.warning("%s, or in several folders", text)
    return excluded
