"""The command line in this process, for tests of messages and exit codes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def facewise(run: Callable[..., subprocess.CompletedProcess[bytes]]) -> Iterator[Command]:
    """Run a command with text output; restore annotate's signal handlers after the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = run(*arguments)
        out, err = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)
