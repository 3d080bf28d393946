"""Count multiply-adds of a network from its graph, and of a photo from what the pipeline runs.

    python bench/cost.py            # print the cost of the fixed scenes
    python bench/cost.py --write    # make it the budget (tests/data/cost.json), if intended

Seconds depend on the machine and its neighbours; multiply-adds do not.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from PIL import Image

from facewise.models import WEIGHTS_FOLDER
from facewise.mtcnn import MTCNN
from facewise.training.simplify import fold_padding
from facewise.types import Face, Photo

ROOT = Path(__file__).parent.parent
BUDGET = ROOT / "tests" / "data" / "cost.json"


@cache
def multiply_adds(path: Path, *shape: int) -> int:
    """Multiply-adds of all convolutions and dense layers of a graph, for one input shape."""
    model = onnx.load(str(path))
    fold_padding(model, shape[1])  # otherwise later shapes are known only at run time
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.output, *graph.input]
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":  # (outputs, inputs per group, height, width)
            total += int(np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:]))
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            inputs = shapes[node.input[1]][1 if transposed else 0]
            total += int(np.prod(shapes[node.output[0]])) * inputs
    return total


def network_path(name: str) -> Path:
    return WEIGHTS_FOLDER / f"mtcnn-{name}.onnx"


class Counted:
    """A session that adds up its multiply-adds."""

    def __init__(self, session: Any, name: str, counts: Counter[str]) -> None:
        self._session, self._name, self._counts = session, name, counts

    def run(self, outputs: Any, feeds: dict[str, np.ndarray]) -> Any:
        shape = feeds["image"].shape
        if self._name == "pnet":
            self._counts[self._name] += multiply_adds(network_path(self._name), *shape)
        else:  # cost per crop
            one = multiply_adds(network_path(self._name), 1, *shape[1:])
            self._counts[self._name] += shape[0] * one
        return self._session.run(outputs, feeds)


def detect_counted(photo: Photo, **options: Any) -> tuple[tuple[Face, ...], Counter[str]]:
    """Faces, and the multiply-adds of each network that found them."""
    detector = MTCNN(threads=1, **options)
    counts: Counter[str] = Counter()
    for name, session in detector._networks.items():
        detector._networks[name] = Counted(session, name, counts)  # type: ignore[assignment]
    return detector.detect(photo), counts


def scene(width: int, height: int, faces: int) -> np.ndarray:
    """A smooth backdrop with rows of fixture faces: uint8 ``(H, W, 3)``, deterministic."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(40, 215, (4, 6, 3), dtype=np.uint8)
    canvas = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    paths = sorted((ROOT / "tests" / "data" / "faces").glob("*.webp"))
    size = height // 4 if faces <= 5 else height // 6
    columns = width // (size + 20)
    for index in range(faces):
        face = np.asarray(Image.open(paths[index % len(paths)]).convert("RGB"))
        mode = cv2.INTER_AREA if size < face.shape[0] else cv2.INTER_LINEAR
        x, y = 10 + index % columns * (size + 20), 10 + index // columns * (size + 20)
        canvas[y : y + size, x : x + size] = cv2.resize(face, (size, size), interpolation=mode)
    return canvas


SCENES = {
    "640 x 480, 1 face": (640, 480, 1),
    "640 x 480, no face": (640, 480, 0),
    "1080p, 1 face": (1920, 1080, 1),
    "1080p, 20 faces": (1920, 1080, 20),
    "12 megapixels, 3 faces": (4000, 3000, 3),
}


def measure() -> dict[str, dict[str, int]]:
    result = {}
    for name, size in SCENES.items():
        faces, counts = detect_counted(Photo(scene(*size)))
        result[name] = {"faces": len(faces), **{key: counts[key] for key in sorted(counts)}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make this the budget")
    args = parser.parse_args()
    measured = measure()
    print(json.dumps(measured, indent=1))
    if args.write:
        BUDGET.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
