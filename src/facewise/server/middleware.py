"""What happens around every request: an id, a log line, headers, problems for crashes, draining.

Plain ASGI, so that bodies stream through untouched and disconnects are seen.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Collection
from typing import Any, Final

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facewise.server.problems import ProblemError, internal_error, render
from facewise.server.uploads import busy
from facewise.settings import is_loopback

logger = logging.getLogger("facewise.server")

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        # The pipeline on the device is WebAssembly; this lets it compile, and nothing else.
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer, under which Safari hides the page's own origin from its own server, too.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # Together these isolate the page, which gives WebAssembly its threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_FORWARDED: Final = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "via",
    "cf-connecting-ip",
    "true-client-ip",
)
_PORT: Final = re.compile(r":\d*$")
DRAIN_SECONDS: Final = 10.0
DRAIN_BYTES: Final = 256_000_000


class Envelope:
    """The outermost layer.

    Args:
        app: what it wraps.
        allow_cross_origin: whether other origins may embed answers (CORS is on).
        root_path: prefix of the app behind a proxy, which may strip it from paths or not.
    """

    def __init__(
        self, app: ASGIApp, *, allow_cross_origin: bool = False, root_path: str = ""
    ) -> None:
        self.app = app
        self.root_path = root_path
        self.headers = dict(HEADERS)
        if not allow_cross_origin:
            self.headers["Cross-Origin-Resource-Policy"] = "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # Answered as GET is; uvicorn, which knows better, leaves the body out.
            scope = {**scope, "method": "GET"}
        elif method not in _METHODS:
            # A client's own words must become no label of the metrics, which are kept for good.
            scope = {**scope, "method": "OTHER"}
        app = self.app
        if self.root_path:
            path = scope["path"]
            if path == self.root_path and scope["method"] == "GET":
                # The page's addresses are relative: without the slash they would miss.
                app = RedirectResponse(self.root_path + "/", 308)
            elif not path.startswith(self.root_path + "/"):
                path = self.root_path + path
            scope = {**scope, "root_path": self.root_path, "path": path}
        exchange = _Exchange(scope, receive, send, self.headers)
        try:
            await app(scope, exchange.receive, exchange.send)
        except Exception as error:
            # Lines, not the exception's message: that could quote the request.
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("id=%s crashed: %s\n%s", exchange.request_id, type(error).__name__, trace)
            if not exchange.started:
                await internal_error(scope)(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # uvicorn's last resort at shutdown; it would log a traceback for each request.
            logger.warning("id=%s given up: the server shuts down", exchange.request_id)
            if not exchange.started:
                exchange.waits = False
                await render(busy("it shuts down"), scope)(scope, exchange.receive, exchange.send)
        finally:
            exchange.log()


class Private:
    """Refuses what did not come from this machine straight to this machine.

    A proxy that nobody declared would publish what only this machine's user was to see; and any
    site could use the server through one's browser, unseen or by a name that is made to lead here
    (DNS rebinding). A proxy that hides itself is known by the origin of its page, which browsers
    send with every photo.

    Args:
        app: what it wraps.
        origins: sites that the operator let in, or *.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str] = ()) -> None:
        self.app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (
                not _is_here(headers.get("host", ""))
                or any(forwarded in headers for forwarded in _FORWARDED)
                # The page itself may load: it shows what is said to its first photo.
                or (scope["method"] == "POST" and not self._lets_in(headers.get("origin")))
            ):
                app = render(_misdirected(), scope)
        await app(scope, receive, send)

    def _lets_in(self, origin: str | None) -> bool:
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        # "null", which any site's sandboxed frame sends, has no host and is refused.
        return _is_here(origin.partition("://")[2])


def _is_here(authority: str) -> bool:
    """Whether a host, with or without a port, is this machine by name."""
    name = _PORT.sub("", authority).lower()
    return is_loopback(name) or name.endswith(".localhost")


def _misdirected() -> ProblemError:
    return ProblemError(
        421,
        "misdirected",
        "The request came through a proxy, under another name than localhost or from another "
        "site's page, and this server was not told to expect that. Its operator can name a proxy "
        "in FACEWISE_TRUSTED_PROXIES, what may be served to others in FACEWISE_ATTRIBUTES, and a "
        "site whose pages may use this server in FACEWISE_CORS_ORIGINS.",
    )


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        self._scope, self._receive, self._send, self._headers = scope, receive, send, headers
        self._began = time.perf_counter()
        self._body_ended = False
        self._body_bytes = 0
        self._status = 0
        self.started = False
        self.waits = True
        """Whether there is time for the rest of a body that nobody reads."""
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
        else:
            self._body_ended = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            for name, value in self._headers.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        elif (
            message["type"] == "http.response.body"
            and not message.get("more_body", False)
            and self._owes_body()
        ):
            # The answer is complete for the client now; ending the exchange here would reset a
            # connection on which it is still sending, and it might never read the answer.
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def _owes_body(self) -> bool:
        """Whether the client may still be sending a body that nobody reads."""
        if self._body_ended or self._status < 400 or not self.waits:
            return False
        headers = dict(self._scope["headers"])
        if headers.get(b"expect", b"").lower() == b"100-continue":
            return False  # it waits to be asked
        length = headers.get(b"content-length", b"0")
        return b"transfer-encoding" in headers or (length.isdigit() and int(length) > 0)

    async def _drain(self) -> None:
        count = 0
        with anyio.move_on_after(DRAIN_SECONDS):
            while not self._body_ended and count < DRAIN_BYTES:
                message = await self.receive()
                count += len(message.get("body", b""))

    def log(self) -> None:
        """One line, of which nothing was chosen by the client but the id."""
        route: Any = self._scope.get("route")
        path = getattr(route, "path", "") or "(no route)"
        logger.info(
            "id=%s %s %s %s %.0f ms, %d bytes in",
            self.request_id,
            self._scope["method"],
            path,
            self._status or "no answer",
            (time.perf_counter() - self._began) * 1e3,
            self._body_bytes,
        )
