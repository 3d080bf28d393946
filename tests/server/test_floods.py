"""Bodies that are cheap to send and costly to parse: tiny chunks, and boundaries that are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import h11
import pytest
from PIL import Image
from python_multipart.multipart import MultipartParser

from facewise.server.run import CHUNK_BYTES, READ_BYTES, SPARE_CHUNKS

from .conftest import Serve, until
from .pictures import encoded
from .test_limits import post_head
from .test_problems import check

pytestmark = pytest.mark.anyio

RAW = {"Content-Type": "image/jpeg"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is parsed at a time on the server's side."""
    sizes: list[int] = []
    receive = h11.Connection.receive_data

    def receive_and_tell(self: h11.Connection, data: bytes) -> None:
        if self.our_role is h11.SERVER:
            sizes.append(len(data))
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", receive_and_tell)
    return sizes


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the pieces of bodies that the server has parsed."""
    sizes: list[int] = []
    take = h11.Connection.next_event

    def take_and_tell(self: h11.Connection) -> Any:
        event = take(self)
        if self.our_role is h11.SERVER and isinstance(event, h11.Data):
            sizes.append(len(event.data))
        return event

    monkeypatch.setattr(h11.Connection, "next_event", take_and_tell)
    return sizes


async def test_little_is_parsed_at_a_time(serve: Serve, read: list[int]) -> None:
    """Others wait meanwhile, and asyncio would hand over four times as much."""
    async with serve() as running, await post_head(running.port, 5_000_000) as stream:
        await stream.send(bytes(5_000_000))
        await until(lambda: sum(read) >= 5_000_000)
    assert max(read) == READ_BYTES


@pytest.mark.parametrize(
    "path", ["/v1/analyze", "/v1/analyze?attribute=age", "/v1/analyze/batch", "/nothing"]
)
async def test_a_body_in_tiny_chunks_is_refused(
    path: str, serve: Serve, chunks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it would be kept, is read after a refusal, or has no reader at all."""
    async with serve() as running:
        async with await post_head(running.port, None, path=path) as stream:
            with anyio.fail_after(10), suppress(anyio.BrokenResourceError):
                await stream.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                while True:  # until the server closes the connection
                    await stream.send(b"1\r\nx\r\n" * 500)
        await until(lambda: not running.server.server_state.tasks)
        assert running.state.uploads.held == 0
    tiny = [size for size in chunks if size == 1]
    assert len(tiny) <= SPARE_CHUNKS * CHUNK_BYTES / (CHUNK_BYTES - 1) + 1
    assert [line for line in caplog.records if line.levelname == "ERROR"] == []


async def test_many_chunks_of_some_size_are_fine(
    serve: Serve, portrait: bytes, chunks: list[int]
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for at in range(0, len(portrait), CHUNK_BYTES):
            yield portrait[at : at + CHUNK_BYTES]

    async with serve() as running:
        for _ in range(2):
            answer = await running.client.post("/v1/analyze", content=body(), headers=RAW)
            assert answer.status_code == 200
    assert len(chunks) > 2 * SPARE_CHUNKS


@pytest.mark.parametrize(
    ("path", "extra", "status"),
    [
        ("/v1/analyze", (), 401),
        ("/nothing", (), 404),
        ("/v1/analyze", ("X-Forwarded-For: 9.9.9.9",), 421),
    ],
)
async def test_strangers_bodies_are_not_read(
    path: str, extra: tuple[str, ...], status: int, serve: Serve
) -> None:
    """A body without a declared end could cost the server ten seconds of reading."""
    async with serve(api_key="correct horse") as running:
        async with await post_head(running.port, None, *extra, path=path) as stream:
            with anyio.fail_after(5):
                answer = b"".join([piece async for piece in stream])
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert f" {status} ".encode() in head
        assert b"connection: close" in head
        # One that declares its end is read, so that the client sees the answer.
        async with await post_head(running.port, 100_000, *extra, path=path) as stream:
            await stream.send(bytes(50_000))
            with anyio.fail_after(5):
                answer = await stream.receive()
            assert f" {status} ".encode() in answer
            await stream.send(bytes(50_000))
            await until(lambda: not running.server.server_state.tasks)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what python-multipart has looked at."""
    sizes: list[int] = []
    write = MultipartParser.write

    def write_and_tell(self: MultipartParser, data: bytes) -> int:
        sizes.append(len(data))
        return write(self, data)

    monkeypatch.setattr(MultipartParser, "write", write_and_tell)
    return sizes


def form(boundary: str, data: bytes) -> dict[str, Any]:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return {
        "content": head.encode() + data + f"\r\n--{boundary}--\r\n".encode(),
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


@pytest.mark.parametrize("boundary", ["x", "-" * 24 + "0123456789abcdef", "b" * 70])
async def test_lines_that_begin_like_a_boundary_are_refused(
    boundary: str, serve: Serve, parsed: list[int]
) -> None:
    """python-multipart walks through them, or the blanks after one, byte by byte."""
    line = f"\r\n--{boundary}".encode()
    bodies = [(line + after) * 20_000 for after in (b"!", b"-!", b"\r!", b"\r\r")]
    bodies += [line + blank * 1_000_000 for blank in (b" ", b"\t")]
    async with serve() as running:
        for body in bodies:
            parsed.clear()
            answer = await running.client.post("/v1/analyze", **form(boundary, body))
            assert "begins with its boundary" in check(answer, 400, "invalid_request")
            assert sum(parsed) < READ_BYTES


async def test_lines_that_begin_like_a_boundary_are_found_across_pieces(serve: Serve) -> None:
    """Wherever the network cuts the body, and a form that is in order passes in any pieces."""
    picture = encoded(Image.new("RGB", (32, 32)), "PNG")
    async with serve() as running:
        for data, status in ((b"a\r\n--bound!a", 400), (picture, 200)):
            whole = form("bound", data)
            content = whole.pop("content")

            async def one_by_one(content: bytes = content) -> AsyncIterator[bytes]:
                for at in range(len(content)):
                    yield content[at : at + 1]
                    await anyio.sleep(0)

            answer = await running.client.post("/v1/analyze", content=one_by_one(), **whole)
            assert answer.status_code == status, answer.text
