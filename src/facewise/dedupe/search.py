"""Pairs of pictures worth a closer look, found by comparing hashes or thumbnails all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from facewise.dedupe.fingerprints import HASH_BITS, THUMB_PX, Fingerprints
from facewise.dedupe.likeness import SHIFT_PX
from facewise.types import BoolArray, FloatArray, ImageArray, IndexArray

LOOSE_BITS: Final = 28
"""Hashes that differ in at most this many bits are worth a closer look."""

NEAR_CORRELATION: Final = 0.9
"""Thumbnails that correlate at least this much are worth a closer look."""

LEAST_BUSY: Final = HASH_BITS // 4
"""If two pictures have fewer non-plain cells than this, their hashes alone do not make a pair."""

MIDDLE_CELL_PX: Final = 4
"""Cell size for middles (thumbnails without their outer ``SHIFT_PX``); content that is shifted by
half a cell still looks alike."""

ALIKE: Final = 0.5
"""Mostly plain pictures whose middles correlate less than this are not worth a closer look: it
takes milliseconds, and the hashes of all such pictures are close to each other."""

BLOCK_CELLS: Final = 2**24
"""Similarities held in memory at once."""

PAIRS_GATHERED: Final = 2**14
"""Pairs of mostly plain pictures whose middles are compared at once."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidatePairs:
    """Pairs worth a closer look, found by one kind of search.

    Attributes:
        found_by: "hash", "loose hash" or "thumbnail".
        mirrored: each first picture resembles the mirror image of the second.
        known_bits: an earlier search found the pairs that differ in at most this many bits; -1 if
            none did.
        first: ``(N,)``, rows of one picture.
        second: ``(N,)``, rows of the other, always larger.
    """

    found_by: str
    mirrored: bool
    known_bits: int
    first: IndexArray
    second: IndexArray

    def split(self, size: int) -> Iterator[CandidatePairs]:
        """The same pairs, at most ``size`` at a time."""
        for start in range(0, len(self.first), size):
            some = slice(start, start + size)
            yield replace(self, first=self.first[some], second=self.second[some])


def candidates(prints: Fingerprints, *, near_bits: int, thorough: bool) -> list[CandidatePairs]:
    """Search for pairs worth a closer look; see ``find_pairs``.

    The fastest search comes first: a pair is named after the first that finds it.
    """
    bits, thumbs = prints.bits, prints.thumbs
    near, loose = (float(HASH_BITS - 2 * most) for most in (near_bits, LOOSE_BITS))
    upright = hash_vectors(bits)
    # found_by, mirrored, known_bits; then two sets of vectors and the least product of a pair.
    searches = [("hash", False, -1, upright, upright, near)]
    if thorough:
        flipped = hash_vectors(mirrored_bits(bits))
        small, turned = thumb_vectors(thumbs), thumb_vectors(thumbs[:, :, ::-1])
        searches += [
            ("loose hash", False, near_bits, upright, upright, loose),
            ("loose hash", True, -1, upright, flipped, loose),
            ("thumbnail", False, max(near_bits, LOOSE_BITS), small, small, NEAR_CORRELATION),
            ("thumbnail", True, LOOSE_BITS, small, turned, NEAR_CORRELATION),
        ]
    found = []
    for found_by, mirrored, known_bits, left, right, least in searches:
        keep = promising(prints.busy, thumbs, mirrored=mirrored)
        pairs = similar(left, right, least, keep)
        found.append(CandidatePairs(found_by, mirrored, known_bits, *pairs))
    return found


def similar(
    left: FloatArray,
    right: FloatArray,
    least: float,
    keep: Callable[[IndexArray, IndexArray], BoolArray] | None = None,
) -> tuple[IndexArray, IndexArray]:
    """Rows i < j with ``left[i] @ right[j] >= least``, by blockwise matrix products.

    Exact, and quadratic with a small factor: 20,000 pictures take seconds, 200,000 minutes.

    Args:
        left: ``(N, D)``.
        right: ``(N, D)``, the same pictures, possibly mirrored.
        least: smallest product.
        keep: filter applied to each block's pairs, so that memory holds only those it keeps.
    """
    found_i, found_j = [], []
    step = max(1, BLOCK_CELLS // len(left))
    for start in range(0, len(left), step):
        block = left[start : start + step] @ right[start:].T
        i, j = np.nonzero(block >= least)
        upper = i < j
        i, j = i[upper] + start, j[upper] + start
        if keep is not None:
            kept = keep(i, j)
            i, j = i[kept], j[kept]
        found_i.append(i)
        found_j.append(j)
    return np.concatenate(found_i), np.concatenate(found_j)


def hash_vectors(bits: BoolArray) -> FloatArray:
    """Hashes as rows of 1 and -1, whose product is exactly 256 - 2 x differing bits."""
    return bits.reshape(len(bits), -1).astype(np.float32) * 2 - 1


def mirrored_bits(bits: BoolArray) -> BoolArray:
    """Hashes of the mirrored pictures, in which rises to the right become falls."""
    return ~bits[:, :, ::-1]


def thumb_vectors(thumbs: ImageArray) -> FloatArray:
    """Thumbnails at 32 x 32 as rows of mean 0 and length 1, whose product is a correlation."""
    n, half = len(thumbs), THUMB_PX // 2
    rows = thumbs.reshape(n, half, 2, half, 2).mean((2, 4), dtype=np.float32).reshape(n, -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.float32(1e-6))


def middle_vectors(thumbs: ImageArray) -> FloatArray:
    """Middles of thumbnails as rows of mean 0 and length 1, or all 0 if a middle is plain."""
    inner = thumbs[:, SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX]
    n, side, px = len(thumbs), inner.shape[1] // MIDDLE_CELL_PX, MIDDLE_CELL_PX
    rows = inner.reshape(n, side, px, side, px).mean((2, 4), dtype=np.float32).reshape(n, -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths > side, rows, 0) / np.maximum(lengths, np.float32(1e-6))


def promising(
    busy: BoolArray, thumbs: ImageArray, *, mirrored: bool = False
) -> Callable[[IndexArray, IndexArray], BoolArray]:
    """Make a filter for pairs worth a closer look.

    It rejects pairs of mostly plain pictures whose middles differ, but keeps them if both middles
    are plain, too, because only a closer look can then tell.

    Args:
        busy: ``(N, 16, 16)``.
        thumbs: ``(N, 64, 64)``.
        mirrored: each pair is a picture and the mirror image of another.
    """
    turn = slice(None, None, -1 if mirrored else 1)
    cells, other_cells = (x.reshape(len(x), -1) for x in (busy, busy[:, :, turn]))
    middles, other_middles = middle_vectors(thumbs), middle_vectors(thumbs[:, :, turn])
    plain = np.count_nonzero(cells, axis=1) < LEAST_BUSY
    blank = np.count_nonzero(middles, axis=1) == 0

    def keep(i: IndexArray, j: IndexArray) -> BoolArray:
        kept = np.ones(len(i), bool)
        few = np.flatnonzero(plain[i] & plain[j])
        for start in range(0, len(few), PAIRS_GATHERED):
            some = few[start : start + PAIRS_GATHERED]
            a, b = i[some], j[some]
            alike = (middles[a] * other_middles[b]).sum(1) >= ALIKE
            telling = (cells[a] | other_cells[b]).sum(1) >= LEAST_BUSY
            kept[some] = alike | telling | (blank[a] & blank[b])
        return kept

    return keep
