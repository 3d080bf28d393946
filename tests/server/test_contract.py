"""schemathesis over the OpenAPI document: no 5xx, no undocumented answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import Serve

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
OPERATIONS = {
    "POST /v1/analyze": 422,
    "POST /v1/analyze/batch": 200,
    "GET /v1/models": 200,
    "GET /v1/models/{name}/card": 404,
    "GET /healthz": 200,
    "GET /readyz": 200,
    "GET /metrics": 200,
}
"""What most valid requests get whose pictures and names are made up."""


@pytest.fixture(scope="module")
def contract(start_server: Callable[..., Any], closed: Callable[[Any], Any]) -> dict[str, Any]:
    url = start_server().url
    published = httpx.get(url + "openapi.json").json()
    document = schemathesis.openapi.from_dict(closed(published))
    document.config.update(base_url=url)
    operations = (result.ok() for result in document.get_all_operations())
    return {operation.label: operation for operation in operations}


def test_all_operations_are_documented(contract: dict[str, Any]) -> None:
    assert set(contract) == set(OPERATIONS)


POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# Only the first two take input that can be invalid; for the others any string is a valid name.
CASES = [(label, POSITIVE, usual) for label, usual in OPERATIONS.items()] + [
    (label, NEGATIVE, 422) for label in list(OPERATIONS)[:2]
]


@pytest.mark.parametrize(("label", "mode", "usual"), CASES)
def test_answers_are_documented(
    label: str, mode: GenerationMode, usual: int, contract: dict[str, Any]
) -> None:
    operation = contract[label]
    statuses: Counter[int] = Counter()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case: Any) -> None:
        response = case.call()
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
    assert usual in statuses, "no request got as far as its operation"


def test_a_real_photo_conforms(contract: dict[str, Any], portrait: bytes) -> None:
    """Generated bodies are seldom pictures, so the full answer is validated here."""
    operation = contract["POST /v1/analyze"]
    for query in ({}, {"vector": True, "years": True}, {"attributes": "age"}):
        case = operation.Case(body=portrait, media_type="image/jpeg", query=query)
        response = case.call()
        assert response.status_code == 200
        assert response.json()["faces"]
        case.validate_response(response, checks=CHECKS)


def keys(value: Any) -> Any:
    """What does not depend on the photo in an answer: names, lengths, and which values are null."""
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items() if name != "label_set"}
    if isinstance(value, list):
        return [keys(inner) for inner in value]
    return value is None


@pytest.mark.anyio
@pytest.mark.parametrize("attributes", [("age", "gender", "ethnicity"), ("gender",)])
async def test_the_examples_are_whole(
    attributes: tuple[str, ...], serve: Serve, portrait: bytes
) -> None:
    """They contain everything that an answer has, and nothing else."""
    async with serve(attributes=attributes) as running:
        document = (await running.client.get("/openapi.json")).json()
        for path, field in (("/v1/analyze", "file"), ("/v1/analyze/batch", "files")):
            files = [(field, portrait)] + [(field, b"no picture")] * (field == "files")
            answer = await running.client.post(f"{path}?vector=true", files=files)
            said = document["paths"][path]["post"]["responses"]["200"]["content"]
            example = said["application/json"]["example"]
            schema = {**said["application/json"]["schema"], "components": document["components"]}
            jsonschema_rs.validate(schema, example)
            assert keys(example) == keys(answer.json())


@pytest.mark.anyio
async def test_answers_may_gain_fields(serve: Serve, portrait: bytes) -> None:
    async with serve() as running:
        document = (await running.client.get("/openapi.json")).json()
        answer = (await running.client.post("/v1/analyze", files={"file": portrait})).json()
    schema = document["paths"]["/v1/analyze"]["post"]["responses"]["200"]["content"]
    whole = {**schema["application/json"]["schema"], "components": document["components"]}
    answer["later"] = answer["faces"][0]["later"] = answer["faces"][0]["age"]["later"] = 1
    jsonschema_rs.validate(whole, answer)


@pytest.mark.anyio
async def test_bodies_and_headers_are_documented(serve: Serve) -> None:
    async with serve(max_batch_photos=2) as running:
        document = (await running.client.get("/openapi.json")).json()
    paths = document["paths"]
    one, several = (
        paths[path]["post"]["requestBody"]["content"]
        for path in ("/v1/analyze", "/v1/analyze/batch")
    )
    assert set(one) == {"multipart/form-data", "image/*", "application/octet-stream"}
    batch = jsonschema_rs.validator_for(several["multipart/form-data"]["schema"])
    assert batch.is_valid({"files": ["", ""]})
    assert not batch.is_valid({"files": ["", "", ""]})
    assert not batch.is_valid({"photo": [""]})
    assert not batch.is_valid({})
    for operations in paths.values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert "X-Request-ID" in answer["headers"]
                assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """All objects of a document, at any depth."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from inside(inner)


@pytest.mark.anyio
async def test_generators_of_clients_can_read_it(serve: Serve) -> None:
    """openapi-python-client leaves out operations with an enum of fractions, sends nothing for a
    body that is one object or another, and names its calls after the operation ids.
    """
    async with serve() as running:
        paths = (await running.client.get("/openapi.json")).json()["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert ids == [
        "analyze",
        "analyze_batch",
        "models",
        "model_card",
        "healthz",
        "readyz",
        "metrics",
    ]
    for path, field in (("/v1/analyze", "file"), ("/v1/analyze/batch", "files")):
        operation = paths[path]["post"]
        for schema in inside(operation["parameters"]):
            assert all(isinstance(value, str | int) for value in schema.get("enum", ()))
        [coverage] = [one for one in operation["parameters"] if one["name"] == "coverage"]
        assert "0.8, 0.9, 0.95" in coverage["description"]
        assert (coverage["schema"]["minimum"], coverage["schema"]["maximum"]) == (0.8, 0.95)
        assert not [schema for schema in inside(operation["requestBody"]) if "anyOf" in schema]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["required"] == [*form["properties"]] == [field]
        assert "needs a filename" in form["properties"][field]["description"]


@pytest.mark.anyio
async def test_the_size_of_a_batch_is_what_the_operator_set(serve: Serve) -> None:
    async with serve(max_batch_photos=8) as running:
        document = (await running.client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/analyze/batch"]["post"]
    said = operation["description"] + json.dumps(operation["requestBody"])
    assert "p to 8 pictures" in said
    assert "32" not in said


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ("age", ["age"]),
        ("age,gender", ["age", "gender"]),
        ("age, gender", ["age", "gender"]),
        (" gender ,age ", ["age", "gender"]),
        ("age,", ["age"]),
        (" ,,age, ,gender,, ", ["age", "gender"]),
        ("age gender", None),
        (" , ", None),
        ("", None),
    ],
)
async def test_lists_of_attributes_are_documented(
    names: str, taken: list[str] | None, serve: Serve, portrait: bytes
) -> None:
    """The pattern accepts what the server accepts; extra commas are ignored."""
    async with serve() as running:
        document = (await running.client.get("/openapi.json")).json()
        answer = await running.client.post(
            "/v1/analyze", params={"attributes": names}, files={"file": portrait}
        )
    parameters = document["paths"]["/v1/analyze"]["post"]["parameters"]
    [schema] = [one["schema"] for one in parameters if one["name"] == "attributes"]
    assert answer.json().get("attributes") == taken
    assert jsonschema_rs.is_valid(schema, names) == (taken is not None)
