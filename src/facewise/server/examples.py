"""Example answers for the OpenAPI document, made by the code that answers."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import numpy as np

from facewise.analyzer import STAGES
from facewise.labels import AGE_LABELS, LABELS
from facewise.server.inference import PhotoResult
from facewise.server.problems import ProblemError
from facewise.server.routes import QueryOptions, analysis, batch
from facewise.server.state import State
from facewise.types import Distribution, Face, Prediction, Quality

_REQUEST_ID: Final = "4f0c2ad1b7e94f3d"
_MILLISECONDS: Final = (0.1, 6.2, 41.0, 0.6, 5.3, 0.4, 53.6)
_TIMES: Final = dict(zip(("queue", *STAGES, "total"), _MILLISECONDS, strict=True))
_FACE: Final = Face(
    bbox=[180.5, 61.7, 268.6, 173.5],
    landmarks=[[205.0, 100.9], [247.8, 104.2], [225.6, 128.9], [202.1, 139.1], [245.5, 142.6]],
    detection_score=0.99998,
    quality=Quality(42.93, sharpness=0.712, yaw_degrees=-1.8, brightness=0.541, contrast=0.198),
)
_PROBLEM: Final = ProblemError(
    422,
    "not_an_image",
    "Not a picture: use a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, PGM, PPM or HEIC file.",
)


def analysis_example(state: State) -> dict[str, Any]:
    """An example response of ``/v1/analyze``, with ``vector=true``."""
    return analysis(state, _options(state), _REQUEST_ID, _TIMES, _result(state))


def batch_example(state: State) -> dict[str, Any]:
    """An example response of ``/v1/analyze/batch``, with ``vector=true``."""
    return batch(state, _options(state), _REQUEST_ID, _TIMES, [_result(state), _PROBLEM])


def _options(state: State) -> QueryOptions:
    return QueryOptions(state.inference.attributes, state.coverage, vector=True, years=False)


def _result(state: State) -> PhotoResult:
    return PhotoResult(512, 512, (_prediction(state),), more_faces=False)


def _prediction(state: State) -> Prediction:
    """Invented answers, which only show the format."""
    on = state.inference.attributes
    p = {
        "age": np.array([0, 0, 0.41, 0.53, 0.06, *[0] * 7], np.float32),
        "gender": np.array([0.03, 0.97], np.float32),
        "ethnicity": np.array([0.93, 0.01, 0.01, 0.02, 0.03], np.float32),
    }
    whole = Prediction(
        face=_FACE,
        age_years=31.9,
        age_interval_years=(25, 40),
        coverage=state.coverage,
        age=Distribution(AGE_LABELS, np.repeat(p["age"] / 10, 10), AGE_LABELS[24:40]),
        age_decades=Distribution(LABELS["age"], p["age"], ("31-40", "21-30")),
        gender=Distribution(LABELS["gender"], p["gender"], ("female",)),
        ethnicity=Distribution(LABELS["ethnicity"], p["ethnicity"], ("White",)),
        vector=np.concatenate([q if name in on else q * np.nan for name, q in p.items()]),
        model=state.spec.info,
    )
    off: dict[str, Any] = {name: None for name in LABELS if name not in on}
    return dataclasses.replace(whole, **off)
