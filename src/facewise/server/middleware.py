"""Middleware for every request: an id, a log line, headers, problems for crashes, draining.

Plain ASGI, so that bodies stream through unchanged and disconnects are noticed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import traceback
from collections.abc import Callable, Collection
from typing import Any, Final

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from facewise.server.metrics import PROBES
from facewise.server.problems import ProblemError, busy, code_of, internal_error, render
from facewise.settings import is_loopback

logger = logging.getLogger("facewise.server")

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        # Lets the on-device pipeline compile its WebAssembly, and nothing else.
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
    # Not no-referrer: with it Safari hides the page's origin even from its own server.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # Together these isolate the page, which WebAssembly needs for threads.
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
_SLASHED: Final = re.compile(r"/v1/(analyze|analyze/batch|models)/")
"""Addresses with the slash that some frameworks end them with; not a card's, whose links are
relative."""
_PORT: Final = re.compile(r":\d*$")
_STRANGERS: Final = (401, 404, 421)
"""Statuses after which no chunked body is read: who gets them has used up none of their share."""
DRAIN_SECONDS: Final = 10.0
DRAIN_BYTES: Final = 256_000_000


class Envelope:
    """The outermost middleware.

    Args:
        app: the wrapped app.
        on_problem: called with the code of each problem answered, except to a probe.
        cors: adds the headers by which other origins may read a response; None if none may. Those
            of ``app`` have them already.
        root_path: prefix of the app behind a proxy, whether or not the proxy strips it from paths.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_problem: Callable[[str], None],
        cors: Callable[[ASGIApp], ASGIApp] | None = None,
        root_path: str = "",
    ) -> None:
        self.app = app
        self.on_problem = on_problem
        self.root_path = root_path
        self.cors = cors or (lambda app: app)
        self.headers = dict(HEADERS)
        if cors is None:
            self.headers["Cross-Origin-Resource-Policy"] = "same-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            # Answered like GET; uvicorn knows the real method and omits the body.
            scope = {**scope, "method": "GET"}
        elif method not in _METHODS:
            # A client's text must not become a metrics label, as labels are kept forever.
            scope = {**scope, "method": "OTHER"}
        app = self.app
        if self.root_path:
            path = scope["path"]
            if path == self.root_path and scope["method"] == "GET":
                # The page's links are relative and would break without the slash.
                app = RedirectResponse(self.root_path + "/", 308)
            elif not path.startswith(self.root_path + "/"):
                path = self.root_path + path
            scope = {**scope, "root_path": self.root_path, "path": path}
        if _SLASHED.fullmatch(scope["path"].removeprefix(self.root_path)):
            # No redirect, after which not every client sends the body again.
            scope = {**scope, "path": scope["path"].removesuffix("/")}
        exchange = _Exchange(scope, receive, send, self.headers, self.on_problem)
        try:
            await app(scope, exchange.receive, exchange.send)
        except Exception as error:
            # Only source lines: the exception's message could quote the request.
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("id=%s crashed: %s\n%s", exchange.request_id, type(error).__name__, trace)
            if not exchange.started:
                answer = self.cors(internal_error(scope))
                await answer(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # uvicorn's last resort at shutdown, where it would log a traceback per request.
            logger.warning("id=%s given up: the server shuts down", exchange.request_id)
            if not exchange.started:
                exchange.waits = False
                answer = self.cors(render(busy("it shuts down"), scope))
                await answer(scope, exchange.receive, exchange.send)
        finally:
            exchange.log()


class Private:
    """Refuses requests that did not come directly from this machine.

    An undeclared proxy would publish what only this machine's user should see, and any site could
    use the server through the user's browser, covertly or by a name that resolves here (DNS
    rebinding). A proxy that hides itself is recognised by its page's origin, which browsers send
    with every photo.

    Args:
        app: the wrapped app.
        origins: sites that the operator allows, or *.
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
                # The page itself may load: it shows the refusal of its first photo.
                or (scope["method"] == "POST" and not self._lets_in(headers.get("origin")))
            ):
                app = render(_misdirected(), scope)
        await app(scope, receive, send)

    def _lets_in(self, origin: str | None) -> bool:
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        # "null", which sandboxed frames of any site send, has no host and is refused.
        return _is_here(origin.partition("://")[2])


def _is_here(authority: str) -> bool:
    """Whether a host, with or without a port, names this machine."""
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
    """One request and its response."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[str, str],
        on_problem: Callable[[str], None],
    ) -> None:
        self._scope, self._receive, self._send, self._headers = scope, receive, send, headers
        self._on_problem = on_problem
        self._began = time.perf_counter()
        self._body_asked = False
        self._body_ended = False
        self._body_bytes = 0
        self._status = 0
        self.started = False
        self.waits = True
        """Whether there is time to drain an unread body."""
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def receive(self) -> Message:
        self._body_asked = True
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
            code = code_of(self._scope)
            if code is not None and not self._is_probe:
                self._on_problem(code)
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            for name, value in self._headers.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
            if self._is_chunked and self._status in _STRANGERS:
                headers["Connection"] = "close"
        elif (
            message["type"] == "http.response.body"
            and not message.get("more_body", False)
            and self._owes_body()
        ):
            # The client has the whole response now. Ending here would reset a connection on which
            # it may still be sending, and it might never read the response.
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    def _owes_body(self) -> bool:
        """Whether the client may still be sending an unread body."""
        if self._body_ended or self._status < 400 or not self.waits:
            return False
        headers = dict(self._scope["headers"])
        if not self._body_asked and headers.get(b"expect", b"").lower() == b"100-continue":
            return False  # it waits for permission to send, which uvicorn gives when it is asked
        if self._is_chunked:
            return self._status not in _STRANGERS
        length = headers.get(b"content-length", b"0")
        return length.isdigit() and int(length) > 0

    @property
    def _is_chunked(self) -> bool:
        return b"transfer-encoding" in dict(self._scope["headers"])

    async def _drain(self) -> None:
        count = 0
        with anyio.move_on_after(DRAIN_SECONDS):
            while not self._body_ended and count < DRAIN_BYTES:
                message = await self.receive()
                count += len(message.get("body", b""))

    @property
    def _place(self) -> str:
        """The route or the mount that answered, in our words, as a path would be the client's."""
        route: Any = self._scope.get("route")
        root = self._scope.get("root_path", "")
        mount = root.removeprefix(self._scope.get("app_root_path", root))
        unrouted = "(preflight)" if self._status == 204 else "(no route)"
        return getattr(route, "path", "") or mount or unrouted

    @property
    def _is_probe(self) -> bool:
        return self._place in PROBES

    def log(self) -> None:
        """Log one line, in which the client can choose nothing but the id."""
        code = code_of(self._scope)
        logger.log(
            logging.DEBUG if self._is_probe and self._status == 200 else logging.INFO,
            "id=%s %s %s %s %.0f ms, %d bytes in%s",
            self.request_id,
            self._scope["method"],
            self._place,
            self._status or "no answer",
            (time.perf_counter() - self._began) * 1e3,
            self._body_bytes,
            f": {code}" if code else "",
        )
