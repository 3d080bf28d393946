"""Label noise: known noise is recovered, and planted errors come first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facewise.dedupe.noise import age_noise, class_noise, label_noise
from facewise.evaluation.suspects import suspects_of

from .made import scored, years


def test_age_noise_of_a_case_done_by_hand() -> None:
    # Differences 1 | 0 | 5, 4, 9 with weight 1/3 each: group means 1, 0, 6, and 7/3 over groups.
    noise = age_noise([[20, 21], [30, 30], [40, 45, 36]])
    assert (noise["n_groups"], noise["n_pairs"]) == (3, 5)
    assert noise["mean_difference_years"]["value"] == pytest.approx(7 / 3)
    assert noise["mae_floor_bounds_years"] == pytest.approx([7 / 6, 7 / 3])
    assert noise["mae_floor_normal_years"]["value"] == pytest.approx(7 / 3 / math.sqrt(2))
    assert noise["mae_floor_laplace_years"]["value"] == pytest.approx(7 / 3 / 1.5)
    squares = (1 + 0 + (25 + 16 + 81) / 3) / 3
    assert noise["label_sd_years"]["value"] == pytest.approx(math.sqrt(squares / 2))
    assert noise["label_sd_robust_years"]["value"] == pytest.approx(1.4826 * 1 / math.sqrt(2))
    assert noise["share_that_disagrees"]["value"] == pytest.approx(2 / 3)
    assert noise["share_over_5_years"]["value"] == pytest.approx(1 / 9)
    assert noise["by_age"] == {}
    # Three photos are too few for an interval, whether of years or of shares.
    for name in ("mae_floor_normal_years", "label_sd_robust_years", "share_that_disagrees"):
        assert (noise[name]["low"], noise[name]["high"]) == (None, None)


def test_noise_by_age_is_of_the_middle_age_and_of_thirty_pairs() -> None:
    """The middles are 12.5 of 30 pairs, 13 of 27 and of 3, and 20.5 of 29, which are too few."""
    photos = [[12, 13]] * 30 + [[13, 13, 40]] * 9 + [[13, 13]] * 3 + [[20, 21]] * 29
    by_age = age_noise(photos)["by_age"]
    assert {band: row["n_pairs"] for band, row in by_age.items()} == {"1-12": 30, "13-19": 30}
    # A mean of 18 years nine times, and of 0 three times, whatever the number of their pairs.
    mean = by_age["13-19"]["mean_difference_years"]["value"]
    assert mean == pytest.approx(9 * 18 / 12)


@pytest.mark.parametrize(
    ("draw", "floor"),
    [("normal", "mae_floor_normal_years"), ("laplace", "mae_floor_laplace_years")],
)
def test_known_noise_is_found_again(draw: str, floor: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(20, 70, 3000)
    error = getattr(rng, draw)(0, 4, (3000, 2))
    noise = age_noise(np.rint(truth[:, None] + error).astype(int).tolist())
    low, high = noise[floor]["low"], noise[floor]["high"]
    assert low < np.abs(error).mean() < high
    assert high - low < 0.4
    bound_low, bound_high = noise["mae_floor_bounds_years"]
    assert bound_low < np.abs(error).mean() < bound_high
    assert set(noise["by_age"]) == {"13-19", "20-29", "30-39", "40-49", "50-64", "65-120"}


def test_class_noise() -> None:
    noise = class_noise([[0, 0], [0, 1], [1, 1], [1, 1, 0], [2]])
    assert noise["n_groups"] == 4
    assert noise["pairs_disagree"]["value"] == pytest.approx((0 + 1 + 0 + 2 / 3) / 4)
    error = noise["error_if_independent"]["value"]
    assert noise["error_if_independent"]["high"] is None, "of four photos"
    assert 2 * error * (1 - error) == pytest.approx(noise["pairs_disagree"]["value"])


def test_errors_among_five_classes_are_spread_evenly_at_the_least() -> None:
    # A fifth wrong, spread evenly over four classes: 0.64 + 0.04 / 4 = 0.65 agree, 35 % disagree.
    noise = class_noise([[0, 1]] * 7 + [[2, 2]] * 13, 5)
    assert noise["pairs_disagree"]["value"] == pytest.approx(0.35)
    assert noise["error_if_independent"]["value"] == pytest.approx(0.2)
    # If labels are drawn at random, 80 % are wrong and 80 % of pairs disagree: the most possible.
    lots = class_noise([[0, 1]] * 9 + [[2, 2]], 5)
    assert lots["error_if_independent"]["value"] == pytest.approx(0.8)
    pairs = [{"ethnicity": a} for a in (0, 1)], [{"ethnicity": a} for a in (3, 3)]
    held = label_noise(list(pairs))["ethnicity"]["error_if_independent"]["value"]
    assert held == pytest.approx(0.8 * (1 - math.sqrt(1 - 0.5 / 0.8)))


def test_unknown_labels_are_nobodys_disagreement() -> None:
    noise = label_noise(
        [
            [{"age": 30, "gender": 1, "ethnicity": None}, {"age": 33, "gender": 1}],
            [{"age": None, "gender": 0}, {"age": 50, "gender": 0}],
        ]
    )
    assert noise["age"]["n_groups"] == 1
    assert noise["gender"]["pairs_disagree"]["value"] == 0
    assert noise["ethnicity"] == {"n_groups": 0}


def test_planted_errors_are_the_most_suspect() -> None:
    n = 40
    ages = np.full((n, 120), 0.1 / 120, np.float32)
    ages[:, 29] += 0.9  # certainly 30
    genders = np.tile(np.array([0.9, 0.1], np.float32), (n, 1))
    ethnicities = np.tile(np.array([0.6, 0.1, 0.1, 0.1, 0.1], np.float32), (n, 1))
    ranges = np.full((n, 2), 30)
    ranges[3] = 80, 80  # wrong
    ranges[4] = 31, 31  # near enough
    ranges[5] = 20, 29  # a group, and near enough
    ranges[6] = 50, 59  # wrong
    ranges[7] = 0, 0  # unknown
    true_genders, true_ethnicities = np.zeros(n, int), np.zeros(n, int)
    true_genders[11], true_ethnicities[12] = 1, 4
    true_genders[13] = -1
    faces = scored(
        n,
        age=[(first, last) for first, last in ranges.tolist()],
        said_ages=list(ages),
        gender=true_genders.tolist(),
        said_genders=genders.tolist(),
        ethnicity=true_ethnicities.tolist(),
        said_ethnicities=ethnicities.tolist(),
    )
    rows = suspects_of(faces)
    found = [(row["file"], row["attribute"], row["label"], row["answer"]) for row in rows[:4]]
    assert found[0] == ("3.jpg", "age", "80", "28")
    assert set(found[1:]) == {
        ("6.jpg", "age", "50-59", "28"),
        ("11.jpg", "gender", "female", "male"),
        ("12.jpg", "ethnicity", "Others", "White"),
    }
    assert rows[0]["p_answer"] > 0.9 > 0.1 > rows[0]["p_label"]
    assert [row["surprise"] for row in rows] == sorted((r["surprise"] for r in rows), reverse=True)
    assert len(rows) == 4, "all others are as likely as the answer"


def test_ages_near_either_end_by_hand() -> None:
    """The label has half of the probability within two years, 1 to 3 or 118 to 120."""
    rows = suspects_of(scored(2, age=[1, 120], said_ages=[years(1, 4), years(117, 120)]))
    figures = [(row["label"], row["p_label"], row["answer"], row["p_answer"]) for row in rows]
    assert figures == [("1", 0.5, "2", 1), ("120", 0.5, "118", 1)]
    assert [row["surprise"] for row in rows] == pytest.approx([math.log(2)] * 2, abs=1e-4)


def test_a_label_older_than_the_answer_is_no_more_surprising_than_a_younger_one() -> None:
    """Though what is left to the label, 3e-8, is lost beside a sum of almost 1 in float32."""
    little = np.float32(3e-8)
    old, young = np.zeros((2, 120), np.float32)
    old[[30, 60]] = young[[60, 30]] = 1 - little, little
    rows = suspects_of(scored(2, age=[61, 31], said_ages=[old, young]))
    assert [row["surprise"] for row in rows] == pytest.approx([math.log(1 / 3e-8)] * 2, abs=1e-3)


def test_a_range_is_compared_with_a_run_of_its_own_width() -> None:
    """Labels 20-21 mean 18 to 23, two of ten years; the likeliest six years have six of ten."""
    (row,) = suspects_of(scored(1, age=[(20, 21)], said_ages=[years(*range(22, 32))]))
    assert (row["p_label"], row["p_answer"]) == (0.2, 0.6)


def test_no_more_than_two_hundred_are_listed() -> None:
    assert len(suspects_of(scored(201, gender=[1] * 201, said_genders=[[0.9, 0.1]] * 201))) == 200
