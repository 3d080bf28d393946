"""Checks of a training run before minutes or hours are spent on it, and of an existing run."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from facewise.data.sets import DataSet, Sample
from facewise.errors import OptionError
from facewise.labels import range_groups
from facewise.training.backbones import TimmBackbone
from facewise.training.config import TrainConfig, differences, load_config
from facewise.training.data import check_batch, check_teacher
from facewise.training.network import CONVERTED, make_network, other_weights
from facewise.training.sources import sources

log = logging.getLogger("facewise")

MAKERS: Final = {
    ".pt": "facewise train leaves it in the folder of its run",
    ".onnx": "facewise export writes it",
    ".npz": "facewise teach writes it",
}


def check_run(
    config: TrainConfig, folder: Path, *, converted: Path, fingerprint: str
) -> dict[str, Any] | None:
    """Check that a run can start or resume, before minutes or hours are spent on it.

    Args:
        config: of the run.
        folder: of the run, existing or not.
        converted: folder of the weights converted by scripts.
        fingerprint: of the face cache.

    Returns:
        The state to resume from; None for a new run.

    Raises:
        OptionError: the folder holds a run with another config, or one started with other faces,
            landmarks or files; or a file that the run needs is missing or does not fit.
    """
    path = folder / "config.json"
    learnt = any((folder / name).exists() for name in ("best.pt", "last.pt"))
    if learnt and path.exists() and (other := differences(load_config(path), config)):
        raise OptionError(
            f"{folder} holds a run with another config, {other}: rename your config, or "
            "remove the run"
        )
    state: dict[str, Any] | None = None
    if (folder / "last.pt").exists():
        state = torch.load(folder / "last.pt", weights_only=True)
        if state["fingerprint"] != fingerprint:
            raise OptionError(
                f"{folder} holds a run that began with other faces or landmarks: rename your "
                "config, or remove the run to start over"
            )
        if state["epoch"] >= config.optim.epochs:
            return state
    _check_files(config, converted)
    files = files_behind(config, converted)
    if state is not None and (changed := _unlike(state["files"], files)):
        raise OptionError(
            f"{folder} holds a run that began with another file as {' and '.join(changed)}: "
            "restore that file, or remove the run to start over"
        )
    return state


def files_behind(config: TrainConfig, converted: Path) -> dict[str, str]:
    """SHA-256 of the files that a run depends on besides its faces, by option."""
    return {
        option: hashlib.sha256(path.read_bytes()).hexdigest()
        for option, path in _named_files(config, converted).items()
    }


def _named_files(config: TrainConfig, converted: Path) -> dict[str, Path]:
    init = config.network.init
    named = {
        "init": converted / f"{init}.pt" if init in CONVERTED else init,
        "mixed": config.optim.mixed,
        "teacher": config.loss.teacher,
    }
    return {option: Path(name) for option, name in named.items() if name not in ("", "random")}


def _unlike(stored: dict[str, str], files: dict[str, str]) -> list[str]:
    return [option for option, digest in files.items() if stored.get(option) != digest]


def check_checkpoint(config: TrainConfig, checkpoint: Path) -> None:
    """Check that a checkpoint belongs to a config's run; warn if that run is unfinished.

    Framing, preprocessing and the weights' sources are read from the config, and nothing in the
    weights would reveal that they were trained with another.

    Raises:
        OptionError: the checkpoint or its ``config.json`` is missing, or the config differs.
    """
    if not checkpoint.exists():
        raise OptionError(f"{checkpoint} is missing: train {config.name} first")
    path = checkpoint.with_name("config.json")
    if not path.exists():
        raise OptionError(
            f"{path}, which says how {checkpoint.name} was trained, is missing: copy it from the "
            "folder of its run"
        )
    if other := differences(load_config(path), config):
        raise OptionError(
            f"{checkpoint} was trained with another config, {other}: correct yours, or use "
            f"{path} instead"
        )
    last = checkpoint.with_name("last.pt")
    if last.exists():
        epoch = torch.load(last, weights_only=True, mmap=True)["epoch"]
        if epoch < config.optim.epochs:
            log.warning(
                "%s is from a run that has done %d of %d epochs: facewise train resumes it",
                checkpoint,
                epoch,
                config.optim.epochs,
            )


def check_splits(sets: Iterable[DataSet], wanted: Iterable[str]) -> None:
    """Check that there are faces to train on, and faces to choose a checkpoint by.

    Raises:
        OptionError: one of the wanted data sets has no face in train, or none in val.
    """
    there = {(s.dataset, s.split) for data_set in sets for s in data_set.samples}
    for name in wanted:
        if not {(name, "train"), (name, "val")} <= there:
            if name == "csv":
                raise OptionError(
                    "no picture of a CSV is in the split train, or none in val: pass the CSV as "
                    "--data, and give it a column split, or name a list of splits with --splits "
                    "(`facewise dedupe` writes one)"
                )
            raise OptionError(
                f"no face of {name} is in the split train, or none in val: put utkface_splits.csv "
                "beside the pictures, and a column split into fairface_labels.csv "
                "(`facewise dedupe` writes splits)"
            )


def check_samples(config: TrainConfig, samples: Iterable[Sample]) -> None:
    """Check that a run has enough faces to train on, and labels to choose its checkpoint by.

    Raises:
        OptionError: the faces do not fill a batch, or no face of val has a label that is scored.
    """
    mine = [s for s in samples if s.dataset in config.datasets]
    check_batch(sum(s.split == "train" for s in mine), config.optim.batch_size)
    val = [s for s in mine if s.split == "val"]
    groups = range_groups(np.array([s.age_range or (0, 0) for s in val]).reshape(-1, 2))
    if (groups < 0).all() and all((s.gender, s.ethnicity) == (None, None) for s in val):
        raise OptionError(
            "no picture of the split val has a label to choose a checkpoint by: a gender, an "
            "ethnicity, a year, or a range within one of FairFace's age groups"
        )


def check_converted(init: str, converted: Path) -> None:
    """Check that weights converted by a script are present.

    Raises:
        OptionError: they are missing; the message names the script.
    """
    path = converted / f"{init}.pt"
    if init in CONVERTED and not path.exists():
        raise OptionError(f"{path} is missing: run {CONVERTED[init]} {path} (docs/training.md)")


def _check_files(config: TrainConfig, converted: Path) -> None:
    """Check that files exist and state their sources, and that weights and pictures fit.

    The network is built and run for it.
    """
    check_converted(config.network.init, converted)
    for option, path in _named_files(config, converted).items():
        if not path.is_file():
            maker = MAKERS.get(path.suffix, f"known are random, {', '.join(CONVERTED)}")
            raise OptionError(f"{option} = {str(path)!r}: there is no such file; {maker}")
    network = make_network(config, converted)
    size = config.network.size_px
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:  # assertions are timm's
        raise OptionError(
            f"{config.network.backbone} cannot take pictures of {size} px ({error}): change size_px"
        ) from error
    network.backbone.freeze_stages(config.optim.frozen_stages)
    if isinstance(network.backbone, TimmBackbone) and config.optim.layer_decay != 1:
        raise OptionError("layer_decay is known for facewise's own backbones only; use 1.0")
    convolutions = [m for m in network.backbone.modules() if isinstance(m, nn.Conv2d)]
    if config.optim.batch_norm and any(conv.bias is None for conv in convolutions):
        raise OptionError(
            f"batch_norm = true adds norms to a backbone that has none, and "
            f"{config.network.backbone} has its own: leave it out of [optim]"
        )
    if config.optim.mixed:
        other_weights(network, Path(config.optim.mixed))
    if config.loss.teacher:
        check_teacher(Path(config.loss.teacher))
    sources(config)
