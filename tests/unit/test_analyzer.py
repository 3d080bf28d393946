"""The pipeline on real pictures with the weights that ship."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facewise
from facewise import Analyzer, Prediction
from facewise.analyzer import Timings
from facewise.errors import ModelNotFoundError, NotAnImageError, OptionError


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
    # Mirrored, left becomes right in name as well: the order of landmarks is the viewer's.
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


def test_no_face_is_an_answer(analyzer: Analyzer) -> None:
    y, x = np.mgrid[:400, :600]
    landscape = np.stack([np.where(y < 200, 150, 60), 160 + x // 20, 255 - y // 3], -1)
    assert analyzer.analyze(landscape.astype(np.uint8)) == ()
    assert analyzer.analyze_many([]) == []


def test_a_face_upside_down_does_no_harm(analyzer: Analyzer, pictures: Path) -> None:
    image = Image.open(pictures / "astronaut.jpg").rotate(180)
    for p in analyzer.analyze(image):
        assert np.isfinite(p.vector).all()


def test_crops(analyzer: Analyzer, pictures: Path) -> None:
    faces = [Image.open(path) for path in sorted((pictures / "faces").glob("*.webp"))[:3]]
    predictions = analyzer.analyze_crops(faces)
    assert len(predictions) == 3
    np.testing.assert_array_equal(predictions[0].face.bbox, [0, 0, 192, 192])
    assert analyzer.analyze_crops([]) == []


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
        ({"coverage": 0.5}, OptionError, "0.9"),
        ({"model": "nobody"}, ModelNotFoundError, "facewise-default"),
        ({"model": "facewise-default@0"}, ModelNotFoundError, "installed are"),
        ({"threads": 0}, OptionError, "threads"),
        ({"providers": ["FancyProvider"]}, OptionError, "FancyProvider"),
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


def test_the_public_surface_is_what_is_listed() -> None:
    assert facewise.__all__ == sorted(facewise.__all__, key=lambda n: (not n.isupper(), n))
    for name in facewise.__all__:
        assert getattr(facewise, name) is not None


def test_attributes_may_be_any_collection(pictures: Path) -> None:
    for chosen in (["age"], ("age",), {"age"}):
        (person,) = facewise.analyze(pictures / "astronaut.jpg", attributes=chosen, threads=1)
        assert person.gender is None
