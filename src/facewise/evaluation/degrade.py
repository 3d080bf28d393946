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

from facewise.data.tight_crops import DETECTION_BORDER
from facewise.errors import OptionError
from facewise.images import BORDER
from facewise.types import ImageArray

Degradation = Callable[[ImageArray, np.random.Generator], ImageArray]


def _resized(rgb: ImageArray, height_px: int, width_px: int) -> ImageArray:
    import cv2

    mode = cv2.INTER_AREA if width_px < rgb.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, (width_px, height_px), interpolation=mode), np.uint8)


def _shrunk(rgb: ImageArray, width_px: int) -> ImageArray:
    """The picture at that width, in proportion; unchanged if it is no wider."""
    height, width = rgb.shape[:2]
    if width <= width_px:
        return rgb
    return _resized(rgb, max(1, round(height * width_px / width)), width_px)


def small(rgb: ImageArray, _: np.random.Generator, *, width_px: int) -> ImageArray:
    """Shrink to ``width_px``, in the middle of a grey photo of the old size."""
    inside = _shrunk(rgb, width_px)
    height, width = inside.shape[:2]
    out = np.full_like(rgb, BORDER)
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    out[top : top + height, left : left + width] = inside
    return out


def coarse(rgb: ImageArray, _: np.random.Generator, *, width_px: int) -> ImageArray:
    """Shrink to ``width_px``, and enlarge again."""
    return _resized(_shrunk(rgb, width_px), *rgb.shape[:2])


def blur(rgb: ImageArray, _: np.random.Generator, *, sigma: float) -> ImageArray:
    """Gaussian blur; ``sigma`` is a share of the picture's width."""
    import cv2

    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma * rgb.shape[1]), np.uint8)


def noise(rgb: ImageArray, rng: np.random.Generator, *, sigma: float) -> ImageArray:
    """Gaussian noise of ``sigma`` grey levels, independent for each pixel and channel."""
    noisy = rgb.astype(np.float32) + rng.normal(0, sigma, rgb.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def turn(rgb: ImageArray, rng: np.random.Generator, *, degrees: float, scale: float) -> ImageArray:
    """Turn the head towards a profile: wrap the picture round a cylinder, and turn that.

    The cylinder is as wide as the crop, the picture ``scale`` times as wide. The part that the
    photo does not show is filled with the crop's outermost column.
    """
    import cv2

    height, width = rgb.shape[:2]
    yaw = np.radians(degrees) * rng.choice([-1, 1])
    radius = width / 2 / scale
    x = (np.arange(width) - width / 2 + 0.5) / radius
    angle = np.arcsin(np.clip(x, -1, 1)) + yaw
    seen = np.sin(np.clip(angle, -np.pi / 2, np.pi / 2))
    source = np.where(np.abs(x) <= 1, seen, x) * radius + width / 2 - 0.5
    columns = np.broadcast_to(source.astype(np.float32), (height, width))
    rows = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], (height, width))
    return np.asarray(cv2.remap(rgb, np.ascontiguousarray(columns), np.ascontiguousarray(rows), 1))


def tight(rgb: ImageArray, _: np.random.Generator, *, border: float) -> ImageArray:
    """The data set's crop without the border: the face fills it and extends past its edges."""
    height, width = rgb.shape[:2]
    edge = round(width * border / (1 + 2 * border))
    return np.ascontiguousarray(rgb[edge : height - edge, edge : width - edge])


def dark(rgb: ImageArray, rng: np.random.Generator) -> ImageArray:
    """About an eighth of the light, with the noise that results."""
    return noise((rgb * 0.12).astype(np.uint8), rng, sigma=5)


def overexposed(rgb: ImageArray, _: np.random.Generator) -> ImageArray:
    """Three times the light, clipped at white."""
    return np.clip(rgb * 3.0, 0, 255).astype(np.uint8)


def shuffled(rgb: ImageArray, rng: np.random.Generator) -> ImageArray:
    """Not a face: 6 x 6 tiles in random order, so skin and edges but no features in place."""
    height, width = rgb.shape[0] // 6, rgb.shape[1] // 6
    tiles = [
        rgb[i * height : (i + 1) * height, j * width : (j + 1) * width]
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


def degradations(border: float = DETECTION_BORDER) -> dict[str, Degradation]:
    """Degradations by name; sizes refer to the data set's crop, blur is in shares of its width.

    Args:
        border: the pictures' grey border, as a share of the crop's width; at 0, there is no
            ``tight``, which would change nothing.
    """
    scale = 1 + 2 * border  # width of the picture, in crops

    def resized(how: Callable[..., ImageArray], face_px: int) -> Degradation:
        return partial(how, width_px=round(face_px * scale))

    return {
        "small-32px": resized(small, 32),
        "small-24px": resized(small, 24),
        "small-16px": resized(small, 16),
        "small-12px": resized(small, 12),
        "coarse-24px": resized(coarse, 24),
        "coarse-16px": resized(coarse, 16),
        "coarse-12px": resized(coarse, 12),
        "blur-4%": partial(blur, sigma=0.04 / scale),
        "blur-7%": partial(blur, sigma=0.07 / scale),
        "noise-40": partial(noise, sigma=40),
        "noise-80": partial(noise, sigma=80),
        "turned-45": partial(turn, degrees=45, scale=scale),
        "turned-70": partial(turn, degrees=70, scale=scale),
        **({"tight": partial(tight, border=border)} if border else {}),
        "dark": dark,
        "overexposed": overexposed,
        "not-a-face-tiles": shuffled,
        "not-a-face-texture": texture,
    }


INPUTS: Final = (
    "`small-N`: the picture shrunk to N px of width, in the middle of a sharp photo; `coarse-N`: "
    "the same, enlarged again; `blur-N`: Gaussian, by N of the picture's width; `noise-N`: "
    "Gaussian, by N of 255 grey levels; `turned-N`: by N degrees towards a profile; `tight`: "
    "without the border; `dark`: an eighth of the light; `overexposed`: three times the light; "
    "`not-a-face`: shuffled tiles, or a texture."
)
"""What the names in ``degradations`` mean, for readers of a report."""

NOT_FACES: Final = ("not-a-face-tiles", "not-a-face-texture")
"""Degradations that leave no face, and so no right answer."""


def degrade(
    rgb: ImageArray, name: str | None, *, seed: int, border: float = DETECTION_BORDER
) -> ImageArray:
    """Apply one of ``degradations(border)``; None leaves the picture unchanged.

    Raises:
        OptionError: there is no degradation of that name.
    """
    if name is None:
        return rgb
    known = degradations(border)
    if name not in known:
        raise OptionError(f"no degradation {name!r}: choose from {', '.join(known)}")
    return known[name](rgb, np.random.default_rng(seed))
