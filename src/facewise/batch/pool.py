"""The local runner: a process a core, tasks in, rows out. Workers never write.

A worker that dies (killed for memory, or by a picture that crashes a decoder) costs its tasks a
second try, each alone in a worker; what dies again is tried picture by picture, and the picture
that kills twice gets a row that says so.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

from facewise.batch.job import Job, Result, Task
from facewise.batch.rows import problem_row, to_ipc
from facewise.batch.schema import arrow_schema
from facewise.errors import FacewiseError
from facewise.machine import cores
from facewise.models import load_spec

log = logging.getLogger("facewise")

QUEUED: Final = 2
"""Tasks a worker holds: one it works on, one whose pictures it begins to read."""

MAX_TRIES: Final = 2
"""Of a task before it is split, and of a picture before it is given up."""

MAX_GIVEN_UP: Final = 20
"""Pictures given up, beyond one in a hundred, from which on the machine is to blame."""


@dataclass(slots=True)
class _Attempt:
    task: Task
    tries: int = 0
    whole: _Whole | None = None  # the task that this one is a picture of


@dataclass(slots=True)
class _Whole:
    """A task that was split into its pictures."""

    task: Task
    parts: dict[int, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    attempts: deque[_Attempt] = field(default_factory=deque)
    ready: bool = False

    @property
    def takes(self) -> int:
        """Tasks it may hold now: what is tried again goes alone, so that the blame is certain."""
        return 1 if any(a.tries or a.whole for a in self.attempts) else QUEUED


def run(
    tasks: Iterable[Task], job: Job, workers: int | None = None
) -> Generator[Result, None, None]:
    """Run tasks over processes; results come as they are finished, in any order.

    Args:
        tasks: taken only as workers have room for them.
        job: settings.
        workers: processes; as many as cores if None.

    Raises:
        FacewiseError: a worker cannot start.
        ImportError: nor can it where a package is broken that only workers import, as OpenCV is.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, workers or cores()))
    with contextlib.closing(_Pool(job, len(first))) as pool:  # no more workers than tasks
        yield from pool.run(chain(first, waiting))


class _Pool:
    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        # Spawned, not forked: ONNX Runtime's and Arrow's threads do not live through a fork, and a
        # forked child would hold the table's lock after its parent is gone.
        self._context = multiprocessing.get_context("spawn")
        self._again: deque[_Attempt] = deque()
        self._finished = self._given_up = 0
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._job, os.getpid()), daemon=True
        )
        with _without_interrupts():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def close(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()  # it holds nothing that could be lost
        for worker in self._workers:
            worker.process.join()

    def run(self, tasks: Iterator[Task]) -> Iterator[Result]:
        while True:
            for depth in range(1, QUEUED + 1):  # one each before anyone has two
                for worker in self._workers:
                    if len(worker.attempts) < min(depth, worker.takes):
                        self._send(worker, tasks)
            busy = [worker for worker in self._workers if worker.attempts]
            if not busy:
                return
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    yield from self._receive(worker)

    def _send(self, worker: _Worker, tasks: Iterator[Task]) -> None:
        if self._again:
            if worker.attempts:
                return
            attempt = self._again.popleft()
        elif (task := next(tasks, None)) is not None:
            attempt = _Attempt(task)
        else:
            return
        worker.attempts.append(attempt)
        with contextlib.suppress(OSError):  # it has died, which is seen when reading from it
            worker.connection.send(attempt.task)

    def _receive(self, worker: _Worker) -> Iterator[Result]:
        try:
            message: Any = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        if not worker.ready:
            if message is not None:
                raise message
            worker.ready = True
            return
        attempt = worker.attempts.popleft()
        self._finished += len(attempt.task.items)
        yield from self._done(attempt, message)

    def _done(self, attempt: _Attempt, result: Result) -> Iterator[Result]:
        whole = attempt.whole
        if whole is None:
            yield result
            return
        whole.parts[attempt.task.chunk] = result.batches
        if len(whole.parts) == len(whole.task.items):
            batches = tuple(b for part in sorted(whole.parts) for b in whole.parts[part])
            yield Result(whole.task.shard, whole.task.chunk, batches, len(whole.task.items))

    def _bury(self, worker: _Worker) -> Iterator[Result]:
        """Replace a dead worker and try again what it had."""
        worker.process.join()
        fate = _fate(worker.process)
        if not worker.ready:
            raise FacewiseError(
                f"a worker died as it started ({fate}): is there enough memory for all workers?"
            )
        log.warning("a worker died (%s): its pictures are tried again", fate)
        worker.connection.close()
        attempts = list(worker.attempts)
        self._workers[self._workers.index(worker)] = self._start()
        for attempt in attempts:
            attempt.tries += 1
            if attempt.tries < MAX_TRIES:
                self._again.append(attempt)
            elif len(attempt.task.items) > 1:
                whole = _Whole(attempt.task)
                self._again += [
                    _Attempt(Task(attempt.task.shard, part, (item,)), whole=whole)
                    for part, item in enumerate(attempt.task.items)
                ]
            else:
                yield from self._done(attempt, self._give_up(attempt.task))

    def _give_up(self, task: Task) -> Result:
        self._given_up += 1
        if self._given_up > MAX_GIVEN_UP + self._finished // 100:
            raise FacewiseError(
                "workers keep dying: give the run more memory or fewer workers, then run the "
                "same command again; finished parts are kept"
            )
        (item,) = task.items
        row = problem_row(
            item.image_id,
            "worker_crashed",
            f"a process that looked at it died {MAX_TRIES} times: not enough memory, or a file "
            "made to crash its decoder",
            load_spec(self._job.model).info,
        )
        schema = arrow_schema(self._job.photo_attributes)
        return Result(task.shard, task.chunk, (to_ipc([row], schema),), 1)


def _fate(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """A child started meanwhile is born deaf to Ctrl-C, which its terminal sends it as well."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Of itself it starts with the first child, and lets interrupts through again as it does.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, job: Job, parent: int) -> None:
    """A worker's life: ends with its parent, whatever ends that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act on
    _die_with(parent)
    arrived: SimpleQueue[Task | None] = SimpleQueue()
    Thread(target=_take, args=(connection, arrived), daemon=True).start()
    try:
        from facewise.batch.work import Annotator

        annotator = Annotator(job)
    except (FacewiseError, ImportError) as error:
        connection.send(error)
        return
    connection.send(None)
    following: list[tuple[Task, Any]] = []

    def look_ahead() -> None:
        if not arrived.empty():
            following.extend(_begin(arrived.get(), annotator))

    with contextlib.suppress(OSError, KeyboardInterrupt):  # the parent has gone
        while following or (following := _begin(arrived.get(), annotator)):
            task, photos = following.pop()
            connection.send(annotator.finish(task, photos, look_ahead))


def _take(connection: Connection, arrived: SimpleQueue[Task | None]) -> None:
    """Read tasks as they come, at most ``QUEUED``, whatever the worker does; None is the last.

    The parent waits until a task has been taken from it: were the worker to wait as well, until
    the parent takes a result, neither would ever read.
    """
    try:
        with contextlib.suppress(EOFError, OSError):  # the parent has gone
            while True:
                arrived.put(connection.recv())
    finally:
        arrived.put(None)


def _begin(task: Task | None, annotator: Any) -> list[tuple[Task, Any]]:
    return [] if task is None else [(task, annotator.start(task))]


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies.

    Elsewhere the closed pipe ends a worker, a task later; it writes nothing in either case.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
