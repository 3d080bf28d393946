"""Fit the age intervals that ``facewise.calibration`` applies.

A year lies inside an interval when its distance from the expected age, in the face's own standard
deviations, is at most the threshold of the band of the expected age plus that of the band of the
year itself. The thresholds are a quantile regression of that distance on the two kinds of bands
(Gibbs, Cherian and Candes, 2023). More bands would fit the calibration faces better and other faces
worse: see ``scripts/compare_fits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.calibration import LEVELS, Calibration, age_band, age_std
from facewise.labels import expected_age
from facewise.reporting.bootstrap import GroupNames
from facewise.types import FloatArray

BAND_STARTS_YEARS: Final = (1, 4, 13, 20, 27, 34, 42, 52, 65)
"""Mondrian bands of the expected age; neighbours are joined where one holds too few faces."""

AGE_STARTS_YEARS: Final = (1, 13, 30, 60)
"""Bands of the age itself; joined likewise."""

MIN_BAND: Final = 60
"""Fewest calibration faces of a band: with fewer, its 95 % quantile is its third largest score."""

MARGIN: Final = 0.015
"""How far above the level the coverage aimed at lies. Calibration faces are a sample (Vovk, 2012),
and so are those of a group that is judged: with none to spare, every fortieth group would seem
covered too seldom even if all were covered exactly."""

LEAST_FOUND: Final = 0.98
"""Faces that are not found lie outside, and those that are found make up for them, but for no more
than these: at 95 % nothing could make up for one in twenty, and on the way there intervals grow to
twice their width."""

HIGHEST_LEVEL: Final = 0.9975
FOLDS: Final = 5
SEARCHES: Final = 3
CLOSE: Final = 0.001
"""Corrections of the regression's level, and a gap that is not worth another: a calibration set's
own error is several times as large."""

Ages = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How thresholds are fitted; variants are compared by ``scripts/compare_fits.py``.

    Attributes:
        band_starts_years, age_starts_years: bands before any are joined; (1,) for one threshold.
        margin: above the level, of the coverage aimed at on faces that a fit has not seen.
    """

    band_starts_years: tuple[int, ...] = BAND_STARTS_YEARS
    age_starts_years: tuple[int, ...] = AGE_STARTS_YEARS
    margin: float = MARGIN


@dataclass(frozen=True, slots=True)
class Faces:
    """Faces to fit on: what is needed of each, worked out once.

    Attributes:
        ages: tempered ``(N, 120)`` of faces that were found.
        truth: exact ages ``(N,)``.
        groups: near-duplicates share one, ``(N,)``.
    """

    ages: FloatArray
    truth: Ages
    groups: GroupNames

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: NDArray[np.bool_]) -> Faces:
        """Some of them."""
        return Faces(self.ages[rows], self.truth[rows], self.groups[rows])


def fit_intervals(faces: Faces, found_share: float, recipe: Recipe | None = None) -> dict[str, Any]:
    """The ``age_intervals`` of a calibration.

    Thresholds cover the faces that they were fitted on too well. So the level of the regression is
    raised until fits on four fifths of the faces cover the other fifth as is aimed at.

    Args:
        faces: of the calibration split.
        found_share: of all faces with an exact age; the others count as outside.
        recipe: if not the one that ships.
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


def fit_thresholds(faces: Faces, bands: tuple[int, ...], own: tuple[int, ...], level: float) -> Fit:
    """Quantile regression of the nonconformity on the bands' indicators.

    At its optimum the share of the faces under their threshold is the level in every band of either
    kind at once, as Mondrian quantiles make it for bands that do not overlap. Solved as its dual
    (Koenker and Bassett, 1978), with a variable a face and the thresholds as multipliers: seven
    times as fast as scikit-learn's QuantileRegressor, which solves the same problem.
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
    faces: Faces, fit: Fit, bands: tuple[int, ...], own: tuple[int, ...], level: float
) -> NDArray[np.float64]:
    """1 where the interval, as it ships, holds the age."""
    calibration = Calibration(
        band_starts_years=bands,
        age_starts_years=own,
        interval_thresholds={level: (tuple(fit[0]), tuple(fit[1]))},
    )
    first, last = calibration.age_intervals(faces.ages, level).T
    return ((faces.truth >= first) & (faces.truth <= last)).astype(np.float64)


def _raised_level(
    faces: Faces,
    bands: tuple[int, ...],
    own: tuple[int, ...],
    level: float,
    aim: float,
) -> float:
    """Level of the regression at which faces that a fit has not seen are covered as aimed."""
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


def _folds(groups: GroupNames) -> NDArray[np.intp]:
    """A fold for each row, near-duplicates in the same one; one fold where there are too few."""
    names, codes = np.unique(groups, return_inverse=True)
    if len(names) < 2 * FOLDS:
        return np.zeros(len(groups), np.intp)
    order = np.random.default_rng(0).permutation(len(names)) % FOLDS
    return order[codes].astype(np.intp)


def _centred(band: NDArray[np.float64], age: NDArray[np.float64]) -> Fit:
    """The same sums, with the thresholds of the age's bands having median 0."""
    middle = float(np.median(age))
    return band + middle, age - middle


def interval_scores(ages: FloatArray, truth: Ages) -> NDArray[np.float64]:
    """Nonconformity of exact ages: distance past half a year, in the distribution's own stds."""
    distance = np.abs(expected_age(ages) - truth)
    scores: NDArray[np.float64] = np.maximum(distance - 0.5, 0) / age_std(ages)
    return scores
