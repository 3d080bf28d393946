"""Lay MTCNN's networks out for the page's own WebAssembly kernels (web/kernels).

The shipped graphs are written for ONNX Runtime's native layout: channels filled up to blocks of 16,
PReLU as a line and a bend (``scripts/convert_mtcnn.py``). The kernels know PReLU and channels in
fours, so this takes the rewriting back: plain layers, the same numbers.

A network becomes one file of float32 and a list of layers. A layer of ``outputs`` channels (filled
up to a multiple of four) is its biases, its slopes of PReLU (1 is a straight line) and its weights:
blocks of eight output channels, a last one of four where they don't divide, each ``[row of the
kernel][column][input channel][output channel of the block]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.float32]


@dataclass(slots=True)
class Convolution:
    """A dense layer is one whose kernel covers its whole input."""

    weights: Array  # (outputs, inputs, rows, columns)
    bias: Array
    slopes: Array
    is_dense: bool = False


@dataclass(slots=True)
class Pool:
    """Maximum over windows of ``size``, every second pixel."""

    size: int


Layer = Convolution | Pool


class UnknownGraphError(ValueError):
    """The graph is not one that ``convert_mtcnn.py`` writes."""


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The plain layers of one of MTCNN's networks."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    layers: list[Layer] = []
    extra: dict[str, Array] = {}  # 1 x 1 layers without a bias: parts of a PReLU
    for node in model.graph.node:
        found = [tensors[name] for name in node.input if name in tensors]
        if node.op_type == "Conv" and len(found) == 2:
            weights, bias = found
            layers.append(Convolution(weights, bias, np.ones_like(bias)))
        elif node.op_type == "Conv" and len(found) == 1:
            [name] = [name for name in node.input if name in tensors]
            extra[name.split(".")[-2]] = found[0][:, :, 0, 0]
        elif node.op_type == "Gemm":
            layers.append(_dense(found[0], found[1], layers))
        elif node.op_type == "PRelu":
            _last_convolution(layers).slopes = found[0].ravel()
        elif node.op_type == "MaxPool":
            [size, _] = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            layers.append(Pool(size))
        elif node.op_type == "Add":
            _bend(_last_convolution(layers), extra)
            extra = {}
        elif node.op_type not in {"Transpose", "Relu", "Flatten", "Constant", "Split", "Sigmoid",
                                  "Gather"}:  # fmt: skip
            raise UnknownGraphError(f"{node.op_type}: adapt scripts/flat_network.py")
    return _without_filling(layers)


def _last_convolution(layers: list[Layer]) -> Convolution:
    return next(layer for layer in reversed(layers) if isinstance(layer, Convolution))


def _dense(weights: Array, bias: Array, layers: list[Layer]) -> Convolution:
    inputs = len(_last_convolution(layers).bias)
    side = round((weights.shape[1] / inputs) ** 0.5)
    kernel = weights.reshape(len(weights), inputs, side, side)
    return Convolution(kernel, bias, np.ones_like(bias), is_dense=True)


def _bend(layer: Convolution, parts: dict[str, Array]) -> None:
    """Slopes from ``line * x + bend * relu(before * x)``."""
    line, bend = parts["line"], parts["bend"]
    if "before" not in parts:
        layer.slopes = line.ravel()
        if not np.allclose(line + bend, 1, atol=1e-6):
            raise UnknownGraphError("a PReLU is of another form: adapt scripts/flat_network.py")
        return
    # Behind the pooling; a falling PReLU has the negated channels at the end.
    before = parts["before"]
    count = int(np.count_nonzero(line.any(axis=1)))
    own = np.diag(before)[:count]
    slopes = np.where(own > 0, np.diag(line)[:count], before[:count, count:].sum(axis=1) * own)
    layer.weights, layer.bias = layer.weights[:count], layer.bias[:count]
    layer.slopes = slopes.astype(np.float32)


def _without_filling(layers: list[Layer]) -> list[Layer]:
    """Channels that are zero throughout fall away, and what the next layer made of them."""
    kept: Array | None = None
    for layer in layers:
        if isinstance(layer, Pool):
            continue
        if kept is not None:
            layer.weights = layer.weights[:, : len(kept)][:, kept]
        kept = layer.weights.any(axis=(1, 2, 3)) | (layer.bias != 0)
        layer.weights, layer.bias = layer.weights[kept], layer.bias[kept]
        layer.slopes = layer.slopes[kept]
    return layers


def flatten(layers: list[Layer]) -> tuple[bytes, list[dict[str, Any]]]:
    """The file and the list of layers; ``at`` counts float32 numbers."""
    parts: list[Array] = []
    listed: list[dict[str, Any]] = []
    at, inputs = 0, 3
    for layer in layers:
        if isinstance(layer, Pool):
            listed.append({"kind": "pool", "size": layer.size})
            continue
        count = len(layer.bias)
        outputs = -(-count // 4) * 4
        kernel = np.zeros((outputs, inputs, *layer.weights.shape[2:]), np.float32)
        kernel[:count, : layer.weights.shape[1]] = layer.weights
        kernel = kernel.transpose(2, 3, 1, 0)  # row, column, input, output
        vectors = np.zeros((2, outputs), np.float32)
        vectors[0, :count], vectors[1, :count] = layer.bias, layer.slopes
        blocks = [kernel[..., start : start + 8].ravel() for start in range(0, outputs, 8)]
        flat = np.concatenate([vectors.ravel(), *blocks])
        listed.append({
            "kind": "dense" if layer.is_dense else "conv", "size": kernel.shape[0],
            "inputs": inputs, "outputs": outputs, "at": at,
        })  # fmt: skip
        parts.append(flat)
        at += len(flat)
        inputs = outputs
    return np.concatenate(parts).astype("<f4").tobytes(), listed
