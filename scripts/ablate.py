"""Remove one ingredient of fine-tuning at a time: what each is worth, on clean and on bad pictures.

    python scripts/ablate.py --out docs/results/ablation.json

The whole network is trained from the face-pretrained weights in one short run per row, with the
recipe of the default's later stages, but at 96 px, on fewer faces and without a teacher. As in
``sweep_frozen.py``, a sixth of train, in whole duplicate groups, is withheld and judged with val,
whose own standard error is 0.7 points on gender. Val alone is also judged with its pictures
degraded, as phones, webcams and thumbnails would have them. Three seeds of the whole recipe show
what chance changes. Rows that the output file already has are kept, so that an interrupted run
resumes. A Markdown table is written beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sweep_frozen import split

from facewise.evaluation.card import FIGURES
from facewise.evaluation.degrade import degrade
from facewise.files import replacing
from facewise.reporting.figures import NONE
from facewise.reporting.report import markdown_table
from facewise.training.cache import FaceCache, batches, open_cache
from facewise.training.config import (
    AugmentConfig,
    LossConfig,
    NetworkConfig,
    OptimConfig,
    TrainConfig,
)
from facewise.training.data import LabelTable, plain_crops, to_tensor
from facewise.training.network import PARTS, AttributeNetwork, make_network, probabilities
from facewise.training.precision import autocast
from facewise.training.renorm import folded_state
from facewise.training.score import headline, score
from facewise.training.train import make_loop
from facewise.types import ImageArray, IndexArray

EPOCHS = 4
WHOLE = TrainConfig(
    name="ablation",
    network=NetworkConfig(
        init="faceres", size_px=96, eye_distance=0.36, eye_height=0.33, dropout=0.3
    ),
    optim=OptimConfig(
        epochs=EPOCHS,
        lr_backbone=8e-4,
        lr_head=8e-4,
        layer_decay=0.95,
        frozen_stages=4,
        weight_decay=0.05,
        batch_norm=True,
    ),
    augment=AugmentConfig(scale=0.1, landmark_jitter=0.03, erase=0.2),
    loss=LossConfig(age_l1=0.4, gender=2.0, label_smoothing=0.0),
)
NAME = "the whole recipe"

CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    NAME: {},
    "the whole, seed 1": {"optim": {"seed": 1}},
    "the whole, seed 2": {"optim": {"seed": 2}},
    "no batch norms, a third of the rate": {"optim": {"batch_norm": False, "lr_backbone": 2.7e-4}},
    "no moving average of weights": {"optim": {"ema_decay": 0.0}},
    "no augmentation but mirroring": {
        "augment": {field.name: 0.0 for field in dataclasses.fields(AugmentConfig)}
    },
    "one rate for all layers": {"optim": {"layer_decay": 1.0}},
    "no low resolution": {"augment": {"low_resolution": 0.0}},
    "no frozen stages": {"optim": {"frozen_stages": 0}},  # these get batch norms, too
    "no shift, scale, turn": {
        "augment": {"shift": 0.0, "scale": 0.0, "rotation_degrees": 0.0, "landmark_jitter": 0.0}
    },
    "no changes of light and colour": {"augment": {"photometric": 0.0, "grey": 0.0}},
    "no blur, noise, JPEG": {"augment": {"blur": 0.0, "noise": 0.0, "jpeg": 0.0}},
    "nothing erased": {"augment": {"erase": 0.0}},
    "FairFace twice an epoch": {"optim": {"epochs": 3}},  # about as many steps
    "rare groups of UTKFace twice an epoch": {"optim": {"epochs": 3}},
    "no near-duplicates that disagree": {},
}
"""Variants of the recipe: tables of options that differ."""


def _fairface_twice(cache: FaceCache, rows: IndexArray) -> IndexArray:
    return np.concatenate([rows, rows[cache.datasets[rows] == "fairface"]])


def _rare_twice(cache: FaceCache, rows: IndexArray) -> IndexArray:
    """UTKFace's faces of children and old people, and of its two smallest ethnicities, twice."""
    age, ethnicity = cache.age_ranges[rows, 0], cache.ethnicities[rows]
    rare = (age < 16) | (age >= 60) | np.isin(ethnicity, (2, 4))
    return np.concatenate([rows, rows[rare & (cache.datasets[rows] == "utkface")]])


def _agreed(cache: FaceCache, rows: IndexArray) -> IndexArray:
    """Without near-duplicates whose labels differ: another gender, ethnicity, or over 3 years."""
    labels: dict[str, list[tuple[int, ...]]] = {}
    for row in rows:
        own = (cache.age_ranges[row, 0], cache.genders[row], cache.ethnicities[row])
        labels.setdefault(str(cache.groups[row]), []).append(tuple(map(int, own)))

    def agree(group: str) -> bool:
        ages, *others = zip(*labels[group], strict=True)
        return max(ages) - min(ages) <= 3 and all(len(set(values)) == 1 for values in others)

    return rows[[agree(str(group)) for group in cache.groups[rows]]]


FACES: dict[str, Callable[[FaceCache, IndexArray], IndexArray]] = {
    "FairFace twice an epoch": _fairface_twice,
    "rare groups of UTKFace twice an epoch": _rare_twice,
    "no near-duplicates that disagree": _agreed,
}
"""Variants with other training faces."""

BAD = ("coarse-24px", "blur-4%", "noise-40", "dark")


def varied(changes: dict[str, dict[str, Any]]) -> TrainConfig:
    """The recipe with some options changed."""
    tables = {name: replace(getattr(WHOLE, name), **options) for name, options in changes.items()}
    return replace(WHOLE, **tables)


def judge(
    model: AttributeNetwork,
    cache: FaceCache,
    config: TrainConfig,
    rows: IndexArray,
    how: str | None = None,
) -> dict[str, float]:
    """Figures over some rows, with their headline; of pictures degraded in one way, if any.

    The landmarks are those of the clean pictures, so that only the network is judged.
    """

    def change(rgb: ImageArray, row: int) -> ImageArray:
        return degrade(rgb, how, seed=row, border=0.0)

    answers = []
    for part in batches(rows, 128):
        x = to_tensor(plain_crops(cache, config, part, change))
        with torch.inference_mode(), autocast(bfloat16=True):
            p = probabilities(model(x.contiguous(memory_format=torch.channels_last)))
        answers.append(p.float().numpy())
    figures = score(cache, rows, *np.split(np.concatenate(answers), PARTS, axis=1))
    return {**figures, "headline": headline(figures)}


def run(folder: Path, variant: str, faces: int, threads: int) -> dict[str, Any]:
    """Train one variant and judge its averaged weights."""
    torch.set_num_threads(threads)
    cache, config = open_cache(folder), varied(CHANGES[variant])
    train, judged = split(cache, faces)
    if variant in FACES:
        train = FACES[variant](cache, train)
    torch.manual_seed(config.optim.seed)
    model, plain = (make_network(config, folder.parent) for _ in range(2))
    loop = make_loop(model, cache, config, train, LabelTable(cache), workers=0)
    for epoch in range(config.optim.epochs):
        last = loop.run_epoch(epoch)
    plain.load_state_dict(folded_state(loop.average.model))
    plain.eval()
    val = cache.rows("val")
    figures = {
        **judge(plain, cache, config, judged),
        "val_headline": judge(plain, cache, config, val)["headline"],
        **{f"{how} headline": judge(plain, cache, config, val, how)["headline"] for how in BAD},
        "train_loss": last["train_loss"],
    }
    counts = {"faces": len(train), "steps": loop.steps}
    return {"variant": variant, **counts, **{k: round(v, 4) for k, v in figures.items()}}


def markdown(results: dict[str, Any]) -> str:
    """The table, with the difference of each row from the mean of the whole recipe's seeds."""
    rows = results["rows"]
    whole = [row for row in rows if row["variant"].startswith("the whole")]

    def bad(row: dict[str, Any]) -> float:
        return float(np.mean([row[f"{how} headline"] for how in BAD]))

    def difference(row: dict[str, Any], figure: Callable[[dict[str, Any]], float]) -> str:
        return f"{figure(row) - np.mean([figure(seed) for seed in whole]):+.2f}" if whole else NONE

    table = [
        [
            row["variant"],
            f"{row['faces']:,}",
            f"{row['steps']:,}",
            difference(row, lambda r: r["headline"]),
            difference(row, lambda r: r["val_headline"]),
            difference(row, bad),
            *(f"{row[n]:.2f}" if "mae" in n else f"{row[n]:.1%}" for n in FIGURES),
        ]
        for row in rows
    ]
    head = ["variant", "faces", "steps", "score", "on val alone", "on degraded val"]
    return f"{results['judged']}\n\n{markdown_table([*head, *FIGURES.values()], table)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/faces"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=16000, help="of train, to learn and to judge")
    parser.add_argument("--jobs", type=int, default=2, help="variants at a time, sharing the cores")
    args = parser.parse_args()
    cache = open_cache(args.cache)
    _, judged = split(cache, args.faces)
    counts = {n: int((cache.datasets[judged] == n).sum()) for n in ("utkface", "fairface")}
    text = (
        f"The face-pretrained network at {WHOLE.network.size_px} px, fine-tuned for {EPOCHS} "
        "epochs (3 where faces are shown twice), judged on val and faces kept from train: "
        f"{counts['utkface']:,} of UTKFace, {counts['fairface']:,} of FairFace. The score is the "
        "mean error in years, plus a tenth of each share that is wrong in per cent; it is given as "
        "the difference from the mean of three seeds of the whole, so that more is worse. Degraded "
        f"val: the mean of {', '.join(BAD)}."
    )
    recipe = json.loads(json.dumps(dataclasses.asdict(WHOLE)))
    about = {"judged": text, "recipe": recipe, "faces": cache.fingerprint}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    if args.out.exists():
        stored = json.loads(args.out.read_text())
        done = stored.pop("rows")
        if stored != about:
            raise SystemExit(f"{args.out} is of another recipe or other faces: name another --out")

    def write() -> None:
        order = list(CHANGES)
        rows = sorted(done, key=lambda row: order.index(row["variant"]))
        with replacing(args.out, "w") as file:
            json.dump({**about, "rows": rows}, file, indent=1)
            file.write("\n")
        args.out.with_suffix(".md").write_text(markdown({**about, "rows": rows}))

    known = {row["variant"] for row in done}
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    failed = False
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        runs = {
            pool.submit(run, args.cache, variant, args.faces, threads): variant
            for variant in CHANGES
            if variant not in known
        }
        for finished in as_completed(runs):
            try:
                done.append(finished.result())
            except Exception as error:  # the others still count
                print(f"{runs[finished]}: {error}", flush=True)
                failed = True
            else:
                print(done[-1], flush=True)
                write()
    write()
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
