"""Label noise, from pictures that were labelled twice.

Two labels of one photo are two draws of the same noise. Their difference needs no model, so it
estimates how small an error measured against such labels can get.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from facewise.labels import CLASSES
from facewise.reporting.bootstrap import Figure, GroupBootstrap, figure
from facewise.types import Array, TextArray

MAD_TO_SD: Final = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""

BANDS: Final = ((1, 12), (13, 19), (20, 29), (30, 39), (40, 49), (50, 64), (65, 120))
MIN_PAIRS: Final = 30
Labels = Mapping[str, int | str | None]
"""age, gender and ethnicity of one picture; None where unknown."""


def age_noise(groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Noise of exact ages, from groups of labels of one photo.

    Every pair of labels in a group is a difference of two errors; each group counts once,
    regardless of its number of pairs. If errors are independent and identically distributed, a
    label's mean error lies between half the mean difference and all of it (triangle inequality,
    Jensen's inequality). For normal errors it is the mean difference divided by the root of 2, for
    Laplace errors divided by 1.5. A model that knew every apparent age would err by about as much.
    Labels copied along with their picture agree trivially, which makes these
    figures too small.

    Args:
        groups: ages in years, two or more per group.

    Returns:
        ``n_groups``, ``n_pairs``, figures with bootstrap intervals over groups, and ``by_age``:
        the same by the group's median age, for bands of 30 pairs or more.
    """
    rows = []  # per group and difference, not per pair: a thousand copies have half a million
    for index, ages in enumerate(groups):
        apart, middle = _differences(ages), float(np.median(ages))
        rows += [(years, n, n / apart.total(), index, middle) for years, n in apart.items()]
    if not rows:
        return {"n_groups": 0, "n_pairs": 0}
    differences, times, weights, owner, middles = map(np.array, zip(*rows, strict=True))
    d, names = differences.astype(np.float64), owner.astype(np.str_)
    out: dict[str, Any] = {"n_groups": len(set(owner)), "n_pairs": int(times.sum())}
    out |= _noise(d, times, weights, names)
    by_age = {}
    for first, last in BANDS:
        mine = (middles >= first) & (middles < last + 1)
        if (pairs := int(times[mine].sum())) >= MIN_PAIRS:
            by_age[f"{first}-{last}"] = {"n_pairs": pairs} | _noise(
                d[mine], times[mine], weights[mine], names[mine]
            )
    return out | {"by_age": by_age}


def _differences(ages: Sequence[int]) -> Counter[int]:
    """How many pairs of ages differ by how many years."""
    counts = Counter(ages)
    out = Counter({0: sum(map(_pairs, counts.values()))})
    for (a, times), (b, others) in itertools.combinations(counts.items(), 2):
        out[abs(a - b)] += times * others
    return +out  # without differences that no pair has


def _pairs(n: int) -> int:
    """Number of pairs of n things."""
    return n * (n - 1) // 2


def _noise(d: Array, times: Array, w: Array, names: TextArray) -> dict[str, Any]:
    """Figures of differences in years, each with its number of pairs, weight and group."""
    boot, pairs = GroupBootstrap(names), int(times.sum())
    total = boot.sums(w)

    def mean(values: Array) -> Figure:
        drawn = boot.sums(values * w) / total
        value = float((values * w).sum() / w.sum())
        return figure(value, drawn, pairs, boot.groups, is_share=values.dtype == bool)

    difference = mean(d)
    square = mean(d * d)
    robust = boot.statistic(lambda rows: MAD_TO_SD * _median(d[rows], w[rows]) / np.sqrt(2))
    return {
        "share_that_disagrees": mean(d > 0),
        "share_over_5_years": mean(d > 5),
        "mean_difference_years": difference,
        "label_sd_years": _map(square, lambda v: float(np.sqrt(v / 2))),
        "label_sd_robust_years": robust | {"n": pairs},
        "mae_floor_normal_years": _map(difference, lambda v: v / np.sqrt(2)),
        "mae_floor_laplace_years": _map(difference, lambda v: v / 1.5),
        "mae_floor_bounds_years": [difference["value"] / 2, difference["value"]],
    }


def _map(f: Figure, function: Any) -> Figure:
    """Apply a monotone function to a figure."""
    return {k: v if k == "n" or v is None else float(function(v)) for k, v in f.items()}


def _median(values: Array, weights: Array) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def class_noise(groups: Sequence[Sequence[Hashable]], classes: int = 2) -> dict[str, Any]:
    """How often two labels of one photo disagree, with each group counted once.

    ``error_if_independent`` is the least share e of wrong labels with which two independent
    labellers of equal skill would disagree that often. Wrong labels disagree most if spread evenly
    over the other k - 1 classes. Two labels then agree if both are right, (1 - e)^2, or wrong in
    the same way, e^2 / (k - 1), so 2 e - e^2 k / (k - 1) = the share of pairs that disagree. For
    two classes that is 2 e (1 - e).

    Args:
        groups: classes by number or name, one group per photo.
        classes: k, the number of classes.
    """
    shares = []
    for labels in groups:
        if pairs := _pairs(len(labels)):
            alike = sum(map(_pairs, Counter(labels).values()))
            shares.append((pairs - alike) / pairs)
    if not shares:
        return {"n_groups": 0}
    boot = GroupBootstrap(np.array([str(i) for i in range(len(shares))]))
    values = np.array(shares)
    # If every group agrees or disagrees entirely, the mean is a share.
    disagree = boot.mean(values.astype(bool) if np.isin(values, (0, 1)).all() else values)
    wrong = (classes - 1) / classes  # share of wrong labels if drawn at random
    error = _map(disagree, lambda v: wrong * (1 - np.sqrt(max(0.0, 1 - v / wrong))))
    return {"n_groups": len(shares), "pairs_disagree": disagree, "error_if_independent": error}


def label_noise(groups: Sequence[Sequence[Labels]]) -> dict[str, Any]:
    """Noise of age, gender and ethnicity labels, from groups of pictures of one photo."""

    def column(name: str) -> list[list[Any]]:
        known = [[r[name] for r in group if r.get(name) is not None] for group in groups]
        return [values for values in known if len(values) > 1]

    return {
        "age": age_noise(column("age")),
        **{name: class_noise(column(name), len(labels)) for name, labels in CLASSES.items()},
    }
