"""The OpenAPI document: FastAPI's own, plus request bodies, responses and examples."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from facewise._version import __version__
from facewise.server.examples import analysis_example, batch_example
from facewise.server.problems import TITLES, Problem
from facewise.server.schemas import Schemas
from facewise.server.state import State
from facewise.text import counted

DESCRIPTION: Final = (
    "The faces in a photo, with their *apparent* attributes: what a model says people would guess, "
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
    _add_schemas(document, schemas.analysis, schemas.batch, Problem)
    _use_problems(document)
    one = document["paths"]["/v1/analyze"]["post"]
    several = document["paths"]["/v1/analyze/batch"]["post"]
    _add_bodies(one, several, state.settings.max_batch_photos)
    _add_answer(one, "Analysis", analysis_example(state))
    _add_answer(several, "BatchAnalysis", batch_example(state))
    for operation in (one, several):
        _narrow_parameters(operation, state)
    _add_headers(document)
    # For readers of the document, and for the page that shows it.
    document["x-problems"] = TITLES
    if state.access.needs_key:
        _add_security(document)
    return document


def _add_schemas(document: dict[str, Any], *models: type[BaseModel]) -> None:
    """Document models that no route names as its own, so that FastAPI does not know them."""
    kinds: list[tuple[type[BaseModel], Any]] = [(model, "serialization") for model in models]
    _, extra = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(extra["$defs"])


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


def _add_bodies(one: dict[str, Any], several: dict[str, Any], most: int) -> None:
    """Document the bodies, which the routes read from the stream themselves."""
    one["requestBody"] = {
        "required": True,
        "content": {
            "multipart/form-data": _form(
                "file", {**_BINARY, "description": f"the picture; its {_NAMED}"}
            ),
            "image/*": {"schema": _BINARY},
            "application/octet-stream": {"schema": _BINARY},
        },
    }
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
        "content": {"multipart/form-data": _form("files", many)},
    }


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A form of one field."""
    return {
        "schema": {
            "type": "object",
            "properties": {field: schema},
            "required": [field],
            "additionalProperties": False,
        }
    }


def _add_answer(operation: dict[str, Any], schema: str, example: dict[str, Any]) -> None:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    operation["responses"]["200"] = {
        "description": "Analysed; the example is of vector=true",
        "content": {"application/json": {"schema": reference, "example": example}},
    }


def _narrow_parameters(operation: dict[str, Any], state: State) -> None:
    """Document the attributes and levels that this server can answer with."""
    attributes = state.inference.attributes
    levels = state.inference.calibration.coverages
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


def _add_security(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, methods in document["paths"].items():
        if path.startswith(("/v1/analyze", "/metrics")) or path == "/v1/models":
            for operation in methods.values():
                operation["security"] = [{"key": []}, {"header": []}]  # either of them
