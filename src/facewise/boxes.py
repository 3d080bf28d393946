"""Boxes as arrays: float32 ``(N, 4)``, xyxy, pixels of the upright photo."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from facewise.types import FloatArray

AT_ONCE: Final = 32
"""Boxes that are compared with all others in one step of non-maximum suppression."""

LOGIT_DECIMALS: Final = 3
"""Places of a logit that decide which of two boxes is better. Engines and processors add up in
different orders and differ by some 1e-5, which must not decide."""


def box_overlap(
    boxes: FloatArray, others: FloatArray, *, relative_to: Literal["union", "smaller"] = "union"
) -> FloatArray:
    """Overlap of boxes with one or several others, 0 to 1; shapes broadcast as NumPy's do.

    Args:
        boxes: ``(N, 4)``; or ``(K, 1, 4)``, each of which is compared with all others.
        others: ``(4,)``, or ``(N, 4)``.
        relative_to: "union" is the usual IoU; "smaller" is 1 where one box lies within the other.

    Returns:
        float32 ``(N,)``, or ``(K, N)``.
    """
    # In place: where suppression compares thousands, new memory is what takes long.
    left, top, right, bottom = (boxes[..., k] for k in range(4))
    x0, y0, x1, y1 = (others[..., k] for k in range(4))
    shared = np.minimum(right, x1)
    shared -= np.maximum(left, x0)
    np.maximum(shared, 0, out=shared)
    height = np.minimum(bottom, y1)
    height -= np.maximum(top, y0)
    np.maximum(height, 0, out=height)
    shared *= height
    areas, area = (x1 - x0) * (y1 - y0), (right - left) * (bottom - top)
    if relative_to == "smaller":
        whole = np.minimum(areas, area)
    else:
        whole = areas + area
        whole -= shared
    np.maximum(whole, np.float32(1e-9), out=whole)
    shared /= whole
    return shared


def apart(boxes: FloatArray, groups: NDArray[np.integer[Any]]) -> FloatArray:
    """Boxes moved so far that those of different groups do not touch.

    Args:
        boxes: ``(N, 4)``, not negative, in whole pixels: float32 holds the moved ones exactly, for
            250 groups in a photo of 65,000 pixels a side.
        groups: ``(N,)``, from 0.
    """
    step = boxes.max(initial=0) + 1
    moved: FloatArray = boxes + step * groups.astype(np.float32)[:, None]
    return moved


def non_maximum_suppression(
    boxes: FloatArray,
    logits: FloatArray,
    threshold: float,
    *,
    relative_to: Literal["union", "smaller"] = "union",
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Of equally good boxes the first is the better one. In a cascade that is the one which the stage
    before preferred; any measure of the boxes themselves would bring in another float to differ by.

    Args:
        boxes: ``(N, 4)``.
        logits: ``(N,)``, of a face, rounded to ``LOGIT_DECIMALS``. Not probabilities: near 1, where
            good boxes crowd, float32 has too few of them to tell one from another.
        threshold: a box that overlaps a better one by more is dropped.
        relative_to: see ``box_overlap``.

    Returns:
        Indices of the boxes kept, best first.
    """
    if len(boxes) <= 1:
        return np.arange(len(boxes), dtype=np.intp)
    order = np.argsort(-np.round(logits, LOGIT_DECIMALS), kind="stable")
    kept: list[int] = []
    while len(order):
        # The best few at a time against all that is left, in one go: numpy's calls are the cost.
        rest = boxes[order]
        best = rest[:AT_ONCE, None]
        clashes = box_overlap(best, rest, relative_to=relative_to) > threshold
        alive = np.ones(len(order), np.bool_)
        for index, clash in enumerate(clashes):
            if alive[index]:
                kept.append(int(order[index]))
                alive[clash] = False
        order = order[AT_ONCE:][alive[AT_ONCE:]]
    return np.array(kept, dtype=np.intp)


def refine(boxes: FloatArray, regression: FloatArray, *, extent: float = 1.0) -> FloatArray:
    """Move each edge by a regressed share of the box's size.

    Args:
        boxes: ``(N, 4)``.
        regression: ``(N, 4)``, a share an edge.
        extent: added to width and height: R- and O-net count pixels inclusively (1), P-net does
            not (0).
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + np.float32(extent)
    return boxes + regression * np.tile(sizes, 2)


def to_squares(boxes: FloatArray) -> FloatArray:
    """The square of the longer side round each box's centre."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sizes - side) * np.float32(0.5)
    return np.hstack([corner, corner + side])
