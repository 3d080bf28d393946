"""The training loop, from a config to a checkpoint.

A run is a folder with ``config.json``, ``log.csv`` (one row per epoch), ``curve.png``, ``last.pt``
(everything needed to resume) and ``best.pt`` (averaged weights of the best epoch on val).
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from facewise.errors import OptionError
from facewise.files import replacing, write_csv, write_json
from facewise.progress import bar
from facewise.training.cache import FaceCache, batches, open_cache
from facewise.training.checks import check_run, files_behind
from facewise.training.config import TrainConfig
from facewise.training.data import (
    LabelTable,
    make_loader,
    plain_crops,
    read_teacher,
    to_tensor,
    warn_of_unlabelled,
)
from facewise.training.losses import total_loss
from facewise.training.network import (
    PARTS,
    AttributeNetwork,
    make_network,
    other_weights,
    probabilities,
)
from facewise.training.precision import autocast
from facewise.training.renorm import add_batch_norm, folded_state
from facewise.training.score import headline, in_words, score
from facewise.types import FloatArray, IndexArray

log = logging.getLogger("facewise")

LOG_EVERY: Final = 50
"""Steps between two log lines if no progress bar can be drawn."""

AT_ONCE: Final = 128
"""Batch size for inference."""

TIE: Final = 0.02
"""Tolerance of the headline figure, far below val's noise, within which the later epoch wins,
because its learning rate is lower."""
NORM_BATCHES: Final = 32
"""Batches on which statistics for new batch norms are measured."""


def parameter_groups(model: AttributeNetwork, config: TrainConfig) -> list[dict[str, Any]]:
    """Layer-wise learning rates: each block of the backbone learns slower than the one above."""
    optim = config.optim
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    depths = {name: _depth(name) for name in names}
    deepest = max(depths.values())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("head."):
            rate = optim.lr_head
        else:
            rate = optim.lr_backbone * optim.layer_decay ** (deepest - depths[name])
        decay = 0.0 if parameter.ndim <= 1 else optim.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay, "peak_lr": rate}
        for (rate, decay), parameters in groups.items()
    ]


def _depth(name: str) -> int:
    """The block a backbone parameter belongs to: the first number in its name, 0 for a stem."""
    return next((int(part) + 1 for part in name.split(".") if part.isdigit()), 0)


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the peak.

    The warm-up takes at most a tenth of the steps, so that a short run does not end during it.
    """
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def predict(
    model: AttributeNetwork,
    cache: FaceCache,
    config: TrainConfig,
    rows: IndexArray,
    *,
    flip: bool = False,
) -> FloatArray:
    """Probabilities ``(N, 127)`` for some rows, on crops cut as in serving."""
    model.eval()
    outputs = []
    for part in batches(rows, AT_ONCE):
        x = to_tensor(plain_crops(cache, config, part)).contiguous(
            memory_format=torch.channels_last
        )
        views = [x, x.flip(-1)] if flip else [x]
        with torch.inference_mode(), autocast(bfloat16=config.optim.bfloat16):
            p = torch.stack([probabilities(model(view)) for view in views]).mean(0)
        outputs.append(p.numpy())
    return np.concatenate(outputs)


def evaluate(
    model: AttributeNetwork, cache: FaceCache, config: TrainConfig, rows: IndexArray
) -> dict[str, float]:
    """Figures of a model over some rows; see ``facewise.training.score``."""
    p = predict(model, cache, config, rows)
    return score(cache, rows, *np.split(p, PARTS, axis=1))


class Average:
    """Exponential moving average of weights, with a short memory at first to be usable early."""

    def __init__(self, model: AttributeNetwork, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, model: AttributeNetwork) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for buffer, source in zip(self.model.buffers(), model.buffers(), strict=True):
            if buffer.is_floating_point():
                buffer.lerp_(source, 1 - decay)
            else:
                buffer.copy_(source)


class Loop:
    """All that training changes from step to step, and what the steps need."""

    def __init__(
        self, model: AttributeNetwork, config: TrainConfig, loader: Any, labels: LabelTable
    ) -> None:
        self.model, self.config, self.loader, self.labels = model, config, loader, labels
        self.average = Average(model, config.optim.ema_decay)
        self.optimizer = torch.optim.AdamW(parameter_groups(model, config), betas=(0.9, 0.99))
        self.step, self.steps = 0, len(loader) * config.optim.epochs

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on after the last epoch."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.steps = state["average_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Learn once from each training face; return the mean loss and the speed."""
        optim = self.config.optim
        self.loader.batch_sampler.epoch = epoch
        torch.manual_seed(hash((optim.seed, epoch)) & 0x7FFFFFFF)  # dropout, when resumed
        self.model.train()
        losses: list[float] = []
        begun = time.monotonic()
        columns = (
            *Progress.get_default_columns()[:2],
            TextColumn("{task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
        )
        with bar(*columns) as progress:
            task = progress.add_task(f"epoch {epoch + 1}", total=len(self.loader), rate=0.0)
            for pictures, rows in self.loader:
                losses.append(self._learn(pictures, rows))
                rate = len(losses) * optim.batch_size / (time.monotonic() - begun)
                progress.update(task, advance=1, rate=rate)
                if progress.disable and len(losses) % LOG_EVERY == 0:
                    log.info("step %d of %d, %.0f images/s", len(losses), len(self.loader), rate)
        return {"train_loss": float(np.mean(losses)), "images_per_second": rate}

    def _learn(self, pictures: Tensor, rows: Tensor) -> float:
        """Take one step; return its loss."""
        optim = self.config.optim
        factor = learning_rate_factor(self.step, self.steps, optim.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        x = pictures.float().contiguous(memory_format=torch.channels_last)
        with autocast(bfloat16=optim.bfloat16):
            logits = self.model(x)
        loss = total_loss(logits, self.labels[rows], self.config.loss)
        if not bool(torch.isfinite(loss)):
            raise OptionError(f"the loss is {loss.item()} at step {self.step}: lower lr_backbone")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), optim.gradient_clip)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        return float(loss.detach())


def make_loop(
    model: AttributeNetwork,
    cache: FaceCache,
    config: TrainConfig,
    rows: IndexArray,
    labels: LabelTable,
    *,
    workers: int = 1,
) -> Loop:
    """Prepare a network for training on ``rows`` of the cache: frozen stages, batch norms, batches.

    The network is changed in place, but computes the same until the first step.
    """
    loader = make_loader(cache, config, rows, workers)
    model.backbone.freeze_stages(config.optim.frozen_stages)
    if config.optim.batch_norm:
        add_batch_norm(model.backbone, _normalised(model, loader))
    return Loop(model, config, loader, labels)


def train(
    config: TrainConfig,
    *,
    cache_folder: Path,
    runs_folder: Path,
    workers: int = 1,
    threads: int | None = None,
    minutes: float | None = None,
) -> Path:
    """Start or resume the run ``runs_folder / config.name``.

    Args:
        config: of the run; an existing run must have been started with the same one.
        cache_folder: of ``facewise.training.cache.build_cache``; weights converted by scripts are
            beside it.
        runs_folder: parent folder of runs.
        workers: processes for augmentation.
        threads: of PyTorch; None for its default.
        minutes: stop after the epoch in which this time has passed; call again to resume.

    Returns:
        The run's folder.

    Raises:
        OptionError: the run cannot start or resume (see ``check_run``), its teacher is for other
            faces, there are too few faces to train on, or the loss is not finite.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(config.optim.seed)
    folder, converted = runs_folder / config.name, cache_folder.parent
    cache = open_cache(cache_folder)
    state = check_run(config, folder, converted=converted, fingerprint=cache.fingerprint)
    if state is not None and state["epoch"] >= config.optim.epochs:
        log.info("%s is finished", folder)
        plot_curve(folder)
        return folder
    files = files_behind(config, converted)
    for name, split in itertools.product(config.datasets, ("train", "val")):
        if not len(cache.rows(split, name)):
            raise OptionError(
                f"no picture of {name} in the split {split} can be read: check --data"
            )
    warn_of_unlabelled(cache, config.datasets)
    train_rows, val_rows = (cache.rows(split, *config.datasets) for split in ("train", "val"))
    teacher = read_teacher(Path(config.loss.teacher), cache) if config.loss.teacher else None
    labels = LabelTable(cache, teacher)
    model = make_network(config, converted)
    kept = copy.deepcopy(model)
    mixed = [(config.optim.start_share, copy.deepcopy(model.state_dict()))]
    if config.optim.mixed:
        mixed.append((config.optim.mixed_share, other_weights(model, Path(config.optim.mixed))))
    loop = make_loop(model, cache, config, train_rows, labels, workers=workers)
    first_epoch, best = 0, math.inf
    if state is not None:
        loop.restore(state)
        first_epoch, best = state["epoch"], state["best"]
        log.info("resuming after epoch %d of %d", first_epoch, config.optim.epochs)

    write_json(folder / "config.json", dataclasses.asdict(config))
    started = time.monotonic()
    for epoch in range(first_epoch, config.optim.epochs):
        figures = loop.run_epoch(epoch)
        kept.load_state_dict(blended(folded_state(loop.average.model), mixed))
        figures |= evaluate(kept, cache, config, val_rows)
        figures["headline"] = headline(figures)
        _log_row(folder / "log.csv", {"epoch": epoch + 1, **figures})
        log.info("epoch %d: %s", epoch + 1, in_words(figures))
        if figures["headline"] < best + TIE:
            best = min(best, figures["headline"])
            _save(folder / "best.pt", {"model": kept.state_dict(), "figures": figures})
        reached = {"epoch": epoch + 1, "best": best}
        behind = {"fingerprint": cache.fingerprint, "files": files}
        _save(folder / "last.pt", loop.state() | reached | behind)
        over = minutes is not None and time.monotonic() - started > minutes * 60
        if over and epoch + 1 < config.optim.epochs:
            log.info("stopping after %.0f minutes; run again to resume", minutes)
            break
    plot_curve(folder)
    return folder


def blended(
    state: dict[str, Tensor], others: Sequence[tuple[float, Mapping[str, Tensor]]]
) -> dict[str, Tensor]:
    """Mix a run's weights with its initial weights or another run's, each with its share.

    See WiSE-FT and model soups (Wortsman et al., 2022). Tensors that are not floating-point stay
    the run's own.
    """
    own = 1 - sum(share for share, _ in others)
    return {
        name: own * tensor + sum(share * other[name] for share, other in others)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in state.items()
    }


def _normalised(model: AttributeNetwork, loader: Any) -> Iterator[Tensor]:
    """The backbone's input for a run's first batches."""
    assert isinstance(model.mean, Tensor)
    for pictures, _ in itertools.islice(loader, NORM_BATCHES):
        yield (pictures.float().contiguous(memory_format=torch.channels_last) - model.mean) / (
            model.std
        )


def _save(path: Path, state: dict[str, Any]) -> None:
    with replacing(path) as file:
        torch.save(state, file)


def _log_row(path: Path, row: dict[str, float]) -> None:
    """Add an epoch's row, replacing later ones: a run stopped before saving repeats an epoch."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if int(r["epoch"]) < row["epoch"]]
    write_csv(path, list(row), [*rows, {k: round(v, 5) for k, v in row.items()}])


def plot_curve(folder: Path) -> None:
    """Draw ``curve.png`` from ``log.csv``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown = [n for n in rows[0] if n not in ("epoch", "images_per_second")] if rows else []
    figure, axes = plt.subplots(
        math.ceil(len(shown) / 3) or 1, 3, figsize=(11, 2.4 * math.ceil(len(shown) / 3) + 1)
    )
    for name, axis in zip(shown, np.ravel(axes), strict=False):
        axis.plot([int(r["epoch"]) for r in rows], [float(r[name]) for r in rows], marker=".")
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "curve.png", dpi=110)
    plt.close(figure)
