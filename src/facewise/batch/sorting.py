"""Sort more strings than fit in memory: sorted runs on disk, merged while reading."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Final

from facewise.errors import OptionError
from facewise.text import reason_of

RUN: Final = 250_000
"""Strings sorted at a time: about 50 MB."""


def sort_strings(strings: Iterable[str], *, run: int = RUN) -> Iterator[str]:
    """Yield strings in code point order, sorting at most ``run`` in memory at a time.

    Every full run is spilled to an unnamed temporary file (``TMPDIR``).

    Raises:
        OptionError: there is no space for it.
    """
    source = iter(strings)
    spilled: list[IO[str]] = []
    try:
        while True:
            part = sorted(islice(source, run))
            if len(part) < run:
                yield from heapq.merge(part, *map(_read, spilled))
                return
            try:
                spilled.append(_spill(part))
            except OSError as error:
                raise OptionError(
                    "no space to sort the names "
                    f"({reason_of(error)}): set TMPDIR to a folder with free space"
                ) from error
    finally:
        for file in spilled:
            file.close()


def _spill(part: list[str]) -> IO[str]:
    # JSON, because a file name may contain line breaks or bytes that are not UTF-8.
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  its reader closes it
    file.writelines(json.dumps(text) + "\n" for text in part)
    file.seek(0)
    return file


def _read(file: IO[str]) -> Iterator[str]:
    return map(json.loads, file)
