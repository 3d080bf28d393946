"""Files below a folder, over links; what cannot be listed is said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from facewise.errors import OptionError


class Skipped(Counter[str]):
    """Names that were left out, counted by ending."""

    def add(self, name: str) -> None:
        self[PurePosixPath(name).suffix.lower() or "no ending"] += 1

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.most_common(5))
        one, many = "file is no picture by its name", "files are no pictures by their names"
        return f"{counted(self.total(), one, many)} ({kinds})"


def counted(count: int, one: str, many: str) -> str:
    """In words, as "1 face" or "1,200 faces"."""
    return f"{count:,} {one if count == 1 else many}"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder it is in, begins with a dot; ``..`` is no name."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def walk(
    folder: str, skip: Callable[[str], object], enter: Callable[[str], bool] = lambda name: True
) -> Iterator[str]:
    """Names of the files below a folder, relative to it with ``/``, in no order.

    Links are followed, those that lead back to a folder above themselves excepted. Hidden names
    (those that begin with a dot) are left out.

    Args:
        folder: where to begin.
        skip: called with the name of what is no regular file.
        enter: whether a folder of this name is looked into.

    Raises:
        OptionError: a folder cannot be listed.
    """
    root = os.stat(folder)  # noqa: PTH116
    # Each folder with the identities of those above it; a link back to one of them is a loop.
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [
        ("", frozenset({(root.st_dev, root.st_ino)}))
    ]
    while stack:
        prefix, above = stack.pop()
        try:
            entries = os.scandir(os.path.join(folder, prefix))  # noqa: PTH118
        except OSError as error:
            raise OptionError(
                f"{os.path.join(folder, prefix)}: cannot be listed ({error.strerror}): make it "  # noqa: PTH118
                "readable, or name the folders beside it one by one"
            ) from error
        with entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    identity = _identity(entry) if entry.is_dir() else None
                    is_file = entry.is_file() or (
                        entry.is_symlink() and not os.path.exists(entry.path)  # noqa: PTH110
                    )
                except OSError:  # a link to itself, or into a folder that may not be entered
                    identity, is_file = None, True
                if identity is not None:
                    if identity not in above and enter(name):
                        stack.append((f"{name}/", above | {identity}))
                elif is_file:
                    yield name  # a link that leads nowhere will be a row that says so
                else:
                    skip(name)


def _identity(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino
