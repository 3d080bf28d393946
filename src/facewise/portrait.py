"""What the last looks take for a portrait: one large face near the middle of a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from facewise.images import BORDER
from facewise.resample import block_means
from facewise.types import Face, Photo

OTHER_SIDE: Final = [1, 0, 2, 4, 3]
"""A mirror makes the left eye the right one, and the left corner of the mouth the right one."""

BORDERED_PX: Final = 192
"""Shorter side that is left of a photo, or more, where it gets a border: half of it still has two
pixels for each of O-net's."""

MOST_SIDES: Final = 2
"""What is longer than so many times its shorter side was not cut out round a face."""


@dataclass(frozen=True, slots=True)
class View:
    """A photo, or a copy of it that is reduced and has a border.

    Attributes:
        photo: what is looked at.
        block: side of the blocks of the original's pixels that each pixel is the mean of.
        border: its width, pixels.
    """

    photo: Photo
    block: int = 1
    border: int = 0

    def back(self, face: Face) -> Face:
        """A face of the view as it lies in the original."""
        # Boxes count pixels from 1 and include the last: left and top edges are one less.
        edges = np.array([1, 1, 0, 0], np.float32)
        bbox = (face.bbox - self.border - edges) * self.block + edges
        landmarks = (face.landmarks - self.border) * self.block
        return Face(bbox.astype(np.float32), landmarks.astype(np.float32), face.detection_score)


@dataclass(frozen=True, slots=True)
class Portrait:
    """What to look for, and how strictly.

    Attributes:
        thresholds: of P-, R- and O-net.
        share_of_short_side: least width or height of the face, of the photo's shorter side.
        off_centre: furthest that its middle may lie from the photo's, as a share of the photo's
            width across and of its height down.
        border: width of a grey border to be put round the photo, of its shorter side: the networks
            learnt from faces in their surroundings, and miss the outline of one that fills the
            photo. 0 for none.
    """

    thresholds: tuple[float, float, float]
    share_of_short_side: float
    off_centre: float
    border: float

    def least_px(self, photo: Photo) -> float:
        """Least width or height of the face."""
        return self.share_of_short_side * min(photo.width_px, photo.height_px)

    def may_be_in(self, photo: Photo) -> bool:
        """Whether the photo has the shape: a tight one was cut out round a face."""
        sides = photo.width_px, photo.height_px
        return not self.border or max(sides) <= MOST_SIDES * min(sides)

    def view(self, photo: Photo) -> View:
        """The photo as it is looked at.

        Large ones are reduced before they get a border: only large faces are looked for, and the
        copy takes little memory. What is left over beside the last whole block falls away.
        """
        if not self.border:
            return View(photo)
        short_side = min(photo.width_px, photo.height_px)
        block = max(1, short_side // BORDERED_PX)
        border = round(short_side // block * self.border)
        around = (border, border), (border, border), (0, 0)
        rgb = np.pad(block_means(photo.rgb, block), around, constant_values=BORDER)
        return View(Photo(rgb, photo.source), block, border)

    def best(self, faces: Iterable[Face], photo: Photo) -> tuple[Face, ...]:
        """The likeliest of the faces that make the photo a portrait; empty where none does.

        Of equals the first.
        """
        size = np.array([photo.width_px, photo.height_px])
        least = self.least_px(photo)
        fitting = [
            face
            for face in faces
            if (face.bbox[2:] - face.bbox[:2]).max() >= least
            and (
                abs((face.bbox[:2] + face.bbox[2:]) / 2 - size / 2) <= self.off_centre * size
            ).all()
        ]
        return tuple(sorted(fitting, key=lambda face: -face.detection_score)[:1])


def mirror_photo(photo: Photo) -> Photo:
    """Left and right changed over."""
    return Photo(np.ascontiguousarray(photo.rgb[:, ::-1]), photo.source)


def mirror_face(face: Face, width_px: int) -> Face:
    """A face of a mirrored photo, of that width, as it lies in the photo itself."""
    left, top, right, bottom = face.bbox
    # Boxes count pixels from 1, landmarks from 0: see ``MTCNN``.
    bbox = np.array([width_px + 1 - right, top, width_px + 1 - left, bottom], np.float32)
    landmarks = face.landmarks[OTHER_SIDE].copy()
    landmarks[:, 0] = width_px - landmarks[:, 0]
    return Face(bbox, landmarks, face.detection_score)
