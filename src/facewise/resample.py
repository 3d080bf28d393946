"""Exact area means of any part of a picture, from one integral image.

MTCNN's weights expect each pixel of a pyramid level or crop to be the unrounded mean of all photo
pixels it touches. An integral image gives such a mean with four look-ups at any scale, so a photo
is summed once, and every level and crop is read from the same sums. (Resizing each level from the
previous one, or rounding to bytes in between, moves boxes and landmarks by several per cent, as
``scripts/mtcnn_parity.py`` measures.)

A level is read row by row: the difference of two rows of sums is a row of windows summed down, and
OpenCV's nearest-neighbour resize picks the columns at the windows' edges, faster than indexing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facewise.images import BORDER
from facewise.types import FloatArray, ImageArray, IntArray

DETAIL: Final = 2
"""A crop is read from the reduced picture if that still has this many pixels per crop pixel, in
either direction."""

SHORT_PIXELS: Final = 257
"""The sum of this many bytes fits 16 bits, and differences of wrapped sums wrap back."""

CACHE_BYTES: Final = 400_000
"""Bytes of sums processed at a time: a processor core's own cache is about a megabyte."""

SUMMED_PX: Final = 4_000_000
"""Most pixels of a picture whose sums, 18 bytes per pixel, are held as a whole; larger ones are
summed strip by strip. Those are rare: large photos other than panoramas are reduced first."""

STRIP_PX: Final = 3_000_000
"""Pixels of a strip; more if one row of the coarsest windows needs it."""

AHEAD: Final = 3_000_000
"""Numbers (float32) of levels that may be read ahead: 12 MB."""

AHEAD_BY_STRIPS: Final = 12_000_000
"""The same for pictures summed by strips, where each read-ahead sums the picture again: 48 MB."""

MOST_KEPT: Final = 4096
"""Windows along a side of a level up to which they are kept for the next picture."""

MOST_MENDED: Final = 8
"""At most one in this many columns may be looked up individually; beyond that, all are."""


@dataclass(slots=True)
class _Sums:
    """Sums of all pixels above and to the left, for a picture or a strip of it.

    Attributes:
        exact: int32 ``(H + 1, W + 1, 3)``.
        top: the strip's first row.
    """

    exact: NDArray[np.int32]
    top: int = 0
    _short: NDArray[np.uint16] | None = None

    @property
    def short(self) -> NDArray[np.uint16]:
        """The lower 16 bits: half the bytes to move, and enough for windows of few pixels."""
        if self._short is None:
            self._short = self.exact.astype(np.uint16)
        return self._short


def block_means(rgb: ImageArray, side: int) -> ImageArray:
    """Means of blocks of ``side`` by ``side`` pixels: uint8 ``(H // side, W // side, 3)``.

    Leftover pixels at the right and bottom are dropped. With ``side`` 1, the picture itself.
    """
    import cv2

    if side == 1:
        return rgb
    height, width = (length // side for length in rgb.shape[:2])
    whole = rgb[: height * side, : width * side]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class AreaSource:
    """A picture ready to be read at any scale.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        reduction: side of the pixel blocks that levels are read from, and crops too if that leaves
            them ``DETAIL``. 1 is exact; more saves the time of summing a large photo when only
            coarse levels are needed.
    """

    def __init__(self, rgb: ImageArray, reduction: int = 1) -> None:
        self._rgb = rgb
        self.reduction = reduction
        self._blocks = rgb = block_means(rgb, reduction)
        large = rgb.shape[0] * rgb.shape[1] > SUMMED_PX
        self._sums = None if large else _Sums(_integral(rgb))
        self._buffers: dict[str, NDArray[np.uint16]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._rgb.shape[1], self._rgb.shape[0]

    def _by_strips(self, sizes: Sequence[tuple[int, int]]) -> list[FloatArray]:
        """Compute all levels in one pass down the picture, without sums of all of it."""
        rows, columns = self._blocks.shape[:2]
        windows = [(_windows(columns, width), _windows(rows, height)) for width, height in sizes]
        means = [np.empty((height, width, 3), np.float32) for width, height in sizes]
        done = [0] * len(sizes)  # rows of each level
        strip = max([STRIP_PX // columns, *(y.longest for _, y in windows)])
        top = 0
        while top < rows:
            sums = _Sums(_integral(self._blocks[top : top + strip]), top)
            tops = [rows]
            for index, ((x, y), mean) in enumerate(zip(windows, means, strict=True)):
                start = done[index]
                end = int(np.searchsorted(y.end, top + strip, side="right"))
                if start < end:
                    self._read(sums, x, y, start, mean[start:end])
                    done[index] = end
                tops += y.first[done[index] :][:1].tolist()
            top = min(tops)
        return means

    def _read(self, sums: _Sums, x: _Windows, y: _Windows, start: int, mean: FloatArray) -> None:
        """Fill in rows of a level, starting at row ``start``: float32 ``(n, width, 3)``."""
        height, width = mean.shape[:2]
        first, end = (edge[start : start + height] - sums.top for edge in (y.first, y.end))
        if x.longest * y.longest > SHORT_PIXELS:
            windows = x.first[None], first[None], x.end[None], end[None]
            down = y.reciprocal[None, start : start + height]
            mean[:] = _means(sums.exact, windows, x.reciprocal[None], down)[0]
            return
        across, down = np.repeat(x.reciprocal, 3), y.reciprocal[start : start + height, None]
        columns = sums.exact.shape[1]
        short = sums.short.reshape(len(sums.short), -1)
        # As many rows at a time as fit the processor's cache.
        step = min(height, max(1, CACHE_BYTES // short[0].nbytes))
        below = self._scratch("below", (step, columns, 3))
        above = self._scratch("above", below.shape)
        picked = (self._scratch("first", (step, width, 3)), self._scratch("end", (step, width, 3)))
        for row in range(0, height, step):
            row = min(row, height - step)
            piece = slice(row, row + step)
            # "clip" avoids checking each index and copying the whole.
            np.take(short, end[piece], axis=0, out=below.reshape(step, -1), mode="clip")
            np.take(short, first[piece], axis=0, out=above.reshape(step, -1), mode="clip")
            np.subtract(below, above, out=below)
            target = mean[piece].reshape(step, -1)
            np.copyto(target, _subtract_columns(below, x, *picked).reshape(step, -1))
            target *= down[piece]
            target *= across

    def levels(self, sizes: Sequence[tuple[int, int]]) -> Iterator[FloatArray]:
        """The whole picture at these widths and heights: float32 ``(height, width, 3)``, 0 to 255.

        Levels are read ahead in groups: work done on a level in between evicts the sums from the
        processor's cache.
        """
        limit = AHEAD_BY_STRIPS if self._sums is None else AHEAD
        ahead: list[tuple[int, int]] = []
        for number, (width, height) in enumerate(sizes, 1):
            ahead.append((width, height))
            if number == len(sizes) or sum(w * h * 3 for w, h in ahead) > limit:
                levels = self._read_levels(ahead)
                levels.reverse()
                while levels:  # used levels are freed
                    yield levels.pop()
                ahead.clear()

    def _read_levels(self, sizes: Sequence[tuple[int, int]]) -> list[FloatArray]:
        if self._sums is None:
            return self._by_strips(sizes)
        rows, columns = self._blocks.shape[:2]
        means = [np.empty((height, width, 3), np.float32) for width, height in sizes]
        for (width, height), mean in zip(sizes, means, strict=True):
            self._read(self._sums, _windows(columns, width), _windows(rows, height), 0, mean)
        return means

    def _scratch(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint16]:
        """An uninitialised array in memory that is reused: new pages are expensive."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, np.uint16)
        return self._buffers[name][:size].reshape(shape)

    def crops(self, corners: IntArray, size_px: int) -> FloatArray:
        """Parts of the picture, or of the grey around it, resized to squares.

        Args:
            corners: int64 ``(N, 4)``, left, top, right, bottom in whole pixels.
            size_px: side S of the squares.

        Returns:
            float32 ``(N, S, S, 3)``, 0 to 255; an empty part gives a grey square.
        """
        if self.reduction == 1:
            return self._crops(corners, size_px)
        sides = np.minimum(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        fine = sides < DETAIL * size_px * self.reduction
        squares = np.empty((len(corners), size_px, size_px, 3), np.float32)
        coarse = np.round(corners[~fine] / self.reduction).astype(np.int64)
        # A corner beyond the last whole block may round up to a block that does not exist.
        height, width = self._blocks.shape[:2]
        inside = corners[~fine] <= np.tile(self.size, 2)
        coarse = np.where(inside, np.minimum(coarse, (width, height, width, height)), coarse)
        squares[~fine] = self._crops(coarse, size_px)
        squares[fine] = _crops_apart(self._rgb, corners[fine], size_px)
        return squares

    def _crops(self, corners: IntArray, size_px: int) -> FloatArray:
        """``crops`` on the blocks, in block coordinates."""
        if self._sums is None:
            return _crops_apart(self._blocks, corners, size_px)
        return _crops(self._sums.exact, corners, size_px)


def _crops_apart(rgb: ImageArray, corners: IntArray, size_px: int) -> FloatArray:
    """Crops from separate sums of each part: memory is that of the largest part."""
    squares = np.empty((len(corners), size_px, size_px, 3), np.float32)
    height, width = rgb.shape[:2]
    inside = np.clip(corners, 0, (width, height, width, height))
    for square, part, box in zip(squares, inside.tolist(), corners, strict=True):
        left, top, right, bottom = part
        sums = _integral(rgb[top : max(top, bottom), left : max(left, right)])
        square[:] = _crops(sums, box[None] - (left, top, left, top), size_px)[0]
    return squares


def _integral(rgb: ImageArray) -> NDArray[np.int32]:
    """Sums of all pixels above and to the left: uint8 ``(H, W, 3)`` to int32 ``(H+1, W+1, 3)``.

    Sums of a large photo exceed 2**31 and wrap; differences wrap back as long as each window has
    fewer than 8 million pixels.
    """
    import cv2

    return np.asarray(cv2.integral(rgb, sdepth=cv2.CV_32S), np.int32)


def _edges(start: IntArray, length: IntArray, count: int) -> IntArray:
    """First and one-past-last pixel of each of ``count`` windows: ``(N,)`` to ``(2, N, count)``.

    Windows of fractional size extend outwards to whole pixels, so neighbours may share a pixel.
    """
    k = np.arange(count)
    first = (k * length[:, None]) // count
    last = -((-(k + 1) * length[:, None]) // count)
    return np.stack([first, last]) + start[:, None]


def _reciprocal(count: IntArray) -> FloatArray:
    return np.float32(1) / count.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows along one side of a level.

    Attributes:
        first: first pixel of each.
        end: one past the last pixel of each.
        reciprocal: reciprocals of their lengths.
        longest: length of the longest, in pixels.
        mended: indices that ``_subtract_columns`` must look up individually.
    """

    first: IntArray
    end: IntArray
    reciprocal: FloatArray
    longest: int
    mended: IntArray


def _windows(length: int, count: int) -> _Windows:
    # Those of a panorama take megabytes, and little time beside its pixels.
    make = _kept_windows if count <= MOST_KEPT else _make_windows
    return make(length, count)


def _make_windows(length: int, count: int) -> _Windows:
    import cv2

    zero = np.zeros(1, np.int64)
    first, end = _edges(zero, zero + length, count)[:, 0]
    numbers = np.arange(length, dtype=np.float32)[None]
    picked = cv2.resize(numbers, (count, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.int64)
    next_ones = np.append(picked[1:] + 1, -1)
    mended = np.flatnonzero((picked != first) | (next_ones != end))
    return _Windows(first, end, _reciprocal(end - first), int((end - first).max()), mended)


_kept_windows = lru_cache(maxsize=256)(_make_windows)


def _subtract_columns(
    sums: NDArray[np.uint16], x: _Windows, first: NDArray[np.uint16], end: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """Differences of columns, each window's end minus its first, ``(rows, width, 3)``.

    Nearest-neighbour resizing picks each window's first pixel, ``floor(k * length / count)``. The
    window before ends one pixel later, except for the few that end between two pixels and the last
    window; those are looked up.

    Args:
        sums: ``(rows, length + 1, 3)``.
        x: the windows.
        first: work space ``(rows, width, 3)``, usually returned as the result.
        end: more work space of the same shape.
    """
    import cv2

    mended = x.mended
    if len(mended) * MOST_MENDED > len(x.first):
        return np.asarray(sums[:, x.end] - sums[:, x.first], np.uint16)
    size = (len(x.first), len(sums))
    cv2.resize(sums[:, :-1], size, dst=first, interpolation=cv2.INTER_NEAREST)
    cv2.resize(sums[:, 1:], size, dst=end, interpolation=cv2.INTER_NEAREST)
    # As one long row, which is faster; only the last window of each row mixes rows, and is mended.
    np.subtract(end.reshape(-1)[3:], first.reshape(-1)[:-3], out=first.reshape(-1)[:-3])
    first[:, mended] = sums[:, x.end[mended]] - sums[:, x.first[mended]]
    return first


def _crops(sums: NDArray[np.int32], corners: IntArray, size_px: int) -> FloatArray:
    """``AreaSource.crops`` from sums alone."""
    left, top, right, bottom = corners.T
    empty = (right <= left) | (bottom <= top)
    x = _edges(np.where(empty, -1, left), np.where(empty, 1, right - left), size_px)
    y = _edges(np.where(empty, -1, top), np.where(empty, 1, bottom - top), size_px)
    across, down = _reciprocal(x[1] - x[0]), _reciprocal(y[1] - y[0])
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    past = empty | (left < 0) | (top < 0) | (right > width) | (bottom > height)
    x[:, past] = np.clip(x[:, past], 0, width)
    y[:, past] = np.clip(y[:, past], 0, height)
    squares = _means(sums, (x[0], y[0], x[1], y[1]), across, down)
    if past.any():
        seen_across = (x[1, past] - x[0, past]) * across[past]
        seen_down = (y[1, past] - y[0, past]) * down[past]
        squares[past] += BORDER * (1 - seen_down[:, :, None] * seen_across[:, None])[..., None]
    return squares


def _means(
    sums: NDArray[np.int32],
    windows: tuple[IntArray, IntArray, IntArray, IntArray],
    across: FloatArray,
    down: FloatArray,
) -> FloatArray:
    """Means of individual windows.

    Args:
        sums: of all pixels above and to the left.
        windows: left ``(N, width)``, top ``(N, height)``, right and bottom alike.
        across: reciprocals of the windows' widths ``(N, width)``.
        down: reciprocals of their heights ``(N, height)``.

    Returns:
        float32 ``(N, height, width, 3)``.
    """
    left, top, right, bottom = windows
    # The three sums of a pixel are copied as one item, by its index in the flat array.
    pixels = sums.reshape(-1).view("V12")
    column0, column1 = left[:, None], right[:, None]  # (N, 1, width)
    row0, row1 = (y[..., None] * sums.shape[1] for y in (top, bottom))  # (N, height, 1)

    def look_up(rows: IntArray, columns: IntArray) -> NDArray[np.int32]:
        return pixels.take(rows + columns).view(np.int32)  # (N, height, 3 width)

    part = look_up(row1, column1)
    part -= look_up(row0, column1)
    part -= look_up(row1, column0)
    part += look_up(row0, column0)
    mean = part.astype(np.float32)
    mean *= down[..., None]
    mean *= np.repeat(across, 3, axis=1)[:, None]
    return mean.reshape(*mean.shape[:2], left.shape[1], 3)
