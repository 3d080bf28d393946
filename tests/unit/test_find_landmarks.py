"""Landmarks of faces known only by their boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facewise import MTCNN, Face, OptionError, Photo, load_photo
from facewise.boxes import check_boxes, scaled
from facewise.types import FloatArray


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(threads=1)


@pytest.fixture(scope="module")
def sheet(pictures: Path) -> Photo:
    """Eight faces side by side, so close that a large box holds parts of its neighbours."""
    tiles = [Image.open(path) for path in sorted((pictures / "faces").glob("*.webp"))[1:9]]
    canvas = Image.new("RGB", (192 * 8 + 80, 280), (127, 127, 127))
    for index, tile in enumerate(tiles):
        canvas.paste(tile.convert("RGB"), (192 * index + 40, 44))
    return load_photo(canvas)


@pytest.fixture(scope="module")
def found(detector: MTCNN, sheet: Photo) -> tuple[Face, ...]:
    found = detector.detect(sheet)
    assert len(found) == 8
    return found


def off(faces: tuple[Face, ...], usual: tuple[Face, ...]) -> FloatArray:
    """Mean landmark distance from the usual faces, per face, in eye distances."""
    points, right = (np.stack([f.landmarks for f in some]) for some in (faces, usual))
    eyes = np.linalg.norm(right[:, 1] - right[:, 0], axis=1)
    return np.linalg.norm(points - right, axis=2).mean(axis=1) / eyes


@pytest.mark.parametrize("scale", [0.8, 1, 1.3, 1.6, 2])
@pytest.mark.parametrize("shift", [-0.15, 0, 0.15])
def test_boxes_of_any_usual_size_and_place(
    detector: MTCNN, sheet: Photo, found: tuple[Face, ...], scale: float, shift: float
) -> None:
    boxes = np.stack([face.bbox for face in found])
    sizes = boxes[:, 2:] - boxes[:, :2]
    given = scaled(boxes + np.tile(sizes * shift, 2), scale)
    faces = detector.find_landmarks(sheet, given)
    assert (off(faces, found) < 0.3).all()
    assert np.median(off(faces, found)) < 0.06
    np.testing.assert_array_equal([face.bbox for face in faces], given)
    assert np.median([face.detection_score for face in faces]) > 0.9


def test_boxes_do_not_influence_each_other(
    detector: MTCNN, sheet: Photo, found: tuple[Face, ...]
) -> None:
    """One by one or together, in any order, though they overlap."""
    boxes = scaled(np.stack([face.bbox for face in found]), 2)
    together = detector.find_landmarks(sheet, boxes)
    for box, face in zip(boxes[::-1], together[::-1], strict=True):
        (alone,) = detector.find_landmarks(sheet, [box])
        np.testing.assert_allclose(alone.landmarks, face.landmarks, atol=0.01)


def test_no_face_has_a_low_score(detector: MTCNN) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    (nobody,) = detector.find_landmarks(noise, [[40, 40, 160, 160]])
    assert nobody.detection_score < 0.3
    assert detector.find_landmarks(noise, []) == ()


def test_a_box_that_reaches_past_the_edge(detector: MTCNN, pictures: Path) -> None:
    (whole,) = detector.detect(pictures / "astronaut.jpg")
    photo = load_photo(pictures / "astronaut.jpg")
    left = int(whole.landmarks[0, 0]) - 12
    (face,) = detector.find_landmarks(photo.rgb[:, left:], [whole.bbox - [left, 0, left, 0]])
    assert face.bbox[0] < 0
    assert off((Face(face.bbox, face.landmarks + np.array([left, 0])),), (whole,)) < 0.15


def test_a_large_photo_that_is_reduced_first(detector: MTCNN, pictures: Path) -> None:
    image = Image.open(pictures / "astronaut.jpg")
    large = image.resize((512 * 7, 512 * 7), Image.Resampling.BILINEAR)
    (usual,) = detector.detect(image)
    small_box = usual.bbox * 7
    (face,) = detector.find_landmarks(large, [small_box])
    back = Face(usual.bbox, face.landmarks / np.float32(7))
    assert off((back,), (usual,)) < 0.05


@pytest.mark.parametrize(
    ("boxes", "advice"),
    [
        ([1, 2, 3, 4], r"one row per face, not of shape \(4,\)"),
        ([[1, 2, 3]], "not of shape"),
        ([[1, 2, 3, np.nan]], "finite"),
        ([["a", 2, 3, 4]], "must be numbers"),
        ([[1, 2, 3, 4], [1, 2]], "must be numbers"),
        ([[0, 0, 9, 9], [50, 50, 20, 20]], r"boxes\[1\].*x, y, width, height make"),
        ([[0, 0, 9, 9], [640, 0, 700, 50]], r"boxes\[1\].*outside the photo of 640 x 480"),
        ([[-50, -50, 0, 0]], r"boxes\[0\].*outside"),
        ([[-1e30, 0, 1e30, 1e30]], "farther past the photo"),
        ([[0, 0, 1281, 9]], "farther past the photo"),
        ([[0.2, 0.2, 0.6, 0.6]], "between 0 and 1.*multiply"),
    ],
)
def test_what_is_no_box_of_the_photo(boxes: Any, advice: str) -> None:
    photo = Photo(np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(OptionError, match=advice):
        check_boxes(boxes, photo)


def test_scaled_by_hand() -> None:
    boxes = np.array([[10, 20, 30, 60]], np.float32)
    assert scaled(boxes, 0.5).tolist() == [[15, 30, 25, 50]]
    assert scaled(boxes, 2).tolist() == [[0, 0, 40, 80]]
