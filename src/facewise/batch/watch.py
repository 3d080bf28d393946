"""Detect changes to opened sources: a changed source would give its pictures wrong names."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from facewise.batch import storage
from facewise.errors import FacewiseError, ImageNotFoundError, SourceError

LOOK_SECONDS: Final = 1.0
"""Minimum time between two checks of a remote source."""

Fingerprints = dict[str, dict[str, Any]]
"""Fingerprints of the tars and tables that pictures are read from, by path."""


class Opened:
    """The tars, tables and lists that were opened, each under the first spelling of its path.

    Lists, and tables of paths, have no fingerprints: the plan holds all that was in them.
    """

    def __init__(self, fingerprints: Fingerprints) -> None:
        self._fingerprints = fingerprints
        self._names: dict[str, str] = {}

    def name(self, source: str) -> str:
        """The first spelling of a file's path, so that pictures listed twice have the same names
        and are recognised as repetitions.
        """
        return self._names.setdefault(storage.absolute(source), source)

    def add(self, source: str) -> str:
        """Fingerprint a file before it is read, so that changes during reading are detected.

        Returns:
            Its name.
        """
        name = self.name(source)
        path = storage.absolute(name)
        if path not in self._fingerprints:
            self._fingerprints[path] = storage.fingerprint(path)
        return name

    def is_list(self, source: str) -> None:
        """Forget the fingerprint of a table that turns out to hold paths."""
        self._fingerprints.pop(storage.absolute(source), None)


def differing(opened: Fingerprints) -> Iterator[tuple[str, FacewiseError | None]]:
    """Paths of changed files, each with its error if the file is gone or cannot be checked."""
    for path, before in opened.items():
        try:
            if storage.fingerprint(path) != before:
                yield path, None
        except FacewiseError as error:
            yield path, error


def changed(opened: Fingerprints) -> dict[str, bool]:
    """Paths of files that have changed, and whether each is gone.

    Raises:
        SourceError: a file cannot be checked now.
        FacewiseError: a URL has no file system.
    """
    gone = {}
    for path, error in differing(opened):
        if isinstance(error, ImageNotFoundError):
            if error.errno != errno.ENOENT:
                raise SourceError(f"{error}, then run the same command again") from error
        elif error is not None:
            raise error  # no file system; its message says what to do
        gone[path] = error is not None
    return gone


class Watch:
    """Checks sources for changes while they are read; remote ones at most once a second.

    Args:
        opened: their fingerprints.

    Attributes:
        seen: paths of sources that differed at any check, even if restored since.
        replaced: those from which finished parts may be wrong: all but local files that were only
            ever gone, because a part counts only after its local files were found unchanged.
    """

    def __init__(self, opened: Fingerprints) -> None:
        self.seen: set[str] = set()
        self.replaced: set[str] = set()
        self._opened = opened
        self._looked: dict[str, float] = {}

    def changed(self, paths: Iterable[str]) -> bool:
        """Whether any of these paths has changed; paths never opened as sources are ignored.

        Raises:
            SourceError: a source cannot be checked now.
        """
        named = self._opened.keys() & set(paths)
        now = time.monotonic()
        due = {path for path in named if now - self._looked.get(path, -math.inf) > LOOK_SECONDS}
        self._looked |= dict.fromkeys(filter(storage.is_url, due), now)
        self._look({path: self._opened[path] for path in due})
        return not named.isdisjoint(self.seen)

    def look_at_all(self) -> None:
        """Check every source now.

        Raises:
            SourceError: a source cannot be checked now.
        """
        self._look(self._opened)

    def _look(self, sources: Fingerprints) -> None:
        for path, gone in changed(sources).items():
            self.seen.add(path)
            if not gone or storage.is_url(path):
                self.replaced.add(path)
