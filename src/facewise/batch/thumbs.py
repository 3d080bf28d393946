"""A contact sheet of a table's faces, ordered by any column, to check a table by eye."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from facewise.annotated import MANIFEST, part_files, read_batches, read_manifest, unfinished
from facewise.batch.job import VIDEO, Item
from facewise.batch.plan import read_plan
from facewise.batch.reader import ItemReader
from facewise.batch.table import PLAN
from facewise.batch.video import sample_frames
from facewise.batch.watch import differing
from facewise.errors import ImageError, OptionError, TableError, check_count
from facewise.images import LoadOptions, load_photo
from facewise.text import reason_of
from facewise.types import Photo

if TYPE_CHECKING:
    from PIL import Image

COMPUTED: Final[dict[str, tuple[list[str], Callable[..., Any]]]] = {
    "interval": (
        ["age_low_years", "age_high_years"],
        lambda low, high: None if low is None or high is None else high - low,
    ),
    "abstentions": (["abstained"], lambda names: len(names or ())),
}
"""Computed sort keys, with their input columns and function: the age interval's width in years, and
the number of attributes from which facewise abstains."""

MARGIN: Final = 0.25
"""Margin around a face's box, as a share of its longer side."""

GREY: Final = (127, 127, 127)

CHANGED: Final = "the tar or table changed since it was annotated, and may hold others there"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A face on the sheet."""

    image_id: str
    face_index: int
    bbox: tuple[float, float, float, float]
    value: Any
    frame_index: int | None = None  # video only


def choose(table: Path, by: str, count: int, *, largest: bool) -> list[Chosen]:
    """The first ``count`` faces in a column's order; nulls are left out.

    Reads one batch at a time and keeps ``count`` faces.

    Raises:
        TableError: it is not a table of ``facewise annotate``, or is damaged.
        OptionError: there is no such column, it has no order, or ``count`` is invalid.
    """
    count = check_count("count", count)
    columns, compute = COMPUTED.get(by, ([by], lambda value: value))
    wanted = dict.fromkeys(["image_id", "face_index", "frame_index", "bbox", *columns])
    chosen: list[Chosen] = []
    for batch in read_batches(table, list(wanted), needed=("bbox", "frame_index")):
        if not set(columns) <= set(batch.schema.names):
            raise OptionError(
                f"{table} has no column {by}; it has {', '.join(_column_names(table))}"
            )
        for row in batch.to_pylist():
            if row["face_index"] is None:
                continue
            value = compute(*(row[name] for name in columns))
            if isinstance(value, list):  # sortable, but meaningless
                raise _no_order(by)
            if value is not None:
                box, frame = tuple(row["bbox"]), row["frame_index"]
                chosen.append(Chosen(row["image_id"], row["face_index"], box, value, frame))
        try:
            chosen.sort(key=lambda face: (face.value, face.image_id), reverse=largest)
        except TypeError as error:
            raise _no_order(by) from error
        del chosen[count:]
    return chosen


def _no_order(by: str) -> OptionError:
    other = "abstentions, their number" if by == "abstained" else "a column of numbers or words"
    return OptionError(f"{by} has no order: choose {other}")


def _column_names(table: Path) -> list[str]:
    import pyarrow.parquet as pq

    with part_files(table)[0].open("rb") as file:
        names: list[str] = pq.read_schema(file).names
    return names


def read_pictures(table: Path, chosen: Sequence[Chosen]) -> Iterator[tuple[str, Photo | Exception]]:
    """Names and pictures of the chosen faces, reread from their sources; an error if that fails.

    A video is decoded up to the last requested frame.

    Raises:
        TableError: the table's plan or manifest is missing or damaged.
    """
    import pyarrow as pa

    if table.is_file():
        raise TableError(
            f"{table} is a file, but {PLAN} and {MANIFEST} in its table's folder say where the "
            "pictures are: name the folder; for some rows of it, a folder with these rows as "
            "part-0.parquet and copies of both"
        )
    path = table / PLAN
    manifest = read_manifest(table)
    if manifest is None or not path.exists():
        raise TableError(
            f"{table} lacks {PLAN} or {MANIFEST}, which say where the pictures are: copy them "
            "from where annotate wrote the table"
        )
    settings = manifest["settings"]
    limits: LoadOptions = {
        "max_bytes": settings["max_bytes"],
        "max_pixels": settings["max_pixels"],
    }
    # A source that cannot be checked reports its error when read.
    differ = differing(manifest["plan"]["sources"])
    changed = {path for path, error in differ if error is None}
    photos = {face.image_id for face in chosen if face.frame_index is None}
    frames: dict[str, set[int]] = {}
    for face in chosen:
        if face.frame_index is not None:
            frames.setdefault(face.image_id.rpartition("::")[0], set()).add(face.frame_index)
    try:
        with (
            contextlib.closing(read_plan(path)) as items,
            contextlib.closing(ItemReader(settings["image_column"], limits["max_bytes"])) as reader,
        ):
            for item in items:
                if item.kind == VIDEO and item.image_id in frames:
                    yield from _frames(item, frames[item.image_id], settings["frames_per_second"])
                elif item.image_id in photos and item.path in changed:
                    yield item.image_id, ImageError(CHANGED)
                elif item.image_id in photos:
                    yield item.image_id, _load(item, reader, limits)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path} is damaged ({error}): start a new table") from error


def _load(item: Item, reader: ItemReader, limits: LoadOptions) -> Photo | Exception:
    try:
        return load_photo(reader.read(item), **limits)
    except Exception as error:  # any failure concerns this picture only
        return error


def _frames(
    item: Item, wanted: set[int], frames_per_second: float
) -> Iterator[tuple[str, Photo | Exception]]:
    missing = set(wanted)
    failure: Exception = ImageError("the video has fewer frames than before")
    try:
        # Sampled as when annotating, so that the frames are the same.
        with contextlib.closing(sample_frames(item.path, frames_per_second)) as frames:
            for index, _, photo in frames:
                if index in missing:
                    yield f"{item.image_id}::{index}", photo
                    missing.remove(index)
                if not missing:
                    return
    except Exception as error:  # any failure concerns this video only
        failure = error
    for index in missing:
        yield f"{item.image_id}::{index}", failure


def make_sheet(
    table: Path,
    by: str,
    *,
    count: int = 60,
    largest: bool = False,
    size_px: int = 128,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Image.Image, list[Chosen]]:
    """Draw faces in the order of a column, each with its number and value, on one picture.

    Args:
        table: folder of ``facewise annotate``.
        by: a column, "interval" (its width in years) or "abstentions" (how many).
        count: maximum number of faces.
        largest: largest value first, instead of smallest.
        size_px: side of a face on the sheet.
        note: called with messages: an unfinished table; faces that could not be drawn, and why.

    Returns:
        The sheet, RGB, and its faces in order. A face whose picture cannot be read is grey.
    """
    from PIL import Image, ImageDraw

    chosen = choose(table, by, count, largest=largest)
    if not chosen:
        raise OptionError(f"{os.fspath(table)} has no face with a value of {by}")
    faces = dict.fromkeys(range(len(chosen)), Image.new("RGB", (size_px, size_px), GREY))
    if (text := unfinished(table)) is not None:
        note(text)
    reasons = dict.fromkeys((face.image_id for face in chosen), "not in the table's plan")
    for image_id, photo in read_pictures(table, chosen):
        if isinstance(photo, Photo):
            del reasons[image_id]
            whole = Image.fromarray(photo.rgb)
            for number, face in enumerate(chosen):
                if face.image_id == image_id:
                    faces[number] = _cut(whole, face.bbox, size_px)
        else:
            reasons[image_id] = _reason(photo)
    grey = Counter(reasons[face.image_id] for face in chosen if face.image_id in reasons)
    for reason, faces_lost in grey.most_common():
        note(f"{faces_lost:,} of {len(chosen):,} faces are grey: {reason}")
    across = math.ceil(math.sqrt(len(chosen) * 1.3))
    down = math.ceil(len(chosen) / across)
    line = 18
    sheet = Image.new("RGB", (across * size_px, down * (size_px + line)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, face in enumerate(chosen):
        x, y = number % across * size_px, number // across * (size_px + line)
        sheet.paste(faces[number], (x, y))
        value = f"{face.value:.3g}" if isinstance(face.value, float) else str(face.value)
        draw.text((x + 3, y + size_px + 2), f"{number + 1}: {value}", fill="black", font_size=12)
    return sheet, chosen


def _reason(error: Exception) -> str:
    """An error's reason, without an OSError's path, so that equal reasons are counted together."""
    return reason_of(error).splitlines()[0]


def _cut(image: Image.Image, bbox: tuple[float, float, float, float], size_px: int) -> Image.Image:
    """Cut the face out as a square with a margin; black where that extends past the picture."""
    # Clipped, since a box may extend far past a tight picture and make the tile mostly black.
    left, top = max(bbox[0], 0), max(bbox[1], 0)
    right, bottom = min(bbox[2], image.width), min(bbox[3], image.height)
    half = max(right - left, bottom - top) * (0.5 + MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    box = [round(v) for v in (x - half, y - half, x + half, y + half)]
    canvas = image.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
    return canvas.resize((size_px, size_px))
