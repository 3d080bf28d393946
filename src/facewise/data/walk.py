"""Lists files below a folder, following links; reports what cannot be listed."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final

from facewise.errors import OptionError
from facewise.text import counted

MOST_ENDINGS: Final = 1000
"""Most endings counted separately: names such as ``log.2024-01-01T00`` must not fill memory."""

SPECIAL: Final = "special"


class Skipped(Counter[str]):
    """Names that were left out, counted by ending."""

    def add(self, name: str) -> None:
        ending = PurePosixPath(name).suffix.lower() or "no ending"
        if ending[1:].isdecimal():  # numbered frames
            ending = "numbers"
        elif ending not in self and len(self) >= MOST_ENDINGS:
            ending = "other endings"
        self[ending] += 1

    def add_special(self, name: str) -> None:
        """Count something that is not a regular file, whatever its name."""
        self[SPECIAL] += 1

    def __str__(self) -> str:
        named = Counter({kind: count for kind, count in self.items() if kind != SPECIAL})
        said = []
        if named:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in named.most_common(5))
            one, many = "file is no picture by its name", "files are no pictures by their names"
            said.append(f"{counted(named.total(), one, many)} ({kinds})")
        if self[SPECIAL]:
            one, many = "pipe, socket or device", "pipes, sockets or devices"
            said.append(f"{counted(self[SPECIAL], one, many)} left out")
        return "; ".join(said)


LASTING: Final = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""Errors of listing a folder that will recur when the command is run again."""


def is_hidden(name: str) -> bool:
    """Whether the name of a file or of a folder above it begins with a dot; ``..`` is ignored."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


_Identity = tuple[int, int]
_Folders = tuple[list[str], str, frozenset[_Identity]]


def walk(
    folder: str, skip: Callable[[str], object], enter: Callable[[str], bool] = lambda name: True
) -> Iterator[str]:
    """Names of the files below a folder, relative to it, with ``/``, in no particular order.

    Links are followed, except those to a folder above themselves; beyond a link inside a linked
    folder, only folders not yet reached through a link are entered. Hidden names (those that begin
    with a dot) are left out.

    Args:
        folder: where to begin.
        skip: called with the name of anything that is not a regular file.
        enter: whether to enter a folder of this name.

    Raises:
        OptionError: listing a folder is not permitted, or its path is too long.
        OSError: a folder cannot be listed for a reason that may be temporary.
    """
    # Folders to visit: their names, the path above them, and the identities of the folders there; a
    # link back to one of these is a loop. Only names are held: a folder may contain a million.
    stack: list[_Folders] = [([""], "", frozenset())]
    # Folders that link to each other allow more paths than can be walked. So paths over fewer links
    # come first, in an order that does not depend on the disk's.
    links, behind = 0, list[_Folders]()
    linked: set[_Identity] = set()
    while stack or behind:
        if not stack:
            links, stack, behind = links + 1, sorted(behind, key=lambda f: f[1], reverse=True), []
        names, parent, above = stack[-1]
        if not names:
            stack.pop()
            continue
        prefix = parent + names.pop()
        path = os.path.join(folder, prefix)  # noqa: PTH118
        below: list[str] = []
        leading: list[str] = []
        try:
            status = os.stat(path)  # noqa: PTH116
            identity = status.st_dev, status.st_ino
            if identity in above or (links > 1 and identity in linked):
                continue
            entries = os.scandir(path)
        except OSError as error:
            if error.errno not in LASTING:
                raise
            raise OptionError(
                f"{path}: cannot be listed ({error.strerror}): make it readable, or name the "
                "folders beside it one by one"
            ) from error
        if links:
            linked.add(identity)
        with entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    is_folder = entry.is_dir()
                    is_file = entry.is_file() or (
                        entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110
                    )
                except OSError:  # a link to itself, or into a forbidden folder
                    is_folder, is_file = False, True
                if is_folder:
                    if enter(name):
                        (leading if entry.is_symlink() else below).append(f"{entry.name}/")
                elif is_file:
                    yield name  # a dangling link becomes a row that says so
                else:
                    skip(name)
        above |= {identity}
        stack.append((sorted(below, reverse=True), prefix, above))
        if leading:
            behind.append((sorted(leading, reverse=True), prefix, above))
