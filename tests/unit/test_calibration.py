"""Calibration, against cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facewise.calibration import (
    ABSTENTION_REASONS,
    Calibration,
    age_band,
    age_std,
    apply_temperature,
)
from facewise.errors import ModelIntegrityError, OptionError
from facewise.models import load_spec
from facewise.types import Quality

DOCS = Path(__file__).parents[2] / "docs"
FITTED = Calibration.from_dict(
    {
        "temperatures": {"gender": 2.0},
        "age_intervals": {
            "band_starts_years": [1, 30],
            "age_starts_years": [1, 51],
            "thresholds": {"0.9": {"band": [1.0, 2.0], "age": [0.0, 0.5]}},
        },
        "label_sets": {"gender": {"0.9": 0.7}, "ethnicity": {"0.9": [0.8, 0.8, 0.8, 0.8, 0.95]}},
        "gates": {
            "quality": {
                "age": {"sharpness": {"min": 0.2}, "yaw_degrees": {"max": 40}},
                "gender": {"sharpness": {"min": 0.2}, "yaw_degrees": {"max": 60}},
                "ethnicity": {"sharpness": {"min": 0.2}},
            },
            "certainty": {
                "age": {"max_interval_years": 30},
                "gender": {"min_probability": 0.6},
            },
        },
    }
)
GOOD = Quality(60, 1.0, 5.0, 0.5, 0.2)


def gate(measure: str, limits: object) -> dict[str, object]:
    return {"gates": {"quality": {"age": {measure: limits}}}}


def two_ages(a: int, b: int) -> np.ndarray:
    p = np.zeros((1, 120), np.float32)
    p[0, a - 1] = p[0, b - 1] = 0.5
    return p


def test_temperature_by_hand() -> None:
    p = np.array([[0.8, 0.2]], np.float32)
    np.testing.assert_allclose(FITTED.temper(p, "gender"), [[2 / 3, 1 / 3]], atol=1e-6)
    np.testing.assert_array_equal(apply_temperature(p, 1.0), p)
    np.testing.assert_array_equal(Calibration().temper(np.array([[1, 0]]), "age"), [[1, 0]])
    odds = 4 ** (1 / 1.1)  # applied even if close to 1
    np.testing.assert_allclose(
        apply_temperature(p, 1.1), [[odds / (odds + 1), 1 / (odds + 1)]], atol=1e-6
    )
    # Rows are independent, even where there are as many rows as classes.
    p = np.array([[0.8, 0.2], [0.1, 0.9]], np.float32)
    np.testing.assert_allclose(FITTED.temper(p, "gender"), [[2 / 3, 1 / 3], [1 / 4, 3 / 4]])


def test_intervals_by_hand() -> None:
    young, old = two_ages(20, 24), two_ages(40, 50)
    assert age_std(young)[0] == pytest.approx(2)
    # 22 +- (1 * 2 + 0.5) holds the whole years 20 to 24.
    np.testing.assert_array_equal(FITTED.age_intervals(young, 0.9), [[20, 24]])
    # 45 - (2 * 5 + 0.5) up to 50; from 51 on, the threshold is 2 + 0.5: 45 + (2.5 * 5 + 0.5).
    np.testing.assert_array_equal(FITTED.age_intervals(old, 0.9), [[35, 58]])
    np.testing.assert_array_equal(age_band(np.array([29.49, 29.5]), (1, 30)), [0, 1])
    np.testing.assert_array_equal(age_band(np.array([1, 3.4, 3.6]), (4, 30)), [0, 0, 0])
    # 22.5 +- (1.19 * 2.5 + 0.5) ends just short of 26 and of 19.
    close = Calibration.from_dict(
        {"age_intervals": {"thresholds": {"0.9": {"band": 1.19, "age": 0}}}}
    )
    np.testing.assert_array_equal(close.age_intervals(two_ages(20, 25), 0.9), [[20, 25]])
    assert age_std(2 * two_ages(22, 22))[0] == 0.5, "no face is surer"
    for level in (0.8, 0.99):
        with pytest.raises(OptionError, match=r"0\.9"):
            FITTED.age_intervals(young, level)


def test_an_interval_holds_the_expected_age_however_small_its_threshold() -> None:
    thresholds = {"0.9": {"band": 0, "age": 0}}
    narrow = Calibration.from_dict({"age_intervals": {"thresholds": thresholds}})
    np.testing.assert_array_equal(narrow.age_intervals(two_ages(20, 24), 0.9), [[22, 22]])
    np.testing.assert_array_equal(narrow.age_intervals(two_ages(20, 25), 0.9), [[22, 23]])


def test_a_face_that_was_not_found_has_an_interval_without_a_warning() -> None:
    """Scoring a model that was never calibrated hands its zeros over as they are."""
    assert Calibration().age_intervals(np.zeros((1, 120), np.float32), 0.9).tolist() == [[1, 1]]


def test_without_a_fit_intervals_are_central() -> None:
    p = np.zeros((2, 120), np.float32)
    p[0, 9:25] = 1 / 16  # 10 to 25: a sixteenth lies below 11, an eighth below 12
    p[1, 10:74] = 1 / 64  # 11 to 74: the six below 17 are less than a tenth, seven are more
    np.testing.assert_array_equal(Calibration().age_intervals(p, 0.8), [[11, 24], [17, 68]])
    np.testing.assert_array_equal(Calibration().age_intervals(p, 0.9), [[10, 25], [14, 71]])
    for level in (0.5, 0.85, 0.99):
        with pytest.raises(OptionError, match=r"0\.8, 0\.9, 0\.95"):
            Calibration().age_intervals(p, level)


def test_levels_ascend_however_they_are_stored() -> None:
    bands = {"0.95": 3, "0.8": 1, "0.9": 2}
    stored = {level: {"band": band, "age": 0} for level, band in bands.items()}
    calibration = Calibration.from_dict({"age_intervals": {"thresholds": stored}})
    assert calibration.coverages == (0.8, 0.9, 0.95)
    # 22 +- (1 * 2 + 0.5), and +- (3 * 2 + 0.5).
    np.testing.assert_array_equal(calibration.age_intervals(two_ages(20, 24), 0.8), [[20, 24]])
    np.testing.assert_array_equal(calibration.age_intervals(two_ages(20, 24), 0.95), [[16, 28]])


def test_label_sets_by_hand() -> None:
    p = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    assert FITTED.label_sets(p, "gender", 0.9) == [(0, 1), (0,)]
    # The label "others" needs 0.05, every other label 0.2.
    p = np.array([[0.05, 0.6, 0.15, 0.1, 0.1]], np.float32)
    assert FITTED.label_sets(p, "ethnicity", 0.9) == [(1, 4)]
    flat = np.full((1, 5), 0.01, np.float32)
    assert [len(s) for s in FITTED.label_sets(flat, "ethnicity", 0.9)] == [1]
    # A label exactly at its threshold is included.
    half = Calibration.from_dict(
        {"label_sets": {"gender": dict.fromkeys(("0.8", "0.9", "0.95"), 0.5)}}
    )
    assert half.label_sets(np.array([[0.5, 0.5]], np.float32), "gender", 0.9) == [(0, 1)]
    # Without a fit: the likeliest labels that together reach the coverage.
    p = np.array([[0.5, 0.35, 0.1, 0.05, 0.0]], np.float32)
    assert Calibration().label_sets(p, "ethnicity", 0.8) == [(0, 1)]
    p = np.array([[0.2, 0.7, 0.1, 0.0, 0.0]], np.float32)
    assert Calibration().label_sets(p, "ethnicity", 0.9) == [(1, 0)]


def test_abstention() -> None:
    sure = {"gender": 0.9, "ethnicity": 0.5}
    assert FITTED.abstentions(GOOD, 1.0, (20, 30), sure) == {}
    at_the_gates = Quality(60, 0.2, 40, 0.5, 0.2)
    assert FITTED.abstentions(at_the_gates, 1.0, (20, 50), sure | {"gender": 0.6}) == {}
    unsure = FITTED.abstentions(GOOD, 1.0, (20, 51), {"gender": 0.55})
    assert set(unsure) == {"age", "gender"}
    # Not the interval that is shown, which may have another coverage.
    assert unsure["age"] == "the model is too unsure (its 90% interval spans 31 years)"
    assert "55%" in unsure["gender"]
    blurred = FITTED.abstentions(Quality(60, 0.1, 5, 0.5, 0.2), 1.0, (20, 30), sure)
    assert set(blurred) == {"age", "gender", "ethnicity"}
    assert "blurred" in blurred["age"]
    for reason in [*unsure.values(), *blurred.values()]:
        assert reason.split(" (")[0] in ABSTENTION_REASONS


def test_the_reasons_are_those_that_the_manual_names() -> None:
    manual = " ".join((DOCS / "library.md").read_text(encoding="utf-8").split())
    assert f"*{', '.join(ABSTENTION_REASONS)}*" in manual


def test_abstention_is_per_attribute() -> None:
    half_turned = Quality(60, 1.0, -50, 0.5, 0.2)
    reasons = FITTED.abstentions(half_turned, 1.0, (20, 30), {"gender": 0.9, "ethnicity": 0.9})
    assert set(reasons) == {"age"}
    assert "side" in reasons["age"]
    assert FITTED.abstentions(half_turned, 1.0, None, {"gender": 0.9}) == {}
    assert Calibration().abstentions(half_turned, 0.0, (1, 120), {"gender": 0.5}) == {}


def test_a_gate_on_the_detection_score() -> None:
    gate = {"detection_score": {"min": 0.8}}
    calibration = Calibration.from_dict({"gates": {"quality": {"gender": gate}}})
    assert calibration.abstentions(GOOD, 0.8, None, {"gender": 0.9}) == {}
    assert calibration.abstentions(GOOD, 0.79, None, {"gender": 0.9}) == {
        "gender": "it may not be a face (detection_score 0.79, at least 0.8 is needed)"
    }


def test_wrong_number_of_thresholds() -> None:
    with pytest.raises(ModelIntegrityError, match=r"3 thresholds where 2 belong"):
        Calibration.from_dict({"label_sets": {"gender": {"0.9": [0.1, 0.2, 0.3]}}})


@pytest.mark.parametrize(
    ("stored", "what"),
    [
        ({"temperatures": {"age": 0}}, "temperatures.age is 0, and must be above 0"),
        ({"temperatures": {"age": -1.0}}, "temperatures.age is"),
        ({"temperatures": {"age": float("nan")}}, "temperatures.age is"),
        ({"temperatures": {"age": float("inf")}}, "temperatures.age is"),
        ({"temperatures": {"age": "1"}}, "temperatures.age is '1', which is no number"),
        (
            {"temperatures": {"genders": 3}},
            "temperatures has 'genders'; it may have age, gender, ethnicity",
        ),
        ({"temperatures": [1.1, 1.2, 1.2]}, "temperatures must be names with values"),
        ({"label_sets": {"gender": {"0.9": 0.5}}}, r"gender at \[0.8, 0.95\]"),
        ({"label_sets": {"colour": {"0.9": 0.5}}}, "colour"),
        ({"label_sets": {"age": {"0.9": 0.5}}}, "age"),
        (
            gate("eye_distance", {"min": 9}),
            "quality.age has 'eye_distance'; it may have eye_distance_px",
        ),
        (gate("sharpness", {"min": "0.3"}), "gates.quality.age.sharpness.min is '0.3'"),
        (gate("sharpness", {"min": None}), "gates.quality.age.sharpness.min is None"),
        (gate("sharpness", {"min": float("nan")}), "gates.quality.age.sharpness.min is nan"),
        (gate("sharpness", 0.3), "gates.quality.age.sharpness must be names with values"),
        # A face that these turned away would not be told why.
        (gate("contrast", {"max": 0.01}), "quality.age.contrast has 'max'; it may have min"),
        (gate("yaw_degrees", {"min": 80}), "quality.age.yaw_degrees has 'min'; it may have max"),
        ({"gates": {"quality": {"ages": {}}}}, "gates.quality has 'ages'"),
        ({"gates": {"certainty": {"ages": {}}}}, "gates.certainty has 'ages'"),
        ({"gates": {"certainty": {"age": {"max_interval": 1}}}}, "age has .* max_interval_years"),
        ({"gates": {"certainty": {"age": {"min_probability": 1}}}}, "certainty.age has"),
        ({"gates": {"certainty": {"gender": {"min_probability": "0.9"}}}}, "probability is '0.9'"),
        ({"age_intervals": {"thresholds": {"0.9": {"band": [1.0]}}}}, "age"),
        (
            {"age_intervals": {"thresholds": {"0.8": {"band": 1, "age": 0}}}},
            "thresholds has no 0.9",
        ),
        ({"age_intervals": {"band_starts_years": []}}, "band_starts_years"),
        ({"age_intervals": {"age_starts_years": []}}, "age_starts_years"),
        ({"age_intervals": {"band_starts_years": [30, 1]}}, "band_starts_years .* ascend"),
        ({"age_intervals": {"band_starts_years": ["one"]}}, "band_starts_years"),
        ({"label_sets": 3}, "AttributeError"),
    ],
)
def test_numbers_that_cannot_be_meant(stored: dict[str, object], what: str) -> None:
    """Reported when the model is opened, not at the first face or as a nonsensical answer."""
    with pytest.raises(ModelIntegrityError, match=what):
        Calibration.from_dict(stored)


def test_what_ships_is_fitted() -> None:
    calibration = Calibration.from_dict(load_spec().calibration)
    assert calibration.coverages == (0.8, 0.9, 0.95)
    p = np.random.default_rng(0).dirichlet(np.ones(120), 50).astype(np.float32)
    widths = [np.diff(calibration.age_intervals(p, level)) for level in calibration.coverages]
    assert (widths[0] <= widths[1]).all()
    assert (widths[1] <= widths[2]).all()
