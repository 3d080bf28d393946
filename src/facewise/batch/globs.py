"""Expand glob patterns to files, on disk and on object storage."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Final

from facewise.batch import storage
from facewise.batch.sorting import sort_strings
from facewise.data.walk import Skipped, walk
from facewise.errors import OptionError

MAGIC: Final = re.compile(r"[*?\[]")


def find(pattern: str) -> Iterator[tuple[str, bool]]:
    """Files that match a pattern, and all files below matching folders.

    ``*``, ``?`` and ``[]`` match within a name, ``**`` across folders.

    Yields:
        Path or URL, each once and sorted by name; whether the file itself matches.

    Raises:
        OptionError: no file matches (among other sources this would go unnoticed), or the pattern
            is invalid.
    """
    name = None
    is_url = storage.is_url(storage.local(pattern))
    for name, matches in _find_url(pattern) if is_url else _find_local(pattern):
        yield name, matches
    if name is None:
        raise OptionError(f"{pattern}: no file matches: check the pattern")


def _find_url(pattern: str) -> Iterator[tuple[str, bool]]:
    system, inner = storage.file_system(pattern)
    try:
        found = system.glob(inner, detail=True)
    except ValueError as error:  # "**" next to other characters
        raise OptionError(f"{pattern}: {error}") from error
    files, below = _url_files(system, found, inner)
    if _folders_only(pattern):
        files = set()
    for name in sorted(files | below):
        yield storage.with_protocol(pattern, name), name in files


def _url_files(system: Any, found: dict[str, Any], inner: str) -> tuple[set[str], set[str]]:
    """Files that match, and files below matching folders."""
    files: set[str] = set()
    folders: set[str] = set()
    below: set[str] = set()
    for name in sorted(shown(found, inner)):  # a folder comes before its contents
        kind = found[name]["type"]
        # Other kinds may be links to folders, which "**" does not follow: they may be cyclic.
        if kind == "file" or (kind != "directory" and ("**" in inner or not system.isdir(name))):
            files.add(name)
        elif folders.isdisjoint(map(str, PurePosixPath(name).parents)):
            folders.add(name)
            below.update(files_below(system, name, inner))
    return files, below


def files_below(system: Any, folder: str, inner: str) -> Iterator[str]:
    """Files of a folder, and of those in it, that are not hidden below ``inner``."""
    for name in shown(system.find(folder), inner):
        if not name.endswith("/"):  # object storage's mark of an empty folder
            yield name


def shown(names: Iterable[str], inner: str) -> Iterator[str]:
    """Names that are neither hidden nor in a hidden folder, below a folder or pattern."""
    parts = inner.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if MAGIC.search(part)), len(parts))
    for name in names:
        if not any(part.startswith(".") for part in name.split("/")[fixed:]):
            yield name


def _find_local(pattern: str) -> Iterator[tuple[str, bool]]:
    local = storage.local(pattern)
    scheme = pattern.removesuffix(local)
    parts = local.replace(os.sep, "/").split("/")
    fixed = next(i for i, part in enumerate(parts) if MAGIC.search(part))
    folder = "/".join(parts[:fixed]) or ("/" if local.startswith("/") else "")
    rest = [part for part in parts[fixed:] if part]
    head = list(takewhile(lambda part: part != "**", rest))
    if not Path(folder or ".").is_dir():
        raise OptionError(f"{pattern}: there is no folder {folder}: check the path")
    folders_only = _folders_only(pattern)

    def enter(name: str) -> bool:
        """Whether to descend into a folder: it may lead to a match, or lies below one."""
        names = name.split("/")[: len(head)]
        return _matches(names, head[: len(names)])

    def matches(name: str) -> bool:
        return not folders_only and _matches(name.split("/"), rest)

    def is_below(name: str) -> bool:
        names = name.split("/")
        return any(_matches(names[:end], rest) for end in range(1, len(names)))

    files = walk(folder or ".", Skipped().add, enter)
    found = (name for name in files if matches(name) or is_below(name))
    for name in sort_strings(found):
        path = scheme + (f"{folder.rstrip('/')}/{name}" if folder else name)
        yield path, matches(name)


def _folders_only(pattern: str) -> bool:
    """Whether the pattern matches folders only, as ``*/`` does; ``**/`` matches all below."""
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
