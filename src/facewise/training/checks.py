"""What can be told of a run before minutes or hours are spent on it, and of one that is there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from facewise.datasets import DataSet, Sample
from facewise.errors import OptionError
from facewise.labels import range_groups
from facewise.training.config import TrainConfig, differences, load_config
from facewise.training.data import check_batch, check_teacher
from facewise.training.network import CONVERTED, make_network, other_weights

log = logging.getLogger("facewise")

MAKERS: Final = {
    ".pt": "facewise train leaves it in the folder of its run",
    ".onnx": "facewise export writes it",
    ".npz": "facewise teach writes it",
}


def check_run(
    config: TrainConfig, folder: Path, *, converted: Path, fingerprint: str
) -> dict[str, Any] | None:
    """See that a run can begin or go on, before minutes or hours are spent on it.

    Args:
        config: of the run.
        folder: of the run, whether it is there or not.
        converted: folder of the weights that scripts convert.
        fingerprint: of the face cache.

    Returns:
        What the run goes on from; None if it is a new one.

    Raises:
        OptionError: the folder holds a run with another config, or one that began on other faces,
            landmarks or weights; or a file that the run needs is missing or does not fit it.
    """
    path = folder / "config.json"
    if path.exists() and (other := differences(load_config(path), config)):
        raise OptionError(
            f"{folder} holds a run with another config, {other}: rename your config, or "
            "remove the run"
        )
    state: dict[str, Any] | None = None
    if (folder / "last.pt").exists():
        state = torch.load(folder / "last.pt", weights_only=True)
        finished = state["epoch"] >= config.optim.epochs
        # Runs of older versions do not say; one that is finished reads no face any more.
        if state.get("fingerprint", fingerprint if finished else "") != fingerprint:
            raise OptionError(
                f"{folder} holds a run that began with other faces or landmarks: rename your "
                "config, or remove the run to start over"
            )
        if finished:
            return state
    _check_files(config, converted)
    files = files_behind(config, converted)
    # Runs of older versions do not say.
    if state is not None and (changed := _unlike(state.get("files", files), files)):
        raise OptionError(
            f"{folder} holds a run that began with another file as {' and '.join(changed)}: "
            "restore that file, or remove the run to start over"
        )
    return state


def files_behind(config: TrainConfig, converted: Path) -> dict[str, str]:
    """SHA-256 of the files that a run goes by besides its faces, by option."""
    init = config.network.init
    named = {
        "init": str(converted / f"{init}.pt") if init in CONVERTED else init,
        "mixed": config.optim.mixed,
        "teacher": config.loss.teacher,
    }
    return {
        option: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for option, name in named.items()
        if name not in ("", "random")
    }


def _unlike(stored: dict[str, str], files: dict[str, str]) -> list[str]:
    return [option for option, digest in files.items() if stored.get(option) != digest]


def check_checkpoint(config: TrainConfig, checkpoint: Path) -> None:
    """See that a checkpoint is of the run that a config describes; warn where that is unfinished.

    Framing, preprocessing and what is behind the weights are read from the config, and nothing in
    the weights would tell that they learnt by another.

    Raises:
        OptionError: there is no such checkpoint, no ``config.json`` beside it, or another config.
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
    """See that there are faces to learn from and faces to choose by.

    Raises:
        OptionError: one of the data sets that are wanted has none in train, or none in val.
    """
    there = {(s.dataset, s.split) for data_set in sets for s in data_set.samples}
    for name in wanted:
        if not {(name, "train"), (name, "val")} <= there:
            if name == "csv":
                raise OptionError(
                    "no picture of a CSV is in the split train, or none in val: pass the CSV as "
                    "--data, and give it a column split (`facewise dedupe` writes splits)"
                )
            raise OptionError(
                f"no face of {name} is in the split train, or none in val: put utkface_splits.csv "
                "beside the pictures, and a column split into fairface_labels.csv "
                "(`facewise dedupe` writes splits)"
            )


def check_samples(config: TrainConfig, samples: Iterable[Sample]) -> None:
    """See that a run has faces enough to learn from, and labels to choose its checkpoint by.

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
    """See that the weights that a script converts are there.

    Raises:
        OptionError: they are not; it says which script writes them.
    """
    path = converted / f"{init}.pt"
    if init in CONVERTED and not path.exists():
        raise OptionError(f"{path} is missing: run {CONVERTED[init]} {path} (docs/training.md)")


def _check_files(config: TrainConfig, converted: Path) -> None:
    """Files that are there, and weights that fit the network: it is built to see."""
    init = config.network.init
    check_converted(init, converted)
    named = {"init": init, "mixed": config.optim.mixed, "teacher": config.loss.teacher}
    for option, name in named.items():
        if name not in ("", "random", *CONVERTED) and not Path(name).is_file():
            maker = MAKERS.get(Path(name).suffix, f"known are random, {', '.join(CONVERTED)}")
            raise OptionError(f"{option} = {name!r}: there is no such file; {maker}")
    network = make_network(config, converted)
    network.backbone.freeze_stages(config.optim.frozen_stages)
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
