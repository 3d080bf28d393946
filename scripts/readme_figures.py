"""Write the test figures of the shipped models and the peers into the README, from their files.

python scripts/readme_figures.py    # make evaluate, train-small, fairface-only and peers call it
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peers_tables
from marks import between
from peers_tables import shipped

from facewise.evaluation.groups import MIN_GROUP, badness
from facewise.reporting.figures import number

ROOT = Path(__file__).parent.parent
MARKS = ("<!-- figures: written by scripts/readme_figures.py -->", "<!-- /figures -->")
PEER_MARKS = ("<!-- peers: written by scripts/readme_figures.py -->", "<!-- /peers -->")
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
    """The group, or intersection of groups, for which a metric is worst."""
    rows = [row for row in results["worst_groups"][data] if row["metric"] == metric]
    if not rows:
        return ""
    row = max(rows, key=lambda row: badness(metric, row["worst_figure"]["value"]))
    figure = row["worst_figure"]
    return f"{row['worst']} ({figure['n']} faces): {number(metric, figure['value'])}"


def table(models: list[dict[str, Any]]) -> str:
    """One row per figure, one column per model, and for whom the first model is worst."""
    first = models[0]
    names = [f"{m['model']['name']}@{m['model']['version']}" for m in models]
    worst_of = f"{first['model']['name']}'s worst group of {MIN_GROUP} or more"
    lines = [
        "| test faces | " + " | ".join(names) + f" | {worst_of} |",
        "|---" * (len(models) + 2) + "|",
    ]
    for data, metrics in ROWS.items():
        for metric, words in metrics.items():
            cells = [number(metric, m["overall"][data][metric]["value"]) for m in models]
            cells.append(worst(first, data, metric))
            lines.append(f"| {NAMES[data]}: {words} | " + " | ".join(cells) + " |")
        if data == "utkface":
            held = [m["coverage"][LEVEL]["intervals"] for m in models]
            fitted = [
                "" if m["calibration"].get("age_intervals") else ", not fitted" for m in models
            ]
            cells = [
                f"{h['value']:.1%}, {h['mean_width_years']:.1f} years wide{how}"
                for h, how in zip(held, fitted, strict=True)
            ]
            cells.append(worst(first, data, "interval_coverage_90"))
            lines.append("| UTKFace: age lies in the 90 % interval | " + " | ".join(cells) + " |")
        missed = [
            f"{m['overall'][data]['not_found']} of {m['overall'][data]['n']:,}" for m in models
        ]
        lines.append(f"| {NAMES[data]}: faces not found | " + " | ".join(missed) + " | |")
    sizes = [f"{m['model']['size_bytes'] / 1e6:.1f} MB, {m['model']['size_px']} px" for m in models]
    return "\n".join([*lines, "| weights, input | " + " | ".join(sizes) + " | |"])


def main() -> None:
    readme, models = ROOT / "README.md", shipped()
    peers = peers_tables.short(peers_tables.stored(), models)
    text = between(readme.read_text(encoding="utf-8"), MARKS, f"\n{table(models)}\n")
    text = between(text, PEER_MARKS, f"\n{peers}\n")
    readme.write_text(text, encoding="utf-8")
    peers_tables.write_page()


if __name__ == "__main__":
    main()
