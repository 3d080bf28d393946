"""Backbones: TensorFlow's padding, frozen stages, learning rates, and starting from weights."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from facewise.errors import OptionError  # noqa: E402
from facewise.training.backbones import SameConv, make_backbone  # noqa: E402
from facewise.training.config import NetworkConfig, OptimConfig, TrainConfig  # noqa: E402
from facewise.training.network import (  # noqa: E402
    AttributeNetwork,
    bare_network,
    load_backbone,
    make_network,
)
from facewise.training.train import parameter_groups  # noqa: E402


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        # A row of 1, 2, 3, ... under a kernel of ones, stride 2: sums worked out by hand.
        (4, [1 + 2 + 3, 3 + 4]),  # even: nothing before, one after
        (5, [1 + 2, 2 + 3 + 4, 4 + 5]),  # odd: one before, one after
    ],
)
def test_padding_is_tensorflows(side: int, expected: list[int]) -> None:
    conv = SameConv(1, 1, stride=2)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    row = torch.arange(1.0, side + 1).expand(1, 1, side, side)
    with torch.no_grad():
        conv.weight[:, :, side % 2] = 1  # the kernel's row on the first row
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
    optim = OptimConfig(lr_backbone=1.0, lr_head=7.0, layer_decay=0.5)
    config = TrainConfig("x", network=NetworkConfig(size_px=32, hidden_dim=32), optim=optim)
    network = make_network(config)
    network.backbone.freeze_stages(3)  # the stem and two blocks
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    learnt = {name for name, p in network.backbone.named_parameters() if p.grad is not None}
    assert learnt == {
        f"{kind}.{block}.{part}"
        for kind in ("depthwise", "pointwise")
        for block in range(2, 13)
        for part in ("weight", "bias")
    }
    groups = parameter_groups(network, config)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {n: rates[id(p)] for n, p in network.named_parameters() if p.requires_grad}
    assert by_name["backbone.pointwise.12.weight"] == 1.0
    assert by_name["backbone.depthwise.11.weight"] == 0.5
    assert by_name["backbone.pointwise.2.bias"] == 0.5**10
    assert by_name["head.output.weight"] == 7.0


@pytest.mark.parametrize(
    ("backbone", "size"), [("mobilenet_v1", 96), ("mobilenet_v2", 96), ("dlib_resnet", 150)]
)
def test_a_start_from_nothing_lets_pictures_through(backbone: str, size: int) -> None:
    """In training mode, in which norms use the batch's statistics."""
    torch.manual_seed(0)
    network = make_network(TrainConfig("x", network=NetworkConfig(backbone, size, hidden_dim=32)))
    pictures = torch.rand(4, 3, 6, 6).mul(255).repeat_interleave(size // 6, 2)
    pictures = pictures.repeat_interleave(size // 6, 3)
    with torch.inference_mode():
        features = network.backbone((pictures - network.mean) / network.std)
    assert features.std(dim=0).mean() > 1e-2


def test_only_a_start_from_nothing_draws_other_weights_than_pytorch(tmp_path: Path) -> None:
    """Else the seeds of all recipes would mean other heads."""
    torch.save({"model": bare_network(TrainConfig("x")).state_dict()}, tmp_path / "best.pt")
    for network in (
        NetworkConfig("mobilenet_v2", pixel_std=255.0, ages="decades"),  # as the original's recipe
        NetworkConfig("dlib_resnet"),
        NetworkConfig(init=str(tmp_path / "best.pt"), hidden_dim=64),
    ):
        config = TrainConfig("x", network=network)
        torch.manual_seed(1)
        made = make_network(config), torch.rand(1)
        torch.manual_seed(1)
        plain = bare_network(config), torch.rand(1)
        part = "" if network.init == "random" else "head."
        for name, value in plain[0].state_dict().items():
            assert not name.startswith(part) or torch.equal(made[0].state_dict()[name], value)
        assert torch.equal(made[1], plain[1])


def test_converted_weights_fit_their_own_backbone_only(tmp_path: Path) -> None:
    path = tmp_path / "dlib_resnet.pt"
    state = make_backbone("dlib_resnet").state_dict()
    torch.save({"backbone": state}, path)
    network = AttributeNetwork("dlib_resnet", hidden_dim=32)
    load_backbone(network, path)
    assert all(torch.equal(v, state[k]) for k, v in network.backbone.state_dict().items())
    with pytest.raises(OptionError, match="does not fit this backbone"):
        load_backbone(AttributeNetwork("mobilenet_v2", hidden_dim=32), path)


def test_pictures_reach_pretrained_weights_as_these_expect() -> None:
    options = NetworkConfig(hidden_dim=32, pixel_mean=(127.0, 126.0, 125.0), pixel_std=128.0)
    network = make_network(TrainConfig("x", network=options))
    picture = torch.full((1, 3, 8, 8), 255.0)
    normalised = (picture - network.mean) / network.std
    assert normalised[0, :, 0, 0].tolist() == [128 / 128, 129 / 128, 130 / 128]
