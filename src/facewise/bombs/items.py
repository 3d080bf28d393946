"""What the picture of an AVIF or HEIC is made of (ISO/IEC 23008-12): tiles, layers, transparency.

Where a list comes twice, libraries may go by either one, so the entries of both count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from facewise.bombs import av1
from facewise.bombs.av1 import Extents, read
from facewise.bombs.decoded import Decoded, either, together
from facewise.bombs.isobmff import Box, Reader, boxes
from facewise.errors import ImageTooLargeError

_CANVASES: Final = {b"grid": 4, b"iovl": 10}
"""Items that others are put on, and where in their data the size of the whole is."""
_MAX_DEPTH: Final = 8
"""Of items made of items; tiles with transparency need three."""


def decoded_items(data: bytes, is_avif: bool) -> Decoded:
    """What the primary item takes, with all that it is made of.

    libavif does not hold an item to the size in its properties, so that in its data counts. libheif
    refuses an item in which the two differ.
    """
    found: dict[bytes, list[Box]] = defaultdict(list)
    inside: dict[int, list[Box]] = defaultdict(list)
    for box in boxes(data):
        found[box.kind].append(box)
        inside[box.holder].append(box)
    kinds = _kinds(data, found[b"iinf"])
    parts, extras = _references(data, found[b"iref"])
    extents = _extents(data, found[b"iloc"], found[b"idat"])
    properties = [inside[box.start] for box in found[b"ipco"]]
    sizes = {} if is_avif else _sizes(data, found[b"ipma"], properties)
    known: dict[int, Decoded] = {}

    def alone(item: int) -> Iterator[Decoded]:
        yield Decoded.of(sizes.get(item, 0))
        for where in extents[item]:
            for kind in kinds[item] & _CANVASES.keys():
                yield Decoded.of(_canvas_pixels(read(data, where, 0, 32), _CANVASES[kind]))
            if is_avif and b"av01" in kinds[item]:
                yield av1.decoded(data, where)

    def whole(item: int, depth: int = 1) -> Decoded:
        if depth > _MAX_DEPTH:
            raise ImageTooLargeError(
                "the picture is made of parts of parts of parts: export it again"
            )
        if item not in known:
            known[item] = Decoded(0, 0)  # an item that contains itself is damaged
            made_of = together(whole(part, depth + 1) for part in parts[item])
            beside = (whole(extra, depth + 1) for extra in extras[item])
            known[item] = together([either([made_of, *alone(item)]), *beside])
        return known[item]

    return together(whole(item) for item in _primary(data, found[b"pitm"]))


def _primary(data: bytes, lists: list[Box]) -> set[int]:
    """The item that is the picture."""
    readers = [Reader(data, box) for box in lists]
    return {reader.number(2 if reader.version == 0 else 4) for reader in readers}


def _kinds(data: bytes, lists: list[Box]) -> dict[int, set[bytes]]:
    """The kinds of each item."""
    kinds: dict[int, set[bytes]] = defaultdict(set)
    for box in lists:
        version = Reader(data, box).version
        for entry in boxes(data, box.start + (6 if version == 0 else 8), box.stop):
            reader = Reader(data, entry)
            item = reader.number(2 if reader.version < 3 else 4)
            reader.number(2)  # item_protection_index
            kinds[item].add(reader.number(4).to_bytes(4, "big"))
    return kinds


def _references(data: bytes, lists: list[Box]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """The parts that each item is made of, and the auxiliary items, such as transparency."""
    parts: dict[int, list[int]] = defaultdict(list)
    extras: dict[int, list[int]] = defaultdict(list)
    for box in lists:
        size = 2 if Reader(data, box).version == 0 else 4
        for entry in boxes(data, box.start + 4, box.stop):
            reader = Reader(data, entry, is_full=False)
            item = reader.number(size)
            others = [reader.number(size) for _ in reader.entries(reader.number(2))]
            if entry.kind == b"dimg":
                parts[item] += others
            elif entry.kind == b"auxl":
                for other in others:
                    extras[other].append(item)
    return parts, extras


def _extents(data: bytes, lists: list[Box], idats: list[Box]) -> dict[int, list[Extents]]:
    """Where each item's data is; several answers if lists are in doubt."""
    extents: dict[int, list[Extents]] = defaultdict(list)
    for box in lists:
        reader = Reader(data, box)
        digits = reader.number(2)
        offset_size, length_size, base_size, index_size = (digits >> k & 15 for k in (12, 8, 4, 0))
        index_size = index_size if reader.version else 0
        id_size = 2 if reader.version < 2 else 4
        for _ in reader.entries(reader.number(id_size)):
            item = reader.number(id_size)
            is_in_idat = reader.version > 0 and reader.number(2) & 15 == 1
            reader.number(2)  # data_reference_index
            base = reader.number(base_size)
            pieces = []
            count = reader.number(2)
            # Pieces may take no bytes, and be as many as one likes.
            for _ in reader.entries(count if offset_size + length_size + index_size else 1):
                reader.number(index_size)
                pieces.append((base + reader.number(offset_size), reader.number(length_size)))
            for begin in [idat.start for idat in idats] if is_in_idat else [0]:
                extents[item].append(
                    tuple(
                        (begin + start, length or len(data) - begin - start)
                        for start, length in pieces
                    )
                )
    return extents


def _sizes(data: bytes, lists: list[Box], properties: list[list[Box]]) -> dict[int, int]:
    """The pixels of each item, as its property ``ispe`` states them."""
    stated: dict[int, int] = defaultdict(int)
    for containers in properties:
        for index, box in enumerate(containers, 1):
            if box.kind == b"ispe":
                reader = Reader(data, box)
                stated[index] = max(stated[index], reader.number(4) * reader.number(4))
    sizes: dict[int, int] = defaultdict(int)
    for box in lists:
        reader = Reader(data, box)
        id_size, index_size = 2 + 2 * (reader.version > 0), 1 + (reader.flags & 1)
        for _ in reader.entries(reader.number(4)):
            item = reader.number(id_size)
            for _ in reader.entries(reader.number(1)):
                index = reader.number(index_size) & ((128 << 8 * (index_size - 1)) - 1)
                sizes[item] = max(sizes[item], stated[index])
    return sizes


def _canvas_pixels(data: bytes, at: int) -> int:
    """The size of a canvas: the second byte says in how many bytes each side is."""
    size = 4 if data[1:2] and data[1] & 1 else 2
    width, height = data[at : at + size], data[at + size : at + 2 * size]
    return int.from_bytes(width, "big") * int.from_bytes(height, "big")
