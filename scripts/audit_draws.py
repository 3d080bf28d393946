"""Audit labelled faces drawn to known make-ups: does the correction help, do intervals hold?

The truth is the make-up that faces are drawn from: intervals are for the population that pictures
come from, and every draw of a thousand is different. How often they contain the shares of the drawn
thousand itself, which is easier, is reported beside it. All faces are also audited once, undrawn;
their own make-up is the only one known for them.

    python scripts/audit_draws.py            # reads what facewise evaluate stored; some minutes

Writes docs/results/audit-draws.json and .md. Confusions come from the model's spec, and so from the
calibration split (--refit fits them again, as ``facewise evaluate --fit`` does, for specs older
than the code). The method was chosen on val; quote the figures of test.

Ages are audited by decade. FairFace's age groups begin one year before our decades: a face labelled
20-29 counts towards 11-20 by the model's own odds of 20 against 21-29.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from data_folder import DATA

from facewise.audit.known import read_confusions
from facewise.audit.prevalence import (
    CombinedShares,
    Shares,
    classify_and_count,
    combine,
    estimate,
    same_picture,
)
from facewise.calibration import Calibration
from facewise.data.folder import read_folder
from facewise.evaluation.data import read_exclusions
from facewise.evaluation.outcomes import Outcomes, collect
from facewise.models import load_spec
from facewise.reporting.confusions import Confusions, decade_masses, fit_sources

Audited = dict[str, list[np.ndarray]]
"""By method: absolute errors, hits, widths and hits of the rows' own shares, each ``(K,)``."""

LOWEST, HIGHEST = 0.02, 0.8
LEAST_FACES = 20
"""Labels with fewer faces in a split are left out of its draws."""


@dataclass(frozen=True)
class Pool:
    """Faces of one split and data set to draw from, with one attribute.

    ``probabilities`` and ``truth`` are ``(N, K)``; faces are drawn by their ``labels``, ``(N,)``.
    """

    found: np.ndarray
    probabilities: np.ndarray
    truth: np.ndarray
    labels: np.ndarray


def make_pool(outcomes: Outcomes, name: str, calibration: Calibration) -> Pool:
    if name == "age":
        ages = calibration.temper(outcomes.ages, "age")
        p, inside = decade_masses(ages, outcomes.age_ranges)
        _, labels = np.unique(outcomes.age_ranges[:, 0], return_inverse=True)
        if (outcomes.age_ranges[:, 0] == outcomes.age_ranges[:, 1]).all():
            labels = (outcomes.age_ranges[:, 0] - 1) // 10
        mass = inside.sum(1, keepdims=True)
        truth = inside / np.maximum(mass, 1e-12)
        lost = ~outcomes.found | (mass[:, 0] < 1e-6)  # split like the others with their label
        for label in np.unique(labels[lost]):
            mine = labels == label
            truth[mine & lost] = truth[mine & ~lost].mean(0)
        return Pool(outcomes.found, p, truth, labels)
    raw = outcomes.ethnicities if name == "ethnicity" else outcomes.genders
    labels = outcomes.true_ethnicities if name == "ethnicity" else outcomes.true_genders
    p = calibration.temper(raw, name)
    return Pool(outcomes.found, p, np.eye(p.shape[1])[labels], labels)


def make_up(classes: int, rng: np.random.Generator) -> np.ndarray:
    """Shares from 2 to 80 %, log-uniform before normalisation to a sum of 1."""
    while True:
        shares: np.ndarray = np.exp(rng.uniform(np.log(LOWEST), np.log(HIGHEST), classes))
        shares /= shares.sum()
        if shares.min() >= LOWEST and shares.max() <= HIGHEST:
            return shares


def one_draw(
    number: int, pool: Pool, confusions: Mapping[str, Confusions], args: argparse.Namespace
) -> Audited:
    """Draw faces with replacement, class by class, and audit them."""
    rng = np.random.default_rng((args.seed, number))
    labels, faces = np.unique(pool.labels, return_counts=True)
    labels = labels[faces >= LEAST_FACES]
    shares = make_up(len(labels), rng)
    counts = rng.multinomial(args.size, shares)
    members = [np.flatnonzero(pool.labels == k) for k in labels]
    rows = np.concatenate([rng.choice(m, n) for m, n in zip(members, counts, strict=True)])
    true = shares @ np.array([pool.truth[m].mean(0) for m in members])
    return audit_rows(rows, true, pool, confusions, args)


def audit_rows(
    rows: np.ndarray,
    true: np.ndarray,
    pool: Pool,
    confusions: Mapping[str, Confusions],
    args: argparse.Namespace,
) -> Audited:
    """Audit these faces by every method.

    ``true`` holds the shares ``(K,)`` of the make-up that the rows were drawn from. A face that was
    not found is missing from the audit but counts in the rows' own shares.
    """
    own = pool.truth[rows].mean(0)
    rows = rows[pool.found[rows]]
    p = pool.probabilities[rows]
    pictures = same_picture(rows, p)
    naive = classify_and_count(p, pictures)
    out = {}
    for method in ("naive", "em", "adjusted"):
        shares: Shares | CombinedShares = naive
        if method != "naive":
            parts = {
                source: estimate([p], [c], pictures, method=method, rounds=args.rounds)
                for source, c in confusions.items()
            }
            shares = combine(parts, naive.value)
        low, high = shares.interval().T
        hit, own_hit = ((low <= t + 1e-9) & (t - 1e-9 <= high) for t in (true, own))
        out[method] = [abs(shares.value - true), hit, high - low, own_hit]
    return out


def run_draws(
    pool: Pool, confusions: Mapping[str, Confusions], args: argparse.Namespace
) -> dict[str, Any]:
    """For every method, means over all draws and classes, and coverage of the worst class."""
    work = partial(one_draw, pool=pool, confusions=confusions, args=args)
    # Forked ones would keep the threads of the BLAS that is loaded here: one per core in each.
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as workers:
        draws = list(workers.map(work, range(args.draws), chunksize=4))
    figures = means(draws)
    for method, f in figures.items():
        hits = np.array([draw[method][1] for draw in draws], float)
        f["coverage_of_the_worst_class"] = hits.mean(0).min()
    return figures


def means(draws: Sequence[Audited]) -> dict[str, dict[str, float]]:
    """Means over all draws and classes, by method."""
    figures: dict[str, dict[str, float]] = {}
    for method in draws[0]:
        rows = np.array([draw[method] for draw in draws], float)  # (draws, 4, K)
        error, hit, width, own_hit = rows.mean((0, 2))
        figures[method] = {
            "mae": error,
            "interval_coverage": hit,
            "interval_width": width,
            "coverage_of_the_drawn_faces": own_hit,
        }
        if method != "naive":
            figures[method]["mae_of_naive"] = error / figures["naive"]["mae"]
    return figures


def refit(outcomes: Outcomes, calibration: Calibration) -> dict[str, dict[str, Confusions]]:
    """Confusions as ``facewise evaluate --fit`` stores them."""
    o = outcomes
    classes = {
        "gender": (calibration.temper(o.genders, "gender"), o.true_genders),
        "ethnicity": (calibration.temper(o.ethnicities, "ethnicity"), o.true_ethnicities),
    }
    ages = calibration.temper(o.ages, "age")
    stored = fit_sources(o.datasets, o.found, o.groups, ages, o.age_ranges, classes)
    return {
        source: {name: Confusions.from_dict(c) for name, c in attributes.items()}
        for source, attributes in stored.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--store", type=Path, default=Path("cache/outcomes"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--attributes", nargs="+", default=["ethnicity", "gender", "age"])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--refit", action="store_true", help="fit confusions anew")
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the workers
    spec = load_spec(args.model)
    calibration, known = Calibration.from_dict(spec.calibration), read_confusions(spec)
    if not known or not calibration.temperatures:
        raise SystemExit("the model has no confusions: run facewise evaluate --fit first")
    sets = read_folder(args.data)
    excluded = read_exclusions()
    if args.refit:
        fitting = collect(args.model, sets, "calibration", store=args.store).without(excluded)
        known = refit(fitting, calibration)
    results: dict[str, Any] = {
        "model": spec.info.to_dict(),
        "draws": args.draws,
        "size": args.size,
        "rounds": args.rounds,
        "confusions": "fitted anew" if args.refit else "the spec's",
        "faces": {},
        "splits": {},
        "as_they_are": {},
    }
    choices = [[source] for source in known]
    if len(known) > 1:
        choices.append(list(known))
    for split in args.splits:
        everything = collect(args.model, sets, split, store=args.store).without(excluded)
        for data_set in np.unique(everything.datasets):
            outcomes = everything.take(everything.datasets == data_set)
            results["faces"][f"{split}, {data_set}"] = len(outcomes)
            for chosen in choices:
                wrong = data_set not in chosen
                if wrong and split == "test":
                    continue  # the effect of wrong confusions is measured on val
                for name in args.attributes:
                    own = {
                        source: known[source][name] for source in chosen if name in known[source]
                    }
                    if len(own) < len(chosen) or (wrong and name == "age"):
                        continue
                    pool = make_pool(outcomes, name, calibration)
                    figures = run_draws(pool, own, args)
                    key = f"{split}, faces of {data_set}, confusions of {' or '.join(chosen)}"
                    results["splits"].setdefault(key, {})[name] = figures
                    if not wrong:
                        rows = np.arange(len(pool.found))
                        whole = audit_rows(rows, pool.truth.mean(0), pool, own, args)
                        results["as_they_are"].setdefault(key, {})[name] = means([whole])
                    said = json.dumps(figures, default=lambda v: round(float(v), 4))
                    print(key, name, said, flush=True)
    rounded = json.loads(
        json.dumps(results, default=float), parse_float=lambda t: round(float(t), 5)
    )
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded, indent=1) + "\n"
    (args.out / "audit-draws.json").write_text(text, encoding="utf-8")
    (args.out / "audit-draws.md").write_text(markdown(rounded), encoding="utf-8")


def markdown(results: Mapping[str, Any]) -> str:
    model = results["model"]
    lines = [
        "# Audits of draws to known make-ups",
        "",
        f"{model['name']}@{model['version']} ({model['sha256'][:12]}), {results['draws']} draws of "
        f"{results['size']:,} faces with replacement, shares from 2 % to 80 %; written by "
        "`scripts/audit_draws.py`. True is the make-up that is drawn from, as intervals are of the "
        "population. MAE: mean absolute error of a share, in percentage points. "
        "Coverage: how often a 95 % interval held the true share, of all classes and of the class "
        "that fared worst; and how often the share among the drawn faces themselves, to which "
        "chance adds nothing. Confusions of one data set or another: what the audit does where "
        "none is named. Ages are decades, of which the draws hold those with at least "
        f"{LEAST_FACES} faces in the split, and the other shares are 0. A face that is drawn more "
        "than once is a picture and its copies, which are drawn anew together: intervals are wider "
        "for it than those of as many different faces.",
        "",
        "| draws | attribute | method | MAE | of the naive MAE | coverage | worst class "
        "| coverage of the drawn faces | mean width |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, attributes in results["splits"].items():
        for name, methods in attributes.items():
            for method, f in methods.items():
                ratio = f"{f['mae_of_naive']:.2f}" if "mae_of_naive" in f else ""
                lines.append(
                    f"| {key} | {name} | {method} | {f['mae'] * 100:.2f} | {ratio} | "
                    f"{f['interval_coverage']:.1%} | {f['coverage_of_the_worst_class']:.1%} | "
                    f"{f['coverage_of_the_drawn_faces']:.1%} | {f['interval_width'] * 100:.1f} |"
                )
    lines += [
        "",
        "## As they are",
        "",
        "All faces of a split once, judged by the make-up that they themselves have, for they were "
        "drawn from no other that is known: FairFace's is about even.",
        "",
        "| faces | attribute | method | MAE | of the naive MAE | shares held | mean width |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, attributes in results["as_they_are"].items():
        for name, methods in attributes.items():
            for method, f in methods.items():
                ratio = f"{f['mae_of_naive']:.2f}" if "mae_of_naive" in f else ""
                lines.append(
                    f"| {key} | {name} | {method} | {f['mae'] * 100:.2f} | {ratio} | "
                    f"{f['interval_coverage']:.0%} | {f['interval_width'] * 100:.1f} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
