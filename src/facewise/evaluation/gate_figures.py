"""What gates do: curves of risk against the share answered, and the table of degraded faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from facewise.evaluation.degrade import NOT_FACES
from facewise.evaluation.gates import (
    RISK_LIMIT,
    SIDES,
    certainty,
    errors,
    expected_errors,
    quality_measures,
)
from facewise.evaluation.scoring import Scored
from facewise.labels import ATTRIBUTES
from facewise.reporting.bootstrap import GroupBootstrap, figure, wilson
from facewise.types import BoolArray, Float64Array

CURVE_POINTS: Final = 60
MIN_ANSWERED: Final = 30
"""Fewest answered faces for their error to be compared."""


def risk_coverage(certainties: Float64Array, errors_: Float64Array) -> list[tuple[float, float]]:
    """Share answered and mean error on it, the most certain first; up to 60 points.

    No gate separates rows of equal certainty, so each of them counts with their mean error.
    """
    _, ties = np.unique(certainties, return_inverse=True)
    errors_ = (np.bincount(ties, errors_) / np.bincount(ties))[ties]
    order = np.argsort(-certainties, kind="stable")
    risk = np.cumsum(errors_[order]) / np.arange(1, len(order) + 1)
    at = np.unique(np.linspace(len(order) * 0.05, len(order), CURVE_POINTS).astype(int)) - 1
    at = at[at >= 0]
    return [(float((i + 1) / len(order)), float(risk[i])) for i in at]


def gate_curves(clean: Scored, degraded: Mapping[str, Scored]) -> dict[str, Any]:
    """Curves of risk against share answered, for each attribute.

    By certainty, ``clean`` and ``with degraded`` are points (share answered, error), and ``chosen``
    is the point of the certainty gate on the clean curve, left out if there is no gate. ``by
    measure`` has a curve for each quality measure, over clean and degraded faces together:
    ``points``, and ``chosen``, the point of that gate alone, or None if there is no gate.
    Gates are those of ``clean``'s calibration.
    """
    out: dict[str, Any] = {}
    gates = clean.calibration.certainty_gates
    for name in ATTRIBUTES:
        parts = [clean, *(s for n, s in degraded.items() if n not in NOT_FACES)]
        error = [errors(s, name) for s in parts]
        sure = [certainty(s, name) for s in parts]
        known = np.isfinite(error[0])
        if not known.any():
            continue
        every, everyone = np.concatenate(error), np.concatenate(sure)
        use = np.isfinite(every)
        out[name] = {
            "clean": risk_coverage(sure[0][known], error[0][known]),
            "with degraded": risk_coverage(everyone[use], every[use]),
        }
        measures = np.concatenate([quality_measures(s) for s in parts])
        limits = clean.calibration.quality_gates.get(name, {})
        out[name]["by measure"] = {
            f"{field}, {'low' if side == 'min' else 'high'} first out": _by_measure(
                measures[use, column], every[use], limits.get(field, {}).get(side), side
            )
            for column, (field, side) in enumerate(SIDES)
        }
        gate = gates.get(name, {})
        least = (
            -gate.get("max_interval_years", np.inf)
            if name == "age"
            else gate.get("min_probability", 0.0)
        )
        answered = known & (sure[0] >= least)
        if gate and answered.any():
            out[name]["chosen"] = (
                float(answered.sum() / known.sum()),
                float(error[0][answered].mean()),
            )
    return out


def _by_measure(
    measure: Float64Array, errors_: Float64Array, limit: float | None, side: str
) -> dict[str, Any]:
    """The curve of one measure (larger is better), and the point of its limit."""
    chosen = None
    if limit is not None:
        answered = measure >= (limit if side == "min" else -limit)
        if answered.any():
            chosen = float(answered.mean()), float(errors_[answered].mean())
    return {"points": risk_coverage(measure, errors_), "chosen": chosen}


def degraded_table(clean: Scored, degraded: Mapping[str, Scored]) -> dict[str, Any]:
    """Share found, abstained from and answered, and the error, by input and attribute.

    ``clean`` comes first. ``judged`` counts the answers whose error is known. ``relative`` is the
    error on answered faces divided by that on answered clean faces of the same data sets, with its
    interval; ``within`` says whether it is at most 2. Both are None for ``clean``, for non-faces,
    for fewer than 30 such answers, and where no clean answer is wrong. ``by_dataset`` has
    ``judged``, ``error``, ``relative`` and ``within`` for each data set.
    """
    clean_errors = {}
    for name in ATTRIBUTES:
        answered = clean.outcomes.found & ~clean.abstained[name]
        clean_errors[name] = np.where(answered, errors(clean, name), np.nan)
    table: dict[str, Any] = {}
    for row, scored in {"clean": clean, **degraded}.items():
        found = scored.outcomes.found
        table[row] = {"n": len(scored), "found": float(found.mean())}
        for name in ATTRIBUTES:
            abstained = scored.abstained[name]
            answered = found & ~abstained
            error = errors(scored, name)
            rows = answered & np.isfinite(error)
            cell: dict[str, Any] = {
                "abstained": float(abstained[found].mean()) if found.any() else None,
                "answered": float(answered.mean()),
                "judged": int(rows.sum()) if row not in NOT_FACES else 0,
                "error": None,
                "error_of_all_found": None,
                "relative": None,
                "within": None,
                "by_dataset": {},
            }
            if row not in NOT_FACES and rows.any():
                cell["error"] = float(error[rows].mean())
                cell["error_of_all_found"] = float(np.nanmean(error))
                if scored is not clean and np.nansum(clean_errors[name]):
                    expected = expected_errors(scored, clean, clean_errors[name])
                    cell |= _relative(scored, rows, error, expected)
                    for dataset in np.unique(scored.outcomes.datasets).tolist():
                        own = rows & (scored.outcomes.datasets == dataset)
                        if own.any():
                            cell["by_dataset"][dataset] = {
                                "judged": int(own.sum()),
                                "error": float(error[own].mean()),
                                **_relative(scored, own, error, expected),
                            }
            table[row][name] = cell
        some = np.any([scored.abstained[name] for name in ATTRIBUTES], axis=0)
        table[row]["abstained_from_any"] = float(some[found].mean()) if found.any() else None
        table[row]["abstained_from_any_by_dataset"] = {
            dataset: float(some[own].mean())
            for dataset in np.unique(scored.outcomes.datasets).tolist()
            if (own := found & (scored.outcomes.datasets == dataset)).any()
        }
    return table


def _relative(
    scored: Scored, rows: BoolArray, error: Float64Array, expected: Float64Array
) -> dict[str, Any]:
    """Ratio of actual to expected error over some rows, if there are enough, and clean errors."""
    if rows.sum() < MIN_ANSWERED or not expected[rows].any():
        return {"relative": None, "within": None}
    draws = GroupBootstrap(scored.outcomes.groups[rows])
    ratio = float(error[rows].sum() / expected[rows].sum())
    drawn = draws.sums(error[rows]) / draws.sums(expected[rows])
    relative = figure(ratio, drawn, int(rows.sum()), draws.groups)
    if ratio == 0 and relative["high"] is not None:
        # All draws are 0, which says nothing about other faces; ages are never all exactly right.
        _, most = wilson(0, draws.groups)
        relative["high"] = most * int(rows.sum()) / float(expected[rows].sum())
    return {"relative": relative, "within": ratio <= RISK_LIMIT}
