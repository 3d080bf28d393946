"""How much two thumbnails agree in fine detail, which confirms that they show one photo."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from facewise.dedupe.fingerprints import THUMB_PX
from facewise.types import ImageArray

CONFIRMED: Final = 0.9
"""Least correlation of fine detail for two pictures to be one photo. Chosen by eye: nearly all
UTKFace pairs above it are one photo; between 0.8 and 0.9, different shots of one session are mixed
in; and pairs of different people reach 0.85."""

MIDDLE_CONFIRMED: Final = 0.8
"""Least correlation of the middles' detail alone after a fit, because different pictures in the
same frame agree in the frame. It rejects none of the confirmed pairs in the shared data."""

DETAIL_SIGMA_PX: Final = 4.0
"""Shapes larger than this are removed from a thumbnail, because all frontal faces share them."""

SHIFT_PX: Final = 8
_MIDDLE: Final = (slice(SHIFT_PX, -SHIFT_PX),) * 2


def likeness(first: ImageArray, second: ImageArray) -> float:
    """Correlation of the fine detail of two thumbnails, at the best shift or the best fit.

    The shift compensates for a border; the affine fit (Evangelidis and Psarakis, 2008) for a tilt
    or another crop. Large shapes are removed first, because all frontal faces share them.

    Args:
        first: ``(64, 64)``.
        second: ``(64, 64)``.
    """
    import cv2

    a, b = (np.ascontiguousarray(thumb, np.float32) for thumb in (first, second))
    if a.std() < 1 or b.std() < 1:
        return 0.0  # nothing to compare
    fine_a, fine_b = _detail(a), _detail(b)
    inner = np.ascontiguousarray(fine_b[_MIDDLE])
    shifted = float(cv2.matchTemplate(fine_a, inner, cv2.TM_CCOEFF_NORMED).max())
    return max(shifted if np.isfinite(shifted) else 0.0, _fitted(a, b))


def _detail(grey: Any, smooth_px: float = 0.0) -> Any:
    import cv2

    fine = cv2.GaussianBlur(grey, (0, 0), smooth_px) if smooth_px else grey
    return fine - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA_PX)


def _fitted(a: Any, b: Any) -> float:
    """Correlation of detail after an affine fit; 0 if the fit fails or is implausible."""
    import cv2

    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    transform = np.eye(2, 3, dtype=np.float32)
    everywhere = np.ones(a.shape, np.uint8)
    try:
        cv2.findTransformECC(a, b, transform, cv2.MOTION_AFFINE, stop, everywhere, 3)
    except cv2.error:
        return 0.0  # it did not converge
    stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
    if not 2 / 3 < stretch[1] <= stretch[0] < 1.5:
        return 0.0
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (THUMB_PX, THUMB_PX)
    moved = cv2.warpAffine(b, transform, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(b), transform, size, flags=flags) > 0.99
    shared = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if shared.mean() < 0.4:
        return 0.0
    # Blur both slightly, because one is often the sharper copy.
    whole = _correlation(_detail(a, 1.0)[shared], _detail(moved, 1.0)[shared])
    return whole if whole < CONFIRMED or _middles_agree(a, moved, shared[_MIDDLE]) else 0.0


def _middles_agree(a: Any, b: Any, shared: Any) -> bool:
    """Whether pictures agree in more than a frame; True if both middles are plain."""
    # Crop before blurring, which would spread the frame inwards.
    middles = (np.ascontiguousarray(thumb[_MIDDLE]) for thumb in (a, b))
    x, y = (_detail(middle, 1.0)[shared] for middle in middles)
    return max(x.std(), y.std()) < 1 or _correlation(x, y) >= MIDDLE_CONFIRMED


def _correlation(x: Any, y: Any) -> float:
    """Correlation; 0 if either is plain."""
    return float(np.corrcoef(x, y)[0, 1]) if min(x.std(), y.std()) >= 1e-3 else 0.0
