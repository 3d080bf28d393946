"""Fit the temperatures and conformal thresholds that ``facewise.calibration`` applies.

They come from the calibration split; the test split is never read. Gates are chosen on val, by
``facewise.evaluation.gates``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from facewise.calibration import LEVELS, apply_temperature
from facewise.errors import OptionError
from facewise.evaluation.intervals import LEAST_FOUND, FitFaces, fit_intervals
from facewise.evaluation.outcomes import Outcomes
from facewise.labels import CLASSES, ETHNICITY_LABELS, GENDER_LABELS, years_within
from facewise.types import (
    AnyFloatArray,
    AnyIntArray,
    BoolArray,
    Float64Array,
    FloatArray,
    IndexArray,
    TextArray,
)

log = logging.getLogger("facewise")

MIN_FACES: Final = 100
"""Fewest faces with an age in a split to fit on, and with an exact age for age intervals. Fewer say
nothing about a level of 95 %."""

MIN_OF_CLASS: Final = 20
"""Fewest faces of each gender and ethnicity in such a split. Fewer hardly affect the temperature,
and a label of fewer than 19 has no threshold at 95 %. (At a level raised to 99 %, one needs 99.)"""

PARTS: Final = 10
LEAST_PART: Final = 100
"""Most parts that faces are divided into by certainty, and the fewest faces in a part, or of a
label in a data set: fewer say little about 95 %."""

LOG_BOUND: Final = 1.5
"""Temperatures are searched from exp(-1.5) to exp(1.5)."""


def fit_temperature(probabilities: FloatArray, inside: BoolArray) -> float:
    """The temperature of maximum likelihood.

    Args:
        probabilities: ``(N, K)``.
        inside: ``(N, K)``, the classes that each label allows: one, or the years of an age group.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        p = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return -float(np.log(np.maximum((p * inside).sum(-1), 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-LOG_BOUND, LOG_BOUND), method="bounded").x))


def set_thresholds(
    probabilities: FloatArray,
    labels: AnyIntArray,
    sources: TextArray,
    found_shares: Mapping[str, float],
) -> dict[str, list[float]]:
    """Thresholds of label sets, one per label, so that no label is covered at another's expense.

    crepes computes them as Mondrian quantiles by label. Data sets differ, so each label gets the
    largest threshold that it needs in any data set with enough of its faces. The target level is
    raised until the requested level is reached over all, in each data set and for each label in it
    with enough faces, and in each tenth of the faces by certainty. Faces not found count as missed.

    Args:
        probabilities: tempered ``(N, K)``.
        labels: ``(N,)``.
        sources: data set of each face.
        found_shares: data set to the share of its labelled faces that were found.
    """
    score = 1 - probabilities[np.arange(len(labels)), labels].astype(np.float64)
    bins, top, count = labels.astype(np.intp), probabilities.argmax(-1), probabilities.shape[1]
    names, source = np.unique(sources, return_inverse=True)
    cells = source * count + bins  # a label in a data set
    enough = np.bincount(cells, minlength=len(names) * count) >= LEAST_PART
    share = np.array([max(found_shares[name], LEAST_FOUND) for name in names.tolist()])
    large = np.flatnonzero(np.bincount(source) >= LEAST_PART)
    held = [(np.arange(len(labels)), share[source])]
    held += [(np.flatnonzero(source == k), share[k]) for k in large]
    held += [(np.flatnonzero(cells == k), share[k // count]) for k in np.flatnonzero(enough)]
    held += [(part, np.ones(())) for part in certainty_parts(probabilities)]
    out = {}
    for level in LEVELS:
        for aim in np.arange(level, 0.995, 0.0025):
            t = mondrian_thresholds(score, bins, count, float(aim))
            own = mondrian_thresholds(score, cells, len(enough), float(aim))
            t = np.maximum(t, np.where(enough, own, 0).reshape(-1, count).max(0))
            hit = (score <= t[bins]) | (top == bins)
            if min((hit[rows] * found).mean() for rows, found in held) >= level:
                break
        out[str(level)] = [round(float(v), 5) for v in t]
    return out


def certainty_parts(probabilities: FloatArray) -> list[IndexArray]:
    """Rows by largest probability, the least certain first, in up to ten equal parts."""
    order = np.argsort(probabilities.max(-1), kind="stable")
    return np.array_split(order, max(1, min(PARTS, len(order) // LEAST_PART)))


def mondrian_thresholds(
    scores: AnyFloatArray, bins: IndexArray, count: int, level: float
) -> Float64Array:
    """Split-conformal quantiles of nonconformity scores, one per bin.

    A bin without faces gets 1, which admits everything.
    """
    out = np.ones(count)
    out[np.unique(bins)] = np.minimum(conformal_quantiles(scores, level, bins), 1.0)
    return out


def conformal_quantiles(
    scores: AnyFloatArray, level: float, bins: IndexArray | None = None
) -> Float64Array:
    """The quantile of all scores, ``(1,)``, or of each bin present; infinite if there are too few.

    A crepes regressor with the scores as residuals and a point forecast of 0 has the quantile as
    its upper end.
    """
    from crepes import ConformalRegressor

    regressor = ConformalRegressor().fit(residuals=np.asarray(scores, np.float64), bins=bins)
    at = np.zeros(1, np.intp) if bins is None else np.unique(bins)
    # crepes rounds (n + 1)(1 - level) down, which for 1 - 0.9 = 0.09999999999999998 would be one
    # short where that product is whole.
    level -= 1e-9
    with warnings.catch_warnings():  # it names bins by number; see ``fit_calibration``
        warnings.filterwarnings("ignore", "the no. of calibration examples is too small")
        ends: Float64Array = regressor.predict_int(np.zeros(len(at)), bins=at, confidence=level)
    return ends[:, 1]


def class_mask(labels: AnyIntArray, count: int) -> BoolArray:
    """Labels ``(N,)`` to one-hot ``(N, count)``."""
    return labels[:, None] == np.arange(count)


def faces_of(found: Outcomes, temperature: float) -> FitFaces:
    """Faces with an exact age, to fit intervals on."""
    exact = found.take(found.exact)
    return FitFaces(
        apply_temperature(exact.ages, temperature), exact.age_ranges[:, 0], exact.groups
    )


def check_faces(outcomes: Outcomes, split: str) -> None:
    """Refuse to fit on too few faces, which would make the calibration worse.

    Raises:
        OptionError: fewer than ``MIN_FACES`` of the faces found have an age, or fewer than
            ``MIN_OF_CLASS`` are of some gender or ethnicity.
    """
    o = outcomes.take(outcomes.found)
    aged = int((o.age_ranges[:, 0] > 0).sum())
    few = [f"{aged} with an age"] if aged < MIN_FACES else []
    for names, labels in (
        (GENDER_LABELS, o.true_genders),
        (ETHNICITY_LABELS, o.true_ethnicities),
    ):
        counts = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        few += [f"{n} {name}" for n, name in zip(counts, names, strict=True) if n < MIN_OF_CLASS]
    if few:
        raise OptionError(
            f"too few faces to fit a calibration: among the faces found, the split {split} has "
            f"{', '.join(few)}, and needs {MIN_FACES} with an age and {MIN_OF_CLASS} of each "
            "gender and ethnicity; label more, or score without --fit"
        )


def _temperature(name: str, probabilities: FloatArray, inside: BoolArray) -> float:
    """The temperature, rounded as in the spec; an error at a bound, as the best lies beyond it."""
    t = round(fit_temperature(probabilities, inside), 4)
    if abs(np.log(t)) > LOG_BOUND - 0.01:
        raise OptionError(
            f"the temperature of {name} ends at its bound, {t}: the labels of the split "
            "calibration look made up, or like the model's own answers; check them, or score "
            "without --fit"
        )
    return t


def fit_calibration(calibration: Outcomes) -> dict[str, Any]:
    """The ``calibration`` part of a model's spec, without gates and confusions.

    Raises:
        OptionError: there are too few faces (see ``check_faces``), or a temperature is at a bound.
    """
    check_faces(calibration, "calibration")
    c = calibration.take(calibration.found)
    aged, exact = c.age_ranges[:, 0] > 0, c.exact
    sets = np.unique(calibration.datasets)
    found = {
        str(name): float(calibration.found[calibration.datasets == name].mean()) for name in sets
    }
    for name, share in found.items():
        if share < LEAST_FOUND:
            log.warning(
                "%.1f %% of the calibration faces of %s were not found: intervals and label sets "
                "make up for %.0f %%, and hold less often than stated if unfound faces count, too",
                100 * (1 - share),
                name,
                100 * (1 - LEAST_FOUND),
            )
    fitted: dict[str, Any] = {"temperatures": {}, "label_sets": {}}
    t = _temperature("age", c.ages[aged], years_within(c.age_ranges[aged]))
    fitted["temperatures"]["age"] = t
    if exact.sum() >= MIN_FACES:
        fitted["age_intervals"] = fit_intervals(
            faces_of(c, t), float(exact.sum() / calibration.exact.sum())
        )
    else:
        log.warning(
            "age intervals are not fitted: %d faces of the split calibration have an exact "
            "age, and %d are needed; the model's own distribution will give them instead, "
            "with no guarantee that they hold as often as stated",
            exact.sum(),
            MIN_FACES,
        )
    for name, p, labels in (
        ("gender", c.genders, c.true_genders),
        ("ethnicity", c.ethnicities, c.true_ethnicities),
    ):
        known = labels >= 0
        t = _temperature(name, p[known], class_mask(labels[known], p.shape[1]))
        fitted["temperatures"][name] = t
        fitted["label_sets"][name] = set_thresholds(
            apply_temperature(p[known], t), labels[known], c.datasets[known], found
        )
        for level, thresholds in fitted["label_sets"][name].items():
            if every := [x for x, t in zip(CLASSES[name], thresholds, strict=True) if t >= 1]:
                log.warning(
                    "every %.0f %% set of %s will include %s: the split calibration has too few of "
                    "these faces, or the model takes too many of them for others",
                    100 * float(level),
                    name,
                    ", ".join(every),
                )
    return fitted
