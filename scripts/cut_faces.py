"""Score faces that the photo's edge cuts off: docs/results/cut-faces.*

    python scripts/cut_faces.py [--data ../shared/data] [--faces 250]

Cuts val faces of UTKFace and FairFace, which stand whole in a grey border, at each side in turn, so
that a share of their box lies outside the picture. The whole face is the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from val_photos import arguments, val_photos, write

from facewise.analyzer import Analyzer
from facewise.data.sets import Sample
from facewise.data.tight_crops import nearest_to_centre
from facewise.images import load_photo
from facewise.labels import GENDER_LABELS
from facewise.types import FloatArray, ImageArray, Prediction

SHARES = (0.2, 0.3, 0.4, 0.5)
WHOLE = ("whole", 0.0)


def pictures(rgb: ImageArray, box: FloatArray) -> Iterator[tuple[tuple[str, float], ImageArray]]:
    """The picture as it is, and cut at each side through the face."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    yield WHOLE, rgb
    for share in SHARES:
        yield ("left", share), rgb[:, int(left + share * width) :]
        yield ("right", share), rgb[:, : int(right - share * width)]
        yield ("top", share), rgb[int(top + share * height) :]
        yield ("bottom", share), rgb[: int(bottom - share * height)]


def row(person: Prediction | None, sample: Sample) -> dict[str, Any]:
    """What one picture adds; None where the face is not found, not answered for or not labelled."""
    if person is None:
        return {"found": False, "answered": None, "years": None, "gender": None}
    assert person.age_years is not None
    assert person.gender is not None
    years, gender = sample.age_range, sample.gender
    exact = years is not None and years[0] == years[1] and "age" not in person.abstained
    named = gender is not None and "gender" not in person.abstained
    return {
        "found": True,
        "answered": not person.abstained,
        "years": abs(person.age_years - years[0]) if exact and years else None,
        "gender": person.gender.top == GENDER_LABELS[gender or 0] if named else None,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    def mean(name: str) -> float:
        return round(float(np.mean([r[name] for r in rows if r[name] is not None])), 4)

    return {
        "faces": len(rows),
        "found": mean("found"),
        "answered": mean("answered"),
        "age_mae_years": mean("years"),
        "gender_error": round(1 - mean("gender"), 4),
    }


def markdown(result: dict[str, dict[str, float]], model: str) -> str:
    lines = [
        f"{result['whole']['faces']} val faces of UTKFace and FairFace, cut at a side of the "
        f"picture by `scripts/cut_faces.py`, with {model}. Errors count faces that are found and "
        "answered for.",
        "",
        "| share of the box outside | found | answered in full | UTKFace age MAE, years | gender "
        "wrong, both |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {r['found']:.1%} | {r['answered']:.1%} | {r['age_mae_years']:.2f} | "
        f"{r['gender_error']:.1%} |"
        for kind, r in result.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    args = arguments(__doc__ or "", faces=250)
    analyzer = Analyzer(threads=1, attributes=("age", "gender"))
    rows: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for _, sample, photo in val_photos(args.data, args.faces):
        usual = nearest_to_centre(analyzer.detector.detect(photo), photo)
        if usual is None:
            continue
        for kind, rgb in pictures(photo.rgb, usual.bbox):
            cut = load_photo(np.ascontiguousarray(rgb))
            face = nearest_to_centre(analyzer.detector.detect(cut), cut)
            answers = analyzer.analyze_faces(cut, [face] if face is not None else [])
            rows.setdefault(kind, []).append(row(next(iter(answers), None), sample))
    # Whole first, then side by side.
    order = sorted(rows, key=lambda kind: (kind != WHOLE, kind[0]))
    result = {
        side if share == 0 else f"{share:.0%}, {side}": summary(rows[side, share])
        for side, share in order
    }
    model = f"{analyzer.spec.name}@{analyzer.spec.version}"
    write(args.out, "cut-faces", {"model": model, **result}, markdown(result, model))


if __name__ == "__main__":
    main()
