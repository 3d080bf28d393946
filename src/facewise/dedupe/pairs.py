"""Near-duplicate pictures: copies of one photo, re-encoded, resized, recoloured or mirrored.

There are two definitions:

- *hash*: 16 x 16 difference hashes that differ by at most 20 of 256 bits, or fewer if cells are
  plain. It is fast, and the shared list of splits is based on it. It misses photos that were
  tilted, cropped or mirrored, and accepts some that merely resemble each other.
- *confirmed*: thumbnails that agree in fine detail once aligned. Candidates come from looser
  hashes and from the correlation of thumbnails, both also mirrored. A copy tilted by 5 degrees is
  not a candidate.

Pictures become fingerprints (``fingerprints``), which a search compares all with all for
candidates (``search``); these are measured one by one (``likeness``) and joined here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from facewise.dedupe.fingerprints import HASH_BITS, Fingerprints
from facewise.dedupe.likeness import CONFIRMED, likeness
from facewise.dedupe.search import LEAST_BUSY, CandidatePairs, candidates, mirrored_bits
from facewise.progress import track
from facewise.types import IndexArray

NEAR_BITS: Final = 20
"""Hashes that differ in at most this many bits count as one picture."""

PAIRS_AT_ONCE: Final = 256
"""Pairs measured per batch; pairs already joined are dropped before each batch."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that may be the same photo.

    Attributes:
        first: row of one picture.
        second: row of the other, always larger.
        bits: number of differing hash bits, in the orientation that ``mirrored`` states.
        mirrored: the second is a mirror image of the first.
        likeness: correlation of fine detail, -1 to 1.
        found_by: "hash", "loose hash" or "thumbnail": the first method that found the pair.
    """

    first: int
    second: int
    bits: int
    mirrored: bool
    likeness: float
    found_by: str

    @property
    def confirmed(self) -> bool:
        return self.likeness >= CONFIRMED


def find_pairs(
    prints: Fingerprints,
    *,
    near_bits: int = NEAR_BITS,
    thorough: bool = False,
    threads: int = 2,
) -> list[Pair]:
    """Pairs within ``near_bits`` and, if thorough, all others that are confirmed.

    Not every pair of a group is listed: pictures already joined by confirmed pairs are not measured
    again, and bit-identical copies are paired with the first of them only. A thousand copies of one
    picture would otherwise make half a million pairs.

    Args:
        prints: the pictures.
        near_bits: most differing bits, of 256.
        thorough: also look for copies that are mirrored, or slightly tilted or cropped.
        threads: for confirming.
    """
    rows, twins = _distinct(prints)
    distinct = prints.take(rows)
    found = candidates(distinct, near_bits=near_bits, thorough=thorough)
    pairs = [
        replace(pair, first=int(rows[pair.first]), second=int(rows[pair.second]))
        for pair in _measure_all(distinct, found, near_bits, threads)
    ]
    return sorted([*twins, *pairs], key=lambda pair: (pair.first, pair.second))


def _distinct(prints: Fingerprints) -> tuple[IndexArray, list[Pair]]:
    """Rows of the distinct pictures, and the pairs of each with its bit-identical copies."""
    first: dict[bytes, int] = {}
    twins = []
    for row in range(len(prints)):
        held = first.setdefault(prints.bits[row].tobytes() + prints.thumbs[row].tobytes(), row)
        if held != row:
            twins.append(Pair(held, row, 0, False, 1.0, "hash"))
    return np.array(list(first.values()), np.intp), twins


def _measure_all(
    prints: Fingerprints, found: Sequence[CandidatePairs], near_bits: int, threads: int
) -> Iterable[Pair]:
    """The pairs among candidates; pictures that confirmed pairs have joined are skipped."""
    best: dict[tuple[int, int], Pair] = {}
    joined = _Groups(len(prints))
    batches = [batch for kind in found for batch in kind.split(PAIRS_AT_ONCE)]
    with ThreadPoolExecutor(threads) as pool:
        for batch in track(batches, "pairs", len(batches)):
            rows = zip(batch.first.tolist(), batch.second.tolist(), strict=True)
            apart = [(i, j) for i, j in rows if joined.root(i) != joined.root(j)]
            for pair in pool.map(partial(_measure, prints, batch, near_bits), apart):
                if pair is None:
                    continue
                if pair.confirmed:
                    joined.join(pair.first, pair.second)
                # A symmetric face resembles its mirror image: one orientation is enough.
                held = best.get((pair.first, pair.second))
                if held is None or (held.found_by != "hash" and pair.likeness > held.likeness):
                    best[pair.first, pair.second] = pair
    return best.values()


def _measure(
    prints: Fingerprints, kind: CandidatePairs, near_bits: int, rows: tuple[int, int]
) -> Pair | None:
    """The pair, if it is new and either close enough by hash or confirmed by detail."""
    i, j = rows
    bits, thumb = prints.bits[j], prints.thumbs[j]
    if kind.mirrored:
        bits, thumb = mirrored_bits(bits[None])[0], thumb[:, ::-1]
    differing = int((prints.bits[i] != bits).sum())
    if differing <= kind.known_bits:
        return None
    pair = Pair(i, j, differing, kind.mirrored, likeness(prints.thumbs[i], thumb), kind.found_by)
    cells = int((prints.busy[i] | prints.busy[j]).sum())
    near = cells >= LEAST_BUSY and differing * HASH_BITS <= near_bits * cells
    return pair if pair.confirmed or (kind.found_by == "hash" and near) else None


class _Groups:
    """Disjoint sets of rows (Tarjan, 1975), each named after its smallest row."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, first: int, second: int) -> None:
        a, b = self.root(first), self.root(second)
        self._parent[max(a, b)] = min(a, b)


def join(count: int, pairs: Iterable[Pair]) -> list[list[int]]:
    """Groups of two or more rows connected by pairs, each sorted, ordered by first row."""
    joined = _Groups(count)
    for pair in pairs:
        joined.join(pair.first, pair.second)
    groups: dict[int, list[int]] = {}
    for row in range(count):
        groups.setdefault(joined.root(row), []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
