"""The page for the visitor's own device: on any host, offline, and with no request elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect

from facewise import Analyzer
from facewise.models import load_spec
from facewise.server.schemas import build as contract

from .conftest import Build, Open, shoot
from .parity import Differences, ask_page, ask_python, compare, encoded, page_model
from .static_host import ISOLATION, Host, serve

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PORTRAIT = ROOT / "tests/data/astronaut.jpg"
Visit = Callable[..., tuple[Any, Host]]


@pytest.fixture
def visit(new_page: Open, build: Build) -> Iterator[Visit]:
    """Open the page on a static host that is also the browser's proxy and sees all requests."""
    with ExitStack() as stack:

        def start(
            headers: dict[str, str] | None = None,
            folder: Path | None = None,
            ready: bool = True,
            held: str | None = None,
            tidy: bool = False,
        ) -> tuple[Any, Host]:
            host = stack.enter_context(serve(folder or build.page, "/some/where", headers))
            host.held, host.is_tidy = held, tidy
            proxy = {"server": host.origin, "bypass": "<-loopback>"}
            page = new_page(proxy=proxy)
            stack.callback(page.context.close)  # before its host goes
            page.goto(host.url)
            if ready:
                page.wait_for_selector("html[data-ready]")
            return page, host

        yield start


def drop_portrait(page: Any) -> str:
    page.set_input_files("#files", PORTRAIT)
    page.wait_for_selector(".card")
    text: str = page.inner_text(".card")
    return text


def test_any_host_serves_it_and_nothing_leaves_it(visit: Visit, analyzer: Analyzer) -> None:
    """Under a sub-path and without any header: one thread, and not one request elsewhere."""
    page, host = visit()
    text = drop_portrait(page)
    [expected] = analyzer.analyze(PORTRAIT)
    assert expected.age_years is not None
    assert f"Apparent age {round(expected.age_years)}" in text
    assert "Apparent gender" in text
    assert "thnicity" not in page.inner_text("body")
    assert "not sent anywhere" in page.inner_text("#notice")
    assert page.evaluate("crossOriginIsolated") is False
    assert _threads(page) == 1
    assert page.locator("#copy-curl").is_hidden()
    assert page.get_by_role("link", name="API").count() == 0
    with page.expect_download() as download:
        page.click("#save-json")
    [saved] = json.loads(Path(download.value.path()).read_text())
    assert saved["attributes"] == ["age", "gender"]
    assert "ethnicity" not in saved["faces"][0]
    # As the contract says, but for what only a server has.
    del saved["photo"], saved["photo_number"]
    saved["timings_ms"]["queue"] = 0
    contract(saved["attributes"]).analysis.model_validate({**saved, "request_id": "none"})
    page.click("#card-link")
    page.wait_for_selector("h1")
    assert host.foreign == []
    assert all(path.startswith("/some/where/") for path in host.requested)
    shoot(page, "device-card")


def test_the_policy_stops_what_would_leave(visit: Visit) -> None:
    """The page's own policy refuses the request; the recorder would have seen it otherwise."""
    page, host = visit()
    attempt = "(url) => fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    assert page.evaluate(attempt, "http://elsewhere.invalid/photo") == "refused"
    assert host.foreign == []
    page.evaluate("navigator.serviceWorker.ready")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    source = "static/device/worker.js"  # without headers only the service worker restricts it
    assert page.evaluate(
        """(source) => fetch(source).then((answer) => answer.ok
            && navigator.serviceWorker.controller !== null)""",
        source,
    )
    assert host.foreign == []
    page.goto("http://elsewhere.invalid/")
    assert host.foreign[0] == "http://elsewhere.invalid/"  # Chromium may ask for its icon, too


@pytest.mark.parametrize("tidy", [False, True])
def test_offline_after_the_first_visit(tidy: bool, visit: Visit) -> None:
    """The card, too, if the host redirects its address to one without .html."""
    page, host = visit(tidy=tidy)
    page.evaluate("navigator.serviceWorker.ready")
    host.is_down = True
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert "Apparent age" in drop_portrait(page)
    page.goto(host.url + "card.html")
    page.wait_for_selector("h1")


def test_a_new_build_offers_to_reload(visit: Visit, build: Build, tmp_path: Path) -> None:
    """It is fetched beside the old one, and replaces no page that is being used."""
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    page, host = visit(folder=folder)
    page.evaluate("navigator.serviceWorker.ready")
    notice = page.locator("#update")
    assert notice.count() == 0
    for name, old, new in (
        ("index.html", "<title>facewise", "<title>facewise, newer"),
        ("sw.js", 'VERSION = "', 'VERSION = "newer'),
    ):
        path = folder / name
        path.write_text(path.read_text().replace(old, new))
    other = page.context.new_page()
    page.reload()
    other.goto(host.url)
    expect(notice).to_have_text(re.compile("A newer version is ready"))
    expect(page.locator("#live")).to_have_text("A newer version is ready.")
    expect(other.locator("#update")).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []
    assert "Apparent age" in drop_portrait(page)
    shoot(page, "device-newer")
    assert (page.title(), other.title()) == ("facewise", "facewise")
    page.get_by_role("button", name="Reload").press("Enter")
    expect(page).to_have_title("facewise, newer")
    expect(notice).to_have_count(0)
    # A tab that is in use goes on, until its visitor says so, too.
    assert "Apparent age" in drop_portrait(other)
    assert other.title() == "facewise"
    other.get_by_role("button", name="Reload").click()
    expect(other).to_have_title("facewise, newer")


def test_the_engine_in_ones_own_page(
    new_page: Open, build: Build, analyzer: Analyzer, tmp_path: Path
) -> None:
    """The example in docs/device.md, under the policy that it names."""
    text = (ROOT / "docs/device.md").read_text(encoding="utf-8")
    example = re.search(r"\n## In your own page\n[^\n]*\n((?:\n|    .*\n)+)", text)
    assert example
    (tmp_path / "index.html").write_text(f"<!doctype html>{textwrap.dedent(example.group(1))}")
    (tmp_path / "facewise").symlink_to(build.page)
    sources = dict(re.findall(r"`(\w+)-src ('self'.*?)`", text))
    assert sources.keys() == {"script", "worker", "connect"}
    sources["script"] += " 'unsafe-inline'"  # the example's script is in the page
    policy = "; ".join(f"{name}-src {value}" for name, value in sources.items())
    headers = {"Content-Security-Policy": f"default-src 'none'; {policy}"}
    with serve(tmp_path, headers=headers) as host:
        page = new_page()
        page.goto(host.url)
        page.set_input_files("input", PORTRAIT)
        [face] = analyzer.analyze(PORTRAIT)
        low, high = face.age_interval_years  # type: ignore[misc]
        card = f"{host.url}facewise/card.html"
        expect(page.locator("pre")).to_have_text(
            re.compile(f"{low} to {high} years\n{analyzer.spec.name}: {re.escape(card)}$")
        )
        assert page.request.get(card).ok


def test_the_engines_options_are_those_of_the_api(visit: Visit) -> None:
    """What the folder was built without is off; what is wrong is refused, even without a face."""
    page, _ = visit()

    def ask(**options: object) -> list[Any]:
        found: list[Any] = page.evaluate(
            """async (options) => {
                const engine = await import(new URL("static/engine-device.js", document.baseURI));
                await engine.describe();
                const canvas = new OffscreenCanvas(64, 64);
                canvas.getContext("2d");
                const ask = engine.analyze(await canvas.convertToBlob(), options);
                return ask.then(
                    ({attributes, coverage}) => [attributes, coverage],
                    ({code, detail}) => [code, detail],
                );
            }""",
            options,
        )
        return found

    one = "attributes can be age, gender, not"
    assert ask(attributes=["age", "ethnicity"]) == ["invalid_option", f"{one} ethnicity."]
    assert ask(attributes=[]) == ["invalid_option", f"{one} none."]
    assert ask(coverage=0.85) == ["invalid_option", "coverage can be 0.8, 0.9, 0.95, not 0.85."]
    assert ask(attributes=["gender", "age", "age"], coverage=0.8) == [["age", "gender"], 0.8]
    assert ask() == [["age", "gender"], 0.9]
    has_years: list[bool] = page.evaluate(
        """async () => {
            const engine = await import(new URL("static/engine-device.js", document.baseURI));
            const photo = await (await fetch("static/examples/portrait.jpg")).blob();
            const asked = [{}, {years: true}].map((options) => engine.analyze(photo, options));
            return (await Promise.all(asked)).map(({faces: [{age}]}) => "probabilities" in age);
        }"""
    )
    assert has_years == [False, True]


def test_isolation_gives_threads(visit: Visit) -> None:
    page, _ = visit(ISOLATION)
    assert page.evaluate("crossOriginIsolated") is True
    assert _threads(page) == min(4, page.evaluate("navigator.hardwareConcurrency"))
    assert "Apparent age" in drop_portrait(page)
    shoot(page, "device")


def _threads(page: Any) -> int:
    threads: int = page.evaluate(
        """async () => {
            const engine = await import(new URL("static/engine-device.js", document.baseURI));
            return (await engine.describe()).threads;
        }"""
    )
    return threads


def test_live(visit: Visit) -> None:
    """Boxes, smoothed answers and the rate; no ethnicity."""
    page, host = visit()
    page.context.grant_permissions(["camera"], origin=host.origin)
    page.click("#camera-open")
    page.wait_for_selector("#go-live:enabled")
    page.click("#go-live")
    answer = re.compile(r"\d+-\d+ years, (fe)?male$")
    page.locator(".live-box", has_text=answer).wait_for()
    page.locator("#live-rate", has_text="frames a second").wait_for()
    shoot(page, "device-live")
    page.click("#camera-close")
    expect(page.locator(".live-box")).to_have_count(0)


def test_ethnicity_is_never_live_even_where_the_builder_names_it(
    visit: Visit, build: Build, tmp_path: Path
) -> None:
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    path = folder / "static/device/device.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "attributes": ["age", "gender", "ethnicity"]}))
    page, _ = visit(folder=folder)
    assert "Apparent ethnicity" in drop_portrait(page)
    live: list[str] = page.evaluate(
        """async () => {
            const engine = await import(new URL("static/engine-device.js", document.baseURI));
            return (await engine.describe()).liveAttributes;
        }"""
    )
    assert live == ["age", "gender"]


def test_progress_while_the_models_come(visit: Visit) -> None:
    page, host = visit(ready=False, held="mtcnn-onet.bin")
    early = {at: page.inner_text(at) for at in ("#limits", "#privacy")}
    bar = page.locator("#loading-bar")
    # The kernels and two networks, of seven files, have arrived: some progress, but no more.
    expect(bar).to_have_attribute("value", re.compile(r"^0\.0*[1-9]"))
    assert 0 < bar.evaluate("(bar) => bar.value") < 0.2
    host.released.set()
    page.wait_for_selector("html[data-ready]")
    # What it says of formats and privacy before that is true of this page, not of a server's.
    assert page.inner_text("#limits") == early["#limits"] + ", up to 20\u00a0MB"
    assert page.inner_text("#privacy") == early["#privacy"]
    assert bar.count() == 0


def test_progress_counts_the_runtime(visit: Visit, build: Build) -> None:
    """The largest file of all: the bar is not full while it is awaited."""
    spec = json.loads((build.device / "device.json").read_text())
    networks = [*spec["detector"]["networks"].values(), spec["kernels"], spec["model"]]
    others, runtime = sum(file["bytes"] for file in networks), spec["runtime"]["bytes"]
    page, host = visit(ready=False, held=spec["runtime"]["file"])
    bar = page.locator("#loading-bar")
    share = others / (others + runtime)
    page.wait_for_function(
        "(share) => Math.abs(document.querySelector('#loading-bar')?.value - share) < 0.001",
        arg=share,
        timeout=60_000,
    )
    assert share < 0.5
    host.released.set()
    page.wait_for_selector("html[data-ready]")
    assert bar.count() == 0


def test_a_photo_on_its_side_is_turned_upright(visit: Visit) -> None:
    """By its EXIF orientation, as the library does."""
    page, _ = visit()
    upright = Image.open(PORTRAIT).convert("RGB").crop((0, 0, 512, 400))
    on_its_side = upright.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise for viewing
    found = {}
    for name, picture, kind, options in (
        ("upright", upright, "PNG", {}),
        ("turned", on_its_side, "PNG", {"exif": exif}),
        ("turned WebP", on_its_side, "WEBP", {"exif": exif, "lossless": True}),
        ("lying", on_its_side, "PNG", {}),
    ):
        out = io.BytesIO()
        picture.save(out, kind, **options)
        found[name] = ask_page(page, out.getvalue())
    [expected], [face], [webp] = found["upright"], found["turned"], found["turned WebP"]
    assert face["bbox"] == pytest.approx(expected["bbox"], abs=0.01)
    assert webp["bbox"] == pytest.approx(expected["bbox"], abs=0.01)
    assert [other["bbox"] for other in found["lying"]] != [face["bbox"]]


def test_what_is_no_picture_gets_a_sentence(visit: Visit, tmp_path: Path) -> None:
    page, _ = visit()
    page.set_input_files(
        "#files", [{"name": "x.txt", "mimeType": "text/plain", "buffer": b"words"}]
    )
    page.wait_for_selector("#message .problem")
    assert "save it as JPEG or PNG" in page.inner_text("#message .problem")
    large = tmp_path / "x.png"
    large.write_bytes(bytes(20_000_001))
    page.set_input_files("#files", large)
    page.get_by_role("heading", name="The picture is too large").wait_for()


def test_a_damaged_model_says_so(visit: Visit, build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    model = folder / "static/device/mtcnn-rnet.bin"
    sound = model.read_bytes()
    model.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    page, _ = visit(folder=folder, ready=False)
    page.get_by_role("heading", name="The models could not be loaded").wait_for()
    assert "mtcnn-rnet.bin" in page.inner_text("[role=alert]")
    assert page.locator("progress").count() == 0
    model.write_bytes(sound)
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("html[data-ready]")


def test_a_worker_that_dies_is_replaced(visit: Visit) -> None:
    """The photo that it had says so and can be tried again; the next ones never notice."""
    page, _ = visit()
    [worker] = page.workers
    worker.evaluate(
        """() => {
            const fail = () => { throw new RangeError("no memory for this photo"); };
            self.createImageBitmap = () => new Promise(() => setTimeout(fail));
        }"""
    )
    page.set_input_files("#files", [PORTRAIT, PORTRAIT])
    marks = page.locator("#strip .mark")
    expect(marks).to_have_text(["!", "1"])
    message = page.locator("#message")
    message.get_by_role("heading", name="The models could not be run").wait_for()
    message.get_by_role("button", name="Try again").click()
    expect(marks).to_have_text(["1", "1"])


def test_axe_finds_nothing_serious(visit: Visit) -> None:
    page, _ = visit(ISOLATION)
    drop_portrait(page)
    # The page's policy allows no inline script, so axe comes through the debugger.
    found = Axe().run(page).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []


def test_the_servers_page_offers_it(
    new_page: Open, build: Build, start_server: Callable[..., Any], analyzer: Analyzer
) -> None:
    """After the switch no photo is sent, so the server may be gone."""
    server = start_server(device_folder=build.device)
    page = new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method + " " + request.url))
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("crossOriginIsolated") is True
    page.check("#on-device")
    page.locator("#privacy", has_text="not sent anywhere").wait_for()
    assert page.locator("#copy-curl").is_hidden()
    # The card is that of the weights here, even if the server has others.
    card: str = page.evaluate(
        """async () => {
            const engine = await import(new URL("static/engine-device.js", document.baseURI));
            const attributes = ["age", "gender", "ethnicity"];
            const within = {attributes, coverage: 0.9, cardUrl: "other"};
            return (await engine.describe({within})).cardUrl;
        }"""
    )
    assert card == f"{server.url}v1/models/{analyzer.spec.name}/card"
    server.kill()
    text = drop_portrait(page)
    assert "Apparent age" in text
    assert "Apparent ethnicity" in text  # on one's own machine, as the server has it
    assert not [line for line in sent if line.startswith("POST")]


def test_no_photo_is_sent_while_the_models_come(
    new_page: Open, build: Build, start_server: Callable[..., Any]
) -> None:
    """Nor after they failed to: waiting photos can be tried again here, or sent on request."""
    server = start_server(device_folder=build.device)
    page = new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    held: list[Any] = []
    page.route("**/device.json", lambda route: held.append(route))  # no answer yet
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    box = page.locator("#on-device")
    assert box.get_attribute("autocomplete") == "off"  # Firefox would tick it again on a reload
    with page.expect_request("**/device.json"):
        page.check("#on-device")
    page.set_input_files("#files", [PORTRAIT, PORTRAIT])
    page.get_by_text("Waiting for its turn").wait_for()
    assert page.locator("#camera-open").is_disabled()
    [route] = held
    route.abort()
    page.get_by_role("heading", name="Not analysed, and not sent").wait_for()
    expect(page.locator("#strip .mark")).to_have_text(["!", "!"])
    # The box stays ticked, and later photos are not sent either.
    expect(box).to_be_checked()
    page.set_input_files("#files", PORTRAIT)
    expect(page.locator("#strip .mark")).to_have_text(["!", "!", "!"])
    assert "POST" not in sent
    # Trying again loads the models, and all photos are analysed here.
    page.unroute("**/device.json")
    page.locator("#message").get_by_role("button", name="Try again").click()
    page.wait_for_selector(".card")
    expect(page.locator("#strip .mark")).to_have_text(["1", "1", "1"])
    assert page.locator("#trouble").count() == 0
    assert "POST" not in sent
    # With the box unticked, photos go to the server.
    page.uncheck("#on-device")
    page.set_input_files("#files", PORTRAIT)
    expect(page.locator("#strip .mark")).to_have_text(["1", "1", "1", "1"])
    assert sent.count("POST") == 1


def test_a_photo_that_is_being_sent_is_sent_no_further(
    new_page: Open, build: Build, start_server: Callable[..., Any]
) -> None:
    """It is analysed here instead, as the box promises."""
    server = start_server(device_folder=build.device)
    page = new_page()
    page.route("**/v1/analyze?*", lambda route: None)  # still under way
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    with page.expect_request("**/v1/analyze?*"):
        page.set_input_files("#files", PORTRAIT)
    with page.expect_event("requestfailed") as failed:
        page.check("#on-device")
    assert "/v1/analyze?" in failed.value.url
    page.wait_for_selector(".card")
    assert "not sent anywhere" in page.inner_text("#privacy")


def test_what_one_engine_cannot_read_the_other_may(
    new_page: Open, build: Build, start_server: Callable[..., Any]
) -> None:
    """A TIFF only the server reads, and a large file only the device, if the server is strict."""
    out = io.BytesIO()
    Image.open(PORTRAIT).convert("RGB").save(out, "TIFF", compression="tiff_lzw")
    tiff = {"name": "scan.tiff", "mimeType": "image/tiff", "buffer": out.getvalue()}
    data = PORTRAIT.read_bytes() + bytes(1_000_000)  # what follows a JPEG's end is not part of it
    large = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": data}
    server = start_server(device_folder=build.device, max_bytes=1_000_000)
    page = new_page()
    again = page.get_by_role("button", name="Try again")
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    page.set_input_files("#files", [large])
    page.get_by_role("heading", name="The picture is too large").wait_for()
    assert again.count() == 0
    page.check("#on-device")
    again.click()
    page.wait_for_selector(".card")
    page.set_input_files("#files", [tiff])
    page.get_by_role("heading", name="This cannot be read here").wait_for()
    assert again.count() == 0
    page.uncheck("#on-device")
    again.click()
    expect(page.locator("#strip .mark")).to_have_text(["1", "1"])


def test_the_choice_outlives_a_reload(
    new_page: Open, build: Build, start_server: Callable[..., Any]
) -> None:
    """Photos that come before the models are held back, too, until the box is unticked."""
    server = start_server(device_folder=build.device)
    page = new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    page.check("#on-device")
    page.locator("#privacy", has_text="not sent anywhere").wait_for()
    held: list[Any] = []
    page.route("**/v1/models", lambda route: held.append(route))
    with page.expect_request("**/v1/models"):
        page.reload()
    page.set_input_files("#files", PORTRAIT)  # before the page knows what the server offers
    page.locator("#loading", has_text="One moment: getting ready").wait_for()
    held[0].continue_()
    page.wait_for_selector(".card")
    assert page.is_checked("#on-device")
    assert "not sent anywhere" in page.inner_text("#privacy")
    assert "POST" not in sent
    # A server that no longer offers it gets no photo either.
    page.unroute("**/v1/models")

    def without(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "on_device": False})

    page.route("**/v1/models", without)
    page.route("**/static/device/**", lambda route: route.abort())
    page.reload()
    page.set_input_files("#files", PORTRAIT)
    page.get_by_role("heading", name="Not analysed, and not sent").wait_for()
    assert "POST" not in sent
    page.uncheck("#on-device")
    page.locator("#message").get_by_role("button", name="Try again").click()
    page.wait_for_selector(".card")
    assert sent.count("POST") == 1
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#on-device-row").is_hidden()
    assert not page.is_checked("#on-device")


def test_the_choice_counts_in_every_tab(
    new_page: Open, build: Build, start_server: Callable[..., Any]
) -> None:
    """Ticked in one, it is ticked in all, and a live view that was sending ends at once."""
    server = start_server(device_folder=build.device)
    first = new_page(permissions=["camera"])
    second = first.context.new_page()
    sent: list[str] = []
    second.on("request", lambda request: sent.append(request.method))
    for page in (first, second):
        page.goto(server.url)
        page.wait_for_selector("html[data-ready]")
    second.click("#camera-open")
    second.route("**/v1/analyze?*", lambda route: None)  # still under way
    with second.expect_request("**/v1/analyze?*"):
        second.click("#go-live")
    first.bring_to_front()
    with second.expect_event("requestfailed", timeout=10_000):
        first.check("#on-device")
    first.locator("#privacy", has_text="not sent anywhere").wait_for()
    second.bring_to_front()
    expect(second.locator("#on-device")).to_be_checked()
    expect(second.locator("#camera")).to_be_hidden()
    second.locator("#privacy", has_text="not sent anywhere").wait_for()
    sent.clear()
    drop_portrait(second)
    assert "POST" not in sent
    # Unticked in one, it stays ticked in the other: photos may wait there.
    first.uncheck("#on-device")
    drop_portrait(first)
    second.set_input_files("#files", PORTRAIT)
    expect(second.locator("#strip .mark")).to_have_text(["1", "1"])
    expect(second.locator("#on-device")).to_be_checked()
    assert "POST" not in sent
    # A tab that missed the news (no page hears of its own writing) reads it before the next photo.
    first.evaluate("localStorage.setItem('facewise-on-device', 'yes')")
    expect(first.locator("#on-device")).not_to_be_checked()
    first.on("request", lambda request: sent.append(request.method))
    first.set_input_files("#files", PORTRAIT)
    expect(first.locator("#strip .mark")).to_have_text(["1", "1"])
    expect(first.locator("#on-device")).to_be_checked()
    assert "POST" not in sent


def test_without_the_model_that_serves_it_is_not_offered(
    new_page: Open, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "device.json").write_text("{}")
    page = new_page()
    page.goto(start_server(device_folder=tmp_path).url)
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#on-device-row").is_hidden()


def test_parity_with_the_python_pipeline(
    visit: Visit, build: Build, pictures: Path, tmp_path: Path
) -> None:
    """Two dozen faces, the same weights; ``make parity-page`` compares 200, and the shipped."""
    page, _ = visit(ISOLATION)
    analyzer = Analyzer(page_model(build.device, tmp_path), threads=1)
    count = int(os.environ.get("FACEWISE_PARITY_FACES", "24"))
    [differences] = compare(page, [analyzer], pictures / "faces", count)
    complaints = {kind: found.complaints(kind) for kind, found in differences.items()}
    assert complaints == {"PNG": [], "JPEG": []}
    if analyzer.calibration.quality_gates:
        assert differences["PNG"].abstentions > 0, "no abstention was compared"
    # Negative control: one box or one answer that is this far off is reported.
    found = differences["PNG"]
    found.pixels.append(2.5)
    found.probabilities.append(0.011)
    found.other_abstentions += 1
    found.unmatched += 1
    assert len(found.complaints("PNG")) == 4
    jpeg = differences["JPEG"]
    jpeg.probabilities += [0.04] * (len(jpeg.probabilities) // 50)
    assert len(jpeg.complaints("JPEG")) == 1


def test_parity_where_a_face_fills_the_picture(
    visit: Visit, build: Build, pictures: Path, tmp_path: Path
) -> None:
    """Boxes reach past the edges. Only the pass with a border finds the face in the last two
    pictures; in the larger one it works on blocks of pixels.
    """
    page, _ = visit(ISOLATION)
    analyzer = Analyzer(page_model(build.device, tmp_path), threads=1)
    found = Differences()
    for name, cut, times in (("14359", 0, 1), ("3320", 0, 1), ("9410", 12, 1), ("9410", 12, 3)):
        picture = Image.open(pictures / "faces" / f"{name}.webp").convert("RGB")
        side = picture.width - cut
        picture = picture.crop((cut, cut, side, side))
        picture = picture.resize((picture.width * times,) * 2, Image.Resampling.NEAREST)
        data = encoded(picture, "PNG")
        expected = ask_python(analyzer, data)
        assert len(expected) == 1
        found.add(expected, ask_page(page, data))
    assert found.complaints("PNG") == []


def test_the_folder_is_small_and_complete(build: Build, tmp_path: Path) -> None:
    archive = tmp_path / "page.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        # The .gz copies hold the same content again, for hosts that send them.
        out.add(build.page, "page", filter=lambda at: None if at.name.endswith(".gz") else at)
    assert archive.stat().st_size < 12_000_000
    spec = json.loads((build.page / "static/device/device.json").read_text())
    assert (build.page / "static/device" / spec["model"]["file"]).stat().st_size <= 6_000_000
    assert spec["attributes"] == ["age", "gender"]
    worker = (build.page / "sw.js").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*?\]);", worker, re.DOTALL).group(1))  # type: ignore[union-attr]
    missing = [path for path in kept if not (build.page / path).exists()]
    assert missing == []
    assert not [path for path in kept if path.endswith(".gz")]
    device = build.page / "static/device"
    for name in ("device.json", "worker.js", spec["runtime"]["file"]):
        assert gzip.decompress((device / f"{name}.gz").read_bytes()) == (device / name).read_bytes()
    sent = [path.with_name(f"{path.name}.gz") for path in device.iterdir() if path.suffix != ".gz"]
    whole = [path if path.exists() else path.with_suffix("") for path in sent]
    assert sum(path.stat().st_size for path in whole) < 12_000_000
    for path in ("static/device/worker.js", "static/app.js", "static/device/device.json"):
        assert path in kept
    cost = json.loads((ROOT / "docs/results/page-model.json").read_text())
    said = f"({cost['bytes'] / 1e6:.2f} MB)" in (build.page / "card.html").read_text()
    assert said == (cost.get("sha256") == load_spec().sha256)
    text = (build.page / "index.html").read_text()
    assert "connect-src 'self'" in text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
    assert "Content-Security-Policy: default-src 'none'" in (build.page / "_headers").read_text()
