"""Lay out MTCNN's networks for the page's own WebAssembly kernels (web/kernels).

The shipped graphs are written for ONNX Runtime's native layout: channels padded to blocks of 16,
PReLU as a line and a bend, a factor left to the next layer (``scripts/convert_mtcnn.py``). The
kernels support PReLU and take channels in fours, so this module undoes the rewriting: plain layers,
the same numbers.

A network becomes one file of float32 and a list of layers. A layer with ``outputs`` channels
(padded to a multiple of four) consists of its biases, its PReLU slopes (1 is a straight line) and
its weights: blocks of eight output channels, with a last one of four if needed, each ``[kernel
row][column][input channel][output channel of the block]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FloatArray = NDArray[np.float32]


@dataclass(slots=True)
class Convolution:
    """A convolution; a dense layer is one whose kernel covers its whole input."""

    weights: FloatArray  # (outputs, inputs, rows, columns)
    bias: FloatArray
    slopes: FloatArray
    is_dense: bool = False


@dataclass(slots=True)
class Pool:
    """Max pooling over windows of ``size``, stride 2."""

    size: int


Layer = Convolution | Pool


class UnknownGraphError(ValueError):
    """The graph does not come from ``convert_mtcnn.py``."""


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The plain layers of one of MTCNN's networks."""
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    layers: list[Layer] = []
    extra: dict[str, FloatArray] = {}  # 1 x 1 layers without bias: parts of a PReLU
    factor = np.ones(3, np.float32)  # undoes the factor in the next layer's weights
    for node in model.graph.node:
        found = [tensors[name] for name in node.input if name in tensors]
        if node.op_type == "Conv" and len(found) == 2:
            weights, bias = found
            weights = weights * factor[:, None, None]
            layers.append(Convolution(weights, bias, np.ones_like(bias)))
            factor = np.ones(len(bias), np.float32)
        elif node.op_type == "Conv" and len(found) == 1:
            [name] = [name for name in node.input if name in tensors]
            extra[name.split(".")[-2]] = found[0][:, :, 0, 0]
        elif node.op_type == "Gemm":
            dense = _dense(found[0], found[1], layers)
            dense.weights = dense.weights * factor[:, None, None]
            layers.append(dense)
            factor = np.ones(len(found[1]), np.float32)
        elif node.op_type == "PRelu":
            _last_convolution(layers).slopes = found[0].ravel()
        elif node.op_type == "MaxPool":
            [size, _] = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            layers.append(Pool(size))
        elif node.op_type == "Add":
            factor = _bend(layers, extra)
            extra = {}
        elif node.op_type not in {"Transpose", "Relu", "Flatten", "Constant", "Split", "Gather"}:
            raise UnknownGraphError(f"{node.op_type}: adapt scripts/flat_network.py")
    return _without_filling(layers)


def _last_convolution(layers: list[Layer]) -> Convolution:
    return next(layer for layer in reversed(layers) if isinstance(layer, Convolution))


def _dense(weights: FloatArray, bias: FloatArray, layers: list[Layer]) -> Convolution:
    inputs = len(_last_convolution(layers).bias)
    side = round((weights.shape[1] / inputs) ** 0.5)
    kernel = weights.reshape(len(weights), inputs, side, side)
    return Convolution(kernel, bias, np.ones_like(bias), is_dense=True)


def _bend(layers: list[Layer], parts: dict[str, FloatArray]) -> FloatArray:
    """Restore the slopes of a PReLU; returns factors for the next layer's weights."""
    layer = _last_convolution(layers)
    if parts.keys() == {"line"}:  # line * x + relu(x): PReLU / (1 - slope)
        line = parts["line"].ravel()
        layer.slopes = line / (1 + line)
        return 1 + line
    if parts.keys() == {"line", "bend"}:  # line * x + bend * relu(x)
        layer.slopes = parts["line"].ravel()
        if not np.allclose(parts["line"] + parts["bend"], 1, atol=1e-6):
            raise UnknownGraphError("a PReLU is of another form: adapt scripts/flat_network.py")
        return np.ones_like(layer.slopes)
    if parts.keys() == {"bend"}:  # heads: of x in the layer itself, and of relu(x)
        whole = layer.weights[:, :, 0, 0] + parts["bend"]
        surest = np.abs(whole).argmax(axis=0)[None]
        slopes = np.take_along_axis(layer.weights[:, :, 0, 0] / whole, surest, axis=0)[0]
        layer.weights = whole[:, :, None, None]
        _last_convolution(layers[:-1]).slopes = slopes
        return np.ones_like(layer.bias)
    # line * x + relu(before * x), after the pooling. A decreasing PReLU uses the negated channels
    # at the end; if it is steeper than 1, the next layer gets the negative.
    line, before = parts["line"], parts["before"]
    count = int(np.count_nonzero(line.any(axis=1)))
    own, falling = np.diag(line)[:count], np.diag(before)[:count] < 0
    layer.weights, layer.bias = layer.weights[:count], layer.bias[:count]
    layer.slopes = np.where(falling, -before[:count, count:].sum(axis=1), np.abs(own))
    return np.where(np.diag(line[:, : len(line)]) < 0, np.float32(-1), np.float32(1))


def _without_filling(layers: list[Layer]) -> list[Layer]:
    """Drop channels that are always zero, and the next layer's weights for them."""
    kept: FloatArray | None = None
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
    """The file's bytes and the list of layers; ``at`` is an offset in float32 numbers."""
    parts: list[FloatArray] = []
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
