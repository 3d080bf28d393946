"""Refuses files built to cost far more than their size and pixels suggest, before decoding them.

Bytes and pixels are limited elsewhere. Here the parts of a file are counted: each byte of the file
may cost Pillow microseconds and hundreds of bytes, and a part may have far more pixels than the
picture. The files are walked exactly as Pillow does it, since something could hide where the two
differ; damage is left for Pillow to report.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

from facewise.bombs import isobmff, items, tiff
from facewise.bombs.decoded import Decoded
from facewise.errors import ImageTooLargeError

if TYPE_CHECKING:
    from PIL import Image

MAX_JPEG_SCANS: Final = 100
"""Encoders write about ten. A scan needs only some 70 bytes, and costs a pass over all blocks of
the picture (35 ms at 48 megapixels): 20 MB of scans would keep a core busy for hours."""

MAX_PARTS: Final = 1000
"""Limit of a JPEG's segments before its first scan, a PNG's chunks other than pixels, and a PPM's
comments. Honest files have dozens; 1,000 full segments hold 65 MB of profiles, XMP, depth maps and
other data split into 64 kB pieces. A chunk of 1 kB may unpack to 1 MB, which takes 2.5 ms."""

MAX_PARSED_BYTES: Final = 1_000_000
"""Limit of EXIF, which the standard restricts to 64 kB in a JPEG, and of a JPEG's tables, which
take some 2 kB. Pillow parses these into objects; of other segments it only keeps the bytes."""

MAX_READS: Final = 100_000
"""Limit of reads of a file until its header is parsed. Pillow needs two per 255-byte block of a
GIF's comment (a block that comes alone also takes 200 bytes of memory), two per entry of a TIFF's
directory, and one per byte of filler in a JPEG: a microsecond each."""

MAX_RUNS: Final = 4_000_000
"""Limit of pixels, and of bytes, of a run-length encoded BMP, which Pillow decodes in Python: up to
a second."""

MAX_SAMPLES: Final = 1_000_000
"""Limit for a PBM, PGM or PPM that is text, or whose white is not 255: Pillow decodes those in
Python, at up to two microseconds per sample. Others have no such limit."""

EXCESS: Final = 3
"""Limit of the pixels that are decoded for each one of the picture: one for its colours, one for
transparency, one for what reaches past it and for layers."""

SPARE_PIXELS: Final = 4096 * 4096
"""Beyond that, and in one part beyond the picture's own: a small one may be in a large tile."""

_JPEG_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # \xff+ is quadratic in filler
_JPEG_SEGMENT: Final = re.compile(rb"\xff[\xc0-\xc7\xc9-\xcf\xda-\xef\xfe]")
"""Segments whose length Pillow reads."""
_PNG_CHUNK: Final = re.compile(rb"\w{4}")
_PNG_PIXELS: Final = frozenset((b"IDAT", b"fdAT", b"fcTL"))
"""Chunks of which honest files have thousands: encoders write a few kB at a time."""


class HeaderFile(io.BytesIO):
    """A file that counts, and limits, its reads until its header is parsed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = 0
        self.is_parsed = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS and not self.is_parsed:
            raise ImageTooLargeError(
                "the header comes in too many pieces to read, or is damaged: download it again, or "
                "export it without metadata"
            )
        return super().read(size)


def check(name: str, data: bytes) -> None:
    """Refuse a file of format ``name`` that would take far too long, or all memory, to open."""
    if name == "JPEG":
        _check_segments(data)
        _check_scans(data)
    elif name == "PNG":
        _check_chunks(data)
    elif name in ("AVIF", "HEIC"):
        isobmff.check_lists(data)
    elif name == "PPM" and data[1:2] in b"123" and data.count(b"#") > MAX_PARTS:
        raise ImageTooLargeError(  # removing each one copies the rest of a 1 MB block
            f"the PPM has more than {MAX_PARTS:,} comments, which takes too long to read: save it "
            "as PNG"
        )
    elif name == "TIFF":
        tiff.check_directory(data)


def _check_segments(data: bytes) -> None:
    """Check a JPEG's segments up to its first scan; Pillow joins EXIF, for one, piece by piece."""
    segments = parsed = 0
    position = 2
    while (match := _JPEG_SEGMENT.search(data, position)) is not None:
        marker, start = match[0][1], match.end()
        if marker == 0xDA:
            break
        size = int.from_bytes(data[start : start + 2], "big")
        position = start + size
        segments += 1
        parsed += 0 if marker >= 0xE0 and data[start + 2 : start + 6] != b"Exif" else size
        if segments > MAX_PARTS or parsed > MAX_PARSED_BYTES:
            raise ImageTooLargeError(
                f"the JPEG begins with more than {MAX_PARTS:,} segments, or with "
                f"{MAX_PARSED_BYTES:,} bytes of EXIF or tables, which takes too long to read: "
                "export it again, without metadata"
            )


def _check_scans(data: bytes) -> None:
    """Check the number of scans; the first count is cheap, and nearly always enough."""
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS and count_jpeg_scans(data) > MAX_JPEG_SCANS:
        raise ImageTooLargeError(
            f"the JPEG has more than {MAX_JPEG_SCANS} scans, which takes too long to decode: "
            "export it again"
        )


def count_jpeg_scans(data: bytes) -> int:
    """Scans up to the end-of-image marker, excluding thumbnails and trailing data."""
    scans, position = 0, 2
    while (match := _JPEG_MARKER.search(data, position)) is not None:
        marker = match[1][0]
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        position = match.end()
        if marker not in (0x01, 0xD8):  # all other markers here are followed by a length
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _check_chunks(data: bytes) -> None:
    """Check a PNG's chunks up to its end; a hundred chunks of pixels count as one."""
    hundredths, position = 0, 8
    while _PNG_CHUNK.fullmatch(kind := data[position + 4 : position + 8]) and kind != b"IEND":
        hundredths += 1 if kind in _PNG_PIXELS else 100
        if hundredths > 100 * MAX_PARTS:
            raise ImageTooLargeError(
                f"the PNG has more than {MAX_PARTS:,} chunks besides its pixels, or "
                f"{100 * MAX_PARTS:,} of pixels, which takes too long to read: export it again, "
                "without metadata"
            )
        position += 12 + int.from_bytes(data[position : position + 4], "big")


def check_opened(name: str, picture: Image.Image, data: bytes) -> None:
    """Refuse an opened picture that would take far too long to decode."""
    tiles = getattr(picture, "tile", [])
    decoder = tiles[0][0] if tiles else ""
    pixels = picture.width * picture.height
    if name == "TIFF":
        _check_decoded(name, picture, tiff.decoded_parts(data, picture))
    if name in ("AVIF", "HEIC"):
        _check_decoded(name, picture, items.decoded_items(data, is_avif=name == "AVIF"))
    if name == "AVIF":  # its brands say whether its items are decoded, or its first frame
        _check_decoded(name, picture, isobmff.decoded_first_frame(data))
    if decoder == "bmp_rle" and max(len(data), pixels) > MAX_RUNS:
        raise ImageTooLargeError(
            f"a run-length encoded BMP is only read up to {MAX_RUNS:,} pixels and bytes: save "
            "it as PNG"
        )
    if decoder.startswith("ppm") and pixels * len(picture.getbands()) > MAX_SAMPLES:
        raise ImageTooLargeError(
            f"a PPM that is text, or whose white is not 255, is only read up to {MAX_SAMPLES:,} "
            "samples: save it as PNG"
        )


def _check_decoded(name: str, picture: Image.Image, decoded: Decoded) -> None:
    """Refuse a picture for which far more is decoded than it shows."""
    pixels = picture.width * picture.height
    if decoded.pixels > EXCESS * pixels + SPARE_PIXELS or decoded.largest > pixels + SPARE_PIXELS:
        raise ImageTooLargeError(
            f"the {name} has tiles or parts of far more pixels than the picture: export it again"
        )


def check_exif(info: dict[Any, Any]) -> None:
    """Refuse oversized EXIF. Call it after decoding, as EXIF can follow the pixels."""
    for key in ("exif", "Raw profile type exif"):
        exif = info.get(key)
        if isinstance(exif, (bytes, str)) and len(exif) > MAX_PARSED_BYTES:
            raise ImageTooLargeError(
                f"EXIF of more than {MAX_PARSED_BYTES:,} bytes takes too long to read: export the "
                "picture without metadata"
            )
