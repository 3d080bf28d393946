"""The detector's last looks, for a portrait: one large face near the middle of a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from facewise.images import BORDER
from facewise.resample import block_means
from facewise.types import Face, Photo

OTHER_SIDE: Final = [1, 0, 2, 4, 3]
"""Landmark order in a mirror image: left and right eyes and mouth corners swap."""

BORDERED_PX: Final = 192
"""Least shorter side to which a photo is reduced before it gets a border: half of it still has two
pixels per pixel of O-net's input."""

MOST_SIDES: Final = 2
"""A picture longer than this many times its shorter side was not cropped around a face."""


@dataclass(frozen=True, slots=True)
class View:
    """A photo, or a reduced copy of it with a border.

    Attributes:
        photo: the picture to search.
        block: side of the blocks of original pixels that each pixel is the mean of.
        border: width of the border, in pixels of the view.
    """

    photo: Photo
    block: int = 1
    border: int = 0

    def back(self, face: Face) -> Face:
        """Convert a face of the view to the coordinates of the original."""
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
        share_of_short_side: least size of the face, the larger of width and height, as a share of
            the photo's shorter side.
        off_centre: furthest that its middle may lie from the photo's, as a share of the photo's
            width across and of its height down.
        border: width of a grey border added around the photo, as a share of its shorter side: the
            networks learnt from faces in their surroundings, and miss the outline of a face that
            fills the photo. 0 for none.
    """

    thresholds: tuple[float, float, float]
    share_of_short_side: float
    off_centre: float
    border: float

    def least_px(self, photo: Photo) -> float:
        """Least size of the face, the larger of width and height, in pixels."""
        return self.share_of_short_side * min(photo.width_px, photo.height_px)

    def may_be_in(self, photo: Photo) -> bool:
        """Whether the photo's shape allows a portrait; with a border, it must not be too long."""
        sides = photo.width_px, photo.height_px
        return not self.border or max(sides) <= MOST_SIDES * min(sides)

    def view(self, photo: Photo) -> View:
        """The view to search.

        Large photos are reduced before they get a border: only large faces are sought, and the
        copy takes little memory. Pixels beyond the last whole block are dropped.
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
        """The most probable face that makes the photo a portrait; empty if none does.

        Ties go to the first.
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
    """Swap left and right."""
    return Photo(np.ascontiguousarray(photo.rgb[:, ::-1]), photo.source)


def mirror_face(face: Face, width_px: int) -> Face:
    """Convert a face of a mirrored photo to the coordinates of the photo, ``width_px`` wide."""
    left, top, right, bottom = face.bbox
    # Boxes count pixels from 1, landmarks from 0: see ``facewise.types``.
    bbox = np.array([width_px + 1 - right, top, width_px + 1 - left, bottom], np.float32)
    landmarks = face.landmarks[OTHER_SIDE].copy()
    landmarks[:, 0] = width_px - landmarks[:, 0]
    return Face(bbox, landmarks, face.detection_score)
