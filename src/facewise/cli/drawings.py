"""Output paths of ``predict --draw`` and ``thumbs``.

They are checked before any work, and only files that these commands wrote are overwritten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from facewise.errors import OptionError
from facewise.formats import open_picture
from facewise.images import PillowImage

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")

_SOFTWARE: Final = 0x0131
_MARK: Final = "facewise predict --draw"
"""EXIF ``Software``, supported by all three formats: marks files that may be replaced. Sheets of
``thumbs`` have the same mark, since both can be redrawn at any time."""


def plan_drawings(draw: Path, photos: Sequence[str]) -> list[Path]:
    """One distinct path per photo, none of them an existing file that is not a drawing.

    Args:
        draw: a file for a single photo, or a folder, which is created if missing.
        photos: as named on the command line; "-" is standard input.

    Raises:
        OptionError: the pictures cannot be written there.
    """
    if str(draw) == "-":
        raise OptionError(
            "--draw -: a picture cannot go to standard output: name a file or a folder"
        )
    if len(photos) == 1 and draw.suffix and not draw.is_dir():
        return [_check_file(draw, photos)]
    if draw.suffix.lower() in SUFFIXES and not draw.is_dir():
        raise OptionError(f"--draw {draw} is a single file: name a folder for several photos")
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
        raise OptionError(f"--draw {draw} is the photo itself: choose another file, or a folder")
    check_replaceable(draw, "--draw")
    return draw


def check_replaceable(path: Path, option: str) -> None:
    """Refuse to overwrite a file that is not a drawing.

    Raises:
        OptionError: the file exists and facewise did not draw it.
    """
    if _is_foreign(path):
        raise OptionError(
            f"{option} {path} already exists, and facewise did not draw it: choose another file, "
            "or remove it first"
        )


def save_drawing(picture: PillowImage, path: Path) -> None:
    """Write a drawing, marked so that the next run may overwrite it.

    Raises:
        OSError: it cannot be written.
        ValueError: the format cannot hold it.
    """
    from PIL import Image

    exif = Image.Exif()
    exif[_SOFTWARE] = _MARK
    picture.save(path, exif=exif)


def _free_path(folder: Path, photo: str, photos: Sequence[str], taken: set[str]) -> Path:
    """``NAME.faces.png``, numbered if the name is used in this run or by a file we did not draw."""
    name = "stdin" if photo == "-" else Path(photo).name or "photo"
    for number in _numbers():
        path = folder / f"{name}{number}.faces.png"
        key = path.name.casefold()  # some file systems ignore case
        if key not in taken and not _is_photo(path, photos) and not _is_foreign(path):
            taken.add(key)
            return path
    raise AssertionError("numbers do not end")


def _numbers() -> Iterator[str]:
    yield ""
    number = 2
    while True:
        yield f"-{number}"
        number += 1


def _is_foreign(path: Path) -> bool:
    """Whether the file exists and facewise did not draw it."""
    try:
        if not path.is_file():
            return False
        with open_picture(path.read_bytes()) as picture:
            return bool(picture.getexif().get(_SOFTWARE) != _MARK)
    except Exception:  # not a picture, or unreadable: in any case not ours
        return True


def _is_photo(path: Path, photos: Sequence[str]) -> bool:
    """Whether a path is one of the photos, under any name or link."""
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
