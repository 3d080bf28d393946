"""Outcomes to one results file and its Markdown, and the numbers that go into a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from facewise.calibration import Calibration
from facewise.evaluation.fit import LEVELS
from facewise.evaluation.metrics import (
    Scored,
    coverage_table,
    expected_calibration_error,
    nist_tables,
    overall,
    per_group,
    worst_groups,
)
from facewise.evaluation.outcomes import QUALITY_FIELDS, Outcomes
from facewise.models import ModelSpec
from facewise.types import Quality


def write_calibration(spec_path: Path, fitted: dict[str, Any]) -> None:
    """Replace the ``calibration`` part of a spec."""
    raw = json.loads(spec_path.read_text(encoding="utf-8"))
    raw["calibration"] = fitted
    text = json.dumps(raw, indent=1, ensure_ascii=False)
    spec_path.write_text(text + "\n", encoding="utf-8")


def abstention_shares(scored: Scored) -> dict[str, float]:
    """Share of found faces that each attribute is abstained from."""
    o = scored.outcomes
    intervals = scored.calibration.age_intervals(scored.ages, 0.9)
    counts = dict.fromkeys(("age", "gender", "ethnicity"), 0)
    rows = np.flatnonzero(o.found)
    for row in rows:
        values = dict(zip(QUALITY_FIELDS, (float(v) for v in o.quality[row]), strict=True))
        detection_score = values.pop("detection_score")
        reasons = scored.calibration.abstentions(
            Quality(**values),
            detection_score,
            (int(intervals[row, 0]), int(intervals[row, 1])),
            {
                "gender": float(scored.genders[row].max()),
                "ethnicity": float(scored.ethnicities[row].max()),
            },
        )
        for name in reasons:
            counts[name] += 1
    return {name: count / max(1, len(rows)) for name, count in counts.items()}


def calibration_errors(outcomes: Outcomes, calibration: Calibration) -> dict[str, Any]:
    """Expected calibration error of gender and ethnicity, before and after temperature."""
    out: dict[str, Any] = {}
    for name, p, truth in (
        ("gender", outcomes.genders, outcomes.true_genders),
        ("ethnicity", outcomes.ethnicities, outcomes.true_ethnicities),
    ):
        use = outcomes.found & (truth >= 0)
        right = p[use].argmax(-1) == truth[use]
        out[name] = {
            "before": expected_calibration_error(p[use].max(-1), right),
            "after": expected_calibration_error(calibration.temper(p[use], name).max(-1), right),
        }
    return out


def score_model(spec: ModelSpec, outcomes: Outcomes, split: str) -> dict[str, Any]:
    """Everything the report says about a model on a split."""
    calibration = Calibration.from_dict(spec.calibration)
    scored = Scored(outcomes, calibration)
    groups: dict[str, Any] = {}
    for dataset in np.unique(outcomes.datasets):
        groups[str(dataset)] = per_group(
            Scored(outcomes.take(outcomes.datasets == dataset), calibration)
        )
    return {
        "model": spec.info.to_dict(),
        "split": split,
        "overall": overall(scored),
        "worst_groups": {name: worst_groups(table) for name, table in groups.items()},
        "coverage": coverage_table(scored, LEVELS),
        "calibration_error": calibration_errors(outcomes, calibration),
        "abstained": abstention_shares(scored),
        "nist": nist_tables(scored),
        "groups": groups,
    }


_SHARES = ("accuracy", "cs", "exact", "within")


def _cell(name: str, figure: Any) -> str:
    if not isinstance(figure, dict):
        return f"{figure:.4g}"
    if any(part in name for part in _SHARES):
        return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def markdown(results: dict[str, Any]) -> str:
    """The results as a page: figures, worst groups, coverage, groups."""
    model = results["model"]
    lines = [
        f"# {model['name']}@{model['version']} on the {results['split']} split",
        "",
        f"Weights {model['sha256'][:12]}. Through detection and alignment; a face that is not "
        "found is wrong everywhere and counts as age 33. In brackets: 95 % bootstrap intervals, "
        "duplicate groups drawn whole.",
    ]
    for dataset, figures in results["overall"].items():
        lines += ["", f"## {dataset}", "", "| figure | value |", "|---|---|"]
        lines += [
            f"| {name.replace('_', ' ')} | {_cell(name, figure)} |"
            for name, figure in figures.items()
            if not name.endswith("confusion")
        ]
    lines += ["", "## Worst groups", "", "| metric | worst | value | gap to the best |"]
    lines += ["|---|---|---|---|"]
    for dataset, rows in results["worst_groups"].items():
        lines += [
            f"| {dataset}: {name.replace('_', ' ')} | {row['worst']} | {row['worst_value']:.3g} "
            f"| {row['gap']:.3g} |"
            for name, row in rows.items()
        ]
    lines += ["", "## Coverage", "", "| level | what | coverage | width or size | n |"]
    lines += ["|---|---|---|---|---|"]
    for level, row in results["coverage"].items():
        for name in ("intervals", "gender_sets", "ethnicity_sets"):
            share = row[name]
            size = share.get("mean_width_years", share.get("mean_size"))
            lines.append(
                f"| {level} | {name.replace('_', ' ')} | {share['coverage']:.1%} | {size:.2f} "
                f"| {share['n']} |"
            )
        missed = [g for g, share in row["groups"].items() if not share["reaches"]]
        lines.append(
            f"| {level} | groups of 150 or more whose Wilson interval misses the level | "
            f"{len(missed)} of {len(row['groups'])} | {'; '.join(missed) or 'none'} | |"
        )
    errors = results["calibration_error"]
    lines += ["", "## Calibration and abstention", ""]
    lines += [
        f"- expected calibration error of {name}: {e['before']:.4f} before, {e['after']:.4f} after"
        for name, e in errors.items()
    ]
    lines += [f"- abstained from {n}: {share:.1%}" for n, share in results["abstained"].items()]
    challenge = results["nist"]["challenge_25"]
    if challenge:
        lines.append(
            f"- 14 to 17 called 25 or more: {challenge['coverage']:.1%} of {challenge['n']} "
            "(information, not a fitness for age checks)"
        )
    return "\n".join(lines) + "\n"
