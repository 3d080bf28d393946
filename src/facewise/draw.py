"""Boxes and labels on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from facewise.types import Photo, Prediction

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE: Final = ("#0b6e99", "#b3261e", "#2e7d32", "#7b3fa0", "#8a5a00", "#37474f")
"""Box colours; white text on each has a contrast of 4.5 or more."""


def describe(prediction: Prediction) -> str:
    """One line: "31 (24-39), female, Asian", with a question mark where facewise abstains."""
    parts = []
    if prediction.age_years is not None and prediction.age_interval_years is not None:
        first, last = prediction.age_interval_years
        mark = "?" if "age" in prediction.abstained else ""
        parts.append(f"{prediction.age_years:.0f}{mark} ({first}-{last})")
    for name, distribution in (
        ("gender", prediction.gender),
        ("ethnicity", prediction.ethnicity),
    ):
        if distribution is not None:
            parts.append(distribution.top + ("?" if name in prediction.abstained else ""))
    return ", ".join(parts)


def draw_predictions(photo: Photo, predictions: Sequence[Prediction]) -> Image.Image:
    """A copy of the photo with numbered boxes and a label a face.

    Line width and type grow with the photo; labels stay inside it.

    Args:
        photo: the upright photo.
        predictions: of this photo; boxes are in its pixels.

    Returns:
        A new RGB picture of the same size.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(photo.rgb)
    canvas = ImageDraw.Draw(picture)
    side = min(picture.size)
    width = max(1, round(side / 250))
    font = ImageFont.load_default(size=max(10.0, side / 32))
    for number, prediction in enumerate(predictions, start=1):
        color = PALETTE[(number - 1) % len(PALETTE)]
        left, top, right, bottom = (float(v) for v in prediction.face.bbox)
        canvas.rectangle((left, top, max(left, right), max(top, bottom)), None, color, width)
        _label(canvas, picture.size, font, f"{number}: {describe(prediction)}", (left, top), color)
    return picture


def _label(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    font: Font,
    text: str,
    corner: tuple[float, float],
    color: str,
) -> None:
    """White text on a coloured plate above a corner, moved inwards where it would leave."""
    x0, y0, x1, y1 = canvas.textbbox((0, 0), text, font=font)
    pad = max(2, (y1 - y0) // 4)
    wide, high = x1 - x0 + 2 * pad, y1 - y0 + 2 * pad
    left = min(max(corner[0], 0), max(size[0] - wide, 0))
    top = min(max(corner[1] - high, 0), max(size[1] - high, 0))
    canvas.rectangle((left, top, left + wide, top + high), color)
    canvas.text((left + pad - x0, top + pad - y0), text, "white", font)
