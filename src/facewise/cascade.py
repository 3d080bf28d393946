"""MTCNN's three stages: P-net proposes boxes, R-net refines them, and O-net gives faces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from facewise.boxes import apart, non_maximum_suppression, refine, scaled, to_squares
from facewise.models import Session
from facewise.resample import AreaSource
from facewise.types import Face, FloatArray
from facewise.windows import Candidates, Map, likely_windows, logit_of, pieces

BATCH_SIZE: Final = 32
"""Crops per run of R-net or O-net: few enough for the processor's cache."""

MAPS_AT_ONCE: Final = 500_000
"""Windows collected before they are searched: all levels together unless the photo is huge."""

BOX_SCALES: Final = (0.5, 0.625, 0.8, 1.0, 1.2)
"""Scales at which another detector's box is tried: detectors differ in how much of the head a box
includes, and most include more than MTCNN. The first scale still finds faces in boxes twice as
large, the last in boxes a fifth smaller (``scripts/given_boxes.py``)."""


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """The networks, and how their answers become boxes.

    Attributes:
        networks: "pnet", "rnet" and "onet".
        nms: greatest overlap of two boxes, at each non-maximum suppression.
        fill_up: see ``cut_squares``.
    """

    networks: dict[str, Session]
    nms: Mapping[str, float]
    fill_up: bool

    def pnet(self, image: AreaSource, scales: Sequence[float], threshold: float) -> Candidates:
        """Stage one: P-net over the levels of one photo's pyramid, the finest first."""
        found = list(self._windows(image, scales, threshold))
        if not found:
            return Candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32))
        boxes, logits, offsets = map(np.concatenate, zip(*found, strict=True))
        keep = non_maximum_suppression(boxes, logits, self.nms["photo"])
        moved = refine(boxes[keep], offsets[keep], extent=0.0)
        return Candidates(to_squares(moved), logits[keep])

    def _windows(
        self, image: AreaSource, scales: Sequence[float], threshold: float
    ) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
        """Yield boxes, logits and regressions of likely windows, a few levels at a time.

        Within each level, they are suppressed.
        """
        width, height = image.size
        maps: list[Map] = []
        sizes = [(int(width * scale + 1), int(height * scale + 1)) for scale in scales]
        for scale, level_image in zip(scales, image.levels(sizes), strict=True):
            for left, top, piece in pieces(level_image):
                logit, regression = self.networks["pnet"].run(None, {"image": piece[None]})
                maps.append(Map(logit, regression, left, top, scale))
            if scale == scales[-1] or sum(m.logit.size for m in maps) > MAPS_AT_ONCE:
                for windows, offsets, level in likely_windows(maps, threshold):
                    keep = non_maximum_suppression(
                        apart(windows.boxes, level), windows.logits, self.nms["level"]
                    )
                    keep = keep[np.argsort(level[keep], kind="stable")]
                    yield windows.boxes[keep], windows.logits[keep], offsets[keep]
                maps.clear()

    def rnet(
        self, images: Sequence[AreaSource], proposed: Sequence[Candidates], threshold: float
    ) -> list[Candidates]:
        """Stage two: R-net over the candidates of all photos."""
        logit, regression = self._run("rnet", images, [p.boxes for p in proposed], 24)
        results = []
        for candidates, z, offsets in zip(proposed, logit, regression, strict=True):
            passed = z > logit_of(threshold)
            boxes, z, offsets = candidates.boxes[passed], z[passed], offsets[passed]
            keep = non_maximum_suppression(boxes, z, self.nms["rnet"])
            results.append(Candidates(to_squares(refine(boxes[keep], offsets[keep])), z[keep]))
        return results

    def onet(
        self, images: Sequence[AreaSource], refined: Sequence[Candidates], threshold: float
    ) -> list[tuple[Face, ...]]:
        """Stage three: O-net over the remaining candidates."""
        outputs = self._run("onet", images, [r.boxes for r in refined], 48)
        return [
            self._faces(candidates.boxes, z, offsets, points, threshold)
            for candidates, z, offsets, points in zip(refined, *outputs, strict=True)
        ]

    def _faces(
        self,
        boxes: FloatArray,
        z: FloatArray,
        offsets: FloatArray,
        points: FloatArray,
        threshold: float,
    ) -> tuple[Face, ...]:
        passed = z > logit_of(threshold)
        boxes, z, offsets, points = boxes[passed], z[passed], offsets[passed], points[passed]
        landmarks = _landmarks(points, boxes)
        boxes = refine(boxes, offsets)
        # The regression is unbounded: a box whose edges moved past each other is not a face.
        sound = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        boxes, z, landmarks = boxes[sound], z[sound], landmarks[sound]
        keep = non_maximum_suppression(boxes, z, self.nms["onet"], relative_to="smaller")
        areas = np.prod(boxes[keep, 2:] - boxes[keep, :2], axis=1)
        keep = keep[np.argsort(-areas, kind="stable")]
        return tuple(
            Face(
                bbox=boxes[i].astype(np.float32),
                landmarks=landmarks[i].astype(np.float32),
                detection_score=probability_of(z[i]),
            )
            for i in keep
        )

    def find(
        self,
        images: Sequence[AreaSource],
        proposed: Sequence[Candidates],
        thresholds: tuple[float, float, float],
    ) -> list[tuple[Face, ...]]:
        """Stages two and three; the faces of each photo, the largest first."""
        if not images:
            return []
        refined = self.rnet(images, proposed, thresholds[1])
        return self.onet(images, refined, thresholds[2])

    def find_landmarks(self, image: AreaSource, boxes: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Landmarks of the face in each box, by R-net and O-net alone.

        Args:
            image: the photo.
            boxes: ``(N, 4)``, at least one.

        Returns:
            Landmarks ``(N, 5, 2)``, and the logits of a face ``(N,)``.
        """
        tried = to_squares(np.concatenate([scaled(boxes, scale) for scale in BOX_SCALES]))
        (_,), (moves,) = self._run("rnet", [image], [tried], 24)
        squares = to_squares(refine(tried, moves))
        (logits,), _, (points,) = self._run("onet", [image], [squares], 48)
        surest = logits.reshape(len(BOX_SCALES), -1).argmax(axis=0)
        chosen = surest * len(boxes) + np.arange(len(boxes))
        return _landmarks(points[chosen], squares[chosen]), logits[chosen]

    def _run(
        self,
        name: str,
        images: Sequence[AreaSource],
        boxes: Sequence[FloatArray],
        size_px: int,
    ) -> list[list[FloatArray]]:
        """Run R-net or O-net on every box of every photo, in batches across photos.

        Returns:
            For each output of the network, one array per photo.
        """
        session = self.networks[name]
        parts = [
            session.run(None, {"image": crops})
            for crops in _crop_batches(images, boxes, size_px, fill_up=self.fill_up)
        ]
        ends = [0, *itertools.accumulate(len(own) for own in boxes)]
        return [
            [whole[first:last] for first, last in itertools.pairwise(ends)]
            for whole in map(np.concatenate, zip(*parts, strict=True))
        ]


def _landmarks(points: FloatArray, squares: FloatArray) -> FloatArray:
    """Landmarks in the photo, ``(N, 5, 2)``.

    O-net gives five x, then five y, as shares of its input square; the weights' origin is (1, 1).
    """
    sizes = squares[:, 2:] - squares[:, :2] + 1  # inclusive pixels
    shares = points.reshape(-1, 2, 5).transpose(0, 2, 1)
    return shares * sizes[:, None] + squares[:, None, :2] - 1


def probability_of(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _crop_batches(
    images: Sequence[AreaSource], boxes: Sequence[FloatArray], size_px: int, *, fill_up: bool
) -> Iterator[FloatArray]:
    """Yield the crops of all photos, at most ``BATCH_SIZE`` at a time.

    A crowd has thousands, which together would take more memory than the photo. At least one batch
    is yielded, even if empty: it gives each output of a network its shape.
    """
    waiting = [np.empty((0, size_px, size_px, 3), np.float32)]
    room = BATCH_SIZE
    for image, own in zip(images, boxes, strict=True):
        start = 0
        while start < len(own):
            part = own[start : start + room]
            waiting.append(cut_squares(image, part, size_px, fill_up=fill_up))
            start, room = start + len(part), room - len(part)
            if room == 0:
                yield np.concatenate(waiting)
                del waiting[1:]
                room = BATCH_SIZE
    if len(waiting) > 1 or not any(map(len, boxes)):
        yield np.concatenate(waiting)


def cut_squares(image: AreaSource, boxes: FloatArray, size_px: int, *, fill_up: bool) -> FloatArray:
    """Cut boxes out of a picture and average them down to squares.

    Coordinates count from 1, and the last pixel is included.

    Args:
        image: the picture.
        boxes: ``(N, 4)``.
        size_px: side S of the squares.
        fill_up: fill with grey where a box reaches past the picture; otherwise the box is cut off
            at the edge and the rest stretched.

    Returns:
        float32 ``(N, S, S, 3)``, 0 to 255.
    """
    width, height = image.size
    corners = np.trunc(boxes).astype(np.int64)
    corners[:, :2] -= 1
    if not fill_up:
        corners = np.clip(corners, 0, [width, height, width, height])
    return image.crops(corners, size_px)
