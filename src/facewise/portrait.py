"""What the last look takes for a portrait: one large face near the middle of a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from facewise.types import Face, Photo

OTHER_SIDE = [1, 0, 2, 4, 3]
"""A mirror makes the left eye the right one, and the left corner of the mouth the right one."""


@dataclass(frozen=True, slots=True)
class Portrait:
    """What to look for, and how strictly.

    Attributes:
        thresholds: of P-, R- and O-net.
        share_of_short_side: least width or height of the face, of the photo's shorter side.
        off_centre: furthest that its middle may lie from the photo's, as a share of the photo's
            width across and of its height down.
    """

    thresholds: tuple[float, float, float]
    share_of_short_side: float
    off_centre: float

    def best(self, faces: Iterable[Face], photo: Photo) -> tuple[Face, ...]:
        """The likeliest of the faces that make the photo a portrait; empty where none does.

        Of equals the first.
        """
        size = np.array([photo.width_px, photo.height_px])
        least = self.share_of_short_side * size.min()
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
