"""How much a face lets anyone see, from its aligned crop and landmarks.

Sharpness compares two bands of the luma, each a difference of Gaussians: detail of about a pixel of
a 96 x 96 crop, and detail of some four pixels. A face in focus has both. Blur, and enlarging a face
that was small once, take the finer away and leave the coarser, whatever the light; noise adds to
the finer. What a picture holds in all, its contrast, tells little of either.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from facewise.types import FloatArray, ImageArray, Quality

SHARPNESS_SIZE_PX: Final = 96
"""Crops are brought to this size first, so that sharpness does not depend on the model's input."""

INNER_PX: Final = (16, 80)
"""Rows and columns of that size that are measured: the middle holds the face whatever the framing,
the rim may be the photo's edge."""

FINE_SIGMA_PX: Final = 1.0
"""The finer band is what a Gaussian of this standard deviation takes away."""

COARSE_SIGMAS_PX: Final = (1.4, 2.8)
"""The coarser band is what the second takes away from what the first leaves."""

MIN_DEVIATION: Final = 1.5
"""Least deviation of the coarser band, in grey levels, that the finer is measured against: where a
blur leaves neither, the rounding of pixels to whole levels, 0.3, would pass for detail."""

NOSE_DEPTH: Final = 0.6
"""How far the tip of the nose stands before the eyes, in distances between the eyes; rounded."""

FACE_HEIGHT: Final = 1.15
"""From the eyes down to the mouth, in the same unit, as in ``facewise.align.MEAN_SHAPE``."""


def yaw_from_landmarks(landmarks: FloatArray) -> float:
    """Rough turn of the head in degrees; 0 is frontal, positive with the nose to the right.

    A head turned by w moves the tip of its nose by depth * sin(w) away from the line between the
    middle of the eyes and the middle of the mouth. Good to tell a profile from a portrait, not to
    measure: a detector trained on frontal faces tends to see less turn than there is.

    Args:
        landmarks: float32 ``(5, 2)``.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    axis = mouth - eyes
    length = max(float(np.hypot(*axis)), 1e-6)
    # A turn brings the eyes together, a nod shortens the face: the larger is nearer to frontal.
    eye_distance = max(float(np.hypot(*(landmarks[1] - landmarks[0]))), length / FACE_HEIGHT)
    nose = landmarks[2] - eyes
    across = float(axis[1] * nose[0] - axis[0] * nose[1]) / length
    sine = np.clip(across / (NOSE_DEPTH * eye_distance), -1.0, 1.0)
    return float(np.degrees(np.arcsin(sine)))


def measure_quality(crop: ImageArray, landmarks: FloatArray) -> Quality:
    """Measure one face.

    Args:
        crop: uint8 ``(S, S, 3)``, RGB, aligned.
        landmarks: float32 ``(5, 2)``, pixels of the photo.

    Returns:
        Its quality; ``sharpness`` is the standard deviation of the luma's detail finer than about
        a pixel at 96 x 96, over that of detail of some four pixels: 0.4 to 1.1 for most photos in
        focus, less when blurred or enlarged, more when noisy.
    """
    import cv2

    size = (SHARPNESS_SIZE_PX, SHARPNESS_SIZE_PX)
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    middle = slice(*INNER_PX)
    inner = np.ascontiguousarray(grey[middle, middle])
    mean, deviation = (float(v[0][0]) for v in cv2.meanStdDev(inner))
    luma = grey.astype(np.float32)
    fine, coarse, coarser = (
        cv2.GaussianBlur(luma, (0, 0), sigma)[middle, middle]
        for sigma in (FINE_SIGMA_PX, *COARSE_SIGMAS_PX)
    )
    detail = float(cv2.meanStdDev(inner - fine)[1][0][0])
    features = float(cv2.meanStdDev(coarse - coarser)[1][0][0])
    return Quality(
        eye_distance_px=float(np.hypot(*(landmarks[1] - landmarks[0]))),
        sharpness=detail / max(features, MIN_DEVIATION),
        yaw_degrees=yaw_from_landmarks(landmarks),
        brightness=mean / 255,
        contrast=deviation / 255,
    )
