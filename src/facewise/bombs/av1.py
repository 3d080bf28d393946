"""The size of the frames in AV1 data (AV1 specification, 5.3, 5.5 and 5.9.2)."""

from __future__ import annotations

from typing import Final, NamedTuple

from facewise.bombs.decoded import Decoded

Extents = tuple[tuple[int, int], ...]
"""Where the pieces of some data are in a file: the start and length of each."""

_SEQUENCE_HEADER: Final = 1
_FRAMES: Final = frozenset((3, 6))
"""Types of the OBUs, the parts of AV1 data, that begin a frame."""
_MAX_OBUS: Final = 256
"""Looked at in one picture, which usually has three."""
_HEADER_BYTES: Final = 512
"""Both kinds of header are shorter up to what is read, even with 32 operating points."""
_KEY_FRAME, _SWITCH_FRAME = 0, 3
_EACH_FRAME: Final = 2
"""SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV: each frame's header has the choice."""


def decoded(data: bytes, extents: Extents) -> Decoded:
    """What the frames of a picture take, each at the largest size that its headers allow.

    Args:
        data: the file.
        extents: where in it the picture's AV1 data is. Frames that are not shown are decoded, too.
    """
    pixels = largest = at = 0
    sequence = None
    size = sum(length for _, length in extents)
    for _ in range(_MAX_OBUS):
        if not (head := read(data, extents, at, 10)):
            return Decoded(pixels, largest)
        kind, has_extension, has_size = head[0] >> 3 & 15, head[0] >> 2 & 1, head[0] >> 1 & 1
        at += 1 + has_extension
        length = size - at
        if has_size:
            digits, length = _leb128(head[1 + has_extension :])
            at += digits
        if kind == _SEQUENCE_HEADER:
            sequence = _sequence(_Bits(read(data, extents, at, _HEADER_BYTES)))
        elif kind in _FRAMES and sequence is not None:
            frame = _frame_pixels(_Bits(read(data, extents, at, _HEADER_BYTES)), sequence)
            pixels, largest = pixels + frame, max(largest, frame)
        at += length
    return Decoded(max(pixels, _MAX_OBUS * largest), largest)


def read(data: bytes, extents: Extents, at: int, size: int) -> bytes:
    """Read up to ``size`` bytes, ``at`` bytes into data that is in pieces."""
    parts = []
    for start, length in extents:
        part = data[start + at : start + min(length, at + size)] if at < length else b""
        parts.append(part)
        at, size = max(at - length, 0), size - len(part)
        if size == 0:
            break
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


class _Sequence(NamedTuple):
    pixels: int
    """Of a frame that states no size."""
    most_pixels: int
    """That a frame can state. dav1d decodes frames larger than the sequence's."""
    is_reduced: bool = True
    """A still picture's, whose frame states nothing."""
    time_bits: int = 0
    id_bits: int = 0
    screen_content: int = 0
    integer_mv: int = 0


def _sequence(bits: _Bits) -> _Sequence:
    """Read a sequence header, as far as frames' headers depend on it."""
    bits.take(4)  # seq_profile, still_picture
    is_reduced = bool(bits.take(1))
    time_bits = 0
    if is_reduced:
        bits.take(5)  # seq_level_idx
    else:
        time_bits = _operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    pixels = (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)
    most_pixels = 1 << (width_bits + height_bits)
    if is_reduced:
        return _Sequence(pixels, most_pixels)
    id_bits = bits.take(4) + bits.take(3) + 3 if bits.take(1) else 0
    bits.take(7)  # from use_128x128_superblock to enable_dual_filter
    if bits.take(1):  # enable_order_hint
        bits.take(2)
    screen_content = _EACH_FRAME if bits.take(1) else bits.take(1)
    integer_mv = _EACH_FRAME
    if screen_content and not bits.take(1):
        integer_mv = bits.take(1)
    return _Sequence(
        pixels, most_pixels, is_reduced, time_bits, id_bits, screen_content, integer_mv
    )


def _operating_points(bits: _Bits) -> int:
    """Skip to the size; returns the length of the time in frames' headers, 0 if they have none."""
    delay_bits = time_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        is_regular = bits.take(1)  # equal_picture_interval
        if is_regular:  # followed by a number in Golomb's code
            zeros = 0
            while zeros < 32 and not bits.take(1):
                zeros += 1
            bits.take(zeros % 32)
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(37)
            time_bits = bits.take(5) + 1
            time_bits = 0 if is_regular else time_bits
    has_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)  # operating_point_idc
        if bits.take(5) > 7:  # seq_level_idx
            bits.take(1)  # seq_tier
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delay and bits.take(1):
            bits.take(4)
    return time_bits


def _frame_pixels(bits: _Bits, sequence: _Sequence) -> int:
    """The most that a frame can have; whatever it states if its header says that it does."""
    if sequence.is_reduced:
        return sequence.pixels
    if bits.take(1):  # show_existing_frame
        return 0
    kind, is_shown = bits.take(2), bits.take(1)
    bits.take(sequence.time_bits if is_shown else 1)
    if kind != _SWITCH_FRAME and not (kind == _KEY_FRAME and is_shown):
        bits.take(1)  # error_resilient_mode
    bits.take(1)  # disable_cdf_update
    screen_content = sequence.screen_content
    if screen_content == _EACH_FRAME:
        screen_content = bits.take(1)
    if screen_content and sequence.integer_mv == _EACH_FRAME:
        bits.take(1)
    bits.take(sequence.id_bits)
    has_size = kind == _SWITCH_FRAME or bits.take(1)  # frame_size_override_flag
    return sequence.most_pixels if has_size else sequence.pixels
