"""Model specs: weights, hash, preprocessing, licence, data, figures and calibration of each model.

Each ONNX file in ``weights/`` has a JSON spec of the same name beside it. Nothing is downloaded:
files named by a spec lie in the package, or beside the spec that a user points to.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from facewise.errors import (
    ModelIntegrityError,
    ModelNotFoundError,
    OptionError,
    check_count,
    check_list,
)
from facewise.labels import VECTOR_LABELS
from facewise.types import Array, FloatArray, ModelInfo, are_mirrored

if TYPE_CHECKING:
    import onnxruntime

WEIGHTS_FOLDER: Final = Path(__file__).parent / "weights"
DETECTOR_SPEC: Final = WEIGHTS_FOLDER / "mtcnn.json"
DEFAULT_MODEL: Final = "facewise-default"
SPEC_KIND: Final = "attributes"

SPEC_TEXTS: Final = ("name", "version", "file", "sha256", "description", "licence")
"""Fields of a spec that are text."""

SPEC_FORM: Final[dict[str, dict[str, Any]]] = {
    "input": {"color_order": "rgb", "dtype": "uint8", "layout": "NHWC"},
    "output": {"ages_years": [1, 120], "vector": list(VECTOR_LABELS)},
}
"""What all specs state alike: facewise knows no other form, so a network must convert to it."""

MEND_WEIGHTS: Final = "reinstall facewise, or put the spec's own weights beside it"

Provider = str | tuple[str, Mapping[str, Any] | tuple[tuple[str, str], ...]]
"""An execution provider of ONNX Runtime: its name, or its name and options."""

PlainProvider = tuple[str, tuple[tuple[str, str], ...]]
"""The same with its options as pairs of strings, so that it is hashable."""


SUFFIX: Final = "ExecutionProvider"
"""With which the names of ONNX Runtime's providers end."""

PROVIDER_PACKAGES: Final = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "DmlExecutionProvider": "onnxruntime-directml",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}
"""The package that brings each provider; others are built from source."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelSpec:
    """Everything about an attribute model except its weights.

    Attributes:
        path: the JSON file this was read from.
        name: users pin this together with ``version``.
        version: of the weights; after a dot, how often their calibration changed: "5.1".
        file: ONNX file beside the spec.
        sha256: of that file.
        description: one sentence.
        size_px: side S of the input, uint8 ``(N, S, S, 3)``, RGB.
        template: float32 ``(5, 2)``, where the landmarks fall in the input, pixels.
        licence: terms of the weights, in a sentence.
        data: data sets behind the weights, including those of the pretrained start.
        figures: measured figures by name.
        calibration: as read by ``facewise.calibration``; empty if none was fitted.
    """

    path: Path
    name: str
    version: str
    file: str
    sha256: str
    description: str
    size_px: int
    template: FloatArray
    licence: str
    data: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<ModelSpec {self.name}@{self.version}, {self.size_px} px>"

    @property
    def weights_path(self) -> Path:
        return self.path.parent / self.file

    @property
    def size_bytes(self) -> int:
        """Size of the weight file; 0 if it is missing."""
        return self.weights_path.stat().st_size if self.weights_path.exists() else 0

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.name, self.version, self.sha256)

    def answers_to(self, text: str) -> bool:
        """Whether a name, or ``name@version``, means this model; see ``load_spec``."""
        name, _, version = text.partition("@")
        return self.name in (name, f"facewise-{name}") and version in ("", self.version)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values of what users ask about: all but preprocessing and calibration.

        ``size_bytes`` is that of the weight file.
        """
        return {
            **self.info.to_dict(),
            "description": self.description,
            "licence": self.licence,
            "data": list(self.data),
            "size_px": self.size_px,
            "size_bytes": self.size_bytes,
            "figures": dict(self.figures),
        }


def read_spec(path: Path) -> ModelSpec:
    """Read one spec file.

    Raises:
        ModelIntegrityError: it is not JSON, or a field is missing or invalid.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        _check_form(raw)
        return ModelSpec(
            path=path,
            name=raw["name"],
            version=raw["version"],
            file=raw["file"],
            sha256=raw["sha256"].lower(),
            description=raw["description"],
            size_px=check_count("input.size_px", raw["input"]["size_px"]),
            template=_template(raw["input"]["template"]),
            licence=raw["licence"],
            data=check_list("data", raw["data"]),
            figures=raw.get("figures", {}),
            calibration=raw.get("calibration", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelIntegrityError(
            f"{path} is not a model spec ({type(error).__name__}: {error}): reinstall facewise; "
            "mend a spec of your own, or export the model again (facewise export)"
        ) from error


def _check_form(raw: Any) -> None:
    """Refuse other types and forms, which would be ignored or fail later."""
    for key in SPEC_TEXTS:
        if not isinstance(raw[key], str):
            raise ValueError(f"{key} must be text, not {raw[key]!r}")
    for part, form in SPEC_FORM.items():
        for key, value in form.items():
            if raw[part][key] != value:
                raise ValueError(
                    f"{part}.{key} is {raw[part][key]!r}, but facewise knows only {value!r}: "
                    "convert within the network"
                )


def _template(points: Any) -> FloatArray:
    template = np.array(points, dtype=np.float32)
    if template.shape != (5, 2):
        raise ValueError(f"input.template must be five points, x and y each, not {template.shape}")
    if not np.ptp(template, axis=0).min() > 0:  # also rejects NaN
        raise ValueError("input.template's points lie in one place")
    if template.max() <= 1:
        raise ValueError("input.template must be in pixels: multiply shares by input.size_px")
    if are_mirrored(template):
        raise ValueError(
            "input.template is mirrored: its order is eyes, nose, mouth corners, each as x, y, "
            "the left of the picture first"
        )
    return template


def list_models() -> tuple[ModelSpec, ...]:
    """Specs of all installed attribute models, the default first, then by name."""
    specs = [read_spec(path) for path in spec_paths()]
    return tuple(sorted(specs, key=lambda spec: (spec.name != DEFAULT_MODEL, spec.name)))


def spec_paths() -> list[Path]:
    """Spec files of all installed attribute models, sorted."""
    return sorted(path for path in WEIGHTS_FOLDER.glob("*.json") if path != DETECTOR_SPEC)


def _kind(path: Path) -> str | None:
    """What a spec describes; an unreadable one counts as a model, for ``read_spec`` to report."""
    try:
        kind: str | None = json.loads(path.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return SPEC_KIND
    return kind


def load_spec(model: str | os.PathLike[str] = "default") -> ModelSpec:
    """Find a model.

    Args:
        model: a name, ``name@version``, or the path of a spec's ``.json`` file; facewise's own
            models may be shortened to "default" and "small".

    Raises:
        OptionError: it is neither a name nor a path.
        ModelNotFoundError: there is none of that name and version.
        ModelIntegrityError: the spec cannot be read.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise OptionError(f"model must be a name or the path of a spec, not {model!r}")
    text = os.fspath(model)
    if text.endswith(".json"):
        if not Path(text).exists():
            raise ModelNotFoundError(f"{text}: no such model spec; check the path")
        return read_spec(Path(text).absolute())  # to be found after a change of folder
    specs = list_models()
    for spec in specs:
        if spec.answers_to(text):
            return spec
    if text.endswith(".onnx") or os.path.isdir(text):  # noqa: PTH112  takes any text
        raise ModelNotFoundError(_name_the_spec(Path(text)))
    known = ", ".join(f"{spec.name}@{spec.version}" for spec in specs) or "none"
    raise ModelNotFoundError(f"no model {text!r}; installed: {known}")


def _name_the_spec(path: Path) -> str:
    """Message that says which spec to name instead of weights or a folder."""
    is_folder = path.is_dir()
    beside = path.glob("*.json") if is_folder else (path.with_suffix(".json"),)
    specs = [str(spec) for spec in sorted(beside) if spec.is_file() and _kind(spec) == SPEC_KIND]
    what = "a folder" if is_folder else "a file of weights"
    if specs:
        return f"{path} is {what}: name the model's spec, {' or '.join(specs)}"
    where = "in it" if is_folder else "beside it"
    return (
        f"{path} is {what}: name the model's spec, a .json file {where}; there is none, so export "
        "the model again (facewise export) or copy its spec there"
    )


def read_weights(path: Path, sha256: str) -> bytes:
    """Read a weight file and check its hash.

    Raises:
        ModelIntegrityError: the file is missing or has another hash.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelIntegrityError(f"{path} cannot be read; {MEND_WEIGHTS}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ModelIntegrityError(
            f"{path} has SHA-256 {actual[:12]}..., its spec says {sha256[:12]}...: the file is "
            f"damaged or was replaced; {MEND_WEIGHTS}"
        )
    return data


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with telemetry off.

    From the moment of import, its Linux wheels (seen in 1.32) keep a database of events and a
    device id in the user's cache folder, to be reported to its maker. facewise writes no file
    unasked; to allow the reports, set ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    if os.environ["ORT_DISABLE_TELEMETRY"] == "1" and hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()  # in case something else had imported it before
    return module


def plain_providers(providers: Sequence[Provider] | None) -> tuple[PlainProvider, ...]:
    """Execution providers in one form; the CPU if None.

    Raises:
        OptionError: they are not a list of names, or of names with options.
    """
    if providers is None:
        return (("CPUExecutionProvider", ()),)
    plain: list[PlainProvider] = []
    for provider in check_list("providers", providers):
        match provider:
            case str():
                plain.append((provider, ()))
            case (str(name), Mapping() | tuple() as options):
                pairs = dict(options).items()
                plain.append((name, tuple(sorted((str(key), str(v)) for key, v in pairs))))
            case _:
                raise OptionError(
                    f"providers must be names, or pairs of a name and its options, not {provider!r}"
                )
    if not plain:
        raise OptionError("providers must name at least one, such as CPUExecutionProvider")
    return tuple(plain)


def _provider_advice(name: str, known: Sequence[str]) -> str:
    """What to do about a provider that is missing here, of those ONNX Runtime knows of."""
    by_short_name = {full.removesuffix(SUFFIX).lower(): full for full in known}
    full = by_short_name.get(name.lower().removesuffix(SUFFIX.lower()), name)
    advice = "" if full == name else f"; write {full}"
    if full in PROVIDER_PACKAGES:
        advice += (
            f"; {full} comes with {PROVIDER_PACKAGES[full]}: install it in place of onnxruntime"
        )
    return advice


class TensorInfo(NamedTuple):
    """An input or output of a network, as ONNX Runtime describes it.

    Attributes:
        name: of the tensor.
        type: such as "tensor(uint8)".
        shape: variable dimensions are a name or None.
    """

    name: str
    type: str
    shape: list[int | str | None]

    def __str__(self) -> str:
        return f"{self.name} {self.type} {self.shape}"


class Session:
    """A network in ONNX Runtime; unpickling opens it again from its file."""

    def __init__(
        self, session: onnxruntime.InferenceSession, open_again: Callable[[], Session]
    ) -> None:
        self._session, self._open_again = session, open_again

    @property
    def inputs(self) -> list[TensorInfo]:
        return [TensorInfo(t.name, t.type, t.shape) for t in self._session.get_inputs()]

    @property
    def outputs(self) -> list[TensorInfo]:
        return [TensorInfo(t.name, t.type, t.shape) for t in self._session.get_outputs()]

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Any]:
        """Run the network; returns the named outputs, or all if None."""
        return self._session.run(names, inputs)

    def __reduce__(self) -> tuple[Callable[[], Session], tuple[()]]:
        return self._open_again, ()


def open_session(
    path: Path,
    sha256: str,
    *,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
) -> Session:
    """Check a weight file's hash and open it in ONNX Runtime.

    Args:
        path: ONNX file.
        sha256: its expected hash.
        threads: per inference; ONNX Runtime's own choice, all cores, if None.
        providers: ONNX Runtime execution providers in order of preference, each a name or a pair
            of its name and its options; the CPU if None.

    Raises:
        ModelIntegrityError: wrong hash, missing file, or not a model that ONNX Runtime can open.
        OptionError: a provider that this ONNX Runtime does not have, or fewer than one thread.
    """
    ort = import_onnxruntime()
    if threads is not None:
        threads = check_count("threads", threads)
    chosen = plain_providers(providers)
    available = ort.get_available_providers()
    missing = [name for name, _ in chosen if name not in available]
    if missing:
        advice = _provider_advice(missing[0], ort.get_all_providers())
        raise OptionError(
            f"ONNX Runtime here has no {', '.join(missing)}; it has {', '.join(available)}{advice}"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # ONNX Runtime would keep a memory plan for every input shape ever seen, and a detector sees a
    # new one with nearly every photo: hundreds of megabytes for no gain in speed.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    # Spinning threads burn a core between calls, and several sessions would fight each other.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = read_weights(path, sha256)
    try:
        session: onnxruntime.InferenceSession = ort.InferenceSession(
            data, options, providers=[(name, dict(pairs)) for name, pairs in chosen]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelIntegrityError(f"{path}: ONNX Runtime cannot open it: {error}") from error
    first, opened = chosen[0][0], session.get_providers()
    if first not in opened:  # ONNX Runtime only warns on standard error, and uses the next
        raise OptionError(
            f"ONNX Runtime cannot use {first} here (it fell back to {', '.join(opened)}): install "
            "what it needs, or choose another provider"
        )
    again = functools.partial(open_session, path, sha256, threads=threads, providers=chosen)
    return Session(session, again)
