"""EfficientNet-Lite0: its shapes, its padding by hand, its conversion, its export."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from facewise.errors import OptionError  # noqa: E402
from facewise.training.backbones import EfficientNetLite0, SameConv  # noqa: E402
from facewise.training.cache import FaceCache  # noqa: E402
from facewise.training.config import NetworkConfig, OptimConfig, TrainConfig  # noqa: E402
from facewise.training.data import plain_crops  # noqa: E402
from facewise.training.export import export_onnx  # noqa: E402
from facewise.training.network import (  # noqa: E402
    AttributeNetwork,
    load_backbone,
    load_exported,
    make_network,
)
from facewise.training.renorm import NormedConv, add_batch_norm  # noqa: E402
from facewise.training.train import parameter_groups, train  # noqa: E402

Tensor = Any

LITE = TrainConfig(
    name="lite",
    datasets=("csv",),
    network=NetworkConfig(
        backbone="efficientnet_lite0",
        size_px=48,  # 3 x 3 before the last stride: an odd side
        hidden_dim=32,
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=128.0,
    ),
    optim=OptimConfig(epochs=1, batch_size=8, warmup_steps=1, bfloat16=False, batch_norm=True),
)


def make_alive(module: Any) -> None:
    """Random weights that let a picture through; with PyTorch's defaults the signal dies away."""
    torch.manual_seed(7)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)


@pytest.fixture(scope="module")
def convert() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "convert_efficientnet_lite.py"
    spec = importlib.util.spec_from_file_location("convert_efficientnet_lite", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    """Random weights with the names and shapes of those in the package's file."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        spread = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{conv}.weight"] = weight * spread
        for part, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", 0), ("running_var", 1)):
            state[f"{norm}.{part}"] = low + 0.5 * torch.rand(outputs, generator=generator)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(9)

    add("_conv_stem", "_bn0", 32, 3, 3)
    inputs, index = 32, 0
    for kernel, expansion, outputs, repeats, _ in EfficientNetLite0.LAYOUT:
        for _ in range(repeats):
            block, hidden = f"_blocks.{index}", inputs * expansion
            if expansion > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", hidden, inputs, 1)
            add(f"{block}._depthwise_conv", f"{block}._bn1", hidden, 1, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", outputs, hidden, 1)
            inputs, index = outputs, index + 1
    add("_conv_head", "_bn1", 1280, 320, 1)
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return state


def as_published(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Features by the paper's layout and the package's names, including the batch norms."""
    from torch.nn import functional

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = w[f"{conv}.weight"]
        pads = []
        for side in (x.shape[3], x.shape[2]):  # TensorFlow's SAME, as documented
            total = max((-(-side // stride) - 1) * stride + kernel.shape[2] - side, 0)
            pads += [total // 2, total - total // 2]
        x = functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=groups)
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gain, shift = (w[f"{norm}.{part}"] for part in parts)
        return functional.batch_norm(x, mean, variance, gain, shift, eps=1e-3)

    x = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # by block
    for index in range(16):
        block, before = f"_blocks.{index}", x
        if index:
            x = layer(x, f"{block}._expand_conv", f"{block}._bn0").clamp(0, 6)
        stride = strides.get(index, 1)
        depthwise = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride, x.shape[1])
        x = layer(depthwise.clamp(0, 6), f"{block}._project_conv", f"{block}._bn2")
        if stride == 1 and x.shape == before.shape:
            x = x + before
    return layer(x, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))


@pytest.mark.parametrize("size", [64, 72])
def test_shapes(size: int) -> None:
    backbone = EfficientNetLite0()
    assert len(backbone.stages) == 18
    # 4,652,008 parameters are published, including the classifier's and two per batch-norm channel;
    # here each channel has one, its bias.
    classifier, channels = 1280 * 1000 + 1000, 21_008
    assert sum(p.numel() for p in backbone.parameters()) == 4_652_008 - classifier - channels
    assert backbone(torch.zeros(2, 3, size, size)).shape == (2, 1280)


@pytest.mark.parametrize(
    ("kernel", "side", "expected"),
    [
        # A row of 1, 2, 3, ... under a kernel of ones, stride 2: sums worked out by hand.
        (3, 4, [1 + 2 + 3, 3 + 4]),  # even: nothing before, one after
        (3, 5, [1 + 2, 2 + 3 + 4, 4 + 5]),  # odd: one before, one after
        (5, 4, [1 + 2 + 3 + 4, 2 + 3 + 4]),  # even: one before, two after
        (5, 5, [1 + 2 + 3, 1 + 2 + 3 + 4 + 5, 3 + 4 + 5]),  # odd: two and two
    ],
)
def test_padding_is_tensorflows(kernel: int, side: int, expected: list[int]) -> None:
    conv = SameConv(1, 1, kernel=kernel, stride=2)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    row = torch.arange(1.0, side + 1).expand(1, 1, side, side)
    with torch.no_grad():
        conv.weight[:, :, kernel // 2 - (1 - side % 2)] = 1  # the kernel's row on the first row
        across = conv(row)
        conv.weight.copy_(conv.weight.transpose(2, 3).clone())
        down = conv(row.transpose(2, 3))
    assert across[0, 0, 0].tolist() == expected
    assert down[0, 0, :, 0].tolist() == expected


def test_a_row_of_numbers_shows_where_tensorflow_pads() -> None:
    """Symmetric padding, as in PyTorch, gives other sums on an even side."""
    ours = SameConv(1, 1, stride=2)
    theirs = torch.nn.Conv2d(1, 1, 3, 2, 1)
    theirs.load_state_dict(ours.state_dict())
    even, odd = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 9, 9)
    assert torch.equal(ours(odd), theirs(odd))
    assert not torch.allclose(ours(even), theirs(even))


def test_frozen_stages_get_no_gradient_and_rates_rise_from_the_bottom() -> None:
    network = make_network(dataclasses.replace(LITE))
    network.backbone.freeze_stages(3)
    network(torch.zeros(1, 3, 48, 48)).sum().backward()
    learnt = {name for name, p in network.named_parameters() if p.grad is not None}
    assert not any(name.startswith(f"backbone.stages.{k}.") for name in learnt for k in range(3))
    assert {f"backbone.stages.{k}" for k in range(3, 18)} <= {
        ".".join(name.split(".")[:3]) for name in learnt
    }
    optim = dataclasses.replace(LITE.optim, lr_backbone=1.0, lr_head=7.0, layer_decay=0.5)
    groups = parameter_groups(network, dataclasses.replace(LITE, optim=optim))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {n: rates[id(p)] for n, p in network.named_parameters() if p.requires_grad}
    assert by_name["backbone.stages.17.0.weight"] == 1.0
    assert by_name["backbone.stages.16.depthwise.weight"] == 0.5
    assert by_name["backbone.stages.3.expand.bias"] == 0.5**14
    assert by_name["head.output.weight"] == 7.0


def test_batch_norm_comes_back_to_every_convolution_that_learns() -> None:
    backbone = EfficientNetLite0()
    make_alive(backbone)
    backbone.freeze_stages(2)
    x = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    plain = backbone.eval()(x).detach()
    add_batch_norm(backbone, [x])
    assert sum(isinstance(m, NormedConv) for m in backbone.modules()) == 15 * 3 + 1
    assert torch.allclose(backbone.eval()(x), plain, atol=1e-3)


def test_converted_weights_compute_what_the_published_ones_do(
    convert: ModuleType, source: dict[str, Tensor], tmp_path: Path
) -> None:
    state = convert.convert(source)
    x = torch.randn(2, 3, 72, 72, generator=torch.Generator().manual_seed(3))
    backbone = EfficientNetLite0()
    backbone.load_state_dict(state)
    with torch.inference_mode():
        expected, features = as_published(source, x), backbone(x)
    assert float(expected.std()) > 0.01  # there is something to compare
    assert float((features - expected).abs().max() / expected.abs().max()) < 1e-4
    path = tmp_path / "lite.pt"
    torch.save({"backbone": state}, path)
    network = AttributeNetwork("efficientnet_lite0", hidden_dim=32)
    load_backbone(network, path)
    assert all(torch.equal(v, state[k]) for k, v in network.backbone.state_dict().items())
    with pytest.raises(OptionError, match="does not fit this backbone"):
        load_backbone(AttributeNetwork("mobilenet_v2", hidden_dim=32), path)


def test_pictures_reach_the_converted_weights_as_they_were_pretrained() -> None:
    network = make_network(LITE)
    picture = torch.full((1, 3, 8, 8), 255.0)
    assert float(((picture - network.mean) / network.std).max()) == 1.0


def test_a_run_of_it_exports_and_starts_another(cache: FaceCache, tmp_path: Path) -> None:
    """Training, folding, ONNX Runtime and back: the same function throughout."""
    folder = train(LITE, cache_folder=cache.folder, runs_folder=tmp_path, workers=0, threads=1)
    path = tmp_path / "lite.onnx"
    crops = plain_crops(cache, LITE, np.arange(4))
    export_onnx(LITE, folder / "best.pt", path, crops=crops)  # raises if the outputs differ
    network = make_network(LITE)
    load_exported(network, path)
    stored = torch.load(folder / "best.pt", weights_only=True)["model"]
    assert all(torch.allclose(v, stored[k]) for k, v in network.state_dict().items())
