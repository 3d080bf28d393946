"""Errors as RFC 9457 problem documents, each with advice."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from facewise.errors import (
    CorruptImageError,
    EmptyImageError,
    FacewiseError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    NotAnImageError,
    UnsupportedFormatError,
)

logger = logging.getLogger("facewise.server")

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF_ERROR: Final[dict[type[FacewiseError], int]] = {
    EmptyImageError: 400,
    NotAnImageError: 415,
    UnsupportedFormatError: 415,
    CorruptImageError: 422,
    ImageTooLargeError: 413,
    ImageTooSmallError: 422,
}

TITLES: Final[dict[str, str]] = {
    "batch_too_large": "The photos of a batch are too large together",
    "busy": "The server is busy",
    "image_corrupt": "The picture is damaged",
    "image_empty": "The picture is empty",
    "image_error": "The picture cannot be read",
    "image_too_large": "The picture is too large",
    "image_too_small": "The picture is too small",
    "internal_error": "Something went wrong on the server",
    "invalid_option": "A parameter, its value or a field cannot be used here",
    "invalid_request": "The request cannot be read",
    "method_not_allowed": "This address does not take that method",
    "misdirected": "This server answers its own machine only",
    "missing_file": "The request holds no picture",
    "model_not_found": "There is no such model",
    "not_an_image": "This is not a picture",
    "not_found": "There is nothing at this address",
    "rate_limited": "Too many photos in a short time",
    "too_many_photos": "Too many photos in one request",
    "too_many_uploads": "Too many uploads at a time",
    "unauthorized": "An API key is needed",
    "unsupported_format": "This kind of file is not supported",
    "unsupported_media_type": "This kind of body is not supported",
    "upload_timeout": "The upload took too long",
}
"""Every ``code`` of a problem, with its title."""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "/docs#image_too_small",
                "title": "The picture is too small",
                "status": 422,
                "detail": "8 x 8 pixels: a picture needs 16 on its shorter side: use a larger one.",
                "code": "image_too_small",
                "request_id": "4f0c2ad1b7e94f3d",
            }
        }
    )

    type: str = Field(description="where the problem is documented, relative to this server")
    title: str = Field(description="what happened, the same for every problem of this code")
    status: int
    detail: str = Field(description="what happened this time, and what to do")
    code: str = Field(description="stable and machine-readable", examples=sorted(TITLES))
    request_id: str = Field(description="as in the X-Request-ID header and the server's log")


class ProblemError(Exception):
    """Raise this anywhere in a request to answer with a problem document."""

    def __init__(
        self, status: int, code: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers = headers or {}


def problem_of(error: FacewiseError) -> ProblemError:
    """The problem for an error of the library; 500 if it is the server's fault."""
    for kind in type(error).__mro__:
        if kind in STATUS_OF_ERROR:
            return ProblemError(STATUS_OF_ERROR[kind], error.code, _sentence(error))
    if isinstance(error, ImageError):
        return ProblemError(422, "image_error", _sentence(error))
    return _internal()


def _sentence(error: Exception) -> str:
    """The error's message, without advice that only a caller of the library can follow."""
    if isinstance(error, EmptyImageError):
        return "The file has no bytes: choose the picture again, or save it anew."
    message = error.with_setting() if isinstance(error, ImageTooLargeError) else str(error)
    words = re.sub(r"needs an extra: pip install \S+, or", "is not supported:", message)
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _internal() -> ProblemError:
    return ProblemError(
        500,
        "internal_error",
        "The server failed on this request. Try again; if it keeps failing, tell the operator the "
        "request_id.",
    )


def busy(why: str) -> ProblemError:
    """A 503 problem with Retry-After."""
    return ProblemError(
        503,
        "busy",
        f"The server is busy: {why}. Try again in a second or two.",
        {"Retry-After": "2"},
    )


def too_large(limit_bytes: int) -> ProblemError:
    """The 413 problem for a photo with too many bytes."""
    return ProblemError(
        413,
        "image_too_large",
        f"More than {limit_bytes / 1e6:g} MB: send a smaller picture. A photo saved as JPEG at "
        "2,000 pixels loses nothing here.",
    )


def short(text: str) -> str:
    """A client's text, shortened for quoting in a response."""
    return text if len(text) <= 60 else text[:57] + "..."


def request_id_of(scope: Any) -> str:
    """The request id set by the outermost middleware."""
    return str(scope.get("state", {}).get("request_id", ""))


def code_of(scope: Any) -> str | None:
    """The code of the problem that the request was answered with; None if it had no problem."""
    return scope.get("state", {}).get("problem_code")


def render(problem: ProblemError, scope: Any) -> JSONResponse:
    """A problem as a response; its code is kept in the scope, for the log and the metrics."""
    # Inside a mount, root_path is the mount's; app_root_path is the app's.
    root = scope.get("app_root_path", scope.get("root_path", ""))
    body = {
        "type": f"{root}/docs#{problem.code}",
        "title": TITLES[problem.code],
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id_of(scope),
    }
    scope.setdefault("state", {})["problem_code"] = problem.code
    return JSONResponse(body, problem.status, problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Turn every error of an app into a problem document."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return render(error, request.scope)

    async def on_facewise_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, FacewiseError)
        problem = problem_of(error)
        if problem.status == 500:
            logger.error("id=%s %s", request_id_of(request.scope), error, exc_info=error)
        return render(problem, request.scope)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        parts = [
            f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}"
            for item in error.errors()
        ]
        return render(ProblemError(422, "invalid_option", "; ".join(parts)), request.scope)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return render(_of_http(error), request.scope)

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(FacewiseError, on_facewise_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def internal_error(scope: Any) -> JSONResponse:
    """The response to an unexpected exception."""
    return render(_internal(), scope)


def _of_http(error: HTTPException) -> ProblemError:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return ProblemError(404, "not_found", "Nothing is at this address; see /docs.", headers)
    if error.status_code == 405:
        # Older versions of Starlette do not say so of static files.
        if headers.setdefault("Allow", "GET") == "GET":
            headers["Allow"] = "GET, HEAD"
        detail = f"This address takes {headers['Allow']} only; see /docs."
        return ProblemError(405, "method_not_allowed", detail, headers)
    if error.status_code >= 500:
        return _internal()
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"{error.detail or phrase}: see /docs for what each request takes"
    return ProblemError(error.status_code, "invalid_request", detail, headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems that a route can return."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
