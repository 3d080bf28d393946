"""Scores and tables of peers, from hand-made answers."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facewise.data.sets import DataSet, Sample
from facewise.data.tight_crops import AGE_IF_NOT_FOUND

ROOT = Path(__file__).parents[2]
pytest.importorskip("onnx", reason="bench/cost.py counts multiply-adds with it")

Answer = dict[str, Any]


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("accuracy")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("peers_tables")


def exact(key: str, age: int, gender: int) -> Sample:
    return Sample(key, "utkface", "test", (age, age), gender, 4, key)


def grouped(key: str, first: int, last: int, gender: int) -> Sample:
    return Sample(key, "fairface", "test", (first, last), gender, 0, key)


def said(age: float | None, gender: str | None) -> Answer:
    return {"person": {"box": [0, 0, 1, 1], "age": age, "gender": gender}}


NOBODY: Answer = {"person": None}


def test_exact_ages_and_genders_by_hand(accuracy: ModuleType) -> None:
    samples = [exact("a", 30, 0), exact("b", 40, 1), exact("c", 50, 1), exact("d", 61, 0)]
    answers = [said(27.4, "male"), said(45.0, "male"), NOBODY, said(66.5, "male")]
    result = accuracy.score(accuracy.outcomes(samples, answers))
    every, found = result["overall"]["utkface"], result["found"]["utkface"]
    missed = 50 - AGE_IF_NOT_FOUND
    assert (every["n"], every["not_found"], found["n"]) == (4, 1, 3)
    assert every["age_mae_years"]["value"] == pytest.approx((2.6 + 5 + missed + 5.5) / 4, abs=1e-5)
    assert found["age_mae_years"]["value"] == pytest.approx((2.6 + 5 + 5.5) / 3, abs=1e-5)
    assert every["age_cs5"]["value"] == 2 / 4, "five years off is within five, 5.5 is not"
    assert found["age_cs5"]["value"] == pytest.approx(2 / 3)
    assert every["gender_accuracy"]["value"] == 2 / 4
    assert found["gender_accuracy"]["value"] == pytest.approx(2 / 3)
    assert "ethnicity_accuracy" not in every, "the peers say none"


@pytest.mark.parametrize(
    ("age", "first", "last", "right", "near"),
    [
        (29.4, 20, 29, 1, 1),
        (29.6, 20, 29, 0, 1),
        (29.6, 30, 39, 1, 1),
        (2.4, 1, 2, 1, 1),
        (-3.0, 1, 2, 1, 1),
        (9.6, 3, 9, 0, 1),
        (48.0, 20, 29, 0, 0),
        (140.0, 70, 120, 1, 1),
    ],
)
def test_the_rounded_year_says_the_age_group(
    accuracy: ModuleType, age: float, first: int, last: int, right: int, near: int
) -> None:
    outcomes = accuracy.outcomes([grouped("a", first, last, 0)], [said(age, "male")])
    row = accuracy.score(outcomes)["overall"]["fairface"]
    assert row["age_groups_exact"]["value"] == right
    assert row["age_groups_within_one"]["value"] == near


def test_a_missed_face_is_wrong_in_its_group_whatever_that_is(accuracy: ModuleType) -> None:
    """Age 33, which stands for a missed face, would lie in this group."""
    result = accuracy.score(accuracy.outcomes([grouped("a", 30, 39, 1)], [NOBODY]))
    row = result["overall"]["fairface"]
    for metric in ("age_groups_exact", "age_groups_within_one", "gender_accuracy"):
        assert row[metric]["value"] == 0
    assert result["found"] == {}


def test_what_is_not_said_is_wrong(accuracy: ModuleType) -> None:
    samples = [exact("a", 33, 0), exact("b", 33, 1), grouped("c", 30, 39, 0)]
    answers = [said(33, "unknown"), said(33, None), said(None, "male")]
    result = accuracy.score(accuracy.outcomes(samples, answers))
    row = result["overall"]["utkface"]
    assert row["gender_accuracy"]["value"] == 0
    assert row["age_mae_years"]["value"] == 0
    assert result["overall"]["fairface"]["not_found"] == 1


def test_the_face_nearest_the_centre_counts(accuracy: ModuleType) -> None:
    large, middle = {"box": [0, 0, 60, 60]}, {"box": [40, 45, 60, 65]}
    assert accuracy.nearest([large, middle], 100, 100) is middle
    assert accuracy.nearest([middle, large], 60, 60) is large
    assert accuracy.nearest([], 100, 100) is None


class Worker:
    """Answers with the number of requests so far as the age."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, *, pixels: str, width: int, height: int, **_: Any) -> Answer:
        self.asked += 1
        assert Path(pixels).stat().st_size == width * height * 3
        box = [0, 0, width, height]
        return {"people": [{"box": box, "age": self.asked, "gender": "male"}]}


def picture(folder: Path, grey: int) -> None:
    data = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), grey, np.uint8)).save(data, "png")
    (folder / "a.png").write_bytes(data.getvalue())


def test_what_was_said_is_kept_for_as_long_as_the_picture_is_the_same(
    accuracy: ModuleType, tmp_path: Path
) -> None:
    sample, worker, kept = exact("a.png", 30, 0), Worker(), tmp_path / "kept" / "peer.jsonl"
    data_set = DataSet((sample,), (), {"a.png": (tmp_path / "a.png", 0, -1)})

    def ask() -> int:
        answers = accuracy.ask(
            worker, tmp_path / "rgb", accuracy.Kept(kept), [(data_set, sample)], "peer"
        )
        return int(answers[0]["person"]["age"])

    picture(tmp_path, 100)
    assert ask() == 1
    assert ask() == 1, "kept"
    kept.write_text(kept.read_text() + '\n{"dataset": "utk')  # a run ended while writing
    picture(tmp_path, 110)
    assert ask() == 2, "another picture"
    assert ask() == 2, "and the broken line harms none after it"


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 100}


def rows(mae: float, share: float, not_found: int) -> dict[str, Any]:
    head = {"n": 1100, "not_found": not_found}
    return {
        "utkface": {
            **head,
            "age_mae_years": figure(mae),
            "age_cs5": figure(share),
            "gender_accuracy": figure(share + 0.1),
        },
        "fairface": {
            **head,
            "age_groups_exact": figure(share - 0.1),
            "age_groups_within_one": figure(share + 0.2),
            "gender_accuracy": figure(share + 0.05),
        },
    }


def made_results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    peer = {
        "package": "@vladmandic/face-api",
        "version": "1.7.15",
        "way": "ssd",
        "sample": None,
        "found_of_val": {
            "of": {"utkface": 9, "fairface": 9},
            "ways": {"tiny": {"utkface": 3}, "ssd": {"utkface": 8, "fairface": 7}},
        },
        "errors": 2,
        "no_age": 0,
        "no_gender": 1,
        "overall": rows(5.5, 0.6, 250),
        "found": rows(5.0, 0.65, 0),
    }
    models = [
        {"model": {"name": name, "version": "7"}, "overall": rows(mae, 0.7, 3)}
        for name, mae in (("facewise-default", 4.2), ("facewise-small", 4.3))
    ]
    return {"split": "test", "peers": {"face-api": peer}}, models


def test_the_readmes_table(tables: ModuleType) -> None:
    lines = tables.short(*made_results()).splitlines()
    assert lines[0] == "| test faces | facewise-default@7 | face-api 1.7.15 |"
    assert "| UTKFace: age MAE, years | 4.20 | 5.50 (5.00) |" in lines
    assert "| FairFace: nine age groups, exact | 60.0% | 50.0% (55.0%) |" in lines
    assert "| UTKFace: faces not found | 3 of 1,100 | 250 of 1,100 |" in lines


def test_the_page_of_the_peers(tables: ModuleType) -> None:
    result, models = made_results()
    text = tables.page(result, models)
    utkface, fairface, found = text.split("\n## ")[1:4]
    assert utkface.startswith("UTKFace, all faces")
    assert "| facewise-small@7 | 4.30 (4.29 to 4.31) | 70.0% (69.0% to 71.0%) |" in utkface
    assert "| face-api 1.7.15 | 5.50 (5.49 to 5.51) |" in utkface
    assert "| 250 of 1,100 |" in fairface
    assert "| face-api 1.7.15 | 1,100 | 5.00 (4.99 to 5.01) |" in found
    assert "facewise-small" not in found, "its results file does not have that"
    assert "Found of 18 val faces: tiny: 3; ssd: 15." in text
    assert "by at most 0.3 points" in found
    assert "On 2 pictures it failed" in text
    assert "Of 1 it gave no gender" in text
    assert "gave no age" not in text
    assert "a part of test" not in text


def test_a_peer_that_saw_a_part_says_so(tables: ModuleType) -> None:
    result, models = made_results()
    result["peers"]["face-api"]["sample"] = 1000
    assert "**face-api saw a part of test**: 1,000 faces" in tables.page(result, models)
    assert "| face-api 1.7.15, 1,000 faces of each | 5.50" in tables.page(result, models)
    assert "face-api" not in tables.short(result, models)
