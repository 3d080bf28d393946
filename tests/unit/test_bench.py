"""Benchmarks still fit the internals that they time; what they measure is not tested here."""

from __future__ import annotations

import importlib
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
