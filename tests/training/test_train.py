"""A tiny run of the loop: it learns, resumes bit for bit, exports, and refuses to mix runs."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from facewise import cli  # noqa: E402
from facewise.attributes import AttributeModel  # noqa: E402
from facewise.cli import app  # noqa: E402
from facewise.errors import FacewiseError, MissingExtraError, OptionError  # noqa: E402
from facewise.models import load_spec  # noqa: E402
from facewise.training import export  # noqa: E402
from facewise.training.cache import FaceCache, open_cache  # noqa: E402
from facewise.training.config import (  # noqa: E402
    NetworkConfig,
    OptimConfig,
    TrainConfig,
    load_config,
)
from facewise.training.data import (  # noqa: E402
    EpochBatches,
    LabelTable,
    plain_crops,
    warn_of_unlabelled,
)
from facewise.training.export import (  # noqa: E402
    export_model,
    export_onnx,
    load_checkpoint,
    write_spec,
)
from facewise.training.network import (  # noqa: E402
    AttributeNetwork,
    bare_network,
    load_exported,
    load_run,
    make_network,
)
from facewise.training.teach import ONE_VIEW, ask, write_teacher  # noqa: E402
from facewise.training.train import blended, make_loop, predict, train  # noqa: E402

TINY = TrainConfig(
    name="tiny",
    datasets=("csv",),
    network=NetworkConfig(backbone="mobilenet_v1", size_px=32, hidden_dim=256),
    optim=OptimConfig(epochs=2, batch_size=8, warmup_steps=1, bfloat16=False, frozen_stages=0),
)


def run(cache: FaceCache, runs: Path, config: TrainConfig = TINY, **limits: float) -> Path:
    return train(
        config, cache_folder=cache.folder, runs_folder=runs, workers=0, threads=1, **limits
    )


def log_of(run_folder: Path) -> list[dict[str, str]]:
    with (run_folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(cache: FaceCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(cache, tmp_path_factory.mktemp("runs"))


def test_a_row_that_is_repeated_within_an_epoch_looks_different_each_time() -> None:
    items = [item for batch in EpochBatches(np.array([3, 3, 5, 5]), 2, seed=1) for item in batch]
    assert sorted(row for _, row in items) == [3, 3, 5, 5]
    assert len(set(items)) == 4, "of which each is augmented by its own random numbers"
    (once,) = EpochBatches(np.array([3, 5]), 2, seed=1)
    assert sorted(once) == [(0, 3), (0, 5)]


def test_an_epoch_is_logged_in_words(
    cache: FaceCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "facewise")
    run(cache, tmp_path, minutes=0.0)
    ((row,), (said,)) = (
        log_of(tmp_path / "tiny"),
        [text for text in caplog.messages if text.startswith("epoch 1")],
    )
    assert said.startswith(f"epoch 1: loss {float(row['train_loss']):.3f}, ")
    assert f"on val, csv: mean age error {float(row['csv_mae']):.2f} years, " in said
    assert f"gender {float(row['csv_gender']):.1%}" in said
    assert said.endswith(
        f"score {float(row['headline']):.2f} (lower is better; the best epoch is kept)"
    )
    assert "{" not in said
    assert "stopping after 0 minutes; run again to resume" in caplog.messages
    caplog.clear()
    run(cache, tmp_path, minutes=0.0)
    assert "epoch 2" in caplog.text
    assert "run again" not in caplog.text, "because it is finished"


def test_a_run_leaves_a_log_a_curve_and_checkpoints(finished: Path) -> None:
    rows = log_of(finished)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["images_per_second"]) > 0
    assert {p.name for p in finished.iterdir()} >= {"curve.png", "last.pt", "best.pt"}


def test_a_stopped_run_goes_on_to_the_same_weights(
    cache: FaceCache, finished: Path, tmp_path: Path
) -> None:
    run(cache, tmp_path, minutes=0.0)  # stops after its first epoch
    assert len(log_of(tmp_path / "tiny")) == 1
    config = tmp_path / "tiny" / "config.json"
    (tmp_path / "earlier.json").hardlink_to(config)
    run(cache, tmp_path)
    assert not config.samefile(tmp_path / "earlier.json"), "written over, which may end halfway"
    whole = torch.load(finished / "last.pt", weights_only=True)["average"]
    resumed = torch.load(tmp_path / "tiny/last.pt", weights_only=True)["average"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_epoch_that_is_repeated_has_one_row(
    cache: FaceCache, finished: Path, tmp_path: Path
) -> None:
    """The run was killed between an epoch's row and its checkpoint."""
    run(cache, tmp_path, minutes=0.0)
    folder = tmp_path / "tiny"
    text = (finished / "log.csv").read_text()
    (folder / "log.csv").write_text(text)
    run(cache, tmp_path)
    assert [row["epoch"] for row in log_of(folder)] == ["1", "2"]


def test_a_folder_holds_one_run_only(cache: FaceCache, finished: Path) -> None:
    other = dataclasses.replace(TINY, datasets=("csv", "utkface"))
    with pytest.raises(OptionError, match="another config"):
        run(cache, finished.parent, other)


def test_a_run_that_learnt_nothing_stands_in_no_ones_way(cache: FaceCache, tmp_path: Path) -> None:
    """What the message advises works, without a new name."""
    optim = dataclasses.replace(TINY.optim, batch_size=2, lr_backbone=1e30)
    with pytest.raises(OptionError, match=r"the loss is nan at step .*: lower lr_backbone"):
        run(cache, tmp_path, dataclasses.replace(TINY, optim=optim))
    folder = run(cache, tmp_path, minutes=0.0)
    assert load_config(folder / "config.json") == TINY


def test_a_run_does_not_go_on_with_other_faces(
    cache: FaceCache, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "tiny")
    last = tmp_path / "tiny/last.pt"
    state = torch.load(last, weights_only=True)
    torch.save(state | {"fingerprint": "another"}, last)
    with pytest.raises(OptionError, match="began with other faces"):
        run(cache, tmp_path)


def test_too_few_faces_for_a_batch_are_refused(cache: FaceCache, tmp_path: Path) -> None:
    optim = dataclasses.replace(TINY.optim, batch_size=64)
    with pytest.raises(OptionError, match=r"18 training faces .* batch of 64: lower batch_size"):
        run(cache, tmp_path, dataclasses.replace(TINY, optim=optim))
    assert not (tmp_path / "tiny").exists()  # no folder stands in the way of smaller batches


@pytest.mark.parametrize(
    ("section", "option", "value", "words"),
    [
        ("network", "init", "faceres", r"other/faceres\.pt is missing: .*convert_faceres\.py"),
        ("network", "init", "dlib_resnet", "convert_dlib"),
        ("network", "init", "runs/none/best.pt", "init = 'runs/none/best.pt': .*facewise train"),
        ("network", "init", "none.onnx", "facewise export writes it"),
        ("network", "init", "facres", "known are random, faceres"),
        ("optim", "mixed", "runs/none/best.pt", "mixed = .*facewise train"),
        ("loss", "teacher", "runs/none.npz", "teacher = .*facewise teach"),
    ],
)
def test_what_is_missing_is_said_before_the_cache_is_built(
    tmp_path: Path, section: str, option: str, value: str, words: str
) -> None:
    faces = tmp_path / "UTKFace"
    faces.mkdir()
    for name in ("30_0_0_20170116232725357.jpg", "40_1_0_20170116232725358.jpg"):
        (faces / name).touch()
    (tmp_path / "utkface_splits.csv").write_text(
        "file,split,duplicate_group\n"
        "30_0_0_20170116232725357.jpg,train,1\n"
        "40_1_0_20170116232725358.jpg,val,2\n"
    )
    path = tmp_path / "x.toml"
    path.write_text(f'datasets = ["utkface"]\n[{section}]\n{option} = "{value}"\n')
    other = tmp_path / "other"
    with pytest.raises(OptionError, match=words):
        cli.train.train(config=path, data=tmp_path, cache=other / "faces", runs=tmp_path / "runs")
    assert not other.exists()
    with pytest.raises(OptionError, match=r"no faces in .*: facewise train --cache"):
        open_cache(other / "faces")


def test_training_fits_what_it_sees(cache: FaceCache, tmp_path: Path) -> None:
    """In twelve epochs on a few low-resolution faces, the loss must fall by a quarter."""
    optim = dataclasses.replace(TINY.optim, epochs=12, lr_head=3e-3)
    folder = run(cache, tmp_path, dataclasses.replace(TINY, optim=optim))
    losses = [float(row["train_loss"]) for row in log_of(folder)]
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("fp16", [False, True])
def test_the_exported_model_says_what_pytorch_says(
    cache: FaceCache, finished: Path, tmp_path: Path, fp16: bool
) -> None:
    rows = np.arange(len(cache))
    crops = plain_crops(cache, TINY, rows)
    path = tmp_path / "tiny.onnx"
    digest = export_onnx(TINY, finished / "best.pt", path, crops=crops, fp16=fp16)
    spec_path = write_spec(
        TINY, path, digest, name="tiny", version="1", description="", licence="test", data=[]
    )
    served = AttributeModel(load_spec(spec_path), threads=1)
    ages, vector = served.predict(crops)
    network = load_checkpoint(TINY, finished / "best.pt")
    expected = predict(network, cache, TINY, rows)
    tolerance = 5e-3 if fp16 else 1e-4
    assert np.abs(ages - expected[:, :120]).max() < tolerance
    assert np.abs(vector[:, 12:] - expected[:, 120:]).max() < tolerance
    assert np.abs(vector[:, :12] - ages.reshape(-1, 12, 10).sum(-1)).max() < 1e-5


def test_a_spec_replaces_an_earlier_one(tmp_path: Path) -> None:
    """So that what cannot be written whole leaves the earlier one as it was."""
    write = functools.partial(
        write_spec, TINY, tmp_path / "tiny.onnx", "0" * 64, name="tiny", licence="", data=[]
    )
    earlier, spec = tmp_path / "earlier.json", write(version="1", description="")
    earlier.hardlink_to(spec)
    write(version="2", description="")
    assert [json.loads(path.read_text())["version"] for path in (earlier, spec)] == ["1", "2"]


def test_an_export_that_differs_is_not_kept(
    cache: FaceCache, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in half precision are compared before they are rounded."""
    monkeypatch.setattr(export, "PARITY_TOLERANCE", -1.0)
    crops = plain_crops(cache, TINY, np.arange(4))
    with pytest.raises(FacewiseError, match="differs from PyTorch"):
        export_onnx(TINY, finished / "best.pt", tmp_path / "t.onnx", crops=crops, fp16=True)
    assert not (tmp_path / "t.onnx").exists()


def test_an_export_is_compared_on_no_more_faces_than_memory_holds(
    finished: Path, cache: FaceCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However many there are in val: all of them go through the network at once."""
    with np.load(cache.folder / "index.npz") as stored:
        rows = np.resize(cache.rows("val"), 6_000)
        index = {n: v if n == "fingerprint" else v[rows] for n, v in stored.items()}
    np.savez(tmp_path / "index.npz", **index)
    shutil.copy(cache.folder / "pixels.bin", tmp_path)
    command = ["export", "--config", finished / "config.json", "--runs", finished.parent]
    command += ["--cache", tmp_path, "--out", tmp_path, "--name", "tiny", "--version", "1"]
    assert CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False).exit_code == 0
    assert re.search(r"of PyTorch on 1[2-4]\d faces", caplog.text)


@pytest.mark.parametrize("fp16", [False, True])
def test_what_is_no_number_is_not_exported(
    cache: FaceCache, finished: Path, tmp_path: Path, fp16: bool
) -> None:
    """NaN exceeds no tolerance, and half precision holds no weight over 65,504."""
    stored = torch.load(finished / "best.pt", weights_only=True)
    if fp16:
        stored["model"]["head.hidden.weight"][0] = 1e5
        stored["model"]["head.output.weight"][:, 0] = 0
    else:
        stored["model"]["head.output.bias"][120] = float("nan")
    torch.save(stored, tmp_path / "best.pt")
    crops = plain_crops(cache, TINY, np.arange(4))
    with pytest.raises(FacewiseError, match="differs from PyTorch by nan"):
        export_onnx(TINY, tmp_path / "best.pt", tmp_path / "t.onnx", crops=crops, fp16=fp16)
    assert not (tmp_path / "t.onnx").exists()


def test_an_export_without_the_norms_of_its_backbone_is_no_start(
    cache: FaceCache, tmp_path: Path
) -> None:
    network = dataclasses.replace(TINY.network, backbone="mobilenet_v2")
    config = dataclasses.replace(TINY, network=network)
    torch.save({"model": bare_network(config).state_dict()}, tmp_path / "best.pt")
    crops = plain_crops(cache, config, np.arange(2))
    export_onnx(config, tmp_path / "best.pt", tmp_path / "v2.onnx", crops=crops)
    with pytest.raises(OptionError, match=r"folded into its export.* best\.pt"):
        load_exported(bare_network(config), tmp_path / "v2.onnx")


def test_the_norms_of_frozen_stages_do_not_learn(cache: FaceCache, tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY,
        network=dataclasses.replace(TINY.network, backbone="mobilenet_v2"),
        optim=dataclasses.replace(TINY.optim, epochs=1, frozen_stages=3),
    )
    state = torch.load(run(cache, tmp_path, config) / "last.pt", weights_only=True)["model"]
    for name, value in state.items():
        if name.endswith("running_mean"):
            frozen = name.startswith(tuple(f"backbone.stages.{stage}." for stage in range(3)))
            assert bool((value == 0).all()) is frozen, name


def test_an_attribute_that_no_face_has_a_label_of_is_named(
    cache: FaceCache, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unlabelled(cache, ["csv"])
    assert not caplog.text
    unknown = np.full(len(cache), -1, np.int8)
    warn_of_unlabelled(dataclasses.replace(cache, ethnicities=unknown), ["csv"])
    assert "no picture of the split train has a label of ethnicity" in caplog.text
    assert "gender" not in caplog.text


def test_a_version_never_comes_to_mean_other_weights(
    cache: FaceCache, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = torch.load(finished / "best.pt", weights_only=True)
    stored["model"]["head.output.bias"] += 1
    torch.save(stored, tmp_path / "other.pt")
    out = tmp_path / "out"
    export_to_out = functools.partial(
        export_model,
        TINY,
        folder=out,
        crops=plain_crops(cache, TINY, np.arange(4)),
        name="tiny",
        description="",
        licence="test",
        data=[],
    )
    first = finished / "best.pt"
    for name, version in (
        *((name, "1") for name in ("a/b", "", "tiny@1")),
        *(("tiny", version) for version in ("x y", "", "1.2.3", "5.", "1.2b")),
    ):
        with pytest.raises(OptionError, match="or two with a dot between them"):
            export_to_out(checkpoint=first, name=name, version=version)
    assert not out.exists()
    spec = json.loads(export_to_out(checkpoint=first, version="5").read_text())
    spec |= {"version": "5.1", "calibration": {"temperatures": {}}, "figures": {"faces": 4}}
    (out / "tiny.json").write_text(json.dumps(spec))
    # The same weights may be exported again: they keep their calibration and its number.
    before = load_spec(export_to_out(checkpoint=first, version="5"))
    assert json.loads(before.path.read_text()) == spec
    for version in ("5", "5.2"):
        with pytest.raises(
            OptionError, match=r"already has tiny@5.1 with other weights: raise --version"
        ):
            export_to_out(checkpoint=tmp_path / "other.pt", version=version)
    with monkeypatch.context() as patched:
        patched.setattr(export, "PARITY_TOLERANCE", -1.0)
        with pytest.raises(FacewiseError, match="differs from PyTorch"):
            export_to_out(checkpoint=tmp_path / "other.pt", version="6")
    assert {path.name for path in out.iterdir()} == {"tiny.onnx", "tiny.json"}
    AttributeModel(before, threads=1)  # the weights still have the hash in the spec
    after = load_spec(export_to_out(checkpoint=tmp_path / "other.pt", version="6"))
    AttributeModel(after, threads=1)
    assert (after.version, after.file) == ("6", "tiny.onnx")
    assert after.sha256 != before.sha256


def test_a_checkpoint_is_loaded_without_what_its_run_started_from(finished: Path) -> None:
    network = dataclasses.replace(TINY.network, init="faceres")
    load_checkpoint(dataclasses.replace(TINY, network=network), finished / "best.pt")
    with pytest.raises(OptionError, match="train tiny first"):
        load_checkpoint(TINY, finished / "none.pt")


def test_pictures_of_a_csv_are_learnt_from(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the command, in folders given to it; standard output only names the run's."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    faces = sorted((pictures / "faces").glob("*.webp"))[:12]
    rows = [f"{path},{20 + i},{'train' if i < 8 else 'val'}" for i, path in enumerate(faces)]
    listing, config = tmp_path / "faces.csv", tmp_path / "mine.toml"
    listing.write_text("\n".join(["path,age,split", *rows]))
    config.write_text(
        'datasets = ["csv"]\n[network]\nsize_px = 32\nhidden_dim = 256\n'
        "[optim]\nepochs = 1\nbatch_size = 4\nwarmup_steps = 1\n"
    )
    where: Any = {"data": listing, "cache": tmp_path / "cache", "runs": tmp_path / "runs"}
    cli.train.train(config=config, workers=0, threads=1, **where)
    streams = capsys.readouterr()
    assert streams.out == f"{tmp_path / 'runs/mine'}\n"
    assert "images/s" in streams.err
    assert [row["epoch"] for row in log_of(tmp_path / "runs/mine")] == ["1"]
    listing.write_text("\n".join(["path,age,split", *rows[:8]]))
    with pytest.raises(OptionError, match=r"no picture of a CSV .* none in val: .* column split"):
        cli.train.train(config=config, **where)


def test_another_seed_is_trained_and_a_checkpoint_of_it_exported(
    cache: FaceCache, tmp_path: Path
) -> None:
    """By the commands; the run stops when its minutes are over."""
    config, runs, out = (tmp_path / name for name in ("mine.toml", "runs", "out"))
    config.write_text(
        'datasets = ["csv"]\n[network]\nsize_px = 32\nhidden_dim = 256\n'
        "[optim]\nepochs = 2\nbatch_size = 4\nbfloat16 = false\n"
    )

    def command(name: str, *options: object) -> None:
        where = ["--config", config, "--cache", cache.folder, "--runs", runs, "--seed", 9]
        words = [name, *map(str, [*where, *options])]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0

    faces = cache.folder.parent / "faces.csv"
    command("train", "--data", faces, "--workers", 0, "--threads", 1, "--minutes", 0)
    assert len(log_of(runs / "mine-seed9")) == 1
    assert json.loads((runs / "mine-seed9/config.json").read_text())["optim"]["seed"] == 9

    kept = shutil.copytree(runs / "mine-seed9", tmp_path / "kept") / "best.pt"
    (runs / "mine-seed9/best.pt").unlink()
    named = ["--name", "mine", "--version", 3, "--description", "Of one epoch."]
    command("export", "--out", out, "--checkpoint", kept, "--fp16", *named)
    spec = load_spec(out / "mine.json")
    assert (spec.name, spec.version, spec.description) == ("mine", "3", "Of one epoch.")
    settings = load_config(config, seed=9)
    crops = plain_crops(cache, settings, np.arange(2))
    digest = export_onnx(settings, kept, tmp_path / "mine.onnx", crops=crops, fp16=True)
    assert digest == spec.sha256


def documented_example() -> str:
    """``mine.toml`` as it is in the documentation."""
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    return page.split("```toml\n")[1].split("```")[0]


def test_the_documented_example_tells_bright_pictures_from_dark_ones(
    cache: FaceCache, tmp_path: Path
) -> None:
    """Not only how frequent each is: a network that sees nothing comes no lower than ln 2."""
    path = tmp_path / "mine.toml"
    path.write_text(documented_example())
    config = load_config(path)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=3))
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    pixels = cache.pixels // 4
    for row in np.flatnonzero(cache.genders):
        dataclasses.replace(cache, pixels=pixels).image(int(row))[:] += 191
    pixels.tofile(folder / "pixels.bin")
    unknown = np.full_like(cache.ethnicities, -1)
    ageless = np.zeros_like(cache.age_ranges)
    faces = dataclasses.replace(open_cache(folder), age_ranges=ageless, ethnicities=unknown)
    rows = np.tile(np.arange(22), 3)  # as many of each
    torch.set_num_threads(1)
    torch.manual_seed(config.optim.seed)
    loop = make_loop(make_network(config), faces, config, rows, LabelTable(faces), workers=0)
    losses = [loop.run_epoch(epoch)["train_loss"] for epoch in range(config.optim.epochs)]
    assert losses[-1] < math.log(2) / 2


def test_the_documented_example_trains_on_splits_of_a_list(pictures: Path, tmp_path: Path) -> None:
    """But for the number of epochs."""
    text = documented_example()
    config, listing, splits = (tmp_path / name for name in ("mine.toml", "faces.csv", "s.csv"))
    assert "epochs = 30\n" in text
    config.write_text(text.replace("epochs = 30\n", "epochs = 1\n"))
    faces = sorted((pictures / "faces").glob("*.webp"))
    listing.write_text(
        "\n".join(["path,age", *(f"{path},{20 + i}" for i, path in enumerate(faces))])
    )
    where: Any = {"data": listing, "cache": tmp_path / "cache", "runs": tmp_path / "runs"}
    with pytest.raises(OptionError, match="or name a list of splits with --splits"):
        cli.train.train(config=config, **where)
    dealt = [f"{path.name},{'val' if i < 3 else 'train'}," for i, path in enumerate(faces)]
    splits.write_text("\n".join(["file,split,duplicate_group", *dealt]))
    cli.train.train(config=config, split_list=splits, workers=0, threads=1, **where)
    assert [row["epoch"] for row in log_of(tmp_path / "runs/mine")] == ["1"]
    assert len(open_cache(tmp_path / "cache").rows("val")) == 3


def test_training_can_start_from_an_export(
    cache: FaceCache, finished: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    crops = plain_crops(cache, TINY, np.arange(4))
    export_onnx(TINY, finished / "best.pt", path, crops=crops, fp16=True)
    network = AttributeNetwork("mobilenet_v1", hidden_dim=256, dropout=0.2)
    load_exported(network, path)
    stored = torch.load(finished / "best.pt", weights_only=True)["model"]
    assert all(
        torch.allclose(value, stored[name], atol=1e-3, rtol=1e-3)
        for name, value in network.state_dict().items()
    )
    with pytest.raises(OptionError, match="architecture"):
        load_exported(AttributeNetwork("mobilenet_v1", hidden_dim=64, dropout=0.2), path)


def test_a_run_with_another_head_lends_its_backbone(finished: Path) -> None:
    stored = torch.load(finished / "best.pt", weights_only=True)["model"]
    same = AttributeNetwork("mobilenet_v1", hidden_dim=256, dropout=0.2)
    load_run(same, finished / "best.pt")
    assert all(torch.equal(value, stored[name]) for name, value in same.state_dict().items())
    for hidden_dim, by_decade in ((64, False), (256, True)):
        other = AttributeNetwork(
            "mobilenet_v1", hidden_dim=hidden_dim, dropout=0.2, by_decade=by_decade
        )
        untaught = {name: value.clone() for name, value in other.head.state_dict().items()}
        load_run(other, finished / "best.pt")
        for name, value in other.backbone.state_dict().items():
            assert torch.equal(value, stored[f"backbone.{name}"])
        for name, value in other.head.state_dict().items():
            assert torch.equal(value, untaught[name])
    with pytest.raises(OptionError, match="backbone"):
        load_run(
            AttributeNetwork("mobilenet_v2", hidden_dim=256, dropout=0.2), finished / "best.pt"
        )


def test_committed_configs_can_be_read() -> None:
    for path in (Path(__file__).parents[2] / "configs").glob("*.toml"):
        assert load_config(path).datasets


def test_another_seed_is_another_run() -> None:
    path = Path(__file__).parents[2] / "configs/default.toml"
    plain, other = load_config(path), load_config(path, seed=9)
    assert (other.name, other.optim.seed) == ("default-seed9", 9)
    optim = dataclasses.replace(other.optim, seed=plain.optim.seed)
    assert dataclasses.replace(other, name=plain.name, optim=optim) == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[optim]\nlearning_rate = 1", "optim.learning_rate is unknown; known are batch_norm, ba"),
        ("optimiser = 1", "toml: optimiser is unknown; known are augment, datasets, loss, name, n"),
        ("init = 'random'", "init is unknown: init belongs in the table [network]"),
        ("[optim]\nlr_head = 1\ninit = 'random'", "optim.init is unknown: init belongs in the ta"),
        ("[optim]\ndatasets = ['csv']", "datasets belongs above the first table"),
        ("network = 3", "network must be a table of options, not 3"),
        ("[optim]\nepochs = '8'", "optim.epochs must be a valid integer, not '8'"),
        ("[optim]\nepochs = 8.0", "optim.epochs must be a valid integer, not 8.0"),
        ("[optim]\nepochs = true", "optim.epochs must be a valid integer, not True"),
        ("[optim]\nlr_head = true", "optim.lr_head must be a valid number, not True"),
        ("[optim]\nlr_head = '1'", "optim.lr_head must be a valid number, not '1'"),
        ("[optim]\nbfloat16 = 1", "optim.bfloat16 must be a valid boolean, not 1"),
        ("[network]\ninit = ''", "network.init must be a name or a path, not ''"),
        ("[network]\ninit = 3", "network.init must be a valid string, not 3"),
        ("datasets = 'fairface'", "datasets must be a list, not 'fairface'"),
        ("datasets = ['fairface', 2]", "datasets must be 'utkface', 'fairface' or 'csv', not 2"),
        ("datasets = ['utkface', 'csv']", "csv stands alone: list the pictures of utkface in the"),
        ("datasets = []", "datasets must name at least one, not []"),
        (
            "name = '../elsewhere'",
            "name must be of letters, digits, dots, dashes and underscores, not '../elsewhere'",
        ),
        ('name = "tail\\n"', "name must be of letters"),
        ("[optim]\nepochs = 0", "optim.epochs must be greater than or equal to 1, not 0"),
        ("[optim]\nbatch_size = 1", "optim.batch_size must be greater than or equal to 2, not 1"),
        ("[optim]\nseed = -1", "optim.seed must be greater than or equal to 0, not -1"),
        ("[optim]\nlr_head = -1e-3", "optim.lr_head must be greater than or equal to 0, not -0.0"),
        ("[optim]\ngradient_clip = 0", "optim.gradient_clip must be greater than 0, not 0"),
        ("[optim]\nweight_decay = inf", "optim.weight_decay must be a finite number, not inf"),
        ("[optim]\nema_decay = 1.1", "optim.ema_decay must be less than or equal to 1, not 1.1"),
        ("[network]\nsize_px = 0", "network.size_px must be greater than or equal to 32, not 0"),
        ("[augment]\nblur = nan", "augment.blur must be a finite number, not nan"),
        ("[loss]\ndistill = 1.5", "loss.distill must be less than or equal to 1, not 1.5"),
        ("[network]\npixel_mean = [1, 2]", "network.pixel_mean must be a longer list, not [1, 2]"),
        ("[network]\npixel_mean = [1, 2, 3, 4]", "network.pixel_mean must be a shorter list"),
        ("[network]\npixel_mean = [1, 2, nan]", "network.pixel_mean must be a finite number"),
        ("[network]\nlearnt_eye_height = []", "network.learnt_eye_height must be a valid number"),
        (
            "[network]\neye_distance = 0",
            "network.eye_distance must be greater than or equal to 0.2",
        ),
        ("[network]\nlearnt_eye_distance = 0", "learnt_eye_distance must be greater than or equal"),
        ("[optim]\nstart_share = 0.7\nmixed_share = 0.6\nmixed = 'x'", "sum to 1.3, more than 1"),
        ("[optim]\nmixed_share = 0.2", "mixed_share needs mixed"),
        ("[loss]\ndistill = 0.2", "distill needs teacher"),
        ("[network]\nages = 'months'", "network.ages must be 'years' or 'decades', not 'months'"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "slip.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=re.escape(words)):
        load_config(path)


@pytest.mark.parametrize("package", ["pydantic", "torch"])
def test_without_the_extra_it_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"facewise\[train\]"):
        cli.train.train(Path("any.toml"))


def test_whole_numbers_are_numbers_too(tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    path.write_text(
        "[network]\npixel_mean = [1, 2, 3.5]\npixel_std = 2\nlearnt_eye_height = 0\n"
        "[loss]\ngender = 3"
    )
    config = load_config(path)
    assert (config.network.pixel_mean, config.network.pixel_std) == ((1, 2, 3.5), 2)
    assert config.loss.gender == 3
    assert config.network.learnt_framing == (0.31, 0.0)
    assert config.name == "whole"


def test_with_batch_norm_a_run_resumes_and_leaves_a_plain_network(
    cache: FaceCache, tmp_path: Path
) -> None:
    config = dataclasses.replace(TINY, optim=dataclasses.replace(TINY.optim, batch_norm=True))
    whole = run(cache, tmp_path / "a", config)
    run(cache, tmp_path / "b", config, minutes=0.0)
    resumed = run(cache, tmp_path / "b", config)
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (whole, resumed)]
    assert any("norm" in name for name in states[0]["average"])
    assert all(
        torch.equal(value, states[1]["average"][name])
        for name, value in states[0]["average"].items()
    )
    network = load_checkpoint(TINY, whole / "best.pt")  # strict: no batch norm is left in it
    assert np.isfinite(predict(network, cache, TINY, np.arange(4))).all()


def test_a_teacher_is_the_mean_of_its_views_and_a_student_learns_from_it(
    cache: FaceCache, finished: Path, tmp_path: Path
) -> None:
    member = (TINY, finished / "best.pt")
    train_rows = cache.rows("train")
    once = ask([member], cache, train_rows, [(1.0, True)])
    network = load_checkpoint(*member)
    assert np.allclose(once, predict(network, cache, TINY, train_rows, flip=True), atol=1e-6)
    assert np.allclose(ask([member, member], cache, train_rows, [(1.0, True)]), once, atol=1e-6)
    plain = predict(network, cache, TINY, train_rows)
    assert np.array_equal(ask([member], cache, train_rows, ONE_VIEW), plain)
    out = tmp_path / "teacher.npz"
    figures = write_teacher([member], cache, out)
    assert set(figures) >= {"csv_ages", "csv_gender", "csv_ethnicity"}
    with np.load(out) as stored:
        assert stored["probabilities"].shape == (len(cache), 127)
    loss = dataclasses.replace(TINY.loss, teacher=str(out), distill=0.5)
    student = run(cache, tmp_path, dataclasses.replace(TINY, name="student", loss=loss))
    assert len(log_of(student)) == 2


def test_a_teacher_of_other_faces_is_refused(cache: FaceCache, tmp_path: Path) -> None:
    path = tmp_path / "teacher.npz"
    loss = dataclasses.replace(TINY.loss, teacher=str(path), distill=0.5)
    probabilities = np.zeros((len(cache), 127), np.float16)
    unbound: dict[str, str] = {}
    for bound in (unbound, {"fingerprint": "another"}):
        np.savez(path, probabilities=probabilities, **bound)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="run facewise teach again"):
            run(cache, tmp_path, dataclasses.replace(TINY, loss=loss))
    whole = {"fingerprint": cache.fingerprint, "sources": ["its data"]}
    np.savez(path, probabilities=probabilities, **whole)  # type: ignore[arg-type]
    run(cache, tmp_path, dataclasses.replace(TINY, loss=loss), minutes=0.0)


def test_the_original_recipe_learns_decades(cache: FaceCache, tmp_path: Path) -> None:
    config = load_config(Path(__file__).parents[2] / "configs/original.toml")
    config = dataclasses.replace(
        config,
        datasets=("csv",),
        network=dataclasses.replace(config.network, size_px=32),
        optim=dataclasses.replace(config.optim, epochs=1, batch_size=8, bfloat16=False),
    )
    folder = run(cache, tmp_path, config)
    path = tmp_path / "original.onnx"
    crops = plain_crops(cache, config, np.arange(4))
    digest = export_onnx(config, folder / "best.pt", path, crops=crops)
    spec = write_spec(
        config, path, digest, name="original", version="1", description="", licence="", data=[]
    )
    ages, _ = AttributeModel(load_spec(spec), threads=1).predict(crops)
    by_decade = ages.reshape(-1, 12, 10)
    assert np.allclose(by_decade, by_decade[..., :1], atol=1e-6)  # all years of a decade are alike


def test_the_binary_loss_wants_decades_and_years(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text('[loss]\nkind = "binary"\n')
    with pytest.raises(OptionError, match="decades"):
        load_config(path)
    path.write_text('[network]\nages = "decades"\n[loss]\nkind = "binary"\n')
    with pytest.raises(OptionError, match="leave fairface out"):
        load_config(path)


def test_kept_weights_lie_between_the_start_and_the_run() -> None:
    run_state, start = {"w": torch.tensor([1.0, 5.0])}, {"w": torch.tensor([3.0, 5.0])}
    assert blended(run_state, [(0.25, start)])["w"].tolist() == [1.5, 5.0]
    assert torch.equal(blended(run_state, [(0.0, start)])["w"], run_state["w"])
    other = {"w": torch.tensor([5.0, 9.0])}
    assert blended(run_state, [(0.25, start), (0.5, other)])["w"].tolist() == [3.5, 7.0]
