"""Measure what each training stage gains on val: docs/results/stages.md.

    python scripts/compare_exports.py runs/*/facewise-*.json --out docs/results/stages.json

Exports are scored with the cache's landmarks and each export's own template, as a run scores its
epochs. The table has one row per export, in the order given. Needs the train extra and the face
cache.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from facewise.attributes import AttributeModel
from facewise.evaluation.card import FIGURES
from facewise.labels import ETHNICITY, GENDER
from facewise.models import ModelSpec, load_spec
from facewise.reporting.report import markdown_table
from facewise.training.cache import FaceCache, batches, open_cache
from facewise.training.data import aligned_crops
from facewise.training.score import headline, score


def figures(cache: FaceCache, spec: ModelSpec) -> dict[str, float]:
    """Figures of one export on val, and the sum by which runs choose their epochs."""
    model, rows = AttributeModel(spec), cache.rows("val")
    ages, vectors = [], []
    for part in batches(rows, 128):
        some_ages, some_vectors = model.predict(
            aligned_crops(cache, part, spec.template, spec.size_px)
        )
        ages.append(some_ages)
        vectors.append(some_vectors)
    vector = np.concatenate(vectors)
    found = score(cache, rows, np.concatenate(ages), vector[:, GENDER], vector[:, ETHNICITY])
    return {**found, "headline": headline(found)}


def markdown(rows: list[dict[str, Any]]) -> str:
    table = []
    for row in rows:
        cells = [f"{row[k]:.2f}" if k.endswith("mae") else f"{row[k]:.1%}" for k in FIGURES]
        table.append([f"{row['model']} `{row['sha256'][:8]}`", f"{row['size_px']} px", *cells])
    lines = [
        f"Val of both data sets, {rows[0]['faces']:,} faces; no stage was chosen by another split.",
        "",
        markdown_table(["export", "input", *FIGURES.values()], table),
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="+", help="names of models, or JSON files of exports")
    parser.add_argument("--cache", type=Path, default=Path("cache/faces"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    cache = open_cache(args.cache)
    rows = []
    for name in args.specs:
        spec = load_spec(name)
        found = {key: round(value, 5) for key, value in figures(cache, spec).items()}
        rows.append(
            {
                "model": f"{spec.name}@{spec.version}",
                "sha256": spec.sha256,
                "size_px": spec.size_px,
                "faces": len(cache.rows("val")),
                **found,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
