"""Static int8 of P-net: is it faster here, and does the detector still find the golden faces?

    python scripts/quantise_pnet.py [--data ../shared/data] [--out docs/results]

Ranges come from the pyramids of FairFace train faces in a border. Writes pnet-int8.json; no int8
model is kept. Needs the train extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from data_folder import DATA
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from val_photos import fairface

from facewise import MTCNN, Photo
from facewise.data.tight_crops import add_border
from facewise.models import WEIGHTS_FOLDER, import_onnxruntime
from facewise.types import FloatArray

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]
from cost import scene  # noqa: E402

from golden.scenes import MIN_FACE_PX, count_matches, scenes  # noqa: E402

PHOTOS = 16
ROUNDS = 15
TIMED = (640, 480, 1)


class Seen:
    """A session that records its inputs."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.images = inner, list[FloatArray]()

    def run(self, outputs: Any, feeds: dict[str, FloatArray]) -> Any:
        self.images.append(feeds["image"].copy())
        return self.inner.run(outputs, feeds)


def pnet_inputs(photos: list[Photo], smallest: float | None = None) -> list[FloatArray]:
    """P-net's inputs for these photos: all bands of all levels."""
    detector = MTCNN(threads=1, min_face_px=smallest)
    seen = detector._networks["pnet"] = Seen(detector._networks["pnet"])  # type: ignore[assignment]
    detector.detect_many(photos)
    return seen.images


class Levels(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: list[FloatArray]) -> None:
        self._images: Iterator[FloatArray] = iter(images)

    def get_next(self) -> dict[str, FloatArray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def session(path: Path) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.enable_mem_pattern = False
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def golden_matches(pnet: Any) -> dict[str, int]:
    """How many golden faces a detector with this P-net finds, and how many faces in all."""
    detector = MTCNN(threads=1, min_face_px=MIN_FACE_PX, second_look=False)
    detector._networks["pnet"] = pnet
    stored = json.loads((ROOT / "tests/golden/mtcnn.json").read_text(encoding="utf-8"))["scenes"]
    matched = found = 0
    for name, picture in scenes():
        ours = detector.detect(Photo(np.asarray(picture)))
        found += len(ours)
        theirs = stored[name]
        matched += count_matches(
            np.array([face["bbox"] for face in theirs]).reshape(-1, 4),
            np.array([face["landmarks"] for face in theirs]).reshape(-1, 5, 2),
            np.array([face.bbox for face in ours]).reshape(-1, 4),
            np.array([face.landmarks for face in ours]).reshape(-1, 5, 2),
        )
    return {"matched": matched, "found": found, "of": sum(map(len, stored.values()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    args = parser.parse_args()
    faces = islice(fairface(args.data, "train"), PHOTOS)
    levels = pnet_inputs([Photo(add_border(face)[0]) for face in faces])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pnet-int8.onnx"
        quantize_static(
            str(WEIGHTS_FOLDER / "mtcnn-pnet.onnx"),
            str(path),
            Levels(levels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool"],
        )
        sessions = {"fp32": session(WEIGHTS_FOLDER / "mtcnn-pnet.onnx"), "int8": session(path)}
    timed = pnet_inputs([Photo(scene(*TIMED))])
    runs: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS + 1):
        for name, each in sessions.items():
            started = time.process_time()
            for image in timed:
                each.run(None, {"image": image})
            runs[name].append((time.process_time() - started) * 1e3)
    result = {
        "milliseconds_640_x_480": {
            name: round(statistics.median(values[1:]), 2) for name, values in runs.items()
        },
        "golden": {name: golden_matches(each) for name, each in sessions.items()},
        "calibrated_on": f"{len(levels)} levels of {PHOTOS} FairFace train faces",
    }
    (args.out / "pnet-int8.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
