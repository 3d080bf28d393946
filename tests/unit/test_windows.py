"""Pieces of a level that P-net looks at."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.windows import CELL_PX, PIECE_AREA_PX, STRIDE_PX, pieces


@pytest.mark.parametrize(
    ("width", "height"),
    [(12, 12), (13, 2000), (640, 480), (2509, 30), (2510, 30), (2511, 30), (9001, 24), (30, 9001)],
)
def test_pieces_hold_each_window_once_and_stay_small(width: int, height: int) -> None:
    """However long and narrow a level is: its layers take hundreds of times its bytes."""
    level = np.zeros((height, width, 3), np.float32)
    windows = np.zeros(((height - CELL_PX) // STRIDE_PX + 1, (width - CELL_PX) // STRIDE_PX + 1))
    for left, top, piece in pieces(level):
        assert left % STRIDE_PX == top % STRIDE_PX == 0
        assert piece.shape[0] * piece.shape[1] < 2.5 * PIECE_AREA_PX
        down, across = ((side - CELL_PX) // STRIDE_PX + 1 for side in piece.shape[:2])
        row, column = top // STRIDE_PX, left // STRIDE_PX
        windows[row : row + down, column : column + across] += 1
    assert (windows == 1).all()
