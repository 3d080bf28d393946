"""The attribute network on WebGPU, with Chromium's own software adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facewise import Analyzer

from .conftest import FLAGS, Build
from .parity import compare, page_model
from .static_host import Host, serve

pytestmark = pytest.mark.browser

SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
ENGINE = """async () => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    return (await engine.describe()).engine;
}"""


@pytest.fixture(scope="module")
def gpu_browser(chromium: Any) -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    browser = chromium.browser_type.launch(executable_path=path, args=[*flags, *SOFTWARE])
    yield browser
    browser.close()


def visit(browser: Any, host: Host, query: str) -> Any:
    page = browser.new_page()
    page.goto(host.url + query)
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    return page


def test_parity_on_webgpu(gpu_browser: Any, build: Build, pictures: Path, tmp_path: Path) -> None:
    """The shaders match the Python pipeline within the limits set for WebAssembly."""
    with serve(build.page) as host:
        page = visit(gpu_browser, host, "?webgpu=any")
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this Chromium has no WebGPU adapter in software")
        assert page.evaluate(ENGINE) == "webgpu"
        analyzer = Analyzer(page_model(build.device, tmp_path), threads=1)
        [differences] = compare(page, [analyzer], pictures / "faces", 6)
        complaints = {kind: found.complaints(kind) for kind, found in differences.items()}
        assert complaints == {"PNG": [], "JPEG": []}
        page.close()


def test_a_software_adapter_is_not_worth_it(gpu_browser: Any, build: Build) -> None:
    with serve(build.page) as host:
        page = visit(gpu_browser, host, "")
        assert page.evaluate(ENGINE) == "wasm"
        page.close()


def test_without_an_adapter_or_with_wrong_shaders_webassembly_answers(
    gpu_browser: Any, chromium: Any, build: Build, tmp_path: Path
) -> None:
    with serve(build.page) as host:
        page = visit(chromium, host, "?webgpu=any")
        assert page.evaluate(ENGINE) == "wasm"
        page.close()
    # With a driver that computes something else, the answer to the known picture differs.
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    spec = folder / "static/device/device.json"
    wrong = json.loads(spec.read_text())
    wrong["model"]["gpu"]["scale"] *= 0.5
    spec.write_text(json.dumps(wrong))
    with serve(folder) as host:
        page = visit(gpu_browser, host, "?webgpu=any")
        assert page.evaluate(ENGINE) == "wasm"
        page.close()
