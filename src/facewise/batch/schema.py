"""Columns of an annotated table: what ``facewise annotate`` writes and every reader relies on.

A table is a folder of Parquet files, ``part-*.parquet``. Names that begin with ``_`` are internal
files, which Arrow, pandas and Spark ignore by default. docs/annotate.md describes the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from facewise.annotated import DECADE_COLUMNS, ETHNICITY_COLUMNS, GENDER_COLUMNS
from facewise.errors import needs_extra
from facewise.labels import ATTRIBUTES

SCHEMA_VERSION: Final = 1
"""Incremented when a column's name, type or meaning changes, but not for new columns alone."""


KEYS: Final = {
    "image_id": "string",
    "face_index": "int32",
}
"""``face_index`` numbers a picture's faces from 0, largest first; null in the single row of a
picture without a face or with an error."""

IMAGE: Final = {
    "width_px": "int32",
    "height_px": "int32",
    "frame_index": "int64",
    "time_seconds": "float64",
    "track_id": "int32",
}
"""The last three are null except for video."""

FACE: Final = {
    "bbox": "list",
    "landmarks": "list",
    "detection_score": "float32",
    "eye_distance_px": "float32",
    "sharpness": "float32",
    "yaw_degrees": "float32",
    "brightness": "float32",
    "contrast": "float32",
}
"""``bbox``: 4 numbers, xyxy; ``landmarks``: 10, five x, y points. Pixels of the upright photo."""

VECTOR_COLUMNS: Final = DECADE_COLUMNS + GENDER_COLUMNS + ETHNICITY_COLUMNS
"""The 19 outputs in the order of ``facewise.labels``; calibrated, each group sums to 1."""

ATTRIBUTE_COLUMNS: Final[dict[str, dict[str, str]]] = {
    "age": {
        "age_years": "float32",
        "age_low_years": "int16",
        "age_high_years": "int16",
        **dict.fromkeys(DECADE_COLUMNS, "float32"),
    },
    "gender": {"gender": "string", **dict.fromkeys(GENDER_COLUMNS, "float32")},
    "ethnicity": {"ethnicity": "string", **dict.fromkeys(ETHNICITY_COLUMNS, "float32")},
}
"""Columns present only if the attribute was requested. ``gender`` and ``ethnicity`` hold the most
probable label, even where facewise abstains."""

TAIL: Final = {
    "abstained": "strings",
    "abstained_reasons": "strings",
    "model": "string",
    "model_sha256": "string",
    "error_code": "string",
    "error_message": "string",
}
"""``abstained``: attributes from which facewise abstains; empty if none, null without a face.
``abstained_reasons``: why, in the same order. The error columns are null if there was no error."""


def columns(attributes: Sequence[str] = ATTRIBUTES) -> dict[str, str]:
    """Column names and their types, in the table's order.

    Args:
        attributes: any of age, gender, ethnicity.
    """
    out = {**KEYS, **IMAGE, **FACE}
    for name in ATTRIBUTES:
        if name in attributes:
            out |= ATTRIBUTE_COLUMNS[name]
    return out | TAIL


def arrow_schema(attributes: Sequence[str] = ATTRIBUTES) -> Any:
    """The table's ``pyarrow.Schema``, with the schema version in its metadata.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    with needs_extra("a table", "batch"):
        import pyarrow as pa
    types = {
        "string": pa.string(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "list": pa.list_(pa.float32()),
        "strings": pa.list_(pa.string()),
    }
    fields = [
        pa.field(name, types[kind], nullable=name != "image_id")
        for name, kind in columns(attributes).items()
    ]
    return pa.schema(fields, metadata={"facewise_schema_version": str(SCHEMA_VERSION)})
