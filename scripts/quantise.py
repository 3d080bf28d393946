"""Static int8 of the default attribute model: is it faster here, and what does it cost on val?

    python scripts/quantise.py cache/faces --out docs/results [--keep int8.onnx]

Ranges come from 256 val faces, figures from the rest of val, using the cache's landmarks and the
shipped template. The model is discarded unless ``--keep`` is given: it would need its own
calibration, spec and name. Needs the train extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from facewise.labels import ETHNICITY, GENDER
from facewise.models import ModelSpec, import_onnxruntime, load_spec
from facewise.training.cache import open_cache
from facewise.training.data import aligned_crops
from facewise.training.score import score
from facewise.training.simplify import fold_padding
from facewise.types import ImageArray

CALIBRATION_FACES = 256
ROUNDS = 41


class Faces(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: ImageArray) -> None:
        self._parts: Iterator[ImageArray] = iter(np.split(crops, len(crops) // 16))

    def get_next(self) -> dict[str, ImageArray] | None:
        part = next(self._parts, None)
        return None if part is None else {"image": part}


def session(path: Path, optimised: Path | None = None) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimised is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantise(spec: ModelSpec, crops: ImageArray, out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        plain = Path(name) / "plain.onnx"
        model = onnx.load(str(spec.weights_path))
        fold_padding(model, spec.size_px)
        onnx.save(model, str(plain))
        folded = Path(name) / "folded.onnx"  # turns half-precision weights back into constants
        session(plain, folded)
        quantize_static(
            str(folded),
            str(out),
            Faces(crops),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Clip"],
            calibrate_method=CalibrationMethod.MinMax,  # percentiles gained nothing
        )


def times(sessions: dict[str, Any], crops: ImageArray) -> dict[str, float]:
    """Median processor milliseconds per crop, taking turns."""
    runs: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, each in sessions.items():
            started = time.process_time()
            each.run(None, {"image": crops})
            runs[name].append((time.process_time() - started) * 1e3 / len(crops))
    return {name: round(statistics.median(values[1:]), 3) for name, values in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--keep", type=Path, help="write the int8 file here")
    args = parser.parse_args()
    spec, cache = load_spec(), open_cache(args.cache)
    rows = np.random.default_rng(0).permutation(cache.rows("val"))
    fitted, judged = rows[:CALIBRATION_FACES], rows[CALIBRATION_FACES:]
    crops = aligned_crops(cache, judged, spec.template, spec.size_px)
    result: dict[str, Any] = {"model": f"{spec.name}@{spec.version}", "faces": len(judged)}
    with tempfile.TemporaryDirectory() as name:
        sessions = {"fp32": session(spec.weights_path)}
        path = args.keep or Path(name) / "int8.onnx"
        quantise(spec, aligned_crops(cache, fitted, spec.template, spec.size_px), path)
        sessions["int8"] = session(path)
        result["bytes"] = {"fp32": spec.size_bytes, "int8": path.stat().st_size}
        result["figures"] = {}
        for label, each in sessions.items():
            parts = [
                each.run(["ages", "vector"], {"image": crops[start : start + 32]})
                for start in range(0, len(crops), 32)
            ]
            ages, vector = (np.concatenate(part) for part in zip(*parts, strict=True))
            figures = score(cache, judged, ages, vector[:, GENDER], vector[:, ETHNICITY])
            result["figures"][label] = {key: round(value, 5) for key, value in figures.items()}
        result["milliseconds_a_crop"] = {
            f"batch {count}": times(sessions, crops[:count]) for count in (1, 16)
        }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "int8.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
