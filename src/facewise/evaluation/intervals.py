"""Fit the age intervals that ``facewise.calibration`` applies.

A year lies inside an interval if its distance from the expected age, in the face's own standard
deviations, is at most the threshold of the expected age's band plus that of the year's own band.
The thresholds come from a quantile regression of that distance on both kinds of bands (Gibbs,
Cherian and Candes, 2023). More bands would fit the calibration faces better and other faces worse:
see ``scripts/compare_fits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facewise.calibration import LEVELS, Calibration, age_band, age_std
from facewise.labels import expected_age
from facewise.types import (
    AnyIntArray,
    Array,
    BoolArray,
    Float64Array,
    FloatArray,
    IndexArray,
    TextArray,
)

BAND_STARTS_YEARS: Final = (1, 4, 13, 30, 45, 60)
"""Mondrian bands of the expected age; a band with too few faces is joined to a neighbour."""

AGE_STARTS_YEARS: Final = (1, 4, 13, 20, 30, 40, 50, 65)
"""Bands of the age itself, joined likewise: those that reports show. With four of them, teenagers
were covered up to nine points too seldom, and people of 20 to 39 too often."""

MIN_BAND: Final = 60
"""Fewest calibration faces in a band; with fewer, its 95 % quantile is its third largest score."""

MARGIN: Final = 0.02
"""How far the target coverage lies above the level. Calibration faces are a sample (Vovk, 2012),
and so are the faces of a judged group: without a margin, one group in forty would seem
undercovered even if coverage were exact."""

LEAST_FOUND: Final = 0.98
"""Smallest share of faces found that intervals allow for. Faces not found count as outside, and the
others make up for them only down to this share: at 95 %, nothing could make up for one in twenty,
and close to that, intervals grow to twice their width."""

HIGHEST_LEVEL: Final = 0.9975
FOLDS: Final = 5
SEARCHES: Final = 3
CLOSE: Final = 0.001
"""Most corrections of the regression's level, and the gap too small for another one: a calibration
set's own error is several times as large."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How thresholds are fitted; variants are compared by ``scripts/compare_fits.py``.

    Attributes:
        band_starts_years, age_starts_years: bands before joining; (1,) for a single threshold.
        margin: how far the target coverage on unseen faces lies above the level.
    """

    band_starts_years: tuple[int, ...] = BAND_STARTS_YEARS
    age_starts_years: tuple[int, ...] = AGE_STARTS_YEARS
    margin: float = MARGIN


@dataclass(frozen=True, slots=True)
class FitFaces:
    """Faces to fit on.

    Attributes:
        ages: tempered probabilities ``(N, 120)`` of faces that were found.
        truth: exact ages ``(N,)``.
        groups: ``(N,)``, shared by near-duplicates.
    """

    ages: FloatArray
    truth: AnyIntArray
    groups: TextArray

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: BoolArray) -> FitFaces:
        """Rows by mask."""
        return FitFaces(self.ages[rows], self.truth[rows], self.groups[rows])


def fit_intervals(
    faces: FitFaces, found_share: float, recipe: Recipe | None = None
) -> dict[str, Any]:
    """The ``age_intervals`` of a calibration.

    Thresholds cover the faces that they were fitted on too well. So the level of the regression is
    adjusted until fits on four fifths of the faces reach the target coverage on the other fifth.

    Args:
        faces: faces of the calibration split.
        found_share: share found of all faces with an exact age; the others count as outside.
        recipe: None for the recipe that ships.
    """
    recipe = recipe or Recipe()
    bands = joined_bands(expected_age(faces.ages), recipe.band_starts_years)
    own = joined_bands(faces.truth, recipe.age_starts_years)
    thresholds = {}
    for level in LEVELS:
        aim = min((level + recipe.margin) / max(found_share, LEAST_FOUND), HIGHEST_LEVEL)
        band, age = fit_thresholds(faces, bands, own, _raised_level(faces, bands, own, level, aim))
        thresholds[str(level)] = {
            "band": np.round(band, 4).tolist(),
            "age": np.round(age, 4).tolist(),
        }
    return {
        "band_starts_years": list(bands),
        "age_starts_years": list(own),
        "thresholds": thresholds,
    }


Fit = tuple[Float64Array, Float64Array]
"""Thresholds of the bands of the expected age, and of the bands of the age itself."""


def joined_bands(values: Array, starts: tuple[int, ...], least: int = MIN_BAND) -> tuple[int, ...]:
    """Band starts after joining bands until each holds at least ``least`` values.

    The smallest band is joined to its smaller neighbour first.
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


def fit_thresholds(
    faces: FitFaces, bands: tuple[int, ...], own: tuple[int, ...], level: float
) -> Fit:
    """Quantile regression of the nonconformity on the bands' indicators.

    At the optimum, the share of faces under their threshold equals the level in every band of both
    kinds at once, as Mondrian quantiles achieve for bands that do not overlap. We solve the dual
    (Koenker and Bassett, 1978), with one variable per face and the thresholds as multipliers, seven
    times as fast as scikit-learn's QuantileRegressor solves the same problem.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    scores = interval_scores(faces.ages, faces.truth)
    mine = age_band(expected_age(faces.ages), bands), age_band(faces.truth, own)
    indicators = np.hstack([np.eye(len(bands))[mine[0]], np.eye(len(own))[mine[1]]])
    solved = linprog(
        -scores,
        A_eq=csr_array(indicators.T),
        b_eq=np.zeros(indicators.shape[1]),
        bounds=(level - 1, level),
        method="highs",
    )
    thresholds = -np.asarray(solved.eqlin.marginals, np.float64)
    return _centred(thresholds[: len(bands)], thresholds[len(bands) :])


def held(
    faces: FitFaces, fit: Fit, bands: tuple[int, ...], own: tuple[int, ...], level: float
) -> Float64Array:
    """1 where the interval, computed as in production, contains the age; else 0."""
    calibration = Calibration(
        band_starts_years=bands,
        age_starts_years=own,
        interval_thresholds={level: (tuple(fit[0]), tuple(fit[1]))},
    )
    first, last = calibration.age_intervals(faces.ages, level).T
    return ((faces.truth >= first) & (faces.truth <= last)).astype(np.float64)


def _raised_level(
    faces: FitFaces,
    bands: tuple[int, ...],
    own: tuple[int, ...],
    level: float,
    aim: float,
) -> float:
    """Level of the regression at which unseen faces are covered at ``aim``, by cross-validation."""
    fold = _folds(faces.groups)
    if fold.max() == 0:
        return aim
    parts = [(faces.take(fold != k), faces.take(fold == k)) for k in range(FOLDS)]

    def covered(raised: float) -> float:
        inside = 0.0
        for most, rest in parts:
            fit = fit_thresholds(most, bands, own, raised)
            inside += held(rest, fit, bands, own, level).sum()
        return float(inside / len(faces))

    raised = aim
    for _ in range(SEARCHES):
        gap = aim - covered(raised)
        if abs(gap) < CLOSE:
            break
        raised = min(raised + gap, HIGHEST_LEVEL)
    return raised


def _folds(groups: TextArray) -> IndexArray:
    """Fold of each row, near-duplicates in the same one; a single fold if there are too few."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2 * FOLDS:
        return np.zeros(len(groups), np.intp)
    order = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return order[codes].astype(np.intp)


def _centred(band: Float64Array, age: Float64Array) -> Fit:
    """Shift the thresholds so that the age bands' median is 0; all sums stay the same."""
    middle = float(np.median(age))
    return band + middle, age - middle


def interval_scores(ages: FloatArray, truth: AnyIntArray) -> Float64Array:
    """Nonconformity of exact ages: distance beyond half a year, in the face's own stds."""
    distance = np.abs(expected_age(ages) - truth)
    return np.maximum(distance - 0.5, 0) / age_std(ages)
