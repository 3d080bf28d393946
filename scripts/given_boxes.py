"""Test ``MTCNN.find_landmarks`` on imitated boxes of other detectors: docs/results/given-boxes.*

    python scripts/given_boxes.py [--data ../shared/data]

Uses the val faces of UTKFace and FairFace in a border. To imitate other detectors, our detector's
boxes are resized and shifted along both axes by a share of their size, with random signs. Landmarks
are compared with those of the detection, answers with the labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from val_photos import arguments, val_photos, write

from facewise.analyzer import Analyzer
from facewise.boxes import scaled
from facewise.data.tight_crops import nearest_to_centre
from facewise.labels import GENDER_LABELS
from facewise.types import Face, FloatArray, Photo, Prediction

SCALES, SHIFTS = (0.8, 1.0, 1.25, 1.5, 2.0), (0.0, 0.1, 0.2)
DETECTED = "as detected"


def moved(box: FloatArray, scale: float, shift: float, rng: np.random.Generator) -> FloatArray:
    """A resized and shifted box, ``(1, 4)``."""
    size = box[2:] - box[:2]
    return scaled((box + np.tile(size * rng.choice([-shift, shift], 2), 2))[None], scale)


def row(prediction: Prediction, usual: Face, years: tuple[int, int], gender: int) -> dict[str, Any]:
    points, right = usual.landmarks, prediction.gender
    error = np.hypot(*(prediction.face.landmarks - points).T).mean()
    assert right is not None
    assert prediction.age_years is not None
    return {
        "off": float(error / np.hypot(*(points[1] - points[0]))),
        "years": abs(prediction.age_years - years[0]) if years[0] == years[1] else None,
        "gender": right.top == GENDER_LABELS[gender],
        "abstained": bool(prediction.abstained),
    }


def measure(analyzer: Analyzer, photo: Photo, sample: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Results by kind of box; empty if the detector finds no face."""
    usual = nearest_to_centre(analyzer.detector.detect(photo), photo)
    if usual is None:
        return {}
    rng = np.random.default_rng(seed)
    boxes = {
        f"{scale:g} x, off by {shift:.0%}": moved(usual.bbox, scale, shift, rng)
        for scale in SCALES
        for shift in SHIFTS
    }
    faces = analyzer.detector.find_landmarks(photo, np.concatenate([*boxes.values()]))
    answers = analyzer.analyze_faces(photo, [usual, *faces])
    return {
        kind: row(answer, usual, sample.age_range, sample.gender)
        for kind, answer in zip([DETECTED, *boxes], answers, strict=True)
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    off = np.array([r["off"] for r in rows])
    years = [r["years"] for r in rows if r["years"] is not None]
    return {
        "faces": len(rows),
        "off_median": round(float(np.median(off)), 4),
        "off_95": round(float(np.quantile(off, 0.95)), 4),
        "age_mae_years": round(float(np.mean(years)), 3),
        "gender_accuracy": round(float(np.mean([r["gender"] for r in rows])), 4),
        "abstained": round(float(np.mean([r["abstained"] for r in rows])), 4),
    }


def markdown(result: dict[str, dict[str, float]], model: str) -> str:
    lines = [
        f"Val faces of UTKFace and FairFace, {result[DETECTED]['faces']} of them, with {model}; "
        "written by `scripts/given_boxes.py`, which says how boxes were changed. Landmarks: "
        "distance from those of the detection, in eye distances, the mean of five.",
        "",
        "| box | landmarks off, median | 95 % of faces within | UTKFace age MAE, years | gender, "
        "both | abstained from any |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {r['off_median']:.3f} | {r['off_95']:.3f} | {r['age_mae_years']:.2f} | "
        f"{r['gender_accuracy']:.1%} | {r['abstained']:.1%} |"
        for kind, r in result.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    args = arguments(__doc__ or "")
    analyzer = Analyzer(threads=1, attributes=("age", "gender"))
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed, sample, photo in val_photos(args.data, args.faces):
        for kind, one in measure(analyzer, photo, sample, seed).items():
            rows.setdefault(kind, []).append(one)
    result = {kind: summary(some) for kind, some in rows.items()}
    model = f"{analyzer.spec.name}@{analyzer.spec.version}"
    write(args.out, "given-boxes", {"model": model, **result}, markdown(result, model))


if __name__ == "__main__":
    main()
