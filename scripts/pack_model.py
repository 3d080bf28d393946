"""Store a network's weights in 12 bits each, to be unpacked when it is opened.

    python scripts/pack_model.py IN.onnx OUT.onnx [--bits 12]

A weight w of output channel c is stored as the integer q = round(w / scale[c]), -2048 to 2047: its
upper eight bits as int8, its lower four packed two to a byte. Plain ONNX operators reassemble them;
since their inputs are constants, a runtime does this once, when it opens the file, and then runs
the same float network. ``--bits 8``, for comparison, stores 8-bit integers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST_WEIGHTS = 70_000
"""Smaller tensors are left unchanged: the first, last and depthwise layers, a few per cent of all
weights, are the most sensitive."""


def quantise(weights: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of ``bits`` bits, and one scale per output channel (axis 0)."""
    most = 2 ** (bits - 1) - 1
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    scale = np.maximum(np.abs(rows).max(axis=1), 1e-12) / most
    whole = np.clip(np.rint(rows / scale[:, None]), -most - 1, most).astype(np.int32)
    shape = (-1,) + (1,) * (weights.ndim - 1)
    return whole.reshape(weights.shape), scale.astype(np.float32).reshape(shape)


def unpacking(
    name: str, output: str, weights: np.ndarray, bits: int
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Initializers and nodes that produce the float tensor ``output``."""
    whole, scale = quantise(weights, bits)
    tensors = [numpy_helper.from_array(scale, f"{name}.scale")]
    nodes = []

    def node(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))
        return result

    if bits == 8:
        tensors.append(numpy_helper.from_array(whole.astype(np.int8), f"{name}.int8"))
        number = node("Cast", [f"{name}.int8"], f"{name}.number", to=TensorProto.FLOAT)
    else:
        high = (whole >> 4).astype(np.int8)
        low = (whole & 15).astype(np.uint8).ravel()
        half = len(low) // 2  # first half in the lower four bits, second in the upper
        pairs = low[:half] | (low[half:] << 4)
        tensors += [
            numpy_helper.from_array(high, f"{name}.high"),
            numpy_helper.from_array(pairs, f"{name}.low"),
            numpy_helper.from_array(np.array(weights.shape, np.int64), f"{name}.shape"),
        ]
        first = node("BitwiseAnd", [f"{name}.low", "facewise.fifteen"], f"{name}.first")
        second = node(
            "BitShift", [f"{name}.low", "facewise.four"], f"{name}.second", direction="RIGHT"
        )
        both = node("Concat", [first, second], f"{name}.both", axis=0)
        shaped = node("Reshape", [both, f"{name}.shape"], f"{name}.shaped")
        low_number = node("Cast", [shaped], f"{name}.low_number", to=TensorProto.FLOAT)
        high_number = node("Cast", [f"{name}.high"], f"{name}.high_number", to=TensorProto.FLOAT)
        upper = node("Mul", [high_number, "facewise.sixteen"], f"{name}.upper")
        number = node("Add", [upper, low_number], f"{name}.number")
    node("Mul", [number, f"{name}.scale"], output)
    return tensors, nodes


def pack(model: onnx.ModelProto, bits: int = 12) -> onnx.ModelProto:
    """The same network with its large float tensors stored in 8 or 12 bits."""
    graph = model.graph
    casts = {n.input[0]: n for n in graph.node if n.op_type == "Cast"}
    kept, tensors, nodes, dropped = [], [], [], []
    for tensor in graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype not in (np.float16, np.float32) or weights.size < LEAST_WEIGHTS:
            kept.append(tensor)
            continue
        if weights.size % 2 or weights.ndim < 2:
            kept.append(tensor)
            continue
        output = tensor.name
        if weights.dtype == np.float16:  # a Cast before its use names the float tensor
            cast = casts[tensor.name]
            output = cast.output[0]
            dropped.append(cast)
        more, unpack = unpacking(f"{output}.packed", output, weights, bits)
        tensors += more
        nodes += unpack
    constants = [
        numpy_helper.from_array(np.array(15, np.uint8), "facewise.fifteen"),
        numpy_helper.from_array(np.array(4, np.uint8), "facewise.four"),
        numpy_helper.from_array(np.array(16, np.float32), "facewise.sixteen"),
    ]
    rest = [n for n in graph.node if n not in dropped]
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    del packed.graph.initializer[:], packed.graph.node[:]
    packed.graph.initializer.extend([*kept, *(constants if bits != 8 else []), *tensors])
    packed.graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(packed)
    return packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--bits", type=int, choices=(8, 12), default=12)
    options = parser.parse_args()
    onnx.save(pack(onnx.load(options.source), options.bits), options.target)
    print(f"{options.target}: {options.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
