"""Progress of long work, on standard error: standard output is for results.

Bars are for terminals. A file would only get their ends, and if its disk were full, the work would
fail because of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

from rich import progress
from rich.console import Console

from facewise.text import counted

T = TypeVar("T")

SAY_EVERY_SECONDS: Final = 10.0
"""Interval between lines of progress if standard error is not a terminal."""


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Pass items on, with a bar; ``total`` is how many, if ``items`` has no length."""
    return progress.track(items, description, total, **_on_terminals())


def bar(*columns: progress.ProgressColumn, **options: Any) -> progress.Progress:
    """A bar of these columns; see rich for the options."""
    return progress.Progress(*columns, **options, **_on_terminals())


@contextmanager
def counted_progress(
    one: str, many: str, say: Callable[[str], None]
) -> Iterator[Callable[[int, int], None]]:
    """A bar with count and speed on a terminal, otherwise occasional lines.

    Args:
        one: what is counted, such as "image".
        many: its plural.
        say: prints a line on standard error.

    Yields:
        ``show(done, total)``, to call at the start, with what was done before, and then whenever
        more is done.
    """
    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(compact=True),
    )
    said = -math.inf
    # A mean speed over many calls, not rich's last 30 seconds: two may be minutes apart.
    with bar(*columns, speed_estimate_period=math.inf, get_time=time.monotonic) as shown:

        def show(done: int, total: int) -> None:
            nonlocal said
            if not shown.tasks:
                shown.add_task("", total=total, speed="")
            (task,) = shown.tasks
            shown.advance(task.id, done - task.completed)
            speed = task.speed or 0.0
            shown.update(task.id, speed=f"{speed:.1f} {many}/s")
            now = shown.get_time()
            if shown.disable and (now - said >= SAY_EVERY_SECONDS or done >= total):
                said = now
                seconds = task.time_remaining
                left = f", {timedelta(seconds=seconds)} left" if seconds else ""
                say(f"{done:,} of {counted(total, one, many)}, {speed:.1f}/s{left}")

        yield show


def _on_terminals() -> dict[str, Any]:
    console = Console(stderr=True)
    return {"console": console, "disable": not console.is_terminal}
