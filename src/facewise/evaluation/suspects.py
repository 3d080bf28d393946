"""Labels that surprise the model, for manual checking."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from facewise.evaluation.scoring import Scored
from facewise.labels import CLASSES
from facewise.types import Float64Array, FloatArray

NEAR_YEARS: Final = 2
"""An age label's probability includes the years within this distance."""

SUSPECTS: Final = 200
"""Most labels listed."""

COLUMNS: Final = ("file", "attribute", "label", "answer", "p_label", "p_answer", "surprise")
"""Columns of a list of suspects."""


def suspects_of(scored: Scored) -> list[dict[str, Any]]:
    """The labels that surprise the model most, for manual checking.

    Surprise is the logarithm of how much likelier the model's answer is than the label (the
    normalised margin of confident learning; Northcutt, Jiang and Chuang, 2021); an age, and an age
    group, include the two years on either side. So an age's answer is the middle of the likeliest
    five years, not the expected age. Some of these are the model's own errors, so this is a list to
    check, not a verdict. Only faces found are listed; the model should not have been trained on
    them.

    Returns:
        Up to 200 rows of file, attribute, label, answer, the probabilities of both, and surprise,
        the most surprising first; none whose label is as likely as the answer.
    """
    part = scored.take(scored.outcomes.found)
    keys, age_ranges = part.outcomes.keys, part.outcomes.age_ranges
    rows: list[dict[str, Any]] = []
    row: int
    near = _within(part.ages, NEAR_YEARS)
    answers = near.argmax(-1)
    # In double precision: what is left of a sum near 1 may be smaller than float32 can tell.
    sums = np.cumsum(part.ages, -1, dtype=np.float64)
    running = np.concatenate([np.zeros((len(sums), 1)), sums], 1)
    for row in np.flatnonzero(age_ranges[:, 0] > 0).tolist():
        first, last = (int(v) for v in age_ranges[row])
        low, high = max(first - NEAR_YEARS, 1), min(last + NEAR_YEARS, 120)
        own = float(running[row, high] - running[row, low - 1])
        # Compare a range with the likeliest run of years of the same width.
        width = last - first
        best = near[row].max() if width == 0 else _likeliest(running[row], high - low + 1)
        label = str(first) if first == last else f"{first}-{last}"
        rows.append(_suspect(keys[row], "age", label, str(int(answers[row]) + 1), own, float(best)))
    for name, names in CLASSES.items():
        labels, p = part.truth[name], part.probabilities[name]
        for row in np.flatnonzero(part.known(name) & ~part.right(name)).tolist():
            told, said = int(labels[row]), int(part.answers[name][row])
            own, best = float(p[row, told]), float(p[row, said])
            rows.append(_suspect(keys[row], name, names[told], names[said], own, best))
    rows = [row for row in rows if row["surprise"] > 0]
    rows.sort(key=lambda r: (-r["surprise"], r["file"], r["attribute"]))
    return rows[:SUSPECTS]


def _within(p: FloatArray, years: int) -> Float64Array:
    """Probability of each year including its neighbours, ``(N, 120)``."""
    padded = np.pad(p.astype(np.float64), ((0, 0), (years, years)))
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * years + 1, axis=1).sum(-1)


def _likeliest(running: Float64Array, width: int) -> float:
    return float((running[width:] - running[:-width]).max())


def _suspect(
    file: str, attribute: str, label: str, answer: str, own: float, best: float
) -> dict[str, Any]:
    return {
        "file": str(file),
        "attribute": attribute,
        "label": label,
        "answer": answer,
        "p_label": round(own, 5),
        "p_answer": round(best, 5),
        "surprise": round(float(np.log(max(best, 1e-9) / max(own, 1e-9))), 4),
    }
