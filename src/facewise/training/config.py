"""The config of a training run: a committed TOML file of exactly the values that shape weights."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from facewise.data.sets import DataSetName
from facewise.errors import OptionError

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Form of the name of a run (and so of its folder), and of a model."""

Count = Annotated[int, Field(strict=True, ge=0)]
Amount = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
# The face cache keeps no more of a large photo around the face than the lowest one needs.
EyeDistance = Annotated[Share, Field(ge=0.2)]
"""Types of options. Strict ones take integers as floats, but neither booleans nor texts."""

MEAN_RGB: Final = (123.68, 116.779, 103.939)
"""Channel means with which the face-pretrained backbone was trained; 0 to 255."""


class _Options:
    """What pydantic is told of each table of options."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class NetworkConfig(_Options):
    """Architecture, and the framing of the face in its input.

    ``eye_distance`` and ``eye_height`` are shares of the crop's side; see ``facewise.align``. A run
    whose weights are mixed with those of another framing (``start_share``) may train with a third,
    ``learnt_eye_distance`` and ``learnt_eye_height``, and then works best between the two.
    ``init`` is "random"; the name of converted weights ("faceres", "dlib_resnet"); or the path of a
    checkpoint (``.pt``), of which only the backbone is used if the head differs, or of an export
    (``.onnx``) of the same architecture.
    ``pixel_mean`` and ``pixel_std`` are those of the pretrained weights. ``ages`` is what the head
    predicts: a distribution over "years", or over the original app's "decades", uniform in each.
    """

    backbone: str = "mobilenet_v1"
    size_px: Annotated[Count, Field(ge=32)] = 160
    eye_distance: EyeDistance = 0.31
    eye_height: Share = 0.42
    hidden_dim: Annotated[Count, Field(ge=1)] = 512
    dropout: Share = 0.2
    init: Annotated[str, Field(min_length=1)] = "random"
    pixel_mean: tuple[StrictFloat, StrictFloat, StrictFloat] = MEAN_RGB
    pixel_std: Annotated[Amount, Field(ge=1e-6)] = 1.0
    ages: Literal["years", "decades"] = "years"
    learnt_eye_distance: EyeDistance | None = None
    learnt_eye_height: Share | None = None

    @property
    def framing(self) -> tuple[float, float]:
        """Eye distance and height in the crops at inference."""
        return self.eye_distance, self.eye_height

    @property
    def learnt_framing(self) -> tuple[float, float]:
        """Eye distance and height in training crops."""
        distance, height = self.learnt_eye_distance, self.learnt_eye_height
        return (
            self.eye_distance if distance is None else distance,
            self.eye_height if height is None else height,
        )


@dataclass(frozen=True, slots=True)
class OptimConfig(_Options):
    """The optimiser.

    ``layer_decay`` is the ratio of a stage's learning rate to that of the stage above it, 1.0 for
    networks of timm, whose stages are not known. ``ema_decay`` averages weights for evaluation and
    export. ``batch_norm`` gives a backbone of plain convolutions batch norms for training; see
    ``facewise.training.renorm``. Kept weights include ``start_share`` of the initial weights and
    ``mixed_share`` of ``mixed``, another run's checkpoint.
    """

    epochs: Annotated[Count, Field(ge=1)] = 10
    batch_size: Annotated[Count, Field(ge=2)] = 64  # a batch norm needs two
    lr_backbone: Amount = 3e-4
    lr_head: Amount = 1e-3
    layer_decay: Share = 0.9
    frozen_stages: Count = 0
    weight_decay: Amount = 0.02
    warmup_steps: Count = 200
    ema_decay: Share = 0.998
    gradient_clip: Annotated[Amount, Field(gt=0)] = 5.0
    bfloat16: StrictBool = True
    batch_norm: StrictBool = False
    start_share: Share = 0.0
    mixed_share: Share = 0.0
    mixed: str = ""
    seed: Count = 0


@dataclass(frozen=True, slots=True)
class AugmentConfig(_Options):
    """Strengths and probabilities; see ``facewise.training.augment``."""

    landmark_jitter: Share = 0.02
    rotation_degrees: Amount = 6.0
    scale: Share = 0.08
    shift: Share = 0.03
    photometric: Share = 0.5
    grey: Share = 0.04
    blur: Share = 0.08
    low_resolution: Share = 0.12
    jpeg: Share = 0.15
    noise: Share = 0.08
    erase: Share = 0.15
    upside_down: Share = 0.0


@dataclass(frozen=True, slots=True)
class LossConfig(_Options):
    """Weights of the loss's parts; ``age_sigma_years`` widens an exact age into a distribution.

    ``kind`` "binary" is the original app's loss: 19 independent sigmoids. It requires ``ages =
    "decades"`` and learns only from faces whose age lies within one decade of the contract, so
    ``fairface`` is refused; the weights of the parts are ignored.
    """

    kind: Literal["distribution", "binary"] = "distribution"
    age_sigma_years: Annotated[Amount, Field(ge=0.1)] = 2.0
    age: Amount = 1.0
    age_l1: Amount = 0.2
    gender: Amount = 1.0
    ethnicity: Amount = 1.0
    label_smoothing: Share = 0.03
    distill: Share = 0.0
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class TrainConfig(_Options):
    """A whole run. ``datasets`` are those to train on; ``name`` names its folder and model."""

    name: Annotated[str, Field(pattern=NAME)]
    datasets: Annotated[tuple[DataSetName, ...], Field(min_length=1)] = ("utkface", "fairface")
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)


_CONFIG: Final = TypeAdapter(TrainConfig)

_WORDS: Final = {
    "dataclass_type": "must be a table of options",
    "tuple_type": "must be a list",
    "missing": "must be a longer list",
    "too_long": "must be a shorter list",
    "too_short": "must name at least one",
    "string_too_short": "must be a name or a path",
    "string_pattern_mismatch": "must be of letters, digits, dots, dashes and underscores",
}
"""What pydantic says in terms of Python, by its error type."""


def _problem(error: ErrorDetails) -> str:
    """One of pydantic's errors in words; names an option as ``differences`` does."""
    *sections, option = (part for part in error["loc"] if isinstance(part, str))
    name = ".".join([*sections, option])
    if error["type"] == "unexpected_keyword_argument":
        whole = known = dataclasses.asdict(TrainConfig(name=""))
        for table, options in whole.items():
            if isinstance(options, dict) and option in options:
                return f"{name} is unknown: {option} belongs in the table [{table}]"
        if option in whole:
            return f"{name} is unknown: {option} belongs above the first table"
        for section in sections:
            known = known[section]
        return f"{name} is unknown; known are {', '.join(sorted(known))}"
    words = _WORDS.get(error["type"]) or error["msg"].replace("Input should", "must")
    return f"{name} {words}, not {error['input']!r}"


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
    if not isinstance(values, dict):
        raise OptionError(f"{path}: not a table of options")
    try:
        config = _CONFIG.validate_python({"name": path.stem, **values})
    except ValidationError as error:
        raise OptionError(f"{path}: {_problem(error.errors()[0])}") from error
    if "csv" in config.datasets and (others := [n for n in config.datasets if n != "csv"]):
        raise OptionError(
            f"{path}: csv stands alone: list the pictures of {' and '.join(others)} in the CSV"
        )
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
