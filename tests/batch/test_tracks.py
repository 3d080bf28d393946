"""From boxes of sampled frames to tracks: people who pass, pause, leave and come back."""

from __future__ import annotations

import numpy as np

from facewise.batch.tracks import Tracker
from facewise.types import FloatArray


def box(x: float, y: float = 100, side: float = 100) -> FloatArray:
    return np.array([x, y, x + side, y + side], np.float32)


def test_two_people_who_cross_keep_their_numbers() -> None:
    """One walks right, the other left and lower; each frame lists the larger box first."""
    tracker = Tracker(1.0)
    seen = []
    for step in range(11):
        right, left = box(40 * step, 100, 100 + step), box(400 - 40 * step, 160, 110 - step)
        swap = left[2] - left[0] > right[2] - right[0]
        numbers = tracker.update([left, right] if swap else [right, left], step)
        seen.append(tuple(reversed(numbers)) if swap else tuple(numbers))
    assert len(set(seen)) == 1
    assert sorted(seen[0]) == [0, 1]


def test_a_gap_is_bridged_and_a_longer_one_is_not() -> None:
    tracker = Tracker(1.0, max_gap=2)
    still = box(300)
    assert tracker.update([box(0), still], 0) == [0, 1]
    for second in (1, 2):
        assert tracker.update([still], second) == [1]
        assert tracker.live == {0, 1}
    assert tracker.update([still, box(5)], 3.9) == [1, 0]  # the first frame after its sampling time
    for second in (4, 5, 6):
        assert tracker.update([still], second) == [1]
    assert tracker.live == {1}
    assert tracker.update([still, box(5)], 7) == [1, 2]


def test_no_track_goes_on_where_a_recording_was_paused() -> None:
    tracker = Tracker(0.5)
    times = [0.0, 0.5, 1.0, 3601.0, 3601.5]
    assert [tracker.update([box(0)], seconds) for seconds in times] == [[0], [0], [0], [1], [1]]
    # A frame is the first at or after its sampling time: three periods can take almost four.
    for seconds, number in ((4.9, 0), (5.1, 1)):
        tracker = Tracker(1.0, max_gap=2)
        seen = [tracker.update([box(0)], at) for at in (0, 1, seconds)]
        assert seen == [[0], [0], [number]]


def test_a_video_of_fewer_frames_than_are_asked_for_has_a_pace_of_its_own() -> None:
    tracker = Tracker(1.0, max_gap=2)
    seen = [tracker.update([box(0)] * (step % 3 == 0), 10.0 * step) for step in range(7)]
    assert seen == [[0], [], [], [0], [], [], [0]]


def test_a_pair_that_overlaps_more_comes_first_and_nobody_is_two() -> None:
    tracker = Tracker(1.0)
    assert tracker.update([box(0), box(60)], 0) == [0, 1]
    # Both overlap the second track; the nearer takes it, and the other does not share it.
    assert tracker.update([box(55), box(62)], 1) == [2, 1]
    assert tracker.update([], 2) == []


def test_where_one_person_ends_by_default() -> None:
    """Boxes 100 wide that are s apart overlap by (100 - s) / (100 + s)."""
    for apart, number in ((52, 0), (54, 1)):  # 0.316 and 0.299
        tracker = Tracker(1.0)
        tracker.update([box(0)], 0)
        assert tracker.update([box(apart)], 1) == [number]
    for missing, number in ((2, 0), (3, 1)):
        tracker = Tracker(1.0)
        seen = [tracker.update([box(0)] * (n in (0, missing + 1)), n) for n in range(missing + 2)]
        assert seen[-1] == [number]
    # An overlap equal to the minimum counts: half of a box twice as tall.
    tracker = Tracker(1.0, min_iou=0.5)
    tracker.update([np.array([0, 0, 100, 200], np.float32)], 0)
    assert tracker.update([box(0, 0)], 1) == [0]
