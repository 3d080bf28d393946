"""What a TIFF costs to open: the values that its first directory lists, and the size of its tiles.

Pillow and libtiff may read different directories, or different ones of two equal tags, so all that
either may see is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from facewise.bombs.decoded import Decoded
from facewise.errors import ImageTooLargeError

if TYPE_CHECKING:
    from PIL import Image

MAX_TIFF_VALUES: Final = 65_536
"""Mostly strips or tiles: enough for one per row of the tallest possible picture. Each costs Pillow
10 microseconds and 350 bytes, however few pixels there are."""

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_PARSED_TAGS: Final = frozenset(
    (*range(254, 263), 266, 273, 274, 277, 278, 282, 283, 284, 296, 322, 323, 324, 338, 339, 530)
)
"""Tags whose values Pillow parses into objects: sizes, samples, resolution, offsets of strips (273)
and tiles (324). Others, such as colour maps and text, may be long, and stay bytes."""
_BYTES: Final = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a whole number, by its type."""


class _Entry(NamedTuple):
    tag: int
    values: int
    first: int
    """The first value; 0 if it is no whole number."""


def check_directory(data: bytes) -> None:
    """Check the number of values in a TIFF's first directory, the only one that is read."""
    for is_big in _variants(data):
        counts = (entry.values for entry in _entries(data, is_big) if entry.tag in _PARSED_TAGS)
        # Pillow skips an entry that has more values than the file has bytes.
        if sum(count for count in counts if count <= len(data)) > MAX_TIFF_VALUES:
            raise ImageTooLargeError(
                f"the TIFF lists more than {MAX_TIFF_VALUES:,} strips, tiles or samples, which "
                "takes too long to read: save it again, for example as PNG"
            )


def decoded_parts(data: bytes, picture: Image.Image) -> Decoded:
    """What the tiles and strips take.

    libtiff decodes a tile whole, however far it reaches past the picture. Pillow, which decodes
    what is not compressed, reads it whole, too, and begins again at the top of the picture where
    there are more tiles or strips than fill it, as there are if each has one band.
    """
    sides = dict.fromkeys((_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT), 0)
    for is_big in _variants(data):
        for tag, _, first in _entries(data, is_big):
            if tag in sides:
                sides[tag] = max(sides[tag], first)
    width, height, tile_width, tile_height = sides.values()
    tiles = _rounded_up(width, tile_width) * _rounded_up(height, tile_height)
    parts = (part[1] for part in getattr(picture, "tile", ()))
    listed = sum((right - left) * (bottom - top) for left, top, right, bottom in parts)
    return Decoded(max(tiles, listed // len(picture.getbands())), tile_width * tile_height)


def _rounded_up(length: int, step: int) -> int:
    """The length of as many steps as cover ``length``; 0 for steps of 0, where there are none."""
    return -(-length // step) * step if step else 0


def _variants(data: bytes) -> set[bool]:
    """Whether the file may be read as a BigTIFF."""
    return {data[2] == 43, 43 in data[2:4]}  # Pillow 13 takes MM\0+ for a classic TIFF


def _entries(data: bytes, is_big: bool) -> Iterator[_Entry]:
    order: str = "<" if data[:2] == b"II" else ">"
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))  # tag, type, count, value

    def number(field: bytes) -> int:
        return int.from_bytes(field, "little" if order == "<" else "big")

    at, width = (number(data[8:16]), 8) if is_big else (number(data[4:8]), 2)
    first = at + width
    entries = data[first : first + number(data[at:first]) * entry.size]
    whole = len(entries) // entry.size * entry.size
    for tag, kind, count, field in entry.iter_unpack(entries[:whole]):
        size = _BYTES.get(kind, 0)
        if size * count > len(field):  # the field says where the values are
            field = data[(start := number(field)) : start + size]
        yield _Entry(tag, count, number(field[:size]))
