"""Augmentation: repeatable, of the right shape, and still the face."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from facewise.align import make_template, similarity_transform, warp
from facewise.training.augment import _jpeg, augment, random_transform
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


def middle(picture: np.ndarray) -> np.ndarray:
    """The part that no border reaches."""
    return picture[24:-24, 24:-24]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AugmentConfig)])
def test_each_strength_alone_changes_pictures(cache: FaceCache, name: str) -> None:
    def picture(config: AugmentConfig, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return middle(augment(cache.image(0), cache.landmarks[0], TEMPLATE, SIZE, config, rng))

    alone = dataclasses.replace(STILL, **{name: 0.5})
    changed = [not np.array_equal(picture(alone, n), picture(STILL, n)) for n in range(8)]
    assert any(changed)


def test_without_strength_the_crop_is_the_one_that_serving_cuts(cache: FaceCache) -> None:
    """Or its mirror image, each for about half of the pictures."""
    transform = similarity_transform(cache.landmarks[0], TEMPLATE)
    served = warp(cache.image(0), transform, SIZE)
    mirrored = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        trained = augment(cache.image(0), cache.landmarks[0], TEMPLATE, SIZE, STILL, rng)
        both = [
            np.abs(middle(crop).astype(int) - middle(trained)).max()
            for crop in (served, served[:, ::-1])
        ]
        assert min(both) <= 2  # OpenCV rounds the places that it samples at
        mirrored += both[1] < both[0]
    assert 0 < mirrored < 8


def test_a_large_picture_is_averaged_as_serving_does(cache: FaceCache) -> None:
    """Bilinear sampling alone picked up single pixels of noise that serving averages away."""
    face = cv2.resize(cache.image(0), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 40, face.shape)
    face = np.clip(face + noise, 0, 255).astype(np.uint8)
    landmarks = cache.landmarks[0] * 8

    def detail(crop: np.ndarray) -> float:
        return float(cv2.Laplacian(middle(crop).astype(np.float32), cv2.CV_32F).var())

    served = detail(warp(face, similarity_transform(landmarks, TEMPLATE), SIZE))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        trained = detail(augment(face, landmarks, TEMPLATE, SIZE, STILL, rng))
        assert trained == pytest.approx(served, rel=0.2)


def test_a_panorama_is_learnt_from(cache: FaceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 4 does not warp pictures with a side over 32,766 pixels."""
    warp_affine = cv2.warpAffine

    def limited(rgb: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        assert max(rgb.shape) < 32_767
        return np.asarray(warp_affine(rgb, *args, **kwargs))

    monkeypatch.setattr(cv2, "warpAffine", limited)
    face = cache.image(0)
    wide = np.zeros((face.shape[0], 33_000, 3), np.uint8)
    wide[:, -face.shape[1] :] = face
    landmarks = cache.landmarks[0].copy()
    landmarks[:, 0] += 33_000 - face.shape[1]
    rng = np.random.default_rng(0)
    assert augment(wide, landmarks, TEMPLATE, SIZE, STILL, rng).std() > 20


def test_jpeg_keeps_red_better_than_blue() -> None:
    """Luma holds two and a half times as much red as blue, and chroma is stored coarsely."""
    stripes = np.zeros((SIZE, SIZE, 3), np.uint8)
    stripes[:, ::2] = 255
    left = []
    for channel in (0, 2):
        picture = np.zeros_like(stripes)
        picture[..., channel] = stripes[..., channel]
        left.append(_jpeg(picture, np.random.default_rng(0))[..., channel].std())
    assert left[0] > 1.5 * left[1]


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
