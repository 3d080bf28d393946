"""What one run is asked to do: settings that shape rows, and what a worker needs of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from facewise._version import __version__
from facewise.analyzer import Analyzer
from facewise.batch import storage
from facewise.batch.schema import SCHEMA_VERSION
from facewise.errors import OptionError, check_count
from facewise.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from facewise.labels import ATTRIBUTES, check_attributes
from facewise.models import WEIGHTS_FOLDER, load_spec

CHUNK: Final = 8
"""Pictures of a task, unless more go into one inference; a task is what a worker takes at a time
and never crosses a shard.

A second of work where photos are large: when tasks run out, the other workers wait no longer. Rows
do not depend on it."""

PIPELINE: Final = 5
"""Goes up whenever this package would give other rows for the same settings and plan; what a plan
lists is settled before the first row, and a restart lists nothing anew."""


class Item(NamedTuple):
    """One picture, or one video, of the plan.

    Attributes:
        image_id: what the table calls it.
        kind: one of the constants below.
        path: local and absolute, or a URL; for PROBLEM, MISSING and SPARSE the message.
        offset: TAR: first byte; ROW: the row's number.
        size: TAR: bytes; ROW: the row's number within its row group or record batch.
        group: ROW: row group or record batch.
        own_id: FILE, VIDEO: ``image_id`` is of an ``--id-column`` and spells no path.
    """

    image_id: str
    kind: int
    path: str
    offset: int = 0
    size: int = 0
    group: int = 0
    own_id: bool = False


FILE, TAR, ROW, VIDEO, PROBLEM, MISSING, SPARSE = range(7)

PROBLEMS: Final = {
    PROBLEM: "source_damaged",
    MISSING: "image_not_found",
    SPARSE: "unsupported_format",
}
"""Kinds that there is nothing to read of: the error code of their row."""

VIDEOS: Final = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"))


def file_item(name: str, image_id: str | None = None, *, own_id: bool = False) -> Item:
    """The item of one file; its ending tells videos from pictures."""
    kind = VIDEO if PurePosixPath(name).suffix.lower() in VIDEOS else FILE
    named = storage.readable(image_id or name)
    return Item(named, kind, storage.absolute(name), own_id=own_id)


class Task(NamedTuple):
    """Consecutive items of one shard."""

    shard: int
    chunk: int
    items: tuple[Item, ...]


class Result(NamedTuple):
    """Rows of a task, in its order."""

    shard: int
    chunk: int
    batches: tuple[bytes, ...]  # Arrow IPC streams
    images: int


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what the rows say; equal jobs give equal bytes.

    Attributes:
        attributes: what was asked for, kept in the contract's order; None: all of photos, without
            ethnicity of video.
        model: as ``load_spec`` takes it.
        coverage: of the age interval.
        min_face_px: see ``Analyzer``.
        max_faces: see ``Analyzer``.
        max_bytes: see ``Analyzer``; a larger file is a row with an error. Videos have no limit.
        max_pixels: see ``Analyzer``; a larger photo is a row with an error.
        providers: ONNX Runtime execution providers; None for the CPU.
        photos_per_inference: at most, and of one shard; more than one pays on a GPU only.
        shard_size: pictures of a shard.
        image_column: of tables; None finds it.
        id_column: of tables; None numbers the rows.
        frames_per_second: sampled of a video.
    """

    attributes: tuple[str, ...] | None = None
    model: str = "default"
    coverage: float = 0.90
    min_face_px: float | None = None
    max_faces: int | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS
    providers: tuple[str, ...] | None = None
    photos_per_inference: int = 1
    shard_size: int = 1000
    image_column: str | None = None
    id_column: str | None = None
    frames_per_second: float = 1.0

    def __post_init__(self) -> None:
        if self.attributes is not None:
            object.__setattr__(self, "attributes", check_attributes(self.attributes))
        for name in ("max_bytes", "max_pixels", "shard_size", "photos_per_inference"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        if not 0 < self.frames_per_second <= 1000:
            raise OptionError(
                f"frames_per_second must be above 0 and at most 1000, not {self.frames_per_second}"
            )

    @property
    def chunk(self) -> int:
        """Pictures of a task: an inference never crosses one."""
        return max(CHUNK, self.photos_per_inference)

    @property
    def photo_attributes(self) -> tuple[str, ...]:
        """Columns of the table, and what is computed for photos."""
        return ATTRIBUTES if self.attributes is None else self.attributes

    @property
    def video_attributes(self) -> tuple[str, ...]:
        """Ethnicity of people on video is for its operator to name, not for a default."""
        if self.attributes is not None:
            return self.attributes
        return tuple(name for name in ATTRIBUTES if name != "ethnicity")

    def analyzer(self, *, video: bool = False) -> Analyzer:
        """An analyzer of one thread."""
        return Analyzer(
            self.model,
            attributes=self.video_attributes if video else self.photo_attributes,
            coverage=self.coverage,
            min_face_px=self.min_face_px,
            max_faces=self.max_faces,
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            threads=1,
            providers=self.providers,
        )

    @property
    def temperatures(self) -> dict[str, float]:
        """What of the model's calibration decides the probabilities; empty if none was fitted."""
        return dict(load_spec(self.model).calibration.get("temperatures", {}))

    def describe(self) -> dict[str, Any]:
        """Settings and model, as the manifest holds them and as two runs are compared."""
        spec = load_spec(self.model)
        settings = asdict(self)
        del settings["model"]
        settings["attributes"] = list(self.photo_attributes)
        settings["video_attributes"] = list(self.video_attributes)
        settings["providers"] = list(self.providers) if self.providers else None
        return {
            "schema_version": SCHEMA_VERSION,
            "facewise_version": __version__,
            "pipeline": PIPELINE,
            "model": f"{spec.name}@{spec.version}",
            "model_sha256": spec.sha256,
            "calibration_sha256": _digest(spec.calibration),
            "detector_sha256": hashlib.sha256(
                (WEIGHTS_FOLDER / "mtcnn.json").read_bytes()
            ).hexdigest(),
            **settings,
        }


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two descriptions, one phrase a setting; empty where nothing does."""
    return [
        f"{name} was {_short(old.get(name))}, is now {_short(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = ",".join(str(part) for part in value)
    else:
        text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
