"""Drawings of ``predict --draw`` and ``thumbs``: their paths, and the mark they are known by."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from facewise.cli.outputs import Outputs
from facewise.errors import OptionError
from facewise.formats import open_picture
from facewise.images import PillowImage
from facewise.text import reason_of

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
    outputs = Outputs("--draw", [0 if photo == "-" else photo for photo in photos])
    if len(photos) == 1 and draw.suffix and not draw.is_dir():
        _check_file(draw)
        outputs.add(draw, is_drawing)
        return [draw]
    if draw.suffix.lower() in SUFFIXES and not draw.is_dir():
        raise OptionError(f"--draw {draw} is a single file: name a folder for several photos")
    try:
        draw.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise OptionError(f"--draw {draw}: the folder cannot be made ({reason})") from error
    taken: set[str] = set()
    return [_free_path(draw, name, outputs, taken) for name in photos]


def _check_file(draw: Path) -> None:
    if draw.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--draw {draw}: name a .jpg, .png or .webp file, or a folder")
    if not draw.parent.is_dir():
        raise OptionError(f"--draw {draw}: its folder does not exist")


def is_drawing(path: Path) -> bool:
    """Whether facewise drew a file; False if it cannot be read."""
    try:
        with open_picture(path.read_bytes()) as picture:
            return bool(picture.getexif().get(_SOFTWARE) == _MARK)
    except Exception:  # not a picture, or unreadable: in any case not ours
        return False


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


def _free_path(folder: Path, photo: str, outputs: Outputs, taken: set[str]) -> Path:
    """``NAME.faces.png``, numbered if the name is used in this run or by a file we did not draw."""
    name = "stdin" if photo == "-" else Path(photo).name or "photo"
    for number in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
        path = folder / f"{name}{number}.faces.png"
        key = path.name.casefold()  # some file systems ignore case
        if key not in taken:
            with contextlib.suppress(OptionError):
                outputs.add(path, is_drawing)
                taken.add(key)
                return path
    raise AssertionError("numbers do not end")
