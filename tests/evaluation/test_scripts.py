"""Tables that scripts write, from their inputs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facewise.calibration import LEVELS
from facewise.evaluation.intervals import FitFaces, Recipe
from facewise.reporting.confusions import Confusions

from .test_conformal import bells

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))  # scripts import each other
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_every_script_finds_the_data_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACEWISE_DATA", str(tmp_path))
    folder = script("data_folder", monkeypatch).DATA
    assert folder == tmp_path
    paths = [*SCRIPTS.glob("*.py"), *(SCRIPTS.parent / "bench").glob("*.py")]
    defaults = {
        path.name: re.search(
            r'"--data", type=Path, default=(\S+)\)', path.read_text(encoding="utf-8")
        )
        for path in paths
    }
    found = {name: match[1] for name, match in defaults.items() if match}
    assert found.keys() >= {"annotate.py", "accuracy.py", "detectors.py", "val_photos.py"}
    assert set(found.values()) == {"DATA"}


@pytest.mark.parametrize(
    "command", [["kill_test", "fairface.tar", "--kills", "0"], ["load_test"], ["check_deploy"]]
)
def test_what_counts_on_linux_says_so(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = script(command[0], monkeypatch)
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit, match="counts on Linux"):
        module.main()


def test_false_faces_are_counted_on_all_drawn_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recall = script("mtcnn_recall", monkeypatch)
    Image.new("RGB", (40, 40)).save(tmp_path / "faceless-000.png")
    arguments = ["second", str(tmp_path / "cache"), str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["mtcnn_recall", *arguments])
    with pytest.raises(SystemExit, match=r"1 of the 200 drawn pictures: .*mtcnn_parity"):
        recall.main()


def test_a_page_of_val_faces_names_the_model_that_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And else is what the stored figures give."""
    results = SCRIPTS.parent / "docs/results"
    for name in ("cut-faces", "given-boxes"):
        stored = json.loads((results / f"{name}.json").read_text())
        model = stored.pop("model", None)
        page = script(name.replace("-", "_"), monkeypatch).markdown(stored, model or "made-up@1")
        assert page.count(f", with {model or 'made-up@1'}") == 1
        before = (results / f"{name}.md").read_text()
        assert page.replace(", with made-up@1", "") == before


def test_recipes_are_judged_on_faces_that_they_have_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = script("compare_fits", monkeypatch)
    rng = np.random.default_rng(0)
    age = rng.integers(20, 40, 600)
    # A quarter look six years older, so intervals that hold 80 % overall hold few of them.
    older = np.arange(600) % 4 == 0
    names = np.array([f"{i}.jpg" for i in range(600)])
    said = bells(age + np.where(older, 6.0, 0.0) + rng.normal(0, 1, 600), np.full(600, 2.0))
    faces = FitFaces(said, age, names)
    columns = np.where(np.arange(600) % 4 < 2, "a", "b"), older, np.arange(600) < 60
    judged = fits.memberships([np.asarray(column, str) for column in columns])
    plain = fits.judge(faces, judged, Recipe(margin=0), 3)
    assert plain["faultless"] == 0
    for level in map(str, LEVELS):
        row = plain["levels"][level]
        assert 4 <= row["groups_judged"] <= 5, "of some 30 faces nothing is said"
        assert set(row["by_first_year"]) == {"20", "30"}
        assert min(row["by_first_year"].values()) <= row["coverage"]
    assert plain["levels"]["0.8"]["coverage"] == pytest.approx(0.8, abs=0.06)
    widths = [plain["levels"][str(level)]["mean_width_years"] for level in LEVELS]
    assert widths == sorted(widths)
    # Six years on either side hold nearly everybody, also a fault at a stated 80 %.
    assert fits.judge(faces, judged, Recipe(margin=0.19), 3)["faultless"] == 0


def test_a_fit_without_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = script("compare_fits", monkeypatch)
    rng = np.random.default_rng(0)
    age = rng.integers(20, 40, 3000)
    said = bells(age + rng.normal(0, 3, 3000), np.full(3000, 3.0))
    faces = FitFaces(said, age, np.array([f"{i}.jpg" for i in range(3000)]))
    judged = fits.memberships([np.where(age < 30, "a", "b")])
    row = fits.judge(faces, judged, Recipe(margin=0.01), 6)
    assert row["faultless"] >= 0.5
    assert row["levels"]["0.9"]["groups_missed"] <= 0.2


def test_memberships_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = script("compare_fits", monkeypatch)
    columns = [np.array(["a", "b", "a"]), np.array(["x", "x", "x"])]
    assert fits.memberships(columns).tolist() == [
        [True, False, True],
        [False, True, False],
        [True, True, True],
    ]


def test_decades_reweighed_are_as_frequent_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = script("compare_fits", monkeypatch)
    truth = np.array([25] * 300 + [35] * 100)
    said = bells(np.full(400, 30.5), np.full(400, 6.0))  # twenties and thirties equally
    after = fits.decades_reweighed(said, truth, said)
    assert after[:, 20:30].sum(1).mean() > said[:, 20:30].sum(1).mean() + 0.1
    np.testing.assert_allclose(after.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(fits.unchanged(said, truth, said), said)


def test_the_sweeps_are_those_of_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    sweep = script("sweep_frozen", monkeypatch)
    folder = SCRIPTS.parent / "docs" / "results"
    stored = json.loads((folder / "sweep-framing.json").read_text())
    framings = tuple((row["size_px"], row["eye_distance"], row["eye_height"]) for row in stored)
    assert framings == sweep.FRAMINGS
    stored = json.loads((folder / "ablation-head.json").read_text())
    heads = [*sweep.HEADS, *(f"{sweep.WHOLE}, seed {seed}" for seed in (1, 2))]
    assert [row["variant"] for row in stored["rows"]] == heads
    table = sweep.markdown(stored["rows"], stored["judged"])
    assert (folder / "ablation-head.md").read_text() == table
    ablate = script("ablate", monkeypatch)
    stored = json.loads((folder / "ablation.json").read_text())
    assert [row["variant"] for row in stored["rows"]] == list(ablate.CHANGES)
    assert (folder / "ablation.md").read_text() == ablate.markdown(stored)


def test_table_across_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    across = script("across_datasets", monkeypatch)

    def results(mae: float, accuracy: float) -> dict[str, Any]:
        def figure(value: float) -> dict[str, float]:
            return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 90}

        gender = {"gender_accuracy": figure(accuracy), "not_found": 2}
        return {
            "model": {"name": "m", "version": "1", "sha256": "0", "size_px": 192},
            "data": {"faces": {"utkface": 100, "fairface": 90}},
            "overall": {"utkface": {"age_mae_years": figure(mae), **gender}, "fairface": gender},
        }

    rows = {
        "UTKFace": across.figures_of(results(4.5, 0.9)),
        "FairFace": across.figures_of(results(5.5, 0.8)),
    }
    text = across.markdown(rows)
    utkface, fairface = text.split("## Tested on ")[1:]
    assert utkface.startswith("UTKFace, 100 faces")
    assert "| FairFace | 5.50 (5.49 to 5.51) | 80.0% (79.0% to 81.0%) | 2 |" in utkface
    assert "age MAE" not in fairface, "its ages are known as groups only"
    assert "| UTKFace | 90.0% (89.0% to 91.0%) | 2 |" in fairface


def test_audits_of_draws_are_judged_by_what_was_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never errs knows the shares of the drawn faces; the rest is chance."""
    draws = script("audit_draws", monkeypatch)
    faces = 20_000  # so many that hardly any is drawn twice
    labels = np.arange(faces) % 2
    sure = np.linspace(0.9, 1, faces)  # all different, as equal ones would be copies
    p = np.where(labels[:, None] == [0, 1], sure[:, None], 1 - sure[:, None])
    pool = draws.Pool(np.ones(faces, bool), p, np.eye(2)[labels], labels)
    args = argparse.Namespace(seed=0, size=400, rounds=2)
    monkeypatch.setattr(draws, "make_up", lambda classes, rng: np.array([0.3, 0.7]))
    only = {"a": Confusions(np.full(2, 9e6), 9e6 * np.eye(2), np.zeros(2), np.zeros((2, 2)))}
    found = draws.means([draws.one_draw(n, pool, only, args) for n in range(100)])["naive"]
    # By chance alone, shares of 400 faces are off by 0.8 standard deviations of 2.3 points.
    assert found["mae"] == pytest.approx(0.8 * np.sqrt(0.3 * 0.7 / 400), rel=0.2)
    assert found["interval_coverage"] == pytest.approx(0.95, abs=0.05)
    assert found["interval_coverage"] < found["coverage_of_the_drawn_faces"] == 1
