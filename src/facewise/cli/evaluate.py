"""``facewise evaluate``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.train import data_sets
from facewise.errors import MissingExtraError


def evaluate(
    model: Annotated[str, typer.Option(help="Name, name@version, or a spec's path.")] = "default",
    data: Annotated[
        Path, typer.Option(envvar="FACEWISE_DATA", help="Folder of the data sets.")
    ] = Path("../shared/data"),
    split: Annotated[str, typer.Option(help="What to score on.")] = "test",
    fit: Annotated[
        bool, typer.Option("--fit", help="First calibrate on calibration and val.")
    ] = False,
    store: Annotated[Path, typer.Option(help="Outcomes kept for scoring again.")] = Path(
        "runs/outcomes"
    ),
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("docs/results"),
    workers: Annotated[int, typer.Option(help="Processes, one thread each.")] = 2,
) -> None:
    """Score a model through detection and alignment; with --fit, calibrate it first."""
    try:
        import crepes  # noqa: F401
        import fairlearn  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("evaluation", "evaluate") from error
    from facewise.evaluation.fit import fit_calibration
    from facewise.evaluation.outcomes import collect
    from facewise.evaluation.results import markdown, score_model, write_calibration
    from facewise.models import load_spec

    logging.getLogger("facewise").setLevel(logging.INFO)
    sets = data_sets(data)
    spec = load_spec(model)
    if fit:
        fitted = fit_calibration(
            collect(model, sets, "calibration", store=store, workers=workers),
            collect(model, sets, "val", store=store, workers=workers),
        )
        write_calibration(spec.path, fitted)
        spec = load_spec(model)
    outcomes = collect(model, sets, split, store=store, workers=workers)
    results = score_model(spec, outcomes, split)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{spec.name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = markdown(results)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    typer.echo(text)
