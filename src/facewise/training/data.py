"""Batches for training and evaluation, from a face cache."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facewise.align import make_template, similarity_transform, warp
from facewise.errors import OptionError
from facewise.training.augment import augment
from facewise.training.cache import FaceCache, open_cache
from facewise.training.config import TrainConfig
from facewise.training.losses import Labels
from facewise.training.sources import NO_ARRAYS
from facewise.types import FloatArray, ImageArray, IndexArray

log = logging.getLogger("facewise")

Item = tuple[int, int]
"""Epoch and row, which with the seed determine a training picture."""

AGAIN: Final = 1_000_000
"""Added to the epoch each time that a row is repeated within it, so that it looks different."""


class TrainingFaces(Dataset[tuple[Tensor, int]]):
    """Augmented crops by (epoch, row): uint8 ``(3, S, S)``, with the row."""

    def __init__(self, cache: FaceCache, config: TrainConfig) -> None:
        self.folder, self.config = cache.folder, config
        self.template = make_template(config.network.size_px, *config.network.learnt_framing)
        self._cache: FaceCache | None = None  # opened in each worker, so that no map is pickled

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        if self._cache is None:
            cv2.setNumThreads(0)
            self._cache = open_cache(self.folder)
        epoch, row = item
        rng = np.random.default_rng((self.config.optim.seed, epoch, row))
        crop = augment(
            self._cache.image(row),
            self._cache.landmarks[row],
            self.template,
            self.config.network.size_px,
            self.config.augment,
            rng,
        )
        return torch.from_numpy(crop).permute(2, 0, 1), row


def check_batch(count: int, batch_size: int) -> None:
    """Check that ``count`` faces fill a batch.

    Raises:
        OptionError: they do not.
    """
    if count < batch_size:
        raise OptionError(
            f"{count} training faces do not fill a batch of {batch_size}: lower batch_size in "
            "[optim]"
        )


class EpochBatches:
    """Batches of (epoch, row), shuffled by seed and epoch; a shorter last one is dropped.

    Raises:
        OptionError: there are too few faces for a single batch.
    """

    def __init__(self, rows: IndexArray, batch_size: int, seed: int) -> None:
        check_batch(len(rows), batch_size)
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        shown: Counter[int] = Counter()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = []
            for row in order[start : start + self.batch_size].tolist():
                batch.append((self.epoch + AGAIN * shown[row], row))
                shown[row] += 1
            yield batch


def make_loader(
    cache: FaceCache, config: TrainConfig, rows: IndexArray, workers: int
) -> DataLoader[tuple[Tensor, int]]:
    """A loader of training batches; the loop sets the ``epoch`` of its ``batch_sampler``."""
    return DataLoader(
        TrainingFaces(cache, config),
        batch_sampler=EpochBatches(rows, config.optim.batch_size, config.optim.seed),
        num_workers=workers,
        persistent_workers=False,
        prefetch_factor=4 if workers else None,
    )


def check_teacher(path: Path) -> None:
    """Check that ``facewise teach`` wrote a file, regardless of the faces.

    Raises:
        OptionError: it did not.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            if "probabilities" in stored:
                return
    except NO_ARRAYS:
        pass
    raise OptionError(f"teacher = {str(path)!r}: not written by facewise teach, or damaged")


def read_teacher(path: Path, cache: FaceCache) -> FloatArray:
    """Read the probabilities that ``facewise teach`` wrote, by row of the cache.

    Raises:
        OptionError: the file is for another cache, or names none.
    """
    with np.load(path) as stored:
        if str(stored.get("fingerprint")) != cache.fingerprint:
            raise OptionError(
                f"{path} is for other faces or landmarks than {cache.folder} holds: "
                "run facewise teach again"
            )
        return stored["probabilities"].astype(np.float32)


def warn_of_unlabelled(cache: FaceCache, datasets: Sequence[str]) -> None:
    """Warn of attributes that no training face has a label for; the network answers them anyway."""
    rows = cache.rows("train", *datasets)
    for attribute, known in (
        ("age", cache.age_ranges[:, 0] > 0),
        ("gender", cache.genders >= 0),
        ("ethnicity", cache.ethnicities >= 0),
    ):
        if len(rows) and not known[rows].any():
            log.warning(
                "no picture of the split train has a label of %s: the network's answers for it "
                "come from its start or its teacher, or mean nothing",
                attribute,
            )


class LabelTable:
    """Labels of a whole cache as tensors, looked up by row."""

    def __init__(self, cache: FaceCache, teacher: FloatArray | None = None) -> None:
        self.age_ranges = torch.from_numpy(cache.age_ranges.astype(np.int64))
        self.genders = torch.from_numpy(cache.genders.astype(np.int64))
        self.ethnicities = torch.from_numpy(cache.ethnicities.astype(np.int64))
        self.teacher = None if teacher is None else torch.from_numpy(teacher)

    def __getitem__(self, rows: Tensor) -> Labels:
        return Labels(
            self.age_ranges[rows],
            self.genders[rows],
            self.ethnicities[rows],
            None if self.teacher is None else self.teacher[rows],
        )


Change = Callable[[ImageArray, int], ImageArray]
"""Degrades the picture of a row, without moving its face."""


def plain_crops(
    cache: FaceCache, config: TrainConfig, rows: IndexArray, change: Change | None = None
) -> ImageArray:
    """Crops as serving cuts them: uint8 ``(N, S, S, 3)``, RGB."""
    network = config.network
    template = make_template(network.size_px, *network.framing)
    return aligned_crops(cache, rows, template, network.size_px, change)


def aligned_crops(
    cache: FaceCache,
    rows: IndexArray,
    template: FloatArray,
    size_px: int,
    change: Change | None = None,
) -> ImageArray:
    """Crops aligned to a template ``(5, 2)``: uint8 ``(N, S, S, 3)``, RGB."""

    def crop(row: int) -> ImageArray:
        picture = cache.image(row)
        transform = similarity_transform(cache.landmarks[row], template)
        return warp(picture if change is None else change(picture, row), transform, size_px)

    return np.stack([crop(row) for row in rows.tolist()])


def to_tensor(crops: ImageArray) -> Tensor:
    """uint8 ``(N, S, S, 3)`` to float ``(N, 3, S, S)``, 0 to 255, channels last in memory."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float()
