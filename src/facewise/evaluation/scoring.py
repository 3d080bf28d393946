"""Outcomes calibrated and compared with their labels, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np

from facewise.calibration import GATE_COVERAGE, Calibration
from facewise.data.tight_crops import AGE_IF_NOT_FOUND
from facewise.evaluation.outcomes import QUALITY_FIELDS, Outcomes
from facewise.labels import (
    ATTRIBUTES,
    ages_to_fairface_groups,
    expected_age,
    range_groups,
)
from facewise.types import BoolArray, FloatArray, IntArray, Quality, TextArray

NOT_FOUND: Final = -1
"""Index of the answer for a face that was not found, which is wrong for every label."""


class Scored:
    """Outcomes under a calibration, with the same rows.

    A face that was not found is wrong in gender, ethnicity and age group, counts as age 33, and
    lies outside its interval and its label sets.

    Args:
        outcomes: the model's answers and the labels.
        calibration: of the model.
        columns: further columns to group by: name to the value of each row.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        calibration: Calibration,
        columns: Mapping[str, TextArray] | None = None,
    ) -> None:
        self.outcomes, self.calibration = outcomes, calibration
        self.columns = dict(columns or {})
        o = outcomes
        self.ages = calibration.temper(o.ages, "age")
        self.probabilities: dict[str, FloatArray] = {
            "gender": calibration.temper(o.genders, "gender"),
            "ethnicity": calibration.temper(o.ethnicities, "ethnicity"),
        }
        self.truth = {"gender": o.true_genders, "ethnicity": o.true_ethnicities}
        self.age = np.where(o.found, expected_age(self.ages), AGE_IF_NOT_FOUND)
        self.true_age = o.age_ranges[:, 0]
        self.answers = {
            name: np.where(o.found, p.argmax(-1), NOT_FOUND)
            for name, p in self.probabilities.items()
        }
        groups = ages_to_fairface_groups(self.ages).argmax(-1)
        self.answers["age_group"] = np.where(o.found, groups, NOT_FOUND)
        self.truth["age_group"] = range_groups(o.age_ranges)

    def __len__(self) -> int:
        return len(self.outcomes)

    def take(self, index: Any) -> Scored:
        """Rows by mask or index."""
        columns = {name: values[index] for name, values in self.columns.items()}
        return Scored(self.outcomes.take(index), self.calibration, columns)

    @property
    def exact(self) -> BoolArray:
        """Rows whose age is known to the year."""
        return self.outcomes.exact

    def known(self, name: str) -> BoolArray:
        """Rows with a label of "gender", "ethnicity" or "age_group"."""
        return self.truth[name] >= 0

    def right(self, name: str) -> BoolArray:
        """Rows answered correctly; False if the label is unknown."""
        return (self.answers[name] == self.truth[name]) & self.known(name)

    def within_one_group(self) -> BoolArray:
        """Rows whose answered age group is the label's or next to it."""
        off = np.abs(self.answers["age_group"] - self.truth["age_group"])
        return (off <= 1) & self.outcomes.found & self.known("age_group")

    def intervals(self, coverage: float) -> IntArray:
        """Conformal intervals ``(N, 2)``; meaningless if the face was not found."""
        return self.calibration.age_intervals(self.ages, coverage)

    def interval_hit(self, coverage: float) -> BoolArray:
        """Whether the interval contains the age or, if only a group is known, touches it."""
        intervals, ranges = self.intervals(coverage), self.outcomes.age_ranges
        return (
            (ranges[:, 1] >= intervals[:, 0])
            & (ranges[:, 0] <= intervals[:, 1])
            & self.outcomes.found
        )

    def set_members(self, name: str, coverage: float) -> BoolArray:
        """Label sets as ``(N, K)``; empty for faces that were not found."""
        members = np.zeros(self.probabilities[name].shape, bool)
        rows = np.flatnonzero(self.outcomes.found)
        sets = self.calibration.label_sets(self.probabilities[name][rows], name, coverage)
        for row, labels in zip(rows, sets, strict=True):
            members[row, list(labels)] = True
        return members

    def set_hit(self, name: str, coverage: float) -> BoolArray:
        """Whether the set contains the label; False if that is unknown."""
        members = self.set_members(name, coverage)
        return members[np.arange(len(self)), self.truth[name]] & self.known(name)

    @cached_property
    def abstained(self) -> dict[str, BoolArray]:
        """Rows found but abstained from, by attribute, exactly as in the analyzer."""
        out = {name: np.zeros(len(self), bool) for name in ATTRIBUTES}
        intervals = self.intervals(GATE_COVERAGE)
        for row in np.flatnonzero(self.outcomes.found):
            values = dict(
                zip(QUALITY_FIELDS, (float(v) for v in self.outcomes.quality[row]), strict=True)
            )
            detection_score = values.pop("detection_score")
            reasons = self.calibration.abstentions(
                Quality(**values),
                detection_score,
                (int(intervals[row, 0]), int(intervals[row, 1])),
                {name: float(p[row].max()) for name, p in self.probabilities.items()},
            )
            for name in reasons:
                out[name][row] = True
        return out
