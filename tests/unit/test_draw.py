"""What ``--draw`` puts on a picture: boxes inside it, labels whole and apart from each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageDraw, ImageFont

from facewise import Analyzer, Distribution, Face, Photo, Prediction, load_photo
from facewise.draw import (
    PALETTE,
    SMALLEST_TYPE_PX,
    Label,
    clip_box,
    describe,
    draw_predictions,
    place_labels,
)
from facewise.labels import AGE_LABELS, DECADE_LABELS, ETHNICITY_LABELS, GENDER_LABELS
from facewise.types import Corners, ModelInfo


def distribution(labels: tuple[str, ...]) -> Distribution:
    p = np.zeros(len(labels), np.float32)
    p[-1] = 1
    return Distribution(labels, p, (labels[-1],))


def prediction(*bbox: float, abstained: dict[str, str] | None = None) -> Prediction:
    """A prediction with the longest possible label."""
    return Prediction(
        face=Face(np.array(bbox, np.float32), np.zeros((5, 2), np.float32), 1.0),
        age_years=100.0,
        age_interval_years=(100, 120),
        coverage=0.9,
        age=distribution(AGE_LABELS),
        age_decades=distribution(DECADE_LABELS),
        gender=distribution(GENDER_LABELS),
        ethnicity=distribution(ETHNICITY_LABELS),
        vector=np.zeros(19, np.float32),
        model=ModelInfo("test", "1", ""),
        abstained=abstained or {},
    )


def white(width: int, height: int) -> Photo:
    return Photo(np.full((height, width, 3), 255, np.uint8))


def colored(picture: Image.Image, color: str) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    rgb = np.array(Image.new("RGB", (1, 1), color))[0, 0]
    same: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = (np.asarray(picture) == rgb).all(-1)
    return same


def layout(size: tuple[int, int], faces: Sequence[Face | Prediction]) -> list[Label | None]:
    canvas = ImageDraw.Draw(Image.new("RGB", size))
    return place_labels(
        canvas, ImageFont.load_default(size=max(SMALLEST_TYPE_PX, min(size) / 32)), size, faces
    )


def overlap(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize(("age_years", "shown"), [(31.4972, 32), (31.494, 31), (30.5, 31)])
def test_ages_are_rounded_from_what_the_json_states(age_years: float, shown: int) -> None:
    """Which is all that the page knows of them."""
    face = dataclasses.replace(prediction(0, 0, 9, 9), age_years=age_years)
    assert describe(face).startswith(f"{shown} (")


def test_description() -> None:
    face = prediction(0, 0, 9, 9, abstained={"age": "blurred", "ethnicity": "dark"})
    assert describe(face) == "100? (100-120), female, Others?"


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [
        ((10.4, 20.6, 50, 60), (10, 21, 50, 60)),
        ((-30, -40, 300, 250), (0, 0, 200, 100)),
        ((190, 90, 260, 190), (190, 90, 200, 100)),
        ((-50, -50, -10, -10), (0, 0, 1, 1)),
        ((250, 150, 290, 190), (199, 99, 200, 100)),
        ((60, 40, 60.3, 40.3), (60, 40, 61, 41)),
    ],
)
def test_boxes_are_cut_off_at_the_edge(bbox: tuple[float, ...], clipped: Corners) -> None:
    assert clip_box(prediction(*bbox), (200, 100)) == clipped


def test_a_box_past_every_edge_is_still_seen() -> None:
    drawn = colored(draw_predictions(white(400, 300), [prediction(-90, -90, 900, 900)]), PALETTE[0])
    assert drawn[:, 0].all()
    assert drawn[:, -1].all()
    assert drawn[-1].all()
    assert drawn[0].all()


CROWD = [prediction(x, y, x + 90, y + 110) for y in range(20, 600, 150) for x in range(0, 800, 100)]


@pytest.mark.parametrize(
    ("size", "faces"),
    [
        ((800, 600), CROWD),
        ((400, 300), [prediction(380, 5, 399, 30), prediction(0, 280, 20, 299)]),
        ((400, 300), [prediction(100, 100, 200, 220)] * 12),
        ((90, 400), [prediction(10, 10, 60, 70), prediction(20, 200, 70, 260)]),
        ((60, 60), [prediction(0, 0, 60, 60)]),
        ((16, 16), [prediction(0, 0, 16, 16)]),
        ((4000, 16), [prediction(3990, 2, 3999, 14)]),
    ],
)
def test_labels_stay_inside_and_apart(size: tuple[int, int], faces: list[Prediction]) -> None:
    labels = layout(size, faces)
    assert len(labels) == len(faces)
    placed = [label for label in labels if label is not None]
    assert placed
    for label in placed:
        left, top, right, bottom = label.plate
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
    for a, b in itertools.combinations(placed, 2):
        assert not overlap(a.plate, b.plate)
    assert draw_predictions(white(*size), faces).size == size


def test_a_label_too_wide_for_the_picture_is_broken_not_cut() -> None:
    (wide,) = layout((400, 300), [prediction(380, 100, 399, 130)])
    assert wide is not None
    assert wide.text == "1: 100 (100-120), female, Others"
    (narrow,) = layout((110, 300), [prediction(10, 100, 60, 160)])
    assert narrow is not None
    assert narrow.text.replace("\n", " ") == wide.text
    (tiny,) = layout((30, 30), [prediction(0, 0, 30, 30)])
    assert tiny is not None
    assert tiny.text == "1"


@pytest.mark.parametrize(("width", "height"), [(400, 300), (110, 300), (1600, 1200)])
def test_the_text_lies_on_its_plate(width: int, height: int) -> None:
    """White letters stay inside the plate on all sides, so that nothing is cut off."""
    face = prediction(width - 40, height // 2, width - 10, height // 2 + 40)
    (label,) = layout((width, height), [face])
    assert label is not None
    left, top, right, bottom = label.plate
    picture = draw_predictions(Photo(np.zeros((height, width, 3), np.uint8)), [face])
    plate = np.asarray(picture)[top:bottom, left:right]
    rim = np.concatenate([plate[0], plate[-1], plate[:, 0], plate[:, -1]])
    assert (rim == np.array(ImageColor.getrgb(PALETTE[0]))).all()
    assert (plate[..., 0] > 150).sum() > 100


def test_a_label_prefers_a_place_off_the_faces() -> None:
    """The second has no room above or below, so it covers its own face, not the other."""
    faces = [prediction(100, 200, 300, 420), prediction(100, 0, 300, 190)]
    labels = layout((800, 600), faces)
    for label, hidden in zip(labels, ([], faces[1:]), strict=True):
        assert label is not None
        assert "\n" not in label.text
        assert [f for f in faces if overlap(label.plate, clip_box(f, (800, 600)))] == hidden


@pytest.mark.parametrize(
    ("size", "side", "apart"), [((1920, 1080), 95, (205, 150)), ((1000, 700), 48, (60, 80))]
)
def test_labels_of_a_group_hide_nobody_and_lie_at_their_boxes(
    size: tuple[int, int], side: int, apart: tuple[int, int]
) -> None:
    """The areas that labels cover of a face add up; one type size per photo hid whole faces."""
    faces = [
        prediction(x + y % 2 * 60, y, x + y % 2 * 60 + side, y + 1.2 * side)
        for y in range(101, size[1] - 200, apart[1])
        for x in range(10, size[0] - 160, apart[0])
    ]
    labels = layout(size, faces)
    hidden = np.zeros(len(faces))
    for face, label in zip(faces, labels, strict=True):
        assert label is not None
        left, top, right, bottom = label.plate
        own = clip_box(face, size)
        assert left <= own[2]
        assert own[0] <= right
        assert top <= own[3]
        assert own[1] <= bottom
        for index, other in enumerate(faces):
            x0, y0, x1, y1 = clip_box(other, size)
            wide, high = min(right, x1) - max(left, x0), min(bottom, y1) - max(top, y0)
            hidden[index] += max(wide, 0) * max(high, 0) / ((x1 - x0) * (y1 - y0))
    assert hidden.max() <= 0.3
    sizes = {getattr(label.font, "size", 0) for label in labels if label is not None}
    assert min(sizes) >= SMALLEST_TYPE_PX
    assert len(sizes) > 1, "smaller type was never tried"
    alone = [label for label in labels if label is not None and label.text.isdigit()]
    assert bool(alone) == (side < 60), "the number alone is for where nothing else fits"


def test_drawing_changes_nothing_but_boxes_and_labels(analyzer: Analyzer) -> None:
    photo = load_photo(np.full((300, 400, 3), 90, np.uint8))
    assert (np.asarray(draw_predictions(photo, analyzer.analyze(photo))) == photo.rgb).all()
    before = photo.rgb.copy()
    picture = draw_predictions(photo, [prediction(150, 100, 250, 200)])
    changed = (np.asarray(picture) != before).any(-1)
    assert (photo.rgb == before).all()
    assert changed[100, 150:250].all()
    assert not changed[105:195, 155:245].any()
    assert not changed[210:].any()


def test_whatever_is_a_picture_is_drawn_on(pictures: Path) -> None:
    path, faces = pictures / "astronaut.jpg", [prediction(178, 62, 272, 176)]
    photo = load_photo(path)
    drawn = np.asarray(draw_predictions(photo, faces))
    bgr = np.ascontiguousarray(photo.rgb[..., ::-1])
    for other in (draw_predictions(path, faces), draw_predictions(bgr, faces, color_order="bgr")):
        assert (np.asarray(other) == drawn).all()


def test_faces_may_come_from_a_generator() -> None:
    faces = [prediction(30, 30, 90, 90), prediction(120, 120, 190, 190)]
    from_list = draw_predictions(white(240, 240), faces)
    from_generator = draw_predictions(white(240, 240), (face for face in faces))
    assert (np.asarray(from_generator) == np.asarray(from_list)).all()


def test_a_face_is_drawn_with_its_number() -> None:
    person = prediction(30, 30, 90, 90)
    assert describe(person.face) == ""
    (label,) = layout((120, 120), [person.face])
    assert label is not None
    assert label.text == "1"
    drawn = colored(draw_predictions(white(120, 120), [person.face]), PALETTE[0])
    assert drawn[30, 60]
    assert drawn[89, 60]


def test_values_print_as_one_line_each() -> None:
    person = prediction(1.4, 2, 30.6, 40, abstained={"age": "blurred", "ethnicity": "dark"})
    assert (
        repr(person) == "<Prediction 100? (100-120), female 100%, Others 100%?, box 1,2 to 31,40>"
    )
    assert repr((person.face,)) == "(<Face box 1,2 to 31,40, detection_score 1.00>,)"
    assert repr(person.gender) == "<Distribution female 100%, male 0%>"
    assert repr(person.age) == "<Distribution 120 100%, 1 0%, 2 0%, ... of 120>"
    assert repr(white(40, 30)) == "<Photo 40 x 30>"
    assert repr(Photo(white(40, 30).rgb, "a.jpg")) == "<Photo 40 x 30, a.jpg>"


def test_a_notebooks_table_marks_what_it_cannot_tell() -> None:
    page = prediction(0, 0, 9, 9, abstained={"age": "blurred", "ethnicity": "dark"})._repr_html_()
    for row in (
        "<th>apparent age</th><td>100? (100-120)</td>",
        "<th>apparent gender</th><td>female 100%</td>",
        "<th>apparent ethnicity</th><td>Others 100%?</td>",
        "<th>can't tell ethnicity</th><td>dark</td>",
    ):
        assert row in page
