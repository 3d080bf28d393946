"""Tables by group: who is in which group, and which is worst."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.evaluation.groups import (
    group_columns,
    nist_tables,
    per_group,
    rowwise,
    worst_groups,
)

from .made import scored, years


def test_groups_by_labels() -> None:
    rows = scored(3, age=[3, (20, 29), (3, 9)], gender=[0, 1, -1], ethnicity=[4, 0, 2])
    columns = group_columns(rows)
    assert columns["age"].tolist() == ["1-3", "group 20-29", "group 3-9"]
    assert columns["ethnicity x gender"].tolist() == [
        "Others / male",
        "White / female",
        "unknown",
    ]


def test_every_metric_of_every_row_by_hand() -> None:
    """At 90 %, intervals reach half a year beyond one standard deviation (0.5, and 10 for 50 and
    70), and sets hold genders from 0.4 and ethnicities from 0.35; at 95 %, far more.
    """
    reach = {"0.8": 0, "0.9": 1, "0.95": 9}
    calibration = {
        "age_intervals": {"thresholds": {k: {"band": [v], "age": 0} for k, v in reach.items()}},
        "label_sets": {
            "gender": {"0.8": 0.9, "0.9": 0.6, "0.95": 0.9},
            "ethnicity": {"0.8": 0.9, "0.9": 0.65, "0.95": 0.9},
        },
        "gates": {
            "certainty": {
                "age": {"max_interval_years": 10},
                "gender": {"min_probability": 0.6},
                "ethnicity": {"min_probability": 0.5},
            }
        },
    }
    sure, unsure = [0.8, 0.2, 0, 0, 0], [0.4, 0.3, 0.1, 0.1, 0.1]
    rows = scored(
        6,
        calibration,
        age=[30, 40, 50, (20, 29), (0, 0), 34],
        said_ages=[years(33), years(35), years(50, 70), years(31), years(50, 70), 0 * years(1)],
        gender=[0, 1, 1, -1, 1, 0],
        said_genders=[[0.9, 0.1], [0.7, 0.3], [0.55, 0.45], [0.55, 0.45], [0.1, 0.9], [0, 0]],
        ethnicity=[0, 1, -1, 0, -1, 0],
        said_ethnicities=[sure, unsure, unsure, sure, sure, [0] * 5],
        found=[True] * 5 + [False],
    )
    yes, no = True, False
    expected = {
        "age_mae_years": [3, 5, 10, None, None, 1],
        "age_bias_years": [3, -5, 10, None, None, -1],
        "age_cs3": [yes, no, no, None, None, yes],
        "age_cs5": [yes, yes, no, None, None, yes],
        "age_cs10": [yes, yes, yes, None, None, yes],
        "age_groups_exact": [yes, no, yes, no, None, no],
        "age_groups_within_one": [yes, yes, yes, yes, None, no],
        "interval_coverage_90": [no, no, yes, None, None, no],
        "age_abstained": [no, no, yes, no, None, no],
        "gender_accuracy": [yes, no, no, None, yes, no],
        "gender_set_coverage_90": [yes, no, yes, None, yes, no],
        "gender_abstained": [no, no, yes, None, no, no],
        "ethnicity_accuracy": [yes, no, None, yes, None, no],
        "ethnicity_set_coverage_90": [yes, no, None, yes, None, no],
        "ethnicity_abstained": [no, yes, None, no, None, no],
    }
    found = {
        metric: [v if counts else None for v, counts in zip(values.tolist(), mask, strict=True)]
        for metric, (values, mask) in rowwise(rows).items()
    }
    assert found == expected


def test_worst_group_and_gap_by_hand() -> None:
    # 40 White faces off by 2, 40 Black off by 7, 29 Asian off by 50, which are too few to report.
    n = 109
    off = [2] * 40 + [7] * 40 + [50] * 29
    rows = scored(
        n,
        age=[30] * n,
        said_ages=[years(30 + d) for d in off],
        ethnicity=[0] * 40 + [1] * 40 + [2] * 29,
    )
    table = per_group(rows, group_columns(rows)["ethnicity"])
    assert set(table) == {"White", "Black"}
    assert table["Black"]["age_mae_years"] == {"value": 7, "low": 7, "high": 7, "n": 40}
    assert table["Black"]["age_median_error_years"]["value"] == 7
    worst = {row["metric"]: row for row in worst_groups({"ethnicity": table})}
    row = worst["age_mae_years"]
    assert (row["worst"], row["best"], row["gap"]) == ("Black", "White", 5)
    assert worst["age_cs5"]["worst"] == "Black"
    assert worst["age_cs5"]["gap"] == 1


def test_errors_are_of_exact_ages_only() -> None:
    """Thirty faces off by 2, and thirty of an age group: no distance to that is an error."""
    rows = scored(60, age=[30] * 30 + [(20, 29)] * 30, said_ages=[years(32)] * 60, gender=[0] * 60)
    cells = per_group(rows, group_columns(rows)["gender"])["male"]
    assert cells["age_median_error_years"] == {"value": 2, "low": 2, "high": 2, "n": 30}
    assert cells["age_mae_years"]["n"] == 30


def test_a_bias_is_worst_where_it_is_farthest_from_none() -> None:
    off = [1] * 30 + [-9] * 30 + [4] * 30
    rows = scored(
        90,
        age=[40] * 90,
        said_ages=[years(40 + d) for d in off],
        ethnicity=[0] * 30 + [1] * 30 + [2] * 30,
        gender=[0, 1] * 45,
    )
    table = per_group(rows, group_columns(rows)["ethnicity"])
    assert table["Black"]["age_median_error_years"]["value"] == 9
    assert table["Black"]["gender_balanced_accuracy"]["n"] == 30
    worst = {r["metric"]: r for r in worst_groups({"ethnicity": table})}["age_bias_years"]
    assert (worst["worst"], worst["best"]) == ("Black", "White")


def test_the_worst_group_abstains_most_and_a_lone_group_is_not_the_worst() -> None:
    table = {
        "male": {"age_abstained": {"value": 0.25}, "age_cs5": {"value": 0.9}},
        "female": {"age_abstained": {"value": 0.5}},
    }
    (row,) = worst_groups({"gender": table})
    assert (row["metric"], row["worst"], row["gap"]) == ("age_abstained", "female", 0.25)


def test_accuracy_by_group_counts_faces_not_found_as_wrong() -> None:
    n = 40
    rows = scored(
        n, gender=[0] * n, said_genders=[[1, 0]] * n, found=[i >= 10 for i in range(n)],
        ethnicity=[3] * n, groups=[str(i % 9) for i in range(n)],
    )  # fmt: skip
    row = per_group(rows, group_columns(rows)["ethnicity"])["Indian"]
    assert row["gender_accuracy"]["value"] == pytest.approx(0.75)
    assert row["gender_set_coverage_90"]["value"] == pytest.approx(0.75)
    assert row["gender_set_coverage_90"]["low"] is None, "of nine photos"
    assert "gender_balanced_accuracy" not in row, "one class alone is accuracy again"


def test_nist_tables_by_hand() -> None:
    """Ages at the ends of both bands, and just beyond; of the men, 29 adults are too few."""
    ages = [13, 14] + [17] * 3 + [18] * 15 + [30] * 15 + [31] + [25] * 29
    said = [90, 25, 24, 26, 24] + [22] * 15 + [28] * 15 + [90] + [25] * 29
    n = len(ages)
    rows = scored(
        n,
        age=ages,
        said_ages=[years(a) for a in said],
        gender=[0, 0] + [1] * 34 + [0] * 29,
        ethnicity=[0] * n,
    )
    table = nist_tables(rows)
    assert set(table["mae_18_to_30"]) == {"White / female"}
    women = table["mae_18_to_30"]["White / female"]
    assert (women["value"], women["n"]) == (3, 30), "15 are off by 4, and 15 by -2"
    challenge = {who: (cell["value"], cell["n"]) for who, cell in table["challenge_25"].items()}
    assert challenge == {"all": (2 / 4, 4), "male": (1, 1), "female": (pytest.approx(1 / 3), 3)}


def test_bands_have_no_holes() -> None:
    ages = list(range(1, 121))
    names = group_columns(scored(120, age=ages))["age"]
    assert "unknown" not in names
    _, at, counts = np.unique(names, return_index=True, return_counts=True)
    found = {names[i]: (ages[i], ages[i + n - 1]) for i, n in zip(at, counts, strict=True)}
    bands = [(1, 3), (4, 12), (13, 19), (20, 29), (30, 39), (40, 49), (50, 64), (65, 120)]
    assert found == {f"{first}-{last}": (first, last) for first, last in bands}
