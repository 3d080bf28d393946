"""Put the test figures of the models that ship into the README, from their results files.

python scripts/readme_figures.py    # `make evaluate` and `make train-small` call it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facewise.models import list_models

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
MARKS = ("<!-- figures: written by scripts/readme_figures.py -->", "<!-- /figures -->")
LEVEL = "0.9"

ROWS = {
    "utkface": {
        "age_mae_years": "age, mean absolute error, years",
        "age_cs5": "age within 5 years",
        "gender_accuracy": "gender",
        "ethnicity_accuracy": "ethnicity, five",
    },
    "fairface": {
        "age_groups_exact": "age group, nine",
        "age_groups_within_one": "age group, within one",
        "gender_accuracy": "gender",
        "ethnicity_accuracy": "ethnicity, five",
    },
}
NAMES = {"utkface": "UTKFace", "fairface": "FairFace"}


def worst(results: dict[str, Any], data: str, metric: str) -> str:
    """The group that a metric is worst for, as the head of the report has it."""
    for row in results["head"]["worst_groups"]:
        if (row["dataset"], row["metric"]) == (data, metric):
            return f"{row['worst']}: {number(metric, row['worst_figure']['value'])}"
    return ""


def number(metric: str, value: float) -> str:
    return f"{value:.2f}" if metric.endswith("years") else f"{value:.1%}"


def table(models: list[dict[str, Any]]) -> str:
    """A row a figure, a column a model, and for whom the first one is worst."""
    first = models[0]
    names = [f"{m['model']['name']}@{m['model']['version']}" for m in models]
    lines = [
        "| test faces | " + " | ".join(names) + f" | {first['model']['name']}'s worst group |",
        "|---" * (len(models) + 2) + "|",
    ]
    for data, metrics in ROWS.items():
        for metric, words in metrics.items():
            cells = [number(metric, m["overall"][data][metric]["value"]) for m in models]
            cells.append(worst(first, data, metric))
            lines.append(f"| {NAMES[data]}: {words} | " + " | ".join(cells) + " |")
        if data == "utkface":
            held = [m["coverage"][LEVEL]["intervals"] for m in models]
            cells = [f"{h['value']:.1%}, {h['mean_width_years']:.1f} years wide" for h in held]
            lines.append("| UTKFace: age lies in the 90 % interval | " + " | ".join(cells) + " | |")
        missed = [
            f"{m['overall'][data]['not_found']} of {m['overall'][data]['n']:,}" for m in models
        ]
        lines.append(f"| {NAMES[data]}: faces not found | " + " | ".join(missed) + " | |")
    sizes = [f"{m['model']['size_bytes'] / 1e6:.1f} MB, {m['model']['size_px']} px" for m in models]
    return "\n".join([*lines, "| weights, input | " + " | ".join(sizes) + " | |"])


def shipped() -> list[dict[str, Any]]:
    """Results of every model in the package, the default's first."""
    paths = [RESULTS / f"{spec.name}.json" for spec in list_models()]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def main() -> None:
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    _, after = rest.split(MARKS[1])
    text = f"{before}{MARKS[0]}\n\n{table(shipped())}\n\n{MARKS[1]}{after}"
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
