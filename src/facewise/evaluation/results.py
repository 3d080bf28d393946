"""Turns outcomes into one results file, and into the figures of a spec.

The file's structure is described in docs/evaluation.md; reports and cards take a model's figures
from this file alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from facewise.calibration import Calibration
from facewise.data.tight_crops import DETECTION_BORDER
from facewise.evaluation.coverage import Baseline, below, coverage_table
from facewise.evaluation.gate_figures import degraded_table, gate_curves
from facewise.evaluation.groups import (
    UNKNOWN,
    badness,
    group_columns,
    nist_tables,
    per_group,
    worst_groups,
)
from facewise.evaluation.metrics import confusions, figures, mae_by_decade
from facewise.evaluation.outcomes import Outcomes
from facewise.evaluation.reliability import calibration_errors
from facewise.evaluation.scoring import Scored
from facewise.files import json_text, replacing
from facewise.labels import CLASSES, FAIRFACE_AGE_GROUPS
from facewise.models import ModelSpec
from facewise.types import TextArray

FORMAT: Final = 2
"""Version of the results file; raised when a reader of the old form would misread it."""

HEAD_METRICS: Final = (
    "age_mae_years",
    "age_cs5",
    "age_groups_exact",
    "gender_accuracy",
    "ethnicity_accuracy",
    "interval_coverage_90",
)
SINGLE_GROUPINGS: Final = ("ethnicity", "gender", "age", "ethnicity x gender")
"""Groupings of which the head shows the one with the widest gap. Groups of finer crossings are
small, so their gaps can be wide by chance; the worst of them has its own row, as has each column
that the user asked for."""


def score_model(
    spec: ModelSpec,
    outcomes: Outcomes,
    split: str,
    *,
    border: float = DETECTION_BORDER,
    degraded: Mapping[str, Outcomes] | None = None,
    baseline: Baseline | None = None,
    curves: Mapping[str, Any] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    excluded: Sequence[str] = (),
    lists: Mapping[str, str] | None = None,
    columns: Mapping[str, TextArray] | None = None,
) -> dict[str, Any]:
    """Compute all results of a model on a split; see docs/evaluation.md.

    Args:
        spec: of the model, calibrated or not.
        outcomes: of the split.
        split: its name.
        border: grey border that the pictures got, as a share of their width.
        degraded: degraded versions of some of the same faces, by name of the degradation.
        baseline: plain conformal prediction to compare with.
        curves: risk against share answered, by split, such as the one gates were chosen on.
        skipped: names of pictures that could not be used, and why.
        excluded: files of the split left out on purpose, such as near-duplicates of training
            pictures.
        lists: names of the user's lists, by option; None for facewise's own data and lists.
        columns: further columns to group by: name to the value of each outcome.
    """
    calibration = Calibration.from_dict(spec.calibration)
    scored = Scored(outcomes, calibration, columns)
    parts = {
        str(name): scored.take(outcomes.datasets == name) for name in np.unique(outcomes.datasets)
    }
    groups = {
        name: {
            grouping: table
            for grouping, names in group_columns(part).items()
            if (table := per_group(part, names))
        }
        for name, part in parts.items()
    }
    bad = {n: Scored(o, calibration) for n, o in (degraded or {}).items()}
    results: dict[str, Any] = {
        "format": FORMAT,
        # Without the figures, which come from results like these.
        "model": {name: value for name, value in spec.to_dict().items() if name != "figures"},
        "calibration": dict(spec.calibration),
        "split": split,
        **({"border": border} if border != DETECTION_BORDER else {}),
        "data": {
            "faces": {name: len(part) for name, part in parts.items()},
            "not_found": {
                name: sorted(part.outcomes.keys[~part.outcomes.found].tolist())
                for name, part in parts.items()
            },
            "skipped": [list(pair) for pair in skipped],
            "excluded": list(excluded),
            **({} if lists is None else {"lists": dict(lists)}),
        },
        "overall": {name: figures(part) for name, part in parts.items()},
        "by": {name: _values(part) for name, part in parts.items()},
        "worst_groups": {name: worst_groups(tables) for name, tables in groups.items()},
        "groups": groups,
        "age_by_decade": {name: mae_by_decade(part) for name, part in parts.items()},
        "confusions": {name: _confusions(part) for name, part in parts.items()},
        "nist": nist_tables(scored) if scored.exact.any() else {},
        "calibration_error": calibration_errors(scored),
        "coverage": coverage_table(scored, baseline),
        "risk_coverage": {split: gate_curves(scored, bad), **(curves or {})},
        "abstention": degraded_table(scored, bad),
    }
    results["head"] = head(results)
    return results


def _values(scored: Scored) -> dict[str, Any]:
    """Number of values of each further column, and of faces without one."""
    return {
        name: {
            "values": len(set(values.tolist()) - {UNKNOWN}),
            "unknown": int((values == UNKNOWN).sum()),
        }
        for name, values in scored.columns.items()
    }


def _confusions(scored: Scored) -> dict[str, Any]:
    """Counts with names: rows are labels, columns are answers, the last one "not found"."""
    labels = {**CLASSES, "age_group": tuple(FAIRFACE_AGE_GROUPS)}
    return {
        name: {"labels": list(labels[name]), "answers": [*labels[name], "not found"], "n": counts}
        for name, counts in confusions(scored).items()
    }


def head(results: Mapping[str, Any]) -> dict[str, Any]:
    """The main results: overall, worst groups and gaps, coverage, calibration, abstention."""
    out: dict[str, Any] = {"overall": {}, "worst_groups": [], "coverage": {}}
    out |= {"groups_missed": {}, "label_groups_missed": {}}
    for dataset, row in results["overall"].items():
        out["overall"][dataset] = {m: row[m] for m in HEAD_METRICS if m in row}
        out["overall"][dataset]["not_found"] = row["not_found"]
        own = results["by"][dataset]
        for metric in HEAD_METRICS:
            rows = [row for row in results["worst_groups"][dataset] if row["metric"] == metric]
            if coarse := [row for row in rows if row["grouping"] in SINGLE_GROUPINGS]:
                widest = max(coarse, key=lambda row: row["gap"])
                out["worst_groups"].append({"dataset": dataset, **widest})
            if fine := [row for row in rows if row["grouping"] not in (*SINGLE_GROUPINGS, *own)]:
                worst = max(fine, key=lambda row: badness(metric, row["worst_figure"]["value"]))
                out["worst_groups"].append({"dataset": dataset, **worst})
            for row in rows:
                if row["grouping"] in own:
                    out["worst_groups"].append({"dataset": dataset, **row})
    for level, row in results["coverage"].items():
        out["coverage"][level] = {
            name: {
                "coverage": row[name]["value"],
                **{k: v for k, v in row[name].items() if k not in ("value", "groups")},
            }
            for name in ("intervals", "gender_sets", "ethnicity_sets")
            if name in row
        }
        out["groups_missed"][level] = _missed(row.get("interval_groups", {}))
        out["label_groups_missed"][level] = {
            name: _missed(row[f"{name}_sets"]["groups"])
            for name in CLASSES
            if f"{name}_sets" in row
        }
    out["calibration_error"] = {
        name: {
            "before": row["before"]["ece"],
            "after": row["after"]["ece"],
            "by_chance": row["by_chance"],
            "n": row["n"],
        }
        for name, row in results["calibration_error"].items()
    }
    clean = results["abstention"]["clean"]
    out["abstained_clean"] = {
        "any": clean["abstained_from_any"],
        **{f"any, {n}": s for n, s in clean["abstained_from_any_by_dataset"].items()},
        **{name: clean[name]["abstained"] for name in ("age", "gender", "ethnicity")},
    }
    return out


def _missed(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Number of groups judged, and those whose 95 % interval lies below the level."""
    return {"of": len(cells), "missed": list(below(cells))}


def spec_figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """The head as a spec holds it: one number per figure, and the reported coverage."""
    top = results["head"]
    out: dict[str, Any] = {"split": results["split"]}
    for dataset, row in top["overall"].items():
        for metric, figure in row.items():
            if isinstance(figure, dict):
                out[f"{dataset}_{metric}"] = figure["value"]
        out[f"{dataset}_faces"] = results["data"]["faces"][dataset]
        out[f"{dataset}_not_found"] = row["not_found"]
    for name, row in top["calibration_error"].items():
        out[f"{name}_calibration_error"] = row["after"]
    out["abstained_from_any"] = top["abstained_clean"]["any"]
    out["coverage"] = top["coverage"]
    return _rounded(out)


def calibrated(spec: ModelSpec, calibration: Mapping[str, Any]) -> ModelSpec:
    """The spec with a new calibration, not yet written to disk.

    Another calibration gives other answers, as does a first one, so it raises the minor version:
    weights 5, calibrated, are 5.1.
    """
    fitted = json.loads(json.dumps(calibration))
    version = spec.version if spec.calibration == fitted else next_minor(spec.version)
    return dataclasses.replace(spec, version=version, calibration=fitted)


def _spec_text(spec: ModelSpec, figures: Mapping[str, Any]) -> str:
    """Text of the spec's file, with the given version, calibration and figures."""
    raw = json.loads(spec.path.read_text(encoding="utf-8"))
    raw["version"], raw["calibration"] = spec.version, spec.calibration
    raw["figures"] = dict(figures)
    return json_text(raw)


def next_minor(version: str) -> str:
    """The next minor version: 5 to 5.1, 5.1 to 5.2."""
    major, _, minor = version.partition(".")
    return f"{major}.{int(minor or 0) + 1}"


def write_results(
    results: Mapping[str, Any], path: Path, *, stated: ModelSpec | None = None
) -> None:
    """Write the results file: numbers to six significant figures, null for missing ones.

    Args:
        results: as returned by ``score_model``.
        path: the file.
        stated: spec to update with its calibration and the figures; both files are written, or
            neither.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files = {path: json_text(_rounded(results))}
    if stated is not None:  # first, because the file opened last is replaced first
        files = {stated.path: _spec_text(stated, spec_figures(results)), **files}
    with contextlib.ExitStack() as stack:
        for to, content in files.items():
            file = stack.enter_context(replacing(to, "w", encoding="utf-8"))
            file.write(content)
            file.flush()  # a full disk must show before any file is replaced


def _rounded(value: Any) -> Any:
    """Make JSON-ready: NaN to None, floats to six significant figures, tuples to lists."""
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
