"""Exact area means of any part of a picture, from one integral image.

MTCNN's weights expect each pixel of a pyramid level or crop to be the mean of all photo pixels that
it touches, unrounded. An integral image gives such a mean with four look-ups whatever the scale, so
a photo is summed once and every level and crop is read from the same sums. (Resizing level from
level, or rounding to bytes between, moves boxes and landmarks by several per cent: measured by
``scripts/mtcnn_parity.py``.)

The sums lie column by column: one pass then picks whole columns, a transposition turns the result,
and the second pass picks whole rows, so that both copy long runs instead of single pixels.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.types import FloatArray, ImageArray

Integers = NDArray[np.int64]

DETAIL: Final = 2
"""A crop is read from the reduced picture where that still has so many pixels for each of its."""

SHORT_PIXELS: Final = 257
"""The sum of so many bytes fits 16 bits, and differences of wrapped sums wrap back."""

CACHE_BYTES: Final = 400_000
"""Of sums that are turned at a time: a processor core's own cache is a megabyte or so."""


class AreaSource:
    """A picture ready to be read at any scale.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        reduction: levels are read from blocks of so many pixels squared, and so are crops where
            that leaves them ``DETAIL``. 1 is exact; more saves the time and the memory (12 bytes a
            pixel) of summing a large photo of which only coarse levels are wanted.
    """

    def __init__(self, rgb: ImageArray, reduction: int = 1) -> None:
        import cv2

        self._rgb = rgb
        self._reduction = reduction
        if reduction > 1:
            height, width = (side // reduction for side in rgb.shape[:2])
            whole = rgb[: height * reduction, : width * reduction]
            rgb = np.asarray(
                cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8
            )
        self._sums = _integral(rgb)
        self._short: NDArray[np.uint16] | None = None
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._rgb.shape[1], self._rgb.shape[0]

    def level(self, width: int, height: int) -> FloatArray:
        """The whole picture at another size: float32 ``(height, width, 3)``, 0 to 255.

        The array is overwritten by the next call.
        """
        import cv2

        sums: NDArray[Any] = self._sums
        zero = np.zeros(1, np.int64)
        left, right = _edges(zero, zero + sums.shape[0] - 1, width)[:, 0]
        top, bottom = _edges(zero, zero + sums.shape[1] - 1, height)[:, 0]
        if int((right - left).max() * (bottom - top).max()) <= SHORT_PIXELS:
            sums = self._short_sums()
        down = _reciprocal(bottom - top)[:, None]
        across = np.repeat(_reciprocal(right - left), 3)
        mean = self._scratch("mean", (height, width * 3), np.float32)
        # So many columns at a time as the processor's cache holds.
        dtype = sums.dtype.type
        step = min(width, max(8, CACHE_BYTES // (3 * sums.itemsize * sums.shape[1])))
        columns = self._scratch("columns", (step, sums.shape[1], 3), dtype)
        others = self._scratch("others", columns.shape, dtype)
        turned = self._scratch("turned", (sums.shape[1], step, 3), dtype)
        part = self._scratch("part", (height, step * 3), dtype)
        subtracted = self._scratch("subtracted", part.shape, dtype)
        for first in range(0, width, step):
            first = min(first, width - step)
            piece = slice(first, first + step)
            # "clip" spares a check of each index and a copy of the whole.
            np.take(sums, right[piece], axis=0, out=columns, mode="clip")
            np.take(sums, left[piece], axis=0, out=others, mode="clip")
            np.subtract(columns, others, out=columns)
            cv2.transpose(columns, dst=turned)
            rows = turned.reshape(-1, step * 3)
            np.take(rows, bottom, axis=0, out=part, mode="clip")
            np.take(rows, top, axis=0, out=subtracted, mode="clip")
            np.subtract(part, subtracted, out=part)
            target = mean[:, 3 * first : 3 * (first + step)]
            np.multiply(part, down, out=target, casting="unsafe", dtype=np.float32)
            np.multiply(target, across[3 * first : 3 * (first + step)], out=target)
        return mean.reshape(height, width, 3)

    def _short_sums(self) -> NDArray[np.uint16]:
        """The sums' lower halves, half the bytes to move: enough for windows of few pixels."""
        if self._short is None:
            self._short = self._sums.astype(np.uint16)
        return self._short

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """An array of any content, of memory that is taken once: new pages are dear."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].view(dtype).reshape(shape)

    def crops(self, corners: Integers, size_px: int) -> FloatArray:
        """Parts of the picture as squares.

        Args:
            corners: int64 ``(N, 4)``, left, top, right, bottom in whole pixels, inside the picture.
            size_px: side S of the squares.

        Returns:
            float32 ``(N, S, S, 3)``, 0 to 255; black where a part is empty.
        """
        if self._reduction == 1:
            return _crops(self._sums, corners, size_px)
        sides = np.minimum(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        fine = sides < DETAIL * size_px * self._reduction
        squares = np.empty((len(corners), size_px, size_px, 3), np.float32)
        coarse = np.round(corners[~fine] / self._reduction).astype(np.int64)
        squares[~fine] = _crops(self._sums, coarse, size_px)
        for index in np.flatnonzero(fine):
            left, top, right, bottom = (int(v) for v in corners[index])
            if right <= left or bottom <= top:
                squares[index] = 0
                continue
            part = np.array([[0, 0, right - left, bottom - top]])
            sums = _integral(self._rgb[top:bottom, left:right])
            squares[index] = _crops(sums, part, size_px)[0]
        return squares


def _integral(rgb: ImageArray) -> NDArray[np.int32]:
    """Sums of all pixels above and to the left: uint8 ``(H, W, 3)`` to int32 ``(W+1, H+1, 3)``.

    Sums of a large photo pass 2**31 and wrap; differences wrap back, as long as a single window
    holds fewer than 8 million pixels.
    """
    import cv2

    return np.asarray(cv2.integral(cv2.transpose(rgb), sdepth=cv2.CV_32S), np.int32)


def _edges(start: Integers, length: Integers, count: int) -> Integers:
    """First and one-past-last pixel of each of ``count`` windows: ``(N,)`` to ``(2, N, count)``.

    Windows of fractional size reach outwards to whole pixels, so neighbours may share one.
    """
    k = np.arange(count)
    first = (k * length[:, None]) // count
    last = -((-(k + 1) * length[:, None]) // count)
    edges: Integers = np.stack([first, last]) + start[:, None]
    return edges


def _reciprocal(count: Integers) -> FloatArray:
    return np.float32(1) / count.astype(np.float32)


def _crops(sums: NDArray[np.int32], corners: Integers, size_px: int) -> FloatArray:
    """``AreaSource.crops`` from sums alone."""
    left, top, right, bottom = corners.T
    empty = (right <= left) | (bottom <= top)
    x0, x1 = _edges(np.where(empty, 0, left), np.where(empty, 1, right - left), size_px)
    y0, y1 = _edges(np.where(empty, 0, top), np.where(empty, 1, bottom - top), size_px)
    # A pixel's three sums are copied as one thing, by its place in the flat array.
    pixels = sums.reshape(-1).view("V12")
    column0, column1 = (x[:, None] * sums.shape[1] for x in (x0, x1))  # (N, 1, S)
    row0, row1 = y0[..., None], y1[..., None]  # (N, S, 1)

    def look_up(rows: Integers, columns: Integers) -> NDArray[np.int32]:
        return pixels.take(rows + columns).view(np.int32)  # (N, S, 3 S)

    part = look_up(row1, column1)
    part -= look_up(row0, column1)
    part -= look_up(row1, column0)
    part += look_up(row0, column0)
    mean = part.astype(np.float32)
    mean *= _reciprocal(y1 - y0)[..., None]
    mean *= np.repeat(_reciprocal(x1 - x0), 3, axis=1)[:, None]
    mean[empty] = 0
    return mean.reshape(len(corners), size_px, size_px, 3)
