"""``facewise predict PHOTO...``."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facewise.errors import FacewiseError, ImageError, OptionError

if TYPE_CHECKING:
    from facewise.types import Photo, Prediction

SCHEMA_VERSION = 1


class Exit(enum.IntEnum):
    """Exit codes of ``predict``."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_FACE = 3


def predict(
    photos: Annotated[list[str], typer.Argument(help="Pictures; - reads standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a photo.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(help="Annotated picture; with several photos, the folder for them."),
    ] = None,
    attributes: Annotated[
        str, typer.Option(help="What to compute, with commas.")
    ] = "age,gender,ethnicity",
    model: Annotated[str, typer.Option(help="Name, name@version, or a spec's path.")] = "default",
    coverage: Annotated[float, typer.Option(help="Of intervals: 0.8, 0.9 or 0.95.")] = 0.9,
    min_face: Annotated[float | None, typer.Option(help="Smallest face, pixels.")] = None,
    max_faces: Annotated[int | None, typer.Option(help="Only the largest so many.")] = None,
    threads: Annotated[int | None, typer.Option(help="All cores unless given.")] = None,
    vector: Annotated[bool, typer.Option(help="With --json: add the 19 numbers.")] = False,
) -> None:
    """Say the apparent age, gender and ethnicity of every face.

    Ends with 2 on bad usage, else 1 where a photo failed, else 3 where no photo had a face, else 0.
    """
    from facewise.analyzer import Analyzer

    if photos.count("-") > 1:
        raise OptionError("standard input can be read once: give - only once")
    if draw is not None:
        _check_draw(draw, photos)
    analyzer = Analyzer(
        model,
        attributes=[name.strip() for name in attributes.split(",") if name.strip()],
        coverage=coverage,
        min_face_px=min_face,
        max_faces=max_faces,
        threads=threads,
    )
    failed = faces = 0
    for name in photos:
        try:
            photo = analyzer.load(sys.stdin.buffer if name == "-" else name)
            predictions = analyzer.analyze(photo)
            faces += len(predictions)
            _print(name, photo, predictions, as_json=as_json, vector=vector)
            if draw is not None:
                _save(photo, predictions, _draw_path(draw, name, len(photos)))
        except FacewiseError as error:
            failed += 1
            _print_failure(name, error, as_json=as_json)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            failed += 1
            print(f"facewise: {name}: {error}", file=sys.stderr)
    sys.stdout.flush()
    code = Exit.SOME_FAILED if failed else Exit.NO_FACE if not faces else Exit.OK
    raise typer.Exit(int(code))


def _check_draw(draw: Path, photos: list[str]) -> None:
    """Settle before any work whether the pictures can be written."""
    if len(photos) > 1:
        if draw.exists() and not draw.is_dir():
            raise OptionError(f"--draw {draw} is a file: for several photos name a folder")
        draw.mkdir(parents=True, exist_ok=True)
    elif draw.is_dir():
        return
    elif draw.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
        raise OptionError(f"--draw {draw}: name a .jpg, .png or .webp file, or a folder")
    elif not draw.parent.is_dir():
        raise OptionError(f"--draw {draw}: its folder does not exist")


def _draw_path(draw: Path, name: str, count: int) -> Path:
    if count == 1 and not draw.is_dir():
        return draw
    stem = "stdin" if name == "-" else Path(name).name
    return draw / f"{stem}.faces.png"


def _save(photo: Photo, predictions: tuple[Prediction, ...], path: Path) -> None:
    from facewise.draw import draw_predictions

    draw_predictions(photo, predictions).save(path)


def _print(
    name: str,
    photo: Photo,
    predictions: tuple[Prediction, ...],
    *,
    as_json: bool,
    vector: bool,
) -> None:
    if as_json:
        line: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "photo": name,
            "width_px": photo.width_px,
            "height_px": photo.height_px,
            "faces": [prediction.to_dict(vector=vector) for prediction in predictions],
        }
        print(json.dumps(line, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    count = {0: "no face", 1: "1 face"}.get(len(predictions), f"{len(predictions)} faces")
    console.print(f"[bold]{escape(name)}[/]: {count}", soft_wrap=True)
    if not predictions:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in _rows(predictions)[0]:
        table.add_column(column)
    for row in _rows(predictions):
        table.add_row(*row.values())
    console.print(table)


def _rows(predictions: tuple[Prediction, ...]) -> list[dict[str, str]]:
    """Cells by column, a row a face; what is switched off has no column."""
    rows = []
    for number, p in enumerate(predictions, start=1):
        left, top, right, bottom = (f"{v:.0f}" for v in p.face.bbox)
        row = {"#": str(number), "box": f"{left},{top} to {right},{bottom}"}
        if p.age_years is not None and p.age_interval_years is not None:
            first, last = p.age_interval_years
            row["apparent age"] = f"{p.age_years:.0f}, between {first} and {last}"
        for name, distribution in (("gender", p.gender), ("ethnicity", p.ethnicity)):
            if distribution is not None:
                row[name] = f"{distribution.top} {distribution.top_probability:.0%}"
        row["can't tell"] = "; ".join(f"{key}: {why}" for key, why in p.abstained.items())
        rows.append(row)
    return rows


def _print_failure(name: str, error: FacewiseError, *, as_json: bool) -> None:
    code = error.code if isinstance(error, ImageError) else "failed"
    message = getattr(error, "strerror", None) or str(error)
    if as_json:
        line = {
            "schema_version": SCHEMA_VERSION,
            "photo": name,
            "error": {"code": code, "message": message},
        }
        print(json.dumps(line, ensure_ascii=False))
    print(f"facewise: {name}: {message}", file=sys.stderr)
