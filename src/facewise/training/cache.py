"""Faces on disk: every data-set picture decoded once, with the landmarks that serving would find.

A cache is a folder of ``pixels.bin`` (the pictures, uint8 RGB, one after another) and ``index.npz``
(one row per picture: where its pixels lie, labels, landmarks, whether a face was found). Crops are
cut on demand, so margins, sizes and augmentations can change without a new cache. Pictures are
stored unchanged, except large ones: these are reduced to what training needs (see ``compact``).
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facewise.align import MEAN_SHAPE, similarity_transform
from facewise.data.sets import DataSet, Sample, samples_hash
from facewise.data.tight_crops import DETECTION, add_border, nearest_to_centre
from facewise.errors import ImageError, OptionError
from facewise.files import replacing
from facewise.images import load_photo
from facewise.machine import cores
from facewise.models import DETECTOR_SPEC
from facewise.mtcnn import MTCNN
from facewise.progress import track
from facewise.types import BoolArray, FloatArray, ImageArray, IndexArray, IntArray, Photo, TextArray

log = logging.getLogger("facewise")

CACHE_VERSION: Final = 3
CHUNK: Final = 16
"""Pictures that a process reads at a time: 80 MB if all are large."""
AHEAD: Final = 2
"""Chunks per process that are in progress or waiting to be written."""

LARGE_PX: Final = 1_000_000
"""Pictures with more pixels than this are reduced to what training needs."""
EYES_PX: Final = 160
"""Eye distance to which a large picture is shrunk: twice that of a crop of 224 px."""
NEAR: Final = 4.0
"""How much of a large picture is kept on each side of the face's centre, in eye distances. It is
enough for a crop in which they are 0.2 of its side apart, the least that configs allow, and 0.27 to
0.5 of it below its top, however the face is turned."""


@dataclass(frozen=True, slots=True)
class FaceCache:
    """An open cache; arrays have one row per picture.

    Attributes:
        keys: file names.
        datasets: ``utkface``, ``fairface`` or ``csv``.
        splits: ``train``, ``val``, ``calibration`` or ``test``.
        age_ranges: int16 ``(N, 2)``, first and last year; 0, 0 where unknown.
        genders: int8 ``(N,)``, index in the contract, -1 where unknown.
        ethnicities: int8 ``(N,)``, the same.
        groups: duplicate groups.
        landmarks: float32 ``(N, 5, 2)`` in pixels of the stored picture; if no face was found, the
            median of those found in the same data set, relative to the picture's size.
        found: bool ``(N,)``.
        fingerprint: hash of what the cache was built from; files indexed by its rows repeat it.
    """

    folder: Path
    fingerprint: str
    keys: TextArray
    datasets: TextArray
    splits: TextArray
    age_ranges: NDArray[np.int16]
    genders: NDArray[np.int8]
    ethnicities: NDArray[np.int8]
    groups: TextArray
    landmarks: FloatArray
    found: BoolArray
    offsets: IntArray
    shapes: NDArray[np.int32]
    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, row: int) -> ImageArray:
        """The picture of a row, uint8 ``(H, W, 3)``, RGB."""
        height, width = (int(v) for v in self.shapes[row])
        start = int(self.offsets[row])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def rows(self, split: str, *datasets: str) -> IndexArray:
        """Rows of a split: of the data sets named, one after another, or else of all."""
        mine = self.splits == split
        if not datasets:
            return np.flatnonzero(mine)
        return np.concatenate([np.flatnonzero(mine & (self.datasets == name)) for name in datasets])


_detector: MTCNN | None = None
_data_sets: Sequence[DataSet] = ()


def _start_worker(data_sets: Sequence[DataSet]) -> None:
    global _detector, _data_sets
    _detector, _data_sets = MTCNN(threads=1), data_sets


@dataclass(frozen=True, slots=True)
class _Read:
    """A picture to store, and its face.

    Attributes:
        sample: its labels.
        rgb: uint8 ``(H, W, 3)``.
        landmarks: float32 ``(5, 2)`` in pixels of ``rgb``; NaN if no face was found.
        relative: float32 ``(5, 2)``, the same in shares of the original picture's width and height.
    """

    sample: Sample
    rgb: ImageArray
    landmarks: FloatArray
    relative: FloatArray


def _read_chunk(chunk: list[tuple[int, Sample]]) -> list[_Read]:
    """Decode and detect; a picture that cannot be read is logged and left out."""
    assert _detector is not None
    rows: list[_Read] = []
    for set_index, sample in chunk:
        try:
            rgb = load_photo(_data_sets[set_index].read(sample)).rgb
        except (ImageError, OSError) as error:  # such as a missing file or a dangling link
            log.warning("%s left out: %s", sample.key, error)
            continue
        padded, border = add_border(rgb)
        photo = Photo(padded)
        face = nearest_to_centre(_detector.detect(photo), photo)
        nowhere = np.full((5, 2), np.nan, np.float32)
        landmarks = nowhere if face is None else face.landmarks - np.float32(border)
        relative = (landmarks / np.array(rgb.shape[1::-1])).astype(np.float32)
        rows.append(_Read(sample, *compact(rgb, landmarks), relative))
    return rows


def compact(rgb: ImageArray, landmarks: FloatArray) -> tuple[ImageArray, FloatArray]:
    """Reduce a large picture to the face's surroundings, shrunk; keep others unchanged.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        landmarks: float32 ``(5, 2)``, pixels of ``rgb``; NaN if no face was found, in which case
            the whole picture is shrunk.

    Returns:
        A picture of at most 5 MB, and the landmarks in its pixels.
    """
    height, width = rgb.shape[:2]
    if height * width <= LARGE_PX:
        return rgb, landmarks
    start, end = np.array([0, 0]), np.array([width, height])
    scale = (LARGE_PX / (height * width)) ** 0.5
    if np.isfinite(landmarks).all():
        # Measured as in alignment, because the eyes of a turned head are close to each other.
        eyes_px = 1 / np.hypot(*similarity_transform(landmarks, MEAN_SHAPE)[:, 0])
        scale = min(1.0, EYES_PX / eyes_px)
        middle = landmarks.mean(axis=0)
        start = np.clip(np.floor(middle - NEAR * eyes_px), 0, end - 1).astype(int)
        end = np.clip(np.ceil(middle + NEAR * eyes_px), start + 1, end).astype(int)
    part = rgb[start[1] : end[1], start[0] : end[0]]
    size = np.maximum(1, np.round((end - start) * scale)).astype(int)
    small = cv2.resize(part, size.tolist(), interpolation=cv2.INTER_AREA)
    # Pixel centres, not corners, correspond.
    moved = (landmarks - start + 0.5) * (size / (end - start)) - 0.5
    return np.asarray(small, np.uint8), moved.astype(np.float32)


def fingerprint(data_sets: Sequence[DataSet]) -> str:
    """Hash of all inputs: samples in order, their labels and files, the detector, the format."""
    digest = hashlib.sha256(f"v{CACHE_VERSION} {DETECTION}".encode())
    digest.update(DETECTOR_SPEC.read_bytes())  # thresholds, hashes of weights
    digest.update(samples_hash((d, sample) for d in data_sets for sample in d.samples).encode())
    return digest.hexdigest()


def build_cache(folder: Path, data_sets: Sequence[DataSet], *, workers: int | None = None) -> None:
    """Write the cache of some data sets, unless an up-to-date one exists.

    Args:
        folder: created if missing.
        data_sets: the data sets to read.
        workers: processes; None for one per core.

    Raises:
        OptionError: no picture can be read, or no face is found in any picture of a data set.
    """
    wanted = fingerprint(data_sets)
    index_path = folder / "index.npz"
    if index_path.exists():
        with np.load(index_path) as stored:
            if str(stored["fingerprint"]) == wanted:
                return
    folder.mkdir(parents=True, exist_ok=True)
    index_path.unlink(missing_ok=True)  # it no longer matches the pixels
    todo = [(i, sample) for i, data_set in enumerate(data_sets) for sample in data_set.samples]
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    rows: list[dict[str, Any]] = []
    offset = 0
    workers = workers or cores()
    with (
        (folder / "pixels.bin").open("wb") as pixels,
        ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(data_sets,)) as pool,
    ):
        results = _in_order(pool, chunks, ahead=AHEAD * workers)
        for result in track(results, "faces", len(chunks)):
            for read in result:
                pixels.write(read.rgb.tobytes())
                rows.append(_row(read, offset))
                offset += read.rgb.size
    _write_index(index_path, rows, wanted)


def _in_order(
    pool: Executor, chunks: Sequence[list[tuple[int, Sample]]], *, ahead: int
) -> Iterator[list[_Read]]:
    """Results in order, with at most ``ahead`` chunks pending; ``map`` would hold all in memory."""
    waiting: deque[Future[list[_Read]]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_read_chunk, chunk))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _row(read: _Read, offset: int) -> dict[str, Any]:
    sample = read.sample
    return {
        "keys": sample.key,
        "datasets": sample.dataset,
        "splits": sample.split,
        "age_ranges": sample.age_range or (0, 0),
        "genders": -1 if sample.gender is None else sample.gender,
        "ethnicities": -1 if sample.ethnicity is None else sample.ethnicity,
        "groups": sample.group,
        "landmarks": read.landmarks,
        "relative": read.relative,
        "found": bool(np.isfinite(read.landmarks).all()),
        "offsets": offset,
        "shapes": read.rgb.shape[:2],
    }


_DTYPES: Final[dict[str, Any]] = {
    "age_ranges": np.int16,
    "genders": np.int8,
    "ethnicities": np.int8,
    "landmarks": np.float32,
    "relative": np.float32,
    "offsets": np.int64,
    "shapes": np.int32,
}


def _write_index(path: Path, rows: list[dict[str, Any]], fingerprint: str) -> None:
    if not rows:
        raise OptionError("none of the pictures can be read, for the reasons above: check --data")
    columns = {
        name: np.array([row[name] for row in rows], dtype=_DTYPES.get(name)) for name in rows[0]
    }
    relative = columns.pop("relative")
    for dataset in np.unique(columns["datasets"]):
        mine = columns["datasets"] == dataset
        missing = mine & ~columns["found"]
        if (missing == mine).all():
            raise OptionError(f"no face was found in any picture of {dataset}: check --data")
        if missing.any():
            sizes = columns["shapes"][:, ::-1].astype(np.float32)[
                :, None
            ]  # (N, 1, 2) width, height
            middle = np.nanmedian(relative[mine & columns["found"]], axis=0)
            columns["landmarks"][missing] = middle * sizes[missing]
        log.info("%s: %d faces, %d not found", dataset, int(mine.sum()), int(missing.sum()))
    with replacing(path) as file:  # the index marks the cache as complete
        np.savez(file, fingerprint=np.array(fingerprint), **columns)  # type: ignore[arg-type]


def open_cache(folder: Path) -> FaceCache:
    """Open a cache written by ``build_cache``, with its pixels memory-mapped.

    Raises:
        OptionError: there is no cache, or an unfinished one.
    """
    if not (folder / "index.npz").exists():
        raise OptionError(f"no faces in {folder}: facewise train --cache {folder} puts them there")
    with np.load(folder / "index.npz") as stored:
        columns: dict[str, Any] = {name: stored[name] for name in stored.files}
    columns["fingerprint"] = str(columns["fingerprint"])
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
    return FaceCache(folder=folder, pixels=pixels, **columns)


def batches(rows: IndexArray, size: int) -> Iterator[IndexArray]:
    """Consecutive pieces of ``rows``, the last one possibly shorter."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
