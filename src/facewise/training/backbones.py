"""Backbones by name: from a batch of normalised pictures to a batch of feature vectors.

``mobilenet_v1`` (Howard et al., 2017), ``mobilenet_v2`` (Sandler et al., 2018) and ``dlib_resnet``
(King, 2017) are implemented here; any other name is looked up in timm, if installed. All but
``mobilenet_v2`` have biases and no batch norm, because it is folded into their pretrained weights
(``scripts/convert_*.py``); ``facewise.training.renorm`` restores it for training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from facewise.errors import OptionError


class Conv(nn.Conv2d):
    """A convolution that trains in single precision where bfloat16 is slow.

    On CPUs, PyTorch's backward pass through a depthwise convolution with a stride takes several
    times as long in bfloat16 as in float32; for others it is faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        slow = self.groups > 1 and self.stride[0] > 1
        if slow and self.weight.requires_grad and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class SameConv(Conv):
    """A 3 x 3 convolution padded as in TensorFlow: with stride 2, first at the bottom and right.

    The padding depends on the parity of the input: an even side gets (0, 1), an odd one (1, 1).
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            x = functional.pad(x, (x.shape[-1] % 2, 1, x.shape[-2] % 2, 1))
        return super().forward(x)


class MobileNetV1(nn.Module):
    """MobileNet v1 of width 1.0: a stem and 13 depthwise-separable blocks, with ReLU6.

    Input ``(N, 3, H, W)``, output ``(N, 1024)`` after global average pooling.
    """

    feature_dim: Final = 1024
    LAYOUT: Final[tuple[tuple[int, int, int], ...]] = (
        # inputs, outputs, stride
        (32, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 512, 2),
        *((512, 512, 1),) * 5,
        (512, 1024, 2),
        (1024, 1024, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, stride=2)
        self.depthwise = nn.ModuleList(
            SameConv(inputs, inputs, stride=stride, groups=inputs)
            for inputs, _, stride in self.LAYOUT
        )
        self.pointwise = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 1) for inputs, outputs, _ in self.LAYOUT
        )
        self.frozen_stages = 0

    def reset_parameters(self) -> None:
        """Draw weights to train from nothing (He et al., 2015).

        PyTorch's own make signals smaller from layer to layer. A network of 27 layers without norms
        would see no difference between pictures, and learn none.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def freeze_stages(self, count: int) -> None:
        self.frozen_stages = count
        frozen = [self.stem, *self.depthwise[: count - 1], *self.pointwise[: count - 1]]
        for module in frozen if count else []:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen_stages == 0):
            x = functional.relu6(self.stem(x))  # (N, 32, H/2, W/2)
        for index, (depthwise, pointwise) in enumerate(
            zip(self.depthwise, self.pointwise, strict=True), start=1
        ):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.frozen_stages):
                x = functional.relu6(depthwise(x))
                x = functional.relu6(pointwise(x))
        return x.mean(dim=(2, 3))  # (N, 1024)


def _conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        Conv(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return [*layers, nn.ReLU6()] if act else layers


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project linearly; with a shortcut if the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *(_conv_bn(inputs, hidden, 1) if expansion > 1 else []),
            *_conv_bn(hidden, hidden, 3, stride, groups=hidden),
            *_conv_bn(hidden, outputs, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.layers(x))
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """MobileNet v2, width 1.0, the original app's backbone: ``(N, 3, H, W)`` to ``(N, 1280)``."""

    feature_dim: Final = 1280
    LAYOUT: Final[tuple[tuple[int, int, int, int], ...]] = (
        # expansion, outputs, repeats, stride of the first
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Sequential(*_conv_bn(3, 32, 3, 2))]
        inputs = 32
        for expansion, outputs, repeats, stride in self.LAYOUT:
            for repeat in range(repeats):
                stages.append(
                    InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion)
                )
                inputs = outputs
        stages.append(nn.Sequential(*_conv_bn(inputs, self.feature_dim, 1)))
        self.stages = nn.Sequential(*stages)
        self.frozen_stages = 0

    def freeze_stages(self, count: int) -> None:
        self.frozen_stages = count
        for stage in self.stages[:count]:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> MobileNetV2:
        """Set training mode, in which the norms of frozen stages still keep their statistics."""
        super().train(mode)
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.stages(x)).mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut that has no weights.

    A block that halves the picture averages 2 x 2 pixels in its shortcut. Channels or pixels that
    only one of the two has count as zero in the other, as in dlib's ``add_prev``.
    """

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        stride, padding = (2, 0) if down else (1, 1)
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.second(functional.relu(self.first(x))))
        if self.down:
            x = functional.avg_pool2d(x, 2)
        channels, height, width = (max(x.shape[i], y.shape[i]) for i in (1, 2, 3))

        def filled(z: Tensor) -> Tensor:
            missing = (width - z.shape[3], height - z.shape[2], channels - z.shape[1])
            return functional.pad(z, [n for m in missing for n in (0, m)]) if any(missing) else z

        return functional.relu(filled(x) + filled(y))


class DlibResNet(nn.Module):
    """dlib's face recognition network (King, 2017): a residual network of 29 convolutions.

    Input ``(N, 3, H, W)``, output ``(N, 256)``, the layer before its 128 numbers per face. Its
    weights expect 150 x 150 pixels, minus (122.782, 117.001, 104.298), divided by 256.
    """

    feature_dim: Final = 256
    LAYOUT: Final[tuple[tuple[int, int, bool], ...]] = (
        # outputs, blocks, whether the first halves the picture
        (32, 3, False),
        (64, 4, True),
        (128, 3, True),
        (256, 3, True),
        (256, 1, True),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks: list[nn.Module] = []
        inputs = 32
        for outputs, count, down in self.LAYOUT:
            for index in range(count):
                blocks.append(ResidualBlock(inputs, outputs, down=down and index == 0))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def freeze_stages(self, count: int) -> None:
        for module in [self.stem, *self.blocks][:count]:
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)  # (N, 32, H/4, W/4)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))  # (N, 256)


class TimmBackbone(nn.Module):
    """Any timm model as a feature extractor, without its classifier."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise OptionError(
                f"backbone {name!r} is not one of {', '.join(BACKBONES)}; for timm's, install timm"
            ) from error
        if not timm.is_model(name):
            raise OptionError(f"no backbone {name!r}: use {', '.join(BACKBONES)}, or a timm name")
        self.model = timm.create_model(name, pretrained=False, num_classes=0)
        # Some networks have a wider layer between their last features and the classifier.
        self.feature_dim = int(getattr(self.model, "head_hidden_size", self.model.num_features))

    def freeze_stages(self, count: int) -> None:
        if count:
            raise OptionError("frozen stages are known for facewise's own backbones only; use 0")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(x))


BACKBONES: Final[dict[str, Callable[[], nn.Module]]] = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
    "dlib_resnet": DlibResNet,
}


def make_backbone(name: str) -> nn.Module:
    """Build a backbone with random weights.

    Raises:
        OptionError: neither facewise nor timm knows the name, or timm is not installed.
    """
    return BACKBONES[name]() if name in BACKBONES else TimmBackbone(name)
