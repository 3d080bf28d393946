"""The network: a backbone and one head for age, gender and ethnicity."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from facewise.errors import OptionError
from facewise.labels import DECADE_LABELS, ETHNICITY_LABELS, GENDER_LABELS
from facewise.training.backbones import MobileNetV1, make_backbone
from facewise.training.config import MEAN_RGB, TrainConfig

log = logging.getLogger("facewise")

AGES: Final = 120
GENDERS: Final = len(GENDER_LABELS)
ETHNICITIES: Final = len(ETHNICITY_LABELS)
DECADES: Final = len(DECADE_LABELS)
OUTPUTS: Final = AGES + GENDERS + ETHNICITIES
PARTS: Final = (AGES, AGES + GENDERS)
"""Where the outputs for gender and ethnicity begin, in the form that ``numpy.split`` takes."""

CONVERTED: Final = {
    "faceres": "python scripts/convert_faceres.py package/models/faceres-deep.json",
    "dlib_resnet": "python scripts/convert_dlib.py cache/packages",
}
"""Pretrained starts by name, and the command that writes each one's file beside the cache."""


@dataclass(frozen=True, slots=True)
class Logits:
    """Raw outputs: ages ``(N, 120)``, gender ``(N, 2)``, ethnicity ``(N, 5)``."""

    ages: Tensor
    gender: Tensor
    ethnicity: Tensor


class AttributeHead(nn.Module):
    """Features to 127 logits through one hidden layer: ``(N, F)`` to ``(N, 127)``.

    With ``by_decade``, each of twelve age logits stands for all the years of its decade.
    """

    def __init__(
        self, feature_dim: int, hidden_dim: int, dropout: float, *, by_decade: bool = False
    ) -> None:
        super().__init__()
        self.by_decade = by_decade
        outputs = DECADES + GENDERS + ETHNICITIES if by_decade else OUTPUTS
        self.hidden = nn.Linear(feature_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_dim, outputs)

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(torch.relu(self.hidden(self.dropout(features))))
        logits: Tensor = self.output(hidden)
        if self.by_decade:
            decades, rest = logits[:, :DECADES], logits[:, DECADES:]
            logits = torch.cat([decades.repeat_interleave(AGES // DECADES, dim=1), rest], dim=1)
        return logits


class AttributeNetwork(nn.Module):
    """Pictures in, logits out.

    Input: float ``(N, 3, S, S)``, RGB, 0 to 255. The network subtracts ``mean`` and divides by
    ``std`` itself, so that no caller can scale differently.
    """

    def __init__(
        self,
        backbone: str,
        *,
        hidden_dim: int = 512,
        dropout: float = 0.2,
        mean: tuple[float, float, float] = MEAN_RGB,
        std: float = 1.0,
        by_decade: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = make_backbone(backbone)
        self.head = AttributeHead(
            int(self.backbone.feature_dim), hidden_dim, dropout, by_decade=by_decade
        )
        self.std = std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """All logits, ``(N, 127)``: 120 ages, 2 genders, 5 ethnicities."""
        assert isinstance(self.mean, Tensor)
        return self.head(self.backbone((x - self.mean) / self.std)).float()


def split_logits(logits: Tensor) -> Logits:
    """``(N, 127)`` to its three parts."""
    ages, gender, ethnicity = logits.split([AGES, GENDERS, ETHNICITIES], dim=-1)
    return Logits(ages, gender, ethnicity)


def probabilities(logits: Tensor) -> Tensor:
    """Logits ``(N, 127)`` to three distributions, concatenated."""
    parts = split_logits(logits)
    return torch.cat(
        [part.softmax(-1) for part in (parts.ages, parts.gender, parts.ethnicity)], dim=-1
    )


def read_weights(path: Path, *parts: str) -> dict[str, Any]:
    """Read parts of a run's checkpoint, or of weights converted by a script.

    Raises:
        OptionError: the file is not such a file, or lacks one of the parts.
    """
    try:
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return {part: stored[part] for part in parts}
    except (pickle.UnpicklingError, EOFError, LookupError, RuntimeError, TypeError) as error:
        raise OptionError(f"{path} is not a file of weights, or is damaged") from error


def load_faceres(network: AttributeNetwork, path: Path) -> None:
    """Start from the weights that ``scripts/convert_faceres.py`` wrote.

    The whole backbone is loaded. The head's hidden layer gets the pretrained head's 256 features in
    its first rows, and the outputs for ages 1 to 100 and gender start from the pretrained ones, so
    that training begins near a working model.

    Raises:
        OptionError: the backbone's output is not that of ``mobilenet_v1``, the hidden layer is too
            small, or the head predicts decades.
    """
    stored = read_weights(path, "backbone", "feats", "age", "gender")
    head = network.head
    if head.hidden.in_features != 1024 or head.hidden.out_features < 256:
        raise OptionError(
            "init = faceres needs backbone mobilenet_v1 and hidden_dim of 256 or more"
        )
    if head.by_decade:
        raise OptionError('init = faceres needs ages = "years"')
    network.backbone.load_state_dict(stored["backbone"])
    with torch.no_grad():
        head.hidden.weight[:256] = stored["feats"]["weight"]
        head.hidden.bias[:256] = stored["feats"]["bias"]
        head.output.weight[:, :256] *= 0.1
        head.output.weight[:100, :256] = stored["age"]["weight"]
        head.output.bias[:100] = stored["age"]["bias"]
        head.output.bias[100:AGES] = -8.0  # almost nobody; training can raise it
        # The pretrained sigmoid is the probability of male.
        head.output.weight[AGES, :256] = stored["gender"]["weight"][0]
        head.output.weight[AGES + 1, :256] = 0.0
        head.output.bias[AGES] = stored["gender"]["bias"][0]
        head.output.bias[AGES + 1] = 0.0


def load_backbone(network: AttributeNetwork, path: Path) -> None:
    """Start the backbone from the weights that ``scripts/convert_dlib.py`` wrote.

    The head stays random, because the pretrained network knows nothing about ages.

    Raises:
        OptionError: the weights are of another backbone.
    """
    stored = read_weights(path, "backbone")
    try:
        network.backbone.load_state_dict(stored["backbone"])
    except RuntimeError as error:
        raise OptionError(f"{path} does not fit this backbone: {error}") from error


def load_exported(network: AttributeNetwork, path: Path) -> None:
    """Start from an ONNX file that ``facewise export`` wrote, also in half precision.

    Raises:
        OptionError: the file is not an export, or is of another architecture; or the network has
            batch norms of its own, which an export no longer has.
    """
    import onnx
    from onnx import numpy_helper

    if any(name.endswith("running_mean") for name in network.state_dict()):
        raise OptionError(
            f"{path}: the norms of such a backbone are folded into its export, which cannot be "
            "started from: use the best.pt of its run"
        )
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's, for which onnx has no public name
        raise OptionError(f"{path} is not an ONNX file, or is damaged") from error
    state: dict[str, Tensor] = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix(".half")
        if name.startswith("network."):
            array = numpy_helper.to_array(tensor).astype("float32")
            state[name.removeprefix("network.")] = torch.from_numpy(array)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise OptionError(f"{path}: not an export of this architecture: {error}") from error


def load_run(network: AttributeNetwork, path: Path) -> None:
    """Start from a run's checkpoint: all of it, or only its backbone if the head differs.

    Raises:
        OptionError: the checkpoint is of another backbone.
    """
    state: dict[str, Tensor] = read_weights(path, "model")["model"]
    own = network.state_dict()
    try:
        if all(name in own and own[name].shape == tensor.shape for name, tensor in state.items()):
            network.load_state_dict(state)
        else:
            network.backbone.load_state_dict(
                {
                    name.removeprefix("backbone."): tensor
                    for name, tensor in state.items()
                    if name.startswith("backbone.")
                }
            )
            log.info("%s has another head: starting from its backbone", path)
    except RuntimeError as error:
        raise OptionError(f"{path} does not fit this backbone: {error}") from error


def other_weights(network: AttributeNetwork, path: Path) -> dict[str, Tensor]:
    """Read another run's weights, to be mixed with this network's.

    Raises:
        OptionError: they are of another architecture.
    """
    state: dict[str, Tensor] = read_weights(path, "model")["model"]
    theirs, own = (
        {name: tensor.shape for name, tensor in s.items()} for s in (state, network.state_dict())
    )
    if theirs != own:
        raise OptionError(f"mixed = {path} has another architecture than this run")
    return state


def bare_network(config: TrainConfig) -> AttributeNetwork:
    """Build the network of a config with random weights."""
    network = config.network
    return AttributeNetwork(
        network.backbone,
        hidden_dim=network.hidden_dim,
        dropout=network.dropout,
        mean=network.pixel_mean,
        std=network.pixel_std,
        by_decade=network.ages == "decades",
    )


def make_network(config: TrainConfig, converted: Path = Path("cache")) -> AttributeNetwork:
    """Build the network of a config and load the weights it starts from.

    Args:
        config: of the run.
        converted: folder of the weights converted by scripts.
    """
    model, init = bare_network(config), config.network.init
    if init == "faceres":
        load_faceres(model, converted / "faceres.pt")
    elif init in CONVERTED:
        load_backbone(model, converted / f"{init}.pt")
    elif init.endswith(".onnx"):
        load_exported(model, Path(init))
    elif init != "random":
        load_run(model, Path(init))
    elif isinstance(model.backbone, MobileNetV1):
        model.backbone.reset_parameters()  # not when built: the seeds of other starts stay theirs
    return model.to(memory_format=torch.channels_last)
