"""The worker function: items in, rows out. Shared by local processes and Ray actors."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from facewise.batch.job import PROBLEMS, ROW, VIDEO, Item, Job, Result, Task
from facewise.batch.reader import ItemReader
from facewise.batch.rows import Row, error_row, photo_rows, problem_row, to_ipc
from facewise.batch.schema import arrow_schema
from facewise.types import Photo

if TYPE_CHECKING:
    from facewise.analyzer import Analyzer

log = logging.getLogger("facewise")

Fetched = tuple[Item, bytes | Exception | None]
Decoded = tuple[Item, Photo | Exception | None]
"""None for items that are not a single picture: videos, and items without anything to read."""

FETCHERS: Final = 4
"""Threads that prefetch files: object storage answers slowly, but many requests at a time."""

ROWS_HELD: Final = 512
"""Rows of a video kept as dictionaries before they are packed, which takes an eighth of the memory:
a video may have many."""

FETCHED_AHEAD: Final = 8
"""Maximum number of encoded pictures held, each of at most the job's ``max_bytes``."""

SLOW_SECONDS: Final = 60.0
"""Time to wait for a picture before it is named: the run would seem to have stopped."""

SLOW: Final = "%r is not read and decoded after %g seconds: if it never is, leave it out"


class Annotator:
    """One worker: a single-threaded analyzer, with reading and decoding ahead of it.

    At any time it holds at most ``FETCHED_AHEAD`` encoded pictures and, if photos are analysed one
    at a time, two decoded ones.
    """

    def __init__(self, job: Job) -> None:
        import cv2

        cv2.setNumThreads(1)  # one core per worker
        self.job = job
        self.analyzer = job.analyzer()
        self.model = self.analyzer.spec.info
        self.schema = arrow_schema(job.photo_attributes)
        self._video_analyzer: Analyzer | None = None
        self._reader = ItemReader(job.image_column, job.max_bytes)
        # Tables are read in order by a single thread; decoding has its own.
        self._reading = ThreadPoolExecutor(FETCHERS, thread_name_prefix="read")
        self._rows = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def start(self, task: Task) -> Iterator[Decoded]:
        """Start reading and decoding a task without waiting; yields pictures in its order."""
        source = iter(task.items)
        fetching: deque[tuple[Item, Future[Fetched]]] = deque()
        decoding: deque[tuple[Item, Future[Decoded]]] = deque()

        def refill() -> None:
            while len(fetching) < FETCHED_AHEAD and (item := next(source, None)) is not None:
                thread = self._rows if item.kind == ROW else self._reading
                fetching.append((item, thread.submit(self._fetch, item)))
            while fetching and len(decoding) < self.job.photos_per_inference:
                item, fetched = fetching.popleft()
                decoding.append((item, self._decoding.submit(self._decode, fetched)))

        def results() -> Iterator[Decoded]:
            while decoding:
                item, decoded = decoding.popleft()
                if not wait((decoded,), SLOW_SECONDS).done:
                    log.warning(SLOW, item.image_id, SLOW_SECONDS)
                result = decoded.result()
                refill()
                yield result

        refill()
        return results()

    def finish(
        self,
        task: Task,
        photos: Iterator[Decoded],
        nearly_done: Callable[[], None] = lambda: None,
    ) -> Result:
        """Analyse the pictures of a started task.

        Args:
            task: the task passed to ``start``.
            photos: what ``start`` returned.
            nearly_done: called before the last picture is analysed.
        """
        rows: list[Row] = []
        batches: list[bytes] = []
        waiting: list[tuple[Item, Photo]] = []
        for number, (item, photo) in enumerate(photos, start=1):
            if number == len(task.items):
                nearly_done()
            if isinstance(photo, Photo):
                waiting.append((item, photo))
                if len(waiting) < self.job.photos_per_inference:
                    continue
            rows += self._analyze(waiting)
            waiting.clear()
            if isinstance(photo, Exception):
                rows.append(error_row(item, photo, self.model))
            elif item.kind in PROBLEMS:
                code = PROBLEMS[item.kind]
                rows.append(problem_row(item.image_id, code, item.path, self.model))
            elif item.kind == VIDEO:
                for row in self._video(item):
                    rows.append(row)
                    if len(rows) >= ROWS_HELD:
                        batches.append(to_ipc(rows, self.schema))
                        rows.clear()
        rows += self._analyze(waiting)
        batches.append(to_ipc(rows, self.schema))
        return Result(task.shard, task.chunk, tuple(batches), len(task.items))

    def __call__(self, task: Task) -> Result:
        return self.finish(task, self.start(task))

    def _fetch(self, item: Item) -> Fetched:
        """Encoded bytes; None if there is nothing to read."""
        if item.kind == VIDEO or item.kind in PROBLEMS:
            return item, None
        try:
            return item, self._reader.read(item)
        except Exception as error:  # any failure concerns this picture only
            return item, error

    def _decode(self, fetched: Future[Fetched]) -> Decoded:
        item, data = fetched.result()
        if not isinstance(data, bytes):
            return item, data
        try:
            return item, self.analyzer.load(data)
        except Exception as error:
            return item, error

    def _analyze(self, photos: list[tuple[Item, Photo]]) -> list[Row]:
        if not photos:
            return []
        try:
            found = self.analyzer.analyze_many([photo for _, photo in photos])
        except Exception as error:
            if len(photos) == 1:
                return [error_row(photos[0][0], error, self.model)]
            return [row for one in photos for row in self._analyze([one])]
        return [
            row
            for (item, photo), faces in zip(photos, found, strict=True)
            for row in photo_rows(item.image_id, photo, faces, self.model)
        ]

    def _video(self, item: Item) -> Iterator[Row]:
        from facewise.batch.video import video_rows

        if self._video_analyzer is None:
            self._video_analyzer = self.job.analyzer(video=True)
        return video_rows(item, self._video_analyzer, self.job.frames_per_second)
