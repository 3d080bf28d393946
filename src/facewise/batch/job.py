"""The job of one run: the settings that determine the rows, and the tasks that workers receive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from facewise._version import __version__
from facewise.analyzer import Analyzer
from facewise.batch import storage
from facewise.batch.schema import SCHEMA_VERSION
from facewise.calibration import DEFAULT_COVERAGE
from facewise.errors import OptionError, check_count
from facewise.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from facewise.labels import ATTRIBUTES, check_attributes, without_sensitive
from facewise.models import DETECTOR_SPEC, load_spec
from facewise.text import as_utf8

CHUNK: Final = 8
"""Pictures per task, unless one inference takes more. A worker takes one task at a time; a task
never crosses a shard.

About a second of work with large photos, which bounds how long workers idle at the end of a run.
Rows do not depend on it."""

PIPELINE: Final = 5
"""Incremented whenever this package would give different rows for the same settings and plan.
Listing does not count: a plan is fixed before the first row, and a restart lists nothing again."""


class Item(NamedTuple):
    """One picture, or one video, of the plan; a plan's columns are these fields.

    Where to read it depends on its kind. Paths are absolute, or URLs:

    =======================  ==========  ==========  ====================  =====================
    kind                     path        offset      size                  group
    =======================  ==========  ==========  ====================  =====================
    FILE, VIDEO              the file
    TAR                      the tar     first byte  bytes
    ROW                      the table   row         row within its group  row group or batch
    PROBLEM, MISSING,        a message
    SPARSE (see PROBLEMS)
    =======================  ==========  ==========  ====================  =====================

    Attributes:
        image_id: its name in the table.
        kind: one of the constants below.
        path, offset, size, group: see above.
        own_id: FILE, VIDEO, ROW: ``image_id`` comes from an ``--id-column``.
        shown: FILE, VIDEO of a list: the absolute path, for messages, where ``image_id`` is not it;
            "" elsewhere.
    """

    image_id: str
    kind: int
    path: str
    offset: int = 0
    size: int = 0
    group: int = 0
    own_id: bool = False
    shown: str = ""


FILE, TAR, ROW, VIDEO, PROBLEM, MISSING, SPARSE = range(7)

PROBLEMS: Final = {
    PROBLEM: "source_damaged",
    MISSING: "image_not_found",
    SPARSE: "unsupported_format",
}
"""Kinds without anything to read, each with the error code of its row."""

VIDEOS: Final = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"))


def file_item(name: str, image_id: str | None = None, *, own_id: bool = False) -> Item:
    """The item of one file: a video or a picture, by its ending.

    Args:
        name: its path or URL.
        image_id: its name if it is from a list; None: the path.
        own_id: whether that name is from an ``--id-column``.
    """
    ending = PurePosixPath(storage.path_part(name)).suffix.lower()
    kind = VIDEO if ending in VIDEOS else FILE
    path = storage.absolute(name)
    shown = "" if image_id in (None, path) else as_utf8(path)
    return Item(as_utf8(image_id or name), kind, path, own_id=own_id, shown=shown)


def listed_item(source: str, row: int, name: str | None, own_id: str | None = None) -> Item:
    """The item of a row that names a file, relative to the folder of its list or table.

    Args:
        source: the list or table.
        row: number of the row.
        name: the path or URL; may be missing.
        own_id: the row's name; None: the path.
    """
    if name is None or not name.strip():
        image_id = as_utf8(f"{source}::{row}" if own_id is None else own_id)
        return Item(image_id, MISSING, "the table's row has no path")
    image_id = name if own_id is None else own_id
    return file_item(storage.beside(source, name), image_id, own_id=own_id is not None)


class Task(NamedTuple):
    """Consecutive items of one shard."""

    shard: int
    chunk: int
    items: tuple[Item, ...]


class Result(NamedTuple):
    """Rows of a task, in the task's order."""

    shard: int
    chunk: int
    batches: tuple[bytes, ...]  # Arrow IPC streams
    images: int


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that determines the rows; equal jobs give equal bytes.

    Attributes:
        attributes: requested attributes, kept in the contract's order; None: all for photos, all
            but ethnicity for video.
        model: see ``load_spec``.
        coverage: of the age interval.
        min_face_px: see ``Analyzer``.
        max_faces: see ``Analyzer``.
        max_bytes: see ``Analyzer``; a larger file becomes an error row. Videos have no limit.
        max_pixels: see ``Analyzer``; a larger photo becomes an error row.
        providers: ONNX Runtime execution providers; None for the CPU.
        photos_per_inference: maximum, all from one shard; more than one pays off only on a GPU.
        shard_size: pictures per shard.
        image_column: picture column of tables; None detects it.
        id_column: id column of tables; None numbers the rows.
        frames_per_second: video sampling rate.
    """

    attributes: tuple[str, ...] | None = None
    model: str = "default"
    coverage: float = DEFAULT_COVERAGE
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
        """Pictures per task; an inference never crosses tasks."""
        return max(CHUNK, self.photos_per_inference)

    @property
    def photo_attributes(self) -> tuple[str, ...]:
        """Attributes computed for photos, which also determine the table's columns."""
        return ATTRIBUTES if self.attributes is None else self.attributes

    @property
    def video_attributes(self) -> tuple[str, ...]:
        """Attributes computed for video; ethnicity is the operator's choice, never a default."""
        if self.attributes is not None:
            return self.attributes
        return without_sensitive(ATTRIBUTES)

    def analyzer(self, *, video: bool = False) -> Analyzer:
        """A single-threaded analyzer."""
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
        """The calibration's temperatures, which affect probabilities; empty if none was fitted."""
        return dict(load_spec(self.model).calibration.get("temperatures", {}))

    def describe(self) -> dict[str, Any]:
        """Settings and model, as stored in the manifest and compared between runs."""
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
            "detector_sha256": hashlib.sha256(DETECTOR_SPEC.read_bytes()).hexdigest(),
            **settings,
        }


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_OPTIONS: Final = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(Job)} | {
    "min_face_px": "--min-face",
    "photos_per_inference": "--inference-batch",
    "frames_per_second": "--fps",
    "video_attributes": "--attributes of faces on video",
}
"""Settings to the options of ``facewise annotate`` that set them."""

MOST_SHOWN: Final = 60
"""Characters of a setting that a message shows."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between two descriptions, one phrase per setting; empty if there are none."""
    return [
        _difference(_OPTIONS.get(name, name), old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _difference(name: str, old: Any, new: Any) -> str:
    """What differs; of long lists, only the parts that one of them has."""
    lists = isinstance(old, list) and isinstance(new, list)
    if lists and max(len(_text(old)), len(_text(new))) > MOST_SHOWN:
        gone, added = ([x for x in a if x not in b] for a, b in ((old, new), (new, old)))
        if not gone and not added:
            return f"{name} has another order or number of the same parts"
        changes = [("had", gone), ("now has", added)]
        return f"{name} " + ", ".join(f"{verb} {_short(parts)}" for verb, parts in changes if parts)
    return f"{name} was {_short(old)}, is now {_short(new)}"


def _short(value: Any) -> str:
    """Text of a limited length; of a path, the end says more than the beginning."""
    text = _text(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:12]}...{text[15 - MOST_SHOWN :]}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not set" if value is None else str(value)
