"""The pipeline on real pictures with the weights that ship."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import typing
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import facewise
from facewise import Analyzer, Face, Prediction, crop_faces
from facewise.analyzer import Timings
from facewise.attributes import BATCH_SIZE
from facewise.errors import (
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ModelNotFoundError,
    NotAnImageError,
    OptionError,
)
from facewise.mtcnn import PHOTOS_AT_ONCE


def assert_same(a: Prediction, b: Prediction, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(a.face.bbox, b.face.bbox, atol=0.05)
    np.testing.assert_allclose(a.vector, b.vector, atol=atol)
    assert a.age_interval_years == b.age_interval_years
    assert a.abstained == b.abstained


def montage(pictures: Path, count: int) -> Image.Image:
    """Fixture faces side by side with grey between."""
    tiles = [Image.open(path) for path in sorted((pictures / "faces").glob("*.webp"))[:count]]
    sheet = Image.new("RGB", (260 * count, 300), (127, 127, 127))
    for index, tile in enumerate(tiles):
        sheet.paste(tile.convert("RGB"), (260 * index + 34, 54))
    return sheet


def test_the_astronaut(analyzer: Analyzer, pictures: Path) -> None:
    """A portrait of a woman who looks between 20 and 45."""
    (person,) = analyzer.analyze(pictures / "astronaut.jpg")
    assert person.age_years is not None
    assert person.age_interval_years is not None
    assert person.gender is not None
    assert person.age_interval_years[0] <= 35 <= person.age_interval_years[1] + 5
    assert 20 < person.age_years < 45
    assert person.gender.top == "female"
    np.testing.assert_allclose(person.face.bbox, [178, 62, 272, 176], atol=12)


def test_predictions_keep_the_contract(analyzer: Analyzer, pictures: Path) -> None:
    people = analyzer.analyze(montage(pictures, 6))
    assert len(people) >= 4
    areas = [float(np.prod(p.face.bbox[2:] - p.face.bbox[:2])) for p in people]
    assert areas == sorted(areas, reverse=True)
    for p in people:
        assert p.vector.shape == (19,)
        assert p.vector.dtype == np.float32
        for part in (p.vector[:12], p.vector[12:14], p.vector[14:]):
            assert abs(float(part.sum()) - 1) < 1e-5
        assert p.age is not None
        assert p.age_decades is not None
        assert p.gender is not None
        assert p.ethnicity is not None
        assert p.age_years is not None
        assert p.age_interval_years is not None
        expected = float(p.age.probabilities.astype(np.float64) @ np.arange(1, 121))
        assert abs(p.age_years - expected) < 1e-3
        assert p.age_interval_years[0] <= round(p.age_years) <= p.age_interval_years[1]
        assert p.gender.top in p.gender.label_set
        assert p.ethnicity.top in p.ethnicity.label_set
        assert p.face.quality is not None
        assert p.model.sha256 == analyzer.spec.sha256
        with pytest.raises(ValueError, match="read-only"):
            p.vector[0] = 1


def test_a_batch_equals_its_singles(analyzer: Analyzer, pictures: Path) -> None:
    paths = [pictures / "astronaut.jpg", *sorted((pictures / "faces").glob("*.webp"))[:5]]
    together = analyzer.analyze_many(paths)
    for path, batched in zip(paths, together, strict=True):
        alone = analyzer.analyze(path)
        assert len(alone) == len(batched)
        for a, b in zip(alone, batched, strict=True):
            assert_same(a, b)


def test_a_mirrored_photo_gives_a_mirrored_box(analyzer: Analyzer, pictures: Path) -> None:
    image = Image.open(pictures / "astronaut.jpg")
    (plain,) = analyzer.analyze(image)
    (mirrored,) = analyzer.analyze(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    left, top, right, bottom = plain.face.bbox
    expected = [image.width - right, top, image.width - left, bottom]
    np.testing.assert_allclose(mirrored.face.bbox, expected, atol=8)
    # Landmarks are in the viewer's order, so left and right swap names in the mirror image.
    assert mirrored.face.landmarks[0, 0] < mirrored.face.landmarks[1, 0]


def test_color_order_matters_and_is_honoured(analyzer: Analyzer, pictures: Path) -> None:
    rgb = np.array(Image.open(pictures / "astronaut.jpg"))
    (a,) = analyzer.analyze(rgb)
    (b,) = analyzer.analyze(np.ascontiguousarray(rgb[..., ::-1]), color_order="bgr")
    assert_same(a, b)
    (wrong,) = analyzer.analyze(np.ascontiguousarray(rgb[..., ::-1]))
    assert np.abs(wrong.vector - a.vector).max() > 1e-3


def test_what_is_off_is_nowhere(pictures: Path) -> None:
    (p,) = Analyzer(attributes=["gender", "age"], threads=1).analyze(pictures / "astronaut.jpg")
    assert p.ethnicity is None
    assert np.isnan(p.vector[14:]).all()
    assert not np.isnan(p.vector[:14]).any()
    assert "ethnicity" not in p.to_dict()
    assert "ethnicity" not in p._repr_html_()
    assert p.to_dict(vector=True)["vector"][14:] == [None] * 5
    (p,) = Analyzer(attributes=["ethnicity"], threads=1).analyze(pictures / "astronaut.jpg")
    assert (p.age, p.age_years, p.age_interval_years, p.gender) == (None, None, None, None)


def test_what_is_off_is_not_read(pictures: Path) -> None:
    """A broken calibration of an attribute that is off does not affect the others."""
    broken: Any = "not a number"
    for off in ("age", "gender", "ethnicity"):
        rest = {"age", "gender", "ethnicity"} - {off}
        own = Analyzer(attributes=rest, threads=1)
        temperatures = {**own.calibration.temperatures, off: broken}
        own.calibration = dataclasses.replace(own.calibration, temperatures=temperatures)
        (person,) = own.analyze(pictures / "astronaut.jpg")
        assert getattr(person, off) is None
        with pytest.raises(ValueError, match=broken):
            own.replace(attributes=[off]).analyze(pictures / "astronaut.jpg")


def test_no_face_is_an_answer(analyzer: Analyzer) -> None:
    y, x = np.mgrid[:400, :600]
    landscape = np.stack([np.where(y < 200, 150, 60), 160 + x // 20, 255 - y // 3], -1)
    assert analyzer.analyze(landscape.astype(np.uint8)) == ()
    assert analyzer.analyze_many([]) == []


def test_a_face_upside_down_does_no_harm(analyzer: Analyzer, pictures: Path) -> None:
    image = Image.open(pictures / "astronaut.jpg").rotate(180)
    (prediction,) = analyzer.analyze(image)
    assert np.isfinite(prediction.vector).all()


def test_crops(analyzer: Analyzer, pictures: Path) -> None:
    faces = [Image.open(path) for path in sorted((pictures / "faces").glob("*.webp"))[:3]]
    predictions = analyzer.analyze_crops(faces)
    assert len(predictions) == 3
    np.testing.assert_array_equal(predictions[0].face.bbox, [0, 0, 192, 192])
    assert analyzer.analyze_crops([]) == []
    # From 27 pixels on, as the manual says, a crop is not too small.
    small = [faces[0].resize((side, side)) for side in (26, 27)]
    reasons = [person.abstained.get("gender", "") for person in analyzer.analyze_crops(small)]
    assert [reason.startswith("the face is too small") for reason in reasons] == [True, False]


def test_an_analyzer_says_what_it_answers() -> None:
    shown = repr(facewise.Analyzer("facewise-small", attributes=["gender", "age"], coverage=0.8))
    assert re.fullmatch(r"<Analyzer facewise-small@[\d.]+, age, gender, coverage 0\.8>", shown)


def test_threads_share_one_analyzer(analyzer: Analyzer, pictures: Path) -> None:
    alone = analyzer.analyze(pictures / "astronaut.jpg")[0]
    with ThreadPoolExecutor(4) as pool:
        for (p,) in pool.map(analyzer.analyze, [pictures / "astronaut.jpg"] * 12):
            assert_same(alone, p)


def test_timings_name_every_stage(analyzer: Analyzer, pictures: Path) -> None:
    timings = Timings()
    analyzer.analyze(pictures / "astronaut.jpg", timings=timings)
    assert list(timings) == ["decode", "detect", "align", "attributes", "calibrate"]
    assert all(value > 0 for value in timings.values())


def test_a_stage_within_another_counts_in_both() -> None:
    timings = Timings()
    with timings("outer"), timings("inner"):
        pass
    assert list(timings) == ["inner", "outer"]
    assert timings["outer"] >= timings["inner"] > 0


def test_the_module_level_call(pictures: Path) -> None:
    (a,) = facewise.analyze(pictures / "astronaut.jpg", threads=1, attributes=["age"])
    assert a.gender is None
    with pytest.raises(NotAnImageError):
        facewise.analyze(b"no picture", threads=1, attributes=["age"])


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"attributes": ["mood"]}, OptionError, "age, gender, ethnicity"),
        ({"attributes": []}, OptionError, "age, gender, ethnicity"),
        ({"attributes": "age"}, OptionError, "list of names, not 'age'"),
        ({"attributes": None}, OptionError, "list of names"),
        ({"coverage": 0.5}, OptionError, "0.9"),
        ({"coverage": "0.9"}, OptionError, "not '0.9'"),
        ({"coverage": None}, OptionError, "coverage must be one of"),
        ({"model": None}, OptionError, "model must be a name"),
        ({"min_face_px": "40"}, OptionError, "min_face_px must be"),
        ({"providers": "CPUExecutionProvider"}, OptionError, "list of names"),
        ({"providers": [3]}, OptionError, "providers must be names"),
        ({"providers": []}, OptionError, "at least one"),
        ({"model": "nobody"}, ModelNotFoundError, "facewise-default"),
        ({"model": "facewise-default@0"}, ModelNotFoundError, "installed: "),
        ({"threads": 0}, OptionError, "threads"),
        ({"providers": ["FancyProvider"]}, OptionError, "FancyProvider; it has [^;]*$"),
        (
            {"providers": ["cuda"]},
            OptionError,
            "write CUDAExecutionProvider; .*onnxruntime-gpu: in",
        ),
        (
            {"providers": ["CUDAExecutionProvider"]},
            OptionError,
            "with onnxruntime-gpu: install it in",
        ),
        ({"min_face_px": 5}, OptionError, "12"),
        ({"max_faces": 0}, OptionError, "max_faces"),
        ({"max_faces": 1.5}, OptionError, "max_faces must be a whole number"),
        ({"max_faces": "3"}, OptionError, "max_faces must be a whole number"),
        ({"threads": 1.5}, OptionError, "threads must be a whole number"),
        ({"max_pixels": float("nan")}, OptionError, "max_pixels must be a whole number"),
        ({"max_pixels": float("inf")}, OptionError, "max_pixels must be a whole number"),
        ({"max_bytes": -1}, OptionError, "max_bytes must be a whole number"),
        ({"min_side_px": float("nan")}, OptionError, "min_side_px must be a whole number"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        Analyzer(**options)  # type: ignore[arg-type]


def test_import_is_light() -> None:
    """Nothing heavy loads, prints or exits on import."""
    code = (
        "import sys, facewise; "
        "print([m for m in ('cv2', 'onnxruntime', 'PIL.Image', 'torch', 'rich', 'typer') "
        "if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


def test_the_first_answer_loads_nothing_that_it_does_not_need(pictures: Path) -> None:
    """Importing numpy.ma takes a fortieth of the time from process start to the first answer."""
    code = (
        "import sys, numpy; before = set(sys.modules); import facewise; "
        f"facewise.analyze({str(pictures / 'astronaut.jpg')!r}, threads=1); "
        "print([m for m in ('numpy.ma', 'numpy.testing', 'torch', 'scipy', 'rich', 'typer') "
        "if m in sys.modules and m not in before])"  # NumPy 1 loads numpy.ma itself
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"


def test_a_pickled_analyzer_is_as_large_as_the_manual_says() -> None:
    manual = (Path(__file__).parents[2] / "docs/library.md").read_text()
    said = re.search(r"can be pickled: they are some (\d+) and (\d+) kB", manual)
    assert said is not None
    analyzer = facewise.Analyzer(threads=1)
    for thing, size_kb in zip((analyzer, analyzer.detector), map(int, said.groups()), strict=True):
        assert len(pickle.dumps(thing)) / 1000 == pytest.approx(size_kb, rel=0.1)


def test_the_public_surface_is_what_is_listed() -> None:
    assert facewise.__all__ == sorted(facewise.__all__, key=lambda n: (not n.isupper(), n))
    for name in facewise.__all__:
        assert getattr(facewise, name) is not None


def test_annotations_of_the_public_surface_mean_something() -> None:
    for name in facewise.__all__:
        thing = getattr(facewise, name)
        members = [getattr(thing, m) for m in vars(thing)] if isinstance(thing, type) else [thing]
        for member in members:
            if inspect.isfunction(member):
                typing.get_type_hints(member)


def test_networks_are_opened_once_whatever_the_options(pictures: Path) -> None:
    kept = facewise.analyzer._kept
    kept.cache_clear()
    photo = facewise.load_photo(pictures / "astronaut.jpg")
    for size in range(20, 32):
        facewise.analyze(photo, threads=1, min_face_px=size, attributes=["age"])
    assert kept.cache_info().currsize == 1
    (person,) = facewise.analyze(photo, threads=1, coverage=0.8)
    assert person.coverage == 0.8
    assert person.gender is not None
    cpu = ("CPUExecutionProvider", {"use_arena": False})
    (same,) = facewise.analyze(photo, threads=1, providers=[cpu])
    assert_same(person, dataclasses.replace(same, age_interval_years=person.age_interval_years))
    assert kept.cache_info().maxsize is not None


def test_a_spec_that_was_written_anew_is_read_again(pictures: Path, tmp_path: Path) -> None:
    """As after calibrating a model again in the same notebook."""
    spec = facewise.Analyzer(threads=1).spec
    path = tmp_path / spec.path.name
    shutil.copy(spec.weights_path, tmp_path)
    shutil.copy(spec.path, path)
    photo = facewise.load_photo(pictures / "astronaut.jpg")
    (before,) = facewise.analyze(photo, threads=1, model=path)
    kept = facewise.analyzer._kept.cache_info().misses
    facewise.analyze(photo, threads=1, model=str(path))
    assert facewise.analyzer._kept.cache_info().misses == kept

    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["calibration"]["temperatures"]["gender"] = 5.0
    path.write_text(json.dumps(stored), encoding="utf-8")
    (after,) = facewise.analyze(photo, threads=1, model=path)
    assert before.gender is not None
    assert after.gender is not None
    assert after.gender["female"] < before.gender["female"] - 0.1


def test_bad_options_are_told_before_networks_are_opened(pictures: Path) -> None:
    kept = facewise.analyzer._kept
    kept.cache_clear()
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"actions": ["age"]}, TypeError, r"no option 'actions'; it has attributes, color_order"),
        ({"model": ["default"]}, OptionError, "model must be a name"),
        ({"model": None}, OptionError, "model must be a name"),
        ({"threads": [1]}, OptionError, "threads must be a whole number"),
    ]
    for options, error, advice in wrong:
        with pytest.raises(error, match=advice):
            facewise.analyze(pictures / "astronaut.jpg", **options)
    assert kept.cache_info().misses == 0


def test_a_copy_shares_networks_and_leaves_the_original_alone(analyzer: Analyzer) -> None:
    other = analyzer.replace(attributes=["age"], min_face_px=40, max_faces=2, max_pixels=1000)
    assert other.attribute_model is analyzer.attribute_model
    assert other.detector._networks is analyzer.detector._networks
    assert (other.detector.min_face_px, analyzer.detector.min_face_px) == (40, None)
    assert analyzer.attributes == ("age", "gender", "ethnicity")
    with pytest.raises(ImageTooLargeError):
        other.load(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(OptionError):
        analyzer.replace(max_faces=0)


def test_coverage_of_another_type_is_the_fitted_level(analyzer: Analyzer, pictures: Path) -> None:
    level: Any = np.float32(0.9)
    (person,) = analyzer.replace(coverage=level).analyze(pictures / "astronaut.jpg")
    assert person.coverage == 0.9
    assert type(person.coverage) is float


def test_a_bad_picture_among_several_is_named(analyzer: Analyzer, tmp_path: Path) -> None:
    blank = np.zeros((40, 40, 3), np.uint8)
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(NotAnImageError, match=r"^photos\[1\]: not a picture"):
        analyzer.analyze_many([blank, b"no picture"])
    with pytest.raises(
        NotAnImageError, match=r"^photos\[1\], .*notes\.txt: not a picture"
    ) as caught:
        analyzer.analyze_many([blank, tmp_path / "notes.txt"])
    assert (caught.value.index, caught.value.source) == (1, str(tmp_path / "notes.txt"))
    with pytest.raises(ImageNotFoundError, match=r"^photos\[0\], .*none\.jpg: cannot be read"):
        analyzer.analyze_crops([tmp_path / "none.jpg"])
    with pytest.raises(NotAnImageError, match=r"^not a picture"):
        analyzer.analyze(b"no picture")


def test_errors_stand_in_the_place_of_the_pictures(
    analyzer: Analyzer, pictures: Path, tmp_path: Path
) -> None:
    good, missing = pictures / "astronaut.jpg", tmp_path / "none.jpg"
    given: list[facewise.PhotoSource] = [
        missing,
        good,
        b"no picture",
        *[good] * PHOTOS_AT_ONCE,
        missing,
    ]
    answers = analyzer.analyze_many(given, on_error="return")
    assert len(answers) == len(given)
    for index, (source, answer) in enumerate(zip(given, answers, strict=True)):
        if source is good:
            assert isinstance(answer, tuple)
            assert_same(answer[0], analyzer.analyze(good)[0])
        else:
            assert isinstance(answer, ImageError)
            assert answer.index == index
            assert answer.source == (str(missing) if source is missing else None)
    assert len(analyzer.analyze_many([missing], on_error="return")) == 1
    assert analyzer.analyze_many([], on_error="return") == []
    with pytest.raises(OptionError, match="on_error must be"):
        analyzer.analyze_many([good], on_error="skip")  # type: ignore[call-overload]


def test_errors_that_are_returned_hold_no_pictures(analyzer: Analyzer) -> None:
    """Through their tracebacks they would: those of all unreadable pictures, until the end."""
    held: list[weakref.ref[Any]] = []

    class Unreadable(io.BytesIO):
        """A file that is no picture."""

    def files() -> Iterator[Unreadable]:
        for _ in range(3):
            file = Unreadable(b"no picture")
            held.append(weakref.ref(file))
            yield file

    errors = analyzer.analyze_many(files(), on_error="return")
    assert [type(error) for error in errors] == [NotAnImageError] * 3
    assert str(errors[2]).startswith("photos[2]: not a picture")
    assert [ref() for ref in held] == [None] * 3


def test_unknown_options_are_refused_with_those_there_are(analyzer: Analyzer) -> None:
    wrong: dict[str, Any] = {"colour": "rgb"}
    with pytest.raises(TypeError, match=r"^analyze\(\) has no option 'colour'; it has attributes"):
        facewise.analyze("a.jpg", **wrong)
    with pytest.raises(TypeError, match=r"no option 'colour'; it has attributes, coverage"):
        analyzer.replace(**wrong)
    with pytest.raises(TypeError, match=r"cannot change threads: make a new one, with threads="):
        analyzer.replace(threads=1)  # type: ignore[call-arg]


def test_faces_of_predictions_are_analysed(analyzer: Analyzer, pictures: Path) -> None:
    photo = facewise.load_photo(pictures / "astronaut.jpg")
    (person,) = analyzer.analyze(photo)
    assert_same(analyzer.analyze_faces(photo, [person])[0], person)


def test_attributes_may_be_any_collection(pictures: Path) -> None:
    for chosen in (["age"], ("age",), {"age"}):
        (person,) = facewise.analyze(pictures / "astronaut.jpg", attributes=chosen, threads=1)
        assert person.gender is None


class Film:
    """Photos made on demand; ``most`` is the largest number alive at once."""

    def __init__(self, frame: np.ndarray[Any, Any], count: int) -> None:
        self.frame, self.count, self.most = frame, count, 0

    def __iter__(self) -> Iterator[facewise.Photo]:
        alive: list[weakref.ref[Any]] = []
        for _ in range(self.count):
            rgb = self.frame.copy()
            alive.append(weakref.ref(rgb))
            self.most = max(self.most, sum(ref() is not None for ref in alive))
            yield facewise.Photo(rgb)


def test_only_a_few_photos_are_held_at_a_time(analyzer: Analyzer, pictures: Path) -> None:
    frame = np.asarray(Image.open(pictures / "astronaut.jpg").resize((128, 128)))
    (alone,) = analyzer.analyze(frame)
    film = Film(frame, 3 * PHOTOS_AT_ONCE)
    for (person,) in analyzer.analyze_many(iter(film)):
        assert_same(person, alone)
    assert film.most <= PHOTOS_AT_ONCE + 1  # and the one being made
    film = Film(frame, 3 * PHOTOS_AT_ONCE)
    assert all(map(len, analyzer.detector.detect_many(iter(film))))
    assert film.most <= PHOTOS_AT_ONCE + 1
    film = Film(frame, BATCH_SIZE + 3)
    timings = Timings()
    assert len(analyzer.analyze_crops(iter(film), timings=timings)) == film.count
    assert [stage for stage, value in timings.items() if value == 0] == ["detect"]
    assert film.most <= 2


def test_a_bad_picture_late_in_a_long_list_is_named(analyzer: Analyzer) -> None:
    blank = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(NotAnImageError, match=r"^photos\[19\]: not a picture"):
        analyzer.analyze_many([blank] * 19 + [b"no picture"])
    with pytest.raises(NotAnImageError, match=r"^photos\[40\]: not a picture"):
        analyzer.analyze_crops([blank] * 40 + [b"no picture"])


def test_every_stage_is_timed_also_where_there_is_no_face(analyzer: Analyzer) -> None:
    timings = Timings()
    assert analyzer.analyze(np.zeros((40, 40, 3), np.uint8), timings=timings) == ()
    assert list(timings) == ["decode", "detect", "align", "attributes", "calibrate"]


def test_faces_found_already(analyzer: Analyzer, pictures: Path) -> None:
    sheet = montage(pictures, 6)
    people = analyzer.analyze(sheet)
    faces = [person.face for person in people][::-1]
    timings = Timings()
    again = analyzer.analyze_faces(sheet, iter(faces), timings=timings)
    assert len(again) == len(people) >= 4
    for a, b in zip(again, people[::-1], strict=True):
        assert_same(a, b)
        assert a.face.quality == b.face.quality
    assert all(value > 0 for stage, value in timings.items() if stage != "detect")
    assert analyzer.analyze_faces(sheet, []) == ()


def test_faces_found_already_pass_the_gates_that_crops_do_not(
    analyzer: Analyzer, pictures: Path
) -> None:
    (person,) = analyzer.analyze(pictures / "astronaut.jpg")
    small = Image.open(pictures / "astronaut.jpg").resize((64, 64))
    face = dataclasses.replace(person.face, landmarks=person.face.landmarks / np.float32(8))
    (unsure,) = analyzer.analyze_faces(small, [face])
    assert "too small" in unsure.abstained["gender"]
    (doubtful,) = analyzer.analyze_faces(
        pictures / "astronaut.jpg", [dataclasses.replace(person.face, detection_score=0.01)]
    )
    assert "may not be a face" in doubtful.abstained["gender"]
    crop = crop_faces(facewise.load_photo(small), [face], analyzer.spec.template, 192)[0]
    assert "too small" not in analyzer.analyze_crops([crop])[0].abstained.get("gender", "")


def test_landmarks_that_are_no_numbers(analyzer: Analyzer, pictures: Path) -> None:
    """They would give a grey crop, and NaN passes every gate."""
    for value in (np.nan, np.inf):
        with pytest.raises(OptionError, match="finite"):
            Face([0, 0, 9, 9], np.full((5, 2), value, np.float32))
    (person,) = analyzer.analyze(pictures / "astronaut.jpg")
    point = Face([0, 0, 9, 9], np.full((5, 2), 7, np.float32))
    with pytest.raises(OptionError, match=r"faces\[1\]: the landmarks fall on one point"):
        analyzer.analyze_faces(pictures / "astronaut.jpg", [person.face, point])


def test_faces_of_another_detector(analyzer: Analyzer, pictures: Path) -> None:
    photo = facewise.load_photo(pictures / "astronaut.jpg")
    (person,) = analyzer.analyze(photo)
    made = Face(person.face.bbox.tolist(), person.face.landmarks.tolist())
    (same,) = analyzer.analyze_faces(photo, [made])
    assert same.abstained == {}, "no score, no doubt"
    assert same.to_dict()["gender"] == person.to_dict()["gender"]
    # With the subject's left and right, the best similarity would turn the face upside down.
    subjects = Face(person.face.bbox, person.face.landmarks[[1, 0, 2, 4, 3]])
    with pytest.raises(OptionError, match=r"faces\[1\]: the landmarks are mirrored"):
        analyzer.analyze_faces(photo, [made, subjects])
    # An upside-down face has its left eye on the right and its mouth above its eyes.
    turned = facewise.load_photo(photo.rgb[::-1, ::-1])
    corner = np.array([photo.width_px, photo.height_px])
    upside = Face(person.face.bbox, corner - person.face.landmarks)
    (same,) = analyzer.analyze_faces(turned, [upside])
    assert same.gender is not None
    assert person.gender is not None
    assert same.gender["female"] == pytest.approx(person.gender["female"], abs=0.05)


def test_landmarks_of_another_photo(analyzer: Analyzer, pictures: Path) -> None:
    photo = facewise.load_photo(pictures / "astronaut.jpg")
    (person,) = analyzer.analyze(photo)
    box, points = person.face.bbox, person.face.landmarks
    for moved in (Face(box * 8, points * 8), Face(box - [0, 999, 0, 999], points - [0, 999])):
        with pytest.raises(
            OptionError, match=r"faces\[1\].*512 x 512: landmarks are pixels of the"
        ):
            analyzer.analyze_faces(photo, [person.face, moved])
    shares = points / np.float32(512)
    for face in (Face(box, shares), Face(box / 512, shares)):
        with pytest.raises(OptionError, match=r"faces\[0\].*between 0 and 1.*multiply x by"):
            analyzer.analyze_faces(photo, [face])
    # The picture cuts the face so that all its landmarks lie outside.
    edge = photo.rgb[:, round(points[:, 0].max()) + 2 :]
    shift = photo.width_px - edge.shape[1]
    cut = Face(box - [shift, 0, shift, 0], points - [shift, 0])
    assert (cut.landmarks[:, 0] < 0).all()
    assert len(analyzer.analyze_faces(edge, [cut])) == 1


@pytest.mark.parametrize(
    ("faces", "advice"),
    [
        (Face([0, 0, 9, 9], [[1, 1], [5, 1], [3, 3], [1, 6], [5, 6]]), "list of Face, not one Fac"),
        (7, "list of Face, not one int"),
        ([[1, 2, 3, 4]], r"faces\[0\] must be a Face, not list: make one"),
    ],
)
def test_what_is_no_list_of_faces(
    analyzer: Analyzer, pictures: Path, faces: Any, advice: str
) -> None:
    with pytest.raises(OptionError, match=advice):
        analyzer.analyze_faces(pictures / "astronaut.jpg", faces)


def test_one_face_is_no_list_of_faces(pictures: Path) -> None:
    one: Any = Face([0, 0, 9, 9], [[1, 1], [5, 1], [3, 3], [1, 6], [5, 6]])
    with pytest.raises(OptionError, match="a list, not one Face"):
        facewise.draw_predictions(pictures / "astronaut.jpg", one)
