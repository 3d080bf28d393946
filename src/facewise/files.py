"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(
    path: Path, mode: str = "wb", *, encoding: str | None = None, newline: str | None = None
) -> Iterator[IO[Any]]:
    """Write a new file that replaces ``path`` if the block succeeds, and is deleted otherwise.

    Until then, readers see the old file unchanged. If ``path`` is a link, its target is replaced.
    Processes that write the same file do not disturb each other: the last one wins.

    Args:
        path: the file; its folder must exist.
        mode: a writing mode of ``open``.
        encoding: as for ``open``.
        newline: as for ``open``.
    """
    target = path.resolve()
    unfinished = target.with_name(f"{target.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open(mode, encoding=encoding, newline=newline) as file:
            yield file
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, and its folder if there is none.

    Bytes of file names that are not UTF-8 become backslash escapes, which are valid JSON, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def json_text(value: Any) -> str:
    """A value as readable JSON.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; see ``write_text`` and ``json_text``."""
    write_text(path, json_text(value))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as CSV with plain line feeds and always a header; the file is never partial."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def has_header(path: Path, header: Sequence[str]) -> bool:
    """Whether a CSV begins with this header as ``write_csv`` writes it; False if unreadable."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline() == ",".join(header) + "\n"
    except (OSError, ValueError):
        return False
