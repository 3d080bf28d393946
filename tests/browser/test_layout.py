"""What a person sees of the page: nothing is covered, jumps, bursts or stays unsaid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from facewise.models import load_spec

from .conftest import Open

pytestmark = pytest.mark.browser

EXAMPLES = Path(__file__).parents[2] / "src/facewise/server/page/static/examples"


def show_live(page: Any, *boxes: list[int], size: tuple[int, int] = (640, 480)) -> None:
    """Open the live view of a camera with faces in these places."""
    shares = {"male": 0.1, "female": 0.9}
    gender = {"label": "female", "probabilities": shares, "label_set": ["female"]}
    age = {"years": 30, "interval_years": [21, 43]}
    faces = [{"bbox": box, "age": age, "gender": gender, "abstained": {}} for box in boxes]
    body = {"faces": faces, "width_px": size[0], "height_px": size[1]}
    page.route("**/v1/analyze*", lambda route: route.fulfill(json=body))
    page.click("#camera-open")
    page.get_by_role("button", name="Guess live").click()


@pytest.mark.parametrize(
    ("top", "bottom", "place"), [(200, 300, "above"), (20, 100, "below"), (10, 470, "inside")]
)
def test_live_words_leave_the_face_if_there_is_room(
    open_page: Open, top: int, bottom: int, place: str
) -> None:
    page = open_page(viewport={"width": 390, "height": 844})
    show_live(page, [280, top, 360, bottom])
    page.wait_for_selector(".live-box")
    # At one moment: each frame draws them anew.
    view, box, words = page.evaluate(
        """() => ["#viewport", ".live-box", ".live-box span"].map((name) => {
            const {top, bottom} = document.querySelector(name).getBoundingClientRect();
            return {top, bottom};
        })"""
    )
    is_where = {
        "above": words["bottom"] <= box["top"] + 2,
        "below": words["top"] >= box["bottom"] - 2,
        "inside": words["top"] >= box["top"] and words["bottom"] <= box["bottom"],
    }
    assert is_where[place]
    assert view["top"] <= words["top"] < words["bottom"] <= view["bottom"]


def test_an_empty_live_view_says_so(open_page: Open) -> None:
    """To everyone; with faces, screen readers get each answer once."""
    page = open_page(viewport={"width": 390, "height": 844})
    show_live(page)
    expect(page.locator("#live-rate")).to_have_text(
        re.compile(r"^No face in view · [\d.]+ frames a second$")
    )
    page.click("#camera-close")
    show_live(page, [280, 200, 360, 300])
    page.wait_for_selector(".live-box")
    expect(page.locator("#live-rate")).to_have_text(re.compile(r"^[\d.]+ frames a second$"))
    heard = page.locator("#camera").aria_snapshot()
    assert heard.count("21-43 years, female") == 1


def test_the_viewport_has_the_cameras_shape(open_page: Open) -> None:
    """Also when a phone is turned while the camera is open."""
    page = open_page(viewport={"width": 390, "height": 844})
    page.evaluate(
        """() => {
            window.scene = document.createElement("canvas");
            const pen = scene.getContext("2d");
            const turn = (width, height) => {
                Object.assign(scene, {width, height});
                pen.fillRect(0, 0, width, height);
            };
            window.turn = turn;
            turn(480, 640);
            setInterval(() => pen.fillRect(0, 0, scene.width, scene.height), 30);
            navigator.mediaDevices.getUserMedia = async () => scene.captureStream(30);
        }"""
    )
    page.click("#camera-open")
    shape = """(wanted) => {
        const {width, height} = document.querySelector("#viewport").getBoundingClientRect();
        return Math.abs(width / height - wanted) < 0.02;
    }"""
    page.wait_for_function(shape, arg=3 / 4)
    page.evaluate("turn(640, 360)")
    page.wait_for_function(shape, arg=16 / 9)
    shot = page.locator("#shoot").bounding_box()
    assert shot["y"] + shot["height"] <= 844


def test_the_box_for_this_device_moves_nothing_in_the_bar(
    open_page: Open, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    spec = load_spec("facewise-default")
    model = {"name": spec.name, "version": spec.version}
    (tmp_path / "device.json").write_text(json.dumps({"model": model}))
    page = open_page(start_server(device_folder=tmp_path).url)
    page.click("[data-example='portrait.jpg']")
    page.wait_for_selector(".card")
    row, title, icon = (
        page.locator(name).bounding_box()
        for name in ("#on-device-row", ".drop-title", ".drop-icon")
    )
    assert row["y"] >= title["y"] + title["height"]
    assert title["x"] - icon["x"] - icon["width"] < 20
    # On a narrow phone its words stand beside the box.
    page.set_viewport_size({"width": 320, "height": 640})
    label, tick = (page.locator(name).bounding_box() for name in ("#on-device-row", "#on-device"))
    assert abs(tick["y"] - label["y"]) < 10
    assert page.locator("#on-device-row label").evaluate(
        """label => {
            const words = document.createRange();
            words.selectNodeContents(label.lastChild);
            return words.getClientRects()[0].top < label.firstChild.getBoundingClientRect().bottom;
        }"""
    )


def test_a_folded_card_shows_that_it_opens(open_page: Open) -> None:
    page = open_page()
    page.click("[data-example='six-ways.jpg']")
    page.wait_for_selector("#face-6")
    mark = """node => {
        const {content, display} = getComputedStyle(node, "::before");
        return display === "none" ? "none" : content;
    }"""
    closed = page.locator("#face-1 h3").evaluate(mark)
    page.locator("#face-1 summary").first.click()
    opened = page.locator("#face-1 h3").evaluate(mark)
    assert len({closed, opened, "none"}) == 3
    # For the eye alone: the element says it itself.
    expect(page.locator("#face-1 summary").first).to_have_accessible_name(
        re.compile(r"^Face 1, cut from the photo Apparent age ")
    )
    page.emulate_media(media="print")
    assert page.locator("#face-1 h3").evaluate(mark) == "none"


def test_results_stay_in_place_while_photos_are_analysed(open_page: Open) -> None:
    """Eight take the width at which the longer words of the buttons would not fit beside them."""
    page = open_page(viewport={"width": 1280, "height": 800})
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        held.append(route)

    page.click("[data-example='portrait.jpg']")
    page.wait_for_selector(".card")
    page.route("**/v1/analyze*", hold)
    page.set_input_files("#files", [EXAMPLES / "cat.jpg"] * 7)
    page.locator("#save-json", has_text="JSON (1 of 8)").wait_for()
    page.locator("#strip button").first.click()
    names = ("#frame", ".card", "#save-json")
    before = [page.locator(name).bounding_box() for name in names]
    held[0].continue_()
    expect(page.locator("#save-json")).to_have_text("JSON")
    after = [page.locator(name).bounding_box() for name in names]
    assert [(box["x"], box["y"]) for box in after] == [(box["x"], box["y"]) for box in before]


def test_the_focus_is_seen_on_the_current_thumbnail(open_page: Open) -> None:
    """Delete would remove that photo."""
    page = open_page()
    page.set_input_files("#files", [EXAMPLES / "cat.jpg"] * 2)
    expect(page.locator("#strip .mark")).to_have_text(["0", "0"])
    look = "() => getComputedStyle(document.querySelector('#strip [aria-current]')).outline"
    before = page.evaluate(look)
    while not page.evaluate("document.activeElement.matches('#strip [aria-current]')"):
        page.keyboard.press("Tab")
    assert page.evaluate(look) != before


@pytest.mark.parametrize(("width", "percent"), [(320, 100), (390, 200)])
def test_nothing_sticks_out_with_large_text(open_page: Open, width: int, percent: int) -> None:
    """WCAG 1.4.4: text of twice the size, as set in the browser or on the phone."""
    page = open_page(viewport={"width": width, "height": 844})
    page.evaluate("size => { document.documentElement.style.fontSize = size; }", f"{percent}%")
    out = """(at) => [...document.querySelectorAll(at)].filter((node) => {
        const outer = node.parentElement.getBoundingClientRect();
        return node.getBoundingClientRect().right > outer.right + 1;
    }).map((node) => node.outerHTML.slice(0, 80))"""
    if percent == 100:
        assert page.evaluate(out, ".examples *") == []
    page.click("[data-example='portrait.jpg']")
    page.wait_for_selector(".card")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(out, ".card *:not(svg *)") == []
    # The bar gives way only where there is no room for it beside its label.
    value, track = (
        page.locator(f".bars {name}").first.bounding_box() for name in (".value", ".track")
    )
    is_below = track["y"] >= value["y"] + value["height"]
    assert is_below is (percent == 200)
    page.set_input_files("#files", EXAMPLES / "six-ways.jpg")
    page.wait_for_selector("#face-6")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        """() => [...document.querySelectorAll(".folded")].every((card) => {
            const words = document.createRange();
            words.selectNodeContents(card.querySelector("h3"));
            const number = card.querySelector(".locate").getBoundingClientRect();
            return [...words.getClientRects()].every((line) => line.right <= number.left);
        })"""
    ), "words lie beside the number"
