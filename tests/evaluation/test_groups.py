"""Tables by group: who is in which group, and which is worst."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.evaluation.groups import group_columns, nist_tables, per_group, worst_groups

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


def test_a_bias_is_worst_where_it_is_farthest_from_none() -> None:
    off = [1] * 30 + [-9] * 30 + [4] * 30
    rows = scored(
        90,
        age=[40] * 90,
        said_ages=[years(40 + d) for d in off],
        ethnicity=[0] * 30 + [1] * 30 + [2] * 30,
    )
    table = per_group(rows, group_columns(rows)["ethnicity"])
    worst = {r["metric"]: r for r in worst_groups({"ethnicity": table})}["age_bias_years"]
    assert (worst["worst"], worst["best"]) == ("Black", "White")


def test_accuracy_by_group_counts_faces_not_found_as_wrong() -> None:
    n = 40
    rows = scored(
        n, gender=[0] * n, said_genders=[[1, 0]] * n, found=[i >= 10 for i in range(n)],
        ethnicity=[3] * n,
    )  # fmt: skip
    row = per_group(rows, group_columns(rows)["ethnicity"])["Indian"]
    assert row["gender_accuracy"]["value"] == pytest.approx(0.75)
    assert row["gender_set_coverage_90"]["value"] == pytest.approx(0.75)
    assert "gender_balanced_accuracy" not in row, "one class alone is accuracy again"


def test_nist_tables_by_hand() -> None:
    ages = [16] * 4 + [25] * 40 + [31] * 40
    said = [24, 25, 26, 10] + [28] * 40 + [90] * 40
    n = len(ages)
    rows = scored(
        n,
        age=ages,
        said_ages=[years(a) for a in said],
        gender=[0, 0, 1, 1] + [1] * 80,
        ethnicity=[0] * n,
    )
    table = nist_tables(rows)
    assert set(table["mae_18_to_30"]) == {"White / female"}
    assert table["mae_18_to_30"]["White / female"]["value"] == pytest.approx(3)
    challenge = table["challenge_25"]
    assert (challenge["all"]["value"], challenge["all"]["n"]) == (0.5, 4)
    assert (challenge["male"]["value"], challenge["female"]["value"]) == (0.5, 0.5)


def test_bands_have_no_holes() -> None:
    ages = list(range(1, 121))
    names = group_columns(scored(120, age=ages))["age"]
    assert "unknown" not in names
    assert len(np.unique(names)) == 8
