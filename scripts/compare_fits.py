"""Choose how to calibrate, on calibration and val: test is never read.

    python scripts/compare_fits.py --out docs/results/fits.json

Age intervals: each recipe is fitted on two thirds of the faces and judged on the other third, over
and over, which gives the coverage of every group as it is on average. From that follows how many
groups of 150 faces or more the report is to be expected to find whose 95 % Wilson interval does not
reach the level: a test split is a sample, and the calibration split is another.

Probabilities of ages: expected calibration error over decades on faces that a fit has not seen,
beside the error that chance alone would show.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from facewise.calibration import LEVELS, Calibration, age_band, apply_temperature
from facewise.cli.evaluate import EXCLUSIONS
from facewise.cli.train import data_sets
from facewise.evaluation.coverage import MIN_GROUP, thresholds
from facewise.evaluation.fit import age_mask, faces_of, fit_temperature
from facewise.evaluation.groups import group_columns
from facewise.evaluation.intervals import (
    BAND_STARTS_YEARS,
    Faces,
    Recipe,
    fit_intervals,
    memberships,
)
from facewise.evaluation.outcomes import Outcomes, collect
from facewise.evaluation.reliability import chance_error, expected_calibration_error
from facewise.evaluation.scoring import Scored
from facewise.labels import AGES, ages_to_decades, expected_age
from facewise.reporting.bootstrap import Z_95
from facewise.types import FloatArray

RECIPES: dict[str, Recipe | None] = {
    "one width for all": None,
    "by predicted age": Recipe(age_starts_years=(1,), margin=0, min_group=None),
    "by predicted and by own age": Recipe(margin=0, min_group=None),
    "the same, 1.5 points to spare": Recipe(min_group=None),
    "groups looked after, none to spare": Recipe(margin=0),
    "groups looked after, 1.5 points to spare": Recipe(),
}
THIRDS = 3
Intervals = NDArray[np.int64]


def pooled(model: str, data: Path, store: Path) -> Outcomes:
    """Found faces of calibration and val with an exact age; none whose photo is in train, too."""
    with EXCLUSIONS.open(encoding="utf-8", newline="") as file:
        excluded = frozenset(row["file"] for row in csv.DictReader(file))
    parts = [
        collect(model, data_sets(data), split, store=store) for split in ("calibration", "val")
    ]
    names = [field.name for field in dataclasses.fields(Outcomes)]
    both = Outcomes(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
    return both.take(both.exact & both.found).without(excluded)


def folds(groups: NDArray[np.str_], seed: int) -> NDArray[np.intp]:
    names, codes = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % THIRDS)[codes]


def predicted(most: Faces, rest: Faces, recipe: Recipe | None) -> dict[float, Intervals]:
    """Intervals of ``rest`` by a fit on ``most``, by level."""
    if recipe is None:
        half = thresholds(np.abs(expected_age(most.ages) - most.truth))
        mean = expected_age(rest.ages)
        return {
            level: np.stack(
                [np.ceil(mean - half[level]), np.floor(mean + half[level])], axis=1
            ).astype(np.int64)
            for level in LEVELS
        }
    calibration = Calibration.from_dict({"age_intervals": fit_intervals(most, 1.0, recipe)})
    return {level: calibration.age_intervals(rest.ages, level) for level in LEVELS}


def judge(
    faces: Faces,
    judged: NDArray[np.bool_],
    recipe: Recipe | None,
    seeds: int,
    calibration_faces: int,
    test_faces: int,
) -> dict[str, Any]:
    """Coverage, width and groups missed of a recipe, by level."""
    inside = {level: np.zeros(len(faces)) for level in LEVELS}
    widths = dict.fromkeys(LEVELS, 0.0)
    for seed in range(seeds):
        fold = folds(faces.groups, seed)
        for k in range(THIRDS):
            part = predicted(faces.take(fold != k), faces.take(fold == k), recipe)
            truth = faces.truth[fold == k]
            for level in LEVELS:
                first, last = part[level].T
                inside[level][fold == k] += ((truth >= first) & (truth <= last)) / seeds
                widths[level] += float((last - first).sum()) / (seeds * len(faces))
    shares = judged.mean(axis=1)
    large = shares * test_faces >= MIN_GROUP
    return {
        str(level): {
            "coverage": float(inside[level].mean()),
            "mean_width_years": widths[level],
            "groups_missed": float(
                chance_of_missing(
                    judged[large] @ inside[level] / judged[large].sum(axis=1),
                    level,
                    shares[large] * calibration_faces,
                    shares[large] * test_faces,
                ).sum()
            ),
            "groups_judged": int(large.sum()),
        }
        for level in LEVELS
    }


def chance_of_missing(
    coverage: NDArray[np.float64],
    level: float,
    calibration_faces: NDArray[np.float64],
    test_faces: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Chance that a group's Wilson interval on test does not reach the level.

    Where a group is covered as at ``coverage`` on average, what test shows of it varies with the
    faces of both splits; both are taken for normal, with the level's own variance.
    """
    variance = level * (1 - level)
    allowed = Z_95 * np.sqrt(variance / test_faces)
    spread = np.sqrt(variance / test_faces + variance / calibration_faces)
    return np.asarray(norm.cdf((level - coverage - allowed) / spread), np.float64)


Temper = Callable[[FloatArray, NDArray[Any], FloatArray], FloatArray]


def unchanged(_: FloatArray, __: NDArray[Any], rest: FloatArray) -> FloatArray:
    return rest


def one_temperature(most: FloatArray, truth: NDArray[Any], rest: FloatArray) -> FloatArray:
    return apply_temperature(rest, fit_temperature(most, _mask(truth)))


def temperature_a_band(most: FloatArray, truth: NDArray[Any], rest: FloatArray) -> FloatArray:
    out = np.array(rest)
    theirs = age_band(expected_age(most), BAND_STARTS_YEARS)
    mine = age_band(expected_age(rest), BAND_STARTS_YEARS)
    for band in np.unique(mine):
        out[mine == band] = one_temperature(
            most[theirs == band], truth[theirs == band], rest[mine == band]
        )
    return out


def decades_reweighed(most: FloatArray, truth: NDArray[Any], rest: FloatArray) -> FloatArray:
    """One temperature, and a factor a decade that makes the decades as frequent as they are."""
    temperature = fit_temperature(most, _mask(truth))
    stated = ages_to_decades(apply_temperature(most, temperature)).astype(np.float64)
    seen = np.bincount((truth - 1) // 10, minlength=12) + 5.0
    factor = np.ones(12)
    for _ in range(15):
        again = stated * factor
        factor *= seen / ((again / again.sum(1, keepdims=True)).sum(0) + 5.0)
    out = apply_temperature(rest, temperature) * np.repeat(factor, 10)
    return np.asarray(out / out.sum(1, keepdims=True), np.float32)


CALIBRATIONS: dict[str, Temper] = {
    "as the network gives them": unchanged,
    "one temperature": one_temperature,
    "a temperature a band of the expected age": temperature_a_band,
    "one temperature, decades reweighed": decades_reweighed,
}


def _mask(truth: NDArray[Any]) -> NDArray[np.bool_]:
    return age_mask(np.stack([truth, truth], axis=1))


def judge_probabilities(raw: FloatArray, truth: NDArray[Any], fold: Any, how: Temper) -> Any:
    """Errors of ages on faces that a calibration has not seen."""
    out = np.zeros_like(raw)
    for k in range(THIRDS):
        out[fold == k] = how(raw[fold != k], truth[fold != k], raw[fold == k])
    decades = ages_to_decades(out)
    top, right = decades.max(-1).astype(np.float64), decades.argmax(-1) == (truth - 1) // 10
    likely = out[np.arange(len(out)), truth - 1]
    return {
        "calibration_error": expected_calibration_error(top, right),
        "by_chance": chance_error(top),
        "log_likelihood": float(np.log(np.maximum(likely, 1e-12)).mean()),
        "mae_years": float(np.abs(out.astype(np.float64) @ AGES - truth).mean()),
    }


def markdown(results: Mapping[str, Any]) -> str:
    lines = [
        f"Fitted on two thirds of {results['faces']} faces of calibration and val, judged on the "
        f"rest, {results['seeds']} times over. Groups: the {results['groups_judged']} that have "
        f"150 faces or more among {results['test_faces']}, as many as test holds. Missed: how many "
        f"are to be expected after a fit on {results['calibration_faces']} faces.",
        "",
        "| age intervals | level | coverage | mean width, years | groups missed |",
        "|---" * 5 + "|",
    ]
    for name, by_level in results["intervals"].items():
        for level, row in by_level.items():
            lines.append(
                f"| {name} | {float(level):.0%} | {row['coverage']:.1%} "
                f"| {row['mean_width_years']:.1f} | {row['groups_missed']:.2f} |"
            )
    lines += [
        "",
        "| ages' probabilities | calibration error of decades | by chance alone | log likelihood "
        "| MAE, years |",
        "|---" * 5 + "|",
    ]
    for name, row in results["probabilities"].items():
        lines.append(
            f"| {name} | {row['calibration_error']:.4f} | {row['by_chance']:.4f} "
            f"| {row['log_likelihood']:.4f} | {row['mae_years']:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--store", type=Path, default=Path("cache/outcomes"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calibration-faces", type=int, default=2060)
    parser.add_argument("--test-faces", type=int, default=2358)
    args = parser.parse_args()
    both = pooled(args.model, args.data, args.store)
    temperature = fit_temperature(both.ages, age_mask(both.age_ranges))
    faces = faces_of(both, temperature)
    bands = age_band(expected_age(faces.ages), BAND_STARTS_YEARS).astype(str)
    judged = memberships([bands, *group_columns(Scored(both, Calibration())).values()])
    results: dict[str, Any] = {
        "faces": len(faces),
        "seeds": args.seeds,
        "calibration_faces": args.calibration_faces,
        "test_faces": args.test_faces,
        "intervals": {},
    }
    for name, recipe in RECIPES.items():
        by_level = judge(faces, judged, recipe, args.seeds, args.calibration_faces, args.test_faces)
        results["intervals"][name] = by_level
        results["groups_judged"] = by_level[str(LEVELS[0])]["groups_judged"]
        print(name, json.dumps(by_level), flush=True)
    fold = folds(faces.groups, 0)
    results["probabilities"] = {
        name: judge_probabilities(both.ages, faces.truth, fold, how)
        for name, how in CALIBRATIONS.items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(results))


if __name__ == "__main__":
    main()
