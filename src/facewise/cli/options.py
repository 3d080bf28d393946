"""Options shared by several commands."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from facewise.errors import OptionError
from facewise.text import reason_of

_LEVELS = {0: logging.WARNING, 1: logging.INFO}


REPORT_SUFFIXES: Final = frozenset((".html", ".json", ".md"))

Model = Annotated[str, typer.Option(help="Name, name@version, or a spec's path.")]
Coverage = Annotated[float, typer.Option(help="Coverage of intervals: 0.8, 0.9 or 0.95.")]
MinFacePx = Annotated[float | None, typer.Option(help="Smallest face to look for, in pixels.")]
MaxFaces = Annotated[int | None, typer.Option(help="Keep only this many faces, the largest.")]
Providers = Annotated[
    str | None,
    typer.Option(help="ONNX Runtime execution providers, comma-separated; default: the CPU."),
]


def report_path(name: Path, suffix: str) -> Path:
    """A report's name with a suffix; the ".2" of "report-v1.2" is not a suffix, and stays."""
    stem = name.stem if name.suffix.lower() in REPORT_SUFFIXES else name.name
    return name.with_name(stem + suffix)


def local_path(given: str | Path) -> Path:
    """Parse the path of something to read, or take a default; it must lie on this machine.

    ``Path`` alone would turn ``s3://bucket/photos`` into ``s3:/bucket/photos``, which then does not
    exist.

    Raises:
        typer.BadParameter: it is a URL. (The text of any other ``ValueError`` would be lost.)
    """
    from facewise.images import path_advice

    text = str(given)
    if "://" in text or text.startswith("file:/"):
        raise typer.BadParameter(f"{text} is a URL, not a path: {path_advice(text)}")
    return Path(given)


def check_folder(option: str, folder: Path) -> None:
    """Check before any work that files can be created in a folder.

    Creates a temporary file, and the folder if it is missing, and removes both.

    Raises:
        OptionError: nothing can be written there.
    """
    new: list[Path] = []
    try:
        new += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise OptionError(
            f"{option}: nothing can be written to the folder {folder} ({reason}): choose another"
        ) from error
    finally:
        for path in new:
            with contextlib.suppress(OSError, ValueError):
                path.rmdir()


def speak() -> None:
    """Log at INFO, for commands that take long; never raises the level that ``-vv`` set."""
    logger = logging.getLogger("facewise")
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))


def _be_verbose(count: int) -> int:
    """Lower the log level; ``-v`` works both before and after the command's name."""
    logger = logging.getLogger("facewise")
    level = _LEVELS.get(count, logging.DEBUG)
    if count or logger.level == logging.NOTSET:
        logger.setLevel(level)
    return count


Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        callback=_be_verbose,
        show_default=False,
        metavar="",
        help="Show more detail; -vv shows still more.",
    ),
]
