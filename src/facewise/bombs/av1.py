"""The size of the frames in AV1 data (AV1 specification, 5.3 to 5.5)."""

from __future__ import annotations

from typing import Final

from facewise.bombs.decoded import Decoded

Extents = tuple[tuple[int, int], ...]
"""Where the pieces of some data are in a file: the start and length of each."""

_SEQUENCE_HEADER: Final = 1
_FRAMES: Final = frozenset((3, 6))
"""Types of the OBUs, the parts of AV1 data, that begin a frame."""
_MAX_OBUS: Final = 256
"""Looked at in one picture, which usually has three."""
_HEADER_BYTES: Final = 512
"""A sequence header is shorter up to the size, even with 32 operating points."""


def decoded(data: bytes, extents: Extents) -> Decoded:
    """What the frames of a picture take, each at the largest size that a sequence header states.

    Args:
        data: the file.
        extents: where in it the picture's AV1 data is. Frames that are not shown are decoded, too.
    """
    frames = largest = at = 0
    size = sum(length for _, length in extents)
    for _ in range(_MAX_OBUS):
        if not (head := read(data, extents, at, 10)):
            return Decoded(frames * largest, largest)
        kind, has_extension, has_size = head[0] >> 3 & 15, head[0] >> 2 & 1, head[0] >> 1 & 1
        at += 1 + has_extension
        length = size - at
        if has_size:
            digits, length = _leb128(head[1 + has_extension :])
            at += digits
        if kind == _SEQUENCE_HEADER:
            header = read(data, extents, at, min(length, _HEADER_BYTES))
            largest = max(largest, _frame_pixels(header))
        frames += kind in _FRAMES
        at += length
    return Decoded(max(frames, _MAX_OBUS) * largest, largest)


def read(data: bytes, extents: Extents, at: int, size: int) -> bytes:
    """Read up to ``size`` bytes, ``at`` bytes into data that is in pieces."""
    parts = []
    for start, length in extents:
        part = data[start + at : start + min(length, at + size)] if at < length else b""
        parts.append(part)
        at, size = max(at - length, 0), size - len(part)
    return b"".join(parts)


def _leb128(data: bytes) -> tuple[int, int]:
    """The length of a number of up to eight bytes, and the number."""
    number = 0
    for index, byte in enumerate(data[:8]):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return index + 1, number
    return 8, number


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """The next bits as a number; zeros beyond the end."""
        self._left -= count
        number = self._number >> self._left if self._left >= 0 else 0
        return number & ((1 << count) - 1)


def _frame_pixels(header: bytes) -> int:
    """The largest frame that a sequence header allows."""
    bits = _Bits(header)
    bits.take(4)  # seq_profile, still_picture
    is_reduced = bits.take(1)
    if is_reduced:
        bits.take(5)  # seq_level_idx
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval, then a number in Golomb's code
            zeros = 0
            while zeros < 32 and not bits.take(1):
                zeros += 1
            bits.take(zeros % 32)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)  # operating_point_idc
        if bits.take(5) > 7:  # seq_level_idx
            bits.take(1)  # seq_tier
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delay and bits.take(1):
            bits.take(4)
