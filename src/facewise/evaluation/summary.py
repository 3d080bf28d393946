"""A results file in a few lines, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from facewise.evaluation.report_tables import by_column, group_name, part_name, stages
from facewise.reporting.figures import cell, number
from facewise.text import by_reason


def summary(results: Mapping[str, Any]) -> str:
    """A short summary of the head for the terminal."""
    top, model = results["head"], results["model"]
    border = f", in a border of {results['border'] * 100:g} %" if "border" in results else ""
    lines = [f"{model['name']}@{model['version']} on {part_name(results['split'])}{border}"]
    for dataset, row in top["overall"].items():
        lines.append(f"{dataset}, {results['data']['faces'][dataset]} faces:")
        lines += [
            f"  {metric}: {cell(metric, figure, counted=True)}"
            for metric, figure in row.items()
            if isinstance(figure, Mapping)
        ]
        lines.append(f"  faces not found: {row['not_found']}")
    if skipped := results["data"]["skipped"]:
        lines.append(f"skipped: {len(skipped)}")
        lines += [f"  {line}" for line in by_reason(skipped)]
    if top["worst_groups"]:  # with few faces, no group is large enough
        lines.append("worst groups:")
    own = {name for columns in results["by"].values() for name in columns}
    lines += [
        f"  {row['dataset']} {row['metric']}: "
        f"{row['grouping'] + ' ' if row['grouping'] in own else ''}{row['worst']} "
        f"{cell(row['metric'], row['worst_figure'], counted=True)}, "
        f"{number(row['metric'], row['gap'])} from {row['best']}"
        for row in top["worst_groups"]
    ]
    lines += by_column(results)
    for level, outputs in top["coverage"].items():
        for name, covered in outputs.items():
            size = covered.get("mean_width_years", covered.get("mean_size", math.nan))
            lines.append(
                f"coverage at {level}, {name.replace('_', ' ')}: {covered['coverage']:.1%}"
                f" of {covered['n']}"
                # Only of faces found.
                + (f", mean width or size {size:.2f}" if math.isfinite(size) else "")
            )
            missed = (
                top["groups_missed"][level]
                if name == "intervals"
                else top["label_groups_missed"][level][name.removesuffix("_sets")]
            )
            if missed["of"]:
                names = "; ".join(map(group_name, missed["missed"])) or "none"
                count = f"{len(missed['missed'])} of {missed['of']}"
                lines.append(f"  groups whose 95 % interval lies below it: {count}: {names}")
    lines += [
        f"calibration error of {name}: "
        + "".join(f"{row[kind]:.4f} {said}, " for kind, said in stages(results).items())
        + f"{row['by_chance']:.4f} by chance"
        for name, row in top["calibration_error"].items()
    ]
    shares = ", ".join(
        f"{name} {share:.1%}" for name, share in top["abstained_clean"].items() if share is not None
    )
    if shares:
        lines.append(f"abstained from, of the faces found: {shares}")
    return "\n".join(lines)
