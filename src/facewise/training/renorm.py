"""Restores folded batch norms for training, and folds them again for checkpoints.

A pretrained backbone whose batch norms are folded into its convolutions runs exactly but trains
slowly, because each layer's scale has to be learnt weight by weight. So every trainable convolution
gets a batch norm with statistics measured on training pictures, and with a scale and shift that
undo them: the network starts as exactly the same function (Ioffe and Szegedy, 2015, section 3.1).
The norms are folded again in ``best.pt``, so nothing after training knows of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

EPSILON: Final = 1e-3
MOMENTUM: Final = 0.02
"""Momentum of the running statistics; low, because a batch of 64 faces is a noisy sample."""


class NormedConv(nn.Module):
    """A convolution without bias, followed by batch norm."""

    def __init__(self, conv: nn.Conv2d, mean: Tensor, variance: Tensor) -> None:
        """Wrap ``conv``, given the statistics of its outputs without bias, each ``(C,)``."""
        super().__init__()
        assert conv.bias is not None
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels, eps=EPSILON, momentum=MOMENTUM)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        with torch.no_grad():
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(variance)
            self.norm.weight.copy_((variance + EPSILON).sqrt())
            self.norm.bias.copy_(mean + conv.bias)
        conv.bias = None

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def add_batch_norm(model: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Give every trainable convolution a batch norm, without changing what the model computes.

    Args:
        model: a network of plain convolutions; those without gradients stay unchanged.
        pictures: batches of the model's input, to measure the statistics on.
    """
    convs = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad
    }
    sums = {name: torch.zeros(2, conv.out_channels) for name, conv in convs.items()}
    counts = dict.fromkeys(convs, 0)

    def measure(name: str) -> Any:
        def hook(module: nn.Conv2d, _: Any, output: Tensor) -> None:
            assert module.bias is not None
            x = output.float() - module.bias.view(1, -1, 1, 1)
            sums[name] += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
            counts[name] += x.numel() // x.shape[1]

        return hook

    hooks = [conv.register_forward_hook(measure(name)) for name, conv in convs.items()]
    model.eval()
    with torch.inference_mode():
        for batch in pictures:
            model(batch)
    for hook in hooks:
        hook.remove()
    for name, conv in convs.items():
        mean, square = (sums[name] / counts[name]).clone()
        parent, _, child = name.rpartition(".")
        wrapped = NormedConv(conv, mean, (square - mean.square()).clamp(min=0))
        setattr(model.get_submodule(parent), child, wrapped)


def folded_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the equivalent network without these batch norms.

    Scale and shift are folded into each convolution: ``w * g / s`` and ``b - m * g / s``.
    """
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if not isinstance(module, NormedConv):
            continue
        norm = module.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
        state[f"{name}.weight"] = module.conv.weight.detach() * scale.view(-1, 1, 1, 1)
        state[f"{name}.bias"] = norm.bias.detach() - norm.running_mean * scale
    return state
