"""The OpenAPI document: FastAPI's own, plus request bodies, responses and examples."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from facewise._version import __version__
from facewise.analyzer import STAGES
from facewise.labels import DECADE_LABELS, ETHNICITY_LABELS
from facewise.server.problems import TITLES, Problem
from facewise.server.schemas import SCHEMA_VERSION, Schemas
from facewise.server.state import State
from facewise.text import counted

DESCRIPTION: Final = (
    "Every face in a photo, with its *apparent* attributes: what a model says people would guess, "
    "as probabilities, with an interval, and with a reason where it cannot tell. Not for "
    "identity, age checks or decisions about a person. Photos are analysed in memory and "
    "forgotten; no URL is fetched."
)
_BINARY: Final = {"type": "string", "format": "binary", "contentMediaType": "image/*"}
_NAMED: Final = "part needs a filename in its Content-Disposition"
_HEADERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "X-Request-ID": ("as in the server's log, and in the body of a problem", {"type": "string"}),
    "Retry-After": ("seconds to wait", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("how the key is sent", {"type": "string"}),
}
_HEADERS_OF: Final = {
    "401": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
"""Headers besides X-Request-ID, which is on every response."""


def install(app: FastAPI, state: State, schemas: Schemas) -> None:
    """Make ``app.openapi()`` build the whole document, once, and serve it."""
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(_document(app, state, schemas))
        return document

    async def serve() -> JSONResponse:
        return JSONResponse(openapi())

    app.openapi = openapi  # type: ignore[method-assign]
    # FastAPI's own route has no name in the log.
    app.add_api_route("/openapi.json", serve, include_in_schema=False)


def _document(app: FastAPI, state: State, schemas: Schemas) -> dict[str, Any]:
    document = get_openapi(
        title="facewise",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": state.settings.root_path or "/"}],
    )
    components = document.setdefault("components", {})
    kinds: list[tuple[type[BaseModel], Any]] = [
        (kind, "serialization") for kind in (schemas.analysis, schemas.batch, Problem)
    ]
    _, extra = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {}).update(extra["$defs"])
    _use_problems(document)
    paths = document["paths"]
    one, several = paths["/v1/analyze"]["post"], paths["/v1/analyze/batch"]["post"]
    one["requestBody"] = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {**_BINARY, "description": f"the picture; its {_NAMED}"},
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
    most = state.settings.max_batch_photos
    # `file` is accepted here as well, but client generators cannot handle alternatives.
    many = {
        "type": "array",
        "items": _BINARY,
        "minItems": 1,
        "maxItems": most,
        "description": f"up to {counted(most, 'picture', 'pictures')}; each {_NAMED}",
    }
    several["requestBody"] = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": many},
                    "required": ["files"],
                    "additionalProperties": False,
                }
            }
        },
    }
    attributes = state.inference.attributes
    levels = state.inference.calibration.coverages
    for operation, name, example in (
        (one, "Analysis", analysis_example(state)),
        (several, "BatchAnalysis", batch_example(state)),
    ):
        schema = {"$ref": f"#/components/schemas/{name}"}
        operation["responses"]["200"] = {
            "description": "Analysed; the example is of vector=true",
            "content": {"application/json": {"schema": schema, "example": example}},
        }
        choice = "|".join(attributes)
        for parameter in operation["parameters"]:
            if parameter["name"] == "attributes":
                parameter["schema"] = {
                    "type": "string",
                    "pattern": f"^[ ,]*({choice})( *,[ ,]*({choice}))*[ ,]*$",
                    "examples": [",".join(attributes[:2])],
                }
            if parameter["name"] == "coverage":
                # Not an enum: client generators support only string and integer enums.
                parameter["description"] += f"; one of {', '.join(f'{v:g}' for v in levels)}"
                parameter["schema"] = {
                    "type": "number",
                    "minimum": min(levels),
                    "maximum": max(levels),
                    "examples": list(levels),
                    "default": state.coverage,
                }
    _add_headers(document)
    # For readers of the document, and for the page that shows it.
    document["x-problems"] = TITLES
    if state.access.needs_key:
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, methods in paths.items():
            if path.startswith(("/v1/analyze", "/metrics")) or path == "/v1/models":
                for operation in methods.values():
                    operation["security"] = [{"key": []}, {"header": []}]  # either of them
    return document


def _use_problems(document: dict[str, Any]) -> None:
    """Drop FastAPI's own 422 schema and other error types: here every error is a problem."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")):
                    content = answer["content"]
                    content.pop("application/json", None)
                    content.pop("text/plain", None)


def _add_headers(document: dict[str, Any]) -> None:
    """Document the response headers."""
    document["components"]["headers"] = {
        name: {"description": meaning, "required": True, "schema": schema}
        for name, (meaning, schema) in _HEADERS.items()
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                answer["headers"] = {
                    name: {"$ref": f"#/components/headers/{name}"}
                    for name in ("X-Request-ID", *_HEADERS_OF.get(status, ()))
                }


def _common(state: State) -> dict[str, Any]:
    milliseconds = (0.1, 6.2, 41.0, 0.6, 5.3, 0.4, 53.6)
    return {
        "schema_version": SCHEMA_VERSION,
        "facewise_version": __version__,
        "request_id": "4f0c2ad1b7e94f3d",
        "model": state.spec.info.to_dict(),
        "attributes": list(state.inference.attributes),
        "coverage": state.coverage,
        "timings_ms": dict(zip(("queue", *STAGES, "total"), milliseconds, strict=True)),
    }


def _example_face(state: State) -> dict[str, Any]:
    """An invented face, which only shows the format of a response with ``vector=true``."""
    on = state.inference.attributes
    decades = dict.fromkeys(DECADE_LABELS, 0.0)
    decades |= {"21-30": 0.41, "31-40": 0.53, "41-50": 0.06}
    gender = {"male": 0.03, "female": 0.97}
    ethnicity = dict(zip(ETHNICITY_LABELS, (0.93, 0.01, 0.01, 0.02, 0.03), strict=True))
    face: dict[str, Any] = {
        "bbox": [180.5, 61.7, 268.6, 173.5],
        "landmarks": [
            [205.0, 100.9],
            [247.8, 104.2],
            [225.6, 128.9],
            [202.1, 139.1],
            [245.5, 142.6],
        ],
        "detection_score": 0.99998,
        "quality": {
            "eye_distance_px": 42.93,
            "sharpness": 0.712,
            "yaw_degrees": -1.8,
            "brightness": 0.541,
            "contrast": 0.198,
        },
    }
    if "age" in on:
        face["age"] = {
            "years": 31.9,
            "interval_years": [25, 40],
            "decades": _example_distribution(decades, "31-40", "21-30"),
        }
    if "gender" in on:
        face["gender"] = _example_distribution(gender, "female")
    if "ethnicity" in on:
        face["ethnicity"] = _example_distribution(ethnicity, ETHNICITY_LABELS[0])
    parts = (("age", decades), ("gender", gender), ("ethnicity", ethnicity))
    return face | {
        "coverage": state.coverage,
        "abstained": {},
        "vector": [p if name in on else None for name, part in parts for p in part.values()],
        "model": state.spec.info.to_dict(),
    }


def _example_distribution(probabilities: dict[str, float], *label_set: str) -> dict[str, Any]:
    return {
        "label": label_set[0],
        "probabilities": probabilities,
        "label_set": list(label_set),
    }


def analysis_example(state: State) -> dict[str, Any]:
    """An example response of ``/v1/analyze``."""
    return {
        **_common(state),
        "width_px": 512,
        "height_px": 512,
        "more_faces": False,
        "faces": [_example_face(state)],
    }


def batch_example(state: State) -> dict[str, Any]:
    """An example response of ``/v1/analyze/batch``."""
    error = {
        "code": "not_an_image",
        "title": "This is not a picture",
        "detail": (
            "Not a picture: pass a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, PGM, PPM or HEIC file."
        ),
    }
    photo = {
        "width_px": 512,
        "height_px": 512,
        "more_faces": False,
        "faces": [_example_face(state)],
    }
    return {**_common(state), "photos": [{"index": 0, **photo}, {"index": 1, "error": error}]}
