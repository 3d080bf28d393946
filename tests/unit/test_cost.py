"""Guard against slowdowns: multiply-adds on fixed scenes, independent of machine load.

After a change that is meant to cost more, run ``python bench/cost.py --write`` and say why.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facewise import Photo
from facewise.models import WEIGHTS_FOLDER, list_models

pytest.importorskip("onnx")

ALLOWED_GROWTH = 1.1
MOST_A_CROP = 600_000_000
"""Limit for an attribute network: a MobileNet v1 at 224 px has 570 million."""


@pytest.fixture(scope="module")
def cost() -> ModuleType:
    path = Path(__file__).parent.parent.parent / "bench" / "cost.py"
    spec = importlib.util.spec_from_file_location("bench_cost", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def too_dear(measured: dict[str, int], budget: dict[str, int]) -> list[str]:
    return [
        name for name in ("pnet", "rnet", "onet") if measured[name] > budget[name] * ALLOWED_GROWTH
    ]


def test_no_scene_costs_more_than_its_budget(cost: ModuleType) -> None:
    budget = json.loads(cost.BUDGET.read_text())
    measured = cost.measure()
    assert measured.keys() == budget.keys()
    for name, counts in measured.items():
        assert counts["faces"] >= budget[name]["faces"], name
        assert too_dear(counts, budget[name]) == [], name


def test_a_smaller_smallest_face_is_noticed(cost: ModuleType) -> None:
    """The guard can fail: twice the detail is four times the work."""
    budget = json.loads(cost.BUDGET.read_text())["640 x 480, 1 face"]
    _, counts = cost.detect_counted(Photo(cost.scene(640, 480, 1)), min_face_px=14)
    assert "pnet" in too_dear(counts, budget)


def test_multiply_adds_by_hand(cost: ModuleType) -> None:
    """R-net on one crop, every layer counted by hand, channels padded to blocks of 16."""
    layers = [
        22 * 22 * 32 * (27 + 2),  # first convolution, plus the two factors of PReLU
        9 * 9 * 48 * (9 * 32 + 1),  # one factor belongs to the next layer
        3 * 3 * 64 * (4 * 48 + 1),
        576 * 128,
        128 * 5,
    ]
    assert cost.multiply_adds(WEIGHTS_FOLDER / "mtcnn-rnet.onnx", 1, 24, 24, 3) == sum(layers)


def test_attribute_models_stay_small(cost: ModuleType) -> None:
    for spec in list_models():
        size = spec.size_px
        one = cost.multiply_adds(spec.weights_path, 1, size, size, 3)
        assert 10_000_000 < one < MOST_A_CROP, spec.name
        assert np.isclose(
            cost.multiply_adds(spec.weights_path, 4, size, size, 3), 4 * one, rtol=0.01
        )


def test_further_looks_cost_nothing_where_a_face_is_found(cost: ModuleType) -> None:
    scene = Photo(cost.scene(640, 480, 1))
    faces, counts = cost.detect_counted(scene)
    assert len(faces) == 1
    assert counts == cost.detect_counted(scene, second_look=False)[1]


def test_looks_for_a_portrait_cost_little(cost: ModuleType) -> None:
    nobody = Photo(cost.scene(640, 480, 0))
    _, once = cost.detect_counted(nobody, second_look=False)
    _, full = cost.detect_counted(nobody)
    assert once["pnet"] < full["pnet"] < 1.06 * once["pnet"]
