"""Figures over outcomes, with bootstrap intervals and per group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.calibration import Calibration, age_band
from facewise.evaluation.outcomes import Outcomes
from facewise.labels import (
    ETHNICITY_LABELS,
    FAIRFACE_AGE_GROUPS,
    GENDER_LABELS,
    ages_to_fairface_groups,
    expected_age,
)
from facewise.protocol import AGE_IF_NOT_FOUND

BOOTSTRAPS: Final = 500
MIN_GROUP: Final = 30
AGE_BANDS: Final = ((1, 3), (4, 12), (13, 19), (20, 29), (30, 39), (40, 49), (50, 64), (65, 120))

Figure = dict[str, float]
"""``value``, ``low``, ``high`` (95 % bootstrap) and ``n``."""


class Scored:
    """Outcomes calibrated and compared with their labels; rows as in the outcomes.

    A face that was not found is wrong in gender and ethnicity, counts as age 33, lies outside its
    interval and outside its label sets.
    """

    def __init__(self, outcomes: Outcomes, calibration: Calibration) -> None:
        self.outcomes, self.calibration = outcomes, calibration
        o, found = outcomes, outcomes.found
        self.ages = calibration.temper(o.ages, "age")
        self.genders = calibration.temper(o.genders, "gender")
        self.ethnicities = calibration.temper(o.ethnicities, "ethnicity")
        self.age = np.where(found, expected_age(self.ages), AGE_IF_NOT_FOUND)
        self.age_error = self.age - o.age_ranges[:, 0]
        self.gender_right = (self.genders.argmax(-1) == o.true_genders) & found
        self.ethnicity_right = (self.ethnicities.argmax(-1) == o.true_ethnicities) & found
        starts = [first for first, _ in FAIRFACE_AGE_GROUPS.values()]
        self.true_group = np.searchsorted(starts, o.age_ranges[:, 0], side="right") - 1
        off = np.abs(ages_to_fairface_groups(self.ages).argmax(-1) - self.true_group)
        self.group_off = np.where(found, off, 99)

    def interval_hit(self, coverage: float) -> NDArray[np.bool_]:
        """Whether each exact age lies in its interval."""
        intervals = self.calibration.age_intervals(self.ages, coverage)
        truth = self.outcomes.age_ranges[:, 0]
        hit: NDArray[np.bool_] = (
            (truth >= intervals[:, 0]) & (truth <= intervals[:, 1]) & self.outcomes.found
        )
        return hit

    def set_hit(self, attribute: str, coverage: float) -> tuple[NDArray[np.bool_], float]:
        """Whether each label lies in its set, and the sets' mean size over found faces."""
        p = self.genders if attribute == "gender" else self.ethnicities
        o = self.outcomes
        truth = o.true_genders if attribute == "gender" else o.true_ethnicities
        sets = self.calibration.label_sets(p, attribute, coverage)
        hit = np.array([t in s for t, s in zip(truth, sets, strict=True)]) & o.found
        return hit, float(np.mean([len(s) for s, f in zip(sets, o.found, strict=True) if f]))


def bootstrap(
    groups: NDArray[np.str_],
    statistic: Callable[[NDArray[np.intp]], float],
    *,
    rounds: int = BOOTSTRAPS,
    seed: int = 0,
) -> Figure:
    """A statistic of row indices with its 95 % percentile interval.

    Whole duplicate groups are drawn, not single pictures: two pictures of one person are not two
    independent observations.
    """
    rng = np.random.default_rng(seed)
    _, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    values = []
    for _ in range(rounds):
        drawn = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[i] for i in drawn])))
    low, high = np.nanquantile(values, [0.025, 0.975])
    everyone = np.arange(len(groups))
    return {
        "value": float(statistic(everyone)),
        "low": float(low),
        "high": float(high),
        "n": len(groups),
    }


def _median_absolute(errors: NDArray[Any], rows: NDArray[np.intp]) -> float:
    return float(np.median(np.abs(errors[rows])))


def mean_figure(values: NDArray[Any], groups: NDArray[np.str_]) -> Figure:
    """Mean of a column, bootstrapped."""
    return bootstrap(groups, lambda rows: float(values[rows].mean()))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson, 1927)."""
    if n == 0:
        return 0.0, 1.0
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float(middle - half), float(middle + half)


def expected_calibration_error(
    top_probability: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = 15
) -> float:
    """Mean gap between stated probability and share right, over equal-width bins by their size."""
    index = np.minimum((top_probability * bins).astype(int), bins - 1)
    gap = 0.0
    for k in range(bins):
        inside = index == k
        if inside.any():
            gap += inside.mean() * abs(top_probability[inside].mean() - right[inside].mean())
    return float(gap)


def overall(scored: Scored) -> dict[str, Any]:
    """All figures over everybody, by data set."""
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

    out: dict[str, Any] = {}
    for dataset in np.unique(scored.outcomes.datasets):
        mask = scored.outcomes.datasets == dataset
        s = Scored(scored.outcomes.take(mask), scored.calibration)
        o = s.outcomes
        figures: dict[str, Any] = {"n": len(o), "not_found": int((~o.found).sum())}
        exact = o.exact
        if exact.any():
            error, groups = s.age_error[exact], o.groups[exact]
            figures["age_mae_years"] = mean_figure(np.abs(error), groups)
            figures["age_median_error_years"] = bootstrap(groups, partial(_median_absolute, error))
            figures["age_bias_years"] = mean_figure(error, groups)
            for years in (3, 5, 10):
                figures[f"cs{years}"] = mean_figure(np.abs(error) <= years, groups)
        if (o.age_ranges[:, 0] > 0).all():
            figures["age_groups_exact"] = mean_figure(s.group_off == 0, o.groups)
            figures["age_groups_within_one"] = mean_figure(s.group_off <= 1, o.groups)
        for name, truth, p, right, labels in (
            ("gender", o.true_genders, s.genders, s.gender_right, GENDER_LABELS),
            ("ethnicity", o.true_ethnicities, s.ethnicities, s.ethnicity_right, ETHNICITY_LABELS),
        ):
            known = truth >= 0
            if not known.any():
                continue
            guess = np.where(o.found, p.argmax(-1), -1)[known]
            present = np.unique(truth[known])
            figures[f"{name}_accuracy"] = mean_figure(right[known], o.groups[known])
            recalls = [float(right[truth == k].mean()) for k in present]
            figures[f"{name}_balanced_accuracy"] = float(np.mean(recalls))
            if (guess >= 0).all():
                figures[f"{name}_balanced_accuracy"] = float(
                    balanced_accuracy_score(truth[known], guess)
                )
            figures[f"{name}_macro_f1"] = float(
                f1_score(truth[known], guess, labels=present, average="macro", zero_division=0)
            )
            # The last column counts faces that were not found.
            matrix = confusion_matrix(truth[known], guess, labels=[*range(len(labels)), -1])
            figures[f"{name}_confusion"] = matrix[:-1].tolist()
        out[str(dataset)] = figures
    return out


def group_columns(scored: Scored) -> dict[str, NDArray[np.str_]]:
    """The groups each face belongs to, by its labels."""
    o = scored.outcomes
    ages = o.age_ranges[:, 0]
    band = np.array(
        [next((f"{a}-{b}" for a, b in AGE_BANDS if a <= age <= b), "unknown") for age in ages]
    )
    names = {"gender": (*GENDER_LABELS, "unknown"), "ethnicity": (*ETHNICITY_LABELS, "unknown")}
    gender = np.array([names["gender"][k] for k in o.true_genders])
    ethnicity = np.array([names["ethnicity"][k] for k in o.true_ethnicities])

    def cross(*columns: NDArray[np.str_]) -> NDArray[np.str_]:
        return np.array([" / ".join(row) for row in zip(*columns, strict=True)])

    return {
        "ethnicity": ethnicity,
        "gender": gender,
        "age": band,
        "ethnicity x gender": cross(ethnicity, gender),
        "age x gender": cross(band, gender),
        "ethnicity x age": cross(ethnicity, band),
    }


def per_group(scored: Scored) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by grouping and group, those with 30 faces or more; fairlearn takes them apart."""
    from fairlearn.metrics import MetricFrame, count

    def mean(_: Any, values: Any) -> float:
        return float(np.mean(values))

    o = scored.outcomes
    columns: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {
        "age_mae_years": (np.abs(scored.age_error), o.exact),
        "age_groups_exact": (scored.group_off == 0, o.age_ranges[:, 0] > 0),
        "gender_accuracy": (scored.gender_right, o.true_genders >= 0),
        "ethnicity_accuracy": (scored.ethnicity_right, o.true_ethnicities >= 0),
        "interval_coverage_90": (scored.interval_hit(0.9), o.exact),
    }
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for grouping, names in group_columns(scored).items():
        table: dict[str, dict[str, Any]] = {}
        for metric, (values, known) in columns.items():
            if not known.any():
                continue
            v = values[known].astype(float)
            frame = MetricFrame(
                metrics={"value": mean, "n": count},
                y_true=v,
                y_pred=v,
                sensitive_features=names[known],
            )
            for group, row in frame.by_group.iterrows():
                if row["n"] < MIN_GROUP or "unknown" in str(group):
                    continue
                figure = mean_figure(
                    v[names[known] == group], o.groups[known][names[known] == group]
                )
                table.setdefault(str(group), {})[metric] = figure
        out[grouping] = table
    return out


def worst_groups(groups: Mapping[str, Mapping[str, Mapping[str, Figure]]]) -> dict[str, Any]:
    """For each metric and grouping: the worst group, the best, and the gap between them."""
    out: dict[str, Any] = {}
    for grouping, table in groups.items():
        for metric in sorted({m for row in table.values() for m in row}):
            values = {g: row[metric]["value"] for g, row in table.items() if metric in row}
            if len(values) < 2:
                continue
            smaller_is_better = metric.endswith("years")
            ranked = sorted(values, key=values.__getitem__, reverse=not smaller_is_better)
            out[f"{metric} by {grouping}"] = {
                "best": ranked[0],
                "worst": ranked[-1],
                "worst_value": values[ranked[-1]],
                "gap": abs(values[ranked[0]] - values[ranked[-1]]),
            }
    return out


def coverage_table(scored: Scored, levels: tuple[float, ...]) -> dict[str, Any]:
    """Coverage and width of intervals and label sets, by level, band and group."""
    o = scored.outcomes
    exact = o.exact
    bands = age_band(scored.age, scored.calibration.band_starts_years)
    starts = scored.calibration.band_starts_years
    names = np.array([f"predicted {starts[b]} and up" for b in bands])
    groupings = {"predicted age": names, **group_columns(scored)}
    out: dict[str, Any] = {}
    for level in levels:
        hit = scored.interval_hit(level)
        intervals = scored.calibration.age_intervals(scored.ages, level)
        width = intervals[:, 1] - intervals[:, 0]
        row: dict[str, Any] = {
            "intervals": _share(hit[exact]) | {"mean_width_years": float(width[exact].mean())},
            "groups": {},
        }
        for grouping, groups in groupings.items():
            for group in np.unique(groups[exact]):
                mine = exact & (groups == group)
                if mine.sum() >= 150 and "unknown" not in group:
                    share = _share(hit[mine])
                    share["reaches"] = share["high"] >= level
                    row["groups"][f"{grouping}: {group}"] = share
        for attribute, truth in (("gender", o.true_genders), ("ethnicity", o.true_ethnicities)):
            known = truth >= 0
            inside, size = scored.set_hit(attribute, level)
            row[f"{attribute}_sets"] = _share(inside[known]) | {"mean_size": size}
        out[str(level)] = row
    return out


def _share(hits: NDArray[np.bool_]) -> dict[str, Any]:
    low, high = wilson(int(hits.sum()), len(hits))
    return {"coverage": float(hits.mean()), "low": low, "high": high, "n": len(hits)}


def nist_tables(scored: Scored) -> dict[str, Any]:
    """As NIST reports age estimation: MAE for ages 18 to 30, and the Challenge-25 rate.

    Information about the model, not a fitness for age checks.
    """
    o = scored.outcomes
    names = group_columns(scored)["ethnicity x gender"]
    age = o.age_ranges[:, 0]
    young = o.exact & (age >= 18) & (age <= 30)
    minors = o.exact & (age >= 14) & (age <= 17)
    mae = {
        str(g): mean_figure(
            np.abs(scored.age_error[young & (names == g)]), o.groups[young & (names == g)]
        )
        for g in np.unique(names[young])
        if (young & (names == g)).sum() >= MIN_GROUP
    }
    called = scored.age[minors] >= 25
    return {
        "mae_18_to_30": mae,
        "challenge_25": _share(called) if minors.any() else None,
    }
