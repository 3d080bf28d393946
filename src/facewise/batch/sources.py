"""SOURCE to items: folders, globs, tars, lists and tables, streamed in a fixed order.

Nothing here holds more than a bounded number of names (object storage, whose drivers list a
folder at once, and globs on it excepted), and no picture is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from facewise.batch import archives, globs, picture_tables, storage
from facewise.batch.job import VIDEOS, Item, Job, file_item
from facewise.batch.sorting import sort_strings
from facewise.batch.watch import Fingerprints, Opened
from facewise.errors import ImageNotFoundError, OptionError, SourceError
from facewise.folders import Skipped, walk
from facewise.formats import SUFFIXES

LISTS: Final = frozenset((".txt", ".lst", ".list"))
TEXTS: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".md")
"""What is surely no picture, and may be meant for a list or a table."""
PACKED: Final = (".zip", ".7z", ".rar")

_BRACES: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")


def list_items(
    sources: Iterable[str], job: Job, skipped: Skipped, fingerprints: Fingerprints
) -> Iterator[Item]:
    """Every item of every source, in the sources' order.

    Args:
        sources: folders, globs, tars, lists, tables or pictures, as the user wrote them.
        job: names the columns of tables.
        skipped: receives what was left out.
        fingerprints: receives those of what was opened.

    Raises:
        OptionError: a source is missing, or of a kind that cannot be read.
        SourceError: one cannot be read now. A plan without it would lose it for good.
    """
    storage.climbed.cache_clear()  # links may lead elsewhere by now
    opened = Opened(fingerprints)
    for source in sources:
        for one in expand_braces(source):
            try:
                yield from _list(one, job, skipped, opened)
            except OSError as error:
                if not isinstance(error, ImageNotFoundError):
                    error = storage.unreadable(error, str(error.filename or one))
                raise SourceError(
                    f"{error}, then run the same command again; nothing has been begun"
                ) from error


def expand_braces(source: str) -> Iterator[str]:
    """``shard-{000..002}.tar`` to three names, as WebDataset writes them.

    Raises:
        OptionError: the first number is above the last, which would be no name at all.
    """
    match = _BRACES.search(source)
    if match is None or exists_locally(source):
        yield source
        return
    first, last = match.groups()
    if int(first) > int(last):
        raise OptionError(f"{source}: numbers in braces go up: write {{{last}..{first}}}")
    for number in range(int(first), int(last) + 1):
        name = source[: match.start()] + str(number).zfill(len(first)) + source[match.end() :]
        yield from expand_braces(name)


def exists_locally(source: str) -> bool:
    """Whether a local path of exactly this name is there; patterns of URLs are always patterns."""
    path = storage.local(source)
    return not storage.is_url(path) and os.path.lexists(path)


def _list(source: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    path = storage.local(source)
    if not path:
        raise OptionError("a SOURCE is empty: name a folder, a glob, a tar, a list or a table")
    if storage.is_url(path):
        yield from _list_url(source, job, skipped, opened)
    elif Path(path).is_dir():
        for name in sort_strings(walk(path, skipped.add_special)):
            yield from by_ending(os.path.join(source, name), skipped)  # noqa: PTH118
    elif os.path.lexists(path):
        yield from _file(source, job, skipped, opened)
    elif globs.MAGIC.search(source):
        yield from _list_glob(source, job, skipped, opened)
    else:
        raise _no_such(source, "path")


def _no_such(source: str, kind: str) -> OptionError:
    braces = " (of braces, {000..099} is understood, {a,b} is not)" if "{" in source else ""
    return OptionError(f"{source}: no such file or folder: check the {kind}{braces}")


def _list_url(source: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    system, inner = storage.file_system(source)
    if globs.MAGIC.search(inner):
        yield from _list_glob(source, job, skipped, opened)
    elif system.isdir(inner):
        for name in sorted(globs.shown(system.find(inner), inner)):
            yield from by_ending(storage.with_protocol(source, name), skipped)
    elif system.exists(inner):
        yield from _file(source, job, skipped, opened)
    else:
        raise _no_such(source, "URL")


def _list_glob(pattern: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    for name, matches in globs.find(pattern):
        if matches:
            yield from _matched(name, pattern, job, skipped, opened)
        else:
            yield from by_ending(name, skipped)


def by_ending(name: str, skipped: Skipped) -> Iterator[Item]:
    """The item of a file found in a folder: pictures and videos, told by their names alone."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in SUFFIXES or ending in VIDEOS:
        yield file_item(name)
    else:
        skipped.add(name)


def _matched(name: str, pattern: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    """What a glob found: archives and tables are opened, or refused, the rest goes by its ending.

    Texts lie beside pictures as their captions; where the glob itself ends as they do, they are
    meant.
    """
    named = pattern.lower().endswith((*LISTS, *TEXTS))
    if named or name.lower().endswith(
        (*archives.ENDINGS, *archives.COMPRESSED, *PACKED, *picture_tables.ENDINGS)
    ):
        yield from _file(name, job, skipped, opened)
    else:
        yield from by_ending(name, skipped)


def _file(source: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    """A file that was named."""
    lower = source.lower()
    if lower.endswith(archives.COMPRESSED):
        raise archives.compressed(source)
    if lower.endswith(PACKED):
        raise OptionError(f"{source}: unpack it, or pack its files as a .tar")
    if lower.endswith(TEXTS):
        raise OptionError(
            f"{source}: a list is a .txt with one path per line, or a Parquet table: save it as "
            "one of them"
        )
    is_list = PurePosixPath(lower).suffix in LISTS
    if is_list or lower.endswith((*archives.ENDINGS, *picture_tables.ENDINGS)):
        source = opened.add(source)
    if lower.endswith(archives.ENDINGS):
        yield from archives.list_tar(source, skipped, SUFFIXES)
    elif lower.endswith(picture_tables.ENDINGS):
        yield from picture_tables.list_rows(source, job)
    elif is_list:
        yield from _lines(source)
    else:
        yield file_item(source)


def _lines(source: str) -> Iterator[Item]:
    """A text list: a path or URL a line, relative to the list's own folder; blank lines go.

    Raises:
        OptionError: it has zero bytes, as UTF-16 has.
    """
    with storage.open_binary(source) as file:
        for number, line in enumerate(file):
            if b"\0" in line:  # which no path has
                raise OptionError(
                    f"{source}: line {number + 1} has zero bytes, as UTF-16 has (Windows "
                    "PowerShell's > writes it): save the list as UTF-8"
                )
            name = os.fsdecode(line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf" * (not number)))
            if not name.strip():
                continue
            yield file_item(storage.beside(source, name), name)


def check(sources: list[str]) -> None:
    """Settle before any work that sources are there; patterns are looked at when listed.

    Raises:
        OptionError: one is not.
    """
    for source in sources:
        path = storage.local(source)
        if storage.is_url(path) or globs.MAGIC.search(path) or _BRACES.search(path):
            continue
        if not os.path.lexists(path):
            raise _no_such(source, "path")
