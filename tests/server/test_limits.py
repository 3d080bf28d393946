"""Limits on streaming bodies, the queue, upload places, time and rate; and the API key."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, partialmethod
from typing import Any

import anyio
import anyio.from_thread
import httpx
import pytest
import uvicorn
from anyio.abc import SocketStream
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from facewise.attributes import AttributeModel
from facewise.mtcnn import MTCNN
from facewise.server.access import REMEMBERED_CLIENTS, Access, client_of
from facewise.server.problems import ProblemError
from facewise.server.run import READ_BYTES, server_config
from facewise.server.uploads import Uploads
from facewise.settings import Settings
from facewise.types import Photo

from .conftest import Running, Serve, until
from .pictures import crowd
from .test_problems import check

pytestmark = pytest.mark.anyio


async def hold_all_threads(running: Running) -> Callable[[], None]:
    """Occupy every inference thread; call the result to release them."""
    limiter = running.state.inference._limiter
    holders = [object() for _ in range(running.state.settings.threads)]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)

    def let_go() -> None:
        for holder in holders:
            limiter.release_on_behalf_of(holder)

    return let_go


async def post_head(
    port: int,
    length: int | None,
    *extra: str,
    path: str = "/v1/analyze",
    kind: str = "image/jpeg",
) -> SocketStream:
    """Open a connection and begin a POST, by default of a raw JPEG."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {kind}",
        size,
        *extra,
    ]
    await stream.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    return stream


async def read_answer(stream: SocketStream) -> tuple[int, dict[str, str], Any]:
    """Read the status, headers and JSON body of the next answer on a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers["content-length"]):
        body += await stream.receive()
    return int(lines[0].split()[1]), headers, json.loads(body)


async def test_a_declared_size_over_the_limit_is_answered_before_the_body(serve: Serve) -> None:
    async with serve(max_bytes=100_000) as running:
        async with await post_head(running.port, 100_001) as stream:
            with anyio.fail_after(10):
                status, _, body = await read_answer(stream)  # no byte of the body was sent
        assert (status, body["code"]) == (413, "image_too_large")


async def test_an_undeclared_size_is_counted_while_it_streams(serve: Serve) -> None:
    """An endless chunked body is answered with 413 once it exceeds the limit."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 65_536
            yield b"\xff" * 65_536

    async with serve(max_bytes=1_000_000) as running:
        answer = await running.client.post(
            "/v1/analyze", content=endless(), headers={"Content-Type": "image/jpeg"}
        )
        check(answer, 413, "image_too_large")

        async with await post_head(running.port, None) as stream:
            chunk = b"10000\r\n" + b"\xff" * 65_536 + b"\r\n"
            for _ in range(20):  # 1.3 MB, and the body does not end
                await stream.send(chunk)
            with anyio.fail_after(10):
                status, _, _ = await read_answer(stream)
            assert status == 413
        await until(lambda: running.state.uploads.held == 0)


async def test_at_the_limit_is_fine(serve: Serve, portrait: bytes) -> None:
    async with serve(max_bytes=len(portrait)) as running:
        for body in ({"files": {"file": portrait}}, {"content": portrait}):
            headers = {"Content-Type": "image/jpeg"} if "content" in body else {}
            answer = await running.client.post("/v1/analyze", headers=headers, **body)
            assert answer.status_code == 200
        more = await running.client.post("/v1/analyze", files={"file": portrait + b"\0"})
        check(more, 413, "image_too_large")
        batch = [("files", ("x", portrait + b"\0")), ("files", ("y", portrait))]
        answer = await running.client.post("/v1/analyze/batch", files=batch)
        assert answer.status_code == 200
        refused, fine = answer.json()["photos"]
        assert refused["error"] == {key: more.json()[key] for key in ("code", "title", "detail")}
        assert len(fine["faces"]) == 1


async def test_the_batch_has_a_limit_of_its_own(serve: Serve, portrait: bytes) -> None:
    async with serve(max_batch_bytes=3 * len(portrait)) as running:
        answer = await running.client.post(
            "/v1/analyze/batch", files=[("files", ("x", portrait))] * 4
        )
        assert "fewer photos" in check(answer, 413, "batch_too_large")
        # Within the allowance for part headers, but one photo alone exceeds the limit of a batch.
        answer = await running.client.post(
            "/v1/analyze/batch", files=[("files", ("x", portrait * 3 + b"\0"))]
        )
        check(answer, 413, "batch_too_large")


async def test_a_full_queue_answers_503_at_once(serve: Serve, portrait: bytes) -> None:
    async with serve(threads=2, queue=1) as running:
        let_go = await hold_all_threads(running)
        answers: list[httpx.Response] = []

        async def post() -> None:
            answers.append(await running.client.post("/v1/analyze", files={"file": portrait}))

        async with anyio.create_task_group() as group:
            group.start_soon(post)
            await until(lambda: running.state.inference.waiting == 1)
            assert (await running.client.get("/healthz")).status_code == 200
            check(await running.client.get("/readyz"), 503, "busy")
            with anyio.fail_after(5):
                turned_away = await running.client.post("/v1/analyze", files={"file": portrait})
            check(turned_away, 503, "busy")
            assert int(turned_away.headers["retry-after"]) >= 1
            # Refused before the body: none of it needs to be sent.
            async with await post_head(running.port, 5_000_000) as stream:
                with anyio.fail_after(5):
                    status, headers, _ = await read_answer(stream)
            assert status == 503
            assert "retry-after" in headers
            let_go()
        assert [answer.status_code for answer in answers] == [200]
        assert running.state.inference.waiting == running.state.inference.running == 0


async def test_a_client_that_goes_away_frees_its_place(serve: Serve, portrait: bytes) -> None:
    async with serve(queue=1) as running:
        let_go = await hold_all_threads(running)
        stream = await post_head(running.port, len(portrait))
        await stream.send(portrait)
        await until(lambda: running.state.inference.waiting == 1)
        await stream.aclose()
        await until(lambda: running.state.inference.waiting == 0)
        await until(lambda: running.state.uploads.held == 0)
        let_go()
        answer = await running.client.post("/v1/analyze", files={"file": portrait})
        assert answer.status_code == 200


def hold_detection(patch: pytest.MonkeyPatch) -> list[str]:
    """Make the first detection last until its request is cancelled.

    Returns:
        The stages begun, and at how many photos: "detect 8".
    """
    begun: list[str] = []
    detect = MTCNN.detect_many

    def held(self: MTCNN, photos: list[Photo]) -> Any:
        begun.append(f"detect {len(photos)}")
        for _ in range(30_000 if len(begun) == 1 else 0):
            try:
                anyio.from_thread.check_cancelled()
            except asyncio.CancelledError:
                break
            time.sleep(0.001)
        return detect(self, photos)

    patch.setattr(MTCNN, "detect_many", held)
    return begun


@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/analyze/batch"])
async def test_work_that_runs_ends_when_its_client_goes_away(
    path: str, serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before the next stage, so its thread is free for waiting clients."""
    photos = 8 if path.endswith("batch") else 1
    predict = AttributeModel.predict

    def predict_and_tell(*args: Any) -> Any:
        stages.append("attributes")
        return predict(*args)

    async with serve(max_pixels=300_000) as running:  # one portrait at a time from a batch
        with monkeypatch.context() as patch:
            stages = hold_detection(patch)
            patch.setattr(AttributeModel, "predict", predict_and_tell)
            async with anyio.create_task_group() as group:
                files = [("file", portrait)] * photos
                group.start_soon(partial(running.client.post, path, files=files))
                await until(lambda: len(stages) == 1)
                group.cancel_scope.cancel()
            await until(lambda: running.state.inference.running == 0)
            assert stages == ["detect 1"]
        await until(lambda: running.state.uploads.held == 0)
        answer = await running.client.post("/v1/analyze", files={"file": portrait})
        assert answer.status_code == 200
        metrics = (await running.client.get("/metrics")).text
    assert 'facewise_photos_total{outcome="ok"} 1.0' in metrics, "the one that was answered"
    assert "facewise_running 0.0" in metrics


async def test_nobody_waits_for_threads_that_are_stuck(
    serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither who is waiting already nor who comes now, and a load balancer hears of it."""
    monkeypatch.setattr("facewise.server.inference.CHECK_SECONDS", 0.001)
    answers: list[httpx.Response] = []
    async with serve() as running:
        inference = running.state.inference

        async def post() -> None:
            files = {"file": portrait}
            answers.append(await running.client.post("/v1/analyze", files=files))

        with monkeypatch.context() as patch:
            begun = hold_detection(patch)
            async with anyio.create_task_group() as group:
                group.start_soon(post)
                await until(lambda: len(begun) == 1)
                assert (await running.client.get("/readyz")).status_code == 200
                with anyio.fail_after(10):
                    async with anyio.create_task_group() as waiting:
                        waiting.start_soon(post)
                        await until(lambda: inference.waiting == 1)
                        patch.setattr("facewise.server.inference.STUCK_SECONDS", 0.0)
                    await post()
                answers.append(await running.client.get("/readyz"))
                group.cancel_scope.cancel()
            await until(lambda: inference.running == 0)
        assert len(answers) == 3
        for answer in answers:
            assert "at the same pictures" in check(answer, 503, "busy")
        assert inference.waiting == 0
        assert (await running.client.get("/readyz")).status_code == 200
        await post()
        assert answers[-1].status_code == 200


@pytest.mark.parametrize("threads", [1, 2])
async def test_the_first_photos_after_a_pause_do_not_find_the_threads_stuck(
    threads: int, serve: Serve, portrait: bytes
) -> None:
    """Though they come at once, when the last photo is long over."""
    async with serve(threads=threads) as running:
        inference = running.state.inference
        inference._moved -= 100
        refused: list[ProblemError] = []

        async def analyze() -> None:
            try:
                await inference.analyze(portrait, ("age",), 0.9)
            except ProblemError as error:
                refused.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(threads + 1):
                group.start_soon(analyze)
    assert refused == []


async def test_a_thread_that_gets_on_is_not_stuck(
    serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its stages take together, or the server has been idle."""
    stuck: list[bool] = []

    def tell(self: Any, *args: Any, then: Callable[..., Any]) -> Any:
        stuck.append(inference.is_stuck)
        inference._moved -= 100
        stuck.append(inference.is_stuck)
        return then(self, *args)

    async with serve() as running:
        inference = running.state.inference
        inference._moved -= 100
        for part, stage in ((MTCNN, "detect_many"), (AttributeModel, "predict")):
            monkeypatch.setattr(part, stage, partialmethod(tell, then=getattr(part, stage)))
        answer = await running.client.post("/v1/analyze", files={"file": portrait})
    assert answer.status_code == 200
    assert stuck == [False, True, False, True]


@pytest.mark.parametrize("published", [False, True])
async def test_the_smaller_faces_of_a_crowd_are_left_out_and_that_is_said(
    published: bool, serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default where others are expected; on loopback if the operator sets the limit."""
    monkeypatch.setattr("facewise.settings.PUBLISHED_MAX_FACES", 2)
    three, one = crowd(portrait, 3, 1), crowd(portrait, 1, 1)
    async with serve(**({"host": "0.0.0.0"} if published else {"max_faces": 2})) as running:
        batch = await running.client.post("/v1/analyze/batch", files=[("file", three)] * 2)
        alone = await running.client.post("/v1/analyze", files={"file": one})
        counts = (await running.client.get("/metrics")).text
        about = (await running.client.get("/v1/models")).json()
    photos = [*batch.json()["photos"], alone.json()]
    assert [len(photo["faces"]) for photo in photos] == [2, 2, 1]
    assert [photo["more_faces"] for photo in photos] == [True, True, False]
    assert about["limits"]["max_faces"] == 2
    assert "facewise_faces_total 5.0" in counts
    async with serve() as running:
        answer = (await running.client.post("/v1/analyze", files={"file": three})).json()
        about = (await running.client.get("/v1/models")).json()
    assert (len(answer["faces"]), answer["more_faces"]) == (3, False)
    assert about["limits"]["max_faces"] is None


async def test_a_body_that_was_asked_for_is_read_to_its_end(serve: Serve) -> None:
    """A client that waits for 100 sends all once it has it: a reset might cost it the answer."""
    rest = b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n" + bytes(900_000)
    head = ("Expect: 100-continue", "Connection: close")
    kind = "multipart/form-data; boundary=x"
    async with serve() as running:
        async with await post_head(running.port, len(rest), *head, kind=kind) as stream:
            assert b" 100 " in (await stream.receive()).partition(b"\r\n")[0]
            await stream.send(rest[:1000])
            status, _, body = await read_answer(stream)
            assert (status, body["code"]) == (422, "invalid_option")
            for begin in range(1000, len(rest), 1000):
                await stream.send(rest[begin : begin + 1000])
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        # Who was not asked sends nothing, and is not waited for.
        async with await post_head(running.port, 30_000_000, *head) as stream:
            status, _, _ = await read_answer(stream)
            assert status == 413
            await until(lambda: not running.server.server_state.tasks, seconds=5)


async def test_a_client_that_goes_away_while_sending_frees_its_place(serve: Serve) -> None:
    async with serve(uploads=1) as running:
        stream = await post_head(running.port, 1_000_000)
        await stream.send(b"\xff" * 1000)
        await until(lambda: running.state.uploads.held == 1)
        await stream.aclose()
        await until(lambda: running.state.uploads.held == 0)


async def test_places_for_uploads_are_bounded(serve: Serve, portrait: bytes) -> None:
    async with serve(uploads=1) as running:
        async with await post_head(running.port, 1_000_000) as stream:
            await stream.send(b"\xff" * 1000)
            await until(lambda: running.state.uploads.held == 1)
            answer = await running.client.post("/v1/analyze", files={"file": portrait})
            check(answer, 503, "busy")
            check(await running.client.get("/readyz"), 503, "busy")
        await until(lambda: running.state.uploads.held == 0)
        assert (await running.client.get("/readyz")).status_code == 200


async def test_one_client_holds_a_quarter_of_the_places(serve: Serve, portrait: bytes) -> None:
    """Where others are expected, a client that sends slowly does not keep them out."""
    async with serve(uploads=8, trusted_proxies=("127.0.0.1",)) as running:

        async def post(client: str) -> httpx.Response:
            headers = {"X-Forwarded-For": client}
            files = {"file": portrait}
            return await running.client.post("/v1/analyze", files=files, headers=headers)

        slow = [
            await post_head(running.port, 1_000_000, f"X-Forwarded-For: {address}")
            for address in ("2001:db8::1", "2001:db8::2")
        ]
        await until(lambda: running.state.uploads.held == 2)
        refused = await post("2001:db8::3")
        assert "2 uploads" in check(refused, 429, "too_many_uploads")
        assert refused.headers["retry-after"] == "2"
        assert (await post("2001:db8:0:1::")).status_code == 200
        for stream in slow:
            await stream.aclose()
        await until(lambda: running.state.uploads.held == 0)
        assert (await post("2001:db8::3")).status_code == 200
        assert not running.state.uploads._by_client


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 64),
        ({"host": "0.0.0.0"}, 16),
        ({"host": "0.0.0.0", "uploads": 3}, 1),
        ({"host": "0.0.0.0", "uploads_per_client": 60}, 60),
        ({"uploads_per_client": 2}, 2),
    ],
)
def test_the_share_of_a_client_can_be_set(settings: dict[str, Any], share: int) -> None:
    """A product's backend is one client: its operator may give it more than a quarter."""
    assert Settings(**settings).served_uploads_per_client == share


async def test_a_client_gets_the_share_that_is_set(serve: Serve, portrait: bytes) -> None:
    async with serve(uploads=2, uploads_per_client=1, rate_limit_per_minute=1) as running:
        async with await post_head(running.port, 1_000_000):
            await until(lambda: running.state.uploads.held == 1)
            answer = await running.client.post("/v1/analyze", files={"file": portrait})
            assert "1 upload under way" in check(answer, 429, "too_many_uploads")
            # Others still find room.
            assert (await running.client.get("/readyz")).status_code == 200
        await until(lambda: running.state.uploads.held == 0)


async def test_the_memory_for_bodies_is_bounded(serve: Serve, portrait: bytes) -> None:
    """Bytes are counted as they arrive, declared or not, and given back afterwards."""
    limits = {"max_bytes": 200_000, "max_batch_bytes": 200_000, "upload_memory_bytes": 270_000}
    async with serve(**limits) as running:
        uploads = running.state.uploads
        async with await post_head(running.port, None) as stream:
            await stream.send(b"2dc6c\r\n" + b"\xff" * 0x2DC6C + b"\r\n")  # 187,500 bytes
            await until(lambda: uploads.held_bytes == 0x2DC6C)
            declared = await running.client.post(
                "/v1/analyze", content=portrait, headers={"Content-Type": "image/jpeg"}
            )
            check(declared, 503, "busy")

            async def undeclared() -> AsyncIterator[bytes]:
                yield portrait

            counted = await running.client.post(
                "/v1/analyze", content=undeclared(), headers={"Content-Type": "image/jpeg"}
            )
            check(counted, 503, "busy")
            assert uploads.held_bytes == 0x2DC6C
            assert "memory" in check(await running.client.get("/readyz"), 503, "busy")
        await until(lambda: uploads.held_bytes == 0)
        answer = await running.client.post("/v1/analyze", files={"file": portrait})
        assert answer.status_code == 200
        assert uploads.held_bytes == 0
        assert (await running.client.get("/readyz")).status_code == 200


PHOTO_BYTES = 4_000_000


def sent(parts: int, multipart: bool) -> Request:
    """A request that brings photos of ``PHOTO_BYTES`` in pieces that nobody else keeps."""

    def pieces() -> Iterator[bytes]:
        for _ in range(parts):
            if multipart:
                yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for begin in range(0, PHOTO_BYTES, READ_BYTES):
                yield bytes(min(READ_BYTES, PHOTO_BYTES - begin))
            yield b"\r\n" if multipart else b""
        yield b"--x--\r\n" if multipart else b""

    body = pieces()

    async def receive() -> Message:
        piece = next(body, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    kind = b"multipart/form-data; boundary=x" if multipart else b"image/jpeg"
    headers = [(b"content-type", kind)]
    return Request({"type": "http", "headers": headers, "client": ("a", 1)}, receive)


@pytest.mark.parametrize(
    ("parts", "multipart"), [(1, False), (1, True), (3, True)], ids=["raw", "file", "batch"]
)
async def test_a_body_is_held_once(parts: int, multipart: bool) -> None:
    """Also in the moment in which it is complete: what is counted is what it takes."""
    uploads = Uploads(Settings())
    request = sent(parts, multipart)
    async with uploads.place(request) as place:
        tracemalloc.start()
        try:
            if parts > 1:
                photos = await uploads.several(request, place)
            else:
                photos = [await uploads.one(request, place)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert list(map(len, photos)) == [PHOTO_BYTES] * parts
        assert peak < 1.3 * place.held_bytes


@pytest.mark.parametrize(
    ("parts", "multipart"), [(1, False), (1, True), (3, True)], ids=["raw", "file", "batch"]
)
async def test_a_body_that_is_refused_is_freed_at_once(parts: int, multipart: bool) -> None:
    """And not when the garbage collector comes by, as its bytes are no longer counted."""
    settings = Settings(max_bytes=PHOTO_BYTES - 1, max_batch_bytes=3 * PHOTO_BYTES - 1)
    uploads = Uploads(settings)
    gc.disable()
    tracemalloc.start()
    try:
        request = sent(parts, multipart)
        with pytest.raises(ProblemError) as caught:
            async with uploads.place(request) as place:
                await (uploads.several if parts > 1 else uploads.one)(request, place)
        status = caught.value.status
        del caught
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert status == 413
    assert left < 0.1 * PHOTO_BYTES < peak


@pytest.mark.parametrize("drips", [False, True])
async def test_a_body_that_stalls_is_given_up(drips: bool, serve: Serve) -> None:
    """So is a body that drips in byte by byte; the status is one that browsers do not retry."""
    async with serve(upload_timeout_seconds=0.2) as running:
        async with await post_head(running.port, 1_000_000) as stream:
            await stream.send(b"\xff" * 1000)

            async def drip() -> None:
                while drips:
                    await stream.send(b"\xff")
                    await anyio.sleep(0.02)

            async with anyio.create_task_group() as group:
                group.start_soon(drip)
                with anyio.fail_after(10):
                    status, headers, body = await read_answer(stream)
                group.cancel_scope.cancel()
        assert (status, body["code"]) == (400, "upload_timeout")
        assert headers["connection"] == "close"
        await until(lambda: running.state.uploads.held == 0)


def loop_clock(patch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Call the result to let seconds pass for the event loop, at once."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0

    def advance(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    patch.setattr(loop, "time", lambda: real() + ahead)
    return advance


async def test_a_body_that_keeps_coming_may_take_long(
    serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times as long as a single pause, and no slower than the slowest rate."""
    advance = loop_clock(monkeypatch)
    size = len(portrait) // 12 + 1
    assert size > 40 * 200
    async with (
        serve(upload_timeout_seconds=60, upload_bytes_per_second=200) as running,
        await post_head(running.port, len(portrait)) as stream,
    ):
        uploads = running.state.uploads
        await until(lambda: uploads.held == 1)
        for end in range(size, len(portrait), size):
            advance(40)
            await stream.send(portrait[end - size : end])
            await until(lambda: uploads.held_bytes == end)  # noqa: B023 -- waits within the loop
        advance(40)
        await stream.send(portrait[end:])
        status, _, _ = await read_answer(stream)
    assert status == 200


@pytest.mark.parametrize(
    ("rate", "pauses"),
    [(500, (40, 40)), (100, (0, 61))],
    ids=["slower than the slowest rate", "fast, and then not at all"],
)
async def test_a_body_that_lags_behind_for_too_long_is_given_up(
    rate: int, pauses: tuple[int, int], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no pause was too long; having been fast does not allow a longer one, either."""
    advance = loop_clock(monkeypatch)
    async with (
        serve(upload_timeout_seconds=60, upload_bytes_per_second=rate) as running,
        await post_head(running.port, 100_000) as stream,
    ):
        uploads = running.state.uploads
        await until(lambda: uploads.held == 1)
        advance(pauses[0])
        await stream.send(bytes(8_000))  # 16 or 80 seconds at that rate
        await until(lambda: uploads.held_bytes == 8_000)
        advance(pauses[1])
        with anyio.fail_after(10):
            status, _, body = await read_answer(stream)
    assert (status, body["code"]) == (400, "upload_timeout")
    assert f"{rate / 1000:g} kB per second" in body["detail"]


async def test_a_body_that_goes_on_just_as_it_is_given_up_is_not_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a photo, whose next piece comes in the same turn of the loop as its deadline."""
    advance = loop_clock(monkeypatch)
    uploads = Uploads(Settings())

    async def receive() -> Message:
        if not place.held_bytes:
            advance(61)
            with anyio.CancelScope(shield=True):
                await until(lambda: place._waiting.cancel_called)
            return {"type": "http.request", "body": bytes(1_000_000), "more_body": True}
        await anyio.sleep_forever()
        raise AssertionError

    headers = [(b"content-type", b"image/jpeg")]
    request = Request({"type": "http", "headers": headers, "client": ("a", 1)}, receive)
    with pytest.raises(ProblemError) as caught:
        async with uploads.place(request) as place:
            await uploads.one(request, place)
    assert caught.value.code == "upload_timeout"


async def test_a_head_that_never_comes_is_given_up(
    serve: Serve, portrait: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No head, half a head, or half of the second one; this does not cut off a body."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serve() as running:
        running.server.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
        for sent, answers in ((b"", 0), (request[:30], 0), (request + request[:30], 1)):
            async with await anyio.connect_tcp("127.0.0.1", running.port) as stream:
                if sent:
                    await stream.send(sent)
                with anyio.fail_after(10):
                    data = b"".join([chunk async for chunk in stream])
            assert data.count(b"200 OK") == answers
        advance = loop_clock(monkeypatch)
        async with await post_head(running.port, len(portrait)) as stream:
            await until(lambda: running.state.uploads.held == 1)
            advance(10)
            await stream.send(portrait)
            status, _, _ = await read_answer(stream)
        assert status == 200


def small_window(port: int) -> socket.socket:
    """A connection whose client accepts few bytes before it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


@pytest.mark.parametrize("kept_alive", [True, False])
async def test_a_client_that_never_reads_is_given_up(
    kept_alive: bool, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both while answers are queued, and while only the last bytes of one remain before closing."""
    monkeypatch.setattr("facewise.server.run.UNREAD_SECONDS", 0.2)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n"
    ask += b"\r\n" if kept_alive else b"Connection: close\r\n\r\n"
    async with serve() as running:
        connections = running.server.server_state.connections
        for size in (0, 4096):  # the server's send buffer; 0: the system default
            with small_window(running.port) as client:
                await until(lambda: len(connections) == 1)
                [connection] = connections
                sock = connection.transport.get_extra_info("socket")
                if size:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                client.send(ask * (500 if kept_alive and not size else 1))
                await until(lambda: not connections, seconds=10)
        assert (await running.client.get("/healthz")).status_code == 200


async def test_a_client_that_reads_slowly_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The download takes several times as long as a client may go without reading."""
    monkeypatch.setattr("facewise.server.run.UNREAD_SECONDS", 0.3)
    size = 20_000_000
    app = FastAPI()
    app.add_route("/", lambda _: Response(bytes(size)))
    server = uvicorn.Server(server_config(app, Settings()))
    listener = socket.create_server(("127.0.0.1", 0))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        await until(lambda: server.started)
        with small_window(listener.getsockname()[1]) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            read = 0
            began = anyio.current_time()
            while True:
                await anyio.wait_readable(client)
                if not (chunk := client.recv(65_536)):
                    break
                read += len(chunk)
                # Paced so that the download takes a second and a half.
                await anyio.sleep(max(0, began + 1.5 * read / size - anyio.current_time()))
        server.should_exit = True
    assert read > size


async def test_a_client_cannot_fill_the_log_with_upgrades(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as running:
        for protocol in ("websocket", "h2c"):
            headers = {"Connection": "Upgrade", "Upgrade": protocol}
            assert (await running.client.get("/healthz", headers=headers)).status_code == 200
    assert [line for line in caplog.records if line.levelname == "WARNING"] == []


async def test_graceful_shutdown_finishes_what_runs(serve: Serve, portrait: bytes) -> None:
    answers: list[httpx.Response] = []
    async with serve() as running:
        let_go = await hold_all_threads(running)

        async def post() -> None:
            answers.append(await running.client.post("/v1/analyze", files={"file": portrait}))

        async with anyio.create_task_group() as group:
            group.start_soon(post)
            await until(lambda: running.state.inference.waiting == 1)
            running.server.should_exit = True
            await until(lambda: not any(s.is_serving() for s in running.server.servers))
            with pytest.raises(OSError, match=r"."):
                await anyio.connect_tcp("127.0.0.1", running.port)
            let_go()
    assert [answer.status_code for answer in answers] == [200]


@pytest.mark.parametrize("doing", ["uploading", "waiting", "running"])
async def test_what_a_shutdown_cuts_off_is_told_so(
    doing: str,
    serve: Serve,
    portrait: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line in the log, and no traceback, since nothing is wrong."""
    site = "https://a.example"
    async with serve(shutdown_timeout_seconds=0, cors_origins=(site,)) as running:
        inference = running.state.inference
        let_go = await hold_all_threads(running) if doing == "waiting" else None
        begun = hold_detection(monkeypatch)
        async with await post_head(running.port, len(portrait), f"Origin: {site}") as stream:
            await stream.send(portrait[:-1] if doing == "uploading" else portrait)
            held = {
                "uploading": lambda: running.state.uploads.held_bytes == len(portrait) - 1,
                "waiting": lambda: inference.waiting == 1,
                "running": lambda: len(begun) == 1,
            }
            await until(held[doing])
            running.server.should_exit = True
            with anyio.fail_after(10):
                status, headers, body = await read_answer(stream)
        assert (status, body["code"]) == (503, "busy")
        assert body["detail"].startswith("The server is busy: it shuts down.")
        assert headers["access-control-allow-origin"] == site, "or its page cannot read it"
        if let_go:
            let_go()
        await until(lambda: inference.running == inference.waiting == 0)
        await until(lambda: not running.server.server_state.tasks)
    assert [line for line in caplog.records if line.exc_info] == []
    given_up = [line for line in caplog.messages if "given up: the server shuts down" in line]
    assert len(given_up) == 1


async def test_the_process_ends_after_it_told_so(
    start_server: Callable[..., Any], portrait: bytes
) -> None:
    """uvicorn raises the signal again before the requests it cut off have finished."""
    running = start_server(shutdown_timeout_seconds=0)
    photo = crowd(portrait, 20, 10)
    port = int(running.url.rstrip("/").rpartition(":")[2])
    async with (
        httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
        await post_head(port, len(photo)) as stream,
    ):
        await stream.send(photo)
        with anyio.fail_after(30):
            while "facewise_running 1.0" not in (await client.get("metrics")).text:
                pass
        running.process.terminate()
        status, _, body = await read_answer(stream)
    assert (status, body["code"]) == (503, "busy")
    assert running.process.wait(30) == -signal.SIGTERM


async def test_the_key(serve: Serve, portrait: bytes) -> None:
    async with serve(api_key="correct horse") as running:
        get, post = running.client.get, running.client.post
        refused = await post("/v1/analyze", files={"file": portrait})
        check(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for headers in (
            {"Authorization": "Bearer wrong horse"},
            {"Authorization": "Basic correct horse"},
            {"Authorization": "Bearer"},
            {"X-API-Key": "correct hors"},
        ):
            check(await get("/v1/models", headers=headers), 401, "unauthorized")
        raw = await get("/v1/models", headers=[(b"x-api-key", b"\xff\xfe")])
        check(raw, 401, "unauthorized")
        for headers in ({"Authorization": "bearer correct horse"}, {"X-API-Key": "correct horse"}):
            assert (await get("/v1/models", headers=headers)).status_code == 200
        check(await get("/metrics"), 401, "unauthorized")
        for path in ("/healthz", "/readyz", "/", "/docs", "/v1/models/default/card"):
            assert (await get(path)).status_code == 200
        contract = (await get("/openapi.json")).json()
    either = contract["paths"]["/v1/analyze"]["post"]["security"]
    assert either == [{"key": []}, {"header": []}]
    schemes = contract["components"]["securitySchemes"]
    assert {name for way in either for name in way} == set(schemes)
    assert schemes["header"] == {"type": "apiKey", "in": "header", "name": "X-API-Key"}


async def test_a_key_may_hold_any_letters(serve: Serve) -> None:
    """The last letter's UTF-8 bytes end in one that is a space in Latin-1."""
    async with serve(api_key="schlüssel à") as running:
        for key, status in (("schlüssel à", 200), ("schlussel a", 401)):
            for name, value in ((b"X-API-Key", key), (b"Authorization", f"Bearer {key}")):
                answer = await running.client.get("/v1/models", headers=[(name, value.encode())])
                assert answer.status_code == status


async def test_either_of_two_keys_opens(serve: Serve) -> None:
    """So a key can be changed without an hour in which some clients are refused."""
    async with serve(api_key="old horse, new horse\n") as running:
        for key, status in (
            ("old horse", 200),
            ("new horse", 200),
            ("old horse,new horse", 401),
            ("old horse, new horse", 401),
            ("", 401),
        ):
            answer = await running.client.get("/v1/models", headers={"X-API-Key": key})
            assert answer.status_code == status


@pytest.mark.parametrize("kept", ["correct horse\n", " correct horse", "correct horse\r\n\t"])
async def test_white_space_around_the_key_is_none_of_it(kept: str, serve: Serve) -> None:
    """A key file's last line may end in some, but no header could carry it."""
    async with serve(api_key=kept) as running:
        for headers in ({"Authorization": "Bearer correct horse"}, {"X-API-Key": "correct horse"}):
            answer = await running.client.get("/v1/models", headers=headers)
            assert answer.status_code == 200


def _request(client: str) -> Request:
    return Request({"type": "http", "headers": [], "client": (client, 1)})


def test_the_rate_limit_refills() -> None:
    now = 0.0
    access = Access(Settings(rate_limit_per_minute=6), clock=lambda: now)
    for _ in range(6):
        access.check_rate(_request("a"))
    with pytest.raises(ProblemError) as caught:
        access.check_rate(_request("a"))
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "10"})
    access.check_rate(_request("b"))
    now = 10.0
    access.check_rate(_request("a"))
    with pytest.raises(ProblemError):
        access.check_rate(_request("a"))
    access.charge(_request("b"), 31)
    now = 60.0
    with pytest.raises(ProblemError):
        access.check_rate(_request("b"))


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("9.9.9.9", "9.9.9.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::ffff", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:9.9.9.9", "9.9.9.9"),
        ("testclient", "testclient"),
    ],
)
def test_a_network_of_ipv6_is_one_client(address: str, client: str) -> None:
    """A customer has 2 ** 64 addresses: a limit per address would be no limit."""
    assert client_of(_request(address)) == client


def test_the_rate_limit_is_that_of_the_network() -> None:
    for charge in (Access.check_rate, partial(Access.charge, photos=1)):
        access = Access(Settings(rate_limit_per_minute=1), clock=lambda: 0.0)
        charge(access, _request("2001:db8::1"))
        with pytest.raises(ProblemError):
            access.check_rate(_request("2001:db8::2"))
        access.check_rate(_request("2001:db8:0:1::1"))


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1, "1 photo per minute: try again in 60 s"),
        (60, "60 photos per minute: try again in 1 second."),
    ],
)
def test_the_refusal_counts_one_as_one(rate: int, words: str) -> None:
    access = Access(Settings(rate_limit_per_minute=rate), clock=lambda: 0.0)
    access.charge(_request("a"), rate)
    with pytest.raises(ProblemError) as caught:
        access.check_rate(_request("a"))
    assert words in caught.value.detail


def test_the_rate_limit_forgets_old_clients() -> None:
    """Whom it has not heard of for longest: the memory for clients is bounded."""
    access = Access(Settings(rate_limit_per_minute=1), clock=lambda: 0.0)
    for index in range(REMEMBERED_CLIENTS):
        access.check_rate(_request(str(index)))
    access.charge(_request("0"), 1)
    access.check_rate(_request("new"))
    for remembered in ("0", "2", "new"):
        with pytest.raises(ProblemError):
            access.check_rate(_request(remembered))
    access.check_rate(_request("1"))


async def test_the_rate_limit_over_http(serve: Serve, portrait: bytes) -> None:
    async with serve(rate_limit_per_minute=2) as running:
        for status in (200, 200, 429):
            answer = await running.client.post("/v1/analyze", files={"file": portrait})
            assert answer.status_code == status
        # The page's live view keeps to this limit.
        limits = (await running.client.get("/v1/models")).json()["limits"]
        assert limits["photos_per_minute"] == 2
    async with serve() as running:
        limits = (await running.client.get("/v1/models")).json()["limits"]
        assert limits["photos_per_minute"] is None
    check(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_who_finds_no_place_has_not_used_up_a_photo(serve: Serve, portrait: bytes) -> None:
    """Neither for lack of a place nor of memory: the one photo per minute remains available."""
    limits = {"max_bytes": 200_000, "max_batch_bytes": 200_000, "upload_memory_bytes": 270_000}
    raw = {"Content-Type": "image/jpeg"}

    async def undeclared() -> AsyncIterator[bytes]:
        yield portrait

    for uploads, word in ((1, "as many uploads"), (8, "memory")):
        proxied = {"uploads": uploads, "trusted_proxies": ("127.0.0.1",)}
        async with serve(rate_limit_per_minute=1, **limits, **proxied) as running:
            async with await post_head(running.port, None, "X-Forwarded-For: 9.9.9.9") as other:
                await other.send(b"2dc6c\r\n" + b"\xff" * 0x2DC6C + b"\r\n")  # 187,500 bytes
                await until(lambda: running.state.uploads.held_bytes == 0x2DC6C)
                for content in (portrait, undeclared()):
                    refused = await running.client.post("/v1/analyze", content=content, headers=raw)
                    assert word in check(refused, 503, "busy")
            await until(lambda: running.state.uploads.held == 0)
            for status in (200, 429):
                answer = await running.client.post("/v1/analyze", content=portrait, headers=raw)
                assert answer.status_code == status


async def test_whose_queue_fills_meanwhile_has_not_used_up_a_photo(
    serve: Serve, portrait: bytes
) -> None:
    """All photos of a batch, counted once it was read, are given back."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + portrait
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serve(queue=0, rate_limit_per_minute=1) as running:

        async def body() -> AsyncIterator[bytes]:
            yield part + b"\r\n" + part
            await until(lambda: running.state.uploads.held_bytes > 0)
            held.append(await hold_all_threads(running))
            yield b"\r\n--x--\r\n"

        held: list[Callable[[], None]] = []
        answer = await running.client.post("/v1/analyze/batch", content=body(), headers=headers)
        assert "queue" in check(answer, 503, "busy")
        held.pop()()
        for status in (200, 429):
            answer = await running.client.post("/v1/analyze", files={"file": portrait})
            assert answer.status_code == status


async def test_the_rate_limit_behind_a_proxy(serve: Serve, portrait: bytes) -> None:
    """The client is the address that the proxy appended, not what the client wrote before it."""
    async with serve(rate_limit_per_minute=1, trusted_proxies=("127.0.0.0/8",)) as running:
        seen = []
        for forwarded in ("9.9.9.9", "1.1.1.1, 9.9.9.9", "9.9.9.8"):
            answer = await running.client.post(
                "/v1/analyze", files={"file": portrait}, headers={"X-Forwarded-For": forwarded}
            )
            seen.append(answer.status_code)
    assert seen == [200, 429, 200]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no socket for IPv4 and IPv6 here")
@pytest.mark.parametrize("proxy", ["127.0.0.1", "127.0.0.0/8", "*"])
async def test_a_proxy_of_ipv4_is_trusted_on_a_socket_for_both(proxy: str, serve: Serve) -> None:
    """Where the system calls it ::ffff:127.0.0.1."""
    seen = []
    here = "::ffff:127.0.0.1", 0
    listener = socket.create_server(here, family=socket.AF_INET6, dualstack_ipv6=True)
    proxied = {"rate_limit_per_minute": 1, "trusted_proxies": (proxy,)}
    async with serve(listener=listener, **proxied) as running:
        for client in ("9.9.9.9", "9.9.9.9", "9.9.9.8"):
            headers = {"X-Forwarded-For": client, "Content-Type": "image/jpeg"}
            answer = await running.client.post("/v1/analyze", content=b"no", headers=headers)
            seen.append(answer.status_code)
    assert seen == [415, 429, 415]
