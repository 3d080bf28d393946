"""Table rows from a results file, shared by the report and the model card.

A results file is written by ``facewise.evaluation.results.write_results`` and holds plain numbers,
None for missing ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from facewise.evaluation.coverage import MIN_COVERAGE_GROUP, below
from facewise.evaluation.gate_figures import MIN_ANSWERED
from facewise.evaluation.gates import RISK_LIMIT
from facewise.evaluation.groups import MIN_GROUP
from facewise.labels import ATTRIBUTES
from facewise.reporting.figures import NONE, RATIO, SHARE, YEARS, cell, number
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
NO_RATIO: Final = "no clean error"
"""The verdict on degraded faces where no clean answer is wrong, however wrong they are."""

OUTPUTS: Final = {"age_decade": "age decade", "age_group": "nine age groups"}

Row = list[object]


def name_of(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def part_name(split: str, words: str = "{}") -> str:
    """The scored split in words, or that it was every picture.

    Args:
        split: as in the results.
        words: around a split's name.
    """
    return "all pictures" if split == "all" else words.format(split)


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
        for group, row in sorted(table.items(), key=lambda item: natural(item[0]))
    ]
    return ["group", "n", *map(name_of, metrics)], rows


def natural(name: str) -> list[tuple[int, str]]:
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
                    cell(SHARE, figure),
                    size(figure),
                    f"{figure.get('empty', 0)}" if "mean_size" in figure else NONE,
                    cell(SHARE, other),
                    size(other) if other else NONE,
                    f"{other.get('empty', 0)}" if other and "mean_size" in other else NONE,
                    figure["n"],
                ]
            )
    header = ["level", "output", "coverage", "mean size", "empty sets"]
    return [*header, "plain: coverage", "plain: mean size", "plain: empty sets", "n"], out


def coverage_in_short(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """One row per output: its coverage and mean size at each level."""
    levels = results["coverage"]
    out: list[Row] = []
    for key, label in SETS.items():
        cells = [row.get(key) for row in levels.values()]
        if any(cells):
            out.append([label, *(f"{cell(SHARE, f)}, {size(f)}" if f else NONE for f in cells)])
    return ["coverage, mean size", *(f"at {float(level):.0%}" for level in levels)], out


def size(figure: Mapping[str, Any]) -> str:
    """Mean width of intervals, or mean number of labels in sets."""
    if figure.get("mean_width_years") is not None:
        return f"{figure['mean_width_years']:.1f} years"
    if figure.get("mean_size") is not None:
        return f"{figure['mean_size']:.2f}"
    return NONE


def missed(results: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Judged groups whose 95 % interval of coverage lies below the level, and how many of the same
    groups plain conformal prediction fails.
    """
    out: list[Row] = []
    for level, row in results["coverage"].items():
        plain = row.get("baseline", {})
        for label, groups in _judged(row).items():
            names = [
                f"{escaped(group_name(g))} ({cell(SHARE, f)}, n {f['n']})"
                for g, f in below(groups).items()
            ]
            count = f"{len(names)} of {len(groups)}"
            other = NONE
            if label == SETS["intervals"] and "groups_judged" in plain:
                other = f"{len(plain['groups_missed'])} of {plain['groups_judged']}"
            out.append([f"{float(level):.0%}", label, count, other, "; ".join(names) or "none"])
    return ["level", "output", "undercovered groups", "plain: undercovered", "which"], out


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
                said += f" (worst: {escaped(group_name(least))}, {number(SHARE, figure['value'])})"
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
            held, unit = row[attribute], _unit(attribute)
            out.append(
                [
                    name,
                    attribute,
                    number(SHARE, row["found"]),
                    number(SHARE, held["abstained"]),
                    number(SHARE, held["answered"]),
                    number(unit, held["error"]),
                    number(unit, held["error_of_all_found"]),
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


def _unit(attribute: str) -> str:
    return YEARS if attribute == "age" else SHARE


def _by_dataset(held: Mapping[str, Any]) -> str:
    said = [
        f"{name} {number(RATIO, row['relative']['value'])}"
        for name, row in held["by_dataset"].items()
        if row["relative"]
    ]
    return ", ".join(said) or NONE


def _verdict(held: Mapping[str, Any]) -> str:
    """Say "yes" only if the whole interval is within the limit."""
    if not held["relative"]:
        if held["judged"] >= MIN_ANSWERED:
            return NO_RATIO
        return "too few" if held["judged"] else NONE
    if not held["within"]:
        return "**no**"
    high = held["relative"]["high"]
    return "yes" if high is not None and high <= RISK_LIMIT else "not shown"


def ratios_in_short(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Degraded inputs whose error is not shown to stay within the limit, by what is known of them;
    empty if no face was degraded. One data set's ratio is named if it is over the limit, or if it
    has none, since no clean answer of it is wrong.
    """
    found: dict[str, list[str]] = {"**no**": [], "not shown": [], "too few": [], NO_RATIO: []}
    degraded = {name: row for name, row in results["abstention"].items() if name != "clean"}
    for name, row in degraded.items():
        for attribute in ATTRIBUTES:
            held, said = row[attribute], f"{name} {attribute}"
            if (verdict := _verdict(held)) in found:
                found[verdict].append(f"{said} {_why(held, attribute)}")
            for dataset, part in held["by_dataset"].items():
                if (verdict := _verdict(part)) in ("**no**", NO_RATIO):
                    found[verdict].append(f"{said} in {dataset} {_why(part, attribute)}")
    words = (
        f"answers that remain err more than {RISK_LIMIT:g} times as much as on clean faces",
        f"the interval of that ratio reaches beyond {RISK_LIMIT:g}",
        f"no verdict, for fewer than {MIN_ANSWERED} answers",
        "no ratio, for no clean answer is wrong; the error itself",
    )
    lines = dict(zip(words, found.values(), strict=True)) if degraded else {}
    if not found[NO_RATIO]:  # as nearly always
        lines.pop(words[-1], None)
    return lines


def _why(held: Mapping[str, Any], attribute: str) -> str:
    """What the verdict on a cell is from: its ratio, its few answers, or its error."""
    if held["relative"]:
        return cell(RATIO, held["relative"])
    if held["judged"] < MIN_ANSWERED:
        return f"n {held['judged']}"
    return number(_unit(attribute), held["error"])


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
        [group, cell(SHARE, f), f["n"]]
        for group, f in results["nist"].get("challenge_25", {}).items()
    ]
    return ["labelled 14 to 17", "called 25 or more", "n"], rows


def suspects(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[Row]]:
    """Labels that surprise the model, the most surprising first."""
    out: list[Row] = [
        [f"`{r['file']}`", r["attribute"], r["label"], r["answer"], r["p_label"], r["p_answer"]]
        for r in rows
    ]
    return ["file", "attribute", "label", "answer", "p of label", "p of answer"], out


def utkface_ages(results: Mapping[str, Any], band: str) -> list[Mapping[str, Any]]:
    """Age errors of the reported groups of UTKFace that make up a band such as "1-12"; none if
    they do not fill it.
    """
    first, last = map(int, band.split("-"))
    found = {
        tuple(map(int, name.split("-"))): row["age_mae_years"]
        for name, row in results["groups"].get("utkface", {}).get("age", {}).items()
        if re.fullmatch(r"\d+-\d+", name) and "age_mae_years" in row
    }
    inside = sorted(years for years in found if first <= years[0] and years[1] <= last)
    years = [year for start, end in inside for year in range(start, end + 1)]
    return [found[i] for i in inside] if years == [*range(first, last + 1)] else []


def mae_at(results: Mapping[str, Any], band: str) -> float | None:
    """The model's mean age error in a band of UTKFace's ages, years; None if not reported."""
    cells = utkface_ages(results, band)
    total = sum(f["n"] for f in cells)
    return sum(f["value"] * f["n"] for f in cells) / total if total else None


def age_noise(results: Mapping[str, Any], dedupe: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
    """Label error implied by two labels of one photo, and the model's error, overall and by age."""
    noise = dedupe["label_noise"]["age"]
    out: list[Row] = []
    for name, row in {"all": noise, **noise.get("by_age", {})}.items():
        low, high = row["mae_floor_bounds_years"]
        whole = results["overall"]["utkface"].get("age_mae_years")
        own = whole and whole["value"] if name == "all" else mae_at(results, name)
        out.append(
            [
                name,
                row["n_pairs"],
                cell(SHARE, row["share_that_disagrees"]),
                cell(YEARS, row["mean_difference_years"]),
                cell(YEARS, row["mae_floor_normal_years"]),
                cell(YEARS, row["mae_floor_laplace_years"]),
                f"{low:.2f} to {high:.2f}",
                number(YEARS, own),
            ]
        )
    header = ["age", "pairs", "labels disagree", "mean difference, years"]
    header += ["label error if normal, years", "if Laplace", "bounds"]
    return [*header, "this model's MAE, years"], out
