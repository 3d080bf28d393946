"""Boxes: overlaps, suppression and moves worked out by hand."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from facewise.boxes import AT_ONCE, apart, box_overlap, non_maximum_suppression, refine, to_squares


@pytest.mark.parametrize(
    ("other", "union", "smaller"),
    [
        ((100, 200, 110, 230), 1, 1),
        ((104, 212, 114, 242), 108 / 492, 108 / 300),  # they share 6 x 18
        ((95, 195, 103, 206), 18 / 370, 18 / 88),  # 3 x 6
        ((102, 210, 107, 216), 30 / 300, 1),  # inside
        ((110, 200, 120, 230), 0, 0),  # side by side
        ((100, 100, 110, 150), 0, 0),  # above
        ((50, 210, 60, 220), 0, 0),  # to the left
        ((300, 400, 340, 480), 0, 0),  # past a corner: two negative extents are no overlap
        ((105, 205, 105, 205), 0, 0),  # no area
    ],
)
def test_overlaps_by_hand(other: tuple[int, ...], union: float, smaller: float) -> None:
    pair = np.array([(100, 200, 110, 230), other], np.float32)
    better = np.array([2, 1], np.float32)
    cases: list[tuple[Literal["union", "smaller"], float]] = [
        ("union", union),
        ("smaller", smaller),
    ]
    for relative_to, overlap in cases:
        for boxes in (pair, pair[::-1]):
            measured = box_overlap(boxes[1:], boxes[0], relative_to=relative_to)
            assert measured == pytest.approx([overlap])
            for threshold, kept in ((overlap - 0.01, [0]), (overlap + 0.01, [0, 1])):
                keep = non_maximum_suppression(boxes, better, threshold, relative_to=relative_to)
                assert keep.tolist() == kept
    assert box_overlap(pair[1:], pair[0]) == pytest.approx([union]), "the usual one"


def test_boxes_that_overlap_by_the_threshold_and_no_more_are_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    assert len(non_maximum_suppression(boxes, np.array([2, 1], np.float32), 0.5)) == 2


def test_many_boxes_are_suppressed_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (5 * AT_ONCE, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 25, corners.shape)]).astype(np.float32)
    logits = rng.permutation(len(boxes)).astype(np.float32)
    kept: list[int] = []
    for index in np.argsort(-logits).tolist():
        if not (box_overlap(boxes[kept], boxes[index]) > 0.3).any():
            kept.append(index)
    assert non_maximum_suppression(boxes, logits, 0.3).tolist() == kept
    assert AT_ONCE < len(kept) < len(boxes) / 2


def test_no_boxes_are_no_error() -> None:
    none, no_logits = np.empty((0, 4), np.float32), np.empty(0, np.float32)
    assert apart(none, np.empty(0, np.intp)).shape == (0, 4)
    assert non_maximum_suppression(none, no_logits, 0.5).tolist() == []
    assert box_overlap(none, np.array([0, 0, 9, 9], np.float32)).shape == (0,)


def test_edges_move_by_a_share_of_their_own_side() -> None:
    box = np.array([[10, 20, 29, 59]], np.float32)  # 20 x 40 pixels, counted inclusively
    share = np.array([[0.1, -0.1, 0.2, -0.2]], np.float32)
    np.testing.assert_allclose(refine(box, share), [[12, 16, 33, 51]], rtol=1e-6)
    np.testing.assert_allclose(refine(box, share, extent=0), [[11.9, 16.1, 32.8, 51.2]], rtol=1e-6)


def test_squares_keep_the_centre_and_the_longer_side() -> None:
    boxes = np.array([[10, 20, 20, 50], [10, 20, 50, 30], [1, 2, 3, 4]], np.float32)
    assert to_squares(boxes).tolist() == [[0, 20, 30, 50], [10, 5, 50, 45], [1, 2, 3, 4]]
