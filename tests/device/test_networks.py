"""The page's networks match those that ship: the same numbers, in the same file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from flat_network import flatten, layers_of  # noqa: E402
from gpu_plan import UnknownGraphError, gpu_plan  # noqa: E402
from pack_model import pack  # noqa: E402

from facewise.models import WEIGHTS_FOLDER, load_spec  # noqa: E402

Array = NDArray[np.float32]


def windows(image: Array, size: int, stride: int) -> Array:
    """Cut ``(H, W, C)`` into ``(h, w, size, size, C)``; the last windows may pass the edge."""
    over = [max(0, -(-(side - size) // stride) * stride + size - side) for side in image.shape[:2]]
    padded = np.pad(image, [(0, over[0]), (0, over[1]), (0, 0)], constant_values=-np.inf)
    view = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    return view[::stride, ::stride].transpose(0, 1, 3, 4, 2)


def run_flat(data: bytes, layers: list[dict[str, Any]], image: Array) -> Array:
    """Logit and regressions at every position ``(h, w, outputs)``, from the flat file alone."""
    numbers = np.frombuffer(data, np.float32)
    for layer in layers:
        size = layer["size"]
        if layer["kind"] == "pool":
            image = windows(image, size, 2).max(axis=(2, 3))
            continue
        outputs, inputs, at = layer["outputs"], layer["inputs"], layer["at"]
        bias, slopes = numbers[at : at + outputs], numbers[at + outputs : at + 2 * outputs]
        at += 2 * outputs
        blocks = []
        for start in range(0, outputs, 8):
            wide = min(8, outputs - start)
            count = size * size * inputs * wide
            blocks.append(numbers[at : at + count].reshape(size, size, inputs, wide))
            at += count
        x = np.tensordot(windows(image, size, 1), np.concatenate(blocks, axis=-1), 3) + bias
        image = np.where(x > 0, x, x * slopes).astype(np.float32)
    return image


@pytest.mark.parametrize(
    ("name", "shape"), [("pnet", (31, 44)), ("rnet", (24, 24)), ("onet", (48, 48))]
)
def test_flat_networks_answer_as_the_shipped_ones(name: str, shape: tuple[int, int]) -> None:
    path = WEIGHTS_FOLDER / f"mtcnn-{name}.onnx"
    image = np.random.default_rng(5).uniform(0, 255, (*shape, 3)).astype(np.float32)
    session = ort.InferenceSession(path)
    expected = [output[0] for output in session.run(None, {"image": image[None]})]
    if name == "pnet":
        expected[1] = expected[1].transpose(1, 2, 0)
    data, layers = flatten(layers_of(onnx.load(path)))
    out = run_flat(data, layers, image)
    if name != "pnet":
        out = out[0, 0]
    assert np.abs(out[..., 0] - expected[0]).max() < 1e-4
    sizes = {"box_regression": (1, 5), "landmarks": (5, 15)}
    for found, output in zip(expected[1:], session.get_outputs()[1:], strict=True):
        first, last = sizes[output.name]
        assert np.abs(out[..., first:last] - found).max() < 1e-4
    # Negative control: slopes of 1 in the first layer change the result.
    broken = np.frombuffer(data, np.float32).copy()
    outputs = layers[0]["outputs"]
    broken[outputs : 2 * outputs] = 1
    straight = run_flat(broken.tobytes(), layers, image).reshape(out.shape)
    assert np.abs(straight - out).max() > 1e-2


def test_the_plan_finds_every_tensor_in_the_file() -> None:
    spec = load_spec()
    data = pack(onnx.load(spec.weights_path)).SerializeToString()
    plan = gpu_plan(data, spec.size_px)
    tensors = {t.name: t for t in onnx.load_from_string(data).graph.initializer}
    kinds = [layer["kind"] for layer in plan["layers"]]
    assert kinds.count("mean") == 1
    assert kinds[-2:] == ["pointwise", "pointwise"]
    assert plan["layers"][-1]["outputs"] == 127
    first = plan["layers"][0]
    stem = next(t for name, t in tensors.items() if name.endswith("stem.weight"))
    at = first["weights"]["at"]
    assert data[at : at + len(stem.raw_data)] == stem.raw_data
    sums = [sum(plan["check"]["ages"]), sum(plan["check"]["vector"])]
    assert np.allclose(sums, [1, 3], atol=1e-3)
    json.dumps(plan, allow_nan=False)


def test_another_network_goes_without_webgpu() -> None:
    with pytest.raises(UnknownGraphError):
        gpu_plan((WEIGHTS_FOLDER / "mtcnn-rnet.onnx").read_bytes(), 24)
