"""Run the app under uvicorn until a signal ends it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from facewise.errors import OptionError
from facewise.server.app import create_app, make_analyzer
from facewise.server.inference import Inference
from facewise.settings import Settings

logger = logging.getLogger("facewise.server")

UNREAD_SECONDS: Final = 60.0
"""Time for a client to read some of the response."""
LAST_WORDS_SECONDS: Final = 1.0
"""Time to answer requests that a shutdown cuts off."""
READ_BYTES: Final = 65_536
"""Most bytes of one connection that are parsed at a time, while all others wait."""
CHUNK_BYTES: Final = 64
SPARE_CHUNKS: Final = 1_000
"""Chunks of a body that may be smaller than ``CHUNK_BYTES``, unless others make up for them."""


class _Server(uvicorn.Server):
    """A server that reports its start and end, and answers requests that a shutdown cuts off."""

    def __init__(
        self, config: uvicorn.Config, inference: Inference, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._inference = inference
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        counts = self._inference.running, self._inference.waiting
        logger.info("stopping: %d running, %d waiting", *counts)
        await super().shutdown(sockets)
        if self.server_state.tasks and not self.force_exit:
            # Just cancelled; the signal, re-raised after this, would end them without a response.
            await asyncio.wait(set(self.server_state.tasks), timeout=LAST_WORDS_SECONDS)
        logger.info("stopped")


class _Requests(h11.Connection):
    """Refuses bodies in tiny chunks: each takes 20 microseconds to parse, whatever its size."""

    _spare = 0.0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._spare = SPARE_CHUNKS
        elif isinstance(event, h11.Data):
            earned = len(event.data) / CHUNK_BYTES
            self._spare = min(SPARE_CHUNKS, self._spare + earned) - event.chunk_start
            if self._spare < 0:
                raise h11.RemoteProtocolError("too many tiny chunks")
        return event


class _Prompt(H11Protocol):
    """Closes connections whose request head is late or whose response is not read.

    uvicorn's timer starts only after a response and ends with the next byte received, and closing
    waits until everything is sent, which never happens if nobody reads. Upgrades are ignored.
    """

    _deadline: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn = _Requests(h11.SERVER)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's is 256 kB
        transport.set_write_buffer_limits(0)  # so that any unsent byte counts as pause_writing
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()  # another answer has begun; uvicorn would log a traceback

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._end_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._end_reading()
        super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        return False  # uvicorn would log a warning for each attempt of any client

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()  # the head has arrived; the body has its own limit
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expect_reading(self) -> None:
        unsent = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() < unsent:
                self._expect_reading()  # slow, but still reading
            else:
                self.transport.abort()

        self._reading = self.loop.call_later(UNREAD_SECONDS, check)

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish running requests.

    Args:
        settings: the server's settings.
        announce: called with the page's URL once the server is ready, with a remark if the server
            listens on every address.

    Raises:
        OptionError: the address cannot be bound.
        ModelError: the model cannot be loaded.
    """
    # Bind first, so that a port in use is reported before loading a model.
    listener = _bind(settings.host, settings.port)
    with listener:
        app = create_app(settings, make_analyzer(settings))
        config = server_config(app, settings)
        host, port = listener.getsockname()[:2]
        where = place_of(host, port, settings.root_path)
        inference = app.state.facewise.inference
        _Server(config, inference, lambda: announce(where)).run(sockets=[listener])


def place_of(host: str, port: int, root_path: str = "") -> str:
    """The page's URL for a person at this machine, as browsers do not accept 0.0.0.0.

    Args:
        host: the bound address.
        port: the bound port.
        root_path: prefix of the page.
    """
    is_every = ipaddress.ip_address(host).is_unspecified
    if is_every:
        host = "::1" if ":" in host else "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}{root_path}/"
    return f"{url} (and every address of this machine)" if is_every else url


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The uvicorn configuration: no access log or server header, graceful shutdown."""
    return uvicorn.Config(
        app,
        http=_Prompt,
        ws="none",
        loop="asyncio",  # uvloop, if installed, has no limit on what is read at a time
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[seen for part in settings.trusted_proxies for seen in _seen_as(part)],
        timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
        timeout_keep_alive=15,
    )


def _seen_as(proxy: str) -> tuple[str, ...]:
    """A trusted address or network; of IPv4, also as sockets for both protocols have its peers."""
    if proxy == "*" or ":" in proxy:
        return (proxy,)
    network = ipaddress.ip_network(proxy)
    return proxy, f"::ffff:{network.network_address}/{96 + network.prefixlen}"


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_here(host, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_here(host, error) from error
        raise OptionError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another with --port"
        ) from error
    listener.set_inheritable(True)
    return listener


def _not_here(host: str, error: OSError) -> OptionError:
    return OptionError(
        f"host {host!r} is not an address of this machine ({error.strerror}): choose another with "
        "--host; 0.0.0.0 stands for all of them"
    )
