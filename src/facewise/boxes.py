"""Boxes as arrays: float32 ``(N, 4)``, xyxy, pixels of the upright photo."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from facewise.errors import OptionError
from facewise.types import AnyIntArray, FloatArray, IndexArray, Photo

AT_ONCE: Final = 32
"""Boxes compared with all others in one step of non-maximum suppression."""

LOGIT_DECIMALS: Final = 3
"""Decimals of a logit that decide which of two boxes is better. Engines and processors sum in
different orders and so differ by about 1e-5, which must not decide."""


def box_overlap(
    boxes: FloatArray, others: FloatArray, *, relative_to: Literal["union", "smaller"] = "union"
) -> FloatArray:
    """Overlap of boxes with one or several others, 0 to 1; shapes broadcast as in NumPy.

    Args:
        boxes: ``(N, 4)``; or ``(K, 1, 4)`` to compare each with all others.
        others: ``(4,)``, or ``(N, 4)``.
        relative_to: "union" is the usual IoU; "smaller" is 1 where one box lies within the other.

    Returns:
        float32 ``(N,)``, or ``(K, N)``.
    """
    # In place: when suppression compares thousands of boxes, new memory is the main cost.
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


def apart(boxes: FloatArray, groups: AnyIntArray) -> FloatArray:
    """Move boxes so far apart that those of different groups do not touch.

    Args:
        boxes: ``(N, 4)``, not negative, in whole pixels: float32 holds the moved boxes exactly,
            for 250 groups in a photo of 65,000 pixels per side.
        groups: ``(N,)``, from 0.
    """
    step = boxes.max(initial=0) + 1
    return boxes + step * groups.astype(np.float32)[:, None]


def non_maximum_suppression(
    boxes: FloatArray,
    logits: FloatArray,
    threshold: float,
    *,
    relative_to: Literal["union", "smaller"] = "union",
) -> IndexArray:
    """Greedy non-maximum suppression.

    Ties go to the first box. In a cascade that is the one the previous stage preferred; comparing
    any measure of the boxes themselves would bring in another float that may differ.

    Args:
        boxes: ``(N, 4)``.
        logits: ``(N,)``, of a face; compared at ``LOGIT_DECIMALS``. Not probabilities: near 1,
            where good boxes crowd, float32 is too coarse to tell them apart.
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
        # The best few against all remaining boxes at once: numpy's call overhead is the cost.
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
        regression: ``(N, 4)``, one share per edge.
        extent: added to width and height: R-net and O-net count pixels inclusively (1), P-net does
            not (0).
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + np.float32(extent)
    return boxes + regression * np.tile(sizes, 2)


def to_squares(boxes: FloatArray) -> FloatArray:
    """The square around each box's centre whose side is the box's longer side."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sizes - side) * np.float32(0.5)
    return np.hstack([corner, corner + side])


def scaled(boxes: FloatArray, scale: float) -> FloatArray:
    """Scale boxes about their centres."""
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    larger: FloatArray = np.hstack([centres - halves * scale, centres + halves * scale])
    return larger.astype(np.float32)


def check_boxes(boxes: ArrayLike, photo: Photo) -> FloatArray:
    """Check boxes found in a photo by another detector; return them as float32 ``(N, 4)``.

    Raises:
        OptionError: they have another shape or are not finite numbers; or a box has no extent (as
            when its last two numbers are a size), does not touch the photo, lies within its first
            pixel, or reaches far past it.
    """
    try:
        given = np.asarray(boxes, np.float32)
    except (TypeError, ValueError) as error:
        raise OptionError(f"boxes must be numbers (N, 4): {error}") from error
    if given.size == 0:
        return np.empty((0, 4), np.float32)
    if given.ndim != 2 or given.shape[1] != 4 or not np.isfinite(given).all():
        raise OptionError(
            f"boxes must be finite numbers (N, 4), one row per face, not of shape {given.shape}"
        )
    width, height = photo.width_px, photo.height_px
    for index, (left, top, right, bottom) in enumerate(given.tolist()):
        what = f"boxes[{index}], {[left, top, right, bottom]},"
        if right <= left or bottom <= top:
            raise OptionError(
                f"{what} must be left, top, right, bottom: of x, y, width, height make x, y, "
                "x + width, y + height"
            )
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise OptionError(f"{what} lies outside the photo of {width} x {height} pixels")
        if left < -width or top < -height or right > 2 * width or bottom > 2 * height:
            raise OptionError(
                f"{what} reaches farther past the photo of {width} x {height} pixels than the "
                "photo is large"
            )
        if right <= 1 and bottom <= 1:
            raise OptionError(
                f"{what} lies between 0 and 1, but boxes are pixels of the upright photo: multiply "
                "x by its width, y by its height"
            )
    return given
