"""Quality measures, against faces made by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facewise.quality import NOSE_DEPTH, measure_quality, yaw_from_landmarks
from facewise.types import FloatArray, ImageArray


def turned(degrees: float, *, roll: float = 0.0, size: float = 50.0) -> FloatArray:
    """Landmarks of the mean face, turned, then rolled, with eyes ``size`` apart."""
    w, r = np.radians(degrees), np.radians(roll)
    points = np.array([[-0.5, 0], [0.5, 0], [0, 0.57], [-0.41, 1.15], [0.41, 1.15]])
    depth = np.array([0, 0, NOSE_DEPTH, 0, 0])
    points[:, 0] = points[:, 0] * np.cos(w) + depth * np.sin(w)
    spin = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    return (points @ spin.T * size + 100).astype(np.float32)


def face(seed: int = 0) -> ImageArray:
    """A textured crop with detail at every scale."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(0, 18, (n, n)).astype(np.float32), (160, 160))
        for n in (5, 10, 20, 40, 80, 160)
    ]
    grey = np.clip(128 + sum(layers), 0, 255)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("degrees", [-70, -30, 0, 15, 45, 80])
@pytest.mark.parametrize("roll", [0, 35])
def test_yaw_is_the_turn_that_was_made(degrees: float, roll: float) -> None:
    assert yaw_from_landmarks(turned(degrees, roll=roll)) == pytest.approx(degrees, abs=0.5)


def test_yaw_does_not_depend_on_size_and_flips_with_the_picture() -> None:
    small, large = turned(30, size=10), turned(30, size=200)
    assert yaw_from_landmarks(small) == pytest.approx(yaw_from_landmarks(large), abs=0.01)
    mirrored: FloatArray = large[[1, 0, 2, 4, 3]] * np.array([-1, 1], np.float32)
    assert yaw_from_landmarks(mirrored) == pytest.approx(-yaw_from_landmarks(large), abs=0.01)


@pytest.mark.parametrize("degrees", [-12, 0, 12])
@pytest.mark.parametrize("roll", [0, 35, 90])
def test_a_nod_is_no_turn(degrees: float, roll: float) -> None:
    """A nod shortens the face but leaves the eyes as far apart."""
    upright = turned(degrees) - 100
    nodding = upright * np.array([1, 0.6], np.float32)
    r = np.radians(roll)
    spin = np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]])
    yaw = yaw_from_landmarks((nodding @ spin.T).astype(np.float32))
    assert yaw == pytest.approx(degrees, abs=0.5)


def test_a_nose_past_the_side_of_the_head_is_a_full_turn() -> None:
    points = turned(0)
    for side in (-1, 1):
        points[2, 0] = 100 + side * 60
        assert yaw_from_landmarks(points) == pytest.approx(side * 90)


def test_eye_distance_brightness_contrast() -> None:
    crop = np.zeros((160, 160, 3), np.uint8)
    crop[:, 80:] = 255  # half black, half white
    quality = measure_quality(crop, turned(0, size=64))
    assert quality.eye_distance_px == pytest.approx(64)
    assert measure_quality(crop, turned(0, size=64, roll=35)).eye_distance_px == pytest.approx(64)
    assert quality.brightness == pytest.approx(0.5, abs=0.02)
    assert quality.contrast == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("period", [6, 8, 12])
def test_the_sharpness_of_a_wave_by_hand(period: int, times: int) -> None:
    """A Gaussian of sigma s leaves exp(-2 (pi s / period)^2) of a wave; crops become 96 px."""

    def left(sigma: float) -> float:
        return float(np.exp(-2 * (np.pi * sigma / period) ** 2))

    wave = 128 + 100 * np.sin(2 * np.pi * np.arange(96) / period)
    crop = np.tile(wave.round().astype(np.uint8)[:, None], (96, 1, 3)).repeat(times, 0)
    sharpness = measure_quality(crop.repeat(times, 1), turned(0)).sharpness
    assert sharpness == pytest.approx((1 - left(1.0)) / (left(1.4) - left(2.8)), rel=0.01)


def test_blur_lowers_sharpness_noise_raises_it_and_exposure_hardly_moves_it() -> None:
    crop = face()
    points = turned(0)

    def sharpness(image: ImageArray) -> float:
        return measure_quality(image, points).sharpness

    blurred = [sharpness(np.asarray(cv2.GaussianBlur(crop, (0, 0), s))) for s in (1.5, 3, 6)]
    assert sharpness(crop) > blurred[0] > blurred[1] > blurred[2]
    noise = np.random.default_rng(1).normal(0, 40, crop.shape)
    assert sharpness(np.clip(crop + noise, 0, 255).astype(np.uint8)) > 1.2 * sharpness(crop)
    darker = (crop * 0.6).astype(np.uint8)
    assert sharpness(darker) == pytest.approx(sharpness(crop), rel=0.05)


def test_a_flat_crop_is_neither_sharp_nor_an_error() -> None:
    flat = measure_quality(np.full((112, 112, 3), 90, np.uint8), np.zeros((5, 2), np.float32))
    assert flat.sharpness == flat.contrast == flat.eye_distance_px == flat.yaw_degrees == 0


@pytest.mark.parametrize("jpeg_quality", [None, 75])
def test_a_face_that_was_small_once_is_not_sharp_whatever_its_contrast(
    jpeg_quality: int | None,
) -> None:
    crop, points = face(), turned(0)
    side = crop.shape[0]
    small = cv2.resize(crop, (side // 6, side // 6), interpolation=cv2.INTER_AREA)
    enlarged = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    if jpeg_quality is not None:
        _, data = cv2.imencode(".jpg", enlarged, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        enlarged = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    before, after = measure_quality(crop, points), measure_quality(enlarged, points)
    assert after.sharpness < 0.6 * before.sharpness
    assert after.contrast > 0.8 * before.contrast


@pytest.mark.parametrize("sigma", [3, 6, 12, 24])
def test_no_blur_is_so_strong_that_rounding_passes_for_detail(sigma: float) -> None:
    shape = np.zeros((160, 160, 3), np.uint8)
    cv2.ellipse(shape, (80, 85), (50, 65), 0, 0, 360, (180, 150, 130), -1)
    blurred = np.asarray(cv2.GaussianBlur(shape, (0, 0), sigma), np.uint8)
    assert measure_quality(blurred, turned(0)).sharpness < 0.35
