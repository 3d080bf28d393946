"""Fit what ``facewise.calibration`` applies: temperatures, conformal thresholds, gates.

Temperatures and thresholds come from the calibration split, gates from val; test is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.calibration import LEVELS, Calibration, age_band, age_std, apply_temperature
from facewise.evaluation.outcomes import Outcomes
from facewise.labels import expected_age
from facewise.reporting.bootstrap import GroupNames
from facewise.types import FloatArray

BAND_STARTS_YEARS: Final = (1, 4, 13, 20, 27, 34, 42, 52, 65)
"""Mondrian bands of the expected age; neighbours are joined where one holds too few faces."""

AGE_STARTS_YEARS: Final = (1, 4, 13, 20, 30, 40, 50, 65)
"""Bands of the age itself; joined likewise."""

MIN_BAND: Final = 60
"""Fewest calibration faces of a band: with fewer, its 95 % quantile is its third largest score."""

ONE_SIDED_90: Final = 1.2816
"""Standard errors by which the coverage aimed at lies above the level, so that nine times of ten
the true coverage reaches it: calibration faces are a sample (Vovk, 2012, on what split conformal
prediction owes to its calibration set)."""

FOLDS: Final = 5


def fit_temperature(probabilities: FloatArray, inside: NDArray[np.bool_]) -> float:
    """The temperature with the largest likelihood.

    Args:
        probabilities: ``(N, K)``.
        inside: ``(N, K)``, the classes each label allows: one, or the years of an age group.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        p = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum((p * inside).sum(-1), 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))


def fit_intervals(
    ages: FloatArray,
    truth: NDArray[np.integer[Any]],
    groups: GroupNames,
    found_share: float,
) -> dict[str, Any]:
    """The ``age_intervals`` of a calibration.

    Args:
        ages: tempered ``(N, 120)`` of faces that were found.
        truth: exact ages ``(N,)``.
        groups: near-duplicates share one, ``(N,)``.
        found_share: of all faces with an exact age; the others count as outside.
    """
    bands = joined_bands(expected_age(ages), BAND_STARTS_YEARS)
    own = joined_bands(truth, AGE_STARTS_YEARS)
    n, thresholds = len(truth), {}
    fold = _folds(groups)
    for level in LEVELS:
        fitted = _quantile_regression(ages, truth, bands, own, level)
        aim = min((level + ONE_SIDED_90 * np.sqrt(level * (1 - level) / n)) / found_share, 0.999)
        apart = [
            (fold == k, _quantile_regression(*_rows(ages, truth, fold != k), bands, own, level))
            for k in range(fold.max() + 1)
        ]
        offset = _offset(ages, truth, bands, own, apart, level, float(aim))
        band = np.round(fitted[0] + offset, 4).tolist()
        thresholds[str(level)] = {"band": band, "age": np.round(fitted[1], 4).tolist()}
    return {
        "band_starts_years": list(bands),
        "age_starts_years": list(own),
        "thresholds": thresholds,
    }


Fit = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Thresholds of the bands of the expected age, and of the bands of the age itself."""


def joined_bands(
    values: NDArray[Any], starts: tuple[int, ...], least: int = MIN_BAND
) -> tuple[int, ...]:
    """Band starts of which every band holds ``least`` values, by joining the smallest to a
    neighbour as long as there is a smaller one.
    """
    kept = list(starts)
    while len(kept) > 1:
        counts = np.bincount(age_band(values, tuple(kept)), minlength=len(kept))
        small = int(counts.argmin())
        if counts[small] >= least:
            break
        left_is_smaller = small == len(kept) - 1 or (
            small > 0 and counts[small - 1] < counts[small + 1]
        )
        del kept[small if left_is_smaller else small + 1]
    return tuple(kept)


def _rows(
    ages: FloatArray, truth: NDArray[np.integer[Any]], rows: NDArray[np.bool_]
) -> tuple[FloatArray, NDArray[np.integer[Any]]]:
    return ages[rows], truth[rows]


def _folds(groups: GroupNames) -> NDArray[np.intp]:
    """A fold for each row, near-duplicates in the same one; one fold where there are too few."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2 * FOLDS:
        return np.zeros(len(groups), np.intp)
    order = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return order[codes].astype(np.intp)


def _quantile_regression(
    ages: FloatArray,
    truth: NDArray[np.integer[Any]],
    bands: tuple[int, ...],
    own: tuple[int, ...],
    level: float,
) -> Fit:
    """Thresholds of age intervals, a sum over two kinds of bands that overlap.

    Quantile regression of the nonconformity on the bands' indicators (Gibbs, Cherian and Candes,
    2023): at its optimum the share of faces under their threshold is the level in every band of
    either kind at once, as Mondrian quantiles make it for bands that do not overlap.
    """
    from sklearn.linear_model import QuantileRegressor

    if len(truth) == 0:
        return np.zeros(len(bands)), np.zeros(len(own))
    scores = interval_scores(ages, truth)
    mine = age_band(expected_age(ages), bands), age_band(truth, own)
    indicators = np.hstack([np.eye(len(bands))[mine[0]], np.eye(len(own))[mine[1]]])
    fitted = QuantileRegressor(quantile=level, alpha=1e-5, solver="highs").fit(indicators, scores)
    return fitted.coef_[: len(bands)] + fitted.intercept_, fitted.coef_[len(bands) :]


def _offset(
    ages: FloatArray,
    truth: NDArray[np.integer[Any]],
    bands: tuple[int, ...],
    own: tuple[int, ...],
    apart: Sequence[tuple[NDArray[np.bool_], Fit]],
    level: float,
    aim: float,
) -> float:
    """What to add to all thresholds for faces that a fit has not seen to be covered as aimed.

    Thresholds cover the faces that they were fitted on too well. So each fold is covered by the
    intervals, as they ship, of a fit on the other folds, and the smallest addition is taken that
    covers as many as are aimed at.
    """

    def covered(offset: float) -> float:
        hits = 0
        for rows, (band, age) in apart:
            calibration = Calibration(
                band_starts_years=bands,
                age_starts_years=own,
                interval_thresholds={level: (tuple(band + offset), tuple(age))},
            )
            first, last = calibration.age_intervals(ages[rows], level).T
            hits += int(((truth[rows] >= first) & (truth[rows] <= last)).sum())
        return hits / len(truth)

    low, high = -2.0, 8.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (low, middle) if covered(middle) >= aim else (middle, high)
    return high


def interval_scores(ages: FloatArray, truth: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Nonconformity of exact ages: distance past half a year, in the distribution's own stds."""
    distance = np.abs(expected_age(ages) - truth)
    scores: NDArray[np.float64] = np.maximum(distance - 0.5, 0) / age_std(ages)
    return scores


def set_thresholds(
    probabilities: FloatArray,
    labels: NDArray[np.integer[Any]],
    sources: NDArray[np.str_],
    found_shares: Mapping[str, float],
) -> dict[str, list[float]]:
    """Thresholds of label sets, one a label, so that no label is covered at another's expense.

    crepes computes them as Mondrian quantiles by label. One number cannot fit all sources: the
    level aimed at is raised until each data set by itself reaches the level that was asked for,
    its faces that were not found being counted as missed.

    Args:
        probabilities: tempered ``(N, K)``.
        labels: ``(N,)``.
        sources: data set of each face.
        found_shares: data set to the share of its labelled faces that were found.
    """
    hinge = 1 - probabilities.astype(np.float64)
    rows = np.arange(len(labels))
    top = probabilities.argmax(-1)
    out = {}
    for level in LEVELS:
        for aim in np.arange(level, 0.995, 0.0025):
            t = mondrian_thresholds(
                hinge[rows, labels], labels.astype(np.intp), hinge.shape[1], float(aim)
            )
            hit = (hinge[rows, labels] <= t[labels]) | (top == labels)
            if all(hit[sources == s].mean() * found_shares[s] >= level for s in np.unique(sources)):
                break
        out[str(level)] = [round(float(v), 5) for v in t]
    return out


def mondrian_thresholds(
    scores: NDArray[np.floating[Any]], bins: NDArray[np.intp], count: int, level: float
) -> NDArray[np.float64]:
    """Split-conformal quantiles of nonconformity scores, one a bin.

    A crepes regressor whose residuals are the scores and whose point forecast is 0 has the
    threshold as its upper end. A bin without a face has no threshold: 1, which holds everything.
    """
    from crepes import ConformalRegressor

    out = np.ones(count)
    present = np.unique(bins)
    regressor = ConformalRegressor().fit(residuals=scores, bins=bins)
    ends = regressor.predict_int(np.zeros(len(present)), bins=present, confidence=level)
    out[present] = np.minimum(ends[:, 1], 1.0)
    return out


def class_mask(labels: NDArray[np.integer[Any]], count: int) -> NDArray[np.bool_]:
    """Labels ``(N,)`` to one-hot ``(N, count)``."""
    mask: NDArray[np.bool_] = labels[:, None] == np.arange(count)
    return mask


def age_mask(ranges: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Age ranges ``(N, 2)`` to the years they allow, ``(N, 120)``."""
    years = np.arange(1, 121)
    mask: NDArray[np.bool_] = (years >= ranges[:, :1]) & (years <= ranges[:, 1:])
    return mask


def fit_calibration(calibration: Outcomes) -> dict[str, Any]:
    """The ``calibration`` part of a model's spec, but for its gates."""
    c = calibration.take(calibration.found)
    aged, exact = c.age_ranges[:, 0] > 0, c.exact
    sets = np.unique(calibration.datasets)
    found = {
        str(name): float(calibration.found[calibration.datasets == name].mean()) for name in sets
    }
    fitted: dict[str, Any] = {"temperatures": {}, "label_sets": {}}
    if aged.any():
        t = round(fit_temperature(c.ages[aged], age_mask(c.age_ranges[aged])), 4)
        fitted["temperatures"]["age"] = t
        if exact.any():
            fitted["age_intervals"] = fit_intervals(
                apply_temperature(c.ages[exact], t),
                c.age_ranges[exact, 0],
                c.groups[exact],
                float(exact.sum() / calibration.exact.sum()),
            )
    for name, p, labels in (
        ("gender", c.genders, c.true_genders),
        ("ethnicity", c.ethnicities, c.true_ethnicities),
    ):
        known = labels >= 0
        if known.any():
            mask = class_mask(labels[known], p.shape[1])
            t = round(fit_temperature(p[known], mask), 4)
            fitted["temperatures"][name] = t
            fitted["label_sets"][name] = set_thresholds(
                apply_temperature(p[known], t), labels[known], c.datasets[known], found
            )
    return fitted
