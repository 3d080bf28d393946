"""A teacher that was not trained on the faces it answers for: heads on frozen networks.

A network that was fine-tuned on a face repeats that face's label, right or wrong. So nothing is
fine-tuned here: features of several pretrained networks are computed once, and two-layer heads
train on four fifths of the training faces at a time and answer for the rest (out-of-fold
prediction; Wolpert, 1992). Their answers correct labels, and their errors differ from those of a
fine-tuned network.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from facewise.files import replacing
from facewise.training.cache import FaceCache, batches
from facewise.training.checks import check_converted
from facewise.training.config import LossConfig, NetworkConfig, TrainConfig
from facewise.training.data import LabelTable, plain_crops, to_tensor
from facewise.training.losses import total_loss
from facewise.training.network import OUTPUTS, AttributeHead, make_network, probabilities
from facewise.training.precision import autocast
from facewise.training.sources import PRETRAINED
from facewise.types import FloatArray, ImageArray, IndexArray

log = logging.getLogger("facewise")


@dataclass(frozen=True, slots=True)
class Look:
    """A pretrained network and its view of a face; ``whole`` means the data set's whole picture."""

    network: NetworkConfig
    whole: bool = False


LOOKS: Final[dict[str, Look]] = {
    # As in the network's pretraining: cropped loosely, not aligned.
    "faceres-whole": Look(NetworkConfig(init="faceres", size_px=224), whole=True),
    "faceres-aligned": Look(
        NetworkConfig(init="faceres", size_px=192, eye_distance=0.31, eye_height=0.40)
    ),
    # The framing of dlib's own chips: 150 px with a padding of 0.25.
    "dlib": Look(
        NetworkConfig(
            backbone="dlib_resnet",
            init="dlib_resnet",
            size_px=150,
            eye_distance=0.35,
            eye_height=0.31,
            hidden_dim=256,
            pixel_mean=(122.782, 117.001, 104.298),
            pixel_std=256.0,
        )
    ),
}

FOLDS: Final = 5
EPOCHS: Final = 14
BATCH: Final = 256
RATE: Final = 2e-3
HIDDEN: Final = 768
DROPOUT: Final = 0.35
LIMIT: Final = 6.0
"""Standard deviations at which features are clipped."""
LOSS: Final = LossConfig(age_l1=0.4, gender=2.0, label_smoothing=0.0)


def sources() -> list[str]:
    """Data and weights behind the pretrained networks."""
    inits = dict.fromkeys(look.network.init for look in LOOKS.values())
    return [source for init in inits for source in PRETRAINED[init]]


def features(cache: FaceCache, look: Look, rows: IndexArray) -> Tensor:
    """Features of some faces, ``(N, F)``: pooled, and for faceres also its pretrained head's."""
    config = TrainConfig(name="frozen", network=look.network)
    model = make_network(config, cache.folder.parent).eval()
    hidden = model.head.hidden
    out = []
    for part in batches(rows, 64):
        crops = _whole(cache, part, look.network.size_px) if look.whole else None
        x = to_tensor(plain_crops(cache, config, part) if crops is None else crops)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(bfloat16=True):
            pooled = model.backbone((x - model.mean) / model.std).float()
        if look.network.init == "faceres":
            with torch.inference_mode():
                pooled = torch.cat([pooled, torch.relu(hidden(pooled))[:, :256]], dim=1)
        out.append(pooled)
    return torch.cat(out).clone()


def _whole(cache: FaceCache, rows: IndexArray, size_px: int) -> ImageArray:
    pictures = [cv2.resize(cache.image(int(row)), (size_px, size_px)) for row in rows]
    return np.stack([np.asarray(picture, np.uint8) for picture in pictures])


def stored_features(cache: FaceCache, name: str, rows: IndexArray) -> Tensor:
    """``features`` of a look, stored in half precision beside the face cache: they take minutes."""
    path = cache.folder.parent / f"features-{name}.npz"
    if path.exists():
        with np.load(path) as stored:
            if str(stored["fingerprint"]) == cache.fingerprint and np.array_equal(
                stored["rows"], rows
            ):
                return torch.from_numpy(stored["features"].astype(np.float32))
    log.info("features of %s: %d faces", name, len(rows))
    found = features(cache, LOOKS[name], rows).half()
    with replacing(path) as file:
        np.savez(
            file,
            features=found.numpy(),
            rows=rows,
            fingerprint=np.array(cache.fingerprint),
        )
    return found.float()


def ask_frozen(cache: FaceCache) -> tuple[FloatArray, FloatArray]:
    """Probabilities from heads not trained on the faces: ``(train, 127)`` and ``(val, 127)``.

    Train is answered fold by fold, with each duplicate group in one fold; val by the mean over all
    folds' heads. Rows are in the cache's order.

    Raises:
        OptionError: weights of a pretrained network are missing beside the cache.
    """
    for look in LOOKS.values():
        check_converted(look.network.init, cache.folder.parent)
    train, val = cache.rows("train"), cache.rows("val")
    both = np.concatenate([train, val])
    known = torch.cat([stored_features(cache, name, both) for name in LOOKS], dim=1)
    seen = known[: len(train)]
    known = ((known - seen.mean(0)) / (seen.std(0) + 1e-4)).clamp(-LIMIT, LIMIT)
    labels, rows = LabelTable(cache), torch.from_numpy(both)
    fold = torch.tensor([zlib.crc32(group.encode()) % FOLDS for group in cache.groups[train]])
    answers = torch.zeros(len(train), OUTPUTS)
    on_val = torch.zeros(len(val), OUTPUTS)
    for index in range(FOLDS):
        inside = torch.nonzero(fold != index)[:, 0]
        outside = torch.nonzero(fold == index)[:, 0]
        head = _learn(known, rows, labels, inside, seed=index)
        answers[outside] = _answers(head, known[outside])
        on_val += _answers(head, known[len(train) :]) / FOLDS
        log.info("frozen heads: fold %d of %d", index + 1, FOLDS)
    return answers.numpy(), on_val.numpy()


def _learn(
    known: Tensor, rows: Tensor, labels: LabelTable, inside: Tensor, *, seed: int
) -> nn.Module:
    """Train a head on the faces ``inside``, which are positions in ``known`` and ``rows``."""
    torch.manual_seed(seed)
    head = AttributeHead(known.shape[1], HIDDEN, DROPOUT).train()
    batch = min(BATCH, len(inside))
    steps = EPOCHS * (len(inside) // batch)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for index in _batches(inside, batch):
        loss = total_loss(head(known[index]), labels[rows[index]], LOSS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def _batches(inside: Tensor, batch: int) -> Iterator[Tensor]:
    for _ in range(EPOCHS):
        order = inside[torch.randperm(len(inside))]
        yield from order[: len(inside) // batch * batch].view(-1, batch)


def _answers(head: nn.Module, known: Tensor) -> Tensor:
    with torch.inference_mode():
        return probabilities(head(known))
