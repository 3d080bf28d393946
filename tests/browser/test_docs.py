"""The API page: what it tells developers to send gets an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Open

pytestmark = pytest.mark.browser


@pytest.fixture
def page(new_page: Open) -> Any:
    return new_page()


def operations(page: Any, server: Any) -> dict[str, Any]:
    """Open the API page; return its sections by method and path."""
    page.goto(server.url + "docs")
    page.wait_for_selector(".operation")
    sections = page.locator(".operation").all()
    return {" ".join(one.locator("h3 > *").all_inner_texts()): one for one in sections}


@pytest.mark.parametrize("key", ["", "correct horse"])
def test_the_commands_have_a_key_where_one_is_needed(
    key: str, page: Any, start_server: Callable[..., Any]
) -> None:
    server = start_server(**({"api_key": key} if key else {}))
    commands = {
        name: section.locator("pre").first.inner_text()
        for name, section in operations(page, server).items()
    }
    with_key = {name for name, text in commands.items() if "'Authorization: Bearer " in text}
    needing = {"POST /v1/analyze", "POST /v1/analyze/batch", "GET /v1/models", "GET /metrics"}
    assert with_key == (needing if key else set())
    assert needing < set(commands)


def test_parameters_come_with_their_values(page: Any, server: Any) -> None:
    table = operations(page, server)["POST /v1/analyze"].locator("table").first
    rows = table.locator("tbody tr").all()
    values = {row.locator("code").inner_text(): row.locator("td").last.inner_text() for row in rows}
    assert values["vector"] == "true, false (default false)"
    assert values["coverage"] == "number, like 0.8, 0.9, 0.95 (default 0.9)"
    assert values["attributes"] == "age, gender, ethnicity, like age,gender"


def test_descriptions_are_paragraphs_with_code(page: Any, server: Any) -> None:
    found = operations(page, server)
    section = found["POST /v1/analyze"]
    first, second = section.locator("p").all()[:2]
    assert first.inner_text().endswith("with their apparent attributes.")
    codes = ["file", "image/*", "application/octet-stream"]
    assert second.locator("code").all_inner_texts() == codes
    assert "multipart field file, or as the body itself: of a type image/*" in second.inner_text()
    for name, section in found.items():
        assert "`" not in section.inner_text(), name
        for row in section.locator("table[aria-label^=Parameters] tbody tr").all():
            assert all(row.locator("td").all_inner_texts()), name


@pytest.mark.parametrize("path", ["docs", "v1/models/default/card"])
def test_names_of_rows_stay_in_view(path: str, page: Any, server: Any) -> None:
    """Where a wide table is scrolled, on a phone too; nothing shines through them."""
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(server.url + path)
    page.wait_for_selector("table")
    seen = page.evaluate(
        """() => [...document.querySelectorAll("table")]
            .filter((table) => table.scrollWidth > table.clientWidth + 8)
            .map((table) => {
                table.scrollIntoView();
                table.scrollLeft = 1e6;
                const cell = table.querySelector("tbody td"), at = cell.getBoundingClientRect();
                const top = document.elementFromPoint(at.x + 4, at.y + at.height / 2);
                const behind = cell.closest(".operation, body");
                return [
                    at.x - table.getBoundingClientRect().x,
                    top === cell || cell.contains(top),
                    getComputedStyle(cell).backgroundColor
                        === getComputedStyle(behind).backgroundColor,
                    at.width < table.clientWidth / 2,
                ];
            })"""
    )
    assert seen
    assert all(one == [0, True, True, True] for one in seen), seen


def test_names_of_rows_leave_room_for_the_numbers(page: Any, server: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(server.url + "v1/models/default/card")
    cells = page.locator("tbody td:first-child")
    wide = cells.evaluate_all("all => Math.max(...all.map((one) => one.offsetWidth))")
    assert wide < 896 / 4
    assert page.locator("main > p").first.bounding_box()["y"] < 300


def test_schemas_are_described_to_the_leaves(page: Any, server: Any) -> None:
    """The answer's schema describes the face itself, not just a reference to it."""
    contract = page.request.get(server.url + "openapi.json").json()
    components = contract["components"]["schemas"]
    for name in ("POST /v1/analyze", "POST /v1/analyze/batch", "GET /v1/models"):
        section = operations(page, server)[name]
        text = section.locator("details", has_text="Schema of the answer").text_content()
        assert "$ref" not in text
        if "analyze" in name:
            for part in ("Face", "Age", "Quality", "DecadesProbabilities"):
                assert all(f'"{field}": {{' in text for field in components[part]["properties"])
            years = components["Age"]["properties"]["years"]["description"]
            assert f'"description": {json.dumps(years)}' in text
