"""Every error is a problem document that says what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest
from PIL import Image

from facewise.server.problems import TITLES

from .conftest import Serve, until
from .pictures import encoded

pytestmark = pytest.mark.anyio

FIELDS = {"type", "title", "status", "detail", "code", "request_id"}


def check(answer: httpx.Response, status: int, code: str) -> str:
    """Check the common shape of all errors, and return the detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == FIELDS
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"] == TITLES[code]
    assert body["type"].endswith(f"/docs#{code}")
    assert body["request_id"] == answer.headers["x-request-id"]
    assert len(body["detail"]) > 20
    return str(body["detail"])


def bad_pictures(portrait: bytes) -> dict[str, tuple[bytes, int, str]]:
    tiny = encoded(Image.new("RGB", (8, 8)), "PNG")
    wide = encoded(Image.new("L", (9000, 9000)), "PNG")
    return {
        "empty": (b"", 400, "image_empty"),
        "text": (b"hello, is there anybody?", 415, "not_an_image"),
        "html": (b"<html><script>alert(1)</script>", 415, "not_an_image"),
        "pdf": (b"%PDF-1.7 and so on", 415, "unsupported_format"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        "truncated": (portrait[:4000], 422, "image_corrupt"),
        "tiny": (tiny, 422, "image_too_small"),
        "bomb": (wide, 413, "image_too_large"),
    }


KINDS = ("empty", "text", "html", "pdf", "svg", "truncated", "tiny", "bomb")


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_pictures(kind: str, serve: Serve, portrait: bytes) -> None:
    data, status, code = bad_pictures(portrait)[kind]
    async with serve() as running:
        multipart = await running.client.post("/v1/analyze", files={"file": ("x.jpg", data)})
        raw = await running.client.post(
            "/v1/analyze", content=data, headers={"Content-Type": "image/jpeg"}
        )
    for answer in (multipart, raw):
        detail = check(answer, status, code)
        assert "max_pixels" not in detail, "advice that only a caller of the library can follow"
        assert "pass a" not in detail, "words for programmers"
        assert ("FACEWISE_MAX_PIXELS" in detail) == (kind == "bomb")
        assert detail[0].isupper() or detail[0].isdigit()
        assert detail.endswith(".")


async def test_bad_requests(serve: Serve, portrait: bytes) -> None:
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    file = {"file": ("x.jpg", portrait)}
    async with serve(max_batch_photos=3) as running:
        post = running.client.post
        url = "/v1/analyze"
        check(await post(url, json={"url": "http://x.example"}), 415, "unsupported_media_type")
        check(await post(url, data={"url": "/etc/passwd"}), 415, "unsupported_media_type")
        check(await post(url), 400, "missing_file")
        check(await post(url, content=b"--y", headers=multipart), 400, "invalid_request")
        no_boundary = {"Content-Type": "multipart/form-data"}
        check(await post(url, content=b"--y", headers=no_boundary), 400, "invalid_request")
        two = [("file", ("a", portrait)), ("file", ("b", portrait))]
        check(await post(url, files=two), 422, "too_many_photos")
        assert "batch" not in TITLES["too_many_photos"]
        check(await post(f"{url}/batch", files=two * 2), 422, "too_many_photos")
        check(await post(f"{url}/batch", files=two * 5), 422, "too_many_photos")
        check(await post(f"{url}?vector=maybe", files=file), 422, "invalid_option")
        check(await post(f"{url}?attributes=", files=file), 422, "invalid_option")
        check(await post(f"{url}?attributes=,+,", files=file), 422, "invalid_option")
        detail = check(await running.client.get(url), 405, "method_not_allowed")
        assert "POST" in detail
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "INVENTED"):
            answer = await running.client.request(method, url)
            check(answer, 405, "method_not_allowed")
            assert answer.headers["allow"] == "POST"
        answer = await running.client.post("/static/app.js")
        assert "GET" in check(answer, 405, "method_not_allowed")
        check(await running.client.get("/wp-admin"), 404, "not_found")
        for path in ("/static", "/static/", "/static/examples", "/static/examples/", "/docs/"):
            check(await running.client.get(path), 404, "not_found")
        for path in ("/v1/", "/v1/analyze//", "/v1/models/default/card/"):
            check(await running.client.get(path), 404, "not_found")
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py"):
            check(await running.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json", "video/mp4"]
)
async def test_bodies_of_another_type_are_told_how_to_be_sent(
    kind: str, serve: Serve, portrait: bytes
) -> None:
    """`curl --data-binary` sends a form's type by default."""
    async with serve() as running:
        for url, taken, advice in (
            (
                "/v1/analyze",
                "multipart/form-data, image/*, application/octet-stream",
                ("-F file=@photo.jpg", "-H 'Content-Type: image/jpeg'"),
            ),
            ("/v1/analyze/batch", "multipart/form-data", ("-F files=@one.jpg",)),
        ):
            answer = await running.client.post(
                url, content=portrait, headers={"Content-Type": kind}
            )
            detail = check(answer, 415, "unsupported_media_type")
            assert f"this one is {kind}." in detail
            assert ("but as the bytes of its file" in detail) is (kind == "application/json")
            assert all(words in detail for words in advice)
            assert answer.headers["accept"] == taken


@pytest.mark.parametrize("url", ["/v1/analyze", "/v1/analyze/batch"])
async def test_compressed_bodies_are_told_so(url: str, serve: Serve, portrait: bytes) -> None:
    """Instead of being no picture, or no form."""
    async with serve() as running:
        form = running.client.build_request("POST", url, files={"file": portrait})
        for kind, body in (
            ("image/jpeg", portrait),
            (form.headers["Content-Type"], form.read()),
        ):
            headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
            answer = await running.client.post(url, content=gzip.compress(body), headers=headers)
            assert "send it as it is" in check(answer, 415, "unsupported_media_type")
            assert answer.headers["accept-encoding"] == "identity"
        plain = {"Content-Encoding": "Identity"}
        answer = await running.client.post(url, files={"file": portrait}, headers=plain)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("names", "quoted"), [("gender,height", "'height'"), ("Age", "'Age'"), (",", "''")]
)
async def test_the_attribute_that_is_none_is_quoted(names: str, quoted: str, serve: Serve) -> None:
    async with serve() as running:
        answer = await running.client.post(
            "/v1/analyze", params={"attributes": names}, files={"file": b""}
        )
    detail = check(answer, 422, "invalid_option")
    assert detail.startswith(f"attributes: {quoted} is not one of age, gender, ethnicity;")


async def test_text_fields_named_file_are_no_picture(serve: Serve) -> None:
    """A server path or URL in the field is never opened."""
    path = str(Path(__file__).resolve())
    async with serve() as running:
        answer = await running.client.post(
            "/v1/analyze", data={"file": path}, files={"other": b"x"}
        )
    check(answer, 400, "missing_file")


@pytest.mark.parametrize("disposition", ['name="file"', "name=\"file\"; filename*=UTF-8''a.jpg"])
@pytest.mark.parametrize("size", [10, 10_000])
async def test_a_picture_without_a_filename(disposition: str, size: int, serve: Serve) -> None:
    """As .NET's content.Add(bytes, "file") sends it; at any size, the name is what is missing."""
    body = f"--x\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
    body += b"\xff" * size + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serve() as running:
        for url in ("/v1/analyze", "/v1/analyze/batch"):
            answer = await running.client.post(url, content=body, headers=headers)
            detail = check(answer, 400, "missing_file")
            assert "part file needs a filename" in detail
        assert running.state.uploads.held == 0


@pytest.mark.parametrize("end", ["", "\r\n--x", "\r\n--x-"])
@pytest.mark.parametrize("whole", [0, 1])
async def test_a_form_that_is_cut_off(whole: int, end: str, serve: Serve) -> None:
    """Its file is neither missing nor left out in silence, after others that are whole."""
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'
    body = f"{part}\r\n" * whole + part + end
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serve() as running:
        answer = await running.client.post("/v1/analyze/batch", content=body, headers=headers)
        assert "ends before its last boundary" in check(answer, 400, "invalid_request")
        assert running.state.uploads.held == 0


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("attribute=age", "attribute: unknown parameter"),
        ("attributes=age&Coverage=0.95", "Coverage: unknown parameter"),
        ("attributes=age&attributes=gender", "attributes: given 2 times"),
        ("vector=true&vector=true", "vector: given 2 times"),
        (f"{'x' * 300}=1", "xxx...: unknown parameter"),
    ],
)
async def test_parameters_that_would_be_passed_over(query: str, word: str, serve: Serve) -> None:
    """With a misspelt `attributes`, the answer would hold what the client meant to leave out."""
    picture = {"content": b"", "headers": {"Content-Type": "image/jpeg"}}
    async with serve() as running:
        for url in ("/v1/analyze", "/v1/analyze/batch"):
            answer = await running.client.post(f"{url}?{query}", **picture)  # type: ignore[arg-type]
            detail = check(answer, 422, "invalid_option")
            assert word in detail
            assert len(detail) < 200
        # The page's own address may carry any query that a link adds.
        assert (await running.client.get(f"/?{query}")).status_code == 200


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("attributes", "attributes: belongs in the address, as in ?attributes=..."),
        ("vector", "vector: belongs in the address"),
        ("photo", "photo: no such field; the picture's is named file"),
        ("x" * 300, "xxx...: no such field"),
    ],
)
async def test_fields_that_would_be_passed_over(
    field: str, words: str, serve: Serve, portrait: bytes
) -> None:
    """`curl -F attributes=age`, wherever it stands, would be answered with every attribute."""
    text, picture = (None, b"age"), ("a.jpg", portrait)
    async with serve() as running:
        for url in ("/v1/analyze", "/v1/analyze/batch"):
            for parts in (
                [(field, text), ("file", picture)],
                [("file", picture), (field, text)],
                [(field, picture)] * 2,
            ):
                answer = await running.client.post(url, files=parts)
                detail = check(answer, 422, "invalid_option")
                assert words in detail
                assert len(detail) < 120
        assert running.state.uploads.held == 0


async def test_a_crash_is_a_problem_and_its_log_quotes_nothing(
    serve: Serve, portrait: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Break the app from outside: without its registry the metrics route raises."""
    caplog.set_level("INFO", logger="facewise.server")
    site = "https://a.example"
    async with serve(cors_origins=(site,)) as running:
        object.__setattr__(running.state, "metrics", None)
        answer = await running.client.get("/metrics", headers={"Origin": site})
        detail = check(answer, 500, "internal_error")
        assert "request_id" in detail
    assert answer.headers["access-control-allow-origin"] == site, "or its page cannot read it"
    assert "AttributeError" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


async def test_the_log_holds_ids_and_nothing_of_the_photo(
    serve: Serve, portrait: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with serve() as running:
        caplog.clear()
        for data in (portrait, b"secret-content", portrait[:3000]):
            await running.client.post(
                "/v1/analyze?attributes=age",
                files={"file": ("secret-name.jpg", data)},
                headers={"X-Request-ID": "my-own-id-123"},
            )
        await running.client.get("/secret-path?secret-query")
        await running.client.get("/", headers={"X-Request-ID": "bad id\tsecret"})
    own = [r.getMessage() for r in caplog.records if r.name.startswith(("facewise", "uvicorn"))]
    assert sum("id=my-own-id-123 POST /v1/analyze" in line for line in own) == 3
    assert not [line for line in own if "secret" in line or "female" in line]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_the_log_names_the_routes_of_the_contract(
    path: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    async with serve() as running:
        assert (await running.client.get(path)).status_code == 200
        # The line is written when the client has the answer already.
        await until(lambda: any(f" GET {path} 200 " in line for line in caplog.messages))
