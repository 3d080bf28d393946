"""The server's log: what a line holds, which lines there are, and how detailed they can be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import anyio
import httpx
import pytest

from facewise._version import __version__

from .conftest import Serve, until
from .pictures import crowd

pytestmark = pytest.mark.anyio


async def test_a_line_says_why_a_request_failed(
    serve: Serve, portrait: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    files = {"file": b"secret-content"}
    async with serve(api_key="correct horse", rate_limit_per_minute=2) as running:
        post, key = running.client.post, {"X-API-Key": "correct horse"}
        await post("/v1/analyze", files={"file": portrait}, headers=key)
        await post("/v1/analyze", files=files)
        await post("/v1/analyze?secret=1", files=files, headers=key)
        await post("/v1/analyze", files=files, headers=key)
        await post("/v1/analyze", files=files, headers=key)
        await running.client.get("/secret")
        await until(lambda: len(_requests(caplog)) == 6)
    ends = [re.sub(r"\d+ ms, \d+", "", line.partition(" ")[2]) for line in _requests(caplog)]
    assert ends == [
        "POST /v1/analyze 200  bytes in",
        "POST /v1/analyze 401  bytes in: unauthorized",
        "POST /v1/analyze 422  bytes in: invalid_option",
        "POST /v1/analyze 415  bytes in: not_an_image",
        "POST /v1/analyze 429  bytes in: rate_limited",
        "GET (no route) 404  bytes in: not_found",
    ]


def _requests(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("id=")]


async def test_probes_only_show_if_they_fail(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="facewise.server")
    async with serve(uploads=1) as running:
        for path in ("/healthz", "/readyz", "/metrics"):
            await running.client.get(path)
        running.state.uploads.held = 1
        await running.client.get("/readyz")
        running.state.uploads.held = 0
        await until(lambda: len(_requests(caplog)) == 4)
    lines = [record for record in caplog.records if record.getMessage().startswith("id=")]
    assert [record.levelname for record in lines] == ["DEBUG"] * 3 + ["INFO"]
    assert lines[-1].getMessage().endswith(": busy")


async def test_preflights_and_files_have_names(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    async with serve(cors_origins=("https://a.example",), root_path="/faces") as running:
        await running.client.options("/v1/analyze", headers=asks)
        for path in ("/faces/static/app.js", "/static/secret.js", "/faces/secret"):
            await running.client.get(path)
        await until(lambda: len(_requests(caplog)) == 4)
    assert [" ".join(line.split(" ms,")[0].split()[1:-1]) for line in _requests(caplog)] == [
        "OPTIONS (preflight) 204",
        "GET /static 200",
        "GET /static 404",
        "GET (no route) 404",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threads": 2}, "2 threads, queue 32, no key, no rate limit"),
        (
            {"queue": 3, "api_key": "correct horse", "rate_limit_per_minute": 60},
            "1 thread, queue 3, a key is needed, 60 photos per minute",
        ),
    ],
)
async def test_the_start_says_what_runs(
    settings: dict[str, object], said: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    async with serve(**settings) as running:
        spec = running.state.spec
    assert f"facewise {__version__}, {spec.name}@{spec.version}, {said}" in caplog.messages
    assert "horse" not in caplog.text


@contextmanager
def served(
    *before: str, after: tuple[str, ...] = ()
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``facewise serve`` with its log in a pipe: its URL and process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FACEWISE_")}
    own = {"FACEWISE_THREADS": "1", "FACEWISE_SHUTDOWN_TIMEOUT_SECONDS": "0"}
    command = [*before, "serve", "--port", "0", "--no-open", *after]
    with subprocess.Popen(
        [sys.executable, "-m", "facewise", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **own, "TZ": "IST-5:30"},
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[3], process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("before", "after", "probes", "uvicorns"),
    [
        ((), (), False, False),
        ((), ("-v",), True, False),
        (("-v",), (), True, False),
        ((), ("-vv",), True, True),
    ],
)
def test_verbose_shows_more(
    before: tuple[str, ...], after: tuple[str, ...], probes: bool, uvicorns: bool
) -> None:
    with served(*before, after=after) as (url, process):
        for path in ("healthz", "secret"):
            httpx.get(url + path, trust_env=False, timeout=60)
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as client:
            client.sendall(b"no HTTP\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        form = {"content": b"--secret", "headers": headers}
        assert httpx.post(f"{url}v1/analyze", **form, trust_env=False).status_code == 400  # type: ignore[arg-type]
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert (" DEBUG id=" in log) == ("/healthz 200" in log) == probes
    assert ("Application startup complete" in log) == uvicorns
    assert ("Invalid HTTP request" in log) == uvicorns
    assert "boundary" not in log, "python-multipart's warnings quote the body"
    assert "secret" not in log
    for line in log.splitlines():
        stamp = line.split()[0]
        assert datetime.fromisoformat(stamp).utcoffset() is not None
        assert stamp.endswith("+05:30")
    assert "GET (no route) 404" in log


async def test_a_shutdown_says_what_it_waits_for(portrait: bytes) -> None:
    photo = crowd(portrait, 20, 10)
    with served() as (url, process):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:

            async def post() -> None:
                assert (await client.post("v1/analyze", content=photo)).status_code == 503

            async with anyio.create_task_group() as group:
                group.start_soon(post)
                with anyio.fail_after(30):
                    while "facewise_running 1.0" not in (await client.get("metrics")).text:
                        pass
                process.terminate()
        _, log = process.communicate(timeout=60)
    said = [line.partition(" INFO ")[2] for line in log.splitlines()]
    begun = said.index("stopping: 1 running, 0 waiting")
    assert said.index("stopped") == len(said) - 1 > begun
    assert "503" in said[-2]
    assert process.returncode == -signal.SIGTERM
