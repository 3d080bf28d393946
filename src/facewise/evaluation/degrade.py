"""Pictures degraded on purpose, to see whether facewise notices.

Each function takes a labelled face with its grey border and returns a picture of the same size;
only ``tight`` removes the border, and ``shuffled`` up to 5 pixels. ``small`` shows a face far away
in a sharp photo; ``coarse`` one that was small and has been enlarged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from facewise.errors import OptionError
from facewise.images import BORDER
from facewise.protocol import DETECTION_BORDER
from facewise.types import ImageArray

Degradation = Callable[[ImageArray, np.random.Generator], ImageArray]


def _resized(rgb: ImageArray, side_px: int) -> ImageArray:
    import cv2

    mode = cv2.INTER_AREA if side_px < rgb.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (side_px, side_px), interpolation=mode), np.uint8)


def _side_for_face(rgb: ImageArray, face_px: int) -> int:
    """Side of the whole picture for which the crop inside its border is ``face_px`` wide."""
    return max(8, round(face_px * (1 + 2 * DETECTION_BORDER)))


def small(rgb: ImageArray, _: np.random.Generator, *, face_px: int) -> ImageArray:
    """Shrink the face to ``face_px`` in width, in the middle of a grey photo of the old size."""
    side = _side_for_face(rgb, face_px)
    out = np.full_like(rgb, BORDER)
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    out[top : top + side, left : left + side] = _resized(rgb, side)
    return out


def coarse(rgb: ImageArray, _: np.random.Generator, *, face_px: int) -> ImageArray:
    """Shrink to a face ``face_px`` wide, and enlarge again."""
    return _resized(_resized(rgb, _side_for_face(rgb, face_px)), rgb.shape[0])


def blur(rgb: ImageArray, _: np.random.Generator, *, sigma: float) -> ImageArray:
    """Gaussian blur; ``sigma`` is a share of the picture's width."""
    import cv2

    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma * rgb.shape[1]), np.uint8)


def noise(rgb: ImageArray, rng: np.random.Generator, *, sigma: float) -> ImageArray:
    """Gaussian noise of ``sigma`` grey levels, independent for each pixel and channel."""
    noisy = rgb.astype(np.float32) + rng.normal(0, sigma, rgb.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def turn(rgb: ImageArray, rng: np.random.Generator, *, degrees: float) -> ImageArray:
    """Turn the head towards a profile: wrap the picture round a cylinder, and turn that.

    The part that the photo does not show is filled with the crop's outermost column.
    """
    import cv2

    height, width = rgb.shape[:2]
    yaw = np.radians(degrees) * rng.choice([-1, 1])
    radius = width / 2 / (1 + 2 * DETECTION_BORDER)
    x = (np.arange(width) - width / 2 + 0.5) / radius
    angle = np.arcsin(np.clip(x, -1, 1)) + yaw
    seen = np.sin(np.clip(angle, -np.pi / 2, np.pi / 2))
    source = np.where(np.abs(x) <= 1, seen, x) * radius + width / 2 - 0.5
    columns = np.broadcast_to(source.astype(np.float32), (height, width))
    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], (height, width))
    return np.asarray(cv2.remap(rgb, np.ascontiguousarray(columns), np.ascontiguousarray(rows), 1))


def tight(rgb: ImageArray, _: np.random.Generator) -> ImageArray:
    """The data set's crop without the border: the face fills it and extends past its edges."""
    border = round(rgb.shape[1] * DETECTION_BORDER / (1 + 2 * DETECTION_BORDER))
    return np.ascontiguousarray(rgb[border:-border, border:-border])


def dark(rgb: ImageArray, rng: np.random.Generator) -> ImageArray:
    """About an eighth of the light, with the noise that results."""
    return noise((rgb * 0.12).astype(np.uint8), rng, sigma=5)


def overexposed(rgb: ImageArray, _: np.random.Generator) -> ImageArray:
    """Three times the light, clipped at white."""
    return np.clip(rgb * 3.0, 0, 255).astype(np.uint8)


def shuffled(rgb: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Not a face: 6 x 6 tiles in random order, so skin and edges but no features in place."""
    side = rgb.shape[0] // 6
    tiles = [
        rgb[i * side : (i + 1) * side, j * side : (j + 1) * side]
        for i in range(6)
        for j in range(6)
    ]
    order = rng.permutation(36)
    rows = [np.concatenate([tiles[k] for k in order[i * 6 : i * 6 + 6]], axis=1) for i in range(6)]
    return np.concatenate(rows)


def texture(rgb: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Not a face: the picture's own spectrum with random phases."""
    phases = np.angle(np.fft.fft2(rng.normal(size=rgb.shape[:2])))[..., None]
    phases[0, 0] = 0  # keep the mean, or half of the pictures would be black
    spectrum = np.fft.fft2(rgb.astype(np.float64), axes=(0, 1))
    scrambled = np.real(np.fft.ifft2(spectrum * np.exp(1j * phases), axes=(0, 1)))
    return np.clip(scrambled, 0, 255).astype(np.uint8)


DEGRADATIONS: Final[dict[str, Degradation]] = {
    "small-32px": partial(small, face_px=32),
    "small-24px": partial(small, face_px=24),
    "small-16px": partial(small, face_px=16),
    "small-12px": partial(small, face_px=12),
    "coarse-24px": partial(coarse, face_px=24),
    "coarse-16px": partial(coarse, face_px=16),
    "coarse-12px": partial(coarse, face_px=12),
    "blur-4%": partial(blur, sigma=0.04 / (1 + 2 * DETECTION_BORDER)),
    "blur-7%": partial(blur, sigma=0.07 / (1 + 2 * DETECTION_BORDER)),
    "noise-40": partial(noise, sigma=40),
    "noise-80": partial(noise, sigma=80),
    "turned-45": partial(turn, degrees=45),
    "turned-70": partial(turn, degrees=70),
    "tight": tight,
    "dark": dark,
    "overexposed": overexposed,
    "not-a-face-tiles": shuffled,
    "not-a-face-texture": texture,
}
"""Degradations by name; sizes refer to the data set's crop, blur is in shares of its width."""

NOT_FACES: Final = ("not-a-face-tiles", "not-a-face-texture")
"""Degradations that leave no face, and so no right answer."""


def degrade(rgb: ImageArray, name: str | None, *, seed: int) -> ImageArray:
    """Apply one of ``DEGRADATIONS``; None leaves the picture unchanged.

    Raises:
        OptionError: there is no degradation of that name.
    """
    if name is None:
        return rgb
    if name not in DEGRADATIONS:
        raise OptionError(f"no degradation {name!r}: choose from {', '.join(DEGRADATIONS)}")
    return DEGRADATIONS[name](rgb, np.random.default_rng(seed))
