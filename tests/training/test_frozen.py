"""The frozen networks as a teacher: dlib's network, its conversion, heads that know no answer."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from facewise.cli import app  # noqa: E402
from facewise.errors import OptionError  # noqa: E402
from facewise.training.backbones import DlibResNet, MobileNetV1, ResidualBlock  # noqa: E402
from facewise.training.cache import FaceCache, open_cache  # noqa: E402
from facewise.training.config import NetworkConfig, TrainConfig  # noqa: E402
from facewise.training.frozen import FOLDS, LOOKS, ask_frozen, sources, stored_features  # noqa: E402
from facewise.training.network import bare_network  # noqa: E402
from facewise.training.sources import DATASETS  # noqa: E402
from facewise.training.teach import ONE_VIEW, ask  # noqa: E402

Tensor = Any


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "convert_dlib.py"
    spec = importlib.util.spec_from_file_location("convert_dlib", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", [150, 160, 177])
def test_shapes(size: int) -> None:
    network = DlibResNet().eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, size, size)).shape == (2, 256)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 29
    network.freeze_stages(2)
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == [
        "stem.weight",
        "stem.bias",
        *(f"blocks.0.{part}" for part in ("first.weight", "first.bias")),
        *(f"blocks.0.{part}" for part in ("second.weight", "second.bias")),
    ]


def test_a_shortcut_averages_and_what_is_missing_is_zero() -> None:
    block = ResidualBlock(2, 3, down=True)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(block.second.bias, 0.5)
    x = torch.arange(2 * 8 * 8.0).view(1, 2, 8, 8)
    with torch.inference_mode():
        y = block(x)
    assert y.shape == (1, 3, 4, 4)  # the shortcut gives 4 x 4, the convolution 3 x 3
    assert float(y[0, 0, 0, 0]) == pytest.approx(0.5 + (0 + 1 + 8 + 9) / 4)
    assert float(y[0, 1, 3, 3]) == pytest.approx(64 + (54 + 55 + 62 + 63) / 4)  # no convolution
    assert float(y[0, 2, 0, 0]) == pytest.approx(0.5)  # no shortcut


def serialised(values: np.ndarray, *dimensions: int) -> bytes:
    """Serialise a tensor as dlib does: the version, four integers with their lengths, floats."""
    head = b"\x01\x02"
    for value in dimensions:
        length = (value.bit_length() + 7) // 8
        head += bytes([length]) + value.to_bytes(length, "little")
    return head + values.astype("<f4").tobytes()


def test_dlib_weights_are_read_in_order_and_affine_layers_folded(convert: ModuleType) -> None:
    rng = np.random.default_rng(2)
    convs = [m for m in DlibResNet().modules() if isinstance(m, torch.nn.Conv2d)]
    data, parts = b"\x01\x02dlib\x0eaffine_\x01\x02\x01\x05", []
    for conv in convs:
        count, outputs = conv.weight.numel(), conv.out_channels
        kernel = rng.normal(0, 0.1, count + outputs)
        affine = rng.normal(1, 0.1, 2 * outputs)
        parts.append((kernel, affine))
        data += serialised(kernel, len(kernel), 1, 1, 1) + b"\x04con_\x01\x02\x01\x03"
        data += serialised(affine, len(affine), 1, 1, 1) + b"\x07affine_"
    last = rng.normal(0, 0.1, 256 * 128)
    state, found = convert.convert(data + serialised(last, 256, 128, 1, 1) + b"\x01")
    network = DlibResNet()
    network.load_state_dict(state)
    assert np.allclose(found.numpy().ravel(), last, atol=1e-6)
    for conv, (kernel, affine) in zip(
        (m for m in network.modules() if isinstance(m, torch.nn.Conv2d)), parts, strict=True
    ):
        outputs, first = conv.out_channels, kernel[: conv.weight[0].numel()]
        assert np.allclose(conv.weight[0].detach().numpy().ravel(), first * affine[0], atol=1e-6)
        bias = kernel[-outputs:] * affine[:outputs] + affine[outputs:]
        assert np.allclose(conv.bias.detach().numpy(), bias, atol=1e-6)
    with pytest.raises(SystemExit, match="not the 59 of dlib's network"):
        convert.convert(data)


@pytest.fixture(scope="module")
def beside(cache: FaceCache, tmp_path_factory: pytest.TempPathFactory) -> FaceCache:
    """The cache, with random weights of both pretrained networks in its parent folder."""
    folder = tmp_path_factory.mktemp("frozen")
    shutil.copytree(cache.folder, folder / "cache")
    torch.manual_seed(3)
    networks = MobileNetV1(), DlibResNet()
    for network in networks:
        for part in network.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight)
    backbone, dlib = (network.state_dict() for network in networks)

    def linear(inputs: int, outputs: int) -> dict[str, Tensor]:
        return {"weight": torch.randn(outputs, inputs) * 0.05, "bias": torch.zeros(outputs)}

    heads = {"feats": linear(1024, 256), "age": linear(256, 100), "gender": linear(256, 1)}
    torch.save({"backbone": backbone, **heads}, folder / "faceres.pt")
    torch.save({"backbone": dlib}, folder / "dlib_resnet.pt")
    return open_cache(folder / "cache")


@pytest.fixture(scope="module")
def asked(beside: FaceCache) -> tuple[Any, Any]:
    """What the heads answer on train and on val."""
    return ask_frozen(beside)


def test_no_head_has_learnt_the_face_that_it_answers_for(
    beside: FaceCache, asked: tuple[Any, Any]
) -> None:
    train = beside.rows("train")
    answers, on_val = asked
    assert answers.shape == (len(train), 127)
    assert on_val.shape == (len(beside.rows("val")), 127)
    assert np.allclose(answers[:, :120].sum(1), 1, atol=1e-4)
    assert np.allclose(on_val.sum(1), 3, atol=1e-4)
    fold = np.array([zlib.crc32(group.encode()) % FOLDS for group in beside.groups[train]])
    swapped = beside.genders.copy()
    first = fold == fold[0]
    swapped[train[first]] = 1 - swapped[train[first]]
    others, _ = ask_frozen(dataclasses.replace(beside, genders=swapped))
    assert np.array_equal(others[first], answers[first])
    assert (np.abs(others[~first] - answers[~first]).max(axis=1) > 1e-6).all()


def test_a_teacher_has_its_frozen_share_of_these_heads(
    beside: FaceCache, asked: tuple[Any, Any], tmp_path: Path
) -> None:
    """By the command, from one view of each face. It names the data that the heads learnt from."""
    network = NetworkConfig(size_px=32, hidden_dim=256)
    config = TrainConfig(name="tiny", datasets=("fairface",), network=network)
    folder, out = tmp_path / "tiny", tmp_path / "teacher.npz"
    folder.mkdir()
    state = bare_network(config).state_dict()
    state["head.output.weight"] *= 300  # or all views would have the same answers
    torch.save({"model": state}, folder / "best.pt")
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    command = ["teach", str(folder / "config.json"), "--out", str(out), "--one-view"]
    command += ["--frozen-share", "0.25", "--cache", str(beside.folder), "--runs", str(tmp_path)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    members, rows = [(config, folder / "best.pt")], beside.rows("train")
    frozen, _ = asked
    with np.load(out) as stored:
        assert {*stored["sources"]} == {DATASETS["fairface"], DATASETS["csv"], *sources()}
        mixed = 0.75 * ask(members, beside, rows, ONE_VIEW) + 0.25 * frozen
        assert np.allclose(stored["probabilities"][rows], mixed, atol=1e-3)


def test_features_are_kept_for_the_faces_they_are_of(beside: FaceCache) -> None:
    rows = np.arange(3)
    found = stored_features(beside, "dlib", rows)
    assert found.shape == (3, 256)
    kept = beside.folder.parent / "dlib_resnet.pt"
    away = kept.rename(kept.with_suffix(".away"))
    try:
        again = stored_features(beside, "dlib", rows)  # read, not computed
        assert torch.equal(again, found)
        for other, asked in (
            (beside, np.arange(4)),
            (dataclasses.replace(beside, fingerprint="another"), rows),
        ):
            with pytest.raises(FileNotFoundError):
                stored_features(other, "dlib", asked)
        with pytest.raises(OptionError, match=r"dlib_resnet\.pt is missing: run .*convert_dlib"):
            ask_frozen(beside)
    finally:
        away.rename(kept)


def test_what_is_behind_the_frozen_networks_is_told() -> None:
    behind = " ".join(sources())
    assert "VGGFace2" in behind
    assert "dlib" in behind
    assert {look.network.size_px for look in LOOKS.values()} == {224, 192, 150}
