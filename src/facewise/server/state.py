"""State shared by the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from facewise.models import ModelSpec
from facewise.server.access import Access
from facewise.server.inference import Inference
from facewise.server.metrics import Metrics
from facewise.server.uploads import Uploads
from facewise.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """State shared by the routes, stored as ``app.state.facewise``."""

    settings: Settings
    spec: ModelSpec
    coverage: float
    inference: Inference
    uploads: Uploads
    access: Access
    metrics: Metrics
    on_device: bool


def state_of(request: Request) -> State:
    return request.app.state.facewise


Shared = Annotated[State, Depends(state_of)]


def allowed(request: Request, state: Shared) -> None:
    state.access.check_key(request)
