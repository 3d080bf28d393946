"""List the layers of a packed attribute model for the page's WebGPU shaders (web/src/webgpu.ts).

The shaders read the weights from the same file that ONNX Runtime opens, so the list gives each
tensor's byte offset in it. Only MobileNet v1 is supported: full, depthwise and pointwise
convolutions, each followed by a clip, a mean over all pixels, and dense layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

TYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}


class UnknownGraphError(ValueError):
    """The network has a layer that the shaders don't support: the page runs without WebGPU."""


class _Plan:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.graph = onnx.load_from_string(data).graph
        self.tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def constant(self, name: str) -> np.ndarray:
        if name in self.tensors:
            return numpy_helper.to_array(self.tensors[name])
        return numpy_helper.to_array(self.makers[name].attribute[0].t)

    def place(self, name: str) -> int:
        raw = self.tensors[name].raw_data
        at = self.data.find(raw)
        # If two tensors are identical, either position will do.
        if not raw or at < 0:
            raise UnknownGraphError(f"{name} has no bytes of its own")
        return at

    def tensor(self, name: str) -> dict[str, Any]:
        """Where a tensor is stored, looking through any casts and unpacking nodes."""
        if name in self.tensors:
            found = self.tensors[name]
            if found.data_type not in TYPES:
                raise UnknownGraphError(f"{name} is of type {found.data_type}")
            return {"type": TYPES[found.data_type], "at": self.place(name)}
        node = self.makers[name]
        if node.op_type == "Cast":
            return self.tensor(node.input[0])
        base = f"{name}.packed"
        if node.op_type == "Mul" and f"{base}.high" in self.tensors:
            places = {part: self.place(f"{base}.{part}") for part in ("high", "low", "scale")}
            return {"type": "packed12", **places}
        raise UnknownGraphError(f"{name} is made by {node.op_type}")


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(helper.get_attribute_value(a) for a in node.attribute if a.name == name)


def _shape(plan: _Plan, name: str) -> list[int]:
    while name not in plan.tensors:
        high = f"{name}.packed.high"
        name = high if high in plan.tensors else plan.makers[name].input[0]
    return list(plan.tensors[name].dims)


def _convolution(plan: _Plan, node: onnx.NodeProto) -> dict[str, Any]:
    if len(node.input) < 3:
        raise UnknownGraphError("a convolution without a bias")
    outputs, inputs, size, _ = _shape(plan, node.input[1])
    pads, stride = _attribute(node, "pads"), _attribute(node, "strides")[0]
    groups = _attribute(node, "group")
    if groups not in (1, outputs):
        raise UnknownGraphError(f"a convolution in {groups} groups")
    kind = "depthwise" if groups > 1 else "pointwise" if size == 1 else "conv"
    return {
        "kind": kind, "inputs": outputs if groups > 1 else inputs, "outputs": outputs,
        "size": size, "stride": stride, "pad": pads[0], "pad_end": pads[2],
        "weights": plan.tensor(node.input[1]), "bias": plan.tensor(node.input[2]),
        "low": None, "high": None,
    }  # fmt: skip


def _dense(plan: _Plan, node: onnx.NodeProto) -> dict[str, Any]:
    outputs, inputs = _shape(plan, node.input[1])
    return {
        "kind": "pointwise", "inputs": inputs, "outputs": outputs, "size": 1, "stride": 1,
        "pad": 0, "pad_end": 0, "weights": plan.tensor(node.input[1]),
        "bias": plan.tensor(node.input[2]), "low": None, "high": None,
    }  # fmt: skip


def gpu_plan(data: bytes, size_px: int) -> dict[str, Any]:
    """Layers, pixel scaling and a reference answer for checking the shaders.

    Raises:
        UnknownGraphError: if there is a layer that the shaders don't support.
    """
    plan = _Plan(data)
    layers: list[dict[str, Any]] = []
    shift, scale = [0.0, 0.0, 0.0], 1.0
    for node in plan.graph.node:
        kind = node.op_type
        if kind == "Conv":
            layers.append(_convolution(plan, node))
        elif kind == "Gemm":
            layers.append(_dense(plan, node))
        elif kind in ("Clip", "Relu"):
            limits = [float(plan.constant(name)) for name in node.input[1:]]
            layers[-1]["low"], layers[-1]["high"] = limits or (0.0, None)
        elif kind == "ReduceMean":
            layers.append({"kind": "mean"})
        elif kind == "Sub" and not layers:
            shift = [float(v) for v in plan.constant(node.input[1]).ravel()]
        elif kind == "Div" and not layers:
            scale = 1 / float(plan.constant(node.input[1]))
        elif kind == "Softmax":
            break
        elif kind == "Mul" and node.output[0] + ".packed.high" not in plan.tensors:
            if not node.output[0].endswith(".upper"):
                raise UnknownGraphError("a product that is no unpacking")
        elif kind not in {"BitwiseAnd", "BitShift", "Concat", "Reshape", "Cast", "Add", "Constant",
                          "Transpose", "Split", "Mul"}:  # fmt: skip
            raise UnknownGraphError(kind)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    ages, vector = session.run(["ages", "vector"], {"image": check_image(size_px)})
    check = {"ages": ages[0].round(6).tolist(), "vector": vector[0].round(6).tolist()}
    return {"shift": shift, "scale": scale, "layers": layers, "check": check}


def check_image(size_px: int) -> np.ndarray:
    """Coloured rings in integer arithmetic, which is the same in any language.

    On a picture without structure the network's answer hardly depends on its weights; on rings it
    does.
    """
    y, x, k = np.indices((size_px, size_px, 3))
    return (((x - 96) ** 2 + (y - 110) ** 2) // (30 + k) % 256).astype(np.uint8)[None]
