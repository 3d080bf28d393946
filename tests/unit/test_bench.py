"""Benchmarks still fit the internals that they time; what they measure is not tested here."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from facewise import MTCNN, Photo

ROOT = Path(__file__).parents[2]
pytest.importorskip("onnx", reason="bench/cost.py counts multiply-adds with it")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("run")


def test_readme_has_the_measured_times(run: ModuleType) -> None:
    result = json.loads((ROOT / "docs/results/bench.json").read_text())
    short, page = run.markdown(result)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.split(run.MARKS[0])[1].split(run.MARKS[1])[0].strip() == short
    assert page == (ROOT / "docs/results/bench.md").read_text(encoding="utf-8")


def test_no_job_is_measured_twice(run: ModuleType) -> None:
    """On the smallest photo, both columns of facewise ask for the same faces."""
    for smallest_px in (run.MTCNN_FACE_PX, 27):
        jobs = list(run.finders({"facewise", "facenet-pytorch", "mtcnn"}, smallest_px).values())
        assert len(set(jobs)) == len(jobs)
        assert ("mtcnn", run.MTCNN_FACE_PX) in jobs
    result = json.loads((ROOT / "docs/results/bench.json").read_text())
    del result["detect"]["640 x 480, 1 face"]["facewise, small"]
    (line,) = re.findall(r"^\| 640 x 480, 1 face \| 20 px.*", run.markdown(result)[0], re.MULTILINE)
    cells = line.split(" | ")
    assert cells[2] == cells[4]
    assert " x)" in cells[5]


def test_a_timed_pyramid_is_the_same(run: ModuleType) -> None:
    photo, detector = Photo(run.cost.scene(320, 240, 1)), MTCNN(threads=1)
    [face] = detector.detect(photo)
    times: Counter[str] = Counter()
    with run.timed_pyramid(times):
        [timed] = detector.detect(photo)
    assert timed.bbox.tolist() == face.bbox.tolist()
    assert list(times) == ["pyramid"]
    times.clear()
    detector.detect(photo)
    assert not times, "the clock is taken off again"


def test_stages_of_a_photo(run: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(run.cost.scene(320, 240, 1)).save(path)
    row = run.stages(path, 1)
    assert row["faces"] == 1
    assert set(row["ms"]) >= {"decode", "pyramid", "P-net", "R-net", "O-net", "attributes", "all"}
    assert all(row["multiply_adds"].values())
