"""Choose the framing of the face on val with frozen features: minutes, not hours.

    python scripts/sweep_frozen.py --cache cache/faces --out docs/results/sweep-framing.json

For each framing (distance and height of the eyes, input size) the face-pretrained backbone's
features of train and of val are computed once, and a head is trained on them. Val is small (a
standard error of 0.7 points on gender), so a sixth of train, whole duplicate groups, is kept from
the head and judged with it: the frozen backbone has seen neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import torch

from facewise.training.cache import batches, open_cache
from facewise.training.config import LossConfig, NetworkConfig, TrainConfig
from facewise.training.data import LabelTable, plain_crops, to_tensor
from facewise.training.losses import total_loss
from facewise.training.network import split_logits
from facewise.training.score import headline, score
from facewise.training.train import make_network

FRAMINGS = (
    # size_px, eye_distance, eye_height
    (160, 0.36, 0.36),
    (192, 0.30, 0.40),
    (192, 0.36, 0.36),
    (224, 0.30, 0.40),
)
EPOCHS = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/faces"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--train", type=int, default=24000, help="faces of train, to learn and judge"
    )
    args = parser.parse_args()
    cache = open_cache(args.cache)
    rng = np.random.default_rng(0)
    train = np.concatenate(
        [
            rng.permutation(cache.rows("train", name))[: args.train // 2]
            for name in ("utkface", "fairface")
        ]
    )
    kept = np.array([zlib.crc32(group.encode()) % 6 == 0 for group in cache.groups[train]])
    val = np.concatenate([cache.rows("val"), train[kept]])
    train = train[~kept]
    rows = np.concatenate([train, val])
    table = LabelTable(cache)
    results = []
    for size, distance, height in FRAMINGS:
        network = NetworkConfig(
            init="faceres", size_px=size, eye_distance=distance, eye_height=height
        )
        config = TrainConfig(name="sweep", network=network)
        torch.manual_seed(0)
        model = make_network(config).eval()
        features = []
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for part in batches(rows, 64):
                x = to_tensor(plain_crops(cache, config, part))
                x = x.contiguous(memory_format=torch.channels_last)
                features.append(model.backbone((x - model.mean) / model.std).float())
        known = torch.cat(features).clone()
        fit, judge = known[: len(train)], known[len(train) :]
        head = model.head.train()
        optimizer = torch.optim.AdamW(head.parameters(), 1e-3, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-3, total_steps=EPOCHS * (len(train) // 128)
        )
        for _ in range(EPOCHS):
            order = torch.randperm(len(train))[: len(train) // 128 * 128].view(-1, 128)
            for index in order:
                loss = total_loss(
                    head(fit[index]), table[torch.from_numpy(train)[index]], LossConfig()
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.inference_mode():
            parts = split_logits(head.eval()(judge))
        p = [part.softmax(-1).numpy() for part in (parts.ages, parts.gender, parts.ethnicity)]
        figures = score(cache, val, *p)
        row = {**dataclasses.asdict(network), **figures, "headline": headline(figures)}
        results.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
        print(size, distance, height, {k: round(v, 4) for k, v in figures.items()}, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
