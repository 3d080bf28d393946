"""A real Chromium on a real server; screenshots of the main states go to artifacts/."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "artifacts" / "browser"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def camera_file(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Motion-JPEG video with a face: what Chromium's fake camera shows."""
    frame = Image.open(pictures / "astronaut.jpg").convert("RGB").resize((480, 480))
    scene = Image.new("RGB", (640, 480), (60, 70, 80))
    scene.paste(frame, (80, 0))
    out = io.BytesIO()
    scene.save(out, "JPEG", quality=92)
    path = tmp_path_factory.mktemp("camera") / "face.mjpeg"
    path.write_bytes(out.getvalue() * 5)
    return path


@pytest.fixture(scope="session")
def chromium(camera_file: Path) -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=120_000)  # a busy machine is not a failure
    camera = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={camera_file}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=[*FLAGS, *camera]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Any]) -> Any:
    return start_server()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What pages did wrong until they were closed; anything fails the test."""
    found: list[str] = []
    yield found
    assert not found, found


@pytest.fixture
def new_page(chromium: Any, complaints: list[str]) -> Iterator[Open]:
    """Make a page in a context of its own; an exception in any page of that fails the test."""
    with ExitStack() as stack:

        def make(browser: Any = chromium, **options: Any) -> Any:
            size = {"width": 1280, "height": 900}
            context = browser.new_context(**{"viewport": size, **options})
            stack.callback(context.close)
            context.set_default_timeout(120_000)  # a busy machine is not a failure
            context.on("weberror", lambda thrown: complaints.append(str(thrown.error)))
            return context.new_page()

        yield make


@pytest.fixture
def open_page(new_page: Open, server: Any, complaints: list[str]) -> Open:
    """Open the app in a new page; any console error or foreign request fails the test."""

    def start(url: str = server.url, *, tolerant: bool = False, **options: Any) -> Any:
        page = new_page(**options)

        def on_request(request: Any) -> None:
            if not request.url.startswith((url, "blob:")):
                complaints.append(f"request to {request.url}")

        page.on("request", on_request)
        if not tolerant:
            page.on(
                "console",
                lambda line: complaints.append(line.text) if line.type == "error" else None,
            )
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        return page

    return start


def shoot(page: Any, name: str) -> None:
    """Save a screenshot of a state for people to look at."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


@dataclass(frozen=True, slots=True)
class Build:
    """What ``make page`` writes."""

    page: Path
    device: Path


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The page for the visitor's own device, freshly built."""
    if not (ROOT / "web/node_modules/esbuild").is_dir():
        pytest.skip("web/node_modules is missing: `make test` or `make page` installs it (Node.js)")
    folder = tmp_path_factory.mktemp("build")
    made = Build(folder / "page", folder / "device")
    command = [sys.executable, str(ROOT / "scripts/make_page.py")]
    command += ["--out", str(made.page), "--device", str(made.device)]
    environment = {key: value for key, value in os.environ.items() if key != "ATTRIBUTES"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return made
