"""What an operator can tell from the metrics."""

from __future__ import annotations

import re

import pytest

from facewise._version import __version__
from facewise.server.problems import TITLES

from .conftest import Serve

pytestmark = pytest.mark.anyio


async def test_metrics_tell_problems_apart(serve: Serve) -> None:
    """Shed load, wrong keys and crashes must not look alike, nor the codes come from clients."""
    async with serve(api_key="correct horse", uploads=1, queue=0) as running:
        key = {"X-API-Key": "correct horse"}
        post, get = running.client.post, running.client.get
        await post("/v1/analyze", files={"file": b"no"}, headers=key)
        for _ in range(2):
            await post("/v1/analyze", files={"file": b"no"})
        await get("/metrics")  # probes are not counted, or a queue that is full would be twice
        running.state.uploads.held = 1
        assert (await get("/readyz")).status_code == 503
        await post("/v1/analyze", files={"file": b"no"}, headers=key)
        running.state.uploads.held = 0
        await get("/invented")
        text = (await get("/metrics", headers=key)).text
    counts = dict(re.findall(r'^facewise_problems_total\{code="(\w+)"\} (\S+)$', text, re.M))
    assert set(counts) == set(TITLES)
    assert {code: float(count) for code, count in counts.items() if float(count)} == {
        "not_an_image": 1,
        "unauthorized": 2,
        "busy": 1,
        "not_found": 1,
    }


async def test_photos_are_counted_alike_alone_and_in_a_batch(serve: Serve, portrait: bytes) -> None:
    async with serve(max_bytes=len(portrait) - 1) as running:
        for url in ("/v1/analyze", "/v1/analyze/batch"):
            for data in (portrait, b"no picture", b""):
                await running.client.post(url, files={"file": data})
        text = (await running.client.get("/metrics")).text
    counts = dict(re.findall(r'^facewise_photos_total\{outcome="(\w+)"\} (\S+)$', text, re.M))
    assert counts == {"image_too_large": "2.0", "not_an_image": "2.0", "image_empty": "2.0"}


async def test_metrics_say_what_runs_and_its_limits(serve: Serve) -> None:
    async with serve(queue=5, threads=3, uploads=9, upload_memory_bytes=99_000_000) as running:
        text = (await running.client.get("/metrics")).text
        spec = running.state.spec
    info = f'model="{spec.name}@{spec.version}",sha256="{spec.sha256}",version="{__version__}"'
    assert f"facewise_build_info{{{info}}} 1.0" in text
    for line in (
        "facewise_waiting_limit 5.0",
        "facewise_running_limit 3.0",
        "facewise_uploads_limit 9.0",
        "facewise_upload_bytes_limit 9.9e+07",
    ):
        assert line in text.splitlines()
