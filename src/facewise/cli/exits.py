"""Exit codes, the same for every command."""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    """Something failed: a photo of ``predict``, a check of ``doctor``, the output itself."""
    USAGE = 2
    NO_FACE = 3
    """Of ``predict``: every photo was read, and none has a face."""
    INTERRUPTED = 130
    NO_READER = 141
    """What read the output went away, as ``| head`` does."""
