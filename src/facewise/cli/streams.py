"""Make standard streams safe: closed, full or in another encoding, they never cause a traceback.

File names may hold bytes that are not UTF-8, characters missing from the terminal's encoding, line
breaks or escape sequences. What is printed here is made printable.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any, TextIO

from facewise.text import printable, reason_of


def prepare_streams() -> None:
    """Make standard output and error accept any text; call once, before printing anything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if name == "stderr":
                sys.stderr = _unbuffered(stream)


def _unbuffered(stream: io.TextIOWrapper) -> TextIO:
    """The same file without a buffer, as ``python -u`` has it.

    What a full disk refuses would stay in a buffer, and every later flush would fail because of it,
    such as the one before each worker process starts.
    """
    raw = getattr(stream.buffer, "raw", None)
    if not isinstance(raw, io.FileIO):
        return stream
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)


def give_up(stream: TextIO) -> None:
    """Redirect an unwritable stream to the null device, so that the interpreter exits cleanly."""
    try:
        target = stream.fileno()
    except (OSError, ValueError):  # not a file, or closed
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, target)
    os.close(null)


def say(text: str) -> None:
    """Print what happens, or went wrong, on standard error."""
    _print_line(f"facewise: {text}")


def note(text: str) -> None:
    """Print what to keep in mind about the result on standard error."""
    _print_line(f"note: {text}")


def _print_line(text: str) -> None:
    """Print a line for people on standard error.

    A full disk under a log does not end the work: the lines are lost. A broken pipe does end it.
    """
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def reason(error: OSError) -> str:
    """What went wrong, and with which file, if any; without error numbers."""
    words = reason_of(error)
    if error.filename is None:
        return f"cannot write the output: {words}"
    return f"{os.fsdecode(error.filename)}: {words}"


def json_line(value: Any) -> str:
    r"""One JSON line for standard output, in UTF-8 if it can be encoded so, else in ASCII.

    Bytes of a file name that are not UTF-8 become lone surrogates, ``\udc80`` to ``\udcff``, which
    Python's ``os.fsencode`` converts back.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
        utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    except (UnicodeEncodeError, LookupError):
        utf8 = False
    return text if utf8 else json.dumps(value)
