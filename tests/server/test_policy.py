"""What is off is absent: from answers, schema, page and errors."""

from __future__ import annotations

import json

import httpx
import pytest

from facewise.labels import ETHNICITY_LABELS

from .conftest import Serve
from .test_problems import check

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("published", [False, True])
async def test_ethnicity_by_address(published: bool, serve: Serve, portrait: bytes) -> None:
    """A server whose settings bind it beyond loopback leaves ethnicity out everywhere."""
    async with serve(host="0.0.0.0" if published else "127.0.0.1") as running:  # settings only
        answer = (
            await running.client.post("/v1/analyze?vector=true", files={"file": portrait})
        ).json()
        batch = await running.client.post("/v1/analyze/batch", files={"files": portrait})
        contract = (await running.client.get("/openapi.json")).text
        about = (await running.client.get("/v1/models")).json()
        refused = await running.client.post(
            "/v1/analyze?attributes=ethnicity", files={"file": portrait}
        )
        page = (await running.client.get("/")).text
    about.pop("models")  # the model's own record says what it was trained for
    shown = " ".join((json.dumps(answer), batch.text, contract, json.dumps(about)))
    assert ("ethnicity" in shown.lower()) is not published
    assert any(f'"{label}"' in shown for label in ETHNICITY_LABELS) is not published
    assert (answer["faces"][0]["vector"][14:] == [None] * 5) is published
    assert refused.status_code == (422 if published else 200)
    if published:  # only the client's own word is quoted
        detail = check(refused, 422, "invalid_option")
        assert detail.startswith("attributes: this server leaves ethnicity out, and its operator")
        assert "FACEWISE_ATTRIBUTES; it has age, gender;" in detail
    assert "ethnicity" not in page, "the page learns what there is from the server"


async def test_the_start_says_which_and_why(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    async with serve(host="0.0.0.0"):
        pass
    assert "attributes: age, gender; ethnicity is off because 0.0.0.0" in caplog.text
    assert "FACEWISE_ATTRIBUTES=age,gender,ethnicity" in caplog.text


UNDECLARED = (
    {"Host": "faces.example.org"},
    {"Host": "127.0.0.1.example.org:8000"},
    {"Host": "192.168.1.5:8000"},
    {"X-Forwarded-For": "9.9.9.9"},
    {"X-Forwarded-Host": "faces.example.org"},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=9.9.9.9"},
    {"X-Real-IP": "9.9.9.9"},
    {"Via": "1.1 proxy"},
    {"CF-Connecting-IP": "9.9.9.9"},
    {"True-Client-IP": "9.9.9.9"},
    # A proxy that does not identify itself, and pages of other sites.
    {"Origin": "https://faces.example.org"},
    {"Origin": "http://127.0.0.1.example.org:8000"},
    {"Origin": "http://localhost@example.org"},
    {"Origin": "http://192.168.1.5:8000"},
    {"Origin": "null"},
    {"Origin": ""},
)


async def test_what_nobody_declared_is_refused(serve: Serve, portrait: bytes) -> None:
    """A tunnel to loopback, a name that leads there, another site's page: served once declared."""

    async def answers(**declared: object) -> list[httpx.Response]:
        async with serve(**declared) as running:
            photo = {"file": portrait}
            return [
                await running.client.post("/v1/analyze", files=photo, headers=headers)
                for headers in UNDECLARED
            ]

    for answer in await answers():
        detail = check(answer, 421, "misdirected")
        assert "FACEWISE_TRUSTED_PROXIES" in detail
        assert "FACEWISE_ATTRIBUTES" in detail
    for declared in ({"trusted_proxies": ("10.0.0.1",)}, {"attributes": ("age",)}):
        for answer in await answers(**declared):
            assert answer.status_code == 200, answer.request.headers
            assert "ethnicity" not in answer.text
    for answer in await answers(host="0.0.0.0"):
        assert answer.status_code == 200, answer.request.headers


@pytest.mark.parametrize("origin", ["https://faces.example.org", "null"])
@pytest.mark.parametrize("kind", [None, "application/octet-stream", "image/jpeg"])
async def test_bodies_of_other_sites_are_refused_whatever_their_type(
    kind: str | None, origin: str, serve: Serve, portrait: bytes
) -> None:
    """A page can send a Blob without a type, like a form, without a preflight request."""
    headers = {"Origin": origin} | ({"Content-Type": kind} if kind else {})
    async with serve() as running:
        answer = await running.client.post("/v1/analyze", content=portrait, headers=headers)
    check(answer, 421, "misdirected")


async def test_this_machine_has_several_names(serve: Serve) -> None:
    async with serve() as running:
        for name in ("localhost", "LOCALHOST:8000", "app.localhost:1", "127.8.9.1", "[::1]:8000"):
            answer = await running.client.get("/v1/models", headers={"Host": name})
            assert answer.status_code == 200, name


async def test_pages_of_this_machine_and_of_named_sites_are_answered(
    serve: Serve, portrait: bytes
) -> None:
    here = ("http://localhost:8000", "http://127.0.0.1", "https://[::1]:8000", "http://a.localhost")
    named = "https://app.example"
    for origins, let_in in (((), here), ((named,), (*here, named)), (("*",), (named, "null"))):
        async with serve(cors_origins=origins) as running:
            for origin in let_in:
                answer = await running.client.post(
                    "/v1/analyze", files={"file": portrait}, headers={"Origin": origin}
                )
                assert answer.status_code == 200, origin
    async with serve(cors_origins=(named,)) as running:
        away = {"Origin": f"{named}.org"}
        other = await running.client.post("/v1/analyze", files={"file": portrait}, headers=away)
        script = await running.client.get("/static/app.js", headers=away)
    check(other, 421, "misdirected")
    assert script.status_code == 200, "for the page shows what is said"
