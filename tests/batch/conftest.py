"""What several tests of batches need: the command line in this process, small sources, rows."""

from __future__ import annotations

import io
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facewise.batch.job import Item, Job, Task
from facewise.batch.work import Annotator

Command = Callable[..., subprocess.CompletedProcess[str]]
AGE = Job(attributes=("age",), shard_size=2)


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


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator(AGE)


def rows_of(annotator: Annotator, items: list[Item]) -> list[dict[str, Any]]:
    (data,) = annotator(Task(0, 0, tuple(items))).batches
    return list(pa.ipc.open_stream(data).read_all().to_pylist())


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> dict[str, int]:
    """Write a tar; return where each header begins."""
    with tarfile.open(path, "w") as tar:
        for name, what in members.items():
            info = tarfile.TarInfo(name) if isinstance(what, bytes) else what
            info.name = name
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                tar.addfile(info)
    with tarfile.open(path) as tar:
        return {member.name: member.offset for member in tar}


def make_tar(path: Path, faces: list[Path]) -> None:
    write_tar(path, {f"{number}.webp": face.read_bytes() for number, face in enumerate(faces)})


def make_table(path: Path, faces: list[Path]) -> None:
    pq.write_table(pa.table({"image": [face.read_bytes() for face in faces]}), path)
