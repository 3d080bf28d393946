"""Train on one data set, test on the other, through the whole pipeline.

    python scripts/across_datasets.py --out docs/results/across-data-sets.json

The face-pretrained backbone stays frozen. One head each is trained on its features of UTKFace's
training faces, of FairFace's and of both. Each network is exported and run through ``facewise
evaluate`` on test, uncalibrated, with detection and alignment as for any photo. The shipped model
is listed beside them, from its own results file. Features and models are kept in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import DATA
from sweep_frozen import RECIPE, features, train_head
from torch import Tensor

from facewise.data.sets import DataSetName
from facewise.evaluation.report_tables import name_of
from facewise.reporting.figures import cell
from facewise.reporting.report import markdown_table
from facewise.training.cache import FaceCache, open_cache
from facewise.training.config import NetworkConfig, TrainConfig
from facewise.training.data import plain_crops
from facewise.training.export import export_onnx, write_spec

NETWORK = NetworkConfig(init="faceres", size_px=192, eye_distance=0.31, eye_height=0.40)
MODELS: dict[str, tuple[DataSetName, ...]] = {
    "across-utkface": ("utkface",),
    "across-fairface": ("fairface",),
    "across-both": ("utkface", "fairface"),
}
SHIPPED = "facewise-default"
METRICS = (
    "age_mae_years",
    "age_cs5",
    "age_groups_exact",
    "age_groups_within_one",
    "gender_accuracy",
    "ethnicity_accuracy",
    "ethnicity_balanced_accuracy",
)
NAMES = {"utkface": "UTKFace", "fairface": "FairFace"}


def known_features(cache: FaceCache, work: Path) -> Tensor:
    """Features of the training faces, indexed by cache row; computed once per face cache."""
    path = work / "features.npz"
    if path.exists():
        with np.load(path) as stored:
            if str(stored.get("fingerprint")) == cache.fingerprint:
                return _by_row(cache, stored["features"])
    found = features(cache, NETWORK, cache.rows("train")).numpy()
    np.savez(path, fingerprint=np.array(cache.fingerprint), features=found)
    return _by_row(cache, found)


def _by_row(cache: FaceCache, found: Any) -> Tensor:
    known = torch.zeros(len(cache), found.shape[1])
    known[torch.from_numpy(cache.rows("train"))] = torch.from_numpy(found)
    return known


def train_and_export(
    cache: FaceCache, work: Path, name: str, sets: tuple[DataSetName, ...]
) -> Path:
    """Train a head on the given data sets; returns the path of the exported network's spec."""
    rows = cache.rows("train")
    rows = rows[np.isin(cache.datasets[rows], sets)]
    model = train_head(cache, NETWORK, known_features(cache, work), rows, RECIPE)
    checkpoint = work / f"{name}.pt"
    torch.save({"model": model.state_dict()}, checkpoint)
    config = TrainConfig(name=name, datasets=sets, network=NETWORK)
    crops = plain_crops(cache, config, cache.rows("val")[::40])
    path = work / f"{name}.onnx"
    digest = export_onnx(config, checkpoint, path, crops=crops)
    trained_on = [NAMES[s] for s in sets]
    return write_spec(
        config,
        path,
        digest,
        name=name,
        version="1",
        description=f"A head on frozen face-pretrained features, of {' and '.join(trained_on)}.",
        licence="not for release",
        data=trained_on,
    )


def evaluate(spec: Path, work: Path, data: Path, store: Path) -> Path:
    """Run ``facewise evaluate`` on test; returns the results file."""
    command = [sys.executable, "-m", "facewise", "evaluate", "--model", spec, "--degraded", "0"]
    command += ["--data", data, "--store", store, "--out", work / "results"]
    subprocess.run([str(part) for part in command], check=True)
    return work / "results" / f"{spec.stem}.json"


def figures_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Figures per test set, with the numbers of faces and of faces not found."""
    return {
        "model": {key: results["model"][key] for key in ("name", "version", "sha256")},
        "tested_on": {
            name: {
                "faces": results["data"]["faces"][name],
                "not_found": row["not_found"],
                **{metric: row[metric] for metric in METRICS if metric in row},
            }
            for name, row in results["overall"].items()
        },
    }


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One table per test set: training data against figures."""
    lines = [
        "Heads on frozen face-pretrained features and, for comparison, the shipped model, whose "
        "whole network was trained on both; scored on test through detection and alignment, as "
        "`scripts/across_datasets.py` writes it. In brackets stand 95 % intervals, by a bootstrap "
        "that draws near-duplicates together. FairFace's ages are known as groups only.",
    ]
    tested = sorted({name for row in rows.values() for name in row["tested_on"]}, reverse=True)
    for name in tested:
        mine = {trained: row["tested_on"][name] for trained, row in rows.items()}
        metrics = [m for m in METRICS if any(m in figures for figures in mine.values())]
        first = next(iter(mine.values()))
        lines += [
            "",
            f"## Tested on {NAMES.get(name, name)}, {first['faces']} faces",
            "",
            markdown_table(
                ["trained on", *map(name_of, metrics), "not found"],
                [
                    [trained, *(cell(m, figures.get(m)) for m in metrics), figures["not_found"]]
                    for trained, figures in mine.items()
                ],
            ),
        ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=Path("cache/faces"))
    parser.add_argument("--store", type=Path, default=Path("cache/outcomes"))
    parser.add_argument("--work", type=Path, default=Path("artifacts/across"))
    parser.add_argument("--shipped", type=Path, default=Path(f"docs/results/{SHIPPED}.json"))
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    cache = open_cache(args.cache)
    rows = {}
    for name, sets in MODELS.items():
        spec = train_and_export(cache, args.work, name, sets)
        results = json.loads(evaluate(spec, args.work, args.data, args.store).read_text())
        rows[" and ".join(NAMES[s] for s in sets)] = figures_of(results)
    if args.shipped.exists():
        shipped = json.loads(args.shipped.read_text())
        name = f"the shipped model, {SHIPPED}@{shipped['model']['version']}"
        rows[name] = figures_of(shipped)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
