"""schemathesis over the OpenAPI document: no 5xx, no undocumented answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


@pytest.fixture(scope="module")
def api_schema(start_server: Callable[..., Any]) -> Any:
    return schemathesis.openapi.from_url(start_server().url + "openapi.json")


contract = schemathesis.pytest.from_fixture("api_schema")


@contract.parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_documented(case: Any) -> None:
    case.call_and_validate(
        checks=(
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        )
    )
