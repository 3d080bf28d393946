"""Batch norm put back and folded away again computes what the plain network computed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from facewise.training.backbones import MobileNetV1  # noqa: E402
from facewise.training.renorm import NormedConv, add_batch_norm, folded_state  # noqa: E402


def make_pictures() -> list[object]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(8, 3, 64, 64, generator=generator) * 200 - 100 for _ in range(4)]


def make_backbone(frozen: int = 0) -> MobileNetV1:
    torch.manual_seed(5)
    backbone = MobileNetV1()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, 0.3, 0.5)
    backbone.freeze_stages(frozen)
    return backbone.eval()


def test_the_network_starts_as_the_same_function() -> None:
    plain, normed = make_backbone(), make_backbone()
    pictures = make_pictures()
    add_batch_norm(normed, pictures)
    assert sum(isinstance(m, NormedConv) for m in normed.modules()) == 27
    x = pictures[0]
    assert torch.allclose(plain(x), normed.eval()(x), atol=1e-3)
    # In training, a batch's own statistics replace the measured ones: near, not equal.
    together = torch.cat(pictures)
    assert torch.allclose(plain(together), normed.train()(together), atol=0.05)


def test_training_it_and_folding_gives_a_plain_network_that_agrees() -> None:
    normed = make_backbone(frozen=4)
    pictures = make_pictures()
    add_batch_norm(normed, pictures)
    assert isinstance(normed.depthwise[2], torch.nn.Conv2d)  # frozen: left unchanged
    before = normed.eval()(pictures[1]).detach()
    optimizer = torch.optim.SGD([p for p in normed.parameters() if p.requires_grad], lr=0.03)
    normed.train()
    for x in pictures:
        loss = normed(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = normed.eval()(pictures[1]).detach()
    plain = make_backbone()
    plain.load_state_dict(folded_state(normed))
    assert torch.allclose(plain(pictures[1]), after, atol=1e-3)
    assert not torch.allclose(before, after, atol=1e-2)
