"""Results and errors: pickling, equality, JSON, and the values that they accept."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facewise import MTCNN, Analyzer, Face, Photo, load_photo
from facewise.errors import MissingExtraError, OptionError, needs_extra


def test_predictions_survive_pickling_and_copying(analyzer: Analyzer, pictures: Path) -> None:
    (prediction,) = analyzer.analyze(pictures / "astronaut.jpg")
    others: list[Any] = [pickle.loads(pickle.dumps(prediction)), copy.deepcopy(prediction)]
    for other in others:
        assert other.to_dict(vector=True, years=True) == prediction.to_dict(vector=True, years=True)
        assert other.face.quality == prediction.face.quality
        with pytest.raises(ValueError, match="read-only"):
            other.vector[0] = 0
        with pytest.raises(TypeError):
            other.abstained["age"] = "changed"


def test_the_corners_of_a_face_cut_it_out_of_an_array() -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    points = np.arange(10).reshape(5, 2)
    for box, size in (
        ((10.4, 20.6, 50, 60), (39, 40)),
        ((-25, 10, 49, 90), (80, 49)),
        ((150, -5, 260, 140), (100, 50)),
        ((250, 150, 290, 190), (1, 1)),
    ):
        corners = Face(box, points).corners(200, 100)
        left, top, right, bottom = corners
        assert all(type(corner) is int for corner in corners)
        assert rgb[top:bottom, left:right].shape[:2] == size


def test_reprs_are_short(analyzer: Analyzer) -> None:
    name = f"{analyzer.spec.name}@{analyzer.spec.version}"
    assert repr(analyzer.spec) == f"<ModelSpec {name}, {analyzer.spec.size_px} px>"
    assert repr(analyzer.spec.info) == f"<ModelInfo {name}>"


def test_reasons_are_a_dict_that_refuses_to_change(analyzer: Analyzer, pictures: Path) -> None:
    made = analyzer.analyze(pictures / "astronaut.jpg")[0]
    prediction = dataclasses.replace(made, abstained={"age": "blurred"})
    fields = dataclasses.asdict(prediction)
    assert fields["abstained"] == {"age": "blurred"}
    assert np.array_equal(fields["face"]["bbox"], prediction.face.bbox)
    assert json.loads(json.dumps(prediction.abstained)) == {"age": "blurred"}
    reasons: Any = prediction.abstained
    for change in (
        lambda: reasons.update(age="sharp"),
        lambda: reasons.pop("age"),
        lambda: reasons.setdefault("gender", "blurred"),
        lambda: reasons.__ior__({"gender": "blurred"}),
        lambda: reasons.__delitem__("age"),
        reasons.popitem,
        reasons.clear,
    ):
        with pytest.raises(TypeError, match=r"dict\(prediction\.abstained\)"):
            change()
    assert reasons == {"age": "blurred"}
    assert reasons | {"gender": "dark"} == {"age": "blurred", "gender": "dark"}


def test_copies_are_read_only_all_the_way_down(analyzer: Analyzer, pictures: Path) -> None:
    photo = load_photo(pictures / "astronaut.jpg")
    (prediction,) = analyzer.analyze(photo)
    values: list[Any] = [photo, prediction]
    for value in values:
        for other in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            arrays = (
                [other.rgb]
                if value is photo
                else [other.face.bbox, other.face.landmarks, other.age.probabilities]
            )
            for array in arrays:
                with pytest.raises(ValueError, match="read-only"):
                    array[0] = 0
    assert copy.deepcopy(photo).source == photo.source


def test_analyzers_and_detectors_open_their_networks_where_they_arrive(
    analyzer: Analyzer, pictures: Path
) -> None:
    data = pickle.dumps((analyzer.replace(coverage=0.8), MTCNN(threads=1, max_faces=1)))
    assert len(data) < 1_000_000, "weights are read there, not sent"
    other, detector = pickle.loads(data)
    (a,), (b,) = (each.analyze(pictures / "astronaut.jpg") for each in (analyzer, other))
    assert (a.age_years, b.coverage) == (b.age_years, 0.8)
    assert len(detector.detect(pictures / "astronaut.jpg")) == 1


def test_errors_cross_processes() -> None:
    error = MissingExtraError("the server", "server")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_only_what_an_extra_brings_is_called_missing() -> None:
    with pytest.raises(MissingExtraError, match=r"facewise\[y\]"), needs_extra("x", "y"):
        import_module("no_such_package")
    with pytest.raises(ModuleNotFoundError, match="No module named"), needs_extra("x", "y"):
        import_module("facewise.no_such_module")


def test_a_face_may_be_made_of_lists() -> None:
    points = [[30, 40], [60, 40], [45, 55], [34, 70], [56, 70]]
    box = [20, 20, 70, 80]
    face = Face(box, points, 1.0)
    assert {face.bbox.dtype, face.landmarks.dtype} == {np.dtype(np.float32)}
    assert face.landmarks.tolist() == points
    with pytest.raises(ValueError, match="read-only"):
        face.landmarks[0] = 0
    with pytest.raises(ValueError, match=r"bbox \(4,\) and landmarks \(5, 2\), not \(3,\)"):
        Face(box[:3], points, 1.0)
    assert Face(box, points).detection_score == 1


class Tensor:
    """Like torch's: ``__array__`` without the ``copy`` argument that NumPy 2 expects."""

    def __init__(self, values: list[Any]) -> None:
        self.values = np.array(values, np.float32)

    def __array__(self, dtype: Any = None) -> np.ndarray[Any, Any]:
        return self.values if dtype is None else self.values.astype(dtype, copy=False)


@pytest.mark.filterwarnings("error")
def test_a_face_may_be_made_of_tensors() -> None:
    box, points = Tensor([20, 20, 70, 80]), Tensor(np.arange(10).reshape(5, 2).tolist())
    face = Face(box, points)
    box.values[0] = points.values[0] = 99
    assert (face.bbox[0], face.landmarks[0, 0]) == (20, 0)


def test_a_box_without_landmarks_is_told_what_to_do() -> None:
    nothing: Any = None
    with pytest.raises(OptionError, match=r"only boxes, MTCNN\(\)\.find_landmarks"):
        Face([20, 20, 70, 80], nothing)


def test_a_face_holds_plain_numbers_of_its_own() -> None:
    """Most detectors return NumPy numbers, which JSON rejects, and reuse their arrays."""
    box, points = np.array([20, 20, 70, 80], np.float32), np.arange(10, dtype=np.float32)
    face = Face(box, points.reshape(5, 2), np.float32(0.75))
    same = Face(box, points.reshape(5, 2), 0.75)
    assert type(face.detection_score) is float
    assert (face, hash(face)) == (same, hash(same))
    box[0], points[:] = 99, 0
    assert face == same
    assert face.bbox[0] == 20
    assert face.landmarks[4, 1] == 9


@pytest.mark.parametrize("points", [[[1, 2], [3]], "eyes", [[1, 2]] * 4])
def test_landmarks_of_another_shape_are_told_the_one_they_need(points: Any) -> None:
    with pytest.raises(OptionError, match=r"landmarks \(5, 2\)"):
        Face([0, 0, 1, 1], points)


@pytest.mark.parametrize("score", [-0.1, 1.1, 99, float("nan"), None, "high"])
def test_a_face_has_a_score_of_a_share(score: Any) -> None:
    points = np.arange(10.0).reshape(5, 2)
    with pytest.raises(OptionError, match="detection_score of 0 to 1"):
        Face([0, 0, 1, 1], points, score)
    with pytest.raises(OptionError, match="finite"):
        Face([0, 0, 1, np.nan], points)


@pytest.mark.parametrize("box", [[181, 62, 80, 110], [181, 62, 280, 20], [5, 5, 5, 9]])
def test_a_box_of_width_and_height_is_refused(box: list[int]) -> None:
    with pytest.raises(OptionError, match=r"left, top, right, bottom.*x \+ width, y \+ height"):
        Face(box, np.arange(10.0).reshape(5, 2))


def test_values_are_equal_where_their_fields_are(analyzer: Analyzer, pictures: Path) -> None:
    (prediction,) = analyzer.replace(attributes=["gender"]).analyze(pictures / "astronaut.jpg")
    assert np.isnan(prediction.vector).any(), "what is off is equal to what is off"
    copied = pickle.loads(pickle.dumps(prediction))
    assert copied == prediction
    assert len({copied, prediction, copied.face, prediction.face}) == 2
    assert copied.gender == prediction.gender != copied.face
    moved = dataclasses.replace(prediction.face, bbox=prediction.face.bbox + 1)
    assert dataclasses.replace(prediction, face=moved) != prediction
    assert dataclasses.replace(prediction, abstained={"gender": "no"}) != prediction
    photo = load_photo(pictures / "astronaut.jpg")
    assert Photo(photo.rgb.copy(), photo.source) == photo != Photo(photo.rgb[1:], photo.source)


def test_a_probability_by_its_label(analyzer: Analyzer, pictures: Path) -> None:
    (prediction,) = analyzer.analyze(pictures / "astronaut.jpg")
    gender = prediction.gender
    assert gender is not None
    assert gender["female"] == gender.top_probability
    assert gender["female"] + gender["male"] == pytest.approx(1)
    with pytest.raises(KeyError, match="no label 'woman': there are male, female"):
        gender["woman"]
    assert dict(gender) == {"male": gender["male"], "female": gender["female"]}
    assert ("female" in gender, "woman" in gender) == (True, False)
    assert (list(gender), len(gender)) == (["male", "female"], 2)
    assert isinstance(gender, Mapping)
    assert list(gender.keys()) == list(gender.labels)
    assert list(gender.values()) == gender.probabilities.tolist()
    assert max(gender.items(), key=lambda item: item[1]) == ("female", gender.top_probability)
    assert (gender.get("woman"), gender.get("woman", 0.0)) == (None, 0)
    assert gender != dict(gender), "a dict has no label set"
    age = prediction.age
    assert age is not None
    assert age[30] == age["30"] > 0
    with pytest.raises(KeyError, match=r"no label 130: there are 1, 2, 3, \.\.\., 120"):
        age[130]


def test_a_face_is_json_as_in_its_prediction(analyzer: Analyzer, pictures: Path) -> None:
    (prediction,) = analyzer.analyze(pictures / "astronaut.jpg")
    face, whole = prediction.face, prediction.to_dict()
    assert face.quality is not None
    said = json.loads(json.dumps(face.to_dict()))
    assert list(said) == ["bbox", "landmarks", "detection_score", "quality"]
    assert said == {name: whole[name] for name in said}
    assert face.quality.to_dict() == said["quality"]
    assert face.quality.sharpness == pytest.approx(said["quality"]["sharpness"], abs=6e-4)
    (found,) = MTCNN(threads=1).detect(pictures / "astronaut.jpg")
    assert found.to_dict() == {name: said[name] for name in said if name != "quality"}


def test_a_photo_of_something_else_says_what_it_must_be() -> None:
    for rgb in ([[1]], np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), None):
        wrong: Any = rgb
        with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), not"):
            Photo(wrong)
