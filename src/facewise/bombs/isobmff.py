"""The boxes of AVIF and HEIC (ISO/IEC 14496-12): how much they list, and where animations begin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from facewise.bombs import av1
from facewise.bombs.decoded import Decoded, together
from facewise.errors import ImageTooLargeError

MAX_ITEM_BYTES: Final = 100_000
"""Limit of the lists of items. libavif looks up each item among all: 80,000 took 15 seconds. A grid
of 256 tiles takes 12 kB."""

MAX_FRAMES: Final = 100_000
"""Limit of the frames that an animation's tables state: libavif takes 150 bytes for each, whether
there is data for it or not."""

_HOLDERS: Final = {
    b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"meta": 4, b"iprp": 0, b"ipco": 0,
}  # fmt: skip
"""Boxes that contain boxes, and the bytes before the first one inside."""
_LISTS: Final = frozenset((b"iinf", b"iloc", b"iref", b"ipma"))


class Box(NamedTuple):
    kind: bytes
    start: int
    """Of what it contains."""
    stop: int
    holder: int
    """The start of the first box beside it, which tells apart boxes of equal holders."""


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[Box]:
    """All boxes down to those that list items and frames; those of one holder in their order."""
    inside = [(start, len(data) if stop is None else stop)]
    while inside:
        first, end = inside.pop()
        at = first
        while at + 8 <= end:
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            head = 16 if size == 1 else 8
            if size == 1:
                size = int.from_bytes(data[at + 8 : at + 16], "big")
            after = min(at + size, end) if size >= head else end  # size 0: the rest of the file
            yield Box(kind, at + head, after, first)
            if kind in _HOLDERS:
                inside.append((at + head + _HOLDERS[kind], after))
            at = after


class Reader:
    """Reads the numbers in a box; beyond its end they are 0.

    Attributes:
        version: of the box, which says how long its numbers are.
        flags: of the box.
    """

    def __init__(self, data: bytes, box: Box, *, is_full: bool = True) -> None:
        self._data, self._at, self._stop = data, box.start, box.stop
        self.version = self.number(1) if is_full else 0
        self.flags = self.number(3) if is_full else 0

    def number(self, size: int) -> int:
        """The next number of ``size`` bytes."""
        self._at += size
        return int.from_bytes(self._data[self._at - size : min(self._at, self._stop)], "big")

    def entries(self, count: int) -> Iterator[None]:
        """Repeats ``count`` times, or until the box ends."""
        for _ in range(count):
            if self._at >= self._stop:
                break
            yield


def check_lists(data: bytes) -> None:
    """Check the lists of items and frames, before a library goes through them."""
    listed = 0
    chunks: dict[int, int] = defaultdict(int)
    per_chunk: dict[int, int] = defaultdict(int)
    for box in boxes(data):
        listed += 8 + (box.stop - box.start if box.kind in _LISTS else 0)
        if listed > MAX_ITEM_BYTES:
            raise ImageTooLargeError(
                "the AVIF or HEIC has too many items, or too much in front of them, to read: "
                "export it again"
            )
        reader = Reader(data, box)
        if box.kind in (b"stco", b"co64"):
            chunks[box.holder] += reader.number(4)
        elif box.kind == b"stsc":
            for _ in reader.entries(min(reader.number(4), MAX_FRAMES)):
                _, frames, _ = (reader.number(4) for _ in range(3))
                per_chunk[box.holder] = max(per_chunk[box.holder], frames)
    if any(per_chunk[holder] * count > MAX_FRAMES for holder, count in chunks.items()):
        raise ImageTooLargeError(
            f"the AVIF or HEIC has more than {MAX_FRAMES:,} frames: save one of them"
        )


def decoded_first_frame(data: bytes) -> Decoded:
    """What the first AV1 frame of each track takes: colours and transparency have one each."""
    starts: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for box in boxes(data):
        reader = Reader(data, box)
        if box.kind in (b"stco", b"co64") and reader.number(4):
            starts.setdefault(box.holder, reader.number(4 if box.kind == b"stco" else 8))
        elif box.kind == b"stsz":
            size_of_all, _, first_size = (reader.number(4) for _ in range(3))
            sizes.setdefault(box.holder, size_of_all or first_size)
    return together(
        av1.decoded(data, ((start, sizes.get(holder, 0)),)) for holder, start in starts.items()
    )
