"""Measure what the page's 12 bits per weight cost the default model on the val faces.

    python scripts/page_model_cost.py    # writes docs/results/page-model.json; needs the data

Each face is detected and cropped once; the shipped and the packed model see the same crops. 8 bits
are measured for comparison. Figures are for the bare network, before calibration; faces that are
not found are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from data_folder import DATA
from pack_model import pack
from val_photos import val_photos

from facewise.align import crop_faces
from facewise.attributes import AttributeModel
from facewise.data.tight_crops import nearest_to_centre
from facewise.labels import ETHNICITY, FAIRFACE_AGE_GROUPS, GENDER, ages_to_fairface_groups
from facewise.labels import expected_age as mean_age
from facewise.models import load_spec, read_spec
from facewise.mtcnn import MTCNN

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs/results/page-model.json"


def packed_model(folder: Path, bits: int) -> AttributeModel:
    """The default model packed in ``bits`` bits and opened like any other."""
    spec = load_spec()
    data = pack(onnx.load(spec.weights_path), bits).SerializeToString()
    (folder / f"{bits}.onnx").write_bytes(data)
    raw = json.loads(spec.path.read_text(encoding="utf-8"))
    raw |= {"file": f"{bits}.onnx", "sha256": hashlib.sha256(data).hexdigest()}
    (folder / f"{bits}.json").write_text(json.dumps(raw), encoding="utf-8")
    return AttributeModel(read_spec(folder / f"{bits}.json"), threads=1)


def figures(
    labels: list[tuple[Any, ...]], ages: np.ndarray, vector: np.ndarray
) -> dict[str, float]:
    """Scores of one model; ``labels`` are (data set, first and last year, gender, ethnicity)."""
    of = np.array([row[0] for row in labels])
    years = np.array([row[1] for row in labels])
    gender = np.array([row[2] for row in labels])
    ethnicity = np.array([row[3] for row in labels])
    groups = list(FAIRFACE_AGE_GROUPS.values())
    group = np.array([groups.index(tuple(y)) if tuple(y) in groups else -1 for y in years])
    out = {}
    utk, fair = of == "utkface", of == "fairface"
    exact = utk & (years[:, 0] == years[:, 1])
    out["UTKFace, age MAE, years"] = float(np.abs(mean_age(ages) - years[:, 0])[exact].mean())
    right = ages_to_fairface_groups(ages).argmax(1) == group
    out["FairFace, 9 age groups, %"] = 100 * float(right[fair].mean())
    for title, rows in (("UTKFace", utk), ("FairFace", fair)):
        right = vector[:, GENDER].argmax(1) == gender
        out[f"{title}, gender, %"] = 100 * float(right[rows & (gender >= 0)].mean())
        right = vector[:, ETHNICITY].argmax(1) == ethnicity
        out[f"{title}, ethnicity, %"] = 100 * float(right[rows & (ethnicity >= 0)].mean())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--limit", type=int, help="faces of each set, spread over it; all if left out"
    )
    options = parser.parse_args()
    spec, detector = load_spec(), MTCNN(threads=1)
    shipped = AttributeModel(spec, threads=1)
    labels, crops = [], []
    for _, sample, photo in val_photos(options.data, options.limit):
        face = nearest_to_centre(detector.detect(photo), photo)
        if face is None or sample.age_range is None:
            continue
        crops.append(crop_faces(photo, [face], spec.template, spec.size_px)[0])
        classes = [-1 if v is None else v for v in (sample.gender, sample.ethnicity)]
        labels.append((sample.dataset, sample.age_range, *classes))
    batch = np.stack(crops)
    with tempfile.TemporaryDirectory() as name:
        models = {12: packed_model(Path(name), 12), 8: packed_model(Path(name), 8)}
        sizes = {bits: model.spec.size_bytes for bits, model in models.items()}
        answers = {bits: model.predict(batch) for bits, model in models.items()}
    reference = shipped.predict(batch)
    scores = figures(labels, *reference)
    by_bits = {bits: figures(labels, *answer) for bits, answer in answers.items()}
    result = {
        "model": f"{spec.name}@{spec.version}",
        "sha256": spec.sha256,
        "faces": len(labels),
        "bits": 12,
        "bytes": sizes[12],
        "largest_difference_of_a_probability": round(
            max(float(np.abs(a - b).max()) for a, b in zip(reference, answers[12], strict=True)), 5
        ),
        "figures": {key: [round(v, 4), round(by_bits[12][key], 4)] for key, v in scores.items()},
        "eight_bits": {
            "bytes": sizes[8],
            "figures": {key: round(value, 4) for key, value in by_bits[8].items()},
        },
    }
    print(json.dumps(result, indent=1))
    if options.limit is None:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
