"""How much a face lets anyone see, from its aligned crop and landmarks."""

from __future__ import annotations

from typing import Final

import numpy as np

from facewise.types import FloatArray, ImageArray, Quality

SHARPNESS_SIZE_PX: Final = 96
"""Crops are brought to this size first, so that sharpness does not depend on the model's input."""

YAW_PER_OFFSET_DEGREES: Final = 90.0
"""Degrees of turn for a nose displaced by the whole distance between the eyes. The nose tip stands
about 0.6 eye distances before the eyes' axis, so a turn of w moves it by about 0.6 sin(w)."""


def yaw_from_landmarks(landmarks: FloatArray) -> float:
    """Rough turn of the head in degrees; 0 is frontal, positive with the nose to the right.

    The nose's offset from the line between the middle of the eyes and the middle of the mouth, in
    eye distances, through a linear rule; good to tell a profile from a portrait, not to measure.

    Args:
        landmarks: float32 ``(5, 2)``.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    axis = mouth - eyes
    length = float(np.hypot(*axis))
    eye_distance = float(np.hypot(*(landmarks[1] - landmarks[0])))
    # In a profile the eyes nearly coincide, and the face's height is the steadier measure.
    unit = max(eye_distance, 0.6 * length, 1e-6)
    nose = landmarks[2] - eyes
    across = float(axis[1] * nose[0] - axis[0] * nose[1]) / max(length, 1e-6)
    return float(np.clip(across / unit * YAW_PER_OFFSET_DEGREES / 0.6, -90.0, 90.0))


def measure_quality(crop: ImageArray, landmarks: FloatArray) -> Quality:
    """Measure one face.

    Args:
        crop: uint8 ``(S, S, 3)``, RGB, aligned.
        landmarks: float32 ``(5, 2)``, pixels of the photo.

    Returns:
        Its quality; ``sharpness`` is the standard deviation of the Laplacian of the luma at
        96 x 96, over the luma's own standard deviation: blur lowers it, exposure does not.
    """
    import cv2

    size = (SHARPNESS_SIZE_PX, SHARPNESS_SIZE_PX)
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    # The middle holds the face whatever the framing; the rim may be the photo's edge.
    inner = np.ascontiguousarray(grey[16:80, 16:80])
    mean, deviation = (float(v[0][0]) for v in cv2.meanStdDev(inner))
    laplacian = cv2.Laplacian(inner, cv2.CV_32F)
    spread = float(cv2.meanStdDev(laplacian)[1][0][0])
    return Quality(
        eye_distance_px=float(np.hypot(*(landmarks[1] - landmarks[0]))),
        sharpness=spread / max(deviation, 4.0),
        yaw_degrees=yaw_from_landmarks(landmarks),
        brightness=mean / 255,
        contrast=deviation / 255,
    )
