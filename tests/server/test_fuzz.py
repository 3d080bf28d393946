"""Damaged and hostile uploads: the answer is always documented and never a 5xx."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facewise import Analyzer
from facewise.server import create_app
from facewise.settings import Settings

from .conftest import adapted
from .pictures import every_format, unusual_files

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
DOCUMENTED = {200, 400, 413, 415, 422}
QUIET = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


class Client:
    """Sends requests to the app without a socket, one at a time."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner, self._client = runner, client

    def post(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        return self._runner.run(self._client.post(path, content=content, headers=headers))


@pytest.fixture(scope="module")
def client(analyzer: Analyzer) -> Iterator[Client]:
    limits = Settings(threads=1, max_pixels=300_000, max_bytes=200_000)
    transport = httpx.ASGITransport(create_app(limits, adapted(analyzer, limits)))
    with asyncio.Runner() as runner:
        yield Client(runner, httpx.AsyncClient(transport=transport, base_url="http://localhost"))


@pytest.fixture(scope="module")
def formats(pictures: Path) -> dict[str, bytes]:
    files = every_format(pictures) | unusual_files(pictures)
    try:
        from pillow_heif import from_pillow
    except ImportError:
        return files
    heic = io.BytesIO()
    from_pillow(Image.open(io.BytesIO(files["PNG"])).convert("RGB")).save(heic, quality=80)
    return files | {"HEIC": heic.getvalue()}


@st.composite
def damage(draw: st.DrawFn) -> tuple[float, list[tuple[str, float, bytes]]]:
    """Which file, as a fraction, and the changes to its bytes at positions that are fractions."""
    which = draw(st.floats(0, 1, exclude_max=True))
    step = st.tuples(
        st.sampled_from(["set", "insert", "cut", "truncate", "double"]),
        # Headers are where parsers break, so half of the positions lie in the first twentieth.
        st.one_of(st.floats(0, 0.05), st.floats(0, 1)),
        st.binary(min_size=1, max_size=8),
    )
    return which, draw(st.lists(step, min_size=1, max_size=6))


def apply(data: bytes, steps: list[tuple[str, float, bytes]]) -> bytes:
    for name, where, filling in steps:
        at = int(where * len(data))
        if name == "set":
            data = data[:at] + filling + data[at + len(filling) :]
        elif name == "insert":
            data = data[:at] + filling + data[at:]
        elif name == "cut":
            data = data[:at] + data[at + len(filling) :]
        elif name == "truncate":
            data = data[:at]
        else:
            data = data[:at] + data[at // 2 :]
    return data


def check(answer: httpx.Response) -> None:
    assert answer.status_code in DOCUMENTED, answer.text
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] not in ("internal_error", "image_error")


@given(case=damage())
@settings(QUIET, max_examples=5 * EXAMPLES)
def test_damaged_pictures(
    case: tuple[float, list[tuple[str, float, bytes]]], client: Client, formats: dict[str, bytes]
) -> None:
    which, steps = case
    data = apply(list(formats.values())[int(which * len(formats))], steps)
    check(client.post("/v1/analyze", content=data, headers={"Content-Type": "image/x"}))


@given(body=st.binary(max_size=400), boundary=st.sampled_from(["x", "", '"', "a b", "x" * 90]))
@QUIET
def test_hostile_multipart(body: bytes, boundary: str, client: Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    for content in (body, part + body, part + b"\r\n" + body + b"\r\n--x--\r\n"):
        check(client.post("/v1/analyze", content=content, headers=headers))


@given(data=st.binary(max_size=300), headers=st.binary(max_size=60))
@QUIET
def test_hostile_part_headers(data: bytes, headers: bytes, client: Client) -> None:
    body = (
        b"--x\r\nContent-Disposition: form-data; " + headers + b"\r\n\r\n" + data + b"\r\n--x--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    check(client.post("/v1/analyze/batch", content=body, headers=kind))


def test_the_undamaged_pictures_pass(client: Client, formats: dict[str, bytes]) -> None:
    for data in formats.values():
        answer = client.post("/v1/analyze", content=data, headers={"Content-Type": "image/x"})
        assert answer.status_code == 200
