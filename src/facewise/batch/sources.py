"""Turn SOURCEs into items: folders, globs, tars, lists and tables, streamed in a fixed order.

Holds a bounded number of names (except for folders and globs on object storage, whose drivers list
a folder at once) and opens no picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from facewise.batch import archives, globs, picture_tables, storage
from facewise.batch.job import VIDEOS, Item, Job, file_item, listed_item
from facewise.batch.sorting import sort_strings
from facewise.batch.watch import Fingerprints, Opened
from facewise.data.lists import PATH_COLUMNS, PATHS_MAY_BE, TABLE_SUFFIXES, iterate_rows
from facewise.data.walk import Skipped, walk
from facewise.errors import ImageNotFoundError, OptionError, SourceError
from facewise.formats import SUFFIXES

LISTS: Final = frozenset((".txt", ".lst", ".list"))
TEXTS: Final = (".json", ".jsonl", ".ndjson", ".md")
"""Not pictures, but possibly meant as a list or a table."""
PACKED: Final = (".zip", ".7z", ".rar")
_LISTING: Final = (*LISTS, *TABLE_SUFFIXES, *picture_tables.ENDINGS)
"""Files that may name pictures in place of holding them."""

_BRACES: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")
_STREAM: Final = re.compile(r"-|/dev/(stdin|fd/\d+)")
"""Standard input and other open files, also where these are regular files."""


def list_items(
    sources: Iterable[str], job: Job, skipped: Skipped, fingerprints: Fingerprints
) -> Iterator[Item]:
    """Every item of every source, in the sources' order.

    Args:
        sources: folders, globs, tars, lists, tables or pictures, as the user wrote them.
        job: names the columns of tables.
        skipped: receives files that are left out.
        fingerprints: receives the fingerprints of opened sources.

    Raises:
        OptionError: a source is missing, or of a kind that cannot be read.
        SourceError: a source cannot be read now. A plan without it would omit it for good.
    """
    storage.climbed.cache_clear()  # links may have changed
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
    """Expand WebDataset's number ranges: ``shard-{000..002}.tar`` becomes three names.

    Raises:
        OptionError: the first number exceeds the last, which would give no name.
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
    """Whether a local path of exactly this name exists; False for remote URLs."""
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
    if globs.MAGIC.search(storage.path_part(inner)):
        yield from _list_glob(source, job, skipped, opened)
    elif "?" not in inner and system.isdir(inner):  # fsspec joins links to a page's query
        for name in sorted(globs.files_below(system, inner, inner)):
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
    """The item of a file found in a folder, if its ending is a picture's or a video's."""
    path = storage.path_part(name)
    ending = PurePosixPath(path).suffix.lower()
    if ending in SUFFIXES or ending in VIDEOS:
        yield file_item(name)
    else:
        skipped.add(path)


def _matched(name: str, pattern: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    """Items of a file that a glob matched.

    Archives and tables are opened or refused; other files are taken by their endings. Text files
    are usually captions of pictures, so they count only if the glob itself has a text ending.
    """
    named = pattern.lower().endswith((*LISTS, *TABLE_SUFFIXES, *TEXTS))
    if named or storage.path_part(name).lower().endswith(
        (*archives.ENDINGS, *archives.COMPRESSED, *PACKED, *picture_tables.ENDINGS)
    ):
        yield from _file(name, job, skipped, opened)
    else:
        yield from by_ending(name, skipped)


def _file(source: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    """Items of a file given by name."""
    lower = storage.path_part(source).lower()
    if lower.endswith(archives.COMPRESSED):
        raise archives.compressed(source)
    if lower.endswith(PACKED):
        raise OptionError(f"{source}: unpack it, or pack its files as a .tar")
    if lower.endswith(TEXTS):
        raise OptionError(
            f"{source}: a list is a .txt with one path per line, a CSV with a column path, or a "
            "Parquet table: save it as one of them"
        )
    if lower.endswith(archives.ENDINGS):
        yield from archives.list_tar(opened.add(source), skipped, SUFFIXES)
    elif lower.endswith(picture_tables.ENDINGS):
        yield from picture_tables.list_rows(opened.add(source), job, opened)
    elif lower.endswith(TABLE_SUFFIXES):
        yield from _csv_rows(opened.name(source), job)
    elif PurePosixPath(lower).suffix in LISTS:
        yield from _lines(opened.name(source))
    else:
        yield file_item(source)


def _lines(source: str) -> Iterator[Item]:
    """Items of a text list: one path or URL per line, relative to its folder; skips blank lines.

    Raises:
        OptionError: it contains zero bytes, as UTF-16 does.
    """
    with storage.open_binary(source) as file:
        for number, line in enumerate(file):
            if b"\0" in line:  # paths have none
                raise OptionError(
                    f"{source}: line {number + 1} has zero bytes, as UTF-16 has (Windows "
                    "PowerShell's > writes it): save the list as UTF-8"
                )
            name = os.fsdecode(line.rstrip(b"\r\n").removeprefix(b"\xef\xbb\xbf" * (not number)))
            if not name.strip():
                continue
            yield file_item(storage.beside(source, name), name)


def _csv_rows(source: str, job: Job) -> Iterator[Item]:
    """Items of a CSV list, one per row. See ``lists.iterate_rows``.

    Raises:
        OptionError: it is no CSV, lacks a column, or a row has no id.
    """
    column = (job.image_column or PATH_COLUMNS[0]).strip().lower()
    id_column = None if job.id_column is None else job.id_column.strip().lower()
    required = (column,) if id_column is None else (column, id_column)
    hint = f"{PATHS_MAY_BE}, or name its column with --image-column"
    with storage.open_binary(source) as file:
        for number, row in enumerate(iterate_rows(file, source, required, hint)):
            own_id = None if id_column is None else row[id_column]
            if own_id == "":
                raise OptionError(f"{source}: row {number} has no {job.id_column}")
            yield listed_item(source, number, row[column], own_id)


def check(sources: list[str], *, listed: bool) -> None:
    """Check before any work that local sources exist; URLs and patterns are checked when listed.

    Args:
        sources: as the user wrote them.
        listed: whether an earlier run listed them. Lists may then be gone, as they are not read
            again; so may tables, as those of pictures are checked like tars. A folder may not: each
            of its pictures would become an error, as where a disk is not mounted.

    Raises:
        OptionError: a source does not exist, or is a pipe or a device.
    """
    for source in sources:
        path = storage.local(source)
        special = os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))  # noqa: PTH110, PTH112, PTH113
        if special or _STREAM.fullmatch(path):
            raise OptionError(
                f"{source}: a SOURCE is a file or folder, which a restart can find again, not "
                "standard input, a pipe or a device: write the list to a .txt, and name that"
            )
        if storage.is_url(path) or globs.MAGIC.search(path) or _BRACES.search(path):
            continue
        may_be_gone = listed and path.lower().endswith(_LISTING)
        if not may_be_gone and not os.path.lexists(path):
            raise _no_such(source, "path")
