"""Whether sources that were opened are still the same: what changes renames the pictures in it."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from facewise.batch import storage
from facewise.errors import FacewiseError, ImageNotFoundError, SourceError

LOOK_SECONDS: Final = 1.0
"""Between two looks at a source that is elsewhere."""

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
