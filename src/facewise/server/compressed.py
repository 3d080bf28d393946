"""Files and texts that browsers revalidate, compressed for clients that accept gzip."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import os
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


class CompressedFiles(StaticFiles):
    """Files of the page, which browsers revalidate each time.

    Clients that accept gzip get the compressed copy that `make page` wrote beside a file, if any.
    Range headers are ignored, as RFC 9110, 14.2 allows, because Starlette's refusals of a range are
    not problem documents.
    """

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        packed = Path(f"{os.fspath(full_path)}.gz")
        headers = {"Cache-Control": "no-cache", "Accept-Ranges": "none"}
        # Removed from the scope itself, since the response reads it, too.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]
        response: Response | None = None
        if packed.is_file():
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(Headers(scope=scope)):
                # Its time and size give it another ETag than the uncompressed file.
                response = super().file_response(packed, packed.stat(), scope, status_code)
                if response.status_code != 304:
                    kind, _ = mimetypes.guess_type(full_path)
                    headers["Content-Type"] = kind or "application/octet-stream"
                    headers["Content-Encoding"] = "gzip"
        response = response or super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(headers)
        return response


def compressed_text(request: Request, text: str, kind: str) -> Response:
    """A text response that browsers revalidate; compressed for clients that accept gzip."""
    body = text.encode()
    headers = {"Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding"}
    if _takes_gzip(request.headers):
        body = gzip.compress(body, mtime=0)
        headers["Content-Encoding"] = "gzip"
    headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def _takes_gzip(asked: Headers) -> bool:
    """Whether a request's Accept-Encoding lists gzip with a weight above 0."""
    return any(
        coding.strip().lower() == "gzip" and not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
        for coding, _, weight in (
            part.partition(";") for part in asked.get("accept-encoding", "").split(",")
        )
    )
