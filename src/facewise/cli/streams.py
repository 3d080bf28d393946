"""Standard streams that never end a command in a traceback: closed, full, or of another encoding.

File names are whatever a disk holds: bytes that are no UTF-8, letters that the terminal's encoding
lacks, line breaks, escape sequences. Here they become something that can be printed.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any, TextIO


def prepare_streams() -> None:
    """Make standard output and error take any text; called once, before anything is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def give_up(stream: TextIO) -> None:
    """Point a stream that cannot be written at nothing, so that the interpreter ends in peace."""
    try:
        target = stream.fileno()
    except (OSError, ValueError):  # not a file, or closed
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, target)
    os.close(null)


def say(text: str) -> None:
    """A line for people on standard error.

    A disk that is full under a log ends no work: lines wait for room, of which 8 kB are kept. Who
    reads a pipe and goes away does.
    """
    try:
        print(f"facewise: {printable(text)}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def printable(text: str) -> str:
    """Text on one line for people: what cannot be shown is escaped, as ``ls`` and ``repr`` do."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason(error: OSError) -> str:
    """What went wrong, and with which file where it is one: no error numbers."""
    words = error.strerror or str(error)
    if error.filename is None:
        return f"cannot write the output: {words}"
    return f"{os.fsdecode(error.filename)}: {words}"


def json_line(value: Any) -> str:
    r"""One JSON line that standard output can carry, as UTF-8 or, where that cannot be, as ASCII.

    Bytes of a file name that are no UTF-8 come as lone surrogates, ``\udc80`` to ``\udcff``, which
    Python's ``os.fsencode`` turns back.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
        utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    except (UnicodeEncodeError, LookupError):
        utf8 = False
    return text if utf8 else json.dumps(value)
