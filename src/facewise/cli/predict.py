"""``facewise predict PHOTO...``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from facewise.calibration import DEFAULT_COVERAGE
from facewise.cli.drawings import plan_drawings, save_drawing
from facewise.cli.exits import Exit
from facewise.cli.options import Coverage, MaxFaces, MinFacePx, Model, Providers, Verbose
from facewise.cli.streams import json_line, say
from facewise.errors import (
    EmptyImageError,
    FacewiseError,
    ImageError,
    ImageTooLargeError,
    OptionError,
)
from facewise.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from facewise.text import printable, reason_of, split_names

if TYPE_CHECKING:
    from facewise.types import Photo, Prediction

logger = logging.getLogger("facewise.cli")

SCHEMA_VERSION: Final = 1
"""Version of the JSON lines, which ``schemas/predict.schema.json`` describes."""

_WIDE: Final = 1000
"""Console width in characters, more than any row has."""


def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos; - reads one from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per photo.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(help="Write the annotated picture here; for several photos, a folder."),
    ] = None,
    attributes: Annotated[
        str, typer.Option(help="Attributes to report, comma-separated.")
    ] = "age,gender,ethnicity",
    model: Model = "default",
    coverage: Coverage = DEFAULT_COVERAGE,
    min_face: MinFacePx = None,
    max_faces: MaxFaces = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one inference; default: all cores.")
    ] = None,
    providers: Providers = None,
    max_bytes: Annotated[int, typer.Option(help="Largest file, in bytes.")] = DEFAULT_MAX_BYTES,
    max_pixels: Annotated[int, typer.Option(help="Largest photo, in pixels.")] = DEFAULT_MAX_PIXELS,
    vector: Annotated[bool, typer.Option(help="With --json: add the 19-number vector.")] = False,
    verbose: Verbose = 0,
) -> None:
    """Report the apparent age, gender and ethnicity of the faces in photos.

    Exit codes: 2 for bad usage, else 1 if a photo failed, else 3 if no photo has a face, else 0.
    """
    from facewise.analyzer import Analyzer, Timings

    if vector and not as_json:
        raise OptionError("--vector needs --json")
    if photos.count("-") > 1:
        raise OptionError("standard input can be read only once: pass - only once")
    drawings = [None] * len(photos) if draw is None else plan_drawings(draw, photos)
    analyzer = Analyzer(
        model,
        attributes=split_names(attributes) or (),
        coverage=coverage,
        min_face_px=min_face,
        max_faces=max_faces,
        threads=threads,
        providers=split_names(providers),
        max_bytes=max_bytes,
        max_pixels=max_pixels,
    )
    failed = faces = 0
    for name, drawing in zip(photos, drawings, strict=True):
        timings = Timings()
        try:
            with timings("decode"):
                photo = analyzer.load(_standard_input() if name == "-" else name)
            predictions = analyzer.analyze(photo, timings=timings)
        except (FacewiseError, OSError) as error:  # OSError: standard input
            failed += 1
            _print_failure(name, error, as_json=as_json)
            continue
        faces += len(predictions)
        _log(name, photo, predictions, timings)
        fitted = bool(analyzer.calibration.interval_thresholds)
        _print(name, photo, predictions, as_json=as_json, vector=vector, fitted=fitted)
        if drawing is not None and not _save(name, photo, predictions, drawing):
            failed += 1
    raise typer.Exit(int(Exit.FAILED if failed else Exit.NO_FACE if not faces else Exit.OK))


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise EmptyImageError("standard input is closed: pipe the picture in, or name a file")
    return sys.stdin.buffer


def _log(
    name: str, photo: Photo, predictions: tuple[Prediction, ...], timings: Mapping[str, float]
) -> None:
    logger.info(
        "%s: %d x %d px, faces: %d; %s",
        printable(name),
        photo.width_px,
        photo.height_px,
        len(predictions),
        ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in timings.items()),
    )


def _save(name: str, photo: Photo, predictions: tuple[Prediction, ...], path: Path) -> bool:
    """Draw and save a picture; failures to write are reported on stderr."""
    from facewise.draw import draw_predictions

    picture = draw_predictions(photo, predictions)
    try:
        save_drawing(picture, path)
    except (OSError, ValueError) as error:  # ValueError: too wide for the format
        words = reason_of(error)
        say(f"{name}: {path} cannot be written ({words}): choose another place or format")
        return False
    logger.info("wrote %s", printable(str(path)))
    return True


def _print(
    name: str,
    photo: Photo,
    predictions: tuple[Prediction, ...],
    *,
    as_json: bool,
    vector: bool,
    fitted: bool,
) -> None:
    if as_json:
        line: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "photo": name,
            "width_px": photo.width_px,
            "height_px": photo.height_px,
            "faces": [prediction.to_dict(vector=vector) for prediction in predictions],
        }
        print(json_line(line), flush=True)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:  # a pipe has no width: keep one line per face
        console.width = _WIDE
    count = {0: "no face", 1: "1 face"}.get(len(predictions), f"{len(predictions)} faces")
    console.print(f"[bold]{escape(printable(name))}[/]: {count}", soft_wrap=True)
    rows = _rows(predictions, fitted=fitted)
    if rows:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in rows[0]:
            table.add_column(column)
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
    for number, prediction in enumerate(predictions, start=1):
        for attribute, why in prediction.abstained.items():
            console.print(
                f"[dim]{number}: can't tell {attribute}, because {why}[/]", soft_wrap=True
            )
    sys.stdout.flush()


def _rows(predictions: tuple[Prediction, ...], *, fitted: bool) -> list[dict[str, str]]:
    """Cells by column, one row per face; attributes that are off have no column.

    Args:
        predictions: of one photo.
        fitted: whether age intervals were fitted to hold their level.
    """
    from facewise.types import whole_years

    rows = []
    for number, p in enumerate(predictions, start=1):
        left, top, right, bottom = (f"{v:.0f}" for v in p.face.bbox)
        row = {"#": str(number), "box": f"{left},{top} to {right},{bottom}"}
        if p.age_years is not None and p.age_interval_years is not None:
            first, last = p.age_interval_years
            # The interval's coverage.
            age = f"apparent age ({p.coverage * 100:g} %{'' if fitted else ', not fitted'})"
            years = whole_years(p.age_years)
            row[age] = f"{years}, between {first} and {last}{_doubt(p, 'age')}"
        for name, distribution in (("gender", p.gender), ("ethnicity", p.ethnicity)):
            if distribution is not None:
                row[f"apparent {name}"] = (
                    f"{distribution.top} {distribution.top_probability:.0%}{_doubt(p, name)}"
                )
        rows.append(row)
    return rows


def _doubt(prediction: Prediction, attribute: str) -> str:
    return " ?" if attribute in prediction.abstained else ""


def _print_failure(name: str, error: FacewiseError | OSError, *, as_json: bool) -> None:
    code = error.code if isinstance(error, ImageError) else "failed"
    if isinstance(error, ImageError):
        message = error.reason  # without the name, which is printed before it
        if isinstance(error, ImageTooLargeError):
            message = error.with_option()
    else:
        message = reason_of(error)
    if as_json:
        line = {
            "schema_version": SCHEMA_VERSION,
            "photo": name,
            "error": {"code": code, "message": message},
        }
        print(json_line(line), flush=True)
    say(f"{name}: {message}")
