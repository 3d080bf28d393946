"""Bodies of requests: read into memory, limited while they stream, never on disk.

Starlette spools a multipart file to a temporary file once it passes 1 MB. Here its parser runs with
a spool without a limit of its own, because the body's limit stands before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

import anyio
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from facewise.server.access import client_of
from facewise.server.problems import ProblemError
from facewise.settings import MULTIPART_OVERHEAD_BYTES, Settings

FIELD: Final = "file"
BATCH_FIELDS: Final = ("file", "files")
UNTYPED: Final = ("application/octet-stream", "")
"""Types of clients that know none. A picture is told by its bytes, whatever its type; texts and
forms are not read for one, so that who sends them by mistake learns it. A page of another site can
send a body without a type unasked, as it can a form; its Origin refuses both
(``middleware.Private``)."""
PARAMETERS: Final = ("vector", "years", "attributes", "coverage")
"""Of the analysing routes, in the address; a form that holds them is told so."""


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # SpooledTemporaryFile's word for "never roll over to a file"
    wanted: Sequence[str] = ()
    """Fields that hold a file; there are no others."""

    def on_headers_finished(self) -> None:
        """Refuse what would be passed over in silence, and so show more than was asked for; and a
        picture that is sent as a text, before its length is the complaint.
        """
        super().on_headers_finished()
        part = self._current_part
        if part.field_name not in self.wanted:
            raise _no_field(part.field_name, self.wanted)
        if part.file is None:
            raise _missing_file(
                f"The part {part.field_name} needs a filename in its Content-Disposition: without "
                "one (filename* alone is not read) it is a text and no file",
                part.field_name,
            )

    def close_files(self) -> None:
        """Free every part, those included that a body cut short left out of the form."""
        for file in self._files_to_close_on_error:
            file.close()


class Uploads:
    """How many bodies, and how many bytes of them, are held at once: what bounds the memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.held = 0
        self.held_bytes = 0
        self._by_client: Counter[str] = Counter()
        # On loopback there are no clients to tell apart.
        share = settings.uploads // 4 if settings.is_published else settings.uploads
        self._share = max(1, share)

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[Place]:
        """Hold a place while a body is in memory.

        Raises:
            ProblemError: 503 where none is free, or one client holds its share of them.
        """
        client = client_of(request)
        self._check_places()
        if self._by_client[client] >= self._share:
            raise busy(f"one client may have {self._share} uploads under way here")
        place = Place(self, self._settings)
        self.held += 1
        self._by_client[client] += 1
        try:
            yield place
        finally:
            self.held -= 1
            self._by_client[client] -= 1
            self._by_client += Counter()  # forgets who holds none
            self.held_bytes -= place.held_bytes

    def check_ready(self) -> None:
        """Whether the largest photo would find a place and memory now.

        Raises:
            ProblemError: 503.
        """
        self._check_places()
        self.check_room(self._settings.max_bytes + MULTIPART_OVERHEAD_BYTES)

    def _check_places(self) -> None:
        if self.held >= self._settings.uploads:
            raise busy("as many uploads as it can hold are under way")

    def check_room(self, more_bytes: int) -> None:
        """Whether so many bytes more can be held.

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
        kind = _media_type(request)
        limit = self._settings.max_bytes
        refusal = too_large(limit)
        if kind.startswith("image/") or kind in UNTYPED:
            chunks = []
            async with place.timely(), aclosing(_limited(request, place, limit, refusal)) as body:
                async for chunk in body:
                    chunks.append(chunk)  # noqa: PERF401 -- the loop must live inside aclosing
            data = b"".join(chunks)
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
        """The photos of a multipart request, in their order, from fields named ``files``.

        Raises:
            ProblemError: 400, 413, 415, 422 or 503.
        """
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
                # A photo above its own limit is a problem in its place, not one of the batch.
                settings.max_batch_bytes,
                _batch_too_large(settings.max_batch_bytes),
                BATCH_FIELDS,
                settings.max_batch_photos,
            )


class Place:
    """What one request holds of the memory for bodies, and until when it waits for more of it."""

    def __init__(self, uploads: Uploads, settings: Settings) -> None:
        self._uploads = uploads
        self._patience = settings.upload_timeout_seconds
        self._rate = settings.upload_bytes_per_second
        self._began = 0.0
        self._waiting = anyio.CancelScope()
        self.held_bytes = 0

    @asynccontextmanager
    async def timely(self) -> AsyncIterator[None]:
        """Wait for a body as long as it keeps coming, and not much slower than the slowest rate.

        A limit for the whole would keep large photos from slow lines; one for pauses alone would
        let a client hold its place for good with a byte now and then.

        Raises:
            ProblemError: 400. Not 408, after which browsers send the whole body again unasked.
        """
        self._began = anyio.current_time()
        try:
            with anyio.fail_after(self._patience) as self._waiting:
                yield
        except TimeoutError as error:
            raise ProblemError(
                400,
                "upload_timeout",
                f"The body came too slowly: it may pause for {self._patience:g} seconds, and "
                f"then needs {self._rate / 1e3:g} kB per second on average. Send a smaller "
                "picture, or try again over a faster connection.",
                {"Connection": "close"},
            ) from error

    def check_room(self, more_bytes: int) -> None:
        """503 where a body of a declared size cannot be held now."""
        self._uploads.check_room(more_bytes)

    def hold(self, more_bytes: int) -> None:
        """Count bytes that have arrived, and wait longer for more; 503 where they are too many."""
        self._uploads.check_room(more_bytes)
        self.held_bytes += more_bytes
        self._uploads.held_bytes += more_bytes
        earned = self._began + self.held_bytes / self._rate
        self._waiting.deadline = self._patience + min(anyio.current_time(), earned)


def busy(why: str) -> ProblemError:
    """503 with Retry-After."""
    return ProblemError(
        503,
        "busy",
        f"The server is busy: {why}. Try again in a second or two.",
        {"Retry-After": "2"},
    )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(kind: str, wanted: Sequence[str], arguments: str) -> ProblemError:
    return ProblemError(
        415,
        "unsupported_media_type",
        f"The body must be {' or '.join(wanted)}; this one is "
        f"{short(kind) or 'of no stated type'}. With curl: {arguments}",
        {"Accept": ", ".join(wanted)},
    )


def short(text: str) -> str:
    """A client's own words, cut to what an answer may quote."""
    return text if len(text) <= 60 else text[:57] + "..."


async def _limited(
    request: Request, place: Place, limit_bytes: int, refusal: ProblemError
) -> AsyncGenerator[bytes, None]:
    """The body's chunks; refused before the first one over the limit is kept, 503 without room."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit():
        if int(declared) > limit_bytes:
            raise refusal
        place.check_room(int(declared))
    count = 0
    # Starlette's stream ends with an empty chunk, which python-multipart need not see.
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            count += len(chunk)
            if count > limit_bytes:
                raise refusal
            place.hold(len(chunk))
            if chunk:
                yield chunk


def too_large(limit_bytes: int) -> ProblemError:
    """413 for more bytes than a photo may have."""
    return ProblemError(
        413,
        "image_too_large",
        f"More than {limit_bytes / 1e6:g} MB: send a smaller picture. A photo saved as JPEG at "
        "2,000 pixels loses nothing here.",
    )


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
    refusal: ProblemError,
    fields: Sequence[str],
    most: int,
) -> list[bytes]:
    """File fields of a multipart body as bytes; ``refusal`` where they are more than the limit."""
    stream = _limited(request, place, limit_bytes + MULTIPART_OVERHEAD_BYTES, refusal)
    # One file past the limit is let in, so that the answer can say what is wrong.
    parser = _InMemoryParser(
        request.headers, stream, max_files=most + 1, max_fields=16, max_part_size=4096
    )
    parser.wanted = fields
    found = []
    try:
        async with aclosing(stream):
            form = await parser.parse()
        for _, value in form.multi_items():
            assert not isinstance(value, str), "the parser refuses texts"
            data = await value.read()
            if len(data) > limit_bytes:
                raise refusal
            found.append(data)
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(most) from error
        raise _bad_multipart(error.message) from error
    except (ProblemError, ClientDisconnect, TimeoutError):
        raise
    except (ValueError, LookupError) as error:  # headers that do not decode
        raise _bad_multipart("its headers cannot be read") from error
    finally:
        parser.close_files()
    if not found:
        raise _missing_file(f"Send the picture as a file in a field named {fields[-1]}", fields[-1])
    if len(found) > most:
        raise _too_many(most)
    return found


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
