"""Pieces of a level that P-net looks at, and the windows that may hold a face."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.windows import (
    CELL_PX,
    PIECE_AREA_PX,
    STRIDE_PX,
    WINDOWS_AT_ONCE,
    Map,
    likely_windows,
    logit_of,
    pieces,
)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (12, 12),
        (13, 2000),
        (640, 480),
        (2509, 30),
        (2510, 30),
        (2511, 30),
        (5011, 30),
        (9001, 24),
        (30, 9001),
    ],
)
def test_pieces_hold_each_window_once_and_stay_small(width: int, height: int) -> None:
    """Even for a long, narrow level: P-net's layers take hundreds of times its bytes."""
    level = np.zeros((height, width, 3), np.float32)
    windows = np.zeros(((height - CELL_PX) // STRIDE_PX + 1, (width - CELL_PX) // STRIDE_PX + 1))
    cut = list(pieces(level))
    for left, top, piece in cut:
        assert left % STRIDE_PX == top % STRIDE_PX == 0
        assert piece.shape[0] * piece.shape[1] < 2.5 * PIECE_AREA_PX
        assert min(piece.shape[:2]) >= CELL_PX
        down, across = ((side - CELL_PX) // STRIDE_PX + 1 for side in piece.shape[:2])
        row, column = top // STRIDE_PX, left // STRIDE_PX
        windows[row : row + down, column : column + across] += 1
    assert (windows == 1).all()
    assert len(cut) <= 1 + 2 * level[..., 0].size / PIECE_AREA_PX


def looked_at(
    shape: tuple[int, int], hits: list[tuple[int, int]], *, left: int, top: int, scale: float
) -> Map:
    """A map that just reaches a threshold of one half at the given rows and columns."""
    logit = np.full((1, *shape), -0.01, np.float32)
    for row, column in hits:
        logit[0, row, column] = 0
    regression = np.arange(4 * logit.size, dtype=np.float32).reshape(1, 4, *shape)
    return Map(logit, regression, left, top, scale)


def test_windows_by_hand() -> None:
    maps = [
        looked_at((3, 4), [(0, 3), (1, 2)], left=0, top=0, scale=0.5),
        looked_at((2, 2), [], left=8, top=0, scale=0.5),
        looked_at((2, 5), [(1, 4)], left=0, top=6, scale=0.5),  # another piece of the same level
        looked_at((1, 3), [(0, 1)], left=2, top=4, scale=0.3),
    ]
    ((candidates, regression, level),) = likely_windows(maps, 0.5)
    # Windows are 2 px apart, from the piece's first; their pixels are counted from 1 to 12.
    assert candidates.boxes.tolist() == [
        [7 // 0.5, 1 // 0.5, 18 // 0.5, 12 // 0.5],
        [5 // 0.5, 3 // 0.5, 16 // 0.5, 14 // 0.5],
        [9 // 0.5, 9 // 0.5, 20 // 0.5, 20 // 0.5],
        [16, 16, 53, 53],  # 5 / 0.3 and 16 / 0.3, rounded down
    ]
    assert candidates.logits.tolist() == [0, 0, 0, 0]
    assert regression.tolist() == [[3, 15, 27, 39], [6, 18, 30, 42], [9, 19, 29, 39], [1, 4, 7, 10]]
    assert level.tolist() == [0, 0, 0, 1]
    assert list(likely_windows(maps[1:2], 0.5)) == []
    assert list(likely_windows(maps, 0.51)) == []


def test_levels_come_together_while_they_hold_few_windows() -> None:
    """A single level comes whole, no matter how many windows it holds."""
    counts = [WINDOWS_AT_ONCE - 50, 40, 10, 10, 2 * WINDOWS_AT_ONCE, 1, 1]
    maps = [
        looked_at((1, n), [(0, k) for k in range(n)], left=0, top=0, scale=0.9**number)
        for number, n in enumerate(counts)
    ]
    levels = [level.tolist() for _, _, level in likely_windows(maps, 0.5)]
    assert [sorted(set(level)) for level in levels] == [[0, 1, 2], [3], [4], [5, 6]]
    assert [len(level) for level in levels] == [WINDOWS_AT_ONCE, 10, 2 * WINDOWS_AT_ONCE, 2]


@pytest.mark.parametrize(("probability", "odds"), [(0.5, 1), (0.75, 3), (0.1, 1 / 9)])
def test_a_logit_is_the_logarithm_of_the_odds(probability: float, odds: float) -> None:
    assert logit_of(probability) == pytest.approx(np.log(odds))
