"""Choose how to calibrate, using the calibration and val splits; test is never read.

    python scripts/compare_fits.py --out docs/results/fits.json

Age intervals: each recipe is repeatedly fitted on one half of the faces and judged on the other, as
the report judges it on test: coverage within 2.5 points of the level, and a 95 % Wilson interval
that reaches the level in every group of 75 faces or more (the halves are smaller than the splits).
The share of halves for which all of that holds is how often a test finds no fault with intervals.
The lowest coverage of any band of the true age, over all halves together, shows whom a recipe fails
whatever the draw.

Age probabilities: expected calibration error over decades, on faces that the fit has not seen,
beside the error expected from chance alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data_folder import DATA

from facewise.calibration import LEVELS, Calibration, age_band, apply_temperature
from facewise.data.folder import read_folder
from facewise.evaluation.coverage import thresholds
from facewise.evaluation.data import read_exclusions
from facewise.evaluation.fit import faces_of, fit_temperature
from facewise.evaluation.groups import group_columns
from facewise.evaluation.intervals import (
    AGE_STARTS_YEARS,
    BAND_STARTS_YEARS,
    FitFaces,
    Recipe,
    fit_intervals,
)
from facewise.evaluation.outcomes import Outcomes, collect
from facewise.evaluation.reliability import chance_error, expected_calibration_error
from facewise.evaluation.scoring import Scored
from facewise.labels import AGES, ages_to_decades, expected_age, years_within
from facewise.reporting.bootstrap import share
from facewise.types import Array, BoolArray, FloatArray, IndexArray, IntArray, TextArray

RECIPES: dict[str, Recipe | None] = {
    "one width for all": None,
    "by predicted age": Recipe(age_starts_years=(1,), margin=0),
    "by predicted and by own age": Recipe(margin=0),
    "the same, 1.5 points to spare": Recipe(margin=0.015),
    "the same, 2 points to spare": Recipe(),
    "half the bands of the own age": Recipe(age_starts_years=(1, 13, 30, 60)),
    "more bands of the predicted age": Recipe(band_starts_years=(1, 4, 13, 20, 27, 34, 42, 52, 65)),
    "one band of the predicted age": Recipe(band_starts_years=(1,)),
}
MOST_OVER = 0.025
"""Overall coverage may differ from the level by at most this much."""

MIN_JUDGED = 75
"""Half of the faces that a report asks of a group: the halves are smaller than the splits."""


def pooled(model: str, data: Path, store: Path) -> Outcomes:
    """Found faces of calibration and val with an exact age whose photo is not also in train."""
    parts = [
        collect(model, read_folder(data), split, store=store) for split in ("calibration", "val")
    ]
    names = [field.name for field in dataclasses.fields(Outcomes)]
    both = Outcomes(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
    return both.take(both.exact & both.found).without(read_exclusions())


def memberships(columns: Sequence[TextArray]) -> BoolArray:
    """Membership masks, one row per group of every grouping, ``(G, N)``."""
    return np.array([column == name for column in columns for name in np.unique(column)], bool)


def folds(groups: TextArray, seed: int, count: int) -> IndexArray:
    """The fold of each row; near-duplicates share one."""
    names, codes = np.unique(groups, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % count)[codes]


def predicted(most: FitFaces, rest: FitFaces, recipe: Recipe | None) -> dict[float, IntArray]:
    """IntArray for ``rest`` from a fit on ``most``, by level."""
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


def judge(faces: FitFaces, judged: BoolArray, recipe: Recipe | None, seeds: int) -> dict[str, Any]:
    """Means over the halves by level, and the share of halves without a fault at any level."""
    rows: dict[float, list[tuple[float, ...]]] = {level: [] for level in LEVELS}
    bands = age_band(faces.truth, AGE_STARTS_YEARS)
    hits = {level: np.zeros(len(AGE_STARTS_YEARS)) for level in LEVELS}
    judged_in = np.zeros(len(AGE_STARTS_YEARS))
    faultless = np.ones(seeds, bool)
    for seed in range(seeds):
        half = folds(faces.groups, seed, 2) == 0
        part = predicted(faces.take(half), faces.take(~half), recipe)
        truth, groups, own = faces.truth[~half], judged[:, ~half], bands[~half]
        groups = groups[groups.sum(axis=1) >= MIN_JUDGED]
        judged_in += np.bincount(own, minlength=len(judged_in))
        for level in LEVELS:
            first, last = part[level].T
            inside = (truth >= first) & (truth <= last)
            hits[level] += np.bincount(own, inside, minlength=len(judged_in))
            coverage = float(inside.mean())
            missed = sum(share(inside[mine])["high"] < level for mine in groups)
            rows[level].append((coverage, float((last - first).mean()), missed, len(groups)))
            faultless[seed] &= missed == 0 and abs(coverage - level) <= MOST_OVER
    keys = ("coverage", "mean_width_years", "groups_missed", "groups_judged")
    seen = np.flatnonzero(judged_in)
    return {
        "levels": {
            str(level): {
                **dict(zip(keys, np.mean(rows[level], axis=0).tolist(), strict=True)),
                "by_first_year": {
                    str(AGE_STARTS_YEARS[k]): float(hits[level][k] / judged_in[k]) for k in seen
                },
            }
            for level in LEVELS
        },
        "faultless": float(faultless.mean()),
    }


Temper = Callable[[FloatArray, Array, FloatArray], FloatArray]


def unchanged(_: FloatArray, __: Array, rest: FloatArray) -> FloatArray:
    return rest


def one_temperature(most: FloatArray, truth: Array, rest: FloatArray) -> FloatArray:
    return apply_temperature(rest, fit_temperature(most, _mask(truth)))


def temperature_a_band(most: FloatArray, truth: Array, rest: FloatArray) -> FloatArray:
    out = np.array(rest)
    theirs = age_band(expected_age(most), BAND_STARTS_YEARS)
    mine = age_band(expected_age(rest), BAND_STARTS_YEARS)
    for band in np.unique(mine):
        out[mine == band] = one_temperature(
            most[theirs == band], truth[theirs == band], rest[mine == band]
        )
    return out


def decades_reweighed(most: FloatArray, truth: Array, rest: FloatArray) -> FloatArray:
    """One temperature, and one factor per decade that matches the decades' true frequencies."""
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


def _mask(truth: Array) -> BoolArray:
    return years_within(np.stack([truth, truth], axis=1))


def judge_probabilities(raw: FloatArray, truth: Array, fold: Any, how: Temper) -> Any:
    """Calibration errors of ages on faces that the calibration has not seen."""
    out = np.zeros_like(raw)
    for k in np.unique(fold):
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


def _lowest(covered: Mapping[str, float]) -> str:
    """The band of the true age that is covered least, with its coverage."""
    first = min(covered, key=lambda year: covered[year])
    later = [start - 1 for start in AGE_STARTS_YEARS if start > int(first)]
    return f"{covered[first]:.1%}, {first}-{min(later, default=120)}"


def markdown(results: Mapping[str, Any]) -> str:
    lines = [
        f"Fitted on one half of {results['faces']} faces of calibration and val, judged on the "
        f"other, {results['seeds']} times over; some {results['groups_judged']:.0f} groups of "
        f"{MIN_JUDGED} faces or more. Faultless: how often, at all three levels, the coverage lies "
        "within 2.5 points of the level and every group's 95 % interval reaches it.",
        "",
        "| age intervals | level | coverage | lowest band of the true age | mean width, years "
        "| groups missed | faultless |",
        "|---" * 7 + "|",
    ]
    for name, how in results["intervals"].items():
        for level, row in how["levels"].items():
            lines.append(
                f"| {name} | {float(level):.0%} | {row['coverage']:.1%} "
                f"| {_lowest(row['by_first_year'])} "
                f"| {row['mean_width_years']:.1f} | {row['groups_missed']:.2f} "
                f"| {how['faultless']:.0%} |"
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
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--store", type=Path, default=Path("cache/outcomes"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=40)
    args = parser.parse_args()
    both = pooled(args.model, args.data, args.store)
    temperature = fit_temperature(both.ages, years_within(both.age_ranges))
    faces = faces_of(both, temperature)
    bands = age_band(expected_age(faces.ages), BAND_STARTS_YEARS).astype(str)
    judged = memberships([bands, *group_columns(Scored(both, Calibration())).values()])
    results: dict[str, Any] = {"faces": len(faces), "seeds": args.seeds, "intervals": {}}
    for name, recipe in RECIPES.items():
        row = judge(faces, judged, recipe, args.seeds)
        results["intervals"][name] = row
        results["groups_judged"] = row["levels"][str(LEVELS[0])]["groups_judged"]
        print(name, json.dumps(row), flush=True)
    fold = folds(faces.groups, 0, 3)
    results["probabilities"] = {
        name: judge_probabilities(both.ages, faces.truth, fold, how)
        for name, how in CALIBRATIONS.items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(results))


if __name__ == "__main__":
    main()
