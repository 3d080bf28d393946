"""Read an annotated table for an audit, batch by batch: a picture takes 16 bytes of memory.

Pictures, errors and answers (of each attribute and their crossings) are counted over all rows. The
corrections need the faces' probabilities, which are kept for a sample of a large table's pictures;
there, each face stands for all that have its answer.

On video a face is a track: its rows, one per frame, carry the track's answers, and only the first
counts. Otherwise somebody seen for a minute would count as sixty people. A video's tracks may be
the same people over and over, so they are drawn together, like the faces of a picture.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from facewise.annotated import (
    ALWAYS_THERE,
    DECADE_COLUMNS,
    ETHNICITY_COLUMNS,
    GENDER_COLUMNS,
    read_batches,
)
from facewise.audit.prevalence import as_keys, same_picture
from facewise.errors import TableError
from facewise.types import Array, BoolArray, Float64Array, FloatArray, IntArray

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "age": DECADE_COLUMNS,
    "gender": GENDER_COLUMNS,
    "ethnicity": ETHNICITY_COLUMNS,
}
"""The table's probability columns; see docs/annotate.md."""

MOST_KEPT: Final = 100_000
"""Faces whose probabilities are kept. As independent faces, they determine a share of one half to
0.3 points, far more precisely than the calibration faces determine the model's errors."""

_FRAME: Final = r"::\d+$"
"""Frame number that follows the video's name in ``image_id``."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """What an audit needs from one or more tables.

    Attributes:
        images: number of pictures and video frames.
        names: hashes of their different names, which hold in this process alone.
        shared: how many different names are in more than one table.
        faces: number of faces in all of them; on video, tracks.
        tracks: how many of the faces are video tracks.
        track_rows: rows of these tracks.
        videos: number of videos with tracks.
        without_face: pictures and video frames without a face.
        errors: pictures by error code.
        answers: faces by their most probable labels, one axis per attribute in the order of
            ``probabilities``; the last index of an axis counts faces without that attribute.
        pictures: number of each kept face's picture or video, ``(N,)``; copies share one.
        named: number of pictures and videos of these faces, counting copies.
        probabilities: attribute to ``(N, K)``, for the table's attributes; NaN where a face lacks
            one, as faces on video may lack ethnicity.
        abstained: attribute to number of faces with abstentions.
        model: name@version (several with the same weights are joined by commas) and hash; empty if
            there are no rows.
    """

    images: int
    names: IntArray
    shared: int
    faces: int
    tracks: int
    track_rows: int
    videos: int
    without_face: int
    errors: Counter[str]
    answers: IntArray
    pictures: IntArray
    named: int
    probabilities: dict[str, FloatArray]
    abstained: dict[str, int]
    model: tuple[str, str]

    def count(self, names: Sequence[str]) -> IntArray:
        """All faces that have the given attributes, counted by their answers."""
        every = list(self.probabilities)
        others = tuple(axis for axis, name in enumerate(every) if name not in names)
        known = tuple(slice(0, -1) for _ in names)
        return self.answers.sum(axis=others)[known]

    def kept(self, names: Sequence[str]) -> tuple[list[FloatArray], IntArray]:
        """Probabilities and pictures of the kept faces that have all the given attributes."""
        parts = [self.probabilities[name] for name in names]
        rows = ~np.any([np.isnan(part[:, 0]) for part in parts], axis=0)
        return [part[rows] for part in parts], self.pictures[rows]


def read_faces(*tables: Path, most_kept: int = MOST_KEPT) -> Faces:
    """Read what an audit needs; a picture's or video's rows must be adjacent, as annotate does.

    Args:
        tables: folders or Parquet files; several are read as one.
        most_kept: faces whose probabilities are kept.

    Raises:
        TableError: as in ``read_batches``; or the rows come from several models, those of a picture
            are not adjacent, or the tables have different columns or only some of an attribute's.
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
            tally.add(table, _plain(batch))
    return (tally or _Tally(Path(), set(), most_kept)).result()


def _plain(batch: Any) -> Any:
    """Cast texts on which Arrow cannot compute: names that are pandas' categories, and views."""
    import pyarrow as pa

    for place, (name, kind) in enumerate(zip(batch.schema.names, batch.schema.types, strict=True)):
        if name == "image_id" or pa.types.is_string_view(kind):
            plain = pa.string()
        elif isinstance(kind, pa.ListType | pa.LargeListType) and pa.types.is_string_view(
            kind.value_type
        ):
            plain = pa.list_(pa.string())
        else:
            continue
        batch = batch.set_column(place, name, batch.column(place).cast(plain))
    return batch


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
        self._without_face = self._faces = 0
        self._tracks = self._track_rows = self._videos = 0
        self._sample = _Sample(most_kept)
        # Hashes, to notice names that come again: of image_ids, by table, and of its videos. They
        # are counted by name, not by first faces, which may have been filtered out.
        self._ids, self._video_names = [array("q")], array("q")
        # Last names in the previous batch; "picture" here is one with a face, or a video.
        self._last_image: str | None = None
        self._last_picture: str | None = None
        self._pictures = 0
        self._video, self._seen = 0, set[int]()  # current video's number, its tracks so far

    def add(self, table: Path, batch: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if set(batch.schema.names) != self._columns:
            raise TableError(f"{table} has other columns than {self._first}: annotate them alike")
        if table != self._table:  # equal names in another table are other pictures or videos
            self._check_names()
            self._ids.append(array("q"))
            self._table, self._last_image, self._last_picture = table, None, None
        names = batch["image_id"]
        self._ids[-1].extend(_hashes(names, _begins(names, self._last_image)))
        self._last_image = names[-1].as_py()
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

    def _check_names(self) -> None:
        """Check at a table's end that the rows of each picture and video were adjacent.

        Raises:
            TableError: they were not, so pictures would be counted too often and intervals be too
                narrow.
        """
        if any(_repeated(_sorted([names])) for names in (self._ids[-1], self._video_names)):
            raise TableError(
                f"{self._table}: rows of one picture are not together: write it with ORDER BY "
                "image_id, face_index"
            )
        self._video_names = array("q")

    def _names(self) -> str:
        return ", ".join(sorted(name for name, _ in self._models))

    def _number(self, faces: Any) -> IntArray:
        """Number pictures and videos consecutively, across batches."""
        import pyarrow.compute as pc

        names, on_video = faces["image_id"], np.zeros(faces.num_rows, bool)
        if "track_id" in faces.schema.names and faces["track_id"].null_count < faces.num_rows:
            tracked = pc.is_valid(faces["track_id"])
            on_video = tracked.to_numpy(zero_copy_only=False)
            names = pc.if_else(tracked, pc.replace_substring_regex(names, _FRAME, ""), names)
        begins = _begins(names, self._last_picture)
        self._video_names.extend(_hashes(names, begins & on_video))
        numbers: IntArray = self._pictures + np.cumsum(begins)
        self._pictures = int(numbers[-1])
        self._last_picture = names[-1].as_py()
        return numbers

    def _first_of_track(self, tracks: Any, pictures: IntArray) -> BoolArray:
        """Mask of the rows that count: faces of photos, and the first row of each video track."""
        import pyarrow.compute as pc

        first: BoolArray = pc.is_null(tracks).to_numpy(zero_copy_only=False)
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

    def _add_faces(self, faces: Any, pictures: IntArray) -> None:
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
        self._check_names()
        names = _sorted(self._ids)
        shared = _repeated(names)
        pictures, probabilities = self._sample.result(sum(self._sizes))
        return Faces(
            images=len(names),
            names=np.unique(names) if shared else names,
            shared=shared,
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


def _begins(names: Any, before: str | None) -> BoolArray:
    """Mask of the rows whose name differs from the previous row's."""
    import pyarrow.compute as pc

    new = np.ones(len(names), bool)
    new[1:] = pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)
    new[0] = names[0].as_py() != before
    return new


def _hashes(names: Any, rows: BoolArray) -> Iterator[int]:
    """64-bit hashes of the names in the rows of a mask."""
    import pyarrow as pa

    return map(hash, names.filter(pa.array(rows)).to_pylist())


def _sorted(hashes: Sequence[array[int]]) -> IntArray:
    every = np.concatenate([np.frombuffer(part, np.int64) for part in hashes])
    every.sort()  # in place
    return every


def _repeated(hashes: IntArray) -> int:
    """How many different hashes are there more than once, of sorted ones."""
    return len(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))


def _matrix(faces: Any, columns: Sequence[str]) -> FloatArray:
    """float32 ``(rows, columns)``, NaN for null."""
    stacked = [faces[column].to_numpy(zero_copy_only=False) for column in columns]
    return np.stack(stacked, axis=1).astype(np.float32)


def _lots(rows: Array) -> Float64Array:
    """A number from 0 to 1 per row, by a hash of its bytes."""
    keys = as_keys(rows).tolist()
    digests = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, "<u8") / 2.0**64


class _Sample:
    """A random, reproducible sample of whole pictures with their faces, and with their copies.

    Each picture gets a number from a hash of its answers; those with the smallest numbers are kept
    until they have enough faces. The last one may exceed that, as a long video may have more
    tracks. Copies have the same answers: were they kept one by one, a sample would have few, and
    seem to know more than the table.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lots: list[Float64Array] = []
        self._pictures: list[IntArray] = []
        self._probabilities: list[FloatArray] = []
        self._held, self._room = 0, 2 * most
        self._limit = 1.0
        self._last = (-1, 0.0)  # picture and its number at the end of the previous batch

    def add(self, pictures: IntArray, probabilities: FloatArray) -> None:
        numbers, first, position = np.unique(pictures, return_index=True, return_inverse=True)
        lots = _lots(probabilities[first] if probabilities.shape[1] else numbers[:, None])
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

    def result(self, columns: int) -> tuple[IntArray, FloatArray]:
        self._shrink()
        if not self._lots:
            return np.empty(0, np.int64), np.empty((0, columns), np.float32)
        return np.concatenate(self._pictures), np.concatenate(self._probabilities)
