"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(
    path: Path, mode: str = "wb", *, encoding: str | None = None, newline: str | None = None
) -> Iterator[IO[Any]]:
    """A new file that takes the place of ``path`` where the block ends well, and goes where not.

    Until then an old file stays what it was, for whoever reads it; a link goes on being one.
    Processes that write the same file do not disturb each other: the last one's stays.

    Args:
        path: the file; its folder must be there.
        mode: as of ``open``, to write.
        encoding: as of ``open``.
        newline: as of ``open``.
    """
    target = path.resolve()
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open(mode, encoding=encoding, newline=newline) as file:
            yield file
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
