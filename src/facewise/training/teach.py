"""A teacher's answers: the average over several runs and several views of each face.

A student (``[loss] teacher`` and ``distill`` in its config) learns from them what a single network
cannot produce in one pass (Hinton et al., 2015).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from facewise.files import replacing
from facewise.training.cache import FaceCache
from facewise.training.config import TrainConfig
from facewise.training.export import load_checkpoint
from facewise.training.frozen import ask_frozen
from facewise.training.frozen import sources as frozen_sources
from facewise.training.network import OUTPUTS, PARTS
from facewise.training.score import score
from facewise.training.sources import DATASETS, sources
from facewise.training.train import predict
from facewise.types import FloatArray, IndexArray

log = logging.getLogger("facewise")

View = tuple[float, bool]
"""Eye distance relative to the config's framing, and whether the mirror image is averaged in."""

ONE_VIEW: Final[tuple[View, ...]] = ((1.0, False),)
SIX_VIEWS: Final[tuple[View, ...]] = ((0.94, True), (1.0, True), (1.06, True))


def ask(
    members: Sequence[tuple[TrainConfig, Path]],
    cache: FaceCache,
    rows: IndexArray,
    views: Sequence[View] = SIX_VIEWS,
) -> FloatArray:
    """Mean probabilities ``(N, 127)`` of some faces: 120 ages, 2 genders, 5 ethnicities.

    Args:
        members: config and checkpoint of each; sizes and framings may differ.
        cache: holds the faces.
        rows: the faces to ask about.
        views: the views averaged for each member.
    """
    total = np.zeros((len(rows), OUTPUTS), np.float32)
    for config, checkpoint in members:
        model = load_checkpoint(config, checkpoint)
        for scale, mirrored in views:
            network = dataclasses.replace(
                config.network, eye_distance=config.network.eye_distance * scale
            )
            view = dataclasses.replace(config, network=network)
            total += predict(model, cache, view, rows, flip=mirrored)
            log.info("%s at %.2f: %d faces", config.name, scale, len(rows))
    return total / np.float32(len(members) * len(views))


def write_teacher(
    members: Sequence[tuple[TrainConfig, Path]],
    cache: FaceCache,
    out: Path,
    views: Sequence[View] = SIX_VIEWS,
    *,
    frozen_share: float = 0.0,
) -> dict[str, float]:
    """Write the file for ``[loss] teacher``: one row per face of the cache, zeros outside train.

    It also names the members' sources, for the specs of its students.

    Args:
        members: as for ``ask``.
        cache: holds the faces.
        out: the file to write.
        views: as for ``ask``.
        frozen_share: weight of heads on frozen networks (``facewise.training.frozen``), 0 to 1.

    Returns:
        The teacher's own figures on val, as a run logs them.
    """
    # First, so that a member without sources fails before hours of inference.
    behind = dict.fromkeys(source for config, _ in members for source in sources(config))
    train, val = cache.rows("train"), cache.rows("val")
    if frozen_share:  # its heads learn from every label of the cache
        behind |= dict.fromkeys(DATASETS[name] for name in np.unique(cache.datasets[train]))
        behind |= dict.fromkeys(frozen_sources())
    on_train, on_val = ask_frozen(cache) if frozen_share else (0.0, 0.0)
    own_share = 1 - frozen_share
    p = own_share * ask(members, cache, val, views) + frozen_share * on_val
    figures = score(cache, val, *np.split(p, PARTS, axis=1))
    log.info("on val %s", {name: round(value, 4) for name, value in figures.items()})
    probabilities = np.zeros((len(cache), OUTPUTS), np.float16)
    own = ask(members, cache, train, views)
    probabilities[train] = own_share * own + frozen_share * on_train
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as file:
        np.savez(
            file,
            probabilities=probabilities,
            sources=np.array(list(behind), np.str_),
            fingerprint=np.array(cache.fingerprint),
        )
    return figures
