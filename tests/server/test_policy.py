"""What is off is absent: from answers, schema, page and errors."""

from __future__ import annotations

import json

import pytest

from facewise.labels import ETHNICITY_LABELS

from .conftest import Serve

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
    assert ("ethnicity" in refused.text) is not published
    assert "ethnicity" not in page, "the page learns what there is from the server"


async def test_the_start_says_which_and_why(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="facewise.server")
    async with serve(host="0.0.0.0"):
        pass
    assert "attributes: age, gender; ethnicity is off because 0.0.0.0" in caplog.text
    assert "FACEWISE_ATTRIBUTES=age,gender,ethnicity" in caplog.text
