"""Boxes as arrays: float32 ``(N, 4)``, xyxy, pixels of the upright photo."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facewise.types import FloatArray


def box_overlap(
    boxes: FloatArray, box: FloatArray, *, relative_to: Literal["union", "smaller"] = "union"
) -> FloatArray:
    """Overlap of each of ``(N, 4)`` boxes with one ``(4,)``, 0 to 1.

    Args:
        boxes: N boxes.
        box: the one they are compared with.
        relative_to: "union" is the usual IoU; "smaller" is 1 where one box lies within the other.
    """
    corner = np.maximum(boxes[:, :2], box[:2])
    opposite = np.minimum(boxes[:, 2:], box[2:])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    area = np.prod(box[2:] - box[:2])
    whole = np.minimum(areas, area) if relative_to == "smaller" else areas + area - shared
    overlap: FloatArray = shared / np.maximum(whole, np.float32(1e-9))
    return overlap


def non_maximum_suppression(
    boxes: FloatArray,
    detection_scores: FloatArray,
    threshold: float,
    *,
    relative_to: Literal["union", "smaller"] = "union",
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: ``(N, 4)``.
        detection_scores: ``(N,)``.
        threshold: a box that overlaps a better one by more is dropped.
        relative_to: see ``box_overlap``.

    Returns:
        Indices of the boxes kept, best first.
    """
    order = np.argsort(-detection_scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[box_overlap(boxes[rest], boxes[best], relative_to=relative_to) <= threshold]
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
