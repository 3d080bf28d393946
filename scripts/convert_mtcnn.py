"""Convert the MTCNN weights of the PyPI package facenet-pytorch 2.6.0 (MIT) to ONNX.

    pip download --no-deps facenet-pytorch==2.6.0
    python scripts/convert_mtcnn.py facenet_pytorch-2.6.0-py3-none-any.whl

The graphs take float32 pictures ``(N, H, W, 3)``, RGB, 0 to 255. Pixels were scaled by
(x - 127.5) / 128 in training; none of these networks' convolutions pads, so the scaling folds
exactly into the first one.

The networks are rewritten into equivalent ones that ONNX Runtime computes twice as fast. Its fast
convolutions keep channels in blocks of 16 and must leave that layout at every PReLU, which is
implemented only for the plain layout. So PReLU is expressed in operators that the blocked layout
supports: slope * x + (1 - slope) * relu(x), as a depthwise 1 x 1 convolution to which relu(x) is
added, with the factor 1 - slope left to the next layer. Channels are padded with zeros to whole
blocks. P-net's first PReLU, on its largest feature map, is computed after the pooling that follows
it; its last one is part of the heads. Each graph is compared with the plain network in PyTorch, and
the script fails if they differ.

The first output is the logit of a face, not its probability. Boxes are ranked by score, and near 1,
where the good ones cluster, many logits share one float32 probability and engines differ in the
last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

BLOCK = 16
"""Channels per block in ONNX Runtime's fast layout on AVX-512; elsewhere 8, which divides 16."""

WEIGHTS = Path(__file__).parent.parent / "src" / "facewise" / "weights"


def conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


class Flatten(nn.Module):
    """Flatten column by column, the array layout of the networks' original framework."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class Stage(nn.Module):
    """A trunk with heads; the first head gives the logit of a face, the others regressions."""

    def __init__(self, trunk: list[nn.Module], heads: list[nn.Module]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList(heads)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.trunk(image.permute(0, 3, 1, 2))
        first, *others = self.heads
        no_face, face = first(x).unbind(dim=1)
        return (face - no_face, *(head(x) for head in others))


def pool(size: int) -> nn.Module:
    return nn.MaxPool2d(size, 2, ceil_mode=True)


def stages() -> dict[str, tuple[Stage, list[str], tuple[int, int]]]:
    """Name to (network, weight names in order, a size to compare at)."""
    pnet = Stage(
        [*conv(3, 10, 3), pool(2), *conv(10, 16, 3), *conv(16, 32, 3)],
        [nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)],
    )
    rnet = Stage(
        [
            *conv(3, 28, 3), pool(3), *conv(28, 48, 3), pool(3), *conv(48, 64, 2),
            Flatten(), nn.Linear(576, 128), nn.PReLU(128),
        ],
        [nn.Linear(128, 2), nn.Linear(128, 4)],
    )  # fmt: skip
    onet = Stage(
        [
            *conv(3, 32, 3), pool(3), *conv(32, 64, 3), pool(3), *conv(64, 64, 3), pool(2),
            *conv(64, 128, 2), Flatten(), nn.Linear(1152, 256), nn.PReLU(256),
        ],
        [nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)],
    )  # fmt: skip
    names = {
        "pnet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 conv4_1 conv4_2",
        "rnet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 dense4 prelu4 dense5_1 dense5_2",
        "onet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 conv4 prelu4 dense5 prelu5 "
        "dense6_1 dense6_2 dense6_3",
    }
    return {
        "pnet": (pnet, names["pnet"].split(), (61, 84)),
        "rnet": (rnet, names["rnet"].split(), (24, 24)),
        "onet": (onet, names["onet"].split(), (48, 48)),
    }


def load(stage: Stage, names: list[str], state: dict[str, Tensor]) -> None:
    """Copy weights in order of appearance and fold the pixel scaling into the first layer."""
    layers = [m for m in [*stage.trunk, *stage.heads] if list(m.parameters())]
    for name, layer in zip(names, layers, strict=True):
        layer.load_state_dict(
            {key: state[f"{name}.{key}"] for key in layer.state_dict()}  # shapes are checked here
        )
    first = stage.trunk[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.bias -= 127.5 / 128 * first.weight.sum(dim=(1, 2, 3))
        first.weight /= 128


def blocks(channels: int) -> int:
    """The number of channels, rounded up to whole blocks."""
    return -(-channels // BLOCK) * BLOCK


def convolution(weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> nn.Conv2d:
    """A layer from its weights ``(outputs, inputs, height, width)``."""
    outputs, inputs, *kernel = weight.shape
    layer = nn.Conv2d(inputs * groups, outputs, tuple(kernel), groups=groups, bias=bias is not None)
    layer.weight.data = weight.contiguous()
    if bias is not None:
        layer.bias.data = bias.contiguous()
    return layer


class BentLine(nn.Module):
    """PReLU as a line and a bend: ``slope * x + (1 - slope) * relu(x)``, channel by channel.

    ``scale`` is the factor that the next layer must apply: 1 - slope if all slopes are below 1 (it
    must be positive, or it would not commute with a max pooling in between), else 1.
    """

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.is_scaled = bool(slopes.max() < 1)
        self.scale = 1 - slopes if self.is_scaled else torch.ones_like(slopes)
        self.line = convolution((slopes / self.scale).view(-1, 1, 1, 1), groups=len(slopes))
        if not self.is_scaled:
            self.bend = convolution((1 - slopes).view(-1, 1, 1, 1), groups=len(slopes))

    def forward(self, x: Tensor) -> Tensor:
        if self.is_scaled:
            return self.line(x) + x.relu()
        return self.bend(x.relu()) + self.line(x)


class PooledPReLU(nn.Module):
    """Convolution, 2 x 2 maximum and PReLU, which then handles only a quarter of the pixels.

    Where a slope is positive, PReLU is increasing and commutes with the maximum. Where it is
    negative, the maximum of PReLU is the greater of max(x) and -slope * max(-x); the convolution
    gives -x as extra channels. Both are a linear term plus a relu of a linear term, so 1 x 1
    convolutions suffice.
    """

    def __init__(self, conv: nn.Conv2d, slopes: Tensor) -> None:
        super().__init__()
        assert conv.bias is not None
        falling = torch.nonzero(slopes < 0).ravel()
        weight = torch.cat([conv.weight.data, -conv.weight.data[falling]])
        bias = torch.cat([conv.bias.data, -conv.bias.data[falling]])
        inner, outputs = blocks(len(bias)), blocks(len(slopes))
        self.conv = convolution(fill(weight, inner, 0), fill(bias, inner, 0))
        before, line = torch.zeros(outputs, inner, 1, 1), torch.zeros(outputs, inner, 1, 1)
        self.scale = torch.ones(outputs)
        for channel, slope in enumerate(slopes):
            if slope >= 0:
                # A slope above 1 bends down, which relu cannot: the next layer gets the negative.
                sign = self.scale[channel] = -1 if slope > 1 else 1
                line[channel, channel], before[channel, channel] = sign * slope, abs(1 - slope)
            else:
                negated = len(slopes) + int((falling == channel).nonzero())
                before[channel, negated], before[channel, channel] = -slope, -1
                line[channel, channel] = 1
        self.before, self.line = convolution(before), convolution(line)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv(x), 2, 2, ceil_mode=True)
        return self.line(x) + self.before(x).relu()


class BentHeads(nn.Module):
    """PReLU and the linear heads after it, as linear maps of x and of relu(x)."""

    def __init__(self, slopes: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        slopes = slopes.view(1, -1, 1, 1)
        self.line = convolution(weight * slopes, bias)
        self.bend = convolution(weight * (1 - slopes))

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(x.relu()) + self.line(x)


def fill(weight: Tensor, size: int, dim: int) -> Tensor:
    """Pad with zeros to ``size`` along ``dim``."""
    shape = list(weight.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([weight, weight.new_zeros(shape)], dim)


class FastStage(nn.Module):
    """A stage rewritten for speed (see the top of this file); the heads are one layer."""

    def __init__(self, stage: Stage, outputs: list[int]) -> None:
        super().__init__()
        self.sizes = outputs
        layers = list(stage.trunk)
        fast: list[nn.Module] = []
        channels, side = 3, 0  # padded channels so far; side in pixels before the dense layer
        scale = torch.ones(channels)  # factors still to be applied to these channels
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                slopes = layers.pop(0).weight.data
                weight = fill(layer.weight.data, channels, 1) * scale.view(1, -1, 1, 1)
                channels = blocks(len(weight))
                following = layers[0] if layers else None
                if not fast and isinstance(following, nn.MaxPool2d) and following.kernel_size == 2:
                    layers.pop(0)
                    fast.append(PooledPReLU(layer, slopes))
                    scale = fast[-1].scale
                    continue
                fast.append(
                    convolution(fill(weight, channels, 0), fill(layer.bias.data, channels, 0))
                )
                slopes = fill(slopes, channels, 0)
                if layers or stage.heads[0].weight.data.ndim < 4:
                    fast.append(BentLine(slopes))
                    scale = fast[-1].scale
            elif isinstance(layer, Flatten):  # the dense weights absorb the pixel order
                dense = layers.pop(0)
                rows = dense.weight.data
                side = round((rows.shape[1] // channels) ** 0.5)
                rows = rows.view(-1, side, side, channels) * scale
                rows = rows.permute(0, 3, 2, 1).flatten(1)
                fast += [nn.Flatten(), nn.Linear(rows.shape[1], len(rows))]
                fast[-1].weight.data, fast[-1].bias.data = rows.contiguous(), dense.bias.data
            else:
                fast.append(layer)
        self.trunk = nn.Sequential(*fast)
        # A softmax over two is the logistic function of their difference, the logit.
        first, *others = [(head.weight.data, head.bias.data) for head in stage.heads]
        weight = torch.cat([first[0][1:] - first[0][:1], *(w for w, _ in others)])
        bias = torch.cat([first[1][1:] - first[1][:1], *(b for _, b in others)])
        if weight.ndim == 4:
            self.head: nn.Module = BentHeads(slopes, weight, bias)
        else:
            self.head = nn.Linear(weight.shape[1], len(weight))
            self.head.weight.data, self.head.bias.data = weight, bias

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logit, *others = self.head(self.trunk(image.permute(0, 3, 1, 2))).split(self.sizes, dim=1)
        return (logit[:, 0], *others)


def export(name: str, stage: Stage, size: tuple[int, int], folder: Path) -> str:
    outputs = ["face_logit", "box_regression", "landmarks"][: len(stage.heads)]
    path = folder / f"mtcnn-{name}.onnx"
    axes: dict[str, dict[int, str]] = {key: {0: "N"} for key in ["image", *outputs]}
    if name == "pnet":
        axes["image"] |= {1: "H", 2: "W"}
        axes["face_logit"] |= {1: "h", 2: "w"}
        axes["box_regression"] |= {2: "h", 3: "w"}
    example = torch.zeros(1, *size, 3)
    fast = FastStage(stage, [1, 4, 10][: len(outputs)])
    torch.onnx.export(
        fast.eval(), (example,), str(path), input_names=["image"], output_names=outputs,
        dynamic_axes=axes, opset_version=18, dynamo=False,
    )  # fmt: skip
    graph = onnx.load(str(path))
    graph.producer_name, graph.producer_version = "facewise", ""
    onnx.save(graph, str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="facenet-pytorch 2.6.0's wheel")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    hashes = {}
    for name, (stage, names, size) in stages().items():
        with zipfile.ZipFile(args.wheel) as archive:
            blob = archive.read(f"facenet_pytorch/data/{name}.pt")
        state = torch.load(io.BytesIO(blob), weights_only=True)
        load(stage.eval(), names, state)
        hashes[name] = export(name, stage, size, args.out)
        image = np.random.default_rng(0).uniform(0, 255, (3, *size, 3)).astype(np.float32)
        session = ort.InferenceSession(str(args.out / f"mtcnn-{name}.onnx"))
        actual = session.run(None, {"image": image})
        with torch.inference_mode():
            expected = [output.numpy() for output in stage(torch.from_numpy(image))]
        difference = max(np.abs(a - e).max() for a, e in zip(actual, expected, strict=True))
        print(f"{name}: ONNX within {difference:.1e} of PyTorch")
        if difference > 2e-5:
            sys.exit(f"{name}: parity check failed")
    spec = {
        "kind": "detector",
        "name": "mtcnn",
        "version": "1",
        "description": "MTCNN (Zhang et al., 2016): three cascaded networks, five landmarks.",
        "source": "facenet-pytorch 2.6.0 on PyPI, whose weights come from David Sandberg's facenet",
        "licence": "MIT; see THIRD_PARTY_NOTICES.md",
        "data": ["WIDER FACE and CelebA, by MTCNN's authors"],
        "networks": {
            name: {"file": f"mtcnn-{name}.onnx", "sha256": digest}
            for name, digest in hashes.items()
        },
        "thresholds": [0.6, 0.7, 0.7],
        "second_look": [0.7, 0.3],  # for R- and O-net; see scripts/mtcnn_recall.py
        "portraits": [  # the same script
            {
                "thresholds": [0.4, 0.5, 0.5],
                "share_of_short_side": share,
                "off_centre": 0.2,
                "border": border,
            }
            for share, border in ((0.25, 0.0), (0.7, 0.35))
        ],
        "pyramid_factor": 0.709,
        "nms": {"level": 0.5, "photo": 0.7, "rnet": 0.7, "onet": 0.7},
        "min_face": {"px": 20, "share_of_short_side": 0.025},
    }
    (args.out / "mtcnn.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
