"""From calibrated probabilities to predictions: intervals, label sets, abstentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facewise.calibration import GATE_COVERAGE, Calibration
from facewise.labels import (
    AGE_LABELS,
    CLASSES,
    DECADE_LABELS,
    DECADES,
    LABELS,
    PARTS,
    ages_to_decades,
    expected_age,
)
from facewise.types import Distribution, Face, FloatArray, ModelInfo, Prediction


class _Age(NamedTuple):
    """The age results of one face."""

    expected_years: float
    interval_years: tuple[int, int]
    gate_interval_years: tuple[int, int]
    years: Distribution
    decades: Distribution


def make_predictions(
    faces: Sequence[Face],
    p: Mapping[str, FloatArray],
    *,
    calibration: Calibration,
    coverage: float,
    model: ModelInfo,
) -> list[Prediction]:
    """Derive all that is said about N faces from their probabilities.

    Args:
        faces: with their ``quality``.
        p: tempered probabilities of the attributes that are on: "age" ``(N, 120)``, "gender"
            ``(N, 2)``, "ethnicity" ``(N, 5)``.
        calibration: of the model.
        coverage: of intervals and label sets; one of ``calibration.coverages``.
        model: identifies the weights.
    """
    off = [None] * len(faces)
    ages = _ages(p["age"], calibration, coverage) if "age" in p else off
    genders, ethnicities = (
        _labelled(p[name], name, calibration, coverage) if name in p else off for name in CLASSES
    )
    predictions = []
    for face, age, gender, ethnicity in zip(faces, ages, genders, ethnicities, strict=True):
        assert face.quality is not None
        vector = np.full(19, np.nan, np.float32)
        top: dict[str, float] = {}
        if age is not None:
            vector[DECADES] = age.decades.probabilities
        for name, answer in (("gender", gender), ("ethnicity", ethnicity)):
            if answer is not None:
                vector[PARTS[name]] = answer.probabilities
                top[name] = answer.top_probability
        predictions.append(
            Prediction(
                face=face,
                age_years=age and age.expected_years,
                age_interval_years=age and age.interval_years,
                coverage=coverage,
                age=age and age.years,
                age_decades=age and age.decades,
                gender=gender,
                ethnicity=ethnicity,
                vector=vector,
                model=model,
                abstained=calibration.abstentions(
                    face.quality, face.detection_score, age and age.gate_interval_years, top
                ),
            )
        )
    return predictions


def _ages(p: FloatArray, calibration: Calibration, coverage: float) -> list[_Age]:
    intervals = calibration.age_intervals(p, coverage)
    gate_intervals = (
        intervals if coverage == GATE_COVERAGE else calibration.age_intervals(p, GATE_COVERAGE)
    )
    return [
        _Age(float(mean), (first, last), (low, high), *_age_distributions(own, first, last))
        for own, mean, (first, last), (low, high) in zip(
            p, expected_age(p), intervals.tolist(), gate_intervals.tolist(), strict=True
        )
    ]


def _age_distributions(p: FloatArray, first: int, last: int) -> tuple[Distribution, Distribution]:
    """Distributions over years and decades; their sets are what the interval touches, likeliest
    first.
    """
    by_year = sorted(range(first - 1, last), key=lambda k: -p[k])
    decades = ages_to_decades(p)
    touched = range((first - 1) // 10, (last - 1) // 10 + 1)
    by_decade = sorted(touched, key=lambda k: -decades[k])
    return (
        _distribution(AGE_LABELS, p, by_year),
        _distribution(DECADE_LABELS, decades, by_decade),
    )


def _labelled(
    p: FloatArray, attribute: str, calibration: Calibration, coverage: float
) -> list[Distribution]:
    sets = calibration.label_sets(p, attribute, coverage)
    return [
        _distribution(LABELS[attribute], own, chosen) for own, chosen in zip(p, sets, strict=True)
    ]


def _distribution(labels: tuple[str, ...], p: FloatArray, chosen: Sequence[int]) -> Distribution:
    return Distribution(labels, p, tuple(labels[k] for k in chosen))
