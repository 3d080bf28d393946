"""The config of a training run: a committed TOML file of exactly the values that shape weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from facewise.datasets import DataSetName
from facewise.errors import OptionError

MEAN_RGB: Final = (123.68, 116.779, 103.939)
"""Channel means with which the face-pretrained backbone was trained; 0 to 255."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Architecture, and the framing of the face in its input.

    ``eye_distance`` and ``eye_height`` are shares of the crop's side; see ``facewise.align``. A run
    whose weights are mixed with those of another framing (``start_share``) may train with a third,
    ``learnt_eye_distance`` and ``learnt_eye_height``, and then works best between the two.
    ``init`` is "random"; the name of converted weights ("faceres", "efficientnet_lite0",
    "dlib_resnet"); or the path of a checkpoint (``.pt``), of which only the backbone is used if the
    head differs, or of an export (``.onnx``) of the same architecture.
    ``pixel_mean`` and ``pixel_std`` are those of the pretrained weights. ``ages`` is what the head
    predicts: a distribution over "years", or over the original app's "decades", uniform in each.
    """

    backbone: str = "mobilenet_v1"
    size_px: int = 160
    eye_distance: float = 0.31
    eye_height: float = 0.42
    hidden_dim: int = 512
    dropout: float = 0.2
    init: str = "random"
    pixel_mean: tuple[float, float, float] = MEAN_RGB
    pixel_std: float = 1.0
    ages: Literal["years", "decades"] = "years"
    learnt_eye_distance: float | None = None
    learnt_eye_height: float | None = None

    @property
    def framing(self) -> tuple[float, float]:
        """Eye distance and height in the crops at inference."""
        return self.eye_distance, self.eye_height

    @property
    def learnt_framing(self) -> tuple[float, float]:
        """Eye distance and height in training crops."""
        return (
            self.learnt_eye_distance or self.eye_distance,
            self.learnt_eye_height or self.eye_height,
        )


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """The optimiser.

    ``layer_decay`` is the ratio of a stage's learning rate to that of the stage above it;
    ``ema_decay`` averages weights for evaluation and export. ``batch_norm`` gives a backbone of
    plain convolutions batch norms for training; see ``facewise.training.renorm``. Kept weights
    include ``start_share`` of the initial weights and ``mixed_share`` of ``mixed``, another run's
    checkpoint.
    """

    epochs: int = 10
    batch_size: int = 64
    lr_backbone: float = 3e-4
    lr_head: float = 1e-3
    layer_decay: float = 0.9
    frozen_stages: int = 0
    weight_decay: float = 0.02
    warmup_steps: int = 200
    ema_decay: float = 0.998
    gradient_clip: float = 5.0
    bfloat16: bool = True
    batch_norm: bool = False
    start_share: float = 0.0
    mixed_share: float = 0.0
    mixed: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strengths and probabilities; see ``facewise.training.augment``."""

    landmark_jitter: float = 0.02
    rotation_degrees: float = 6.0
    scale: float = 0.08
    shift: float = 0.03
    photometric: float = 0.5
    grey: float = 0.04
    blur: float = 0.08
    low_resolution: float = 0.12
    jpeg: float = 0.15
    noise: float = 0.08
    erase: float = 0.15
    upside_down: float = 0.0


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the loss's parts; ``age_sigma_years`` widens an exact age into a distribution.

    ``kind`` "binary" is the original app's loss: 19 independent sigmoids. It requires ``ages =
    "decades"`` and learns only from faces whose age lies within one decade of the contract, so
    ``fairface`` is refused; the weights of the parts are ignored.
    """

    kind: Literal["distribution", "binary"] = "distribution"
    age_sigma_years: float = 2.0
    age: float = 1.0
    age_l1: float = 0.2
    gender: float = 1.0
    ethnicity: float = 1.0
    label_smoothing: float = 0.03
    distill: float = 0.0
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run. ``datasets`` are those to train on; ``name`` names its folder and model."""

    name: str
    datasets: tuple[str, ...] = ("utkface", "fairface")
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)


_NAMES: Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


_AT_LEAST: Final[dict[str, float]] = {
    "size_px": 32,
    "eye_distance": 0.15,  # the face cache keeps no more of a large photo around the face
    "learnt_eye_distance": 0.15,
    "hidden_dim": 1,
    "pixel_std": 1e-6,
    "epochs": 1,
    "batch_size": 2,  # a batch norm needs two
    "age_sigma_years": 0.1,
}
"""Lower limits of some numbers; all others must be 0 or more."""
_SHARES: Final = frozenset(
    (
        *("eye_distance", "eye_height", "learnt_eye_distance", "learnt_eye_height", "dropout"),
        *("layer_decay", "ema_decay", "start_share", "mixed_share", "label_smoothing", "distill"),
        *("landmark_jitter", "scale", "shift", "photometric", "grey", "blur", "low_resolution"),
        *("jpeg", "noise", "erase", "upside_down"),
    )
)
"""Options that must not exceed 1: probabilities and shares."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Form of the name of a run (and so of its folder), and of a model."""


def _check_values(config: TrainConfig, path: Path) -> None:
    """Check names and ranges of numbers, before minutes of work show that they are wrong."""
    if not NAME.fullmatch(config.name):
        raise OptionError(
            f"{path}: name must be of letters, digits, dots, dashes and underscores, not "
            f"{config.name!r}: it names the run's folder"
        )
    unknown = sorted(set(config.datasets) - set(get_args(DataSetName)))
    if unknown or not config.datasets:
        known = ", ".join(get_args(DataSetName))
        raise OptionError(f"{path}: datasets must name some of {known}, not {unknown or 'none'}")
    for section in (config.network, config.optim, config.augment, config.loss):
        for option in dataclasses.fields(section):
            value = getattr(section, option.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            least, share = _AT_LEAST.get(option.name, 0), option.name in _SHARES
            if not (least <= value < math.inf and (value <= 1 or not share)):
                limits = f"from {least} to 1" if share else f"{least} or more"
                raise OptionError(f"{path}: {option.name} must be {limits}, not {value}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has a field's type; integers count as floats, booleans not as numbers."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple and isinstance(value, list):
        kinds = parts[:1] * len(value) if ... in parts else parts
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return type(value) in ((int, float) if kind is float else (kind,))


def _named(kind: Any) -> str:
    """A field's type in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'"{part}"' for part in parts)
    if origin is UnionType:
        return _named(parts[0])
    if origin is tuple:
        return f"a list{'' if ... in parts else f' of {len(parts)}'}, each {_named(parts[0])}"
    return _NAMES[kind]


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise OptionError(f"{where}: must be a table of options, not {values!r}")
    kinds = get_type_hints(kind)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        raise OptionError(
            f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(kinds))}"
        )
    for name, value in values.items():
        if not _fits(value, kinds[name]):
            raise OptionError(f"{where}: {name} must be {_named(kinds[name])}, not {value!r}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def differences(run: TrainConfig, mine: TrainConfig) -> str:
    """Options that differ between a run's config and another, in words; "" if none."""

    def options(config: TrainConfig) -> dict[str, Any]:
        values = dataclasses.asdict(config)
        return {
            f"{name}.{option}": value
            for name, part in values.items()
            for option, value in (part.items() if isinstance(part, dict) else [("", part)])
        }

    theirs = options(run)
    return ", ".join(
        f"{name.rstrip('.')} {theirs[name]!r} and not {value!r}"
        for name, value in options(mine).items()
        if theirs[name] != value
    )


def load_config(path: Path, *, seed: int | None = None) -> TrainConfig:
    """Read a run's TOML file, or the ``config.json`` of an existing run.

    Missing options have their defaults, so runs can resume under a version with more options.

    Args:
        path: of the file.
        seed: replaces the file's seed, which makes it another run, ``NAME-seedN``.

    Raises:
        OptionError: the file is missing or cannot be parsed, has an unknown key, or has a value of
            the wrong type or out of range, or options that exclude each other.
    """
    parse = json.loads if path.suffix == ".json" else tomllib.loads
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from error
    except ValueError as error:
        raise OptionError(f"{path}: not valid {path.suffix[1:].upper()}: {error}") from error
    sections = {
        "network": NetworkConfig,
        "optim": OptimConfig,
        "augment": AugmentConfig,
        "loss": LossConfig,
    }
    if not isinstance(values, dict):
        raise OptionError(f"{path}: not a table of options")
    for name, kind in sections.items():
        values[name] = _build(kind, values.get(name, {}), f"{path} [{name}]")
    values.setdefault("name", path.stem)
    config: TrainConfig = _build(TrainConfig, values, str(path))
    _check_values(config, path)
    if config.loss.kind == "binary" and config.network.ages != "decades":
        raise OptionError(f'{path}: loss kind "binary" needs ages = "decades" in [network]')
    if config.loss.kind == "binary" and "fairface" in config.datasets:
        raise OptionError(f'{path}: loss kind "binary" needs ages in years: leave fairface out')
    shares = config.optim.start_share + config.optim.mixed_share
    if shares > 1:
        raise OptionError(f"{path}: start_share and mixed_share sum to {shares:g}, more than 1")
    if config.optim.mixed_share and not config.optim.mixed:
        raise OptionError(f"{path}: mixed_share needs mixed, the checkpoint to mix in")
    if config.loss.distill and not config.loss.teacher:
        raise OptionError(f"{path}: distill needs teacher, a file that facewise teach wrote")
    if seed is None:
        return config
    optim = dataclasses.replace(config.optim, seed=seed)
    return dataclasses.replace(config, name=f"{config.name}-seed{seed}", optim=optim)
