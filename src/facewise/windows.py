"""P-net's windows: the pieces of a level it scans, and the windows that may hold a face."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from facewise.types import FloatArray, IndexArray

CELL_PX: Final = 12
"""Side of P-net's window."""

STRIDE_PX: Final = 2
"""Step of P-net's window."""

PIECE_AREA_PX: Final = 60_000
"""Pixels of a level that P-net processes at a time; see ``pieces``."""

MIN_STEP_PX: Final = 24
"""Least step from one piece to the next, however long their other side is."""


WINDOWS_AT_ONCE: Final = 256
"""Most windows of levels that are suppressed together: each window is also compared, needlessly,
with those of the other levels."""


@dataclass(slots=True)
class Candidates:
    """Boxes between two stages."""

    boxes: FloatArray  # (N, 4)
    logits: FloatArray  # (N,), of a face


@dataclass(slots=True)
class Map:
    """P-net's output for a piece of a level.

    Attributes:
        logit: ``(1, h, w)``.
        regression: ``(1, 4, h, w)``.
        left: the piece's first column.
        top: the piece's first row.
        scale: scale of the level.
    """

    logit: FloatArray
    regression: FloatArray
    left: int
    top: int
    scale: float


def logit_of(probability: float) -> float:
    """The logit that corresponds to a probability."""
    return math.log(probability / (1 - probability))


def pieces(level_image: FloatArray) -> Iterator[tuple[int, int, FloatArray]]:
    """Split a level into pieces; yields left column, top row and pixels of each.

    P-net's layers then fit the processor's cache, and memory however long and narrow the picture.
    Pieces overlap by as much as a window needs and begin at even pixels, so that together they give
    exactly the windows of the whole level.
    """
    height, width = level_image.shape[:2]
    for columns in _cuts(width, _step(MIN_STEP_PX)):
        for rows in _cuts(height, _step(columns.stop - columns.start)):
            yield columns.start, rows.start, level_image[rows, columns]


def _step(other_side: int) -> int:
    """Step from one piece to the next, given the length of their other side."""
    return max(MIN_STEP_PX, PIECE_AREA_PX // other_side // STRIDE_PX * STRIDE_PX)


def _cuts(length: int, step: int) -> Iterator[slice]:
    overlap = CELL_PX - STRIDE_PX
    for start in range(0, max(1, length - overlap), step):
        last = length - start - step < CELL_PX
        yield slice(start, length if last else start + step + overlap)
        if last:
            return


def likely_windows(
    maps: Sequence[Map], threshold: float
) -> Iterator[tuple[Candidates, FloatArray, IndexArray]]:
    """Yield windows that may hold a face, a few levels at a time.

    Each item also has their regressions ``(N, 4)`` and level numbers ``(N,)``, ascending. All maps
    are searched at once, and levels with few windows are joined: with few faces, numpy's call
    overhead is the cost.
    """
    logits = np.concatenate([m.logit.ravel() for m in maps])
    hits = np.flatnonzero(logits >= logit_of(threshold))
    if len(hits) == 0:
        return
    sizes = np.array([m.logit.size for m in maps])
    ends = np.cumsum(sizes)
    owner = np.searchsorted(ends, hits, side="right")  # (N,), which map
    place = hits - (ends - sizes)[owner]
    row, column = np.divmod(place, np.array([m.logit.shape[2] for m in maps])[owner])
    origin = np.array([(m.left, m.top) for m in maps])[owner]
    scale = np.array([m.scale for m in maps], np.float32)[owner]
    corner = (np.stack([column, row], axis=1) * STRIDE_PX + origin).astype(np.float32)
    boxes = np.hstack(
        [np.floor((corner + 1) / scale[:, None]), np.floor((corner + CELL_PX) / scale[:, None])]
    )
    regression = np.empty((len(hits), 4), np.float32)
    for index in np.flatnonzero(np.bincount(owner)).tolist():  # np.unique would load numpy.ma
        own = owner == index
        regression[own] = maps[index].regression.reshape(4, -1)[:, place[own]].T
    level = np.concatenate([[0], np.cumsum(np.diff(scale) != 0)])
    ends = np.flatnonzero(np.diff(level, append=-1)) + 1
    for first, last in itertools.pairwise([0, *_joined(ends.tolist())]):
        some = slice(first, last)
        yield Candidates(boxes[some], logits[hits[some]]), regression[some], level[some]


def _joined(ends: Sequence[int]) -> Iterator[int]:
    """Ends of runs of levels that hold at most ``WINDOWS_AT_ONCE`` together, or are one level."""
    start = 0
    for end, next_end in itertools.pairwise([*ends, math.inf]):
        if next_end - start > WINDOWS_AT_ONCE:
            yield int(end)
            start = int(end)
