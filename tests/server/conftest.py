"""A real uvicorn on loopback, in the test's own event loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn

from facewise import Analyzer
from facewise.server import create_app
from facewise.server.run import server_config
from facewise.server.state import State
from facewise.settings import Settings


@dataclass(frozen=True, slots=True)
class Running:
    """A running server."""

    state: State
    client: httpx.AsyncClient
    port: int
    server: uvicorn.Server


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the FACEWISE_* variables of whoever runs the tests."""
    import os

    for name in os.environ:
        if name.startswith("FACEWISE_"):
            monkeypatch.delenv(name)


def adapted(analyzer: Analyzer, settings: Settings) -> Analyzer:
    """What ``make_analyzer`` builds for these settings, but with the networks that are open."""
    return analyzer.replace(
        attributes=settings.served_attributes,
        coverage=settings.coverage,
        min_face_px=settings.min_face_px,
        max_faces=settings.served_max_faces,
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
    )


@pytest.fixture
def serve(analyzer: Analyzer) -> Serve:
    """Start a server with the given settings: ``async with serve(queue=1) as running``."""

    @asynccontextmanager
    async def start(
        listener: socket.socket | None = None, **overrides: Any
    ) -> AsyncIterator[Running]:
        settings = Settings(**{"threads": 1, **overrides})
        app = create_app(settings, adapted(analyzer, settings))
        server = uvicorn.Server(server_config(app, settings))
        listener = listener or socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            await until(lambda: server.started)
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
                yield Running(app.state.facewise, client, port, server)
            server.should_exit = True

    return start


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Yield to other tasks until a condition holds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.001)


@pytest.fixture(scope="session")
def portrait(pictures: Path) -> bytes:
    """The astronaut: one face."""
    return (pictures / "astronaut.jpg").read_bytes()
