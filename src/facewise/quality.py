"""Measures how much can be seen of a face, from its aligned crop and landmarks.

Sharpness compares two bands of the luma, each a difference of Gaussians: detail of about one pixel
of a 96 x 96 crop, and detail of some four pixels. A face in focus has both. Blur, or enlarging a
small face, removes the finer band and leaves the coarser, whatever the light; noise adds to the
finer. Overall contrast says little about either.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from facewise.types import FloatArray, ImageArray, Quality

SHARPNESS_SIZE_PX: Final = 96
"""Crops are resized to this first, so that sharpness does not depend on the model's input size."""

INNER_PX: Final = (16, 80)
"""Rows and columns measured at that size: the middle holds the face in any framing, while the rim
may be the photo's edge."""

FINE_SIGMA_PX: Final = 1.0
"""The finer band is what a Gaussian of this standard deviation removes."""

COARSE_SIGMAS_PX: Final = (1.4, 2.8)
"""The coarser band is the difference of Gaussians with these standard deviations."""

MIN_DEVIATION: Final = 1.5
"""Floor of the coarser band's standard deviation, in grey levels, when the finer is divided by it:
if blur leaves neither band, the rounding of pixels to whole levels, 0.3, would pass for detail."""

NOSE_DEPTH: Final = 0.6
"""How far the tip of the nose lies in front of the eyes, in units of the eye distance; rounded."""

FACE_HEIGHT: Final = 1.15
"""Distance from eyes to mouth, in the same unit, as in ``facewise.align.MEAN_SHAPE``."""


def yaw_from_landmarks(landmarks: FloatArray) -> float:
    """Rough turn of the head in degrees; 0 is frontal, positive with the nose to the right.

    Turning a head by w moves the tip of its nose by depth * sin(w) away from the line between the
    middle of the eyes and the middle of the mouth. This distinguishes a profile from a portrait but
    is no measurement: a detector trained on frontal faces tends to underestimate the turn.

    Args:
        landmarks: float32 ``(5, 2)``.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    axis = mouth - eyes
    length = max(float(np.hypot(*axis)), 1e-6)
    # Turning brings the eyes together, nodding shortens the face: the larger is less distorted.
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
        Its quality. ``sharpness`` is the standard deviation of luma detail finer than about one
        pixel at 96 x 96, divided by that of detail of some four pixels: 0.4 to 1.1 for most photos
        in focus, less if blurred or enlarged, more if noisy.
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
