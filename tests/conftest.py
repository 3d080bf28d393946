"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from facewise import Analyzer
from facewise.cli import main

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FACEWISE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Committed, licensed pictures."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data sets; tests that need them are marked ``data`` and skip without them."""
    if not (DATA / "utkface.tar").exists():
        pytest.skip(f"no data sets at {DATA}: set FACEWISE_DATA")
    return DATA


@pytest.fixture(scope="session")
def analyzer() -> Analyzer:
    """One analyzer with the shipped weights, one thread."""
    return Analyzer(threads=1)


Close = Callable[[Any], Any]


@pytest.fixture(scope="session")
def closed() -> Close:
    """Copy a JSON schema so that it refuses fields it does not name.

    The published ones accept them, because later releases may add some; ours must all be named.
    """

    def close(schema: Any) -> Any:
        if isinstance(schema, list):
            return [close(inner) for inner in schema]
        if not isinstance(schema, dict):
            return schema
        copy = {name: close(inner) for name, inner in schema.items()}
        if "properties" in copy and copy.get("type") == "object":
            copy.setdefault("additionalProperties", False)
        return copy

    return close


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Callable[..., subprocess.CompletedProcess[bytes]]]:
    """Run a command in this process, as the console script does: faster than a new one."""
    logger = logging.getLogger("facewise")
    level = logger.level
    monkeypatch.setenv("COLUMNS", "160")

    def run_main(*args: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["facewise", *map(str, args)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return subprocess.CompletedProcess(command, stop.value.code, *capfdbinary.readouterr())

    yield run_main
    logger.setLevel(level)


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """``facewise serve``, running."""

    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Start ``facewise serve`` on a free port; keywords become FACEWISE_* variables."""
    with ExitStack() as stack:

        def start(**variables: object) -> ServerProcess:
            clean = {k: v for k, v in os.environ.items() if not k.startswith("FACEWISE_")}
            own = {f"FACEWISE_{name.upper()}": str(value) for name, value in variables.items()}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "facewise", "serve", "--port", "0", "--no-open"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    env={**clean, "FACEWISE_THREADS": "1", **own},
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            match = re.search(r"http://\S+", process.stdout.readline())
            assert match is not None, "the server did not start"
            return ServerProcess(match.group(), process)

        yield start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright keeps an event loop running in its thread while it lives."""
    items.sort(key=lambda item: "browser" in item.path.parts)
