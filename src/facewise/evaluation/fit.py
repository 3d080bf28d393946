"""Fit what ``facewise.calibration`` applies: temperatures, conformal thresholds, gates.

Temperatures and thresholds come from the calibration split, gates from val; test is never read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.calibration import Calibration, age_band, age_std, apply_temperature
from facewise.evaluation.outcomes import QUALITY_FIELDS, Outcomes
from facewise.labels import expected_age
from facewise.types import FloatArray

LEVELS: Final = (0.8, 0.9, 0.95)
BAND_STARTS_YEARS: Final = (1, 4, 13, 20, 27, 34, 42, 52, 65)
"""Mondrian bands of the predicted age; each holds 100 calibration faces or more."""

QUALITY_BUDGET: Final = 0.002
"""Share of clean val faces that each side of each quality gate may turn away."""

CERTAINTY_BUDGET: Final = 0.02
"""Share of clean val faces that each certainty gate may turn away: the risk-coverage curves are
steepest over the last few per cent."""


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


def conformal_thresholds(
    scores: NDArray[np.floating[Any]], bins: NDArray[np.intp], count: int
) -> dict[float, list[float]]:
    """Split-conformal quantiles of nonconformity scores, a list of one a bin for each level.

    crepes computes them: a regressor whose residuals are the scores and whose point forecast is 0
    has the threshold as its upper end.
    """
    from crepes import ConformalRegressor

    regressor = ConformalRegressor().fit(residuals=scores, bins=bins)
    wanted = np.arange(count)
    return {
        level: [
            float(v)
            for v in regressor.predict_int(np.zeros(count), bins=wanted, confidence=level)[:, 1]
        ]
        for level in LEVELS
    }


def interval_scores(ages: FloatArray, truth: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Nonconformity of exact ages: distance past half a year, in the distribution's own stds."""
    distance = np.abs(expected_age(ages) - truth)
    scores: NDArray[np.float64] = np.maximum(distance - 0.5, 0) / age_std(ages)
    return scores


def class_mask(labels: NDArray[np.integer[Any]], count: int) -> NDArray[np.bool_]:
    """Labels ``(N,)`` to one-hot ``(N, count)``."""
    mask: NDArray[np.bool_] = labels[:, None] == np.arange(count)
    return mask


def age_mask(ranges: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Age ranges ``(N, 2)`` to the years they allow, ``(N, 120)``."""
    years = np.arange(1, 121)
    mask: NDArray[np.bool_] = (years >= ranges[:, :1]) & (years <= ranges[:, 1:])
    return mask


def fit_calibration(calibration: Outcomes, val: Outcomes) -> dict[str, Any]:
    """The ``calibration`` part of a model's spec."""
    c = calibration.take(calibration.found)
    aged, gendered, placed = (
        c.age_ranges[:, 0] > 0,
        c.true_genders >= 0,
        c.true_ethnicities >= 0,
    )
    temperatures = {
        "age": fit_temperature(c.ages[aged], age_mask(c.age_ranges[aged])),
        "gender": fit_temperature(c.genders[gendered], class_mask(c.true_genders[gendered], 2)),
        "ethnicity": fit_temperature(
            c.ethnicities[placed], class_mask(c.true_ethnicities[placed], 5)
        ),
    }
    temperatures = {name: round(t, 4) for name, t in temperatures.items()}
    exact = c.take(c.exact)
    ages = apply_temperature(exact.ages, temperatures["age"])
    bands = age_band(expected_age(ages), BAND_STARTS_YEARS)
    intervals = conformal_thresholds(
        interval_scores(ages, exact.age_ranges[:, 0]), bands, len(BAND_STARTS_YEARS)
    )
    sets: dict[str, dict[str, float]] = {}
    for name, p, labels in (
        ("gender", c.genders, c.true_genders),
        ("ethnicity", c.ethnicities, c.true_ethnicities),
    ):
        known = labels >= 0
        tempered = apply_temperature(p[known], temperatures[name])
        hinge = 1 - tempered[np.arange(len(tempered)), labels[known]]
        thresholds = conformal_thresholds(hinge, np.zeros(len(hinge), np.intp), 1)
        sets[name] = {str(level): round(t[0], 5) for level, t in thresholds.items()}
    fitted: dict[str, Any] = {
        "temperatures": temperatures,
        "age_intervals": {
            "band_starts_years": list(BAND_STARTS_YEARS),
            "thresholds": {str(k): [round(t, 4) for t in v] for k, v in intervals.items()},
        },
        "label_sets": sets,
    }
    fitted["gates"] = fit_gates(val, Calibration.from_dict(fitted))
    return fitted


def fit_gates(val: Outcomes, calibration: Calibration) -> dict[str, Any]:
    """Gates at fixed operating points of the clean val faces' risk-coverage curves."""
    v = val.take(val.found)
    quality = dict(zip(QUALITY_FIELDS, np.abs(v.quality.T), strict=True))

    def low(name: str) -> dict[str, float]:
        return {"min": _figures(np.quantile(quality[name], QUALITY_BUDGET))}

    def high(name: str) -> dict[str, float]:
        return {"max": _figures(np.quantile(quality[name], 1 - QUALITY_BUDGET))}

    ages = calibration.temper(v.ages, "age")
    intervals = calibration.age_intervals(ages, 0.9)
    top = {
        name: calibration.temper(p, name).max(-1)
        for name, p in (("gender", v.genders), ("ethnicity", v.ethnicities))
    }
    widest = np.quantile(intervals[:, 1] - intervals[:, 0], 1 - CERTAINTY_BUDGET)
    return {
        "quality": {
            # The data sets' faces are all large; below this a face carries too little to judge by.
            "eye_distance_px": {"min": MIN_EYE_DISTANCE_PX},
            "sharpness": low("sharpness"),
            "yaw_degrees": high("yaw_degrees"),
            "brightness": low("brightness") | high("brightness"),
            "contrast": low("contrast"),
            "detection_score": low("detection_score"),
        },
        "certainty": {
            "age": {"max_interval_years": float(np.ceil(widest))},
            **{
                name: {"min_probability": _figures(np.quantile(p, CERTAINTY_BUDGET))}
                for name, p in top.items()
            },
        },
    }


MIN_EYE_DISTANCE_PX: Final = 9.0


def _figures(value: float) -> float:
    """Three significant figures."""
    return float(f"{value:.3g}")
