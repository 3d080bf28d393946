"""What a command may write over: nothing but what the same command wrote before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from facewise.errors import OptionError


class Outputs:
    """Files that a command will write, checked one by one before any work.

    Args:
        options: the options that name them, for messages.
        inputs: files and folders that the command reads; 0 is standard input, None is nothing.
    """

    def __init__(self, options: str, inputs: Iterable[Path | str | int | None] = ()) -> None:
        self._choose = f"choose another {options}"
        self._inputs = {_identity(path) for path in inputs if path is not None}
        self._outputs = set[object]()

    def add(self, path: Path, is_ours: Callable[[Path], bool]) -> None:
        """Check one more output.

        Args:
            path: of the file.
            is_ours: whether what exists there was written by an earlier run of this command.

        Raises:
            OptionError: it is an input or another output, by any name or link; or it exists and is
                not ours.
        """
        identity = _identity(path)
        if identity in self._inputs:
            raise OptionError(f"{path} is an input, and would be overwritten: {self._choose}")
        if identity in self._outputs:
            raise OptionError(f"{path} would be written twice: {self._choose}")
        # Path.exists raises if a name is too long, which writing will report.
        if os.path.exists(path) and not is_ours(path):  # noqa: PTH110
            raise OptionError(
                f"{path} already exists, and this command did not write it: {self._choose}, or "
                "remove it first"
            )
        self._outputs.add(identity)


def _identity(path: Path | str | int) -> object:
    """The file itself, or the path that it will have."""
    real = path if isinstance(path, int) else os.path.realpath(path)
    try:
        status = os.stat(real)  # noqa: PTH116 - also takes 0
    except OSError:  # there is none; standard input is closed
        return real
    return status.st_dev, status.st_ino
