"""Turn the MTCNN weights of the PyPI package facenet-pytorch 2.6.0 (MIT) into ONNX.

    pip download --no-deps facenet-pytorch==2.6.0
    python scripts/convert_mtcnn.py facenet_pytorch-2.6.0-py3-none-any.whl

The graphs take float32 pictures ``(N, H, W, 3)``, RGB, 0 to 255. Pixels were scaled by
(x - 127.5) / 128 in training; no convolution of these networks pads, so the scaling folds into the
first one exactly.
Each graph is compared with PyTorch, and the script ends with an error where they differ.
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

WEIGHTS = Path(__file__).parent.parent / "src" / "facewise" / "weights"


def conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


class Flatten(nn.Module):
    """Flatten column by column, as the networks' first framework laid its arrays out."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).flatten(1)


class Stage(nn.Module):
    """A trunk and heads; the first head is the probability of a face, the rest regressions."""

    def __init__(self, trunk: list[nn.Module], heads: list[nn.Module]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList(heads)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.trunk(image.permute(0, 3, 1, 2))
        first, *others = self.heads
        return (first(x).softmax(dim=1)[:, 1], *(head(x) for head in others))


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
    """Copy weights in order of appearance, and fold the pixel scaling into the first layer."""
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


def export(name: str, stage: Stage, size: tuple[int, int], folder: Path) -> str:
    outputs = ["face_probability", "box_regression", "landmarks"][: len(stage.heads)]
    path = folder / f"mtcnn-{name}.onnx"
    axes: dict[str, dict[int, str]] = {key: {0: "N"} for key in ["image", *outputs]}
    if name == "pnet":
        axes["image"] |= {1: "H", 2: "W"}
        axes["face_probability"] |= {1: "h", 2: "w"}
        axes["box_regression"] |= {2: "h", 3: "w"}
    example = torch.zeros(1, *size, 3)
    torch.onnx.export(
        stage, (example,), str(path), input_names=["image"], output_names=outputs,
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
        if difference > 1e-4:
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
        "pyramid_factor": 0.709,
        "nms": {"level": 0.5, "photo": 0.7, "rnet": 0.7, "onet": 0.7},
        "min_face": {"px": 20, "share_of_short_side": 0.025},
    }
    (args.out / "mtcnn.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
