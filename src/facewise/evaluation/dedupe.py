"""Near-duplicate pictures: copies of one photo, re-encoded, resized, recoloured or mirrored.

There are two definitions:

- *hash*: 16 x 16 difference hashes that differ by at most 20 of 256 bits, or fewer if cells are
  plain. It is fast, and the shared list of splits is based on it. It misses photos that were
  tilted, cropped or mirrored, and accepts some that merely resemble each other.
- *confirmed*: thumbnails that agree in fine detail once aligned. Candidates come from looser
  hashes and from the correlation of thumbnails, both also mirrored. A copy tilted by 5 degrees is
  not a candidate.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from facewise.datasets import DataSet
from facewise.errors import ImageError, OptionError
from facewise.images import load_photo
from facewise.label_lists import short_name
from facewise.types import FloatArray, ImageArray

log = logging.getLogger("facewise")

HASH_SIDE: Final = 16
HASH_BITS: Final = HASH_SIDE * HASH_SIDE
THUMB_PX: Final = 64

NEAR_BITS: Final = 20
"""Hashes that differ in at most this many bits count as one picture."""

PLAIN_LEVELS: Final = 2
"""A cell is plain if it differs from its right neighbour by at most this many grey levels. The bits
of a white background say nothing, and agree in all pictures that have one."""

LEAST_BUSY: Final = HASH_BITS // 4
"""If two pictures have fewer non-plain cells than this, their hashes alone do not make a pair."""

MOST_BORDER: Final = 0.5
"""If a plain border takes up more than this share of a picture, only its inside is compared."""

BORDER_PX: Final = 256
"""Longest side of the reduced copy that is searched for a border."""

BORDER_LEVELS: Final = 24
"""Grey levels by which a plain border may vary. JPEG ringing spills into it; with less tolerance,
copies of one picture would be cut differently."""

LOOSE_BITS: Final = 28
"""Hashes that differ in at most this many bits are worth a closer look."""

NEAR_CORRELATION: Final = 0.9
"""Thumbnails that correlate at least this much are worth a closer look."""

CONFIRMED: Final = 0.9
"""Least correlation of fine detail for two pictures to be one photo. Chosen by eye: nearly all
UTKFace pairs above it are one photo; between 0.8 and 0.9, different shots of one session are mixed
in; and pairs of different people reach 0.85."""

MIDDLE_CONFIRMED: Final = 0.8
"""Least correlation of the middles' detail alone after a fit, because different pictures in the
same frame agree in the frame. It rejects none of the confirmed pairs in the shared data."""

DETAIL_SIGMA_PX: Final = 4.0
"""Shapes larger than this are removed from a thumbnail, because all frontal faces share them."""

SHIFT_PX: Final = 8
_MIDDLE: Final = (slice(SHIFT_PX, -SHIFT_PX),) * 2

MIDDLE_CELL_PX: Final = 4
"""Cell size for middles (thumbnails without their outer ``SHIFT_PX``); content that is shifted by
half a cell still looks alike."""

ALIKE: Final = 0.5
"""Mostly plain pictures whose middles correlate less than this are not worth a closer look: it
takes milliseconds, and the hashes of all such pictures are close to each other."""

BLOCK_CELLS: Final = 2**24
"""Similarities held in memory at once."""

PAIRS_AT_ONCE: Final = 256
"""Pairs measured per batch; pairs already joined are dropped before each batch."""

PAIRS_GATHERED: Final = 2**14
"""Pairs of mostly plain pictures whose middles are compared at once."""

T = TypeVar("T")

BoolArray = NDArray[np.bool_]
Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprints:
    """Reduced forms of pictures for comparison.

    Attributes:
        names: file names, unique and sorted.
        bits: bool ``(N, 16, 16)``, the difference hashes.
        busy: bool ``(N, 16, 16)``, their non-plain cells.
        thumbs: uint8 ``(N, 64, 64)``, grey.
        unreadable: name and reason for each picture missing from the arrays.
    """

    names: tuple[str, ...]
    bits: BoolArray
    busy: BoolArray
    thumbs: NDArray[np.uint8]
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)


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


def difference_hash(rgb: ImageArray) -> tuple[BoolArray, BoolArray]:
    """Cells darker than their right neighbour, and non-plain cells, each ``(16, 16)``.

    The grey picture is resized to 17 x 16 with Pillow's bilinear filter, which averages when it
    shrinks; another filter gives other bits. Hashes follow Krawetz, "Kind of like that" (2013).
    """
    from PIL import Image

    grey = Image.fromarray(rgb).convert("L")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR), int)
    rise = small[:, 1:] - small[:, :-1]
    return rise > 0, abs(rise) > PLAIN_LEVELS


def thumbnail(rgb: ImageArray) -> NDArray[np.uint8]:
    """A grey copy of 64 x 64 pixels, regardless of aspect ratio."""
    from PIL import Image

    grey = Image.fromarray(rgb).convert("L")
    return np.asarray(grey.resize((THUMB_PX, THUMB_PX), Image.Resampling.BILINEAR), np.uint8)


def without_border(rgb: ImageArray) -> ImageArray:
    """The inside of a plain border that takes up most of the picture; else the picture.

    Catalogue and identity photos show one thing on a lot of white, so they all look alike when
    reduced.
    """
    from PIL import Image

    whole = Image.fromarray(rgb)
    copy = whole.convert("L")
    copy.thumbnail((BORDER_PX, BORDER_PX))
    grey = np.asarray(copy, int)
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.ptp(edge) > BORDER_LEVELS:
        return rgb
    rows, columns = np.nonzero(abs(grey - int(np.median(edge))) > BORDER_LEVELS)
    if not len(rows):
        return rgb
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    if (bottom - top) * (right - left) > (1 - MOST_BORDER) * grey.size:
        return rgb
    down, across = rgb.shape[0] / grey.shape[0], rgb.shape[1] / grey.shape[1]
    return rgb[
        int(top * down) : int(np.ceil(bottom * down)),
        int(left * across) : int(np.ceil(right * across)),
    ]


def fingerprints(data_sets: Sequence[DataSet], *, threads: int = 2) -> Fingerprints:
    """Read and shrink every picture; for their names, see ``unique_names``.

    Raises:
        OptionError: no picture can be read, or two have the same path.
    """
    rows = [(data_set, sample) for data_set in data_sets for sample in data_set.samples]
    names = unique_names([sample.key for _, sample in rows])
    order = sorted(range(len(rows)), key=names.__getitem__)

    def shrink(row: int) -> tuple[BoolArray, BoolArray, NDArray[np.uint8]] | str:
        data_set, sample = rows[row]
        try:
            rgb = load_photo(data_set.read(sample)).rgb
        except ImageError as error:
            return str(error)
        except OSError as error:  # a dangling link, or no permission to read
            return error.strerror or str(error)
        inside = without_border(rgb)
        return *difference_hash(inside), thumbnail(inside)

    kept, prints = [], []
    unreadable = [(_spelt(name), why) for data_set in data_sets for name, why in data_set.skipped]
    for name, why in unreadable:
        log.warning("%s left out: %s", name, why)
    with ThreadPoolExecutor(threads) as pool:
        results = _track(pool.map(shrink, order), "pictures", len(order))
        for row, result in zip(order, results, strict=True):
            if isinstance(result, str):
                log.warning("%s left out: %s", names[row], result)
                unreadable.append((names[row], result))
            else:
                kept.append(names[row])
                prints.append(result)
    if not kept:
        raise OptionError("none of the pictures can be read: check the source")
    bits, busy, thumbs = (np.array(part) for part in zip(*prints, strict=True))
    return Fingerprints(tuple(kept), bits, busy, thumbs, tuple(unreadable))


def unique_names(keys: Sequence[str]) -> list[str]:
    """Keys without folders, or all with folders if any two file names are the same.

    Bytes that are not valid UTF-8 are escaped, so that lists and reports can hold them.

    Raises:
        OptionError: a key occurs twice, as with two sources of the same layout.
    """
    whole = [_spelt(key) for key in keys]
    short = [short_name(name) for name in whole]
    if len(set(short)) == len(short):
        return short
    if len(set(whole)) < len(whole):
        name, _ = Counter(whole).most_common(1)[0]
        raise OptionError(
            f"two sources have a file named {name}: dedupe their parent folder instead; unpack "
            "tars into two folders of one parent first"
        )
    return whole


def _spelt(key: str) -> str:
    return os.fsencode(key).decode("utf-8", "backslashreplace")


def _track(results: Iterable[T], description: str, total: int) -> Iterable[T]:
    """Show a progress bar on standard error; standard output is for the report."""
    from rich.console import Console
    from rich.progress import track

    return track(results, description=description, total=total, console=Console(stderr=True))


def similar(
    left: FloatArray,
    right: FloatArray,
    least: float,
    keep: Callable[[Ints, Ints], BoolArray] | None = None,
) -> tuple[Ints, Ints]:
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
    flipped: BoolArray = ~bits[:, :, ::-1]
    return flipped


def thumb_vectors(thumbs: NDArray[np.uint8]) -> FloatArray:
    """Thumbnails at 32 x 32 as rows of mean 0 and length 1, whose product is a correlation."""
    n, half = len(thumbs), THUMB_PX // 2
    rows = thumbs.reshape(n, half, 2, half, 2).mean((2, 4), dtype=np.float32).reshape(n, -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    vectors: FloatArray = rows / np.maximum(lengths, np.float32(1e-6))
    return vectors


def middle_vectors(thumbs: NDArray[np.uint8]) -> FloatArray:
    """Middles of thumbnails as rows of mean 0 and length 1, or all 0 if a middle is plain."""
    inner = thumbs[:, SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX]
    n, side, px = len(thumbs), inner.shape[1] // MIDDLE_CELL_PX, MIDDLE_CELL_PX
    rows = inner.reshape(n, side, px, side, px).mean((2, 4), dtype=np.float32).reshape(n, -1)
    rows -= rows.mean(1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    vectors: FloatArray = np.where(lengths > side, rows, 0) / np.maximum(lengths, np.float32(1e-6))
    return vectors


def promising(
    busy: BoolArray, thumbs: NDArray[np.uint8], *, mirrored: bool = False
) -> Callable[[Ints, Ints], BoolArray]:
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

    def keep(i: Ints, j: Ints) -> BoolArray:
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
    bits, busy, thumbs = prints.bits[rows], prints.busy[rows], prints.thumbs[rows]
    upright = hash_vectors(bits)
    candidates: list[tuple[Ints, Ints, bool, str]] = []

    def look(left: FloatArray, right: FloatArray, least: float, mirrored: bool, by: str) -> None:
        keep = promising(busy, thumbs, mirrored=mirrored)
        candidates.append((*similar(left, right, least, keep), mirrored, by))

    def within(bits: int) -> float:
        return float(HASH_BITS - 2 * bits)

    look(upright, upright, within(near_bits), False, "hash")
    if thorough:
        flipped = hash_vectors(mirrored_bits(bits))
        look(upright, upright, within(LOOSE_BITS), False, "loose hash")
        look(upright, flipped, within(LOOSE_BITS), True, "loose hash")
        small, turned = thumb_vectors(thumbs), thumb_vectors(thumbs[:, :, ::-1])
        look(small, small, NEAR_CORRELATION, False, "thumbnail")
        look(small, turned, NEAR_CORRELATION, True, "thumbnail")

    def looked_at(mirrored: bool, by: str) -> int:
        """Most differing bits of pairs that an earlier kind of search already covered."""
        if by == "hash":
            return -1
        tight = -1 if mirrored else near_bits
        return max(tight, LOOSE_BITS) if by == "thumbnail" else tight

    def measure(item: tuple[int, int, bool, str]) -> Pair | None:
        """The pair, if it is new and either close enough by hash or confirmed by detail."""
        i, j, mirrored, by = item
        second, hashed = thumbs[j], bits[j]
        if mirrored:
            second, hashed = second[:, ::-1], mirrored_bits(hashed[None])[0]
        differing = int((bits[i] != hashed).sum())
        if differing <= looked_at(mirrored, by):
            return None
        cells = int((busy[i] | busy[j]).sum())
        near = by == "hash" and cells >= LEAST_BUSY and differing * HASH_BITS <= near_bits * cells
        pair = Pair(
            int(rows[i]), int(rows[j]), differing, mirrored, likeness(thumbs[i], second), by
        )
        return pair if near or pair.confirmed else None

    best: dict[tuple[int, int], Pair] = {}
    joined = _Groups(len(rows))
    total = sum(-(-len(i) // PAIRS_AT_ONCE) for i, *_ in candidates)
    with ThreadPoolExecutor(threads) as pool:
        for some in _track(_chunks(candidates), "pairs", total):
            apart = [item for item in some if joined.root(item[0]) != joined.root(item[1])]
            for item, pair in zip(apart, pool.map(measure, apart), strict=True):
                if pair is None:
                    continue
                if pair.confirmed:
                    joined.join(item[0], item[1])
                # A symmetric face resembles its mirror image: one orientation is enough.
                held = best.get((pair.first, pair.second))
                if held is None or (held.found_by != "hash" and pair.likeness > held.likeness):
                    best[pair.first, pair.second] = pair
    return sorted([*twins, *best.values()], key=lambda pair: (pair.first, pair.second))


def _distinct(prints: Fingerprints) -> tuple[Ints, list[Pair]]:
    """Rows of the distinct pictures, and the pairs of each with its bit-identical copies."""
    first: dict[bytes, int] = {}
    twins = []
    for row in range(len(prints)):
        held = first.setdefault(prints.bits[row].tobytes() + prints.thumbs[row].tobytes(), row)
        if held != row:
            twins.append(Pair(held, row, 0, False, 1.0, "hash"))
    return np.array(list(first.values()), np.intp), twins


def _chunks(
    candidates: Iterable[tuple[Ints, Ints, bool, str]],
) -> Iterator[list[tuple[int, int, bool, str]]]:
    """Candidates, one kind after another, so that a pair is named after the fastest to find it."""
    for i, j, mirrored, by in candidates:
        for start in range(0, len(i), PAIRS_AT_ONCE):
            some = slice(start, start + PAIRS_AT_ONCE)
            pairs = zip(i[some].tolist(), j[some].tolist(), strict=True)
            yield [(first, second, mirrored, by) for first, second in pairs]


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of the fine detail of two thumbnails, at the best shift or the best fit.

    The shift compensates for a border; the affine fit (Evangelidis and Psarakis, 2008) for a tilt
    or another crop. Large shapes are removed first, because all frontal faces share them.

    Args:
        first: ``(64, 64)``.
        second: ``(64, 64)``.
    """
    import cv2

    a, b = (np.ascontiguousarray(thumb, np.float32) for thumb in (first, second))
    if a.std() < 1 or b.std() < 1:
        return 0.0  # nothing to compare
    fine_a, fine_b = _detail(a), _detail(b)
    inner = np.ascontiguousarray(fine_b[_MIDDLE])
    shifted = float(cv2.matchTemplate(fine_a, inner, cv2.TM_CCOEFF_NORMED).max())
    return max(shifted if np.isfinite(shifted) else 0.0, _fitted(a, b))


def _detail(grey: Any, smooth_px: float = 0.0) -> Any:
    import cv2

    fine = cv2.GaussianBlur(grey, (0, 0), smooth_px) if smooth_px else grey
    return fine - cv2.GaussianBlur(grey, (0, 0), DETAIL_SIGMA_PX)


def _fitted(a: Any, b: Any) -> float:
    """Correlation of detail after an affine fit; 0 if the fit fails or is implausible."""
    import cv2

    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    transform = np.eye(2, 3, dtype=np.float32)
    everywhere = np.ones(a.shape, np.uint8)
    try:
        cv2.findTransformECC(a, b, transform, cv2.MOTION_AFFINE, stop, everywhere, 3)
    except cv2.error:
        return 0.0  # it did not converge
    stretch = np.linalg.svd(transform[:, :2], compute_uv=False)
    if not 2 / 3 < stretch[1] <= stretch[0] < 1.5:
        return 0.0
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (THUMB_PX, THUMB_PX)
    moved = cv2.warpAffine(b, transform, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(b), transform, size, flags=flags) > 0.99
    shared = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if shared.mean() < 0.4:
        return 0.0
    # Blur both slightly, because one is often the sharper copy.
    whole = _correlation(_detail(a, 1.0)[shared], _detail(moved, 1.0)[shared])
    return whole if whole < CONFIRMED or _middles_agree(a, moved, shared[_MIDDLE]) else 0.0


def _middles_agree(a: Any, b: Any, shared: Any) -> bool:
    """Whether pictures agree in more than a frame; True if both middles are plain."""
    # Crop before blurring, which would spread the frame inwards.
    middles = (np.ascontiguousarray(thumb[_MIDDLE]) for thumb in (a, b))
    x, y = (_detail(middle, 1.0)[shared] for middle in middles)
    return max(x.std(), y.std()) < 1 or _correlation(x, y) >= MIDDLE_CONFIRMED


def _correlation(x: Any, y: Any) -> float:
    """Correlation; 0 if either is plain."""
    return float(np.corrcoef(x, y)[0, 1]) if min(x.std(), y.std()) >= 1e-3 else 0.0


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
