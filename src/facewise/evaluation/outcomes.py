"""What a model said about labelled faces, kept so that scoring again takes seconds.

Probabilities are kept as the network gave them, before calibration: fitting and scoring both start
here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.align import crop_faces
from facewise.attributes import AttributeModel
from facewise.datasets import DataSet, Sample
from facewise.errors import ImageError
from facewise.images import load_photo
from facewise.labels import ETHNICITY, GENDER
from facewise.models import load_spec
from facewise.mtcnn import MTCNN
from facewise.protocol import add_border, nearest_to_centre
from facewise.quality import measure_quality
from facewise.types import FloatArray, ImageArray, Photo

log = logging.getLogger("facewise")

QUALITY_FIELDS: Final = (
    "eye_distance_px",
    "sharpness",
    "yaw_degrees",
    "brightness",
    "contrast",
    "detection_score",
)
CHUNK: Final = 32

Degrade = Callable[[ImageArray, int], ImageArray]
"""A picture and its index to a worse picture of the same size."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One row a labelled face; probabilities are 0 where the face was not found.

    ``ages`` ``(N, 120)``, ``genders`` ``(N, 2)``, ``ethnicities`` ``(N, 5)``, ``quality``
    ``(N, 6)`` in the order of ``QUALITY_FIELDS``; labels as in ``facewise.datasets.Sample``, with
    0, 0 for an unknown age and -1 for an unknown class.
    """

    keys: NDArray[np.str_]
    datasets: NDArray[np.str_]
    groups: NDArray[np.str_]
    age_ranges: NDArray[np.int64]
    true_genders: NDArray[np.int64]
    true_ethnicities: NDArray[np.int64]
    found: NDArray[np.bool_]
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

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Rows whose age is known to the year."""
        return (self.age_ranges[:, 0] == self.age_ranges[:, 1]) & (self.age_ranges[:, 0] > 0)


_state: dict[str, Any] = {}


def _start(model: str, data_sets: Sequence[DataSet], degrade: Degrade | None) -> None:
    spec = load_spec(model)
    _state.update(
        spec=spec,
        detector=MTCNN(threads=1),
        model=AttributeModel(spec, threads=1),
        data_sets=data_sets,
        degrade=degrade,
    )


def _run(chunk: list[tuple[int, int, Sample]]) -> list[dict[str, Any]]:
    """Detect and align one by one, run the network on the chunk."""
    spec, rows, crops = _state["spec"], [], []
    for position, set_index, sample in chunk:
        row = _labels(sample)
        try:
            rgb = load_photo(_state["data_sets"][set_index].read(sample)).rgb
        except ImageError as error:
            log.warning("%s counts as not found: %s", sample.key, error)
            rows.append(row)
            continue
        if _state["degrade"] is not None:
            rgb = _state["degrade"](rgb, position)
        photo = Photo(add_border(rgb)[0])
        face = nearest_to_centre(_state["detector"].detect(photo), photo)
        if face is not None:
            crop = crop_faces(photo, [face], spec.template, spec.size_px)[0]
            quality = measure_quality(crop, face.landmarks)
            row["found"] = True
            row["quality"] = [
                getattr(quality, name, face.detection_score) for name in QUALITY_FIELDS
            ]
            crops.append(crop)
        rows.append(row)
    if crops:
        ages, vector = _state["model"].predict(np.stack(crops))
        answers = zip(ages, vector, strict=True)
        for row in rows:
            if row["found"]:
                row["ages"], v = next(answers)
                row["genders"], row["ethnicities"] = v[GENDER], v[ETHNICITY]
    return rows


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
    }


def collect(
    model: str,
    data_sets: Sequence[DataSet],
    split: str,
    *,
    store: Path | None = None,
    workers: int = 2,
    limit: int | None = None,
    degrade: Degrade | None = None,
) -> Outcomes:
    """Run a model over a split by the scoring protocol, or read what an earlier run stored.

    Args:
        model: name or spec path.
        data_sets: where the faces are.
        split: "val", "calibration", "test", ...; "" takes samples of every split.
        store: folder of stored outcomes; the file name carries the weights' hash.
        workers: processes, one thread each.
        limit: only the first so many of each data set.
        degrade: worsens each picture before detection; a module-level function.
    """
    from rich.progress import track

    spec = load_spec(model)
    path = None
    if store is not None and degrade is None and limit is None:
        names = "+".join(sorted({s.dataset for d in data_sets for s in d.samples}))
        path = store / f"{spec.name}-{spec.sha256[:12]}-{names}-{split or 'all'}.npz"
        if path.exists():
            with np.load(path) as stored:
                return Outcomes(**{name: stored[name] for name in stored.files})
    todo: list[tuple[int, int, Sample]] = []
    for index, data_set in enumerate(data_sets):
        mine = [s for s in data_set.samples if split in ("", s.split)][:limit]
        todo += [(position, index, s) for position, s in enumerate(mine)]
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(
        workers, initializer=_start, initargs=(model, data_sets, degrade)
    ) as pool:
        for result in track(pool.map(_run, chunks), description=split or "all", total=len(chunks)):
            rows += result
    float_columns = {"ages", "genders", "ethnicities", "quality"}
    columns = {
        name: np.array([row[name] for row in rows], np.float32 if name in float_columns else None)
        for name in (field.name for field in dataclasses.fields(Outcomes))
    }
    outcomes = Outcomes(**columns)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **columns)  # type: ignore[arg-type]
    return outcomes
