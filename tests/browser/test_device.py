"""The page for the visitor's own device: on any host, on none, and no request elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from facewise import Analyzer

from .conftest import Build, shoot
from .parity import compare, page_model
from .static_host import ISOLATION, Host, serve

pytestmark = pytest.mark.browser

PORTRAIT = Path(__file__).parents[1] / "data/astronaut.jpg"
Visit = Callable[..., tuple[Any, Host]]


@pytest.fixture
def visit(chromium: Any, build: Build) -> Iterator[Visit]:
    """Open the page on a static host that also is the browser's proxy: all requests show there."""
    with ExitStack() as stack:

        def start(
            headers: dict[str, str] | None = None, folder: Path | None = None, ready: bool = True
        ) -> tuple[Any, Host]:
            host = stack.enter_context(serve(folder or build.page, "/some/where", headers))
            proxy = {"server": host.origin, "bypass": "<-loopback>"}
            context = chromium.new_context(viewport={"width": 1280, "height": 900}, proxy=proxy)
            stack.callback(context.close)
            page = context.new_page()
            page.goto(host.url)
            if ready:
                page.wait_for_selector("html[data-ready]", timeout=60_000)
            return page, host

        yield start


def drop_portrait(page: Any) -> str:
    page.set_input_files("#files", PORTRAIT)
    page.wait_for_selector(".card", timeout=60_000)
    text: str = page.inner_text(".card")
    return text


def test_any_host_serves_it_and_nothing_leaves_it(visit: Visit, analyzer: Analyzer) -> None:
    """Under a sub-path, without any header: one thread, and not one request to elsewhere."""
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
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["attributes"] == ["age", "gender"]
    assert "ethnicity" not in saved["faces"][0]
    page.click("#card-link")
    page.wait_for_selector("h1")
    assert host.foreign == []
    assert all(path.startswith("/some/where/") for path in host.requested)
    shoot(page, "device-card")


def test_the_policy_stops_what_would_leave(visit: Visit) -> None:
    """The page's own policy refuses; and what the recorder would see without it, it sees."""
    page, host = visit()
    attempt = "(url) => fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')"
    assert page.evaluate(attempt, "http://elsewhere.invalid/photo") == "refused"
    assert host.foreign == []
    page.evaluate("navigator.serviceWorker.ready")
    page.reload()
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    source = "static/device/worker.js"  # workers of a host without headers: the service worker
    assert page.evaluate(
        """(source) => fetch(source).then((answer) => answer.ok
            && navigator.serviceWorker.controller !== null)""",
        source,
    )
    assert host.foreign == []
    page.goto("http://elsewhere.invalid/")
    assert host.foreign == ["http://elsewhere.invalid/"]


def test_offline_after_the_first_visit(visit: Visit) -> None:
    page, host = visit()
    page.evaluate("navigator.serviceWorker.ready")
    host.is_down = True
    page.reload()
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    assert "Apparent age" in drop_portrait(page)
    page.goto(host.url + "card.html")
    page.wait_for_selector("h1")


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
    page.locator(".live-box", has_text=answer).wait_for(timeout=60_000)
    page.locator("#live-rate", has_text="frames a second").wait_for(timeout=60_000)
    shoot(page, "device-live")
    page.click("#camera-close")
    expect(page.locator(".live-box")).to_have_count(0)


def test_what_is_no_picture_gets_a_sentence(visit: Visit) -> None:
    page, _ = visit()
    page.set_input_files(
        "#files", [{"name": "x.txt", "mimeType": "text/plain", "buffer": b"words"}]
    )
    page.wait_for_selector("[role=alert]")
    assert "save it as JPEG or PNG" in page.inner_text("[role=alert]")
    page.set_input_files(
        "#files", [{"name": "x.png", "mimeType": "image/png", "buffer": b"\0" * 20_000_001}]
    )
    page.get_by_role("heading", name="The picture is too large").wait_for()


def test_a_damaged_model_says_so(visit: Visit, build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    model = folder / "static/device/mtcnn-rnet.bin"
    sound = model.read_bytes()
    model.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    page, _ = visit(folder=folder, ready=False)
    page.get_by_role("heading", name="The models could not be loaded").wait_for(timeout=60_000)
    assert "mtcnn-rnet.bin" in page.inner_text("[role=alert]")
    assert page.locator("progress").count() == 0
    model.write_bytes(sound)
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("html[data-ready]", timeout=60_000)


def test_axe_finds_nothing_serious(visit: Visit) -> None:
    page, _ = visit(ISOLATION)
    drop_portrait(page)
    # The page's policy allows no inline script: axe comes through the debugger.
    found = Axe().run(page).response["violations"]
    assert [item["id"] for item in found if item["impact"] in ("serious", "critical")] == []


def test_the_servers_page_offers_it(
    chromium: Any, build: Build, start_server: Callable[..., Any]
) -> None:
    """After the switch no photo is sent: the server may be gone."""
    server = start_server(device_folder=build.device)
    context = chromium.new_context()
    page = context.new_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method + " " + request.url))
    page.goto(server.url)
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("crossOriginIsolated") is True
    page.check("#on-device")
    page.locator("#privacy", has_text="not sent anywhere").wait_for(timeout=60_000)
    assert page.locator("#copy-curl").is_hidden()
    server.kill()
    text = drop_portrait(page)
    assert "Apparent age" in text
    assert "Apparent ethnicity" in text  # on one's own machine, as the server has it
    assert not [line for line in sent if line.startswith("POST")]
    context.close()


def test_without_the_files_it_is_not_offered(
    chromium: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    page = chromium.new_page()
    page.goto(start_server(device_folder=tmp_path).url)
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#on-device-row").is_hidden()
    page.close()


def test_parity_with_the_python_pipeline(
    visit: Visit, build: Build, pictures: Path, tmp_path: Path
) -> None:
    """Two dozen faces, the same weights; ``make parity-page`` compares 200, and the shipped."""
    page, _ = visit(ISOLATION)
    analyzer = Analyzer(page_model(build.device, tmp_path), threads=1)
    count = int(os.environ.get("FACEWISE_PARITY_FACES", "24"))
    differences = compare(page, analyzer, pictures / "faces", count)
    complaints = {kind: found.complaints(kind) for kind, found in differences.items()}
    assert complaints == {"PNG": [], "JPEG": []}
    if analyzer.calibration.quality_gates:
        assert differences["PNG"].abstentions > 0, "no abstention was compared"
    # The negative control: what is as much off as one pixel box or one answer would be told.
    found = differences["PNG"]
    found.pixels.append(2.5)
    found.probabilities.append(0.011)
    found.other_abstentions += 1
    found.unmatched += 1
    assert len(found.complaints("PNG")) == 4
    jpeg = differences["JPEG"]
    jpeg.probabilities += [0.04] * (len(jpeg.probabilities) // 50)
    assert len(jpeg.complaints("JPEG")) == 1


def test_the_folder_is_small_and_complete(build: Build, tmp_path: Path) -> None:
    archive = tmp_path / "page.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(build.page, arcname="page")
    assert archive.stat().st_size < 12_000_000
    spec = json.loads((build.page / "static/device/device.json").read_text())
    assert (build.page / "static/device" / spec["model"]["file"]).stat().st_size <= 6_000_000
    assert spec["attributes"] == ["age", "gender"]
    worker = (build.page / "sw.js").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*?\]);", worker, re.DOTALL).group(1))  # type: ignore[union-attr]
    missing = [path for path in kept if not (build.page / path).exists()]
    assert missing == []
    for path in ("static/device/worker.js", "static/app.js", "static/device/device.json"):
        assert path in kept
    text = (build.page / "index.html").read_text()
    assert "connect-src 'self'" in text
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
    assert "Content-Security-Policy: default-src 'none'" in (build.page / "_headers").read_text()
