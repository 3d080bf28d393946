"""How much is decoded for a picture, though it may show little of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Decoded(NamedTuple):
    pixels: int
    """All together, which take time."""
    largest: int
    """Pixels of the largest part, which take memory at once."""

    @classmethod
    def of(cls, pixels: int) -> Decoded:
        """One part."""
        return cls(pixels, pixels)


def together(parts: Iterable[Decoded]) -> Decoded:
    """What several parts take, one after another."""
    all_pixels, largest = zip((0, 0), *parts, strict=True)
    return Decoded(sum(all_pixels), max(largest))


def either(parts: Iterable[Decoded]) -> Decoded:
    """The most of what is said of a part, or of those that fill it."""
    all_pixels, largest = zip((0, 0), *parts, strict=True)
    return Decoded(max(all_pixels), max(largest))
