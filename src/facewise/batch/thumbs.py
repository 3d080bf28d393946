"""A contact sheet of a table's faces, ordered by any column: people look before they trust."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from facewise.batch import storage
from facewise.batch.job import FILE, ROW, TAR, Item
from facewise.batch.plan import Plan
from facewise.batch.schema import PART_GLOB
from facewise.batch.tables import RowReader
from facewise.errors import FacewiseError, ImageError, OptionError, TableError
from facewise.images import DEFAULT_MAX_BYTES, load_photo
from facewise.types import Photo

if TYPE_CHECKING:
    from PIL import Image

PLAN_FILE: Final = "_plan.parquet"
COMPUTED: Final = ("interval", "abstentions")
"""Orders that no column has: years between the interval's ends, and how many attributes facewise
does not stand by."""

MARGIN: Final = 0.25
"""Round a face's box, as a share of its longer side."""

GREY: Final = (127, 127, 127)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A face of the sheet."""

    image_id: str
    face_index: int
    bbox: tuple[float, float, float, float]
    value: Any


def choose(table: Path, by: str, count: int, *, largest: bool) -> list[Chosen]:
    """The faces that come first in a column's order; null values are left out.

    Reads a part at a time and holds ``count`` faces.

    Raises:
        TableError: it is no table of ``facewise annotate``.
        OptionError: it has no such column.
    """
    import pyarrow.parquet as pq

    if count < 1:
        raise OptionError(f"count must be 1 or more, not {count}")
    files = sorted(table.glob(PART_GLOB))
    if not files:
        raise TableError(f"{table} is no annotated table: make one with facewise annotate")
    needed = {"interval": ["age_low_years", "age_high_years"], "abstentions": ["abstained"]}
    chosen: list[Chosen] = []
    for path in files:
        names = pq.read_schema(path).names
        columns = needed.get(by, [by])
        if not set(columns) <= set(names):
            raise OptionError(f"{table} has no column {by}; it has {', '.join(names)}")
        wanted = dict.fromkeys(["image_id", "face_index", "bbox", *columns])
        for row in pq.read_table(path, columns=list(wanted)).to_pylist():
            value = _value(row, by)
            if row["face_index"] is not None and value is not None:
                chosen.append(Chosen(row["image_id"], row["face_index"], tuple(row["bbox"]), value))
        try:
            chosen.sort(key=lambda face: (face.value, face.image_id), reverse=largest)
        except TypeError as error:
            raise OptionError(f"{by} has no order: name a column of numbers or words") from error
        del chosen[count:]
    return chosen


def _value(row: dict[str, Any], by: str) -> Any:
    if row["face_index"] is None:
        return None
    if by == "interval":
        low, high = row["age_low_years"], row["age_high_years"]
        return None if low is None or high is None else high - low
    if by == "abstentions":
        return len(row["abstained"] or ())
    value = row[by]
    if isinstance(value, list):
        raise OptionError(f"{by} has no order: name a column of numbers or words")
    return value


def read_pictures(table: Path, image_ids: set[str]) -> Iterator[tuple[str, Photo | FacewiseError]]:
    """Pictures of a table by name, read again from where they were; an error where that fails.

    Frames of video are not read again.

    Raises:
        TableError: the table's plan is missing.
    """
    if not (table / PLAN_FILE).exists():
        raise TableError(f"{table / PLAN_FILE} is missing: where the pictures are is not known")
    plan = Plan(table / PLAN_FILE, 1)
    reader: tuple[str, RowReader] | None = None
    try:
        for shard in range(plan.shards):
            for item in plan.items(shard):
                if item.image_id not in image_ids:
                    continue
                if item.kind == ROW and (reader is None or reader[0] != item.path):
                    if reader is not None:
                        reader[1].close()
                    reader = item.path, RowReader(item.path, None)
                yield item.image_id, _load(item, reader[1] if reader else None)
    finally:
        plan.close()
        if reader is not None:
            reader[1].close()


def _load(item: Item, reader: RowReader | None) -> Photo | FacewiseError:
    limit = DEFAULT_MAX_BYTES + 1
    try:
        if item.kind == ROW and reader is not None:
            return load_photo(reader.read(item.group, item.size, limit))
        if item.kind in (FILE, TAR):
            size = min(item.size, limit) if item.kind == TAR else limit
            return load_photo(storage.read_range(item.path, size, offset=item.offset))
        return ImageError("no picture of its own")
    except FacewiseError as error:
        return error


def make_sheet(
    table: Path, by: str, *, count: int = 60, largest: bool = False, size_px: int = 128
) -> tuple[Image.Image, list[Chosen]]:
    """Faces in the order of a column, with number and value, on one picture.

    Args:
        table: folder of ``facewise annotate``.
        by: a column, "interval" (its width in years) or "abstentions" (how many).
        count: of faces, at most.
        largest: the largest value first, in place of the smallest.
        size_px: side of a face on the sheet.

    Returns:
        The sheet, RGB, and what is on it, in order. A picture that has gone is a grey square.
    """
    from PIL import Image, ImageDraw

    chosen = choose(table, by, count, largest=largest)
    if not chosen:
        raise OptionError(f"{os.fspath(table)} has no face with a value of {by}")
    faces = dict.fromkeys(range(len(chosen)), Image.new("RGB", (size_px, size_px), GREY))
    for image_id, photo in read_pictures(table, {face.image_id for face in chosen}):
        if isinstance(photo, Photo):
            whole = Image.fromarray(photo.rgb)
            for number, face in enumerate(chosen):
                if face.image_id == image_id:
                    faces[number] = _cut(whole, face.bbox, size_px)
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


def _cut(image: Image.Image, bbox: tuple[float, float, float, float], size_px: int) -> Image.Image:
    left, top, right, bottom = bbox
    half = max(right - left, bottom - top) * (0.5 + MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    box = [round(v) for v in (x - half, y - half, x + half, y + half)]
    canvas = image.crop((box[0], box[1], max(box[2], box[0] + 1), max(box[3], box[1] + 1)))
    return canvas.resize((size_px, size_px))
