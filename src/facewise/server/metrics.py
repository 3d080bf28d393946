"""Prometheus metrics: requests (by the instrumentator), problems, photos, stages, room and limits.

Only counts and durations, nothing about what a photo shows.
"""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_fastapi_instrumentator import Instrumentator

from facewise._version import __version__
from facewise.models import ModelSpec
from facewise.server.inference import Inference
from facewise.server.problems import TITLES
from facewise.server.uploads import Uploads
from facewise.settings import Settings

PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""Routes that machines ask every few seconds: not counted, and only logged if they fail."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The app's metrics, in a registry of its own, so that a process can hold several apps."""

    def __init__(
        self, inference: Inference, uploads: Uploads, settings: Settings, spec: ModelSpec
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("facewise_build", "What runs.", registry=self.registry).info(
            {
                "version": __version__,
                "model": f"{spec.name}@{spec.version}",
                "sha256": spec.sha256,
            }
        )
        self._problems = Counter(
            "facewise_problems", "Problems answered, by code.", ["code"], registry=self.registry
        )
        for code in TITLES:  # from 0 on, or the first of a kind would not show as an increase
            self._problems.labels(code)
        self.photos = Counter(
            "facewise_photos", "Photos by outcome.", ["outcome"], registry=self.registry
        )
        self.faces = Counter("facewise_faces", "Faces analysed.", registry=self.registry)
        self.stages = Histogram(
            "facewise_stage_seconds",
            "Time by stage of a request.",
            ["stage"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._gauge("facewise_waiting", "Requests in the queue.", lambda: inference.waiting)
        self._gauge("facewise_running", "Requests being analysed.", lambda: inference.running)
        self._gauge("facewise_uploads", "Requests that hold a body.", lambda: uploads.held)
        self._gauge("facewise_upload_bytes", "Bytes of them.", lambda: uploads.held_bytes)
        for name, limit in (
            ("waiting", settings.queue),
            ("running", settings.threads),
            ("uploads", settings.uploads),
            ("upload_bytes", settings.upload_memory_bytes),
        ):
            text = f"Limit of facewise_{name}."
            Gauge(f"facewise_{name}_limit", text, registry=self.registry).set(limit)

    def _gauge(self, name: str, text: str, read: object) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)  # type: ignore[arg-type]

    def instrument(self, app: FastAPI) -> None:
        """Count requests by method, route and status."""
        Instrumentator(
            registry=self.registry, excluded_handlers=[f"^{path}$" for path in PROBES]
        ).instrument(app)

    def count_problem(self, code: str) -> None:
        """Count a request that was answered with a problem."""
        self._problems.labels(code).inc()

    def count(self, *, faces: int, timings_ms: dict[str, float]) -> None:
        """Count one answered request."""
        self.faces.inc(faces)
        for stage, ms in timings_ms.items():
            self.stages.labels(stage).observe(ms / 1e3)
