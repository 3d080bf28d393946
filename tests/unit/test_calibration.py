"""Calibration, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.calibration import Calibration, age_band, age_std, apply_temperature
from facewise.errors import OptionError
from facewise.models import load_spec
from facewise.types import Quality

FITTED = Calibration.from_dict(
    {
        "temperatures": {"gender": 2.0},
        "age_intervals": {"band_starts_years": [1, 30], "thresholds": {"0.9": [1.0, 2.0]}},
        "label_sets": {"gender": {"0.9": 0.7}, "ethnicity": {"0.9": 0.8}},
        "gates": {
            "quality": {"sharpness": {"min": 0.2}, "yaw_degrees": {"max": 40}},
            "certainty": {
                "age": {"max_interval_years": 30},
                "gender": {"min_probability": 0.6},
            },
        },
    }
)
GOOD = Quality(60, 1.0, 5.0, 0.5, 0.2)


def two_ages(a: int, b: int) -> np.ndarray:
    p = np.zeros((1, 120), np.float32)
    p[0, a - 1] = p[0, b - 1] = 0.5
    return p


def test_temperature_by_hand() -> None:
    p = np.array([[0.8, 0.2]], np.float32)
    np.testing.assert_allclose(FITTED.temper(p, "gender"), [[2 / 3, 1 / 3]], atol=1e-6)
    np.testing.assert_array_equal(apply_temperature(p, 1.0), p)


def test_intervals_by_hand() -> None:
    young, old = two_ages(20, 24), two_ages(40, 50)
    assert age_std(young)[0] == pytest.approx(2)
    # 22 +- (1 * 2 + 0.5) holds the whole years 20 to 24; 45 +- (2 * 5 + 0.5), 35 to 55.
    np.testing.assert_array_equal(FITTED.age_intervals(young, 0.9), [[20, 24]])
    np.testing.assert_array_equal(FITTED.age_intervals(old, 0.9), [[35, 55]])
    np.testing.assert_array_equal(age_band(np.array([29.4, 29.6]), (1, 30)), [0, 1])
    with pytest.raises(OptionError, match=r"0\.9"):
        FITTED.age_intervals(young, 0.8)


def test_label_sets_by_hand() -> None:
    p = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    assert FITTED.label_sets(p, "gender", 0.9) == [(0, 1), (0,)]
    flat = np.full((1, 5), 0.2, np.float32)
    assert all(FITTED.label_sets(flat - 0.05, "ethnicity", 0.9))


def test_abstention() -> None:
    sure = {"gender": 0.9, "ethnicity": 0.5}
    assert FITTED.abstentions(GOOD, 1.0, (20, 30), sure) == {}
    unsure = FITTED.abstentions(GOOD, 1.0, (20, 60), {"gender": 0.55})
    assert set(unsure) == {"age", "gender"}
    blurred = FITTED.abstentions(Quality(60, 0.1, 5, 0.5, 0.2), 1.0, (20, 30), sure)
    assert set(blurred) == {"age", "gender", "ethnicity"}
    assert "blurred" in blurred["age"]
    turned = FITTED.abstentions(Quality(60, 1.0, -60, 0.5, 0.2), 1.0, None, {"gender": 0.9})
    assert set(turned) == {"gender"}
    assert "side" in turned["gender"]


def test_what_ships_is_fitted() -> None:
    calibration = Calibration.from_dict(load_spec().calibration)
    assert calibration.coverages == (0.8, 0.9, 0.95)
    p = np.random.default_rng(0).dirichlet(np.ones(120), 50).astype(np.float32)
    widths = [np.diff(calibration.age_intervals(p, level)) for level in calibration.coverages]
    assert (widths[0] <= widths[1]).all()
    assert (widths[1] <= widths[2]).all()
