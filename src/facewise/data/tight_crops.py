"""How tight crops of data sets enter the pipeline, for training, scoring and tests alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from facewise.images import BORDER
from facewise.types import Face, ImageArray, Photo

DETECTION_BORDER: Final = 0.35
"""Grey border around a tight crop, as a share of its width, so that MTCNN finds the face."""

DETECTION: Final = 2
"""Increase this whenever the code of the border or the detector changes the landmarks found, so
that stored ones are computed again; increase ``evaluation.outcomes.OUTCOMES_VERSION`` too."""

AGE_IF_NOT_FOUND: Final = 33.0
"""Age assumed for a face that was not found, in years; it counts as wrong in every class."""


def add_border(rgb: ImageArray, share: float = DETECTION_BORDER) -> tuple[ImageArray, int]:
    """Add a grey border of ``share`` of the width on every side; returns picture and border, px."""
    border = round(rgb.shape[1] * share)
    padded = np.full(
        (rgb.shape[0] + 2 * border, rgb.shape[1] + 2 * border, 3), BORDER, dtype=np.uint8
    )
    padded[border : border + rgb.shape[0], border : border + rgb.shape[1]] = rgb
    return padded, border


def nearest_to_centre(faces: Sequence[Face], photo: Photo) -> Face | None:
    """The face whose box centre is nearest to the middle of the photo; None if there is none."""
    centre = np.array([photo.width_px, photo.height_px], dtype=np.float32) / 2

    def distance(face: Face) -> float:
        return float(np.hypot(*((face.bbox[:2] + face.bbox[2:]) / 2 - centre)))

    return min(faces, key=distance, default=None)
