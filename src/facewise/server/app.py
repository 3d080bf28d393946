"""Build the ASGI app from settings and an analyzer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from facewise._version import __version__
from facewise.analyzer import Analyzer
from facewise.errors import OptionError
from facewise.server import info, openapi, problems, routes, schemas
from facewise.server.access import Access
from facewise.server.compressed import CompressedFiles
from facewise.server.inference import Inference
from facewise.server.metrics import Metrics
from facewise.server.middleware import Envelope, Private
from facewise.server.pages import PAGE, device_files, device_model
from facewise.server.state import State
from facewise.server.uploads import Uploads
from facewise.settings import Settings
from facewise.text import counted

logger = logging.getLogger("facewise.server")


def make_analyzer(settings: Settings) -> Analyzer:
    """The analyzer for a server with these settings: one inference thread per photo."""
    return Analyzer(
        settings.model,
        attributes=settings.served_attributes,
        coverage=settings.coverage,
        min_face_px=settings.min_face_px,
        max_faces=settings.served_max_faces,
        threads=1,
        providers=settings.providers,
        max_bytes=settings.max_bytes,
        max_pixels=settings.max_pixels,
    )


def create_app(settings: Settings, analyzer: Analyzer) -> FastAPI:
    """Build the app, without reading the environment.

    Args:
        settings: limits, access, and what is served.
        analyzer: shared by all requests; only attributes that the settings include are served.

    Raises:
        OptionError: the analyzer and the settings have no attribute in common, or the device's
            folder lacks its files.
    """
    inference = Inference(analyzer, settings)
    if not inference.attributes:
        raise OptionError("no attribute is left to serve: name some in FACEWISE_ATTRIBUTES")
    uploads = Uploads(settings)
    device = device_files(settings.device_folder)
    serving = f"{analyzer.spec.name}@{analyzer.spec.version}"
    on_device = device_model(device) if device else None
    state = State(
        settings=settings,
        spec=analyzer.spec,
        coverage=analyzer.coverage,
        inference=inference,
        uploads=uploads,
        access=Access(settings),
        metrics=Metrics(inference, uploads, settings, analyzer.spec),
        on_device=on_device == serving,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logger.info(_what_runs(state))
        logger.info(settings.attributes_reason)
        if device and on_device != serving:
            logger.warning(
                "on-device analysis is not offered: its files hold %s, but this server runs %s; "
                "`make page` builds them for the default model",
                on_device or "no model",
                serving,
            )
        await anyio.to_thread.run_sync(inference.warm_up)
        async with anyio.create_task_group() as group:
            group.start_soon(inference.look_after)
            yield
            group.cancel_scope.cancel()

    app = FastAPI(
        title="facewise",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # added by openapi.install
        # Otherwise any address with an extra slash would redirect and become a metric's label.
        redirect_slashes=False,
        # Function names, by which generated clients name their calls.
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
    )
    app.state.facewise = state
    app.include_router(routes.router)
    app.include_router(info.router)
    _add_page(app, device)
    problems.install(app)
    app.add_exception_handler(ClientDisconnect, _gone)
    openapi.install(app, state, schemas.build(inference.attributes))
    state.metrics.instrument(app)
    cors = partial(_Cors, origins=settings.cors_origins) if settings.cors_origins else None
    if cors:
        app.add_middleware(cors)
    if settings.is_private:
        app.add_middleware(Private, origins=settings.cors_origins)
    # Added last, to be outermost: its request id and headers are on every response.
    app.add_middleware(
        Envelope,
        on_problem=state.metrics.count_problem,
        cors=cors,
        root_path=settings.root_path,
    )
    return app


def _what_runs(state: State) -> str:
    """What runs, in a line for the start-up log."""
    settings = state.settings
    rate = settings.rate_limit_per_minute
    return ", ".join(
        (
            f"facewise {__version__}",
            f"{state.spec.name}@{state.spec.version}",
            counted(settings.threads, "thread", "threads"),
            f"queue {settings.queue}",
            "a key is needed" if state.access.needs_key else "no key",
            "no rate limit" if rate is None else f"{counted(rate, 'photo', 'photos')} per minute",
        )
    )


class _Cors(CORSMiddleware):
    """CORS where a refused preflight is not an error: browsers see that nothing is allowed."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        headers = {
            name: value for name, value in answer.headers.items() if not name.startswith("content")
        }
        return Response(status_code=204, headers=headers)


async def _gone(request: Request, error: Exception) -> Response:
    """Response for a client that has disconnected; the status is for the log and metrics."""
    return Response(status_code=499)


def _add_page(app: FastAPI, device: Path | None) -> None:
    pages = CompressedFiles(directory=PAGE)

    async def index(request: Request) -> Response:
        return await pages.get_response("index.html", request.scope)

    async def docs(request: Request) -> Response:
        return await pages.get_response("docs.html", request.scope)

    for path, handler in (("/", index), ("/docs", docs)):
        app.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)
    if device is not None:
        app.mount("/static/device", CompressedFiles(directory=device), name="device")
    app.mount("/static", CompressedFiles(directory=PAGE / "static"), name="static")
