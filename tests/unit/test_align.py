"""Alignment: the template, the transform, the warp, and faces that cannot be cropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facewise import Analyzer, load_photo
from facewise.align import crop_faces, make_template, similarity_transform, warp
from facewise.errors import OptionError
from facewise.images import BORDER
from facewise.models import load_spec
from facewise.types import Face, ImageArray, Photo


def turned(
    points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]
) -> np.ndarray:
    a = np.deg2rad(degrees)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return scale * points @ rotation.T + shift


def test_the_template_by_hand() -> None:
    """Eyes 40 px apart and 30 px down; nose and mouth 0.57 and 1.15 eye distances below."""
    np.testing.assert_allclose(
        make_template(100, 0.4, 0.3),
        np.array([[30, 30], [70, 30], [50, 52.8], [33.6, 76], [66.4, 76]]),
        rtol=1e-6,
    )


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -135])
def test_recovers_a_known_similarity(degrees: float) -> None:
    template = make_template(160, 0.36, 0.36)
    landmarks = turned(template, degrees, 1.7, (31.0, -12.0))
    matrix = similarity_transform(landmarks, template)
    mapped = landmarks @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(mapped, template, atol=1e-4)


def test_never_mirrors_or_shears() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        m = similarity_transform(rng.normal(size=(5, 2)) * 40, make_template(100, 0.3, 0.4))
        assert np.linalg.det(m[:, :2]) > 0
        np.testing.assert_allclose(m[0, 0], m[1, 1])
        np.testing.assert_allclose(m[0, 1], -m[1, 0])


def test_is_the_least_squares_optimum() -> None:
    rng = np.random.default_rng(1)
    landmarks, template = rng.normal(size=(5, 2)) * 30, make_template(100, 0.3, 0.4)
    best = similarity_transform(landmarks, template)

    def error(m: np.ndarray) -> float:
        return float(((landmarks @ m[:, :2].T + m[:, 2] - template) ** 2).sum())

    for step in rng.normal(scale=0.01, size=(100, 4)):
        a, b, x, y = np.array([best[0, 0], best[1, 0], best[0, 2], best[1, 2]]) + step
        assert error(np.array([[a, -b, x], [b, a, y]])) >= error(best)


def test_one_point_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match="one point"):
        similarity_transform(np.ones((5, 2)), make_template(100, 0.3, 0.4))


def disc_photo(size: int, points: np.ndarray, radius: float) -> ImageArray:
    """Draw dark discs on white at the given points."""
    y, x = np.mgrid[:size, :size]
    image = np.full((size, size, 3), 255, np.uint8)
    for px, py in points:
        image[(x - px) ** 2 + (y - py) ** 2 < radius**2] = 0
    return image


@pytest.mark.parametrize("scale", [0.8, 2.0, 7.3])
def test_landmarks_land_on_the_template(scale: float) -> None:
    """Discs drawn at the landmarks appear at the template, for faces small and very large."""
    template = make_template(96, 0.4, 0.35)
    points = turned(template, 20, scale, (60 * scale, 30 * scale))
    photo = Photo(disc_photo(int(260 * scale), points, 4 * scale))
    face = Face([0, 0, 1, 1], points.astype(np.float32), 1.0)
    crop = crop_faces(photo, [face], template, 96)[0]
    y, x = np.mgrid[:96, :96]
    for cx, cy in template:
        near = (np.abs(x - cx) < 7) & (np.abs(y - cy) < 7)
        weight = (255.0 - crop[..., 0]) * near
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        np.testing.assert_allclose(centre, [cx, cy], atol=0.6)


@pytest.mark.parametrize("centre", [(500, 600), (150, 1100), (930, 80)])
@pytest.mark.parametrize(
    ("factor", "degrees"), [(0.7, 10), (1.9, 45), (2.1, 0), (2.6, 45), (5.5, 160), (19, -75)]
)
def test_a_ramp_stays_the_same_ramp(factor: float, degrees: float, centre: tuple[int, int]) -> None:
    """Averaging a photo before the warp shifts no colours, right up to the photo's edges."""
    size, slope = 40, np.array([0.2371, 0.1937])
    y, x = np.mgrid[:1200, :1000]
    ramp = np.stack([x * slope[0], y * slope[1], np.full(x.shape, 250)], axis=-1)
    linear = turned(np.eye(2), degrees, 1 / factor, (0, 0)).T
    shift = size / 2 - linear @ centre
    transform = np.hstack([linear, shift[:, None]])
    crop = warp(ramp.round().astype(np.uint8), transform, size).astype(float)
    v, u = np.mgrid[:size, :size]
    place = (np.stack([u, v], axis=-1) - shift) @ np.linalg.inv(linear).T  # in photo coordinates
    depth = np.minimum(place, [999, 1199] - place).min(axis=-1)  # distance from its edge
    inside, outside = depth > 2 * factor, depth < -2 * factor
    off = (crop[..., :2] - place * slope)[inside]
    assert inside.sum() > 300
    assert np.abs(off).max() < 1.5
    assert np.abs(off.mean(axis=0)).max() < 0.15
    assert (crop[inside, 2] == 250).all()
    assert (crop[outside] == BORDER).all()


def test_outside_the_photo_is_grey() -> None:
    crop = warp(np.zeros((10, 10, 3), np.uint8), np.array([[1.0, 0, 30], [0, 1, 30]]), 64)
    assert (crop[:25, :25] == BORDER).all()
    assert (crop[32:38, 32:38] == 0).all()


@pytest.mark.parametrize("scale", [0.8, 1.0, 3.0])
@pytest.mark.parametrize("left", [-20, 15_000, 39_950])
def test_a_panorama_is_warped_as_a_part_of_it(
    monkeypatch: pytest.MonkeyPatch, scale: float, left: int
) -> None:
    """OpenCV 4 cannot warp a picture with a side of 32,767 px or more; later versions can."""
    warp_affine = cv2.warpAffine

    def opencv_4(rgb: ImageArray, *args: Any, **options: Any) -> Any:
        assert max(rgb.shape) < 32_767
        return warp_affine(rgb, *args, **options)

    wide = np.random.default_rng(2).integers(0, 256, (120, 40_000, 3), np.uint8)
    start = np.clip(left - 100, 0, 39_500)
    part = np.ascontiguousarray(wide[:, start : start + 500])
    template = make_template(96, 0.4, 0.35)
    points = turned(template, 10, scale**-1, (left, 30))
    expected = warp(part, similarity_transform(points - [start, 0], template), 96)
    monkeypatch.setattr(cv2, "warpAffine", opencv_4)
    crop = warp(wide, similarity_transform(points, template), 96)
    np.testing.assert_allclose(crop.astype(int), expected, atol=2)
    upright = np.rot90(wide)
    assert warp(upright, np.array([[1.0, 0, 0], [0, 1, -39_000]]), 96).shape == (96, 96, 3)


def test_no_faces_give_an_empty_batch() -> None:
    photo = Photo(np.zeros((20, 20, 3), np.uint8))
    assert crop_faces(photo, [], make_template(64, 0.3, 0.4), 64).shape == (0, 64, 64, 3)


def test_crops_of_whatever_is_a_picture(pictures: Path) -> None:
    path = pictures / "astronaut.jpg"
    photo = load_photo(path)
    template = make_template(64, 0.3, 0.4)
    face = Face([0, 0, 1, 1], template * 2 + 60, 1.0)
    crops = crop_faces(photo, [face], template, 64)
    bgr = np.ascontiguousarray(photo.rgb[..., ::-1])
    np.testing.assert_array_equal(crop_faces(path, [face], template, 64), crops)
    np.testing.assert_array_equal(crop_faces(bgr, [face], template, 64, color_order="bgr"), crops)


def test_crops_of_what_cannot_be_a_face_there(analyzer: Analyzer, pictures: Path) -> None:
    """Each would be an upside-down crop, a grey one, or an error about an attribute."""
    photo = load_photo(pictures / "astronaut.jpg")
    (person,) = analyzer.analyze(photo)
    face, template = person.face, make_template(64, 0.3, 0.4)
    mirrored = Face(face.bbox, face.landmarks[[1, 0, 2, 4, 3]])
    cases: list[tuple[Any, str]] = [
        ([face, mirrored], r"faces\[1\]: the landmarks are mirrored"),
        ([Face(face.bbox + 5000, face.landmarks + 5000)], r"faces\[0\]: no landmark lies in"),
        ([face.bbox], r"faces\[0\] must be a Face, not ndarray: make one of its box"),
        (person, "list of Face, not one Prediction"),
        (face, "list of Face, not one Face"),
    ]
    for faces, advice in cases:
        with pytest.raises(OptionError, match=advice):
            crop_faces(photo, faces, template, 64)
    assert len(crop_faces(photo, iter([face]), template, 64)) == 1


def test_crops_are_as_the_default_model_sees_them(analyzer: Analyzer, pictures: Path) -> None:
    photo = load_photo(pictures / "astronaut.jpg")
    people = analyzer.analyze(photo)
    spec = load_spec()
    wanted = crop_faces(photo, [person.face for person in people], spec.template, spec.size_px)
    np.testing.assert_array_equal(crop_faces(photo, people), wanted)
    half = crop_faces(photo, people, size_px=spec.size_px // 2)
    np.testing.assert_array_equal(
        half, crop_faces(photo, people, spec.template / np.float32(2), spec.size_px // 2)
    )
    with pytest.raises(OptionError, match="a template needs size_px"):
        crop_faces(photo, people, spec.template)
    with pytest.raises(OptionError, match="size_px must be a whole number"):
        crop_faces(photo, people, size_px=0)
