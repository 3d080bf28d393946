"""The figures by which runs choose their epochs, against cases counted by hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")

from facewise.training.score import headline, score

if TYPE_CHECKING:
    from facewise.training.cache import FaceCache


def one_hot(index: list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[index]


def test_each_figure_is_of_the_pictures_that_have_its_label(cache: FaceCache) -> None:
    """Two exact ages, one without a face found; a group, part of one, a range across two; none."""
    ranges = [(30, 30), (50, 50), (20, 29), (41, 48), (18, 24), (0, 0)]
    labelled = dataclasses.replace(
        cache,
        datasets=np.array(["csv"] * 6),
        age_ranges=np.array(ranges, np.int16),
        genders=np.array([0, 1, 1, -1, -1, 0], np.int8),
        ethnicities=np.full(6, -1, np.int8),
        found=np.array([True, False, True, True, True, True]),
    )
    ages = one_hot([33, 49, 24, 31, 0, 0], 120)  # 34, 50, 25, 32 years
    genders = one_hot([0, 1, 0, 0, 0, 0], 2)
    figures = score(labelled, np.arange(6), ages, genders, one_hot([0] * 6, 5))
    assert figures == {
        "csv_mae": pytest.approx((4 + 17) / 2),  # without a found face, the age counts as 33
        "csv_cs5": 0.5,
        "csv_ages": 0.5,
        "csv_ages_within_one": 1.0,
        "csv_gender": 0.5,
    }
    assert headline(figures) == pytest.approx(10.5 + 50 / 10 + 50 / 10)
