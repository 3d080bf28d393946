"""The attribute network on WebGPU, with Chromium's own software adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facewise import Analyzer

from .conftest import FLAGS, Build, Open
from .parity import compare, page_model
from .static_host import Host, serve

pytestmark = pytest.mark.browser

SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
ENGINE = """async () => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    return (await engine.describe()).engine;
}"""


@pytest.fixture(scope="module")
def gpu_browser(chromium: Any, build: Build) -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
    browser = chromium.browser_type.launch(executable_path=path, args=[*flags, *SOFTWARE])
    with serve(build.page) as host:  # WebGPU is for secure origins, as this machine's is
        page = browser.new_page()
        page.goto(host.url)
        has_adapter = page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())")
        page.close()
    if not has_adapter:
        browser.close()
        pytest.skip("this Chromium has no WebGPU adapter in software")
    yield browser
    browser.close()


def visit(page: Any, host: Host, query: str) -> Any:
    page.goto(host.url + query)
    page.wait_for_selector("html[data-ready]")
    return page


def test_parity_on_webgpu(
    gpu_browser: Any, new_page: Open, build: Build, pictures: Path, tmp_path: Path
) -> None:
    """The shaders match the Python pipeline within the limits set for WebAssembly.

    They see pixels, whatever the file's format was.
    """
    with serve(build.page) as host:
        page = visit(new_page(gpu_browser), host, "?webgpu=any")
        assert page.evaluate(ENGINE) == "webgpu"
        analyzer = Analyzer(page_model(build.device, tmp_path), threads=1)
        [differences] = compare(page, [analyzer], pictures / "faces", 6, kinds=["PNG"])
        assert differences["PNG"].complaints("PNG") == []


def test_a_software_adapter_is_not_worth_it(gpu_browser: Any, new_page: Open, build: Build) -> None:
    with serve(build.page) as host:
        assert visit(new_page(gpu_browser), host, "").evaluate(ENGINE) == "wasm"


def test_without_an_adapter_webassembly_answers(new_page: Open, build: Build) -> None:
    with serve(build.page) as host:
        assert visit(new_page(), host, "?webgpu=any").evaluate(ENGINE) == "wasm"


@pytest.mark.parametrize(("factor", "engine"), [(1, "webgpu"), (0.5, "wasm")])
def test_with_wrong_shaders_webassembly_answers(
    factor: float, engine: str, gpu_browser: Any, new_page: Open, build: Build, tmp_path: Path
) -> None:
    """With a driver that computes something else, the answer to the known picture differs."""
    folder = tmp_path / "page"
    shutil.copytree(build.page, folder)
    spec = folder / "static/device/device.json"
    altered = json.loads(spec.read_text())
    altered["model"]["gpu"]["scale"] *= factor
    spec.write_text(json.dumps(altered))
    with serve(folder) as host:
        assert visit(new_page(gpu_browser), host, "?webgpu=any").evaluate(ENGINE) == engine
