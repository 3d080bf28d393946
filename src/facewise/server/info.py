"""Routes about the server itself: models, cards, health, metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from facewise._version import __version__
from facewise.formats import readable
from facewise.labels import without_sensitive
from facewise.models import ModelSpec, list_models
from facewise.server import problems
from facewise.server.cards import card_markdown, card_page
from facewise.server.compressed import compressed_text
from facewise.server.problems import ProblemError
from facewise.server.schemas import SCHEMA_VERSION, Health, ModelEntry, Models
from facewise.server.state import Shared, State, allowed

router = APIRouter()


@router.get(
    "/v1/models",
    summary="Installed models and this server's limits",
    dependencies=[Depends(allowed)],
    response_model=Models,
    responses=problems.responses(401, 421, 500),
    tags=["models"],
)
async def models(state: Shared) -> Any:
    """The installed models, which of them answers here, and what the server accepts."""
    settings = state.settings
    return {
        "schema_version": SCHEMA_VERSION,
        "facewise_version": __version__,
        "models": [_entry(spec, state) for spec in _specs(state)],
        "attributes": state.inference.attributes,
        # The page must never sort people by ethnicity as they walk past a camera.
        "live_attributes": without_sensitive(state.inference.attributes),
        "coverage": state.coverage,
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_batch_bytes": settings.max_batch_bytes,
            "max_batch_photos": settings.max_batch_photos,
            "max_faces": state.inference.max_faces,
            "photos_per_minute": settings.rate_limit_per_minute,
        },
        "formats": readable(),
        "needs_key": state.access.needs_key,
        "on_device": state.on_device,
    }


@router.get(
    "/v1/models/{name}/card",
    summary="A model's card",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Markdown, or a page where the client asks for text/html",
            "content": {
                "text/markdown": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **problems.responses(404, 421, 422, 500),
    },
    tags=["models"],
)
async def model_card(
    name: Annotated[
        str, Path(description="a name in /v1/models, or default; with @version, that one alone")
    ],
    request: Request,
    state: Shared,
) -> Response:
    """Intended use, data, licence and the figures per group.

    `default` is the model that answers here; facewise's own may be named without `facewise-`, as in
    `small`.
    """
    plain, at, version = name.partition("@")
    wanted = f"{state.spec.name}{at}{version}" if plain == "default" else name
    for spec in _specs(state):
        if spec.answers_to(wanted):
            if "text/html" in request.headers.get("accept", ""):
                return compressed_text(request, card_page(spec), "text/html")
            return compressed_text(request, card_markdown(spec), "text/markdown")
    raise ProblemError(
        404, "model_not_found", "No model of that name is installed; /v1/models lists them."
    )


@router.get(
    "/healthz",
    summary="Is the process alive?",
    response_model=Health,
    responses=problems.responses(421),
    tags=["operations"],
)
async def healthz() -> Any:
    """Answers as long as the process can answer."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Is there room for a photo?",
    response_model=Health,
    responses=problems.responses(421, 503),
    tags=["operations"],
)
async def readyz(state: Shared) -> Any:
    """503 while the queue, the places for uploads or the memory for the largest photo are taken, or
    all threads have been at the same pictures for a minute, so that a load balancer can go
    elsewhere.
    """
    state.inference.check_room()
    state.uploads.check_ready()
    return {"status": "ready"}


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    dependencies=[Depends(allowed)],
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems.responses(401, 421),
    },
    response_class=PlainTextResponse,
    tags=["operations"],
)
async def metrics(state: Shared) -> Response:
    """Requests, photos, faces, stages and the queue, as counts and durations."""
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _entry(spec: ModelSpec, state: State) -> dict[str, Any]:
    told = spec.to_dict() | {
        "serving": spec.sha256 == state.spec.sha256 and spec.name == state.spec.name,
        "card": f"v1/models/{spec.name}/card",
    }
    return {name: told[name] for name in ModelEntry.model_fields}


def _specs(state: State) -> list[ModelSpec]:
    """Installed models; the one being served comes first, wherever it was loaded from."""
    others = [spec for spec in list_models() if spec.sha256 != state.spec.sha256]
    return [state.spec, *others]
