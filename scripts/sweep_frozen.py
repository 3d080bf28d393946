"""Compare framings or head recipes on val with frozen features: minutes, not hours.

    python scripts/sweep_frozen.py framing --out docs/results/sweep-framing.json
    python scripts/sweep_frozen.py head --out docs/results/ablation-head.json

``framing`` computes the face-pretrained backbone's features for each framing of the face (input
size, distance and height of the eyes) and trains one head on each. ``head`` computes them once and
removes one ingredient of the head's training at a time. A Markdown table is written beside the
JSON. Val is small (a standard error of 0.7 points on gender), so a sixth of train, in whole
duplicate groups, is withheld from the head and added to it: the frozen backbone has seen neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facewise.reporting.report import markdown_table
from facewise.training.cache import FaceCache, batches, open_cache
from facewise.training.config import LossConfig, NetworkConfig, TrainConfig
from facewise.training.data import LabelTable, plain_crops, to_tensor
from facewise.training.losses import total_loss
from facewise.training.network import PARTS, AttributeNetwork, make_network, probabilities
from facewise.training.precision import autocast
from facewise.training.score import headline, score
from facewise.types import IndexArray

FRAMINGS = (
    # size_px, eye_distance, eye_height
    (160, 0.28, 0.44),
    (160, 0.32, 0.40),
    (160, 0.36, 0.36),
    (160, 0.40, 0.33),
    (192, 0.32, 0.40),
    (192, 0.36, 0.36),
)
RECIPE = LossConfig(age_l1=0.4, gender=2.0, label_smoothing=0.0)
WHOLE = "the loss of stages two to four"
HEADS: dict[str, tuple[LossConfig, dict[str, Any]]] = {
    WHOLE: (RECIPE, {}),
    "expected age not pulled (age_l1 = 0)": (dataclasses.replace(RECIPE, age_l1=0.0), {}),
    "a sharper bell (sigma = 1 year)": (dataclasses.replace(RECIPE, age_sigma_years=1.0), {}),
    "a wider bell (sigma = 4 years)": (dataclasses.replace(RECIPE, age_sigma_years=4.0), {}),
    "gender weighs 1": (dataclasses.replace(RECIPE, gender=1.0), {}),
    "labels smoothed by 0.05": (dataclasses.replace(RECIPE, label_smoothing=0.05), {}),
    "without FairFace": (RECIPE, {"datasets": ("utkface",)}),
    "without UTKFace": (RECIPE, {"datasets": ("fairface",)}),
    "without the pretrained head": (RECIPE, {"init": "random"}),
}
EPOCHS = 14
BATCH = 128


def features(cache: FaceCache, network: NetworkConfig, rows: IndexArray) -> Tensor:
    """Pooled features of the face-pretrained backbone, ``(N, 1024)``."""
    config = TrainConfig(name="sweep", network=network)
    model = make_network(config, cache.folder.parent).eval()
    out = []
    with torch.inference_mode(), autocast(bfloat16=True):
        for part in batches(rows, 64):
            x = to_tensor(plain_crops(cache, config, part))
            x = x.contiguous(memory_format=torch.channels_last)
            out.append(model.backbone((x - model.mean) / model.std).float())
    return torch.cat(out).clone()


def train_head(
    cache: FaceCache,
    network: NetworkConfig,
    known: Tensor,
    train: IndexArray,
    loss_config: LossConfig,
    *,
    fresh: bool = False,
    seed: int = 0,
) -> AttributeNetwork:
    """A network of which only the head was trained, on the features of ``train``.

    Args:
        known: features of the whole cache by row; rows in neither list are not read.
        fresh: start from a random head instead of the pretrained one.
    """
    torch.manual_seed(seed)
    model = make_network(TrainConfig(name="sweep", network=network), cache.folder.parent)
    if fresh:
        for layer in (model.head.hidden, model.head.output):
            layer.reset_parameters()
    head = model.head.train()
    table = LabelTable(cache)
    steps = EPOCHS * (len(train) // BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    rows = torch.from_numpy(train)
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows))[: len(rows) // BATCH * BATCH].view(-1, BATCH)
        for index in order:
            loss = total_loss(head(known[rows[index]]), table[rows[index]], loss_config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def fit_head(
    cache: FaceCache,
    network: NetworkConfig,
    known: Tensor,
    train: IndexArray,
    judge: IndexArray,
    loss_config: LossConfig,
    *,
    fresh: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Train a head on the features of ``train`` and score it on those of ``judge``."""
    model = train_head(cache, network, known, train, loss_config, fresh=fresh, seed=seed)
    with torch.inference_mode():
        p = probabilities(model.head(known[torch.from_numpy(judge)])).numpy()
    figures = score(cache, judge, *np.split(p, PARTS, axis=1))
    return {**figures, "headline": headline(figures)}


def split(cache: FaceCache, count: int) -> tuple[IndexArray, IndexArray]:
    """Rows to learn from and rows to judge by."""
    train = np.random.default_rng(0).permutation(cache.rows("train"))[:count]
    kept = np.array([zlib.crc32(group.encode()) % 6 == 0 for group in cache.groups[train]])
    return train[~kept], np.concatenate([cache.rows("val"), train[kept]])


def markdown(rows: list[dict[str, object]], judged: str) -> str:
    names = ["variant", "utkface_mae", "utkface_cs5", "utkface_gender", "utkface_ethnicity"]
    names += ["fairface_gender", "fairface_ages", "fairface_ages_within_one", "fairface_ethnicity"]
    table = [
        [
            row[n] if n == "variant" else f"{row[n]:.2f}" if "mae" in n else f"{row[n]:.1%}"
            for n in names
        ]
        for row in rows
    ]
    return f"{judged}\n\n{markdown_table([n.replace('_', ' ') for n in names], table)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("framing", "head"))
    parser.add_argument("--cache", type=Path, default=Path("cache/faces"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=24000, help="of train, to learn and to judge")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    cache = open_cache(args.cache)
    train, judge = split(cache, args.faces)
    both = np.concatenate([train, judge])
    results: list[dict[str, object]] = []

    def known_for(network: NetworkConfig) -> Tensor:
        known = torch.zeros(len(cache), 1024)
        known[torch.from_numpy(both)] = features(cache, network, both)
        return known

    def note(variant: str, figures: dict[str, float]) -> None:
        results.append({"variant": variant, **{k: round(v, 4) for k, v in figures.items()}})
        print(results[-1], flush=True)

    if args.what == "framing":
        for size, distance, height in FRAMINGS:
            network = NetworkConfig(
                init="faceres", size_px=size, eye_distance=distance, eye_height=height
            )
            known = known_for(network)
            figures = fit_head(cache, network, known, train, judge, RECIPE)
            note(f"{size} px, eyes {distance:g} apart, {height:g} down", figures)
    else:
        network = NetworkConfig(init="faceres", size_px=192, eye_distance=0.31, eye_height=0.40)
        known = known_for(network)
        for variant, (loss, changes) in HEADS.items():
            datasets = changes.get("datasets", ("utkface", "fairface"))
            mine = train[np.isin(cache.datasets[train], datasets)]
            fresh = changes.get("init") == "random"
            note(variant, fit_head(cache, network, known, mine, judge, loss, fresh=fresh))
        for seed in (1, 2):
            figures = fit_head(cache, network, known, train, judge, RECIPE, seed=seed)
            note(f"{WHOLE}, seed {seed}", figures)
    counts = {n: int((cache.datasets[judge] == n).sum()) for n in ("utkface", "fairface")}
    judged = (
        f"Frozen face-pretrained features, a head trained on {len(train)} faces, judged on val and "
        f"faces kept from train: {counts['utkface']} of UTKFace, {counts['fairface']} of FairFace."
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"judged": judged, "rows": results}, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(markdown(results, judged))


if __name__ == "__main__":
    main()
