"""An annotated table as arrays: what an audit needs of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.errors import MissingExtraError, TableError
from facewise.labels import ATTRIBUTES
from facewise.types import FloatArray

PARTS: Final = "part-*.parquet"
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "age": tuple(f"p_age_{10 * k + 1}_{10 * k + 10}" for k in range(12)),
    "gender": ("p_male", "p_female"),
    "ethnicity": ("p_white", "p_black", "p_asian", "p_indian", "p_others"),
}
"""The table's columns of probabilities, as docs/annotate.md has them."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """A table.

    Attributes:
        images: pictures, and frames of video.
        without_face: pictures in which none was found.
        errors: pictures by error code.
        pictures: ``image_id`` of each face, ``(N,)``.
        probabilities: attribute to ``(N, K)``, for those that the table holds.
        abstained: attribute to faces abstained from.
        model: name@version, and hash; empty where there is no row.
    """

    images: int
    without_face: int
    errors: Counter[str]
    pictures: NDArray[Any]
    probabilities: dict[str, FloatArray]
    abstained: dict[str, int]
    model: tuple[str, str]

    def __len__(self) -> int:
        return len(self.pictures)


def part_files(table: Path) -> list[Path]:
    """The table's Parquet files: a folder's parts, or the one file that is named.

    Raises:
        TableError: there is none.
    """
    files = [table] if table.is_file() else sorted(table.glob(PARTS))
    if not files:
        raise TableError(f"{table} is no annotated table: make one with facewise annotate")
    return files


def read_columns(table: Path, columns: list[str] | None = None) -> Any:
    """Columns of a table as a ``pyarrow.Table``; those that it lacks are left out.

    Raises:
        TableError: it is not there, is damaged, or is no table of facewise.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("reading a table", "batch") from error
    parts = []
    for path in part_files(table):
        try:
            names = pq.read_schema(path).names
            if not {"image_id", "face_index", "error_code"} <= set(names):
                raise TableError(f"{path} lacks image_id or face_index: not facewise annotate's")
            wanted = names if columns is None else [name for name in columns if name in names]
            parts.append(pq.ParquetFile(path).read(columns=wanted))
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{path} cannot be read ({error}): annotate again") from error
    return pa.concat_tables(parts, promote_options="default")


def read_faces(table: Path) -> Faces:
    """Read what an audit needs.

    Raises:
        TableError: as ``read_columns``; or several models made the rows.
    """
    import pyarrow.compute as pc

    every = [name for names in COLUMNS.values() for name in names]
    keys = ["image_id", "face_index", "error_code", "abstained", "model", "model_sha256"]
    rows = read_columns(table, keys + every)
    models = rows.select(["model", "model_sha256"]).group_by(["model", "model_sha256"])
    made_by = models.aggregate([]).to_pylist()
    if len(made_by) > 1:
        names = ", ".join(sorted(str(row["model"]) for row in made_by))
        raise TableError(f"{table} has rows of several models ({names}): audit one at a time")
    faces = rows.filter(pc.is_valid(rows["face_index"]))
    rest = rows.filter(pc.is_null(rows["face_index"]))
    errors = Counter(code for code in rest["error_code"].to_pylist() if code is not None)
    probabilities = {
        name: np.stack([faces[c].to_numpy() for c in columns], axis=1).astype(np.float32)
        for name, columns in COLUMNS.items()
        if set(columns) <= set(rows.column_names)
    }
    said = pc.list_flatten(faces["abstained"]).to_pylist()
    return Faces(
        images=pc.count_distinct(rows["image_id"]).as_py(),
        without_face=len(rest) - errors.total(),
        errors=errors,
        pictures=faces["image_id"].to_numpy(),
        probabilities=probabilities,
        abstained={n: said.count(n) for n in ATTRIBUTES if n in probabilities},
        model=(made_by[0]["model"], made_by[0]["model_sha256"]) if made_by else ("", ""),
    )
