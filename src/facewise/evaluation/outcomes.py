"""A model's answers for labelled faces, stored so that scoring again takes seconds.

Probabilities are stored as the network gave them, before calibration, because both fitting and
scoring start from them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import zipfile
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from facewise.align import align_face
from facewise.attributes import AttributeModel
from facewise.calibration import QUALITY_REASONS
from facewise.data.sets import DataSet, Sample, samples_hash
from facewise.data.tight_crops import DETECTION_BORDER, add_border, nearest_to_centre
from facewise.errors import ImageError, OptionError
from facewise.evaluation.degrade import degrade
from facewise.files import replacing
from facewise.images import load_photo
from facewise.labels import ETHNICITY, GENDER
from facewise.models import DETECTOR_SPEC, load_spec
from facewise.mtcnn import MTCNN
from facewise.progress import track
from facewise.quality import measure_quality
from facewise.text import reason_of
from facewise.types import BoolArray, Face, FloatArray, IntArray, Photo, TextArray

log = logging.getLogger("facewise")

QUALITY_FIELDS: Final = tuple(QUALITY_REASONS)
"""Columns of the stored ``quality``; raise ``OUTCOMES_VERSION`` if their order changes."""

CHUNK: Final = 32

OUTCOMES_VERSION: Final = 5
"""Raised whenever a change of detection, alignment or quality would change stored outcomes."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Answers and labels, one row per labelled face; probabilities are 0 if it was not found.

    ``ages`` ``(N, 120)``, ``genders`` ``(N, 2)``, ``ethnicities`` ``(N, 5)``, ``quality``
    ``(N, 6)`` in the order of ``QUALITY_FIELDS``; labels as in ``facewise.data.sets.Sample``, with
    0, 0 for an unknown age and -1 for an unknown class.
    """

    keys: TextArray
    datasets: TextArray
    groups: TextArray
    age_ranges: IntArray
    true_genders: IntArray
    true_ethnicities: IntArray
    found: BoolArray
    ages: FloatArray
    genders: FloatArray
    ethnicities: FloatArray
    quality: FloatArray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: Any) -> Outcomes:
        """Rows by mask or index."""
        return Outcomes(
            *(getattr(self, field.name)[index] for field in dataclasses.fields(Outcomes))
        )

    def without(self, keys: Collection[str]) -> Outcomes:
        """All rows except those of the given pictures."""
        return self.take(~np.isin(self.keys, list(keys))) if keys else self

    @property
    def exact(self) -> BoolArray:
        """Rows whose age is known to the year."""
        return (self.age_ranges[:, 0] == self.age_ranges[:, 1]) & (self.age_ranges[:, 0] > 0)


_state: dict[str, Any] = {}

Todo = tuple[int, int, Sample]
"""Position in the selection from its data set (seed of a degradation), data set index, sample."""


def _start(
    model: str, data_sets: Sequence[DataSet], degradation: str | None, border: float
) -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    spec = load_spec(model)
    _state.update(
        spec=spec,
        detector=MTCNN(threads=1),
        model=AttributeModel(spec, threads=1),
        data_sets=data_sets,
        degradation=degradation,
        border=border,
    )


def _run(chunk: list[tuple[Todo, FloatArray | None]]) -> list[dict[str, Any]]:
    """Detect and align faces one by one, and run the network on the whole chunk."""
    spec, rows, crops = _state["spec"], [], []
    for (position, set_index, sample), known in chunk:
        row = _labels(sample)
        rows.append(row)
        try:
            rgb = load_photo(_state["data_sets"][set_index].read(sample)).rgb
        except (ImageError, OSError):
            continue  # stored as not found; ``_readable`` drops the row
        border = _state["border"]
        framed, _ = add_border(rgb, border)
        photo = Photo(degrade(framed, _state["degradation"], seed=position, border=border))
        face = _find(photo) if known is None else _unpacked(known)
        if face is not None:
            crop = align_face(photo.rgb, face, spec.template, spec.size_px)
            quality = measure_quality(crop, face.landmarks)
            row["found"] = True
            row["detections"] = _packed(face)
            measured = {
                **dataclasses.asdict(quality),
                "detection_score": face.detection_score,
            }
            row["quality"] = [measured[name] for name in QUALITY_FIELDS]
            crops.append(crop)
    if crops:
        ages, vector = _state["model"].predict(np.stack(crops))
        answers = zip(ages, vector, strict=True)
        for row in rows:
            if row["found"]:
                row["ages"], v = next(answers)
                row["genders"], row["ethnicities"] = v[GENDER], v[ETHNICITY]
    return rows


def _find(photo: Photo) -> Face | None:
    return nearest_to_centre(_state["detector"].detect(photo), photo)


def _packed(face: Face) -> list[float]:
    return [*face.bbox.tolist(), *face.landmarks.ravel().tolist(), face.detection_score]


def _unpacked(numbers: FloatArray) -> Face | None:
    """A stored detection; NaN means that no face was found."""
    if not np.isfinite(numbers).all():
        return None
    return Face(numbers[:4], numbers[4:14].reshape(5, 2), float(numbers[14]))


def _labels(sample: Sample) -> dict[str, Any]:
    return {
        "keys": sample.key,
        "datasets": sample.dataset,
        "groups": sample.group,
        "age_ranges": sample.age_range or (0, 0),
        "true_genders": -1 if sample.gender is None else sample.gender,
        "true_ethnicities": -1 if sample.ethnicity is None else sample.ethnicity,
        "found": False,
        "ages": np.zeros(120, np.float32),
        "genders": np.zeros(2, np.float32),
        "ethnicities": np.zeros(5, np.float32),
        "quality": [np.nan] * len(QUALITY_FIELDS),
        "detections": [np.nan] * 15,
    }


def collect(
    model: str,
    data_sets: Sequence[DataSet],
    split: str,
    *,
    store: Path | None = None,
    workers: int = 2,
    sample: int | None = None,
    degradation: str | None = None,
    border: float = DETECTION_BORDER,
    skipped: dict[str, str] | None = None,
) -> Outcomes:
    """Run a model over a split by the scoring protocol, or read what an earlier run stored.

    Detections are stored separately, so that another model needs no detection. A picture that is
    missing or cannot be decoded has no row, because no face was looked for in it.

    Args:
        model: name or spec path.
        data_sets: where the faces are.
        split: "val", "calibration", "test", ...; "" takes samples of every split.
        store: folder of stored outcomes.
        workers: processes, one thread each.
        sample: number of faces per data set, drawn at random but always the same; None for all.
        degradation: one of ``facewise.evaluation.degrade.degradations(border)``, applied to each
            picture with its grey border, before detection.
        border: grey border around each picture, as a share of its width; 0 for none.
        skipped: receives the key of each picture that cannot be read, and why.

    Raises:
        OptionError: the split has no face, or none of its pictures can be read.
    """
    spec = load_spec(model)
    todo = _todo(data_sets, split, sample)
    outcomes_path = detections_path = None
    if store is not None:
        detector = DETECTOR_SPEC.read_bytes()
        samples = samples_hash((data_sets[index], chosen) for _, index, chosen in todo)[:12]
        what = f"{split or 'all'}-{sample}-{degradation}-{OUTCOMES_VERSION}-{samples}"
        if border != DETECTION_BORDER:  # unnamed, so that older entries stay valid
            what += f"-border-{float(border)}"
        found_key = hashlib.sha256(detector + what.encode()).hexdigest()[:12]
        # A split may have any name; the hash tells apart those that become the same here.
        name = re.sub(r"[^\w.%-]", "-", "-".join(filter(None, [split or "all", degradation])))
        detections_path = store / f"detections-{name}-{found_key}.npy"
        framing = f"{spec.sha256} {spec.size_px} {spec.template.tolist()}"
        key = hashlib.sha256(found_key.encode() + framing.encode()).hexdigest()[:12]
        outcomes_path = store / f"{spec.name}-{name}-{key}.npz"
        if (stored := _stored(outcomes_path)) is not None:
            return _readable(
                Outcomes(**stored), data_sets, todo, {} if skipped is None else skipped
            )
    known = None if detections_path is None else _stored(detections_path)
    label = " ".join(filter(None, [split or "all", degradation]))
    start = (model, data_sets, degradation, border)
    rows = _run_all(start, todo, known, workers=workers, label=label)
    outcomes = _columns(rows)
    if outcomes_path is not None and detections_path is not None:
        outcomes_path.parent.mkdir(parents=True, exist_ok=True)
        columns = {f.name: getattr(outcomes, f.name) for f in dataclasses.fields(Outcomes)}
        with replacing(outcomes_path) as file:
            np.savez(file, **columns)
        if known is None:
            with replacing(detections_path) as file:
                np.save(file, np.array([r["detections"] for r in rows], np.float32))
    return _readable(outcomes, data_sets, todo, {} if skipped is None else skipped)


def _stored(path: Path) -> Any:
    """The array, or the arrays by name, of a stored file; None if missing or unreadable."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:  # NumPy would leave it open if it cannot read it
            stored = np.load(file)
            if isinstance(stored, np.ndarray):
                return stored
            return {field.name: stored[field.name] for field in dataclasses.fields(Outcomes)}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s) and is written anew", path, error)
        return None


def _readable(
    outcomes: Outcomes, data_sets: Sequence[DataSet], todo: Sequence[Todo], skipped: dict[str, str]
) -> Outcomes:
    """All rows except those of unreadable pictures, which are added to ``skipped``.

    Stored outcomes do not distinguish those from faces not found, so these few are read again.
    """
    readable = np.ones(len(outcomes), bool)
    for row in np.flatnonzero(~outcomes.found).tolist():
        _, index, sample = todo[row]
        try:
            load_photo(data_sets[index].read(sample))
        except ImageError as error:
            why = str(error)
        except OSError as error:
            why = reason_of(error)
        else:
            continue
        readable[row] = False
        if sample.key not in skipped:
            log.warning("%s is skipped: %s", sample.key, why)
        skipped[sample.key] = why
    if not readable.any():
        key, why = next(iter(skipped.items()))
        raise OptionError(
            f"none of {len(readable)} pictures can be read, the first, {key}: {why}; check their "
            "paths"
        )
    return outcomes.take(readable)


def _todo(data_sets: Sequence[DataSet], split: str, sample: int | None) -> list[Todo]:
    todo: list[Todo] = []
    for index, data_set in enumerate(data_sets):
        mine = [s for s in data_set.samples if split in ("", s.split)]
        if sample is not None and sample < len(mine):
            chosen = np.random.default_rng(0).choice(len(mine), sample, replace=False)
            mine = [mine[i] for i in sorted(chosen)]
        todo += [(position, index, s) for position, s in enumerate(mine)]
    if not todo:
        there = sorted({s.split for data_set in data_sets for s in data_set.samples} - {""})
        raise OptionError(
            f"no face is in the split {split!r}; splits with faces: {', '.join(there) or 'none'}; "
            "check --split and the data sets' lists of splits"
        )
    return todo


def _run_all(
    start: tuple[str, Sequence[DataSet], str | None, float],
    todo: Sequence[Todo],
    known: FloatArray | None,
    *,
    workers: int,
    label: str,
) -> list[dict[str, Any]]:
    """Rows of all samples, in order; with one worker, in this process.

    ``start`` are the arguments of ``_start``.
    """
    pairs = [(t, None if known is None else known[i]) for i, t in enumerate(todo)]
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    rows: list[dict[str, Any]] = []
    if workers == 1:
        _start(*start)
        for chunk in track(chunks, label):
            rows += _run(chunk)
        return rows
    import cv2  # noqa: F401  if it is broken, fail here: workers could not report why

    with ProcessPoolExecutor(workers, initializer=_start, initargs=start) as pool:
        for result in track(pool.map(_run, chunks), label, len(chunks)):
            rows += result
    return rows


def _columns(rows: Sequence[dict[str, Any]]) -> Outcomes:
    floats = {"ages", "genders", "ethnicities", "quality"}
    return Outcomes(
        **{
            field.name: np.array(
                [row[field.name] for row in rows], np.float32 if field.name in floats else None
            )
            for field in dataclasses.fields(Outcomes)
        }
    )
