"""Read request bodies into memory, limited while they stream, never on disk.

Each is there once, so that the bytes received are the memory held: ``BytesIO.getvalue`` shares its
buffer with the answer, where joining chunks or reading a file would copy it.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Final

import anyio
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from facewise.server.access import client_of
from facewise.server.problems import ProblemError, busy, short, too_large
from facewise.settings import MULTIPART_OVERHEAD_BYTES, Settings
from facewise.text import counted

FIELD: Final = "file"
BATCH_FIELDS: Final = ("file", "files")
UNTYPED: Final = ("application/octet-stream", "")
"""Media types from clients that do not know one. Pictures are recognised by their bytes, whatever
their type; text and forms are refused, so that sending them by mistake is noticed. Another site's
page can send an untyped body, like a form, without a preflight; ``middleware.Private`` refuses both
by their Origin."""
PARAMETERS: Final = ("vector", "years", "attributes", "coverage")
"""Query parameters of the analysing routes; a form that contains them gets an explanation."""


class _InMemoryParser(MultiPartParser):
    """A parser that keeps files itself; Starlette's would spool those above 1 MB to disk.

    Args:
        headers: the request's.
        stream: its body.
        wanted: the only allowed fields, which hold files.
        most: how many files are allowed. One more is accepted, so that the response can say so.
    """

    def __init__(
        self,
        headers: Headers,
        stream: AsyncGenerator[bytes, None],
        *,
        wanted: Sequence[str],
        most: int,
    ) -> None:
        super().__init__(headers, stream, max_files=most + 1, max_fields=16, max_part_size=4096)
        self._wanted = wanted
        self.files: list[io.BytesIO] = []

    def on_headers_finished(self) -> None:
        """Refuse unknown fields and pictures sent as text.

        Silently ignored, options in the form would return more than requested; a picture sent as
        text would be reported only as too long.
        """
        super().on_headers_finished()
        part = self._current_part
        if part.field_name not in self._wanted:
            raise _no_field(part.field_name, self._wanted)
        if part.file is None:
            raise _missing_file(
                f"The part {part.field_name} needs a filename in its Content-Disposition: without "
                "one (filename* alone is not read) it is a text and no file",
                part.field_name,
            )
        self.files.append(io.BytesIO())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.files[-1].write(memoryview(data)[start:end])

    @property
    def is_cut_off(self) -> bool:
        """Whether the body ended inside a file, which python-multipart lets pass in silence."""
        return len(self.files) > len(self.items)

    def close_files(self) -> None:
        """Free every part, including those that a truncated body left out of the form."""
        for file in (*self.files, *self._files_to_close_on_error):  # Starlette's own are empty
            file.close()


class Uploads:
    """Bounds memory: counts the bodies, and their bytes, that are held at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.held = 0
        self.held_bytes = 0
        self._by_client: Counter[str] = Counter()
        self._share = settings.served_uploads_per_client

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[Place]:
        """Hold a place while a body is in memory.

        Raises:
            ProblemError: 503 if none is free, 429 if the client already holds its share.
        """
        client = client_of(request)
        self._check_places()
        if self._by_client[client] >= self._share:
            raise ProblemError(
                429,
                "too_many_uploads",
                f"One client may have {counted(self._share, 'upload', 'uploads')} under way here. "
                "Try again in a second or two, with fewer at a time.",
                {"Retry-After": "2"},
            )
        place = Place(self, self._settings)
        self.held += 1
        self._by_client[client] += 1
        try:
            yield place
        finally:
            self.held -= 1
            self._by_client[client] -= 1
            self._by_client += Counter()  # drops clients that hold none
            self.held_bytes -= place.held_bytes

    def check_ready(self) -> None:
        """Check that there is now a place and memory for the largest photo.

        Raises:
            ProblemError: 503.
        """
        self._check_places()
        self.check_room(self._settings.max_bytes + MULTIPART_OVERHEAD_BYTES)

    def _check_places(self) -> None:
        if self.held >= self._settings.uploads:
            raise busy("as many uploads as it can hold are under way")

    def check_room(self, more_bytes: int) -> None:
        """Check that this many more bytes can be held.

        Raises:
            ProblemError: 503.
        """
        if self.held_bytes + more_bytes > self._settings.upload_memory_bytes:
            raise busy("the uploads under way fill its memory")

    async def one(self, request: Request, place: Place) -> bytes:
        """The photo of a request: the multipart field ``file``, or a raw body.

        Raises:
            ProblemError: 400, 413, 415, 422 or 503.
        """
        _check_coding(request)
        kind = _media_type(request)
        limit = self._settings.max_bytes
        refusal = partial(too_large, limit)
        if kind.startswith("image/") or kind in UNTYPED:
            whole = io.BytesIO()
            async with place.timely(), aclosing(_limited(request, place, limit, refusal)) as body:
                async for chunk in body:
                    whole.write(chunk)
            data = whole.getvalue()
            if not data and not kind:  # no body at all
                raise _missing_file(f"Send the picture as a file in a field named {FIELD}", FIELD)
            return data
        if kind != "multipart/form-data":
            raise _unsupported(
                kind,
                ("multipart/form-data", "image/*", "application/octet-stream"),
                f"-F {FIELD}=@photo.jpg, or --data-binary @photo.jpg -H 'Content-Type: image/jpeg'",
            )
        async with place.timely():
            files = await _files(request, place, limit, refusal, (FIELD,), 1)
        return files[0]

    async def several(self, request: Request, place: Place) -> list[bytes]:
        """The photos of a multipart request in order, from fields named ``files`` or ``file``.

        Raises:
            ProblemError: 400, 413, 415, 422 or 503.
        """
        _check_coding(request)
        settings = self._settings
        kind = _media_type(request)
        if kind != "multipart/form-data":
            raise _unsupported(
                kind, ("multipart/form-data",), "-F files=@one.jpg -F files=@two.jpg"
            )
        async with place.timely():
            return await _files(
                request,
                place,
                # A photo above the limit per photo is a problem of its own, not of the batch.
                settings.max_batch_bytes,
                partial(_batch_too_large, settings.max_batch_bytes),
                BATCH_FIELDS,
                settings.max_batch_photos,
            )


class Place:
    """One request's share of the memory for bodies, and its deadline for receiving more."""

    def __init__(self, uploads: Uploads, settings: Settings) -> None:
        self._uploads = uploads
        self._patience = settings.upload_timeout_seconds
        self._rate = settings.upload_bytes_per_second
        self._began = 0.0
        self._waiting = anyio.CancelScope()
        self.held_bytes = 0

    @asynccontextmanager
    async def timely(self) -> AsyncIterator[None]:
        """Wait for a body while it keeps arriving, not much slower than the minimum rate.

        A limit on the total time would exclude large photos over slow connections; a limit only on
        pauses would let a client hold its place forever with an occasional byte.

        Raises:
            ProblemError: 400. Not 408, after which browsers resend the whole body automatically.
        """
        self._began = anyio.current_time()
        # Not fail_after, which ends in silence if a last piece has moved the deadline on.
        with anyio.move_on_after(self._patience) as self._waiting:
            yield
        if self._waiting.cancelled_caught:
            raise ProblemError(
                400,
                "upload_timeout",
                f"The body came too slowly: it may pause for {self._patience:g} seconds, and "
                f"then needs {self._rate / 1e3:g} kB per second on average. Send a smaller "
                "picture, or try again over a faster connection.",
                {"Connection": "close"},
            )

    def check_room(self, more_bytes: int) -> None:
        """Raise 503 if a body of the declared size cannot be held now."""
        self._uploads.check_room(more_bytes)

    def hold(self, more_bytes: int) -> None:
        """Count received bytes and extend the deadline; raise 503 if they are too many."""
        self._uploads.check_room(more_bytes)
        self.held_bytes += more_bytes
        self._uploads.held_bytes += more_bytes
        earned = self._began + self.held_bytes / self._rate
        self._waiting.deadline = self._patience + min(anyio.current_time(), earned)


def _check_coding(request: Request) -> None:
    """Refuse compressed bodies, which would be taken for broken ones (RFC 9110, 8.4).

    Raises:
        ProblemError: 415.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise ProblemError(
            415,
            "unsupported_media_type",
            "The body is compressed (it has a Content-Encoding): send it as it is.",
            {"Accept-Encoding": "identity"},
        )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


_IN_JSON: Final = (
    " A photo is not sent inside JSON, as base64, path or URL, but as the bytes of its file, and "
    "options in the address, as in ?attributes=age,gender."
)


def _unsupported(kind: str, wanted: Sequence[str], arguments: str) -> ProblemError:
    return ProblemError(
        415,
        "unsupported_media_type",
        f"The body must be {' or '.join(wanted)}; this one is "
        f"{short(kind) or 'of no stated type'}.{_IN_JSON if kind.endswith('json') else ''} "
        f"With curl: {arguments}",
        {"Accept": ", ".join(wanted)},
    )


async def _limited(
    request: Request, place: Place, limit_bytes: int, refusal: Callable[[], ProblemError]
) -> AsyncGenerator[bytes, None]:
    """The body's chunks; refused before one above the limit is kept, and 503 without room.

    An error made before it is raised would be in a variable of its own traceback: a cycle, which
    keeps the body in memory until the garbage collector comes by. So it is made when it is raised.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit():
        if int(declared) > limit_bytes:
            raise refusal()
        place.check_room(int(declared))
    count = 0
    # Starlette's stream ends with an empty chunk, which is not passed to python-multipart.
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            count += len(chunk)
            if count > limit_bytes:
                raise refusal()
            place.hold(len(chunk))
            if chunk:
                yield chunk


def _batch_too_large(limit_bytes: int) -> ProblemError:
    return ProblemError(
        413,
        "batch_too_large",
        f"More than {limit_bytes / 1e6:g} MB in one request: send fewer photos per request.",
    )


async def _files(
    request: Request,
    place: Place,
    limit_bytes: int,
    refusal: Callable[[], ProblemError],
    fields: Sequence[str],
    most: int,
) -> list[bytes]:
    """File fields of a multipart body as bytes; raises ``refusal`` above the limit."""
    body = _limited(request, place, limit_bytes + MULTIPART_OVERHEAD_BYTES, refusal)
    stream = _plainly_bounded(request, body)
    parser = _InMemoryParser(request.headers, stream, wanted=fields, most=most)
    found = []
    try:
        async with aclosing(stream):
            await parser.parse()
        if parser.is_cut_off:
            raise _bad_multipart("it ends before its last boundary")
        for file in parser.files:
            data = file.getvalue()
            if len(data) > limit_bytes:
                raise refusal()
            found.append(data)
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(most) from error
        raise _bad_multipart(error.message) from error
    except (ValueError, LookupError) as error:  # headers that cannot be decoded
        raise _bad_multipart("its headers cannot be read") from error
    finally:
        parser.close_files()
    if not found:
        raise _missing_file(f"Send the picture as a file in a field named {fields[-1]}", fields[-1])
    if len(found) > most:
        raise _too_many(most)
    if sum(map(len, found)) > limit_bytes:  # the overhead above is for the form's own bytes
        raise refusal()
    return found


async def _plainly_bounded(
    request: Request, body: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    r"""The body's chunks, unless a boundary in it is followed by neither a line's end nor ``--``.

    python-multipart examines what follows one byte by byte: 20 MB of ``\r\n--boundary!``, or of
    blanks after a boundary, would keep the event loop busy for half a minute.
    """
    _, parameters = parse_options_header(request.headers["content-type"])
    delimiter = b"\r\n--" + parameters.get(b"boundary", b"")
    odd = re.compile(re.escape(delimiter) + rb"(?:[^\r-]|\r[^\n]|-[^-])")
    seen = b""
    async with aclosing(body):
        async for chunk in body:
            seen += chunk
            if odd.search(seen):
                raise _bad_multipart("a line begins with its boundary and goes on")
            yield chunk
            seen = seen[-len(delimiter) - 1 :]  # may be the beginning of one


def _no_field(name: str, wanted: Sequence[str]) -> ProblemError:
    return ProblemError(
        422,
        "invalid_option",
        f"{name}: belongs in the address, as in ?{name}=..., and not in the form."
        if name in PARAMETERS
        else f"{short(name)}: no such field; the picture's is named {' or '.join(wanted)}.",
    )


def _missing_file(advice: str, field: str) -> ProblemError:
    return ProblemError(400, "missing_file", f"{advice}; with curl: -F {field}=@photo.jpg")


def _too_many(most: int) -> ProblemError:
    photos = "one photo" if most == 1 else f"{most} photos"
    return ProblemError(
        422,
        "too_many_photos",
        f"At most {photos} per request: send the rest in further requests"
        + ("; or use /v1/analyze/batch." if most == 1 else "."),
    )


def _bad_multipart(why: str) -> ProblemError:
    return ProblemError(
        400,
        "invalid_request",
        f"The multipart body cannot be read ({why.rstrip('.')}). Let an HTTP library build it; "
        "with curl: -F file=@photo.jpg",
    )
