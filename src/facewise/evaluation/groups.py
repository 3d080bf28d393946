"""Figures for each group of people, and the groups for which they are worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from facewise.evaluation.metrics import (
    CS_YEARS,
    class_figures,
    median_error,
)
from facewise.evaluation.scoring import Scored
from facewise.labels import CLASSES, ETHNICITY_LABELS, FAIRFACE_AGE_GROUPS, GENDER_LABELS
from facewise.reporting.bootstrap import Figure, GroupBootstrap, share
from facewise.types import Array, BoolArray, TextArray

MIN_GROUP: Final = 30
"""Smallest group for which figures are given."""

AGE_BANDS: Final = ((1, 3), (4, 12), (13, 19), (20, 29), (30, 39), (40, 49), (50, 64), (65, 120))
UNKNOWN: Final = "unknown"
"""The group of rows whose group is not known, also in crossings."""

Table = dict[str, dict[str, Figure]]
"""Group to metric to figure."""


def age_names(scored: Scored) -> TextArray:
    """Band of each exact age, or FairFace's group if only that is known."""
    ranges = scored.outcomes.age_ranges
    groups = {years: f"group {name}" for name, years in FAIRFACE_AGE_GROUPS.items()}
    names = []
    for first, last in ranges.tolist():
        band = next((f"{a}-{b}" for a, b in AGE_BANDS if a <= first <= b), UNKNOWN)
        names.append(band if first == last else groups.get((first, last), UNKNOWN))
    return np.array(names)


def group_columns(scored: Scored) -> dict[str, TextArray]:
    """Grouping to the group of each row: by label, by further column, or by crossed labels."""
    gender = np.array((*GENDER_LABELS, UNKNOWN))[scored.truth["gender"]]
    ethnicity = np.array((*ETHNICITY_LABELS, UNKNOWN))[scored.truth["ethnicity"]]
    age = age_names(scored)
    return {
        "ethnicity": ethnicity,
        "gender": gender,
        "age": age,
        **scored.columns,
        "ethnicity x gender": cross(ethnicity, gender),
        "age x gender": cross(age, gender),
        "ethnicity x age": cross(ethnicity, age),
        "ethnicity x age x gender": cross(ethnicity, age, gender),
    }


def cross(*columns: TextArray) -> TextArray:
    """Cross groupings: the names of each row's groups, joined by " / "."""
    rows = zip(*columns, strict=True)
    return np.array([UNKNOWN if UNKNOWN in row else " / ".join(row) for row in rows])


def large_groups(names: TextArray, least: int) -> list[str]:
    """Groups of at least ``least`` rows, ordered by name, without the unknown."""
    groups, counts = np.unique(names, return_counts=True)
    return [str(g) for g, n in zip(groups, counts, strict=True) if n >= least and g != UNKNOWN]


def rowwise(scored: Scored) -> dict[str, tuple[Array, BoolArray]]:
    """Metrics that are means over rows: the values, and which rows have one."""
    error = scored.age - scored.true_age
    exact, grouped = scored.exact, scored.known("age_group")
    out: dict[str, tuple[Array, BoolArray]] = {
        "age_mae_years": (np.abs(error), exact),
        "age_bias_years": (error, exact),
        **{f"age_cs{years}": (np.abs(error) <= years, exact) for years in CS_YEARS},
        "age_groups_exact": (scored.right("age_group"), grouped),
        "age_groups_within_one": (scored.within_one_group(), grouped),
        "interval_coverage_90": (scored.interval_hit(0.9), exact),
    }
    for name in CLASSES:
        out[f"{name}_accuracy"] = (scored.right(name), scored.known(name))
        out[f"{name}_set_coverage_90"] = (scored.set_hit(name, 0.9), scored.known(name))
        out[f"{name}_abstained"] = (scored.abstained[name], scored.known(name))
    out["age_abstained"] = (scored.abstained["age"], exact | grouped)
    return out


def per_group(scored: Scored, grouping: TextArray) -> Table:
    """Figures of each group of ``MIN_GROUP`` faces or more, by fairlearn's MetricFrame.

    We report MetricFrame's values of row-wise metrics; the bootstrap's are equal.

    Args:
        scored: rows of one data set.
        grouping: group of each row; groups named "unknown" are left out.
    """
    from fairlearn.metrics import MetricFrame, count

    table: Table = {}
    for metric, (values, rows) in rowwise(scored).items():
        # A column may have thousands of values; measure only large groups.
        rows = rows & np.isin(grouping, large_groups(grouping[rows], MIN_GROUP))
        if not rows.any():
            continue
        v, names = values[rows], grouping[rows]
        frame = MetricFrame(
            metrics={"value": _mean, "n": count}, y_true=v, y_pred=v, sensitive_features=names
        )
        for group, row in frame.by_group.iterrows():
            mine = names == group
            boot = GroupBootstrap(scored.outcomes.groups[rows][mine])
            cell = boot.mean(v[mine]) | {"value": float(row["value"])}
            table.setdefault(str(group), {})[metric] = cell
    exact = scored.exact
    for group, row in table.items():
        mine = grouping == group
        if (aged := mine & exact).sum() >= MIN_GROUP:
            part = scored.take(aged)
            row["age_median_error_years"] = median_error(part)
        for name in CLASSES:
            if (labelled := mine & scored.known(name)).sum() >= MIN_GROUP:
                part = scored.take(labelled)
                boot = GroupBootstrap(part.outcomes.groups)
                row |= class_figures(part, name, boot)
    return table


def _mean(_: Any, values: Any) -> float:
    return float(np.mean(values))


def smaller_is_better(metric: str) -> bool:
    return metric.endswith(("_years", "_abstained"))


def badness(metric: str, value: float) -> float:
    """Larger is worse."""
    if metric == "age_bias_years":
        return abs(value)
    return value if smaller_is_better(metric) else -value


def worst_groups(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    """The worst group, the best, and the gap between them, for each grouping and metric.

    The worst bias is the one furthest from 0.
    """
    out = []
    for grouping, table in tables.items():
        for metric in sorted({m for row in table.values() for m in row}):
            found = {g: row[metric] for g, row in table.items() if metric in row}
            if len(found) < 2:
                continue
            bad = {g: badness(metric, f["value"]) for g, f in found.items()}
            worst, best = max(bad, key=bad.__getitem__), min(bad, key=bad.__getitem__)
            out.append(
                {
                    "metric": metric,
                    "grouping": grouping,
                    "worst": worst,
                    "worst_figure": found[worst],
                    "best": best,
                    "best_figure": found[best],
                    "gap": abs(found[worst]["value"] - found[best]["value"]),
                }
            )
    return out


def nist_tables(scored: Scored) -> dict[str, Any]:
    """Age estimation as NIST reports it: MAE for ages 18 to 30, and the Challenge-25 rate.

    For information only; this does not make the model fit for age checks.
    """
    age, exact = scored.true_age, scored.exact
    names = group_columns(scored)["ethnicity x gender"]
    young, minors = exact & (age >= 18) & (age <= 30), exact & (age >= 14) & (age <= 17)
    error = np.abs(scored.age - age)
    mae = {
        g: GroupBootstrap(scored.outcomes.groups[young & (names == g)]).mean(
            error[young & (names == g)]
        )
        for g in large_groups(names[young], MIN_GROUP)
    }
    called = scored.age >= 25
    gender = group_columns(scored)["gender"]
    challenge = {"all": share(called[minors])} if minors.any() else {}
    for name in GENDER_LABELS:
        if (mine := minors & (gender == name)).any():
            challenge[name] = share(called[mine])
    return {"mae_18_to_30": mae, "challenge_25": challenge}
