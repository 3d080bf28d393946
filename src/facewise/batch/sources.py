"""SOURCE to items: folders, globs, tars, lists and tables, streamed in a fixed order.

Nothing here holds more than a bounded number of names (object storage, whose drivers list a
folder at once, and globs on it excepted), and no picture is opened.
"""

from __future__ import annotations

import errno
import fnmatch
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from facewise.batch import archives, picture_tables, storage
from facewise.batch.job import VIDEOS, Item, Job, file_item
from facewise.batch.sorting import sort_strings
from facewise.errors import FacewiseError, ImageNotFoundError, OptionError, SourceError
from facewise.folders import Skipped, walk
from facewise.formats import SUFFIXES

LISTS: Final = frozenset((".txt", ".lst", ".list"))
TEXTS: Final = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".md")
"""What is surely no picture, and may be meant for a list or a table."""
PACKED: Final = (".zip", ".7z", ".rar")
LOOK_SECONDS: Final = 1.0
"""Between two looks at a source that is elsewhere."""

_MAGIC: Final = re.compile(r"[*?\[]")
_BRACES: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")

Fingerprints = dict[str, dict[str, Any]]
"""Of the tars, tables and lists that were opened, by path."""


class Opened:
    """The tars, tables and lists that were opened, each under the first spelling of its path."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints
        self._names: dict[str, str] = {}

    def add(self, source: str) -> str:
        """Note a file before it is read: what changes meanwhile is then seen by the next run.

        Returns:
            its first spelling: pictures that go by the same names as before are told to be
            repetitions.
        """
        name = self._names.setdefault(storage.absolute(source), source)
        path = storage.absolute(name)
        if path not in self._fingerprints:
            self._fingerprints[path] = storage.fingerprint(path)
        return name


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
    elif _MAGIC.search(source):
        yield from _list_glob(source, job, skipped, opened)
    else:
        raise _no_such(source, "path")


def _some(names: Iterable[str], pattern: str) -> Iterator[str]:
    """Names that match; beside other sources, a pattern of nothing would be lost in silence.

    Raises:
        OptionError: there is none.
    """
    name = None
    for name in names:
        yield name
    if name is None:
        raise OptionError(f"{pattern}: no file matches: check the pattern")


def _no_such(source: str, kind: str) -> OptionError:
    braces = " (of braces, {000..099} is understood, {a,b} is not)" if "{" in source else ""
    return OptionError(f"{source}: no such file or folder: check the {kind}{braces}")


def _list_url(source: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    system, inner = storage.file_system(source)
    if _MAGIC.search(inner):
        try:
            found = system.glob(inner, detail=True)
        except ValueError as error:  # of "**" beside other letters
            raise OptionError(f"{source}: {error}") from error
        files, below = _glob_files(system, found, inner)
        if _folders_only(source):
            files = set()
        for name in _some(sorted(files | below), source):
            url = storage.with_protocol(source, name)
            if name in files:
                yield from _matched(url, source, job, skipped, opened)
            else:
                yield from by_ending(url, skipped)
    elif system.isdir(inner):
        for name in sorted(_shown(system.find(inner), inner)):
            yield from by_ending(storage.with_protocol(source, name), skipped)
    elif system.exists(inner):
        yield from _file(source, job, skipped, opened)
    else:
        raise _no_such(source, "URL")


def _glob_files(system: Any, found: dict[str, Any], inner: str) -> tuple[set[str], set[str]]:
    """Files among what matches, and those below folders that match."""
    files: set[str] = set()
    folders: set[str] = set()
    below: set[str] = set()
    for name in sorted(_shown(found, inner)):  # a folder before those in it
        kind = found[name]["type"]
        # Others are links to folders, which "**" does not follow: they may lead in circles.
        if kind == "file" or (kind != "directory" and ("**" in inner or not system.isdir(name))):
            files.add(name)
        elif folders.isdisjoint(map(str, PurePosixPath(name).parents)):
            folders.add(name)
            below.update(_shown(system.find(name), inner))
    return files, below


def _shown(names: Iterable[str], inner: str) -> Iterator[str]:
    """Names without those that are hidden, or in a hidden folder, below a folder or pattern."""
    parts = inner.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    for name in names:
        if not any(part.startswith(".") for part in name.split("/")[fixed:]):
            yield name


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
            f"{source}: a list is a .txt with one path a line, or a Parquet table: save it as one "
            "of them"
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


def _list_glob(pattern: str, job: Job, skipped: Skipped, opened: Opened) -> Iterator[Item]:
    """Local files that match: ``*``, ``?`` and ``[]`` within a name, ``**`` across; and, as in a
    shell, all that is below a folder that matches. Each once, and in the order of their names.
    """
    local = storage.local(pattern)
    scheme = pattern.removesuffix(local)
    parts = local.replace(os.sep, "/").split("/")
    fixed = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    folder = "/".join(parts[:fixed]) or ("/" if local.startswith("/") else "")
    rest = [part for part in parts[fixed:] if part]
    if not Path(folder or ".").is_dir():
        raise OptionError(f"{pattern}: there is no folder {folder}: check the path")
    folders_only = _folders_only(pattern)

    def enter(name: str) -> bool:
        """Above the pattern's last part any folder, there one that matches, and all below it."""
        names = name.split("/")
        return "**" in rest or len(names) != len(rest) or _matches(names, rest)

    def matches(name: str) -> bool:
        return not folders_only and _matches(name.split("/"), rest)

    def is_below(name: str) -> bool:
        names = name.split("/")
        return any(_matches(names[:end], rest) for end in range(1, len(names)))

    files = walk(folder or ".", Skipped().add, enter)
    found = (name for name in files if matches(name) or is_below(name))
    for name in _some(sort_strings(found), pattern):
        path = scheme + (f"{folder.rstrip('/')}/{name}" if folder else name)
        if matches(name):
            yield from _matched(path, pattern, job, skipped, opened)
        else:
            yield from by_ending(path, skipped)


def _folders_only(pattern: str) -> bool:
    """Whether it ends as only folders' names may: ``*/``; ``**/`` is all that is below."""
    return pattern.endswith(("/", os.sep)) and not pattern.rstrip(f"/{os.sep}").endswith("**")


def _matches(names: list[str], parts: list[str]) -> bool:
    """Whether a relative path's components match a pattern's."""
    if not parts:
        return not names
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(names)
        return any(_matches(names[first:], parts[1:]) for first in range(len(names)))
    if not names or not fnmatch.fnmatchcase(names[0], parts[0]):
        return False
    return _matches(names[1:], parts[1:])


def differing(opened: Fingerprints) -> Iterator[tuple[str, FacewiseError | None]]:
    """Paths whose files are no longer those that were opened; with the error of one that has gone
    or cannot be looked at.
    """
    for path, before in opened.items():
        try:
            if storage.fingerprint(path) != before:
                yield path, None
        except FacewiseError as error:
            yield path, error


def changed(opened: Fingerprints) -> list[str]:
    """Paths whose files are no longer those that were opened, or have gone.

    Raises:
        SourceError: one cannot be looked at now.
    """
    paths = []
    for path, error in differing(opened):
        if isinstance(error, ImageNotFoundError):
            if error.errno != errno.ENOENT:
                raise SourceError(f"{error}, then run the same command again") from error
        elif error is not None:
            raise error  # of its file system, which says what to do
        paths.append(path)
    return paths


class Watch:
    """Looks again at sources while they are read; where that takes a request, once a second.

    Args:
        opened: their fingerprints.

    Attributes:
        seen: paths of those that had changed at any time, though they may have been put back.
    """

    def __init__(self, opened: Fingerprints) -> None:
        self.seen: set[str] = set()
        self._opened = opened
        self._looked: dict[str, float] = {}

    def changed(self, paths: Iterable[str]) -> bool:
        """Whether one of these has changed; what was never opened as a source cannot have.

        Raises:
            SourceError: one cannot be looked at now.
        """
        named = self._opened.keys() & set(paths)
        now = time.monotonic()
        due = {path for path in named if now - self._looked.get(path, -math.inf) > LOOK_SECONDS}
        self._looked |= dict.fromkeys(filter(storage.is_url, due), now)
        self.seen.update(changed({path: self._opened[path] for path in due}))
        return not named.isdisjoint(self.seen)


def check(sources: list[str]) -> None:
    """Settle before any work that sources are there; patterns are looked at when listed.

    Raises:
        OptionError: one is not.
    """
    for source in sources:
        path = storage.local(source)
        if storage.is_url(path) or _MAGIC.search(path) or _BRACES.search(path):
            continue
        if not os.path.lexists(path):
            raise _no_such(source, "path")
