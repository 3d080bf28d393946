"""Draws of FairFace faces to known make-ups, audited: does the correction help, do intervals hold?

    python scripts/audit_draws.py            # reads what facewise evaluate stored; a few minutes

Writes docs/results/audit-draws.json and .md. Confusions come from the model's spec, that is from
the calibration split; the method was chosen on val, the figures to quote are test's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from facewise.audit.audit import read_confusions
from facewise.audit.prevalence import estimate, naive_shares, same_picture
from facewise.calibration import Calibration
from facewise.cli.train import data_sets
from facewise.evaluation.outcomes import collect
from facewise.models import load_spec

LOWEST, HIGHEST = 0.02, 0.8


def make_up(classes, rng):
    """Shares from 2 to 80 %, log-uniform before they are made to sum to 1."""
    while True:
        shares = np.exp(rng.uniform(np.log(LOWEST), np.log(HIGHEST), classes))
        shares /= shares.sum()
        if shares.min() >= LOWEST and shares.max() <= HIGHEST:
            return shares


def run_draws(outcomes, truth, probabilities, confusions, args):
    """Mean absolute error and coverage of every method, over all draws and classes.

    Faces are drawn with replacement, from all of a class: one that was not found is missing from
    the audit, yet counts in the true shares.
    """
    rng = np.random.default_rng(args.seed)
    classes = probabilities.shape[1]
    out = {}
    for _ in range(args.draws):
        counts = rng.multinomial(args.size, make_up(classes, rng))
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(truth == k), n) for k, n in enumerate(counts)]
        )
        rows = rows[outcomes.found[rows]]
        p, pictures = probabilities[rows], same_picture(rows, probabilities[rows])
        true = counts / args.size
        for method in ("naive", "em", "adjusted"):
            if method == "naive":
                shares = naive_shares(p, pictures)
            else:
                shares = estimate([p], [confusions], pictures, method=method, rounds=args.rounds)
            low, high = shares.interval().T
            out.setdefault(method, []).append(
                [abs(shares.value - true), (low <= true) & (true <= high), high - low]
            )
    figures = {}
    for method, rows in out.items():
        error, hit, width = np.mean(rows, axis=(0, 2))
        figures[method] = {"mae": error, "interval_coverage": hit, "interval_width": width}
        if method != "naive":
            figures[method]["mae_of_naive"] = error / figures["naive"]["mae"]
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--store", type=Path, default=Path("cache/outcomes"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    spec = load_spec(args.model)
    calibration, known = Calibration.from_dict(spec.calibration), read_confusions(spec)
    if not known or not calibration.temperatures:
        raise SystemExit("the model has no confusions: run facewise evaluate --fit first")
    results = {
        "model": spec.info.to_dict(),
        "draws": args.draws,
        "size": args.size,
        "rounds": args.rounds,
        "faces": {},
        "splits": {},
    }
    sets = data_sets(args.data)
    for split in args.splits:
        everything = collect(args.model, sets, split, store=args.store)
        for pool in np.unique(everything.datasets):
            outcomes = everything.take(everything.datasets == pool)
            results["faces"][f"{split}, {pool}"] = len(outcomes)
            for source in known:
                if source != pool and split == "test":
                    continue  # what the wrong confusions do is seen on val
                for name in ("ethnicity", "gender"):
                    if name not in known[source]:
                        continue
                    raw = outcomes.ethnicities if name == "ethnicity" else outcomes.genders
                    truth = (
                        outcomes.true_ethnicities if name == "ethnicity" else outcomes.true_genders
                    )
                    figures = run_draws(
                        outcomes, truth, calibration.temper(raw, name), known[source][name], args
                    )
                    key = f"{split}, faces of {pool}, confusions of {source}"
                    results["splits"].setdefault(key, {})[name] = figures
                    print(key, name, json.dumps(figures, default=lambda v: round(float(v), 4)))
    rounded = json.loads(
        json.dumps(results, default=float), parse_float=lambda t: round(float(t), 5)
    )
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded, indent=1) + "\n"
    (args.out / "audit-draws.json").write_text(text, encoding="utf-8")
    (args.out / "audit-draws.md").write_text(markdown(rounded), encoding="utf-8")


def markdown(results):
    model = results["model"]
    lines = [
        "# Audits of draws to known make-ups",
        "",
        f"{model['name']}@{model['version']} ({model['sha256'][:12]}), {results['draws']} draws of "
        f"{results['size']:,} faces with replacement, shares from 2 % to 80 %; written by "
        "`scripts/audit_draws.py`. MAE: mean absolute error of a share, in percentage points. "
        "Coverage: how often a 95 % interval held the true share.",
        "",
        "| draws | attribute | method | MAE | of the naive MAE | coverage | mean width |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, attributes in results["splits"].items():
        for name, methods in attributes.items():
            for method, f in methods.items():
                ratio = f"{f['mae_of_naive']:.2f}" if "mae_of_naive" in f else ""
                lines.append(
                    f"| {key} | {name} | {method} | {f['mae'] * 100:.2f} | {ratio} | "
                    f"{f['interval_coverage']:.1%} | {f['interval_width'] * 100:.1f} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
