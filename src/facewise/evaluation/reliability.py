"""Whether a stated 80 % is right 80 % of the time, before and after temperature, and by group."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np

from facewise.calibration import Calibration
from facewise.evaluation.groups import group_columns, large_groups
from facewise.evaluation.scoring import Scored
from facewise.labels import FAIRFACE_AGE_GROUPS, ages_to_decades, ages_to_fairface_groups
from facewise.types import AnyFloatArray, BoolArray, Float64Array, IndexArray, IntArray

ECE_BINS: Final = 15

MIN_ECE_GROUP: Final = 150
"""Smallest group whose calibration error is reported; in smaller ones, chance makes it large."""

GROUP_BINS: Final = 5
"""Bins of a group's diagram; most of 15 would hold only a handful of faces."""

GROUPINGS: Final = ("ethnicity", "gender", "age")

OWN: Final = {
    "age_decade": "age", "age_group": "age", "gender": "gender", "ethnicity": "ethnicity"
}  # fmt: skip
"""Output to the grouping that is formed by its own label."""

LABEL_ROUNDS: Final = 20
"""Draws of labels to form groups by; few, because each draw covers whole data sets."""

Point = tuple[float, float, int]
"""Mean stated probability, share right, and count."""


def reliability(
    top_probability: AnyFloatArray, right: BoolArray, bins: int = ECE_BINS
) -> list[Point]:
    """Mean stated probability, share right and count of each non-empty bin of equal width."""
    index = np.minimum((top_probability * bins).astype(int), bins - 1)
    return [
        (
            float(top_probability[index == k].mean()),
            float(right[index == k].mean()),
            int((index == k).sum()),
        )
        for k in np.unique(index)
    ]


def expected_calibration_error(
    top_probability: AnyFloatArray, right: BoolArray, bins: int = ECE_BINS
) -> float:
    """Mean gap between stated probability and share right, bins weighted by size (Guo, 2017)."""
    points = reliability(top_probability, right, bins)
    return sum(n * abs(stated - share) for stated, share, n in points) / len(right)


def chance_error(top_probability: AnyFloatArray, rounds: int = 200) -> float:
    """Mean calibration error that perfectly calibrated answers would show by chance.

    Draws, ``rounds`` times, whether each answer is right. An error close to this one cannot be
    told from chance, nor removed by another calibration.
    """
    index = np.minimum((top_probability * ECE_BINS).astype(int), ECE_BINS - 1)
    drawn = np.random.default_rng(0).random((rounds, len(index))) < top_probability
    gaps = (top_probability - drawn) @ np.eye(ECE_BINS)[index]  # (rounds, bins), times their sizes
    return float(np.abs(gaps).sum(axis=1).mean() / len(index))


def calibration_errors(scored: Scored) -> dict[str, Any]:
    """Expected calibration error and reliability of each output, before and after temperature.

    Only faces found count. Ages are judged by decade if exact, and by FairFace's groups if a group
    is known.

    Returns:
        Output to "n"; "before" and "after", each with "ece" and "points"; "by_chance", the error
        that the probabilities after temperature would show if perfectly calibrated; and "groups",
        with "n" and the three errors for each group of ``MIN_ECE_GROUP`` faces or more, and its
        reliability after temperature, "points", in 5 bins. For groups formed by the output's own
        label, "by_chance" is from ``own_label_errors``.
    """
    raw = Scored(scored.outcomes, Calibration())
    before, after = stated(raw), stated(scored)
    columns = group_columns(scored)
    groupings = {
        "data set": scored.outcomes.datasets,
        **{grouping: columns[grouping] for grouping in (*GROUPINGS, *scored.columns)},
    }
    own = own_label_errors(scored)
    out: dict[str, Any] = {}
    for name, (rows, top_after, right_after) in after.items():
        _, top_before, right_before = before[name]
        out[name] = {
            "n": int(rows.sum()),
            "before": _judged(top_before[rows], right_before[rows]),
            "after": _judged(top_after[rows], right_after[rows]),
            "by_chance": chance_error(top_after[rows]),
            "groups": {},
        }
        for grouping, names in groupings.items():
            for group in large_groups(names[rows], MIN_ECE_GROUP):
                mine = rows & (names == group)
                by_chance = (
                    own[name].get(group) if OWN[name] == grouping else chance_error(top_after[mine])
                )
                out[name]["groups"][f"{grouping}: {group}"] = {
                    "n": int(mine.sum()),
                    "before": expected_calibration_error(top_before[mine], right_before[mine]),
                    "after": expected_calibration_error(top_after[mine], right_after[mine]),
                    "by_chance": by_chance,
                    "points": reliability(top_after[mine], right_after[mine], GROUP_BINS),
                }
    return out


def own_label_errors(scored: Scored) -> dict[str, dict[str, float]]:
    """Errors that calibrated probabilities would show in groups formed by the output's own label.

    Among faces that share a label, answers are not right as often as they state, however well
    calibrated: for men, every answer "woman" is wrong, regardless of its probability. So we draw
    labels from the probabilities, group faces by the drawn labels, and average the error over the
    draws. These groups have the sizes that the probabilities imply, not their true sizes.

    Returns:
        Output to group to error.
    """
    rng = np.random.default_rng(0)
    sums: dict[str, dict[str, list[float]]] = {name: {} for name in OWN}
    for _ in range(LABEL_ROUNDS):
        drawn = with_drawn_labels(scored, rng)
        columns = group_columns(drawn)
        for name, (rows, top, right) in stated(drawn).items():
            names = columns[OWN[name]]
            for group in np.unique(names[rows]):
                mine = rows & (names == group)
                error = expected_calibration_error(top[mine], right[mine])
                sums[name].setdefault(str(group), []).append(error)
    return {
        name: {group: float(np.mean(errors)) for group, errors in groups.items()}
        for name, groups in sums.items()
    }


def with_drawn_labels(scored: Scored, rng: np.random.Generator) -> Scored:
    """The same faces, with labels drawn from their own probabilities; unknown ones stay unknown.

    An age known only as a group is drawn as one of FairFace's groups.
    """
    o, found = scored.outcomes, scored.outcomes.found

    def draw(p: AnyFloatArray) -> IndexArray:
        reached = np.cumsum(p, axis=1, dtype=np.float64)
        return (reached < rng.random((len(p), 1)) * reached[:, -1:]).sum(1)

    def labels(name: str) -> IntArray:
        known = found & scored.known(name)
        return np.where(known, draw(scored.probabilities[name]), scored.truth[name])

    year = draw(scored.ages) + 1
    groups = np.array(list(FAIRFACE_AGE_GROUPS.values()))
    group = groups[np.searchsorted(groups[:, 0], year, side="right") - 1]
    ranges = np.where((found & scored.exact)[:, None], year[:, None], o.age_ranges)
    in_groups = found & ~scored.exact & scored.known("age_group")
    ranges = np.where(in_groups[:, None], group, ranges)
    return Scored(
        dataclasses.replace(
            o,
            age_ranges=ranges,
            true_genders=labels("gender"),
            true_ethnicities=labels("ethnicity"),
        ),
        scored.calibration,
    )


def stated(
    scored: Scored,
) -> dict[str, tuple[BoolArray, Float64Array, BoolArray]]:
    """Output to the rows judged, the largest probability of each row, and whether it is right."""
    found = scored.outcomes.found
    decades = ages_to_decades(scored.ages)
    groups = ages_to_fairface_groups(scored.ages)
    out = {
        "age_decade": (
            found & scored.exact,
            decades.max(-1).astype(np.float64),
            decades.argmax(-1) == (scored.true_age - 1) // 10,
        ),
        "age_group": (
            found & scored.known("age_group"),
            groups.max(-1).astype(np.float64),
            scored.right("age_group"),
        ),
    }
    for name, p in scored.probabilities.items():
        rows = found & scored.known(name)
        out[name] = rows, p.max(-1).astype(np.float64), scored.right(name)
    return {name: row for name, row in out.items() if row[0].any()}


def _judged(top: Float64Array, right: BoolArray) -> dict[str, Any]:
    return {
        "ece": expected_calibration_error(top, right),
        "points": reliability(top, right),
    }
