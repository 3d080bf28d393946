"""The detector's last looks: one large face near the middle, where nothing was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facewise import MTCNN, Photo, load_photo
from facewise.data.tight_crops import add_border
from facewise.portrait import Portrait, mirror_face, mirror_photo
from facewise.types import Face

GREY = 127


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(threads=1)


@pytest.fixture(scope="module")
def pale(pictures: Path) -> Photo:
    """A face with an eighth of its contrast, which the first and the second look miss."""
    rgb = load_photo(pictures / "faces" / "12040.webp").rgb.astype(np.float32)
    flat = GREY + (rgb - GREY) * 0.12
    return Photo(add_border(flat.astype(np.uint8))[0])


@pytest.fixture(scope="module")
def half_covered(pictures: Path) -> Photo:
    """A half-covered face that these two looks miss as well."""
    rgb = load_photo(pictures / "faces" / "9410.webp").rgb.copy()
    rgb[:, 113:] = 40
    return Photo(add_border(rgb)[0])


def with_last_looks(count: int) -> MTCNN:
    """A detector with the first 0, 1 (photo as it is) or 2 (in a border) of the last looks."""
    detector = MTCNN(threads=1)
    detector.portraits = detector.portraits[:count]
    return detector


def test_only_the_last_look_finds_it(
    detector: MTCNN, pale: Photo, half_covered: Photo, pictures: Path
) -> None:
    assert with_last_looks(0).detect_many([pale, half_covered]) == [(), ()]
    (face,) = detector.detect(pale)
    # In the same picture at full contrast, the first look finds the face.
    whole = add_border(load_photo(pictures / "faces" / "12040.webp").rgb)[0]
    (expected,) = MTCNN(threads=1, second_look=False).detect(Photo(whole))
    width = float(expected.bbox[2] - expected.bbox[0])
    np.testing.assert_allclose(face.bbox, expected.bbox, atol=0.15 * width)
    np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=0.08 * width)
    assert len(detector.detect(half_covered)) == 1


@pytest.mark.parametrize(
    "options", [{"second_look": False}, {"thresholds": (0.6, 0.7, 0.7)}, {"min_face_px": 320.0}]
)
def test_it_can_be_switched_off(pale: Photo, options: dict[str, object]) -> None:
    assert MTCNN(threads=1, **options).detect(pale) == ()  # type: ignore[arg-type]


def test_what_is_aside_is_no_portrait(detector: MTCNN, pale: Photo) -> None:
    def on_grey(width: int, height: int, left: int, top: int) -> Photo:
        rgb = np.full((height, width, 3), GREY, np.uint8)
        rgb[top : top + pale.height_px, left : left + pale.width_px] = pale.rgb
        return Photo(rgb)

    assert len(detector.detect(on_grey(400, 400, 40, 40))) == 1
    assert detector.detect(on_grey(700, 400, 374, 40)) == ()


def test_beside_a_face_that_is_found_nobody_is_added(
    detector: MTCNN, pale: Photo, pictures: Path
) -> None:
    small = Image.open(pictures / "astronaut.jpg").resize((200, 200))
    rgb = np.full((pale.height_px + 200, pale.width_px, 3), GREY, np.uint8)
    rgb[: pale.height_px] = pale.rgb
    rgb[pale.height_px :, :200] = np.asarray(small)
    assert len(detector.detect(Photo(rgb))) == 1
    assert detector.detect(Photo(rgb))[0].bbox[1] > pale.height_px


def test_a_mirrored_portrait_gives_the_mirrored_face(detector: MTCNN, pale: Photo) -> None:
    """Within 0.001 px: both photos are looked at as they are and mirrored."""
    mirrored = mirror_photo(pale)
    assert with_last_looks(0).detect(mirrored) == ()
    (face,), (other,) = detector.detect_many([pale, mirrored])
    back = mirror_face(other, pale.width_px)
    np.testing.assert_allclose(back.bbox, face.bbox, atol=1e-3)
    np.testing.assert_allclose(back.landmarks, face.landmarks, atol=1e-3)
    assert other.detection_score == pytest.approx(face.detection_score, abs=1e-6)
    assert other.landmarks[0, 0] < other.landmarks[1, 0]


def test_many_equal_singles(
    detector: MTCNN, pale: Photo, half_covered: Photo, pictures: Path
) -> None:
    nobody = Photo(np.full((90, 120, 3), GREY, np.uint8))
    photos = [pale, load_photo(pictures / "astronaut.jpg"), nobody, half_covered]
    together = detector.detect_many(photos)
    assert [len(faces) for faces in together] == [1, 1, 0, 1]
    for photo, faces in zip(photos, together, strict=True):
        for a, b in zip(detector.detect(photo), faces, strict=True):
            np.testing.assert_allclose(a.bbox, b.bbox, atol=0.01)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.01)


@pytest.mark.parametrize("times", [1, 3])
def test_a_face_that_fills_the_picture_is_found_in_a_border(
    times: int, detector: MTCNN, pictures: Path
) -> None:
    rgb = load_photo(pictures / "faces" / "9410.webp").rgb[12:-12, 12:-12]
    rgb = rgb.repeat(times, 0).repeat(times, 1)
    assert with_last_looks(1).detect(rgb) == ()
    (face,) = detector.detect(rgb)
    # With a border added here, the earlier looks find the face.
    bordered, border = add_border(rgb)
    (expected,) = with_last_looks(1).detect(bordered)
    width = float(expected.bbox[2] - expected.bbox[0])
    np.testing.assert_allclose(face.landmarks, expected.landmarks - border, atol=0.08 * width)
    np.testing.assert_allclose(face.bbox, expected.bbox - border, atol=0.15 * width)


def test_no_face_smaller_than_was_asked_for_is_found_in_a_border(pictures: Path) -> None:
    rgb = load_photo(pictures / "faces" / "9410.webp").rgb[12:-12, 12:-12]
    rgb = rgb.repeat(3, 0).repeat(3, 1)
    assert len(MTCNN(threads=1, min_face_px=400).detect(rgb)) == 1
    assert MTCNN(threads=1, min_face_px=3000).detect(rgb) == ()


def test_a_long_picture_gets_no_border(detector: MTCNN) -> None:
    whole, tight = detector.portraits
    shapes = [(200, 100), (100, 200), (201, 100), (100, 201)]
    photos = [Photo(np.zeros((*shape, 3), np.uint8)) for shape in shapes]
    assert [tight.may_be_in(photo) for photo in photos] == [True, True, False, False]
    assert all(whole.may_be_in(photo) for photo in photos)


def test_a_view_in_a_border_by_hand() -> None:
    portrait = Portrait((0.4, 0.5, 0.5), share_of_short_side=0.7, off_centre=0.2, border=0.25)
    rgb = np.zeros((2 * 200 + 1, 2 * 300, 3), np.uint8)
    rgb[:2, :2] = [[[8, 0, 0], [0, 0, 0]], [[0, 4, 0], [0, 0, 16]]]
    view = portrait.view(Photo(rgb))
    assert (view.block, view.border) == (2, 50)
    assert (view.photo.width_px, view.photo.height_px) == (300 + 100, 200 + 100)
    assert view.photo.rgb[50, 50].tolist() == [2, 1, 4]
    assert (view.photo.rgb[:50] == GREY).all()
    assert (view.photo.rgb[:, -50:] == GREY).all()
    # This box in the view is the original's 21st to 40th pixel across, 41st to 60th down.
    box = np.array([61, 71, 70, 80], np.float32)
    points = np.array([[62, 72], [68, 72], [65, 75], [63, 78], [67, 78]], np.float32)
    face = view.back(Face(box, points, 0.9))
    np.testing.assert_array_equal(face.bbox, [21, 41, 40, 60])
    np.testing.assert_array_equal(face.landmarks, (points - 50) * 2)
    assert portrait.view(Photo(rgb[:200])).block == 1
    small = Portrait((0.4, 0.5, 0.5), share_of_short_side=0.25, off_centre=0.2, border=0)
    assert small.view(photo := Photo(rgb)).photo is photo


def face_at(left: float, top: float, side: float, detection_score: float = 0.9) -> Face:
    box = np.array([left, top, left + side, top + side], np.float32)
    shares = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    return Face(box, box[:2] + shares * np.float32(side), detection_score)


def test_best_by_hand() -> None:
    portrait = Portrait((0.4, 0.5, 0.5), share_of_short_side=0.25, off_centre=0.2, border=0.35)
    photo = Photo(np.zeros((200, 400, 3), np.uint8))
    centred, likelier = face_at(170, 70, 60), face_at(150, 60, 60, 0.95)
    assert portrait.best([centred], photo) == (centred,)
    assert portrait.best([centred, likelier], photo) == (likelier,)
    right, left = face_at(260, 70, 60), face_at(80, 70, 60)
    below, above = face_at(170, 120, 60), face_at(170, 20, 60)
    for off in (right, left, below, above, face_at(180, 80, 40)):
        assert portrait.best([off], photo) == ()
        assert portrait.best([off, centred], photo) == (centred,)
    assert portrait.best([], photo) == ()
    # The longer side counts, and exactly the required size is enough.
    points = centred.landmarks
    for box in ([175, 90, 225, 110], [190, 75, 210, 125]):
        narrow = Face(np.array(box, np.float32), points, 0.9)
        assert portrait.best([narrow], photo) == (narrow,)
    assert portrait.best([face_at(255, 75, 50)], photo) == (face_at(255, 75, 50),)


def test_a_face_in_the_mirror_by_hand() -> None:
    face = face_at(11, 5, 20)
    seen = mirror_face(face, 100)
    np.testing.assert_allclose(seen.bbox, [70, 5, 90, 25])
    np.testing.assert_allclose(seen.landmarks[:2], [[75, 13], [83, 13]])
    again = mirror_face(seen, 100)
    np.testing.assert_allclose(again.bbox, face.bbox)
    np.testing.assert_allclose(again.landmarks, face.landmarks)
