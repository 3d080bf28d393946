"""Exact area means of any part of a picture, from one integral image.

MTCNN's weights expect each pixel of a pyramid level or crop to be the mean of all photo pixels that
it touches, unrounded. An integral image gives such a mean with four look-ups whatever the scale, so
a photo is summed once and every level and crop is read from the same sums. (Resizing level from
level, or rounding to bytes between, moves boxes and landmarks by several per cent: measured by
``scripts/mtcnn_parity.py``.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facewise.types import FloatArray, ImageArray

Integral = NDArray[np.int32]


def integral_image(rgb: ImageArray) -> Integral:
    """Sums of all pixels above and to the left: uint8 ``(H, W, 3)`` to int32 ``(H+1, W+1, 3)``.

    Sums of a large photo pass 2**31 and wrap; differences wrap back, as long as a single window
    holds fewer than 8 million pixels.
    """
    import cv2

    return np.asarray(cv2.integral(rgb, sdepth=cv2.CV_32S), np.int32)


def _edges(start: NDArray[np.int64], length: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """First and one-past-last pixel of each of ``count`` windows: ``(N,)`` to ``(2, N, count)``.

    Windows of fractional size reach outwards to whole pixels, so neighbours may share one.
    """
    k = np.arange(count)
    first = (k * length[:, None]) // count
    last = -((-(k + 1) * length[:, None]) // count)
    edges: NDArray[np.int64] = np.stack([first, last]) + start[:, None]
    return edges


def resize_area(integral: Integral, width: int, height: int) -> FloatArray:
    """The whole picture at another size: float32 ``(height, width, 3)``, 0 to 255."""
    zero = np.zeros(1, np.int64)
    top, bottom = _edges(zero, zero + integral.shape[0] - 1, height)[:, 0]
    left, right = _edges(zero, zero + integral.shape[1] - 1, width)[:, 0]
    rows = integral[bottom] - integral[top]  # (height, W+1, 3)
    sums = rows[:, right] - rows[:, left]
    pixels = (bottom - top)[:, None] * (right - left)[None]
    mean: FloatArray = sums.astype(np.float32) / pixels[..., None].astype(np.float32)
    return mean


def crop_area(integral: Integral, corners: NDArray[np.int64], size_px: int) -> FloatArray:
    """Parts of the picture as squares.

    Args:
        integral: of the picture.
        corners: int64 ``(N, 4)``, left, top, right, bottom in whole pixels, inside the picture.
        size_px: side S of the squares.

    Returns:
        float32 ``(N, S, S, 3)``, 0 to 255; black where a part is empty.
    """
    left, top, right, bottom = corners.T
    empty = (right <= left) | (bottom <= top)
    y0, y1 = _edges(np.where(empty, 0, top), np.where(empty, 1, bottom - top), size_px)[..., None]
    x0, x1 = _edges(np.where(empty, 0, left), np.where(empty, 1, right - left), size_px)
    x0, x1 = x0[:, None], x1[:, None]
    sums = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    pixels = (y1 - y0) * (x1 - x0)
    mean: FloatArray = sums.astype(np.float32) / pixels[..., None].astype(np.float32)
    mean[empty] = 0
    return mean
