"""The detector on real faces."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facewise import MTCNN, Photo, cascade, load_photo, mtcnn, windows
from facewise.boxes import apart, box_overlap, non_maximum_suppression, to_squares
from facewise.data.tight_crops import DETECTION_BORDER, add_border, nearest_to_centre
from facewise.errors import InvalidArrayError, OptionError
from facewise.resample import AreaSource
from facewise.types import ImageArray

GREY = 127


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


def test_many_photos_are_summed_a_few_at_a_time(
    detector: MTCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums of a photo take more memory than the photo."""
    alive: weakref.WeakSet[AreaSource] = weakref.WeakSet()
    counts = []

    class Counted(AreaSource):
        def __init__(self, rgb: ImageArray, reduction: int = 1) -> None:
            super().__init__(rgb, reduction)
            alive.add(self)
            counts.append(len(alive))

    monkeypatch.setattr(mtcnn, "AreaSource", Counted)
    blank = Photo(np.full((48, 48, 3), 127, np.uint8))
    assert detector.detect_many([blank] * 30) == [()] * 30
    assert len(counts) >= 30
    # Each photo, its small copy in a border, and the mirror image of that copy.
    assert max(counts) <= 3 * mtcnn.PHOTOS_AT_ONCE


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
    assert MTCNN(threads=1, min_face_px=width * 3).detect(photo) == ()
    two = Photo(np.concatenate([photo.rgb, photo.rgb], axis=1))
    assert len(detector.detect(two)) == 2
    assert len(MTCNN(threads=1, max_faces=1).detect(two)) == 1
    for bad in (
        {"pyramid_factor": 1.0},
        {"pyramid_factor": 0},
        {"thresholds": (0.5, 0.5, 2.0)},
        {"thresholds": ()},
        {"thresholds": 0.7},
        {"pyramid_factor": "0.7"},
        {"min_face_px": 3},
        {"min_face_px": float("inf")},
        {"max_faces": 0},
    ):
        with pytest.raises(OptionError):
            MTCNN(**bad)
    for factor in (0.1, 0.95):
        assert detector.replace(pyramid_factor=factor, min_face_px=12).pyramid_factor == factor


def test_the_smallest_face_grows_with_the_shorter_side(detector: MTCNN) -> None:
    sizes = [(300, 200), (640, 480), (800, 3000), (1920, 1080), (4000, 3000)]
    assert [detector.smallest_px(*size) for size in sizes] == [20, 20, 20, 27, 75]
    given = detector.replace(min_face_px=33)
    assert {given.smallest_px(*size) for size in sizes} == {33}


def test_large_photos_are_reduced_for_a_large_smallest_face(detector: MTCNN) -> None:
    def reduction(width: int, height: int, min_face_px: float | None = None) -> int:
        photo = Photo(np.zeros((height, width, 3), np.uint8))
        return detector.replace(min_face_px=min_face_px)._reduction(photo)

    # At the finest level the smallest face is 12 px wide, and each pixel spans at least two blocks.
    assert reduction(1920, 1080) == 1  # 27 px: 2.25 photo pixels for each
    assert reduction(1920, 1080, min_face_px=47) == 1
    assert reduction(1920, 1080, min_face_px=48) == 2
    assert reduction(4000, 3000) == 3  # 75 px
    assert reduction(8, 8) == 1


def test_landmarks_of_a_face_that_reaches_past_the_edges(faces: list[Photo]) -> None:
    """Other implementations clip boxes at the edges, which stretches the crops."""
    errors: dict[bool | None, list[float]] = {None: [], False: []}
    for photo in faces:
        border = round(192 * DETECTION_BORDER)
        tight = photo.rgb[border:-border, border:-border]
        (usual, *_) = MTCNN(threads=1).detect(photo)
        for second_look, some in errors.items():
            for face in MTCNN(threads=1, second_look=second_look).detect(tight)[:1]:
                distance = np.abs(face.landmarks - (usual.landmarks - border)).max()
                some.append(float(distance / (usual.bbox[2] - usual.bbox[0])))
    assert len(errors[None]) > len(errors[False]) >= 10
    assert np.median(errors[None]) < 0.04
    assert np.median(errors[False]) > 0.1
    cut_off = MTCNN(threads=1, second_look=False)
    assert MTCNN(threads=1, thresholds=cut_off.thresholds).fill_up
    assert not cut_off.fill_up


def test_whatever_a_photo_is_read_from(pictures: Path, detector: MTCNN) -> None:
    path = pictures / "astronaut.jpg"
    (face,) = detector.detect(path)
    bgr = load_photo(path).rgb[..., ::-1]
    for (same,) in (
        detector.detect(bgr, color_order="bgr"),
        detector.detect_many([path.read_bytes()])[0],
    ):
        np.testing.assert_array_equal(same.bbox, face.bbox)
    with pytest.raises(InvalidArrayError, match=r"photos\[1\]"):
        detector.detect_many([path, 3])  # type: ignore[list-item]


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


def test_a_box_turned_inside_out_is_no_face(detector: MTCNN) -> None:
    """The regression is unbounded, and a ``Face`` needs a box with an interior."""
    boxes = np.array([[10, 10, 60, 60]] * 3, np.float32)
    offsets = np.zeros((3, 4), np.float32)
    offsets[0, 2] = offsets[1, 3] = -1
    points = np.full((3, 10), 0.5, np.float32)
    z = np.array([5, 4, 3], np.float32)
    (face,) = detector._cascade._faces(boxes, z, offsets, points, 0.5)
    assert face.bbox.tolist() == [10, 10, 60, 60]


def test_suppression_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [2, 2, 5, 5]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    assert list(non_maximum_suppression(boxes, scores, 0.5)) == [1, 2, 3]
    assert list(non_maximum_suppression(boxes, scores, 0.5, relative_to="smaller")) == [1, 2]
    np.testing.assert_allclose(box_overlap(boxes[:1], boxes[1]), 90 / 110, rtol=1e-6)
    np.testing.assert_allclose(
        to_squares(np.array([[0, 0, 10, 20]], np.float32)), [[-5, 0, 15, 20]]
    )


def test_levels_suppressed_together_give_what_each_gives_by_itself(
    detector: MTCNN, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = AreaSource(load_photo(pictures / "astronaut.jpg").rgb)
    together = detector._propose(source)
    monkeypatch.setattr(windows, "WINDOWS_AT_ONCE", 0)
    alone = detector._propose(source)
    assert len(alone.boxes) > 5
    np.testing.assert_array_equal(together.boxes, alone.boxes)
    np.testing.assert_array_equal(together.logits, alone.logits)


def test_boxes_set_apart_only_meet_their_own() -> None:
    boxes = np.array([[0, 0, 40_000, 40_000]] * 3, np.float32)
    moved = apart(boxes, np.array([0, 1, 1]))
    assert list(non_maximum_suppression(moved, np.array([1, 2, 3], np.float32), 0.5)) == [2, 0]


def test_what_engines_differ_by_does_not_pick_the_box() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float32)
    for off in (0, 1e-5, -1e-5):
        logits = np.array([12.8, 12.8 + off], np.float32)
        assert list(non_maximum_suppression(boxes, logits, 0.5)) == [0]
    # As float32 probabilities, these two would be the same number.
    logits = np.array([18, 19], np.float32)
    assert len(np.unique(1 / (1 + np.exp(-logits)))) == 1
    assert list(non_maximum_suppression(boxes, logits, 0.5)) == [1]


def mean_by_hand(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Compute area means in loops: each pixel is the mean of all pixels that it touches."""
    rows, columns = rgb.shape[:2]
    out = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            top, bottom = y * rows // height, -(-(y + 1) * rows // height)
            left, right = x * columns // width, -(-(x + 1) * columns // width)
            out[y, x] = rgb[top:bottom, left:right].mean(axis=(0, 1))
    return out


@pytest.mark.parametrize(
    "size", [(98, 84), (97, 83), (61, 40), (48, 41), (23, 31), (12, 81), (9, 9), (4, 3), (1, 1)]
)
def test_area_means_are_exact(size: tuple[int, int]) -> None:
    """Crops, and fine and coarse levels (windows over 257 pixels take another code path)."""
    rgb = np.random.default_rng(0).integers(0, 256, (83, 97, 3), dtype=np.uint8)
    source = AreaSource(rgb)
    np.testing.assert_allclose(next(source.levels([size])), mean_by_hand(rgb, *size), atol=1e-3)
    corners = np.array([[0, 0, 97, 83], [10, 5, 40, 61], [3, 3, 3, 9]])
    whole, part, empty = source.crops(corners, 24)
    np.testing.assert_allclose(whole, mean_by_hand(rgb, 24, 24), atol=1e-3)
    np.testing.assert_allclose(part, mean_by_hand(rgb[5:61, 10:40], 24, 24), atol=1e-3)
    assert (empty == GREY).all()


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("box", [(-30, -20, 50, 60), (60, 50, 140, 130), (-40, -30, 160, 170)])
def test_a_crop_past_the_edge_is_that_of_the_picture_in_a_border(
    box: tuple[int, ...], reduction: int
) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    around = np.pad(rgb, ((100, 100), (100, 100), (0, 0)), constant_values=GREY)
    corners = np.array([box])
    for size_px in (12, 24, 48):
        expected = AreaSource(around, reduction).crops(corners + 100, size_px)
        actual = AreaSource(rgb, reduction).crops(corners, size_px)
        np.testing.assert_allclose(actual, expected, atol=1e-3)
    nowhere = AreaSource(rgb, reduction).crops(np.array([[130, 5, 170, 45]]), 24)
    assert (nowhere == GREY).all()


@pytest.mark.parametrize("size", [(600, 450), (300, 240), (150, 120), (601, 200), (437, 331)])
def test_whole_ratios_and_long_rows(size: tuple[int, int]) -> None:
    """Windows that end between two pixels, and levels read in several pieces."""
    rgb = np.random.default_rng(2).integers(0, 256, (480, 600, 3), dtype=np.uint8)
    level = next(AreaSource(rgb).levels([size]))
    for y in (0, 1, size[1] // 2, size[1] - 1):
        rows = rgb[y * 480 // size[1] : -(-(y + 1) * 480 // size[1])].mean(axis=0)
        for x in (0, 1, 2, size[0] // 2, size[0] - 2, size[0] - 1):
            right = -(-(x + 1) * 600 // size[0])
            expected = rows[x * 600 // size[0] : right].mean(axis=0)
            np.testing.assert_allclose(level[y, x], expected, atol=1e-3)


def test_blocks_of_pixels_change_little() -> None:
    smooth = np.asarray(
        Image.fromarray(
            np.random.default_rng(1).integers(100, 150, (12, 16, 3), dtype=np.uint8)
        ).resize((640, 480), Image.Resampling.BICUBIC)
    )
    plain, blocks = AreaSource(smooth), AreaSource(smooth, 3)
    assert blocks.size == plain.size
    np.testing.assert_allclose(
        next(blocks.levels([(90, 70)])), next(plain.levels([(90, 70)])), atol=4
    )
    corners = np.array([[10, 20, 300, 310], [10, 20, 60, 70], [5, 5, 5, 5]])
    fine, coarse = plain.crops(corners, 24), blocks.crops(corners, 24)
    np.testing.assert_allclose(coarse[0], fine[0], atol=4)
    np.testing.assert_array_equal(coarse[1:], fine[1:])  # small crops come from the photo itself


def test_pieces_give_the_windows_of_the_whole(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = load_photo(pictures / "astronaut.jpg")
    detector = MTCNN(threads=1)
    (whole,) = detector.detect(photo)
    for area in (1, 7_000, 10**9):
        monkeypatch.setattr("facewise.windows.PIECE_AREA_PX", area)
        (face,) = detector.detect(photo)
        np.testing.assert_allclose(face.bbox, whole.bbox, atol=1e-3)
        assert abs(face.detection_score - whole.detection_score) < 1e-5


def test_maps_looked_through_one_by_one_or_together(
    detector: MTCNN, faces: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = detector.detect_many(faces[:4])
    monkeypatch.setattr("facewise.cascade.MAPS_AT_ONCE", 0)
    for some, others in zip(together, detector.detect_many(faces[:4]), strict=True):
        assert len(some) == len(others)
        for a, b in zip(some, others, strict=True):
            np.testing.assert_array_equal(a.bbox, b.bbox)
            np.testing.assert_array_equal(a.landmarks, b.landmarks)
    assert any(together)


def test_a_second_look_only_where_the_first_finds_nothing(pictures: Path) -> None:
    image = np.asarray(load_photo(pictures / "astronaut.jpg").rgb)
    covered = image.copy()
    covered[92:132, 180:270] = 60  # the eyes
    once, twice = MTCNN(threads=1, second_look=False), MTCNN(threads=1)
    assert once.detect(Photo(covered)) == ()
    (face,) = twice.detect(Photo(covered))
    assert 0.3 < face.detection_score <= 0.7
    np.testing.assert_allclose((face.bbox[:2] + face.bbox[2:]) / 2, [225, 130], atol=20)
    # Next to a face that the first look finds, the covered one goes undetected.
    both = Photo(np.concatenate([image, covered], axis=1))
    assert len(twice.detect(both)) == len(once.detect(both)) == 1
    assert MTCNN(threads=1, thresholds=(0.6, 0.7, 0.7)).detect(Photo(covered)) == ()
    loose = MTCNN(threads=1, thresholds=(0.6, 0.7, 0.3), second_look=True)
    assert len(loose.detect(Photo(covered))) == 1


def test_crops_of_a_crowd_are_cut_a_batch_at_a_time() -> None:
    """All at once they would take more memory than the photo; none may be lost or reordered."""
    rng = np.random.default_rng(0)
    images = [AreaSource(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(3)]
    counts = (cascade.BATCH_SIZE - 3, 0, 2 * cascade.BATCH_SIZE + 5)
    boxes = []
    for count in counts:
        corner = rng.uniform(0, 40, (count, 2))
        far = corner + rng.uniform(5, 20, (count, 1))
        boxes.append(np.hstack([corner, far]).astype(np.float32))
    batches = [b.copy() for b in cascade._crop_batches(images, boxes, 12, fill_up=True)]
    assert [len(b) for b in batches] == [
        cascade.BATCH_SIZE,
        cascade.BATCH_SIZE,
        cascade.BATCH_SIZE,
        2,
    ]
    whole = [
        cascade.cut_squares(i, b, 12, fill_up=True) for i, b in zip(images, boxes, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(whole))
    none = [np.empty((0, 4), np.float32)]
    nothing = list(cascade._crop_batches(images[:1], none, 12, fill_up=True))
    assert [b.shape for b in nothing] == [(0, 12, 12, 3)]


def test_a_copy_keeps_what_is_not_given(detector: MTCNN) -> None:
    strict = detector.replace(thresholds=(0.6, 0.7, 0.9), max_faces=3)
    assert strict._networks is detector._networks
    assert (strict.thresholds, strict.max_faces) == ((0.6, 0.7, 0.9), 3)
    assert strict.second_thresholds is None, "thresholds were given"
    again = strict.replace(min_face_px=40, second_look=True)
    assert (again.thresholds, again.max_faces, again.min_face_px) == ((0.6, 0.7, 0.9), 3, 40)
    assert again.second_thresholds == (0.6, *again.spec_second_look)
    assert again.portraits == detector.portraits != []
    back = again.replace(thresholds=None, second_look=None, max_faces=None, min_face_px=None)
    assert back.thresholds == detector.thresholds
    assert back.second_thresholds == detector.second_thresholds
    assert (back.max_faces, back.min_face_px) == (None, None)
    assert detector.max_faces is None
    with pytest.raises(OptionError, match="thresholds must be three"):
        detector.replace(thresholds=(0.6, 0.7, 2.0))
    with pytest.raises(TypeError, match="cannot change threads: make a new one, with threads="):
        detector.replace(threads=1)  # type: ignore[call-arg]


def test_a_detectors_repr_shows_what_was_set(detector: MTCNN) -> None:
    assert repr(detector) == "<MTCNN>"
    assert (
        repr(detector.replace(max_faces=3, min_face_px=40)) == "<MTCNN min_face_px=40, max_faces=3>"
    )


LONG_AND_NARROW = """
import re
from pathlib import Path
import numpy as np
from facewise import MTCNN

def peak_mb():
    # Not ru_maxrss, which a process takes over from the one that started it.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3

detector = MTCNN(threads=1)
detector.detect(np.full((256, 256, 3), 127, np.uint8))
picture = np.full((40, 200_000, 3), 127, np.uint8)
before = peak_mb()
assert detector.detect(picture) == ()
print(peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own figures")
def test_a_long_and_narrow_picture_takes_memory_by_its_pixels() -> None:
    """Eight megapixels, a PNG of some 25 kB, once took 700 MB."""
    command = [sys.executable, "-c", LONG_AND_NARROW]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert 20 < float(run.stdout) < 350
