"""The analysing routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import anyio
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from facewise._version import __version__
from facewise.errors import ImageError, OptionError
from facewise.labels import ATTRIBUTES
from facewise.server import problems
from facewise.server.inference import PhotoResult
from facewise.server.problems import TITLES, ProblemError, request_id_of, short
from facewise.server.schemas import SCHEMA_VERSION
from facewise.server.state import Shared, State, allowed
from facewise.server.uploads import PARAMETERS, Place
from facewise.text import split_names

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """Query parameters of the analysing routes."""

    attributes: tuple[str, ...]
    coverage: float
    vector: bool
    years: bool


def known_once(request: Request) -> None:
    """Refuse unknown and repeated parameters.

    Silently ignored, a misspelt ``attributes`` would return every attribute.

    Raises:
        ProblemError: 422.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    wrong = [
        f"{short(name)}: unknown parameter (known: {', '.join(PARAMETERS)})"
        for name in counts
        if name not in PARAMETERS
    ]
    wrong += [f"{name}: given {counts[name]} times" for name in PARAMETERS if counts[name] > 1]
    if wrong:
        raise ProblemError(422, "invalid_option", "; ".join(wrong[:4]) + ".")


def options(
    state: Shared,
    vector: Annotated[bool, Query(description="add the 19 numbers of the contract")] = False,
    years: Annotated[bool, Query(description="add the distribution over single years")] = False,
    attributes: Annotated[
        str | None, Query(description="only these, with commas; all that are on if left out")
    ] = None,
    coverage: Annotated[
        float | None, Query(description="of intervals and label sets; the server's if left out")
    ] = None,
) -> QueryOptions:
    on = state.inference.attributes
    wanted = state.coverage if coverage is None else coverage
    try:
        level = state.inference.calibration.check_coverage(wanted)
    except OptionError as error:
        raise ProblemError(422, "invalid_option", f"{error}.") from error
    if attributes is None:
        return QueryOptions(on, level, vector, years)
    names = split_names(attributes) or ("",)  # an empty list is a mistake
    for name in names:
        if name not in on:
            why = f"'{short(name)}' is not one of {', '.join(on)}"
            if name in ATTRIBUTES:
                why = (
                    f"this server leaves {name} out, and its operator can turn it on with "
                    f"FACEWISE_ATTRIBUTES; it has {', '.join(on)}"
                )
            raise ProblemError(
                422, "invalid_option", f"attributes: {why}; name some of these, comma-separated."
            )
    return QueryOptions(tuple(name for name in on if name in names), level, vector, years)


Chosen = Annotated[QueryOptions, Depends(options)]
ANALYSING: Final = [Depends(allowed), Depends(known_once)]
router = APIRouter()
PROBLEMS = problems.responses(400, 401, 413, 415, 421, 422, 429, 500, 503)


@router.post(
    "/v1/analyze",
    summary="Analyse one photo",
    dependencies=ANALYSING,
    responses=PROBLEMS,
    tags=["analyse"],
)
async def analyze(request: Request, state: Shared, chosen: Chosen) -> Response:
    """The faces in a photo, the largest first, with their apparent attributes.

    Send the picture as the multipart field `file`, or as the body itself: of a type `image/*`, of
    `application/octet-stream`, or of none. A photo without a face is a good answer with an empty
    list.
    """
    async with _admitted(request, state) as (place, _):
        with _counted(state):
            data = await state.uploads.one(request, place)
            result, times = await _while_connected(
                request,
                lambda: state.inference.analyze(data, chosen.attributes, chosen.coverage),
            )
    state.metrics.count(faces=len(result.predictions), timings_ms=times)
    return JSONResponse(analysis(state, chosen, request_id_of(request.scope), times, result))


@router.post(
    "/v1/analyze/batch",
    summary="Analyse several photos",
    dependencies=ANALYSING,
    responses=PROBLEMS,
    tags=["analyse"],
)
async def analyze_batch(request: Request, state: Shared, chosen: Chosen) -> Response:
    """Several photos as multipart fields named `files`, answered in their order.

    A photo that cannot be read has an `error` in its place; the others are answered all the same.
    """
    async with _admitted(request, state) as (place, count_more):
        items = await state.uploads.several(request, place)
        count_more(len(items) - 1)
        results, times = await _while_connected(
            request,
            lambda: state.inference.analyze_batch(items, chosen.attributes, chosen.coverage),
        )
    for result in results:
        outcome = "ok" if isinstance(result, PhotoResult) else result.code
        state.metrics.photos.labels(outcome).inc()
    faces = sum(len(result.predictions) for result in results if isinstance(result, PhotoResult))
    state.metrics.count(faces=faces, timings_ms=times)
    return JSONResponse(batch(state, chosen, request_id_of(request.scope), times, results))


@asynccontextmanager
async def _admitted(
    request: Request, state: State
) -> AsyncIterator[tuple[Place, Callable[[int], None]]]:
    """Reserve a place for the body and count a photo; the caller counts the rest of a batch.

    Room is checked before counting, and photos for which there is no room later are refunded, so
    that a refused client has not used up a photo.

    Raises:
        ProblemError: 429 or 503.
    """
    state.inference.check_room()
    async with state.uploads.place(request) as place:
        with state.access.counted(request) as count_more:
            yield place, count_more


def analysis(
    state: State,
    chosen: QueryOptions,
    request_id: str,
    times: Mapping[str, float],
    result: PhotoResult,
) -> dict[str, Any]:
    """The answer for one photo; ``times`` are milliseconds by stage."""
    return {**_common(state, chosen, request_id, times), **_photo(result, chosen)}


def batch(
    state: State,
    chosen: QueryOptions,
    request_id: str,
    times: Mapping[str, float],
    results: Sequence[PhotoResult | ProblemError],
) -> dict[str, Any]:
    """The answer for several photos, in their order."""
    photos = [
        {"index": index, **_photo(result, chosen)}
        if isinstance(result, PhotoResult)
        else {"index": index, "error": _error(result)}
        for index, result in enumerate(results)
    ]
    return {**_common(state, chosen, request_id, times), "photos": photos}


def _common(
    state: State, chosen: QueryOptions, request_id: str, times: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "facewise_version": __version__,
        "request_id": request_id,
        "model": state.spec.info.to_dict(),
        "attributes": list(chosen.attributes),
        "coverage": chosen.coverage,
        "timings_ms": {stage: round(ms, 2) for stage, ms in times.items()},
    }


def _photo(result: PhotoResult, chosen: QueryOptions) -> dict[str, Any]:
    return {
        "width_px": result.width_px,
        "height_px": result.height_px,
        "more_faces": result.more_faces,
        "faces": [p.to_dict(vector=chosen.vector, years=chosen.years) for p in result.predictions],
    }


def _error(problem: ProblemError) -> dict[str, str]:
    return {"code": problem.code, "title": TITLES[problem.code], "detail": problem.detail}


@contextmanager
def _counted(state: State) -> Iterator[None]:
    """Count a photo by its outcome; requests without a readable body or room for it hold none."""
    try:
        yield
    except (ImageError, ProblemError) as error:
        # A photo with too many bytes is refused before it is a picture.
        if isinstance(error, ImageError) or error.code == "image_too_large":
            state.metrics.photos.labels(error.code).inc()
        raise
    state.metrics.photos.labels("ok").inc()


async def _while_connected(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Await ``work``, but cancel it if the client disconnects.

    Queued work is cancelled at once, running work before its next stage.

    Raises:
        ClientDisconnect: the client disconnected.
    """
    outcome: list[T] = []
    failure: list[Exception] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        # Caught here, because a task group would wrap it.
        try:
            outcome.append(await work())
        except Exception as error:
            failure.append(error)
        group.cancel_scope.cancel()
    if failure:
        raise failure[0]
    if not outcome:
        raise ClientDisconnect
    return outcome[0]
