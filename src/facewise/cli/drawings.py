"""Where ``predict --draw`` writes: settled before any work, and never over a photo."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from facewise.errors import OptionError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def plan_drawings(draw: Path, photos: Sequence[str]) -> list[Path]:
    """One path a photo, all different, none of them a photo.

    Args:
        draw: a file for the only photo, or a folder; a folder is made where it is missing.
        photos: as named on the command line; "-" is standard input.

    Raises:
        OptionError: the pictures cannot be written there.
    """
    if len(photos) == 1 and draw.suffix and not draw.is_dir():
        return [_check_file(draw, photos)]
    if draw.suffix.lower() in SUFFIXES and not draw.is_dir():
        raise OptionError(f"--draw {draw} is one file: for several photos name a folder")
    try:
        draw.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"--draw {draw}: the folder cannot be made ({reason})") from error
    taken: set[str] = set()
    return [_free_path(draw, name, photos, taken) for name in photos]


def _check_file(draw: Path, photos: Sequence[str]) -> Path:
    if draw.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--draw {draw}: name a .jpg, .png or .webp file, or a folder")
    if not draw.parent.is_dir():
        raise OptionError(f"--draw {draw}: its folder does not exist")
    if _is_photo(draw, photos):
        raise OptionError(f"--draw {draw} is the photo itself: name another file, or a folder")
    return draw


def _free_path(folder: Path, photo: str, photos: Sequence[str], taken: set[str]) -> Path:
    """``NAME.faces.png``, numbered where another photo of this run has that name already."""
    name = "stdin" if photo == "-" else Path(photo).name or "photo"
    for number in _numbers():
        path = folder / f"{name}{number}.faces.png"
        key = path.name.casefold()  # one file to some disks
        if key not in taken and not _is_photo(path, photos):
            taken.add(key)
            return path
    raise AssertionError("numbers do not end")


def _numbers() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


def _is_photo(path: Path, photos: Sequence[str]) -> bool:
    """Whether a path is one of the photos, by whatever name or link."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False  # it does not exist yet
    return any(_same_file(found, photo) for photo in photos)


def _same_file(found: os.stat_result, photo: str) -> bool:
    try:
        other = os.fstat(sys.stdin.fileno()) if photo == "-" else Path(photo).stat()
    except (OSError, ValueError, AttributeError):  # missing; standard input closed
        return False
    return os.path.samestat(found, other)
