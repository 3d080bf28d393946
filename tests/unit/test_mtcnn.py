"""The detector on real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facewise import MTCNN, Photo, load_photo
from facewise.boxes import box_overlap, non_maximum_suppression, to_squares
from facewise.errors import OptionError
from facewise.protocol import add_border, nearest_to_centre


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(threads=1)


@pytest.fixture(scope="module")
def faces(pictures: Path) -> list[Photo]:
    return [
        Photo(add_border(load_photo(path).rgb)[0])
        for path in sorted((pictures / "faces").glob("*.webp"))
    ]


def test_finds_the_fixture_faces(detector: MTCNN, faces: list[Photo]) -> None:
    found = detector.detect_many(faces)
    assert sum(bool(f) for f in found) >= len(faces) - 2
    for photo, some in zip(faces, found, strict=True):
        face = nearest_to_centre(some, photo)
        if face is None:
            continue
        left, right = face.landmarks[0], face.landmarks[1]
        assert left[0] < right[0]
        assert face.landmarks[3:, 1].mean() > face.landmarks[:2, 1].mean()
        assert 0.7 < face.detection_score <= 1


def test_many_equal_singles(detector: MTCNN, faces: list[Photo]) -> None:
    for alone, together in zip(
        [detector.detect(photo) for photo in faces[:6]],
        detector.detect_many(faces[:6]),
        strict=True,
    ):
        assert len(alone) == len(together)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a.bbox, b.bbox, atol=0.01)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.01)


def test_options(pictures: Path, detector: MTCNN) -> None:
    photo = load_photo(pictures / "astronaut.jpg")
    (face,) = detector.detect(photo)
    width = float(face.bbox[2] - face.bbox[0])
    assert MTCNN(threads=1, min_face_px=width * 4).detect(photo) == ()
    two = Photo(np.concatenate([photo.rgb, photo.rgb], axis=1))
    assert len(detector.detect(two)) == 2
    assert len(MTCNN(threads=1, max_faces=1).detect(two)) == 1
    for bad in ({"pyramid_factor": 1.0}, {"thresholds": (0.5, 0.5, 2.0)}, {"min_face_px": 3}):
        with pytest.raises(OptionError):
            MTCNN(**bad)


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (401, 16), (37, 53)])
def test_small_and_odd_sizes(detector: MTCNN, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert isinstance(detector.detect(Photo(noise)), tuple)


def test_an_empty_picture_has_no_face(detector: MTCNN) -> None:
    assert detector.detect(Photo(np.full((300, 400, 3), 127, np.uint8))) == ()


def test_a_face_40_px_wide_in_1080p(detector: MTCNN, pictures: Path) -> None:
    image = Image.open(pictures / "astronaut.jpg")
    small = image.resize((round(512 * 40 / 88), round(512 * 40 / 88)), Image.Resampling.BOX)
    canvas = Image.new("RGB", (1920, 1080), (120, 130, 140))
    canvas.paste(small, (1200, 500))
    (face,) = detector.detect(load_photo(canvas))
    assert 32 < face.bbox[2] - face.bbox[0] < 48


def test_suppression_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [2, 2, 5, 5]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    assert list(non_maximum_suppression(boxes, scores, 0.5)) == [1, 2, 3]
    assert list(non_maximum_suppression(boxes, scores, 0.5, relative_to="smaller")) == [1, 2]
    np.testing.assert_allclose(box_overlap(boxes[:1], boxes[1]), 90 / 110, rtol=1e-6)
    np.testing.assert_allclose(
        to_squares(np.array([[0, 0, 10, 20]], np.float32)), [[-5, 0, 15, 20]]
    )
