"""Join faces of sampled frames into tracks by the overlap of their boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from facewise.boxes import box_overlap
from facewise.types import FloatArray

MIN_IOU: Final = 0.3
"""Boxes that overlap less are different people: at one frame per second, heads move little."""

MAX_GAP: Final = 2
"""Sampled frames that a face may miss and still continue its track."""


@dataclass(slots=True)
class _Track:
    track_id: int
    bbox: FloatArray
    last: int
    seconds: float


@dataclass(slots=True)
class Tracker:
    """Assigns each face a track number, frame by frame.

    Pairs are matched greedily, largest overlap first, which suffices while boxes of one frame
    overlap little. Ties go to the older track and the larger face, so that equal videos give equal
    tracks.

    Where a recording was paused, its times jump, and every face afterwards starts a new track.

    Args:
        period: minimum seconds between sampled frames.
        min_iou: see ``MIN_IOU``.
        max_gap: see ``MAX_GAP``.
    """

    period: float
    min_iou: float = MIN_IOU
    max_gap: int = MAX_GAP
    _live: list[_Track] = field(default_factory=list)
    _frame: int = -1
    _seconds: float = -math.inf
    _shortest: float = math.inf
    _count: int = 0

    @property
    def live(self) -> set[int]:
        """Tracks that the next frame may continue."""
        return {t.track_id for t in self._live if self._frame - t.last <= self.max_gap}

    def update(self, boxes: Sequence[FloatArray], seconds: float) -> list[int]:
        """Add the next sampled frame.

        Args:
            boxes: float32 ``(4,)`` each, xyxy, largest first.
            seconds: the frame's time.

        Returns:
            The track number of each box, counted from 0.
        """
        self._frame += 1
        # If the video has fewer frames per second than requested, its own rate counts.
        self._shortest = min(self._shortest, seconds - self._seconds)
        self._seconds = seconds
        # One period extra, since each sample is the first frame at or after its nominal time.
        longest = (self.max_gap + 2) * max(self.period, self._shortest)
        self._live = [
            t
            for t in self._live
            if self._frame - t.last <= self.max_gap + 1 and seconds - t.seconds <= longest
        ]
        stacked = np.reshape(boxes, (-1, 4))
        pairs = [
            (-float(overlap), t, b)
            for t, track in enumerate(self._live)
            for b, overlap in enumerate(box_overlap(stacked, track.bbox))
            if overlap >= self.min_iou
        ]
        chosen: dict[int, _Track] = {}
        taken: set[int] = set()
        for _, t, b in sorted(pairs):
            if b not in chosen and t not in taken:
                chosen[b] = self._live[t]
                taken.add(t)
        return [self._assign(chosen.get(b), box) for b, box in enumerate(boxes)]

    def _assign(self, track: _Track | None, box: FloatArray) -> int:
        if track is None:
            track = _Track(self._count, box, self._frame, self._seconds)
            self._count += 1
            self._live.append(track)
        track.bbox, track.last, track.seconds = box, self._frame, self._seconds
        return track.track_id
