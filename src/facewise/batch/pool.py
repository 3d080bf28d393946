"""The local runner: one process per core, tasks in, rows out. Workers never write.

When a worker dies (out of memory, or by a picture that crashes a decoder), each of its tasks is
retried alone in a worker. A task that fails again is split into its pictures, and a picture that
kills its worker twice gets an error row.
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
"""Tasks per worker: one in progress and one whose pictures it prefetches."""

MAX_TRIES: Final = 2
"""Tries of a task before it is split, and of a picture before we give up on it."""

MAX_GIVEN_UP: Final = 20
"""Pictures that may be given up, besides one in a hundred, before we blame the machine and stop."""


@dataclass(slots=True)
class _Attempt:
    """A task on its way; what becomes of it if its worker dies depends on what went before.

    ==================  =====  =====  ==================================================
    attempt             tries  whole  if its worker dies
    ==================  =====  =====  ==================================================
    a task's first      0      None   tried again, alone in a worker
    a task's second     1      None   split into its pictures; if it has but one, given up
    a picture's first   0      set    tried again; it was alone already
    a picture's second  1      set    given up
    ==================  =====  =====  ==================================================

    Attributes:
        task: what is sent to a worker.
        tries: workers that died while they held it.
        whole: the split task to which this picture belongs.
    """

    task: Task
    tries: int = 0
    whole: _Whole | None = None

    @property
    def alone(self) -> bool:
        """Whether no other task may be in its worker, so that a crash can be attributed to it."""
        return self.tries > 0 or self.whole is not None


@dataclass(slots=True)
class _Whole:
    """A task that was split into its pictures, with the rows of those that are done."""

    task: Task
    parts: dict[int, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Worker:
    """A process.

    Attributes:
        process: it runs ``_work``.
        connection: tasks go out; back come None once it is ready, or the error that kept it from
            starting, and then one result per task.
        attempts: sent and not answered, the oldest first.
        ready: None has come. Tasks are sent before that, too.
    """

    process: BaseProcess
    connection: Connection
    attempts: deque[_Attempt] = field(default_factory=deque)
    ready: bool = False

    @property
    def takes(self) -> int:
        """Tasks it may hold now."""
        return 1 if any(attempt.alone for attempt in self.attempts) else QUEUED


def run(
    tasks: Iterable[Task], job: Job, workers: int | None = None
) -> Generator[Result, None, None]:
    """Run tasks in processes; results come as they finish, in any order.

    Args:
        tasks: taken only when workers have room for them.
        job: settings.
        workers: number of processes; None: one per core.

    Raises:
        FacewiseError: a worker cannot start, or workers keep dying.
        ImportError: a package that only workers import, such as OpenCV, is broken.
    """
    waiting = iter(tasks)
    first = list(islice(waiting, workers or cores()))
    with contextlib.closing(_Pool(job, len(first))) as pool:  # no more workers than tasks
        yield from pool.run(chain(first, waiting))


class _Pool:
    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        # Spawned, not forked: ONNX Runtime's and Arrow's threads do not survive a fork, and a
        # forked child would keep holding the table's lock after its parent died.
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
            worker.process.kill()  # it holds no state worth saving
        for worker in self._workers:
            worker.process.join()

    def run(self, tasks: Iterator[Task]) -> Iterator[Result]:
        while True:
            for depth in range(1, QUEUED + 1):  # every worker gets one before any gets two
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
        if self._again:  # every one of these is to be alone
            if worker.attempts:
                return
            attempt = self._again.popleft()
        elif (task := next(tasks, None)) is not None:
            attempt = _Attempt(task)
        else:
            return
        worker.attempts.append(attempt)
        with contextlib.suppress(OSError):  # it died, which _receive will notice
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
        """Replace a dead worker and retry, split or give up its tasks."""
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
    """Start children with SIGINT blocked: the terminal sends Ctrl-C to them as well."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Otherwise it starts with the first child and unblocks SIGINT in doing so.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, job: Job, parent: int) -> None:
    """The worker's main loop; it ends when the parent does, for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
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
    following: list[tuple[Task, Any]] = []  # at most one: the task whose pictures it prefetches

    def look_ahead() -> None:
        if not arrived.empty():
            following.extend(_begin(arrived.get(), annotator))

    with contextlib.suppress(OSError, KeyboardInterrupt):  # the parent has gone
        while following or (following := _begin(arrived.get(), annotator)):
            task, photos = following.pop()
            connection.send(annotator.finish(task, photos, look_ahead))


def _take(connection: Connection, arrived: SimpleQueue[Task | None]) -> None:
    """Receive tasks (at most ``QUEUED``) while the worker is busy; None marks the end.

    Sending blocks until the other side reads. If the parent blocked on sending a task while the
    worker blocked on sending a result, neither would ever read.
    """
    try:
        with contextlib.suppress(EOFError, OSError):  # the parent has gone
            while True:
                arrived.put(connection.recv())
    finally:
        arrived.put(None)


def _begin(task: Task | None, annotator: Any) -> list[tuple[Task, Any]]:
    """The started task with its pictures to come; empty at the end."""
    return [] if task is None else [(task, annotator.start(task))]


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux only).

    Elsewhere the closed pipe ends a worker, one task later; it writes nothing in either case.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
