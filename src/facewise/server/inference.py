"""Analyse photos in threads, behind a bounded queue.

Each photo (or batch) gets one thread, and ONNX Runtime one thread inside it: on a busy server this
gives the most faces per CPU-second. A request that finds the queue full is refused at once. If its
client disconnects, a request leaves the queue, or is cancelled before its next stage. If every
thread has been in one stage for ``STUCK_SECONDS``, nobody may wait any longer. Requests do
not share batches: on a CPU that gives hardly more faces per CPU-second (docs/results/load.md), and
they would wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from facewise.analyzer import Analyzer, Timings
from facewise.calibration import Calibration
from facewise.errors import ImageError
from facewise.server.problems import ProblemError, busy, problem_of, too_large
from facewise.settings import Settings
from facewise.types import Photo, Prediction

T = TypeVar("T")
GROUP_PIXELS: Final = 12_000_000
"""Most pixels of a batch's photos detected together, which cannot be cancelled halfway."""
STUCK_SECONDS: Final = 60.0
"""Time in one stage after which a thread counts as stuck; the largest photo takes a tenth of it."""
CHECK_SECONDS: Final = 1.0
"""How often the queue is looked after."""


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """Result of one photo."""

    width_px: int
    height_px: int
    predictions: tuple[Prediction, ...]
    more_faces: bool
    """Whether smaller faces were left out."""


class _Wanted(Timings):
    """Timings that cancel work at the start of its next stage if the client is gone.

    A thread cannot be stopped from outside: without this, a batch of crowds would occupy it for
    minutes after its client has left.

    Args:
        begin: called at the start of each stage.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__()
        self._begin = begin

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        anyio.from_thread.check_cancelled()
        self._begin()
        with super().__call__(stage):
            yield


class Inference:
    """An analyzer shared by many requests.

    Args:
        analyzer: safe to use from several threads.
        settings: ``threads``, ``queue``, ``max_bytes``, ``max_pixels``, ``served_attributes``,
            ``served_max_faces``.
    """

    def __init__(self, analyzer: Analyzer, settings: Settings) -> None:
        self._settings = settings
        self._limiter = anyio.CapacityLimiter(settings.threads)
        self._analyzers: dict[tuple[tuple[str, ...], float], Analyzer] = {}
        self._analyzer = analyzer
        self._queue: set[anyio.CancelScope] = set()
        self._moved = time.monotonic()
        self.attributes = tuple(
            name for name in analyzer.attributes if name in settings.served_attributes
        )
        limits = (settings.served_max_faces, analyzer.detector.max_faces)
        self.max_faces = min((limit for limit in limits if limit is not None), default=None)

    @property
    def running(self) -> int:
        return int(self._limiter.borrowed_tokens)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def is_stuck(self) -> bool:
        """Whether every thread has been in one stage for too long."""
        passed = time.monotonic() - self._moved
        return self.running >= self._settings.threads and passed > STUCK_SECONDS

    def _move(self) -> None:
        """Note that some thread gets on with its work."""
        self._moved = time.monotonic()

    async def look_after(self) -> None:
        """As long as the server runs, turn the queue away while every thread is stuck."""
        while True:
            await anyio.sleep(CHECK_SECONDS)
            if self.is_stuck:
                for turn in self._queue:
                    turn.cancel()

    def check_room(self) -> None:
        """Refuse a request before its body is read if there is no room for it now.

        Raises:
            ProblemError: 503.
        """
        if self.is_stuck:
            raise _stuck()
        if self.waiting >= self._settings.queue and self.running >= self._settings.threads:
            raise busy("its queue is full")

    @property
    def calibration(self) -> Calibration:
        """The model's calibration, with the coverage levels that a request may choose."""
        return self._analyzer.calibration

    def _adapted(self, attributes: Sequence[str], coverage: float) -> Analyzer:
        """The analyzer with fewer attributes or another coverage; it shares the sessions."""
        key = tuple(attributes), coverage
        if key not in self._analyzers:
            self._analyzers[key] = self._analyzer.replace(
                attributes=attributes,
                coverage=coverage,
                # One more than is reported, to know whether there are others.
                max_faces=None if self.max_faces is None else self.max_faces + 1,
            )
        return self._analyzers[key]

    def _result(self, photo: Photo, predictions: tuple[Prediction, ...]) -> PhotoResult:
        kept = predictions[: self.max_faces]
        return PhotoResult(photo.width_px, photo.height_px, kept, len(kept) < len(predictions))

    async def analyze(
        self, data: bytes, attributes: Sequence[str], coverage: float
    ) -> tuple[PhotoResult, dict[str, float]]:
        """Analyse one photo.

        Returns:
            The result, and milliseconds by stage, including ``queue`` and ``total``.

        Raises:
            ImageError: the photo cannot be read.
            ProblemError: 503.
        """
        analyzer = self._adapted(attributes, coverage)
        timings = _Wanted(self._move)

        def work() -> PhotoResult:
            with timings("decode"):
                photo = analyzer.load(data)
            return self._result(photo, analyzer.analyze(photo, timings=timings))

        return await self._run(work, timings)

    async def analyze_batch(
        self, items: Sequence[bytes], attributes: Sequence[str], coverage: float
    ) -> tuple[list[PhotoResult | ProblemError], dict[str, float]]:
        """Analyse several photos; a photo that fails is replaced by a problem."""
        analyzer = self._adapted(attributes, coverage)
        timings = _Wanted(self._move)

        def work() -> list[PhotoResult | ProblemError]:
            out: list[PhotoResult | ProblemError | None] = [None] * len(items)
            group: list[tuple[int, Photo]] = []
            pixels = 0
            # Nor may a group's decoded photos hold more pixels than a single photo may have.
            most = min(GROUP_PIXELS, self._settings.max_pixels)

            def flush() -> None:
                found = analyzer.analyze_many([photo for _, photo in group], timings=timings)
                for (index, photo), predictions in zip(group, found, strict=True):
                    out[index] = self._result(photo, predictions)
                group.clear()

            for index, data in enumerate(items):
                if len(data) > self._settings.max_bytes:
                    out[index] = too_large(self._settings.max_bytes)
                    continue
                try:
                    with timings("decode"):
                        photo = analyzer.load(data)
                except ImageError as error:
                    out[index] = problem_of(error)
                    continue
                size = photo.width_px * photo.height_px
                if group and pixels + size > most:
                    flush()
                    pixels = 0
                group.append((index, photo))
                pixels += size
            if group:
                flush()
            return [item for item in out if item is not None]

        return await self._run(work, timings)

    async def _run(self, work: Callable[[], T], timings: Timings) -> tuple[T, dict[str, float]]:
        self.check_room()
        if self.running < self._settings.threads:
            # Before a thread is taken: whoever asks meanwhile would find all in use, and the last
            # move long ago, though they have only been idle.
            self._move()
        queued = time.perf_counter()
        with anyio.CancelScope() as turn:
            self._queue.add(turn)
            try:
                await self._limiter.acquire()
            finally:
                self._queue.remove(turn)
        if turn.cancelled_caught:
            raise _stuck()
        started = time.perf_counter()
        try:
            # Our limiter bounds the threads; anyio's default limit must not apply first.
            result = await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
        finally:
            self._move()
            self._limiter.release()
        ended = time.perf_counter()
        times = {"queue": (started - queued) * 1e3, **timings, "total": (ended - queued) * 1e3}
        return result, times

    def warm_up(self) -> None:
        """Run everything once, so that the first photo is not slower."""
        import numpy as np

        # A Photo, because the limits on what is decoded may be below its size.
        blank = Photo(np.full((256, 256, 3), 127, np.uint8))
        self._analyzer.analyze(blank)
        self._analyzer.analyze_crops([blank])


def _stuck() -> ProblemError:
    return busy(f"for over {STUCK_SECONDS:g} seconds it has been at the same pictures")
