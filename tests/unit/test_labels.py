"""The 19-output contract, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from facewise import labels


def test_the_vector_is_the_documented_one() -> None:
    assert len(labels.VECTOR_LABELS) == 19
    assert labels.VECTOR_LABELS[0] == "1-10"
    assert labels.VECTOR_LABELS[3] == "31-40"
    assert labels.VECTOR_LABELS[11] == "111-120"
    assert labels.VECTOR_LABELS[12:14] == ("male", "female")
    assert labels.VECTOR_LABELS[14:] == ("White", "Black", "Asian", "Indian", "Others")
    assert labels.VECTOR_LABELS[labels.DECADES] == labels.DECADE_LABELS
    assert labels.VECTOR_LABELS[labels.GENDER] == labels.GENDER_LABELS
    assert labels.VECTOR_LABELS[labels.ETHNICITY] == labels.ETHNICITY_LABELS
    slices = (labels.DECADES, labels.GENDER, labels.ETHNICITY)
    assert [s.stop - s.start for s in slices] == [12, 2, 5]


@pytest.mark.parametrize(("age", "decade"), [(1, 0), (10, 0), (11, 1), (31, 3), (40, 3), (120, 11)])
def test_decades_are_10k_plus_1_to_10k_plus_10(age: int, decade: int) -> None:
    ages = np.zeros(120, np.float32)
    ages[age - 1] = 1
    assert labels.ages_to_decades(ages).argmax() == decade
    assert labels.expected_age(ages) == age


def test_ranges_hold_their_first_and_last_year() -> None:
    mask = labels.years_within(np.array([[3, 5], [120, 120], [1, 120]]))
    assert [labels.AGES[row].tolist() for row in mask[:2]] == [[3, 4, 5], [120]]
    assert mask[2].all()


def test_groups_partition_the_years() -> None:
    uniform = np.full((2, 120), 1 / 120, np.float32)
    groups = labels.ages_to_fairface_groups(uniform)
    np.testing.assert_allclose(groups.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(groups[0] * 120, [2, 7, 10, 10, 10, 10, 10, 10, 51], atol=1e-4)


def test_every_race_maps_to_a_class() -> None:
    assert len(labels.FAIRFACE_RACES) == 7
    assert set(labels.FAIRFACE_RACES.values()) == set(labels.ETHNICITY_LABELS)
