"""Pictures reduced for comparison: difference hashes and small grey thumbnails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from facewise.data.lists import short_name
from facewise.data.sets import DataSet, Sample
from facewise.errors import ImageError, OptionError
from facewise.images import load_photo
from facewise.progress import track
from facewise.text import as_utf8, reason_of
from facewise.types import BoolArray, ImageArray, IndexArray

log = logging.getLogger("facewise")

HASH_SIDE: Final = 16
HASH_BITS: Final = HASH_SIDE * HASH_SIDE
THUMB_PX: Final = 64

PLAIN_LEVELS: Final = 2
"""A cell is plain if it differs from its right neighbour by at most this many grey levels. The bits
of a white background say nothing, and agree in all pictures that have one."""

MOST_BORDER: Final = 0.5
"""If a plain border takes up more than this share of a picture, only its inside is compared."""

BORDER_PX: Final = 256
"""Longest side of the reduced copy that is searched for a border."""

BORDER_LEVELS: Final = 24
"""Grey levels by which a plain border may vary. JPEG ringing spills into it; with less tolerance,
copies of one picture would be cut differently."""


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
    thumbs: ImageArray
    unreadable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: IndexArray) -> Fingerprints:
        """Some of the pictures."""
        names = tuple(self.names[row] for row in rows)
        return Fingerprints(names, self.bits[rows], self.busy[rows], self.thumbs[rows])


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


def thumbnail(rgb: ImageArray) -> ImageArray:
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
    samples = named_samples(data_sets)
    order = sorted(samples)

    def shrink(name: str) -> tuple[BoolArray, BoolArray, ImageArray] | str:
        data_set, sample = samples[name]
        try:
            rgb = load_photo(data_set.read(sample)).rgb
        except ImageError as error:
            return str(error)
        except OSError as error:  # a dangling link, or no permission to read
            return reason_of(error)
        inside = without_border(rgb)
        return *difference_hash(inside), thumbnail(inside)

    kept, prints = [], []
    unreadable = [(as_utf8(name), why) for data_set in data_sets for name, why in data_set.skipped]
    for name, why in unreadable:
        log.warning("%s left out: %s", name, why)
    with ThreadPoolExecutor(threads) as pool:
        results = track(pool.map(shrink, order), "pictures", len(order))
        for name, result in zip(order, results, strict=True):
            if isinstance(result, str):
                log.warning("%s left out: %s", name, result)
                unreadable.append((name, result))
            else:
                kept.append(name)
                prints.append(result)
    if not kept:
        raise OptionError("none of the pictures can be read: check the source")
    bits, busy, thumbs = (np.array(part) for part in zip(*prints, strict=True))
    return Fingerprints(tuple(kept), bits, busy, thumbs, tuple(unreadable))


def named_samples(data_sets: Sequence[DataSet]) -> dict[str, tuple[DataSet, Sample]]:
    """Every picture with its source, by the name that ``unique_names`` gives it."""
    samples = [(data_set, sample) for data_set in data_sets for sample in data_set.samples]
    return dict(zip(unique_names([sample.key for _, sample in samples]), samples, strict=True))


def unique_names(keys: Sequence[str]) -> list[str]:
    """Keys without folders, or all with folders if any two file names are the same.

    Bytes that are not valid UTF-8 are escaped, so that lists and reports can hold them.

    Raises:
        OptionError: a key occurs twice, as with two sources of the same layout.
    """
    whole = [as_utf8(key) for key in keys]
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
