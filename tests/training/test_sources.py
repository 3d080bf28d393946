"""The sources of a run: its own data, and all that its start and its teacher learnt from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from facewise.errors import OptionError
from facewise.training.config import LossConfig, NetworkConfig, TrainConfig, load_config
from facewise.training.sources import PRETRAINED, UTKFACE, licence, sources

CONFIGS = Path(__file__).parents[2] / "configs"
LIMIT = "non-commercial research only"
(FACERES,), (DLIB,) = PRETRAINED["faceres"], PRETRAINED["dlib_resnet"]


def starting(init: object, *datasets: str, **loss: object) -> TrainConfig:
    network = NetworkConfig(init=str(init))
    return TrainConfig("x", datasets or ("fairface",), network, loss=LossConfig(**loss))  # type: ignore[arg-type]


def test_a_chain_of_runs_names_what_its_first_one_learnt_from(tmp_path: Path) -> None:
    first = starting("faceres", "utkface")
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(first)))
    behind = sources(starting(tmp_path / "best.pt"))
    assert behind[0].startswith("FairFace")
    assert behind[1:] == [UTKFACE, FACERES]
    (tmp_path / "m.json").write_text(json.dumps({"data": behind}))
    assert sources(starting(tmp_path / "m.onnx")) == behind
    own, listed = sources(starting("random", "utkface", "csv"))
    assert own == UTKFACE
    assert "listed in a CSV" in listed
    assert licence([listed]) == (
        "of pictures listed in a CSV: their terms are for whoever listed them to state"
    )
    assert licence([listed, UTKFACE]).endswith("UTKFace is behind it as well: " + LIMIT)


def test_a_start_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"m\.json must say"):
        sources(starting(tmp_path / "m.onnx"))
    with pytest.raises(
        OptionError, match=r"config\.json must say what data are behind best\.pt: copy it"
    ):
        sources(starting(tmp_path / "best.pt"))


def test_a_student_has_behind_it_what_its_teacher_has(tmp_path: Path) -> None:
    path = tmp_path / "teacher.npz"
    np.savez(path, probabilities=np.zeros(1), sources=np.array([UTKFACE, FACERES]))
    student = starting("dlib_resnet", "utkface", teacher=str(path), distill=0.5)
    assert sources(student) == [UTKFACE, DLIB, f"its teacher's {FACERES}"]
    alone = starting("dlib_resnet", teacher=str(path), distill=0.5)
    assert "UTKFace" in licence(sources(alone))
    assert "non-commercial research only" in licence(sources(alone))
    np.savez(path, probabilities=np.zeros(1))
    with pytest.raises(OptionError, match="teach again"):
        sources(student)
    path.write_bytes(path.read_bytes()[:100])  # half a file, as a full disk leaves it
    with pytest.raises(OptionError, match="teach again"):
        sources(student)
    path.unlink()
    with pytest.raises(OptionError, match="teach again"):
        sources(student)


def test_fairface_only_has_nothing_of_utkface() -> None:
    config = load_config(CONFIGS / "fairface-only.toml")
    behind = sources(config)
    assert not any("UTKFace" in source for source in behind)
    for name in ("FairFace", "VGGFace2", "IMDB-WIKI"):
        assert any(name in source for source in behind)
    assert licence(behind).endswith("trained without UTKFace, and promises nothing")
    assert config.name == "fairface-only"
    assert not config.loss.teacher


def test_a_run_goes_on_under_a_version_with_more_options(tmp_path: Path) -> None:
    stored = dataclasses.asdict(starting("random"))
    del stored["network"]["pixel_mean"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert load_config(tmp_path / "config.json") == starting("random")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OptionError, match="not valid JSON"):
        load_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(OptionError, match="not a table"):
        load_config(tmp_path / "config.json")
