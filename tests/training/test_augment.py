"""Augmentation: repeatable, of the right shape, and still the face."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from facewise.align import make_template, similarity_transform, warp
from facewise.training.augment import augment, random_transform
from facewise.training.cache import FaceCache
from facewise.training.config import AugmentConfig

SIZE = 96
TEMPLATE = make_template(SIZE, 0.36, 0.36)
STILL = AugmentConfig(*(0.0,) * 11)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(cache: FaceCache) -> None:
    def picture(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return augment(cache.image(0), cache.landmarks[0], TEMPLATE, SIZE, AugmentConfig(), rng)

    assert picture(1).shape == (SIZE, SIZE, 3)
    assert picture(1).dtype == np.uint8
    assert np.array_equal(picture(1), picture(1))
    assert not np.array_equal(picture(1), picture(2))


def test_without_strength_the_crop_is_the_one_that_serving_cuts(cache: FaceCache) -> None:
    transform = similarity_transform(cache.landmarks[0], TEMPLATE)
    for seed in range(8):
        mine = random_transform(
            cache.landmarks[0], TEMPLATE, SIZE, STILL, np.random.default_rng(seed)
        )
        mirrored = transform.copy()
        mirrored[0] *= -1
        mirrored[0, 2] += SIZE - 1
        assert np.allclose(mine, transform, atol=1e-4) or np.allclose(mine, mirrored, atol=1e-4)
    assert warp(cache.image(0), transform, SIZE).shape == (SIZE, SIZE, 3)


def test_landmarks_stay_near_the_template(cache: FaceCache) -> None:
    rng = np.random.default_rng(0)
    offsets = []
    for _ in range(200):
        transform = random_transform(cache.landmarks[0], TEMPLATE, SIZE, AugmentConfig(), rng)
        if transform[0, 0] < 0:  # a mirror swaps left and right
            continue
        moved = cache.landmarks[0] @ transform[:, :2].T + transform[:, 2]
        offsets.append(np.abs(moved - TEMPLATE).mean())
    assert 0.005 < np.mean(offsets) / SIZE < 0.08
