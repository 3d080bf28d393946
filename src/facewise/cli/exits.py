"""Exit codes, the same for every command."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """A command's exit code."""

    OK = 0
    FAILED = 1
    """Something failed: a photo in ``predict``, a check in ``doctor``, or writing the output."""
    USAGE = 2
    NO_FACE = 3
    """``predict`` only: every photo was read, and none has a face."""
    INTERRUPTED = 130
    NO_READER = 141
    """The reader of the output closed the pipe, as ``| head`` does."""
