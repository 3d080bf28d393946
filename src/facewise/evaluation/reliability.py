"""Whether a stated 80 % is right 80 % of the time: before and after temperature, and for whom."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.calibration import Calibration
from facewise.evaluation.groups import group_columns, large_groups
from facewise.evaluation.scoring import Scored
from facewise.labels import FAIRFACE_AGE_GROUPS, ages_to_decades, ages_to_fairface_groups

ECE_BINS: Final = 15

MIN_ECE_GROUP: Final = 150
"""Smallest group whose calibration error is told: chance alone makes it large in small ones."""

GROUP_BINS: Final = 5
"""Bins of a group's diagram: of 15, most would hold a handful of faces."""

GROUPINGS: Final = ("ethnicity", "gender", "age")

OWN: Final = {
    "age_decade": "age", "age_group": "age", "gender": "gender", "ethnicity": "ethnicity"
}  # fmt: skip
"""Output to the grouping that is cut by its own label."""

LABEL_ROUNDS: Final = 20
"""How often labels are drawn for the groups that they cut: whole data sets, so not very often."""

Point = tuple[float, float, int]
"""Mean stated probability, share right, and how many."""


def reliability(
    top_probability: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = ECE_BINS
) -> list[Point]:
    """Mean stated probability, share right and count of each equal-width bin that has any."""
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
    top_probability: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = ECE_BINS
) -> float:
    """Mean gap between stated probability and share right, bins weighted by size (Guo, 2017)."""
    points = reliability(top_probability, right, bins)
    return sum(n * abs(stated - share) for stated, share, n in points) / len(right)


def chance_error(top_probability: NDArray[np.floating[Any]], rounds: int = 200) -> float:
    """The mean error that answers would show which are right exactly as often as they state.

    By drawing, ``rounds`` times, whether each is right: an error near this one is none that could
    be told from chance, and none that another calibration could take away.
    """
    index = np.minimum((top_probability * ECE_BINS).astype(int), ECE_BINS - 1)
    drawn = np.random.default_rng(0).random((rounds, len(index))) < top_probability
    gaps = (top_probability - drawn) @ np.eye(ECE_BINS)[index]  # (rounds, bins), times their sizes
    return float(np.abs(gaps).sum(axis=1).mean() / len(index))


def calibration_errors(scored: Scored) -> dict[str, Any]:
    """Expected calibration error and reliability of each output, before and after temperature.

    Of the faces that were found. Ages are judged by their decade where the age is exact, and by
    FairFace's groups wherever a group is known.

    Returns:
        Output to "n", "before" and "after" with "ece" and "points", "by_chance" with the error that
        probabilities as they are after would show if they were exact, and "groups" with the three
        errors of each group of ``MIN_ECE_GROUP`` faces or more and its reliability after, "points",
        in 5 bins. Of groups cut by the output's own label, "by_chance" is that of
        ``own_label_errors``.
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
    """Errors that exact probabilities would show in groups that are cut by the output's own label.

    Of faces of one label, answers are not right as often as they state, however exact they are: of
    men, every "woman" is wrong, whatever its probability. So labels are drawn from the
    probabilities, and faces grouped by the labels drawn; the mean error over some draws. The groups
    are as large as the probabilities have it, which need not be as large as they are.

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
    """The same faces, labelled by their own probabilities; what has no label gets none.

    An age that is known as a group is drawn as one of FairFace's.
    """
    o, found = scored.outcomes, scored.outcomes.found

    def draw(p: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
        reached = np.cumsum(p, axis=1, dtype=np.float64)
        drawn: NDArray[np.intp] = (reached < rng.random((len(p), 1)) * reached[:, -1:]).sum(1)
        return drawn

    def labels(name: str) -> NDArray[np.int64]:
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
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]]:
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


def _judged(top: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "ece": expected_calibration_error(top, right),
        "points": reliability(top, right),
    }
