"""Checks of a run before it takes minutes, and before it is exported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from facewise.cli import app  # noqa: E402
from facewise.data.sets import DataSet, Sample  # noqa: E402
from facewise.errors import OptionError  # noqa: E402
from facewise.training.cache import FaceCache  # noqa: E402
from facewise.training.checks import (  # noqa: E402
    check_checkpoint,
    check_run,
    check_samples,
    check_splits,
)
from facewise.training.config import TrainConfig, load_config  # noqa: E402
from facewise.training.network import bare_network  # noqa: E402
from facewise.training.train import learning_rate_factor, train  # noqa: E402

TOML = """name = "mine"
datasets = ["csv"]
[network]
size_px = 32
hidden_dim = 256
[optim]
epochs = 2
batch_size = 4
bfloat16 = false
"""


def leave_run(folder: Path, config: TrainConfig, **last: Any) -> Path:
    """Create a run's folder as ``train`` leaves it, with random weights; return its best.pt."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": bare_network(config).state_dict()}, folder / "best.pt")
    torch.save({"epoch": config.optim.epochs, "fingerprint": "faces", **last}, folder / "last.pt")
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    return folder / "best.pt"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    return path


def check(config: TrainConfig, folder: Path) -> dict[str, Any] | None:
    return check_run(config, folder / config.name, converted=folder, fingerprint="faces")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("size_px = 48", r"network\.size_px 32 and not 48"),
        ("size_px = 32\neye_distance = 0.4", r"eye_distance 0\.31 and not 0\.4"),
        ("size_px = 32\npixel_std = 255.0", r"network\.pixel_std 1\.0 and not 255\.0"),
        ("size_px = 32\ninit = 'faceres'", "network.init 'random' and not 'faceres'"),
    ],
)
def test_a_file_that_says_otherwise_than_its_run_exports_and_teaches_nothing(
    cache: FaceCache, toml: Path, line: str, words: str
) -> None:
    runs = toml.parent / "runs"
    leave_run(runs / "mine", load_config(toml))
    toml.write_text(TOML.replace("size_px = 32", line))
    where = ["--cache", str(cache.folder), "--runs", str(runs)]
    out = toml.parent / "out"
    for command in (
        ["export", "--config", str(toml), "--out", str(out), "--name", "m", "--version", "1"],
        ["teach", str(toml), "--out", str(toml.parent / "t.npz")],
    ):
        result = CliRunner().invoke(app, [*command, *where])
        with pytest.raises(OptionError, match=rf"trained with another config, .*{words}"):
            raise result.exception or AssertionError(result.output)
    assert not out.exists()
    # What the message suggests works.
    config = str(runs / "mine/config.json")
    command = ["export", "--config", config, "--out", str(out), "--name", "m", "--version", "1"]
    assert CliRunner().invoke(app, [*command, *where], catch_exceptions=False).exit_code == 0


def test_a_checkpoint_alone_does_not_say_what_it_is(toml: Path) -> None:
    config = load_config(toml)
    best = leave_run(toml.parent / "mine", config)
    check_checkpoint(config, best)
    best.with_name("last.pt").unlink()  # as in a run put together by hand
    check_checkpoint(config, best)
    best.with_name("config.json").unlink()
    with pytest.raises(OptionError, match=r"config\.json, which .* is missing"):
        check_checkpoint(config, best)


def test_another_seed_is_found_by_its_name(toml: Path) -> None:
    config = load_config(toml, seed=7)
    check_checkpoint(config, leave_run(toml.parent / config.name, config))


def test_an_unfinished_run_is_said_to_be_one(toml: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(toml)
    check_checkpoint(config, leave_run(toml.parent / "mine", config))
    assert not caplog.text
    check_checkpoint(config, leave_run(toml.parent / "mine", config, epoch=1))
    assert "has done 1 of 2 epochs" in caplog.text


def test_a_run_does_not_go_on_from_other_files(toml: Path) -> None:
    folder = toml.parent
    other = leave_run(folder / "other", load_config(toml))
    toml.write_text(TOML.replace("[optim]", f"init = '{other}'\n[optim]"))
    config = load_config(toml)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    leave_run(folder / "mine", config, epoch=1, files={"init": digest})
    assert check(config, folder) is not None
    leave_run(folder / "mine", config, epoch=1, files={"init": "another"})
    with pytest.raises(OptionError, match="began with another file as init"):
        check(config, folder)
    leave_run(folder / "mine", config, files={"init": "another"})
    assert check(config, folder) is not None  # finished: no file is read


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hidden_dim = 256", "hidden_dim = 64\ninit = 'faceres'", "hidden_dim of 256"),
        ("size_px = 32", "ages = 'decades'\ninit = 'faceres'", 'needs ages = "years"'),
        ("size_px = 32", "backbone = 'resnet5000'", "resnet5000"),
        ("size_px = 32", "backbone = 'dlib_resnet'\nsize_px = 96", "cannot take pictures of 96 px"),
        ("size_px = 32", "init = 'TEXT.pt'", "not a file of weights"),
        ("size_px = 32", "init = 'OTHER.pt'", "does not fit this backbone"),
        ("size_px = 32", "init = 'TEXT.onnx'", "not an ONNX file"),
        ("size_px = 32", "init = 'FOLDER'", "no such file"),
        ("size_px = 32", "backbone = 'mobilenet_v2'\ninit = 'TEXT.onnx'", r"best\.pt of its run"),
        ("epochs = 2", "mixed_share = 0.1\nmixed = 'OTHER.pt'", "has another architecture"),
        ("epochs = 2", "mixed_share = 0.1\nmixed = 'TEXT.pt'", "not a file of weights"),
        ("bfloat16 = false", "[loss]\nteacher = 'TEXT.npz'", "not written by facewise teach"),
        ("bfloat16 = false", "[loss]\nteacher = 'ARRAY.npy'", "not written by facewise teach"),
    ],
)
def test_files_that_do_not_fit_are_said_first(toml: Path, old: str, new: str, words: str) -> None:
    folder = toml.parent
    for suffix in (".pt", ".onnx", ".npz"):
        (folder / f"TEXT{suffix}").write_text("a text and no weights")
    np.save(folder / "ARRAY.npy", np.zeros(3))
    (folder / "FOLDER").mkdir()
    network = dataclasses.replace(load_config(toml).network, backbone="mobilenet_v2")
    other = dataclasses.replace(load_config(toml), network=network)
    leave_run(folder / "other", other).rename(folder / "OTHER.pt")
    parts: dict[str, Any] = dict.fromkeys(("backbone", "feats", "age", "gender"))
    torch.save(parts, folder / "faceres.pt")
    for name in ("TEXT", "OTHER", "ARRAY", "FOLDER"):
        new = new.replace(f"'{name}", f"'{folder / name}")
    toml.write_text(TOML.replace(old, new))
    with pytest.raises(OptionError, match=words):
        check(load_config(toml), folder)


@pytest.mark.parametrize("option", ["init", "teacher"])
def test_a_file_that_does_not_say_what_is_behind_it_is_no_start(toml: Path, option: str) -> None:
    """Its run would be exported after hours, or not at all."""
    folder = toml.parent
    best = leave_run(folder / "other", load_config(toml))
    best.with_name("config.json").unlink()
    np.savez(folder / "t.npz", probabilities=np.zeros(1))
    start = f"[network]\ninit = '{best}'\n"
    taught = f"[loss]\ndistill = 0.5\nteacher = '{folder / 't.npz'}'\n"
    text = TOML.replace("[network]\n", start) if option == "init" else TOML + taught
    toml.write_text(text)
    with pytest.raises(
        OptionError, match=r"must say what (data are behind best|is behind the tea)"
    ):
        check(load_config(toml), folder)


def test_norms_are_put_into_a_backbone_that_has_none(toml: Path) -> None:
    toml.write_text(
        TOML.replace("size_px = 32", "backbone = 'mobilenet_v2'") + "batch_norm = true\n"
    )
    with pytest.raises(OptionError, match="mobilenet_v2 has its own"):
        check(load_config(toml), toml.parent)


def test_a_network_of_timm_learns_at_one_rate(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its names do not tell which layer is above which."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1))
    network = torch.nn.Sequential(layers, torch.nn.Flatten())
    network.num_features = 8
    timm = SimpleNamespace(is_model=lambda name: True, create_model=lambda *_, **__: network)
    monkeypatch.setitem(sys.modules, "timm", timm)
    text = TOML.replace("size_px = 32", "size_px = 32\nbackbone = 'some_net'")
    toml.write_text(text)
    with pytest.raises(OptionError, match=r"known for facewise's own backbones only; use 1\.0"):
        check(load_config(toml), toml.parent)
    toml.write_text(text + "layer_decay = 1.0\n")
    assert check(load_config(toml), toml.parent) is None


def sample(split: str, **labels: Any) -> Sample:
    known = {"age_range": None, "gender": None, "ethnicity": None} | labels
    return Sample(key="x", dataset="csv", split=split, group="x", **known)


def test_a_run_needs_faces_for_a_batch_and_labels_to_choose_by(toml: Path) -> None:
    config = load_config(toml)
    faces = [sample("train", gender=0)] * 4
    check_samples(config, [*faces, sample("val", gender=0)])
    check_samples(config, [*faces, sample("val"), sample("val", age_range=(21, 25))])
    with pytest.raises(OptionError, match=r"3 training faces .* batch of 4: lower batch_size"):
        check_samples(config, [*faces[:3], sample("val", gender=0)])
    with pytest.raises(OptionError, match="no picture of the split val has a label to choose"):
        check_samples(config, [*faces, sample("val"), sample("val", age_range=(18, 30))])


def test_every_data_set_that_is_wanted_has_faces_to_learn_from_and_to_choose_by() -> None:
    def of(*splits: str) -> list[DataSet]:
        return [DataSet(tuple(sample(split) for split in splits), (), {})]

    check_splits(of("train", "val"), ["csv"])
    with pytest.raises(OptionError, match="no face of fairface is in the split train, or none in"):
        check_splits(of("train", "val"), ["csv", "fairface"])
    for split in ("train", "val"):
        with pytest.raises(OptionError, match="no picture of a CSV is in the split train, or none"):
            check_splits(of(split, "test"), ["csv"])


def test_a_split_of_which_nothing_can_be_read_is_said(
    cache: FaceCache, toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = dataclasses.replace(cache, splits=np.full(len(cache), "train"))
    monkeypatch.setattr("facewise.training.train.open_cache", lambda folder: unread)
    with pytest.raises(OptionError, match="no picture of csv in the split val can be read"):
        train(load_config(toml), cache_folder=cache.folder, runs_folder=toml.parent / "runs")


@pytest.mark.parametrize(("option", "value"), [("--workers", "-1"), ("--threads", "-1")])
def test_fewer_than_no_workers_are_refused(toml: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(app, ["train", "--config", str(toml), option, value])
    assert result.exit_code == 2


def test_a_short_run_is_not_all_warm_up() -> None:
    rates = [learning_rate_factor(step, 40, 200) for step in range(40)]
    assert max(rates) > 0.99
    assert rates[-1] < 0.05
    assert learning_rate_factor(100, 2390, 200) == 101 / 200  # as configured in a long run
