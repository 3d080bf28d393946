"""P-net's windows: the pieces of a level it looks at, and which of its windows may hold a face."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.types import FloatArray

CELL_PX: Final = 12
"""Side of P-net's window."""

STRIDE_PX: Final = 2
"""Step of P-net's window."""

BAND_AREA_PX: Final = 60_000
"""Pixels of a level that P-net sees at a time; see ``bands``."""

MIN_BAND_PX: Final = 24
"""Least step from one band to the next, however wide the level."""


WINDOWS_AT_ONCE: Final = 256
"""Levels are suppressed together while they have no more windows: each window is compared with
those of other levels, too, for nothing."""


@dataclass(slots=True)
class Candidates:
    """Boxes between two stages."""

    boxes: FloatArray  # (N, 4)
    logits: FloatArray  # (N,), of a face

    def take(self, keep: Any) -> Candidates:
        return Candidates(self.boxes[keep], self.logits[keep])


@dataclass(slots=True)
class Hits:
    """Windows of a band of a level that may hold a face.

    Attributes:
        place: ``(N,)``, row by row.
        width: windows in a row.
        logits: ``(N,)``.
        regression: ``(4, N)``.
        top: the band's first row.
        scale: the level's.
    """

    place: NDArray[np.intp]
    width: int
    logits: FloatArray
    regression: FloatArray
    top: int
    scale: float


def logit_of(probability: float) -> float:
    """What a network must give for a probability of a face."""
    return math.log(probability / (1 - probability))


def bands(level_image: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Top row and rows of pieces of a level, so that P-net's layers stay in the processor's cache.

    Bands overlap by what a window needs, and begin at even rows, so that they give the very windows
    of the whole level.
    """
    height, width = level_image.shape[:2]
    overlap = CELL_PX - STRIDE_PX
    step = max(MIN_BAND_PX, BAND_AREA_PX // width // STRIDE_PX * STRIDE_PX)
    for top in range(0, max(1, height - overlap), step):
        last = height - top - step < CELL_PX
        yield top, level_image[top:] if last else level_image[top : top + step + overlap]
        if last:
            return


def find_hits(
    logit: FloatArray, regression: FloatArray, top: int, scale: float, threshold: float
) -> Hits:
    """What to keep of P-net's answer, ``(1, h, w)`` and ``(1, 4, h, w)``, for a band of a level.

    It is looked through at once, while it is in the processor's cache, and then let go.
    """
    flat = logit.reshape(-1)
    place = np.flatnonzero(flat >= logit_of(threshold))
    kept = regression.reshape(4, -1)[:, place]
    return Hits(place, logit.shape[2], flat[place], kept, top, scale)


def likely_windows(
    hits: Sequence[Hits],
) -> Iterator[tuple[Candidates, FloatArray, NDArray[np.intp]]]:
    """Windows that may hold a face, some levels at a time, with their regressions ``(N, 4)`` and
    the number of each one's level ``(N,)``, ascending.

    Levels with few windows come together: with few faces, numpy's calls are the cost.
    """
    if not hits:
        return
    owner = np.repeat(np.arange(len(hits)), [len(h.place) for h in hits])
    width = np.array([h.width for h in hits])[owner]
    top = np.array([h.top for h in hits])[owner]
    scale = np.array([h.scale for h in hits], np.float32)[owner]
    row, column = np.divmod(np.concatenate([h.place for h in hits]), width)
    corner = np.stack([column * STRIDE_PX, row * STRIDE_PX + top], axis=1).astype(np.float32)
    boxes = np.hstack(
        [np.floor((corner + 1) / scale[:, None]), np.floor((corner + CELL_PX) / scale[:, None])]
    )
    logits = np.concatenate([h.logits for h in hits])
    regression = np.concatenate([h.regression for h in hits], axis=1).T
    level = np.concatenate([[0], np.cumsum(np.diff(scale) != 0)])
    ends = np.flatnonzero(np.diff(level, append=-1)) + 1
    for first, last in itertools.pairwise([0, *_joined(ends.tolist())]):
        some = slice(first, last)
        yield Candidates(boxes[some], logits[some]), regression[some], level[some]


def _joined(ends: Sequence[int]) -> Iterator[int]:
    """Where runs of levels end that hold ``WINDOWS_AT_ONCE`` together, or are one level."""
    start = 0
    for end, next_end in itertools.pairwise([*ends, math.inf]):
        if next_end - start > WINDOWS_AT_ONCE:
            yield int(end)
            start = int(end)
