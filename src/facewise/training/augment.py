"""Augments a cached face into a training picture: one warp, then light, sensor and codec."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from facewise.align import averaged, similarity_transform
from facewise.images import BORDER
from facewise.training.config import AugmentConfig
from facewise.types import Float64Array, FloatArray, ImageArray

# Fill for what lies beyond the data sets' tight crops. Serving sees the rest of the photo there and
# the scoring protocol grey; the network must rely on neither.
_BORDERS: Final = (
    (0.5, cv2.BORDER_CONSTANT),
    (0.8, cv2.BORDER_REPLICATE),
    (1.0, cv2.BORDER_REFLECT_101),
)

_LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def random_transform(
    landmarks: FloatArray,
    template: FloatArray,
    size_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Float64Array:
    """Align with jittered landmarks, then rotate, scale and shift slightly, and perhaps mirror.

    Returns:
        float64 ``(2, 3)``, from picture to crop.
    """
    eye_distance = float(np.hypot(*(landmarks[1] - landmarks[0])))
    jitter = rng.normal(0, config.landmark_jitter * eye_distance, (5, 2))
    base = np.vstack([similarity_transform(landmarks + jitter, template), [0, 0, 1]])
    angle = np.deg2rad(rng.normal(0, config.rotation_degrees))
    scale = float(np.exp(rng.normal(0, config.scale)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = (size_px - 1) / 2
    shift = rng.normal(0, config.shift * size_px, 2)
    around = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    around[:2, 2] = middle - around[:2, :2] @ [middle, middle] + shift
    combined: Float64Array = (around @ base)[:2]
    if rng.random() < 0.5:
        combined[0] *= -1
        combined[0, 2] += size_px - 1
    if config.upside_down and rng.random() < config.upside_down:
        combined[1] *= -1
        combined[1, 2] += size_px - 1
    return combined


def augment(
    rgb: ImageArray,
    landmarks: FloatArray,
    template: FloatArray,
    size_px: int,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> ImageArray:
    """Make a random training picture of a face.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        landmarks: float32 ``(5, 2)``, pixels of ``rgb``.
        template: float32 ``(5, 2)``, pixels of the crop.
        size_px: side S of the crop.
        config: strengths.
        rng: the only source of randomness, so that runs are reproducible.

    Returns:
        uint8 ``(S, S, 3)``, RGB.
    """
    transform = random_transform(landmarks, template, size_px, config, rng)
    draw = rng.random()
    border = next(mode for limit, mode in _BORDERS if draw < limit)
    rgb, transform = averaged(rgb, transform, size_px)
    image: ImageArray = np.asarray(
        cv2.warpAffine(
            rgb,
            transform,
            (size_px, size_px),
            flags=cv2.INTER_LINEAR,
            borderMode=border,
            borderValue=(BORDER, BORDER, BORDER),
        ),
        np.uint8,
    )
    if rng.random() < config.low_resolution:
        image = _low_resolution(image, rng)
    if rng.random() < config.blur:
        sigma = float(rng.uniform(0.5, 2.5)) * size_px / 160
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    image = _light(image, config, rng)
    if rng.random() < config.noise:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape).astype(np.float32)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        image = _jpeg(image, rng)
    if rng.random() < config.erase:
        image = _erase(image, rng)
    return image


def _low_resolution(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Make the face look as if it had been small in its photo."""
    size = image.shape[0]
    small = int(rng.uniform(0.15, 0.6) * size)
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    mode = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=mode), np.uint8)


def _light(image: ImageArray, config: AugmentConfig, rng: np.random.Generator) -> ImageArray:
    """Vary exposure, contrast, gamma and white balance by a table per channel, then saturation."""
    strength = config.photometric
    levels = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.normal(0, 0.35 * strength))
    contrast = np.exp(rng.normal(0, 0.3 * strength))
    exposure = np.exp(rng.normal(0, 0.25 * strength))
    balance = np.exp(rng.normal(0, 0.08 * strength, 3))
    curve = ((levels**gamma) * exposure - 0.5) * contrast + 0.5
    table = np.clip(curve[:, None] * balance * 255, 0, 255).astype(np.uint8)  # (256, 3)
    image = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    saturation = 0.0 if rng.random() < config.grey else float(np.exp(rng.normal(0, 0.4 * strength)))
    if abs(saturation - 1) > 0.05:
        mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA
        image = np.asarray(cv2.transform(image, mix), np.uint8)
    return image


def _jpeg(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    quality = int(rng.uniform(15, 85))
    bgr = np.ascontiguousarray(image[..., ::-1])  # OpenCV's order; JPEG weighs red more than blue
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def _erase(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Cover a rectangle, as hands, hair, masks or sunglasses do."""
    size = image.shape[0]
    width, height = (rng.uniform(0.1, 0.4, 2) * size).astype(int)
    left, top = rng.integers(0, size - width), rng.integers(0, size - height)
    image = image.copy()
    image[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return image
