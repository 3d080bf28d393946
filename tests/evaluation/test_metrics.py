"""Each figure is compared with a case worked out by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from facewise.evaluation.metrics import (
    _balanced_accuracy,
    _macro_f1,
    confusions,
    figures,
    mae_by_decade,
)
from facewise.evaluation.reliability import (
    calibration_errors,
    chance_error,
    expected_calibration_error,
    reliability,
    stated,
    with_drawn_labels,
)
from facewise.reporting.bootstrap import GroupBootstrap, figure, share, wilson

from .made import scored, years


def value(row: dict[str, object], name: str) -> float:
    cell = row[name]
    assert isinstance(cell, dict)
    return float(cell["value"])


def test_a_bootstrap_of_many_photos_takes_the_memory_of_its_draws_once() -> None:
    names = np.arange(1001).astype(str)
    tracemalloc.start()
    try:
        boot = GroupBootstrap(names)
        boot.statistic(lambda rows: float(rows[0]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert boot.times.nbytes < peak < 1.5 * boot.times.nbytes
    # As if all were drawn at once, so that figures stay what they are.
    drawn = np.random.default_rng(0).integers(0, 1001, boot.times.shape)
    np.testing.assert_array_equal(boot.times, [np.bincount(d, minlength=1001) for d in drawn])


def test_age_errors_by_hand() -> None:
    # Errors: 0, +4, -6, +13; the last face was not found, so it counts as 33.
    rows = scored(
        4,
        age=[30, 20, 70, 20],
        said_ages=[years(30), years(22, 26), years(64), np.zeros(120, np.float32)],
        found=[True, True, True, False],
    )
    row = figures(rows)
    assert value(row, "age_mae_years") == pytest.approx((0 + 4 + 6 + 13) / 4)
    assert value(row, "age_median_error_years") == pytest.approx(5)
    assert value(row, "age_bias_years") == pytest.approx((4 - 6 + 13) / 4)
    assert [value(row, f"age_cs{n}") for n in (3, 5, 10)] == [0.25, 0.5, 0.75]
    assert row["not_found"] == 1
    decades = mae_by_decade(rows)
    assert set(decades) == {"11-20", "21-30", "61-70"}  # 20 lies in 11 to 20, 30 in 21 to 30
    assert decades["11-20"]["value"] == pytest.approx((4 + 13) / 2)


def test_cumulative_scores_count_errors_of_just_as_many_years() -> None:
    row = figures(scored(4, age=[30] * 4, said_ages=[years(30 + off) for off in (3, -5, 10, 11)]))
    assert [value(row, f"age_cs{n}") for n in (3, 5, 10)] == [0.25, 0.5, 0.75]


def test_the_interval_of_a_median_is_of_medians() -> None:
    # A draw of 41 has a median of 0 or of 40, about as often; its mean lies between.
    rows = scored(41, age=[30] * 41, said_ages=[years(30)] * 21 + [years(70)] * 20)
    assert figures(rows)["age_median_error_years"] == {"value": 0, "low": 0, "high": 40, "n": 41}


def test_the_interval_of_absolute_errors_is_of_absolute_errors() -> None:
    rows = scored(40, age=[30] * 40, said_ages=[years(30 + off) for off in (-6, -4, 4, 6)] * 10)
    mae, bias = figures(rows)["age_mae_years"], figures(rows)["age_bias_years"]
    assert 4 <= mae["low"] < mae["value"] == 5 < mae["high"] <= 6
    assert bias["low"] < bias["value"] == 0 < bias["high"]


def test_age_groups_by_hand() -> None:
    # FairFace's groups: right, one off, two off, right but not found.
    rows = scored(
        4,
        age=[(20, 29), (20, 29), (20, 29), (30, 39)],
        said_ages=[years(25), years(31), years(45), years(33)],
        found=[True, True, True, False],
    )
    row = figures(rows)
    assert value(row, "age_groups_exact") == pytest.approx(1 / 4)
    assert value(row, "age_groups_within_one") == pytest.approx(2 / 4)
    assert "age_mae_years" not in row


def test_a_range_over_two_age_groups_is_in_neither() -> None:
    rows = scored(
        5, age=[(1, 10), (18, 30), (31, 40), (21, 25), (80, 120)], said_ages=[years(25)] * 5
    )
    assert rows.truth["age_group"].tolist() == [-1, -1, -1, 3, 8]
    row = figures(rows)
    assert row["age_groups_exact"]["n"] == 2
    assert value(row, "age_groups_exact") == pytest.approx(1 / 2)


def test_the_largest_group_decides_not_the_expected_age() -> None:
    # Expected age 28, but the most probable group is 30-39.
    p = 0.6 * years(32) + 0.4 * years(22)
    row = figures(scored(1, age=[(30, 39)], said_ages=[p]))
    assert value(row, "age_groups_exact") == 1


def test_classes_by_hand() -> None:
    # Men: right, right, wrong. Women: right, not found.
    rows = scored(
        6,
        gender=[0, 0, 0, 1, 1, -1],
        said_genders=[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.0, 0.0], [1.0, 0.0]],
        found=[True, True, True, True, False, False],
    )
    row = figures(rows)
    assert (row["n"], row["not_found"]) == (6, 2)
    assert value(row, "gender_accuracy") == pytest.approx(3 / 5)
    assert value(row, "gender_balanced_accuracy") == pytest.approx((2 / 3 + 1 / 2) / 2)
    # F1 of men: precision 2/2, recall 2/3, 0.8; of women: precision 1/2, recall 1/2, 0.5.
    assert value(row, "gender_macro_f1") == pytest.approx((0.8 + 0.5) / 2)
    assert confusions(rows)["gender"] == [[2, 1, 0], [0, 1, 1]]
    assert "ethnicity_accuracy" not in row


def test_figures_of_redrawn_confusions_by_hand() -> None:
    """By label and answer, the last column not found; the first draw lacks a class, though one
    answer names it.
    """
    drawn = np.array(
        [
            [[2, 0, 1, 1], [0, 4, 0, 0], [0, 0, 0, 0]],
            [[1, 0, 0, 0], [0, 1, 0, 3], [1, 0, 0, 0]],
        ],
        np.float64,
    )
    np.testing.assert_allclose(_balanced_accuracy(drawn), [(1 / 2 + 1) / 2, (1 + 1 / 4 + 0) / 3])
    # Twice the hits, divided by the number labelled so plus the number answered so.
    np.testing.assert_allclose(_macro_f1(drawn), [(4 / 6 + 8 / 8) / 2, (2 / 3 + 2 / 5 + 0 / 1) / 3])


def test_intervals_of_balanced_accuracy_and_f1_are_of_the_same_figures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 400)
    p = rng.dirichlet(np.ones(5), 400)
    p[np.arange(400), truth] += 0.5
    p /= p.sum(1, keepdims=True)
    row = figures(scored(400, ethnicity=truth.tolist(), said_ethnicities=p))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        cell = row[f"ethnicity_{name}"]
        assert cell["low"] < cell["value"] < cell["high"]
        assert cell["high"] - cell["low"] == pytest.approx(4 * 0.5 * 400**-0.5, rel=0.5)


def test_intervals_are_the_middle_95_percent_of_the_draws() -> None:
    drawn = np.append(np.arange(1001.0), np.nan)
    assert figure(500.0, drawn, 20, 10) == {"value": 500, "low": 25, "high": 975, "n": 20}
    # Of 16 rows, half of them 1, a draw holds 4 or fewer in 3.8 % of cases, 3 or fewer in 1.1 %.
    half = GroupBootstrap(np.arange(16).astype(str)).mean(np.arange(16) % 2)
    assert half == {"value": 8 / 16, "low": 4 / 16, "high": 12 / 16, "n": 16}


def test_any_statistic_is_of_the_same_draws_as_the_mean() -> None:
    boot = GroupBootstrap(np.array(list("cabbdaefghijkl")))
    values = np.arange(14.0) ** 2
    assert boot.statistic(lambda rows: float(values[rows].mean())) == pytest.approx(
        boot.mean(values)
    )


def test_duplicates_are_drawn_together() -> None:
    values = np.array([0.0, 1.0] * 6)
    names = np.array(list("abcdefghijkl"))
    alone = GroupBootstrap(names).mean(values)
    assert alone["low"] < 0.5 < alone["high"]
    # Copies add no certainty.
    many = np.tile(values, 20)
    copies = GroupBootstrap(np.tile(names, 20)).mean(many)
    assert (copies["low"], copies["high"]) == (alone["low"], alone["high"])
    assert GroupBootstrap(np.arange(240).astype(str)).mean(many)["low"] > 0.4


def test_few_photos_have_no_interval() -> None:
    # Nine photos, and eighteen pictures of nine photos; ten photos have one.
    errors = np.arange(9.0)
    few = {"value": 4, "low": None, "high": None, "n": 9}
    assert GroupBootstrap(np.array(list("abcdefghi"))).mean(errors) == few
    copies = GroupBootstrap(np.array(list("abcdefghi") * 2)).mean(np.tile(errors, 2))
    assert (copies["low"], copies["high"], copies["n"]) == (None, None, 18)
    assert GroupBootstrap(np.arange(10).astype(str)).mean(np.arange(10.0))["low"] < 4
    rows = scored(3, age=[103, 104, 105], said_ages=[years(90)] * 3, gender=[0, 0, 1])
    row = figures(rows)
    metrics = ("age_mae_years", "age_median_error_years", "gender_macro_f1")
    assert [row[name]["low"] for name in metrics] == [None] * 3
    assert mae_by_decade(rows)["101-110"] == {"value": 14, "low": None, "high": None, "n": 3}


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415 / 20) / 1.38415, half 1.95996 / 1.38415 * sqrt(0.025604).
    low, high = wilson(8, 10)
    np.testing.assert_allclose((low, high), (0.4902, 0.9433), atol=1e-4)
    assert wilson(0, 0) == (0, 1)
    assert [wilson(0, n)[0] for n in (7, 43, 500)] == [0, 0, 0]
    assert [wilson(n, n)[1] for n in (7, 43, 500)] == [1, 1, 1]
    assert share(np.array([True] * 8 + [False] * 2))["low"] == pytest.approx(low)


def test_shares_of_rows_that_are_all_alike_have_wilsons_interval() -> None:
    # Six rows of five groups, all right: 1 / (1 + 3.8415 / 5) is the lower end.
    groups = np.array(["a", "a", "b", "c", "d", "e"])
    right = GroupBootstrap(groups).mean(np.ones(6, bool))
    assert (right["value"], right["high"]) == (1, 1)
    assert right["low"] == pytest.approx(0.5655, abs=1e-4)
    wrong = GroupBootstrap(groups).mean(np.zeros(6, bool))
    assert (wrong["low"], wrong["value"]) == (0, 0)
    assert wrong["high"] == pytest.approx(0.4345, abs=1e-4)
    # Years are not a share.
    assert GroupBootstrap(groups).mean(np.ones(6))["low"] is None
    row = figures(scored(6, gender=[0, 1] * 3, said_genders=[[1, 0], [0, 1]] * 3))
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert row[f"gender_{name}"]["low"] == pytest.approx(1 / (1 + 3.8415 / 6), abs=1e-4)


def test_calibration_error_by_hand() -> None:
    top = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    # Bins of a tenth: |0.95 - 1| on two of four, |0.55 - 0.5| on two of four.
    assert expected_calibration_error(top, right, bins=10) == pytest.approx(0.05)
    points = reliability(top, right, bins=10)
    assert [n for _, _, n in points] == [2, 2]
    np.testing.assert_allclose(points, [(0.55, 0.5, 2), (0.95, 1.0, 2)])
    assert expected_calibration_error(np.array([1.0]), np.array([True])) == 0


def test_what_is_stated_and_right_by_hand() -> None:
    """Of ages, 0.8 on 21 to 30, but only 0.5 on FairFace's 30-39, to which 30 belongs."""
    p = 0.5 * years(30) + 0.3 * years(22) + 0.2 * years(45)
    rows = scored(
        4,
        age=[30, 31, (20, 29), 30],
        said_ages=[p] * 4,
        gender=[0, 1, -1, 0],
        said_genders=[[0.9, 0.1]] * 4,
        found=[True, True, True, False],
    )
    expected = {
        "age_decade": ([0, 1], 0.8, [True, False]),
        "age_group": ([0, 1, 2], 0.5, [True, True, False]),
        "gender": ([0, 1], 0.9, [True, False]),
    }
    judged = stated(rows)
    assert set(judged) == set(expected)
    for name, (mask, top, right) in judged.items():
        which, probability, answers = expected[name]
        assert np.flatnonzero(mask).tolist() == which
        assert top[mask] == pytest.approx(probability)
        assert right[mask].tolist() == answers


def test_groups_of_a_hundred_and_fifty_have_five_bins_and_all_faces_fifteen() -> None:
    """0.61, 0.64 and 0.75 lie in one fifth, in two fifteenths, in two tenths and in three
    thirtieths; 149 faces are too few.
    """
    said = [0.61, 0.64, 0.75]
    n = 299
    rows = scored(
        n,
        gender=[0] * n,
        said_genders=[[said[i % 3], 1 - said[i % 3]] for i in range(n)],
        ethnicity=[0] * 150 + [1] * 149,
    )
    row = calibration_errors(rows)["gender"]
    assert [n for *_, n in row["after"]["points"]] == [200, 99]
    assert {g for g in row["groups"] if g.startswith("ethnicity")} == {"ethnicity: White"}
    group = row["groups"]["ethnicity: White"]
    assert group["points"] == [(pytest.approx(sum(said) / 3), 1, 150)]
    assert group["by_chance"] == pytest.approx(chance_error(np.array(said * 50)))


def test_labels_are_drawn_for_faces_that_were_found_and_have_one() -> None:
    """From certain answers, so there is one draw: 30, which begins one of FairFace's groups."""
    rows = scored(
        4,
        age=[25, (20, 29), (0, 0), 25],
        said_ages=[years(30)] * 4,
        gender=[1, -1, 1, 1],
        said_genders=[[1, 0]] * 4,
        found=[True, True, True, False],
    )
    drawn = with_drawn_labels(rows, np.random.default_rng(0)).outcomes
    assert drawn.age_ranges.tolist() == [[30, 30], [30, 39], [0, 0], [25, 25]]
    assert drawn.true_genders.tolist() == [0, -1, 0, 1]


def test_error_by_chance_by_hand() -> None:
    # A single answer stated at one half is off by one half, whether right or wrong.
    assert chance_error(np.array([0.5])) == 0.5
    # Two answers are off by one half if both are right or both wrong, and otherwise not at all.
    assert chance_error(np.array([0.5, 0.5]), rounds=20_000) == pytest.approx(0.25, abs=0.01)
    # More answers are off by less; certain answers are never off.
    assert chance_error(np.full(5000, 0.5)) < 0.01
    assert chance_error(np.ones(9)) == 0


def test_calibration_error_before_and_after_and_by_group() -> None:
    # A network states 0.9 and is right 8 times of 10: a temperature of log 9 / log 4 corrects it.
    n = 400
    said = [[0.9, 0.1]] * n
    gender = [0 if i % 10 < 8 else 1 for i in range(n)]
    calibration = {"temperatures": {"gender": float(np.log(9) / np.log(4))}}
    row = calibration_errors(
        scored(n, calibration, gender=gender, said_genders=said, ethnicity=[1] * n)
    )["gender"]
    assert row["before"]["ece"] == pytest.approx(0.1, abs=1e-6)
    assert row["after"]["ece"] == pytest.approx(0, abs=1e-6)
    assert row["by_chance"] == pytest.approx(0.4 / 20 * np.sqrt(2 / np.pi), rel=0.2)
    group = row["groups"]["ethnicity: Black"]
    assert (group["n"], round(group["before"], 6), round(group["after"], 6)) == (n, 0.1, 0)
    (point,) = group["points"]
    assert point == (pytest.approx(0.8), pytest.approx(0.8), n)
    # For men, answers are always right; for women, never.
    assert row["groups"]["gender: male"]["before"] == pytest.approx(0.1, abs=1e-6)
    assert "gender: female" not in row["groups"], "80 are too few"


def test_exact_probabilities_err_by_chance_in_groups_of_their_own_label() -> None:
    """1500 faces are stated to be 90 % male, 500 to be 40 %, and those are the true shares.

    Of 1550 men, 1350 are right at 0.9 and 200 wrong at 0.6; of 450 women, 150 are wrong at 0.9 and
    300 right at 0.6. Ages are stated as 60 % 25 and 40 % 35: right for all of 25, wrong for 35.
    """
    n = 2000
    rows = scored(
        n,
        gender=[0] * 1350 + [1] * 150 + [0] * 200 + [1] * 300,
        said_genders=[[0.9, 0.1]] * 1500 + [[0.4, 0.6]] * 500,
        age=[25, 25, 25, 35, 35] * 200 + [(20, 29), (20, 29), (20, 29), (30, 39), (30, 39)] * 200,
        said_ages=[0.6 * years(25) + 0.4 * years(35)] * n,
        ethnicity=[0] * n,
    )
    errors = calibration_errors(rows)
    expected = {
        "gender": {"gender: male": 255 / 1550, "gender: female": 255 / 450},
        "age_decade": {"age: 20-29": 0.4, "age: 30-39": 0.6},
        "age_group": {"age: 30-39": 0.6, "age: group 20-29": 0.4, "age: group 30-39": 0.6},
    }
    for name, groups in expected.items():
        for group, error in groups.items():
            row = errors[name]["groups"][group]
            assert row["after"] == pytest.approx(error, abs=1e-6)
            assert row["by_chance"] == pytest.approx(error, abs=0.02)
    # In groups formed by another label, as many are right as the probabilities state.
    assert errors["gender"]["groups"]["ethnicity: White"]["by_chance"] < 0.03


def test_faces_not_found_are_not_calibrated() -> None:
    rows = scored(2, gender=[0, 0], said_genders=[[1, 0], [0, 0]], found=[True, False])
    row = calibration_errors(rows)["gender"]
    assert (row["n"], row["before"]["ece"]) == (1, 0)
