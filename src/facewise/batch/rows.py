"""Convert predictions to rows of the table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facewise.batch.schema import VECTOR_COLUMNS
from facewise.errors import FacewiseError, ImageNotFoundError, ImageTooLargeError
from facewise.labels import CLASSES, PARTS
from facewise.text import reason_of

if TYPE_CHECKING:
    from facewise.batch.job import Item
    from facewise.types import ModelInfo, Photo, Prediction

Row = dict[str, Any]


def photo_rows(
    image_id: str, photo: Photo, predictions: Sequence[Prediction], model: ModelInfo
) -> list[Row]:
    """Rows of one picture: one per face, or a single row if there is no face."""
    about = {
        "image_id": image_id,
        "width_px": photo.width_px,
        "height_px": photo.height_px,
        **model_columns(model),
    }
    if not predictions:
        return [about]
    return [
        {**about, "face_index": index, **face_columns(prediction), **answer_columns(prediction)}
        for index, prediction in enumerate(predictions)
    ]


def error_row(item: Item, error: Exception, model: ModelInfo) -> Row:
    """The row of a picture that could not be read or analysed."""
    image_id = item.image_id
    if isinstance(error, FacewiseError):
        # Only an OSError's reason: its path is specific to this machine.
        message = reason_of(error)
        if isinstance(error, ImageTooLargeError):
            message = error.with_option()
        if isinstance(error, ImageNotFoundError) and item.shown:
            message = f"{item.shown} {message}"
        return problem_row(image_id, error.code, message, model)
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    return problem_row(image_id, "analysis_failed", message, model)


def problem_row(image_id: str, code: str, message: str, model: ModelInfo) -> Row:
    return {
        "image_id": image_id,
        "error_code": code,
        "error_message": message.encode("utf-8", "backslashreplace").decode(),
        **model_columns(model),
    }


def model_columns(model: ModelInfo) -> Row:
    return {"model": f"{model.name}@{model.version}", "model_sha256": model.sha256}


def face_columns(prediction: Prediction) -> Row:
    """Columns of the detected face: box, landmarks, score and quality."""
    face = prediction.face
    row: Row = {
        "bbox": face.bbox.tolist(),
        "landmarks": face.landmarks.ravel().tolist(),
        "detection_score": face.detection_score,
    }
    if (quality := face.quality) is not None:
        row |= dataclasses.asdict(quality)
    return row


def answer_columns(prediction: Prediction) -> Row:
    """The answers about one face; any that the table lacks are dropped when it is built."""
    vector = prediction.vector
    row: Row = {
        name: None if math.isnan(value) else value
        for name, value in zip(VECTOR_COLUMNS, vector.tolist(), strict=True)
    }
    if prediction.age_interval_years is not None:
        row["age_years"] = prediction.age_years
        row["age_low_years"], row["age_high_years"] = prediction.age_interval_years
    for name, labels in CLASSES.items():
        part = vector[PARTS[name]]
        if not np.isnan(part).any():
            row[name] = labels[int(part.argmax())]
    row["abstained"] = list(prediction.abstained)
    row["abstained_reasons"] = list(prediction.abstained.values())
    return row


def to_ipc(rows: Iterable[Row], schema: Any) -> bytes:
    """Rows as an Arrow IPC stream."""
    import pyarrow as pa

    listed = list(rows)
    arrays = [
        pa.array([row.get(field.name) for row in listed], type=field.type) for field in schema
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue().to_pybytes()
