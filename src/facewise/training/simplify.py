"""Simplifies exported graphs, so that ONNX Runtime can keep its fast layout throughout.

PyTorch exports TensorFlow-style padding, which depends on the picture's size, as a dozen nodes that
compute its width in every run, and a separate ``Pad``. For a fixed input size the widths are
constants, and convolutions can pad themselves, which saves an eighth of a MobileNet's time at
160 px.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facewise.models import import_onnxruntime


def fold_padding(model: Any, size_px: int) -> int:
    """Move zero padding of height and width into the convolutions that follow, in place.

    Args:
        model: ``onnx.ModelProto`` with an input ``image``, uint8 ``(N, S, S, 3)``.
        size_px: side S.

    Returns:
        The number of ``Pad`` nodes removed.
    """
    graph = model.graph
    pads = [node for node in graph.node if node.op_type == "Pad"]
    if not pads:
        return 0
    widths = _evaluate(model, [node.input[1] for node in pads], size_px)
    folded = 0
    for pad, width in zip(pads, widths, strict=True):
        readers = [node for node in graph.node if pad.output[0] in node.input]
        # Padding before, then after, each for N, C, H, W.
        inner = width.shape == (8,) and not width[[0, 1, 4, 5]].any() and (width >= 0).all()
        if not inner or not all(_can_pad(node) for node in readers):
            continue
        for conv in readers:
            (attribute,) = (a for a in conv.attribute if a.name == "pads")
            own = np.array(attribute.ints, np.int64) + width[[2, 3, 6, 7]]
            attribute.ints[:] = own.tolist()
            conv.input[0] = pad.input[0]
        graph.node.remove(pad)
        folded += 1
    _drop_unused(graph)
    return folded


def _can_pad(node: Any) -> bool:
    names = {a.name for a in node.attribute}
    return node.op_type == "Conv" and "pads" in names and "auto_pad" not in names


def _evaluate(model: Any, names: list[str], size_px: int) -> list[Any]:
    """Evaluate values inside the graph for a picture of this size."""
    import onnx

    ort = import_onnxruntime()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in names:
        copy.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    picture = np.zeros((1, size_px, size_px, 3), np.uint8)
    return session.run(names, {"image": picture})


def _drop_unused(graph: Any) -> None:
    """Remove nodes whose outputs are not used."""
    while True:
        read = {name for node in graph.node for name in node.input}
        read |= {output.name for output in graph.output}
        unused = [node for node in graph.node if not read.intersection(node.output)]
        if not unused:
            return
        for node in unused:
            graph.node.remove(node)
