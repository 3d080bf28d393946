"""Scenes for the detector's golden file, and what counts as the same face.

Only whole numbers and Pillow's fixed-point filters are used, and no random generator, so the
pictures are the same on every machine. ``scripts/mtcnn_parity.py`` shows them to facenet-pytorch
and stores its answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

DATA = Path(__file__).parents[1] / "data"
MIN_FACE_PX = 20
MIN_IOU = 0.9
MAX_LANDMARK_SHARE = 0.03
"""As a share of the width of the reference's box."""

Floats = NDArray[np.floating[Any]]


def backdrop(width: int, height: int, number: int) -> Image.Image:
    """Two gradients with a few shapes on them."""
    y, x = np.mgrid[:height, :width]
    red = 40 + x * 150 // width
    green = 60 + y * (60 + 20 * number % 90) // height
    blue = 200 - (x + y) * 120 // (width + height)
    picture = Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))
    canvas = ImageDraw.Draw(picture)
    for shape in range(number % 7 + 2):
        left, top = shape * 97 * (number + 3) % width, shape * 61 * (number + 5) % height
        size = 15 + shape * 23 % 60
        color = (shape * 50 % 256, 255 - shape * 30, number * 40 % 256)
        draw = canvas.ellipse if shape % 2 else canvas.rectangle
        draw((left, top, left + size, top + size // 2 + 9), color)
    return picture


def scenes() -> Iterator[tuple[str, Image.Image]]:
    """Name and picture: large and small faces, many, turned, dark, blurred, cut off, and none."""
    paths = sorted((DATA / "faces").glob("*.webp"))
    faces = [Image.open(path).convert("RGB") for path in paths]

    def face(index: int, size: int) -> Image.Image:
        return faces[index % len(faces)].resize((size, size), Image.Resampling.BOX)

    def one(number: int, size: int, x: int, y: int) -> Image.Image:
        picture = backdrop(480, 360, number)
        picture.paste(face(number * 3 + 1, size), (x, y))
        return picture

    def many(number: int, size: int, columns: int, rows: int) -> Image.Image:
        step = size + 12
        picture = backdrop(columns * step + 12, rows * step + 12, number)
        for cell in range(columns * rows):
            row, column = divmod(cell, columns)
            picture.paste(face(number + cell, size), (12 + column * step, 12 + row * step))
        return picture

    yield "one-large", one(1, 280, 90, 40)
    yield "one-small", one(2, 72, 300, 200)
    yield "one-own-size", one(3, 192, 20, 150)
    yield "six", many(4, 120, 3, 2)
    yield "twelve", many(11, 80, 4, 3)
    yield "turned-left", one(5, 200, 140, 80).rotate(15, Image.Resampling.BILINEAR)
    yield "turned-right", one(6, 160, 160, 100).rotate(-18, Image.Resampling.BILINEAR)
    yield "dark", ImageEnhance.Brightness(one(3, 220, 60, 60)).enhance(0.25)
    yield "blurred", one(8, 200, 200, 100).filter(ImageFilter.GaussianBlur(2))
    yield "cut-off", one(9, 240, 330, 100)
    yield "portrait", Image.open(DATA / "astronaut.jpg").convert("RGB")
    yield "nobody", backdrop(400, 300, 12)


def is_same_face(box: Floats, points: Floats, other_box: Floats, other_points: Floats) -> bool:
    """Whether two detections agree: boxes ``(4,)`` by IoU, each of five landmarks by distance."""
    first = np.maximum(box[:2], other_box[:2])
    last = np.minimum(box[2:], other_box[2:])
    shared = float(np.prod(np.clip(last - first, 0, None)))
    areas = float(np.prod(box[2:] - box[:2]) + np.prod(other_box[2:] - other_box[:2]))
    distance = float(np.hypot(*(points - other_points).T).max())
    width = float(box[2] - box[0])
    return shared / (areas - shared) >= MIN_IOU and distance <= MAX_LANDMARK_SHARE * width


def count_matches(boxes: Floats, points: Floats, other_boxes: Floats, other_points: Floats) -> int:
    """How many of N reference faces are among M others, each matched at most once."""
    left = list(range(len(other_boxes)))
    matched = 0
    for box, own in zip(boxes, points, strict=True):
        for index in left:
            if is_same_face(box, own, other_boxes[index], other_points[index]):
                left.remove(index)
                matched += 1
                break
    return matched
