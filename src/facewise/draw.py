"""Boxes and labels on a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from facewise.errors import OptionError
from facewise.images import ColorOrder, PhotoSource, PillowImage, load_photo
from facewise.types import Face, Prediction, answers

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE: Final = ("#0b6e99", "#b3261e", "#2e7d32", "#7b3fa0", "#8a5a00", "#37474f")
"""Box colours; white text on each has a contrast of 4.5 or more."""

SMALLEST_TYPE_PX: Final = 12.0

IntArray = NDArray[np.int64]

Corners = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; the last two are the first ones outside."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text and where it goes: on a plate that no other label's plate touches."""

    text: str
    plate: Corners


def describe(prediction: Face | Prediction) -> str:
    """One line: "31 (24-39), female, Asian", with a question mark where facewise abstains.

    Nothing of a face that was only found.
    """
    if isinstance(prediction, Face):
        return ""
    return ", ".join(answers(prediction, percent=False).values())


def draw_predictions(
    photo: PhotoSource,
    predictions: Sequence[Face | Prediction],
    *,
    color_order: ColorOrder = "rgb",
) -> PillowImage:
    """A copy of the photo with numbered boxes and a label a face.

    Line width and type grow with the photo. Boxes are cut off at its edge, labels stay inside it
    and apart from each other; where there is no room for a label, the face's number is left of it.

    Args:
        photo: a Photo, or whatever ``facewise.load_photo`` reads.
        predictions: of this photo, boxes in its pixels; or faces, which get their number only.
        color_order: of arrays.

    Returns:
        A new RGB picture of the same size, upright.

    Raises:
        ImageError: the picture cannot be read; its subclasses say why.
        OptionError: ``predictions`` is one, not a list.
    """
    from PIL import Image, ImageDraw, ImageFont

    if isinstance(predictions, (Face, Prediction)):
        raise OptionError(f"predictions must be a list, not one {type(predictions).__name__}")

    picture = Image.fromarray(load_photo(photo, color_order=color_order).rgb)
    canvas = ImageDraw.Draw(picture)
    side = min(picture.size)
    width = max(1, round(side / 250))
    font = ImageFont.load_default(size=max(SMALLEST_TYPE_PX, side / 32))
    boxes = [clip_box(prediction, picture.size) for prediction in predictions]
    for index, (left, top, right, bottom) in enumerate(boxes):
        color = PALETTE[index % len(PALETTE)]
        canvas.rectangle((left, top, right - 1, bottom - 1), None, color, width)
    for index, label in enumerate(place_labels(canvas, font, picture.size, predictions)):
        if label is not None:
            _write(canvas, font, label, PALETTE[index % len(PALETTE)])
    return picture


def clip_box(prediction: Face | Prediction, size: tuple[int, int]) -> Corners:
    """The part of a face's box that lies in a picture of ``size``, a pixel wide at the least."""
    face = prediction if isinstance(prediction, Face) else prediction.face
    limits = np.array([*size, *size])
    corners = np.clip(np.round(face.bbox), 0, limits).astype(int)
    first = np.minimum(corners[:2], limits[:2] - 1)
    last = np.maximum(corners[2:], first + 1)
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def place_labels(
    canvas: ImageDraw.ImageDraw,
    font: Font,
    size: tuple[int, int],
    predictions: Sequence[Face | Prediction],
) -> list[Label | None]:
    """A label a face, inside the picture and apart from all others; None where none fits.

    Args:
        canvas: measures the text.
        font: of the labels.
        size: width and height of the picture.
        predictions: in the order of their numbers.
    """
    boxes = np.array([clip_box(p, size) for p in predictions], np.int64).reshape(-1, 4)
    taken = np.empty((0, 4), np.int64)
    labels: list[Label | None] = []
    for index, prediction in enumerate(predictions):
        label, cost = None, math.inf
        for text in _texts(index + 1, describe(prediction)):
            if label is not None and "\n" not in text:
                break  # the number alone is for where nothing else fits
            plate_size = _plate_size(canvas, font, text)
            for plate in _places(plate_size, size, boxes[index]):
                covered = _covered_area(boxes, index, plate)
                if covered < cost and not _shared_areas(taken, plate).any():
                    label, cost = Label(text, plate), covered
        if label is not None:
            taken = np.vstack([taken, label.plate])
        labels.append(label)
    return labels


def _texts(number: int, description: str) -> Iterator[str]:
    """A label in one line, in several, and with its number alone."""
    if description:
        yield f"{number}: {description}"
        yield f"{number}: " + description.replace(", ", ",\n")
    yield str(number)


def _padding(font: Font) -> int:
    return max(2, round(getattr(font, "size", SMALLEST_TYPE_PX) / 5))


def _plate_size(canvas: ImageDraw.ImageDraw, font: Font, text: str) -> tuple[int, int]:
    x0, y0, x1, y1 = canvas.textbbox((0, 0), text, font=font)
    pad = _padding(font)
    return int(np.ceil(x1 - x0)) + 2 * pad, int(np.ceil(y1 - y0)) + 2 * pad


def _places(plate: tuple[int, int], size: tuple[int, int], box: IntArray) -> Iterator[Corners]:
    """Where a plate can go, the best first: above its box, below it, in it, farther off."""
    wide, high = plate
    if wide > size[0] or high > size[1]:
        return
    left, top, right, bottom = (int(v) for v in box)
    for y in (top - high, bottom, top, bottom - high, top - 2 * high, bottom + high):
        for x in (left, right - wide, (left + right - wide) // 2):
            x0 = min(max(x, 0), size[0] - wide)
            y0 = min(max(y, 0), size[1] - high)
            yield x0, y0, x0 + wide, y0 + high


def _covered_area(boxes: IntArray, index: int, plate: Corners) -> float:
    """How much of the faces a plate hides, its own counting half."""
    areas = _shared_areas(boxes, plate)
    return float(2 * areas.sum() - areas[index])


def _shared_areas(boxes: IntArray, corners: Corners) -> IntArray:
    """Area that one box shares with each of ``(N, 4)``."""
    first = np.maximum(boxes[:, :2], corners[:2])
    last = np.minimum(boxes[:, 2:], corners[2:])
    areas: IntArray = np.prod(np.clip(last - first, 0, None), axis=1)
    return areas


def _write(canvas: ImageDraw.ImageDraw, font: Font, label: Label, color: str) -> None:
    """White text on a coloured plate."""
    left, top, right, bottom = label.plate
    x0, y0, _, _ = canvas.textbbox((0, 0), label.text, font=font)
    pad = _padding(font)
    canvas.rectangle((left, top, right - 1, bottom - 1), color)
    canvas.text((left + pad - x0, top + pad - y0), label.text, "white", font)
