"""Boxes of sampled frames to tracks: two people who pass, pause, leave and come back."""

from __future__ import annotations

import numpy as np

from facewise.batch.tracks import Tracker
from facewise.types import FloatArray


def box(x: float, y: float = 100, side: float = 100) -> FloatArray:
    return np.array([x, y, x + side, y + side], np.float32)


def test_two_people_who_cross_keep_their_numbers() -> None:
    """One walks to the right, one to the left and lower, and each frame lists the larger first."""
    tracker = Tracker()
    seen = []
    for step in range(11):
        right, left = box(40 * step, 100, 100 + step), box(400 - 40 * step, 160, 110 - step)
        swap = left[2] - left[0] > right[2] - right[0]
        numbers = tracker.update([left, right] if swap else [right, left])
        seen.append(tuple(reversed(numbers)) if swap else tuple(numbers))
    assert len(set(seen)) == 1
    assert sorted(seen[0]) == [0, 1]


def test_a_gap_is_bridged_and_a_longer_one_is_not() -> None:
    tracker = Tracker(max_gap=2)
    still = box(300)
    assert tracker.update([box(0), still]) == [0, 1]
    for _ in range(2):
        assert tracker.update([still]) == [1]
        assert tracker.live == {0, 1}
    assert tracker.update([still, box(5)]) == [1, 0]
    for _ in range(3):
        assert tracker.update([still]) == [1]
    assert tracker.live == {1}
    assert tracker.update([still, box(5)]) == [1, 2]


def test_a_pair_that_overlaps_more_comes_first_and_nobody_is_two() -> None:
    tracker = Tracker()
    assert tracker.update([box(0), box(60)]) == [0, 1]
    # Both overlap the second; the nearer takes it, and the other is not left with it, too.
    assert tracker.update([box(55), box(62)]) == [2, 1]
    assert tracker.update([]) == []
