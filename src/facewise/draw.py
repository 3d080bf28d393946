"""Draws boxes and labels on a picture."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from facewise.errors import OptionError
from facewise.images import ColorOrder, PhotoSource, PillowImage, load_photo
from facewise.types import Corners, Face, IntArray, Prediction, answers

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE: Final = ("#0b6e99", "#b3261e", "#2e7d32", "#7b3fa0", "#8a5a00", "#37474f")
"""Box colours; white text on each has a contrast of 4.5 or more."""

SMALLEST_TYPE_PX: Final = 12.0
SMALLER: Final = 0.7
"""Factor from one type size tried to the next."""

RIM: Final = 0.15
"""Share of a face that labels may cover while smaller type is left to try."""
MOST_HIDDEN: Final = 0.25
"""Share that full labels may cover at most: the face is still recognisable."""
MOST_HIDDEN_BY_NUMBERS: Final = 0.3
"""The same for bare numbers; the difference leaves room for those placed last."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text, its font, and its plate, which no other label's plate overlaps."""

    text: str
    plate: Corners
    font: Font


def describe(prediction: Face | Prediction) -> str:
    """One line: "31 (24-39), female, Asian", with a question mark where facewise abstains.

    Empty for a face that was only detected.
    """
    if isinstance(prediction, Face):
        return ""
    return ", ".join(answers(prediction, percent=False).values())


def draw_predictions(
    photo: PhotoSource,
    predictions: Iterable[Face | Prediction],
    *,
    color_order: ColorOrder = "rgb",
) -> PillowImage:
    """A copy of the photo with numbered boxes and one label per face.

    Line width and type grow with the photo. Boxes are cut off at its edge; labels stay inside it
    and do not overlap. A label that would hide a face, or lie away from its box, is set smaller; if
    that does not help, only the face's number is shown.

    Args:
        photo: a Photo, or anything that ``facewise.load_photo`` reads.
        predictions: of this photo, with boxes in its pixels; or faces, which get only a number.
        color_order: of arrays.

    Returns:
        A new RGB picture of the same size, upright.

    Raises:
        ImageError: the picture cannot be read; its subclasses say why.
        OptionError: ``predictions`` is a single one, not a list.
    """
    from PIL import Image, ImageDraw, ImageFont

    if isinstance(predictions, (Face, Prediction)):
        raise OptionError(f"predictions must be a list, not one {type(predictions).__name__}")
    predictions = tuple(predictions)

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
            _write(canvas, label, PALETTE[index % len(PALETTE)])
    return picture


def clip_box(prediction: Face | Prediction, size: tuple[int, int]) -> Corners:
    """``Face.corners`` in a picture of ``size``."""
    face = prediction if isinstance(prediction, Face) else prediction.face
    return face.corners(*size)


def place_labels(
    canvas: ImageDraw.ImageDraw,
    font: Font,
    size: tuple[int, int],
    predictions: Sequence[Face | Prediction],
) -> list[Label | None]:
    """One label per face, inside the picture and not overlapping others; None if none fits.

    Args:
        canvas: measures the text.
        font: of the labels; a smaller size is used if there is no room.
        size: width and height of the picture.
        predictions: in the order of their numbers.
    """
    boxes = np.array([clip_box(p, size) for p in predictions], np.int64).reshape(-1, 4)
    hidden = np.zeros(len(boxes), np.int64)  # of each face, by the labels placed so far
    taken = np.empty((0, 4), np.int64)
    fonts = _fonts(font)
    labels: list[Label | None] = []
    for index, prediction in enumerate(predictions):
        texts = str(index + 1), describe(prediction)
        label = _place(canvas, fonts, size, boxes, index, texts, taken, hidden)
        if label is not None:
            hidden = hidden + _shared_areas(boxes, np.array(label.plate))
            taken = np.vstack([taken, label.plate])
        labels.append(label)
    return labels


def _place(
    canvas: ImageDraw.ImageDraw,
    fonts: Sequence[Font],
    size: tuple[int, int],
    boxes: IntArray,
    index: int,
    texts: tuple[str, str],
    taken: IntArray,
    hidden: IntArray,
) -> Label | None:
    """The best label of one face.

    ``taken`` are the plates placed so far; ``hidden`` is the area of each face that they hide.
    """
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)

    @functools.cache  # measuring text is slow
    def places(text: str, font: Font, near: bool) -> tuple[IntArray, IntArray]:
        """Free places of a text, and the area of each face that it would cover there."""
        plates = _places(_plate_size(canvas, font, text), size, boxes[index], only_near=near)
        plates = plates[~_shared_areas(taken, plates).any(axis=1)]
        return plates, _shared_areas(boxes, plates)

    for wordings, font, most in _tries(*texts, fonts):
        label, cost = None, math.inf
        for text in wordings:
            plates, covered = places(text, font, most < math.inf)
            # A label that does not cover a face is fine, even if the face is hidden already.
            good = ((covered == 0) | (hidden + covered <= most * areas)).all(axis=1)
            # Its own face counts half.
            costs = np.where(good, covered.sum(axis=1) - covered[:, index] / 2, math.inf)
            if costs.min(initial=math.inf) < cost:
                best = int(costs.argmin())
                left, top, right, bottom = (int(v) for v in plates[best])
                label, cost = Label(text, (left, top, right, bottom), font), float(costs[best])
        if label is not None:
            return label
    return None


def _tries(
    number: str, description: str, fonts: Sequence[Font]
) -> Iterator[tuple[list[str], Font, float]]:
    """Texts of a label, their font, and the share of a face they may cover; best first."""
    if description:
        for most in (RIM, MOST_HIDDEN):
            for font in fonts:
                yield _texts(number, description), font, most
    for font in fonts:
        yield [number], font, MOST_HIDDEN_BY_NUMBERS
    yield [number], fonts[-1], math.inf  # better in a bad place than not at all


def _texts(number: str, description: str) -> list[str]:
    """A label on one line, and on several."""
    return [f"{number}: {description}", f"{number}: " + description.replace(", ", ",\n")]


def _fonts(font: Font) -> list[Font]:
    """The font in this and smaller sizes, the largest first; Pillow's bitmap font has one size."""
    from PIL import ImageFont

    fonts, size = [font], getattr(font, "size", 0.0)
    while size > SMALLEST_TYPE_PX and not isinstance(font, ImageFont.ImageFont):
        size = max(SMALLEST_TYPE_PX, size * SMALLER)
        fonts.append(font.font_variant(size=size))
    return fonts


def _padding(font: Font) -> int:
    return max(2, round(getattr(font, "size", SMALLEST_TYPE_PX) / 5))


def _plate_size(canvas: ImageDraw.ImageDraw, font: Font, text: str) -> tuple[int, int]:
    x0, y0, x1, y1 = canvas.textbbox((0, 0), text, font=font)
    pad = _padding(font)
    return int(np.ceil(x1 - x0)) + 2 * pad, int(np.ceil(y1 - y0)) + 2 * pad


def _places(
    plate: tuple[int, int], size: tuple[int, int], box: IntArray, only_near: bool
) -> IntArray:
    """Where a plate can go, ``(P, 4)``, best first: above, below and inside its box, and finally,
    unless ``only_near``, farther away.
    """
    wide, high = plate
    if wide > size[0] or high > size[1]:
        return np.empty((0, 4), np.int64)
    left, top, right, bottom = (int(v) for v in box)
    rows = [top - high, bottom, top, bottom - high]
    if not only_near:
        rows += [top - 2 * high, bottom + high]
    corners = [
        (min(max(x, 0), size[0] - wide), min(max(y, 0), size[1] - high))
        for y in rows
        for x in (left, right - wide, (left + right - wide) // 2)
    ]
    return np.array([(x, y, x + wide, y + high) for x, y in corners], np.int64)


def _shared_areas(boxes: IntArray, corners: IntArray) -> IntArray:
    """Area that each of N boxes shares with one other, ``(N,)``, or with each of P, ``(P, N)``."""
    corners = corners[..., None, :]
    first = np.maximum(boxes[:, :2], corners[..., :2])
    last = np.minimum(boxes[:, 2:], corners[..., 2:])
    return np.prod(np.clip(last - first, 0, None), axis=-1)


def _write(canvas: ImageDraw.ImageDraw, label: Label, color: str) -> None:
    """White text on a coloured plate."""
    left, top, right, bottom = label.plate
    font = label.font
    x0, y0, _, _ = canvas.textbbox((0, 0), label.text, font=font)
    pad = _padding(font)
    canvas.rectangle((left, top, right - 1, bottom - 1), color)
    canvas.text((left + pad - x0, top + pad - y0), label.text, "white", font)
