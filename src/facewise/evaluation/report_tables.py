"""Table rows from a results file, shared by the report and the model card.

A results file is written by ``facewise.evaluation.results.write_results`` and holds plain numbers,
None for missing ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from facewise.evaluation.coverage import MIN_COVERAGE_GROUP
from facewise.evaluation.groups import MIN_GROUP
from facewise.labels import ATTRIBUTES
from facewise.reporting.figures import NONE, RATIO, cell, number
from facewise.reporting.report import escaped

METRICS: Final[dict[str, str]] = {
    "age_mae_years": "age MAE, years",
    "age_median_error_years": "age median error, years",
    "age_bias_years": "age bias, years",
    "age_cs3": "age within 3 years",
    "age_cs5": "age within 5 years",
    "age_cs10": "age within 10 years",
    "age_groups_exact": "nine age groups, exact",
    "age_groups_within_one": "nine age groups, within one",
    "gender_accuracy": "gender accuracy",
    "gender_balanced_accuracy": "gender balanced accuracy",
    "gender_macro_f1": "gender macro F1",
    "ethnicity_accuracy": "ethnicity accuracy",
    "ethnicity_balanced_accuracy": "ethnicity balanced accuracy",
    "ethnicity_macro_f1": "ethnicity macro F1",
    "interval_coverage_90": "90 % age interval, coverage",
    "gender_set_coverage_90": "90 % gender set, coverage",
    "ethnicity_set_coverage_90": "90 % ethnicity set, coverage",
    "age_abstained": "abstained from age",
    "gender_abstained": "abstained from gender",
    "ethnicity_abstained": "abstained from ethnicity",
}
"""Metrics of a results file to their names in words, in the order of columns."""

SETS: Final = {
    "intervals": "age interval",
    "intervals_touching_age_groups": "age interval touches the age group",
    "gender_sets": "gender set",
    "ethnicity_sets": "ethnicity set",
}
OUTPUTS: Final = {"age_decade": "age decade", "age_group": "nine age groups"}

Row = list[object]


def name_of(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def overall(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """One row per metric, one column per data set."""
    sets = list(results["overall"])
    rows: list[Row] = [["faces", *(results["overall"][s]["n"] for s in sets)]]
    rows.append(["faces not found", *(results["overall"][s]["not_found"] for s in sets)])
    for metric in METRICS:
        cells = [results["overall"][s].get(metric) for s in sets]
        if any(cells):
            rows.append([name_of(metric), *(cell(metric, f) for f in cells)])
    return ["", *sets], rows


def worst(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Row]]:
    """The worst group of each metric, with the gap to the best."""
    header = ["data", "metric", "groups by", "worst", "", "n", "best", "", "gap"]
    out: list[Row] = []
    for row in rows:
        metric, bad, good = row["metric"], row["worst_figure"], row["best_figure"]
        out.append(
            [
                row["dataset"],
                name_of(metric),
                escaped(row["grouping"]),
                f"**{escaped(row['worst'])}**",
                cell(metric, bad),
                bad["n"],
                escaped(row["best"]),
                cell(metric, good),
                number(metric, row["gap"]),
            ]
        )
    return header, out


def group_table(table: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[Row]]:
    """One row per group, one column per metric; n is the largest over its metrics."""
    metrics = [m for m in METRICS if any(m in row for row in table.values())]
    rows: list[Row] = [
        [
            escaped(group),
            max((f["n"] for f in row.values()), default=0),
            *(cell(metric, row.get(metric)) for metric in metrics),
        ]
        for group, row in sorted(table.items(), key=lambda item: _natural(item[0]))
    ]
    return ["group", "n", *map(name_of, metrics)], rows


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 4-12 before 13-19."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def by_column(results: Mapping[str, Any]) -> list[str]:
    """How many groups each of the user's columns has figures for, one line of plain text each."""
    lines = []
    for dataset, columns in results["by"].items():
        for name, row in columns.items():
            told = len(results["groups"][dataset].get(name, {}))
            lines.append(
                f"{dataset}, by {name}: of {row['values']} groups, {told or 'none'} with "
                f"{MIN_GROUP} labelled faces or more{'' if told else ', so there are no figures'}; "
                f"without a value, {row['unknown']} of {results['data']['faces'][dataset]} faces"
            )
    return lines


def coverage(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """One row per level and output: coverage and size, beside plain conformal prediction's."""
    out: list[Row] = []
    for level, row in results["coverage"].items():
        plain = row.get("baseline") or {}
        for key, label in SETS.items():
            if key not in row:
                continue
            figure, other = row[key], plain.get(key)
            out.append(
                [
                    f"{float(level):.0%}",
                    label,
                    cell(key, figure),
                    size(figure),
                    f"{figure.get('empty', 0)}" if "mean_size" in figure else NONE,
                    cell(key, other),
                    size(other) if other else NONE,
                    f"{other.get('empty', 0)}" if other and "mean_size" in other else NONE,
                    figure["n"],
                ]
            )
    header = ["level", "output", "coverage", "mean size", "empty sets"]
    return [*header, "plain: coverage", "plain: mean size", "plain: empty sets", "n"], out


def size(figure: Mapping[str, Any]) -> str:
    """Mean width of intervals, or mean number of labels in sets."""
    if figure.get("mean_width_years") is not None:
        return f"{figure['mean_width_years']:.1f} years"
    if figure.get("mean_size") is not None:
        return f"{figure['mean_size']:.2f}"
    return NONE


def missed(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Judged groups whose 95 % interval of coverage lies below the level."""
    out: list[Row] = []
    for level, row in results["coverage"].items():
        for label, groups in _judged(row).items():
            names = [
                f"{escaped(group_name(g))} ({cell('', f)}, n {f['n']})"
                for g, f in below(groups).items()
            ]
            count = f"{len(names)} of {len(groups)}"
            out.append([f"{float(level):.0%}", label, count, "; ".join(names) or "none"])
    return ["level", "output", "undercovered groups", "which"], out


def missed_in_short(results: Mapping[str, Any]) -> list[str]:
    """How many groups are undercovered, and the worst, one line each for ages and each label."""
    found: dict[str, list[str]] = {}
    judged: dict[str, int] = {}
    for level, row in results["coverage"].items():
        for label, groups in _judged(row).items():
            under = below(groups)
            said = f"{len(under) or 'none'} at {float(level):.0%}"
            if under:
                least, figure = min(under.items(), key=lambda item: item[1]["value"])
                said += f" (worst: {escaped(group_name(least))}, {number('', figure['value'])})"
            found.setdefault(label, []).append(said)
            judged[label] = len(groups)
    return [
        f"{label}: of {judged[label]} groups of {MIN_COVERAGE_GROUP} faces or more, the number "
        "with a 95 % interval of coverage below the level: " + "; ".join(levels)
        for label, levels in found.items()
    ]


def _judged(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Judged groups of one level, by output."""
    parts = {
        "age interval": row.get("interval_groups", {}),
        "gender set": row.get("gender_sets", {}).get("groups", {}),
        "ethnicity set": row.get("ethnicity_sets", {}).get("groups", {}),
    }
    return {label: groups for label, groups in parts.items() if groups}


def group_name(group: str) -> str:
    """A group of the coverage tables as it is shown: intervals without bands have one for all."""
    return "everyone" if group == "predicted age: 1-120" else group


def below(groups: Mapping[str, Any]) -> dict[str, Any]:
    """The judged groups whose 95 % interval of coverage lies below the level."""
    return {group: figure for group, figure in groups.items() if not figure["reaches"]}


def calibration(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Expected calibration error of each output: before and after temperature, and by chance."""
    kinds = stages(results)
    rows: list[Row] = [
        [
            OUTPUTS.get(name, name),
            *(f"{r[kind]['ece']:.4f}" for kind in kinds),
            f"{r['by_chance']:.4f}",
            r["n"],
        ]
        for name, r in results["calibration_error"].items()
    ]
    return ["output", *kinds.values(), "by chance", "n"], rows


def stages(results: Mapping[str, Any]) -> dict[str, str]:
    """Keys of a calibration error to the words for them: for a model without temperatures, before
    and after are the same.
    """
    if results["calibration"].get("temperatures"):
        return {"before": "before", "after": "after"}
    return {"after": "not calibrated"}


def calibration_by_group(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Expected calibration error of each reported group, the worst first."""
    rows: list[tuple[float, Row]] = []
    kinds = stages(results)
    for name, outputs in results["calibration_error"].items():
        for group, r in outputs["groups"].items():
            line: Row = [OUTPUTS.get(name, name), escaped(group)]
            # None for a group of the output's own label that no drawn labels formed.
            chance = NONE if r["by_chance"] is None else f"{r['by_chance']:.4f}"
            line += [*(f"{r[kind]:.4f}" for kind in kinds), chance, r["n"]]
            rows.append((r["after"], line))
    rows.sort(key=lambda row: -row[0])
    header = ["output", "group", *kinds.values(), "by chance", "n"]
    return header, [row for _, row in rows]


def abstention(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """One row per input and attribute: shares answered, and the error on them."""
    out: list[Row] = []
    for name, row in results["abstention"].items():
        for attribute in ATTRIBUTES:
            held = row[attribute]
            metric = "age_mae_years" if attribute == "age" else "share"
            out.append(
                [
                    name,
                    attribute,
                    number("", row["found"]),
                    number("", held["abstained"]),
                    number("", held["answered"]),
                    number(metric, held["error"]),
                    number(metric, held["error_of_all_found"]),
                    held["judged"] or NONE,
                    cell(RATIO, held["relative"]) if held["relative"] else NONE,
                    _by_dataset(held),
                    _verdict(held) if name != "clean" else NONE,
                    row["n"],
                ]
            )
    return [
        "input",
        "attribute",
        "found",
        "abstained from, of those found",
        "answered, of all",
        "error on answered",
        "error on all found",
        "answers scored",
        "ratio to clean error",
        "ratio by data set",
        "ratio at most 2",
        "n",
    ], out


def _by_dataset(held: Mapping[str, Any]) -> str:
    said = [
        f"{name} {number(RATIO, row['relative']['value'])}"
        for name, row in held["by_dataset"].items()
        if row["relative"]
    ]
    return ", ".join(said) or NONE


def _verdict(held: Mapping[str, Any]) -> str:
    if held["within"] is None:
        return "too few" if held["judged"] else NONE
    return "yes" if held["within"] else "**no**"


def nist_mae(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """MAE for ages 18 to 30, by ethnicity and gender."""
    rows: list[Row] = [
        [group, cell("age_mae_years", f), f["n"]]
        for group, f in results["nist"].get("mae_18_to_30", {}).items()
    ]
    return ["labelled 18 to 30", "age MAE, years", "n"], rows


def challenge_25(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """How often ages 14 to 17 are called 25 or more."""
    rows: list[Row] = [
        [group, cell("", f), f["n"]] for group, f in results["nist"].get("challenge_25", {}).items()
    ]
    return ["labelled 14 to 17", "called 25 or more", "n"], rows


def suspects(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Row]]:
    """Labels that surprise the model, the most surprising first."""
    out: list[Row] = [
        [f"`{r['file']}`", r["attribute"], r["label"], r["answer"], r["p_label"], r["p_answer"]]
        for r in rows
    ]
    return ["file", "attribute", "label", "answer", "p of label", "p of answer"], out


def age_noise(dedupe: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Lower limit of the age error implied by labels of one photo, overall and by age."""
    noise = dedupe["label_noise"]["age"]
    out: list[Row] = []
    for name, row in {"all": noise, **noise.get("by_age", {})}.items():
        low, high = row["mae_floor_bounds_years"]
        out.append(
            [
                name,
                row["n_pairs"],
                cell("", row["share_that_disagrees"]),
                cell("_years", row["mean_difference_years"]),
                cell("_years", row["mae_floor_normal_years"]),
                f"{low:.2f} to {high:.2f}",
            ]
        )
    header = ["age", "pairs", "labels disagree", "mean difference, years"]
    return [*header, "MAE floor, years", "bounds of the floor"], out
