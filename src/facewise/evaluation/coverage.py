"""Coverage of age intervals and label sets, compared with a plain conformal baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facewise.calibration import LEVELS, age_band
from facewise.evaluation.fit import conformal_quantiles
from facewise.evaluation.groups import UNKNOWN, cross, group_columns, large_groups
from facewise.evaluation.scoring import Scored
from facewise.labels import CLASSES
from facewise.reporting.bootstrap import share
from facewise.types import AnyFloatArray, Array, BoolArray, TextArray

MIN_COVERAGE_GROUP: Final = 150
"""Smallest group whose coverage is judged."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Plain split conformal prediction: one threshold for everybody.

    Attributes:
        half_widths: coverage to years on either side of the expected age.
        set_thresholds: attribute to coverage to t; a set holds labels with probability of at least
            1 - t.
    """

    half_widths: dict[float, float]
    set_thresholds: dict[str, dict[float, float]]


def fit_baseline(calibration: Scored) -> Baseline:
    """Fit the baseline with crepes on the calibration faces that were found."""
    part = calibration.take(calibration.outcomes.found)
    exact = part.take(part.exact)
    half = thresholds(np.abs(exact.age - exact.true_age))
    sets = {}
    for name, p in part.probabilities.items():
        known = part.known(name)
        hinge = 1 - p[known][np.arange(int(known.sum())), part.truth[name][known]]
        sets[name] = thresholds(hinge)
    return Baseline(half, sets)


def thresholds(scores: AnyFloatArray) -> dict[float, float]:
    """Split-conformal quantiles of nonconformity scores, one per level."""
    return {level: float(conformal_quantiles(scores, level)[0]) for level in LEVELS}


def coverage_table(scored: Scored, baseline: Baseline | None = None) -> dict[str, Any]:
    """Coverage and width or size by level: overall, by data set, by predicted band, by group.

    Levels are those of the calibration; a ``baseline`` needs them to be ``LEVELS``.

    Faces not found count as outside; widths and sizes are of found faces only. A judged group
    ``reaches`` the level if the upper end of its 95 % Wilson interval does.
    """
    levels = scored.calibration.coverages
    return {str(level): _at_level(scored, level, baseline) for level in levels}


def _at_level(scored: Scored, level: float, baseline: Baseline | None) -> dict[str, Any]:
    exact, found = scored.exact, scored.outcomes.found
    hit = scored.interval_hit(level)
    intervals = scored.intervals(level)
    width = (intervals[:, 1] - intervals[:, 0]).astype(np.float64)
    out: dict[str, Any] = {}
    if exact.any():
        out["intervals"] = share(hit[exact]) | {"mean_width_years": _mean(width[exact & found])}
        groups = {"predicted age": predicted_bands(scored)} | group_columns(scored)
        out["interval_groups"] = _groups(groups, hit, width, exact, found, level)
    if (ranged := (scored.true_age > 0) & ~exact).any():
        # An age known only as a group lies somewhere in it, so all we can check is whether the
        # interval touches the group, which happens more often than coverage.
        out["intervals_touching_age_groups"] = share(hit[ranged]) | {
            "mean_width_years": _mean(width[ranged & found])
        }
    for name in CLASSES:
        known = scored.known(name)
        if known.any():
            out[f"{name}_sets"] = _sets(scored, name, level)
    if baseline is not None:
        out["baseline"] = _baseline(scored, level, baseline)
    return out


def predicted_bands(scored: Scored) -> TextArray:
    """Mondrian band of each expected age, such as "13-19"; "unknown" for faces not found."""
    starts = scored.calibration.band_starts_years
    ends = [f"{a - 1}" for a in starts[1:]] + ["120"]
    names = np.array([f"{a}-{b}" for a, b in zip(starts, ends, strict=True)])
    bands = names[age_band(scored.age, starts)]
    return np.where(scored.outcomes.found, bands, UNKNOWN)


def _sets(scored: Scored, name: str, level: float) -> dict[str, Any]:
    known, found = scored.known(name), scored.outcomes.found
    hit, size = scored.set_hit(name, level), scored.set_members(name, level).sum(1)
    labels = np.array((*CLASSES[name], UNKNOWN))[scored.truth[name]]
    groups = {
        "data set": scored.outcomes.datasets,
        f"data set x {name}": cross(scored.outcomes.datasets, labels),
        "certainty": _unsure(scored.probabilities[name].max(-1), known & found),
    } | group_columns(scored)
    return share(hit[known]) | {
        "mean_size": _mean(size[known & found]),
        "empty": int((size[known & found] == 0).sum()),
        "groups": _groups(groups, hit, size, known, found, level),
    }


def _unsure(certainty: AnyFloatArray, rows: BoolArray) -> TextArray:
    """Mark the least certain tenth of rows, whose undercoverage an overall level can hide."""
    if not rows.any():
        return np.full(len(rows), UNKNOWN)
    least = certainty <= np.quantile(certainty[rows], 0.1)
    return np.where(rows, np.where(least, "the least sure tenth", "the rest"), UNKNOWN)


def _groups(
    groupings: dict[str, Any],
    hit: BoolArray,
    size: Array,
    rows: BoolArray,
    found: BoolArray,
    level: float,
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for grouping, names in groupings.items():
        for group in large_groups(names[rows], MIN_COVERAGE_GROUP):
            mine = rows & (names == group)
            cell: dict[str, Any] = share(hit[mine])
            cell["reaches"] = bool(cell["high"] >= level)
            cell["mean_size"] = _mean(size[mine & found])
            out[f"{grouping}: {group}"] = cell
    return out


def _baseline(scored: Scored, level: float, baseline: Baseline) -> dict[str, Any]:
    exact, found = scored.exact, scored.outcomes.found
    half = baseline.half_widths[level]
    first = np.maximum(np.ceil(scored.age - half), 1)
    last = np.minimum(np.floor(scored.age + half), 120)
    hit = (scored.true_age >= first) & (scored.true_age <= last) & found
    out: dict[str, Any] = {}
    if exact.any():
        groups = {"predicted age": predicted_bands(scored)} | group_columns(scored)
        out["intervals"] = share(hit[exact]) | {
            "mean_width_years": _mean((last - first)[exact & found])
        }
        cells = _groups(groups, hit, last - first, exact, found, level)
        out["groups_missed"] = [g for g, cell in cells.items() if not cell["reaches"]]
        out["groups_judged"] = len(cells)
    for name, p in scored.probabilities.items():
        known = scored.known(name)
        if known.any():
            members = (p >= 1 - baseline.set_thresholds[name][level]) & found[:, None]
            inside = members[np.arange(len(scored)), scored.truth[name]]
            size = members.sum(1)[known & found]
            out[f"{name}_sets"] = share(inside[known]) | {
                "mean_size": _mean(size),
                "empty": int((size == 0).sum()),
            }
    return out


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def below(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The judged groups whose 95 % interval of coverage lies below the level."""
    return {group: figure for group, figure in groups.items() if not figure["reaches"]}
