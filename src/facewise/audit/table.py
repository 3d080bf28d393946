"""An annotated table as an audit needs it, read batch by batch: memory does not grow with rows.

What can be added up is added up over all rows: pictures, errors, and answers, each attribute's and
their crossings'. The corrections need the faces' probabilities: of a large table those of a sample
of its pictures are kept.

On video a face is a track: its rows, one a frame, carry the track's answers, and the first stands
for all. Somebody seen for a minute would else count as sixty people. And a video is to its tracks
what a picture is to its faces: they may be the same people over and over, so they are drawn
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.audit.prevalence import same_picture
from facewise.errors import TableError
from facewise.parts import (
    ALWAYS_THERE,
    DECADE_COLUMNS,
    ETHNICITY_COLUMNS,
    GENDER_COLUMNS,
    read_batches,
)
from facewise.types import FloatArray

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "age": DECADE_COLUMNS,
    "gender": GENDER_COLUMNS,
    "ethnicity": ETHNICITY_COLUMNS,
}
"""The table's columns of probabilities, as docs/annotate.md has them."""

MOST_KEPT: Final = 100_000
"""Faces whose probabilities are kept: they tell a share of one half to 0.3 points, far closer than
the calibration faces tell how the model errs."""

_FRAME: Final = r"::\d+$"
"""What ``image_id`` has of a video after the video's own name."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """A table.

    Attributes:
        images: pictures, and frames of video.
        faces: of all of them; on video, tracks.
        tracks: of the faces, those that are tracks on video.
        track_rows: rows of these tracks.
        videos: that these tracks are on.
        without_face: pictures in which none was found.
        errors: pictures by error code.
        answers: faces by their most probable labels, an axis an attribute in the order of
            ``probabilities``; the last index of an axis counts those without that attribute.
        pictures: number of the picture or video of each face that was kept, ``(N,)``; copies share
            one.
        named: number of pictures and videos of these faces, each copy counted.
        probabilities: attribute to ``(N, K)``, for those that the table holds; NaN where a face
            lacks it, as faces on video may lack ethnicity.
        abstained: attribute to faces abstained from.
        model: name@version, several of the same weights with commas, and hash; empty where there is
            no row.
    """

    images: int
    faces: int
    tracks: int
    track_rows: int
    videos: int
    without_face: int
    errors: Counter[str]
    answers: NDArray[np.int64]
    pictures: NDArray[np.int64]
    named: int
    probabilities: dict[str, FloatArray]
    abstained: dict[str, int]
    model: tuple[str, str]

    def count(self, names: Sequence[str]) -> NDArray[np.int64]:
        """All faces by their answers to some attributes, those without one of them left out."""
        every = list(self.probabilities)
        others = tuple(axis for axis, name in enumerate(every) if name not in names)
        known = tuple(slice(0, -1) for _ in names)
        counts: NDArray[np.int64] = self.answers.sum(axis=others)[known]
        return counts

    def kept(self, names: Sequence[str]) -> tuple[list[FloatArray], NDArray[np.int64]]:
        """Probabilities of some attributes, and pictures, of the kept faces that have them all."""
        parts = [self.probabilities[name] for name in names]
        rows = ~np.any([np.isnan(part[:, 0]) for part in parts], axis=0)
        return [part[rows] for part in parts], self.pictures[rows]


def read_faces(*tables: Path, most_kept: int = MOST_KEPT) -> Faces:
    """Read what an audit needs; rows of a picture or video stand together, as annotate writes them.

    Args:
        tables: folders, or Parquet files; several are read as one.
        most_kept: faces whose probabilities are kept.

    Raises:
        TableError: as ``read_batches``; or several models made the rows, or tables differ in their
            columns, or have a part of an attribute's.
    """
    every = [name for names in COLUMNS.values() for name in names]
    needed = ["abstained", "model", "model_sha256"]
    tally: _Tally | None = None
    for table in tables:
        for batch in read_batches(
            table, [*ALWAYS_THERE, *needed, "track_id", *every], needed=needed
        ):
            if tally is None:
                tally = _Tally(table, set(batch.schema.names), most_kept)
            tally.add(table, _with_plain_names(batch))
    return (tally or _Tally(Path(), set(), most_kept)).result()


def _with_plain_names(batch: Any) -> Any:
    """``image_id`` as strings: of pandas' categories Arrow computes nothing."""
    import pyarrow as pa

    place = batch.schema.get_field_index("image_id")
    return batch.set_column(place, "image_id", batch.column(place).cast(pa.string()))


class _Tally:
    """Sums over the batches so far, and the sample of faces."""

    def __init__(self, table: Path, names: set[str], most_kept: int) -> None:
        self._first = self._table = table
        self._columns = names
        self._attributes = [name for name, parts in COLUMNS.items() if names & set(parts)]
        for name in self._attributes:
            if missing := [part for part in COLUMNS[name] if part not in names]:
                raise TableError(
                    f"{table} lacks {', '.join(missing)}: keep all columns of {name}, or none"
                )
        self._sizes = [len(COLUMNS[name]) for name in self._attributes]
        self._answers = np.zeros([size + 1 for size in self._sizes], np.int64)
        self._errors: Counter[str] = Counter()
        self._abstained: Counter[str] = Counter()
        self._models: set[tuple[str, str]] = set()
        self._images = self._without_face = self._faces = 0
        self._tracks = self._track_rows = self._videos = 0
        self._sample = _Sample(most_kept)
        # With which the batch before ended; a picture here is one with a face, or a video.
        self._last_image: str | None = None
        self._last_picture: str | None = None
        self._pictures = 0
        self._video, self._seen = 0, set[int]()  # its number, its tracks so far

    def add(self, table: Path, batch: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if set(batch.schema.names) != self._columns:
            raise TableError(f"{table} has other columns than {self._first}: annotate them alike")
        if table != self._table:  # another's pictures and videos, though they be called the same
            self._table, self._last_image, self._last_picture = table, None, None
        # All of them, not by their first faces: those may have been filtered out.
        self._images += int(_begins(batch["image_id"], self._last_image).sum())
        self._last_image = batch["image_id"][-1].as_py()
        made_by = pa.Table.from_batches([batch.select(["model", "model_sha256"])])
        for row in made_by.group_by(["model", "model_sha256"]).aggregate([]).to_pylist():
            self._models.add((str(row["model"]), str(row["model_sha256"])))
        if len({weights for _, weights in self._models}) > 1:
            raise TableError(
                f"{table} has rows of several models, or of others than the tables before it "
                f"({self._names()}): audit one model's rows at a time"
            )
        rest = batch.filter(pc.is_null(batch["face_index"]))
        codes = rest["error_code"].drop_null().value_counts().to_pylist()
        self._errors.update({row["values"]: row["counts"] for row in codes})
        self._without_face += rest["error_code"].null_count
        faces = batch.filter(pc.is_valid(batch["face_index"]))
        if faces.num_rows == 0:
            return
        pictures = self._number(faces)
        if "track_id" in faces.schema.names:
            first = self._first_of_track(faces["track_id"], pictures)
            faces, pictures = faces.filter(pa.array(first)), pictures[first]
        if faces.num_rows:
            self._add_faces(faces, pictures)

    def _names(self) -> str:
        return ", ".join(sorted(name for name, _ in self._models))

    def _number(self, faces: Any) -> NDArray[np.int64]:
        """Pictures and videos counted through, one that goes on from the batch before included."""
        import pyarrow.compute as pc

        names = faces["image_id"]
        if "track_id" in faces.schema.names and faces["track_id"].null_count < faces.num_rows:
            video = pc.replace_substring_regex(names, _FRAME, "")
            names = pc.if_else(pc.is_valid(faces["track_id"]), video, names)
        numbers: NDArray[np.int64] = self._pictures + np.cumsum(_begins(names, self._last_picture))
        self._pictures = int(numbers[-1])
        self._last_picture = names[-1].as_py()
        return numbers

    def _first_of_track(self, tracks: Any, pictures: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows that count: faces of photos, and of each track on video the first."""
        import pyarrow.compute as pc

        first: NDArray[np.bool_] = pc.is_null(tracks).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~first)
        videos = pictures[rows].tolist()
        for row, video, track in zip(rows, videos, tracks.take(rows).to_pylist(), strict=True):
            if video != self._video:
                self._video, self._seen = video, set()
                self._videos += 1
            first[row] = track not in self._seen
            self._seen.add(track)
        self._track_rows += len(rows)
        self._tracks += int(first[rows].sum())
        return first

    def _add_faces(self, faces: Any, pictures: NDArray[np.int64]) -> None:
        self._faces += faces.num_rows
        said = faces["abstained"].flatten().value_counts().to_pylist()
        self._abstained.update({row["values"]: row["counts"] for row in said})
        probabilities = np.concatenate(
            [_matrix(faces, COLUMNS[name]) for name in self._attributes]
            or [np.empty((faces.num_rows, 0), np.float32)],
            axis=1,
        )
        codes = []
        for part, size in zip(self._split(probabilities), self._sizes, strict=True):
            missing = np.isnan(part[:, 0])
            codes.append(np.where(missing, size, np.nan_to_num(part).argmax(1)))
        if codes:
            shape = self._answers.shape
            flat = np.ravel_multi_index(codes, shape)
            self._answers += np.bincount(flat, minlength=self._answers.size).reshape(shape)
        self._sample.add(pictures, probabilities)

    def _split(self, probabilities: FloatArray) -> list[FloatArray]:
        return np.split(probabilities, np.cumsum(self._sizes)[:-1], axis=1) if self._sizes else []

    def result(self) -> Faces:
        pictures, probabilities = self._sample.result(sum(self._sizes))
        return Faces(
            images=self._images,
            faces=self._faces,
            tracks=self._tracks,
            track_rows=self._track_rows,
            videos=self._videos,
            without_face=self._without_face,
            errors=self._errors,
            answers=self._answers,
            pictures=same_picture(pictures, probabilities),
            named=len(np.unique(pictures)),
            probabilities=dict(zip(self._attributes, self._split(probabilities), strict=True)),
            abstained={name: self._abstained[name] for name in self._attributes},
            model=(self._names(), next((weights for _, weights in self._models), "")),
        )


def _begins(names: Any, before: str | None) -> NDArray[np.bool_]:
    """Rows whose name is another than that of the row before them."""
    import pyarrow.compute as pc

    new = np.ones(len(names), bool)
    new[1:] = pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    new[0] = names[0].as_py() != before
    return new


def _matrix(faces: Any, columns: Sequence[str]) -> FloatArray:
    """float32 ``(rows, columns)``, NaN for null."""
    stacked = [faces[column].to_numpy(zero_copy_only=False) for column in columns]
    return np.stack(stacked, axis=1).astype(np.float32)


class _Sample:
    """Faces of pictures drawn at random, whole pictures at a time; the same table, the same ones.

    Each picture gets a random number; those with the smallest stay, until they have as many faces
    as are wanted. The last of them may go over it: a long video has more tracks than that.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rng = np.random.default_rng(0)
        self._lots: list[NDArray[np.float64]] = []
        self._pictures: list[NDArray[np.int64]] = []
        self._probabilities: list[FloatArray] = []
        self._held, self._room = 0, 2 * most
        self._limit = 1.0
        self._last = (-1, 0.0)  # picture and lot with which the batch before ended

    def add(self, pictures: NDArray[np.int64], probabilities: FloatArray) -> None:
        numbers, position = np.unique(pictures, return_inverse=True)
        lots = self._rng.random(len(numbers))
        if numbers[0] == self._last[0]:
            lots[0] = self._last[1]
        self._last = (int(numbers[-1]), float(lots[-1]))
        lots = lots[position]
        stays = lots <= self._limit
        self._lots.append(lots[stays])
        self._pictures.append(pictures[stays])
        self._probabilities.append(probabilities[stays])
        self._held += int(stays.sum())
        if self._held > self._room:
            self._shrink()
            self._room = 2 * max(self._most, self._held)

    def _shrink(self) -> None:
        if self._held <= self._most:
            return
        lots = np.concatenate(self._lots)
        self._limit = float(np.partition(lots, self._most - 1)[self._most - 1])
        stays = lots <= self._limit
        self._lots = [lots[stays]]
        self._pictures = [np.concatenate(self._pictures)[stays]]
        self._probabilities = [np.concatenate(self._probabilities)[stays]]
        self._held = int(stays.sum())

    def result(self, columns: int) -> tuple[NDArray[np.int64], FloatArray]:
        self._shrink()
        if not self._lots:
            return np.empty(0, np.int64), np.empty((0, columns), np.float32)
        return np.concatenate(self._pictures), np.concatenate(self._probabilities)
