"""Compare the on-device page's size and speed with Python and face-api.

    python scripts/page_bench.py [--rounds 5] [--repeats 3] [--without-face-api]

Chromium runs the page from a static host, with the isolation headers (threads) and without (one
thread); Python runs the same pictures with one thread and with all; face-api (web/bench, installed
from its own lock file) runs its tiny detector at 416 px (its default), landmarks, age and gender on
its WebAssembly backend, one thread. All take turns in every round, so that other load on the
machine affects all alike. Median milliseconds of warm runs. Writes docs/results/page.json and
page.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from facewise import Analyzer
from facewise.analyzer import Timings

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
import node  # noqa: E402
from make_page import packed_bytes  # noqa: E402

from browser.static_host import ISOLATION, serve  # noqa: E402

RESULT = ROOT / "docs/results/page"
BENCH = ROOT / "web/bench"
EXAMPLES = ROOT / "src/facewise/server/page/static/examples"
PICTURES = {
    "portrait, 512 x 512": ROOT / "tests/data/astronaut.jpg",
    "six faces": EXAMPLES / "six-ways.jpg",
}
STAGES = ("decode", "detect", "align", "attributes", "calibrate", "total")
FLAGS = ["--no-sandbox", "--disable-gpu"]

PAGE = """async ([text, repeats]) => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const times = [];
    for (let i = 0; i < repeats; i++) {
        times.push((await engine.analyze(new Blob([bytes]), {})).timings_ms);
    }
    return times;
}"""
THREADS = """async () => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    return (await engine.describe()).threads;
}"""
FACE_API_LOAD = """async (tiny) => {
    const peer = await import(new URL("face-api.mjs", document.baseURI));
    return await peer.load(tiny);
}"""
FACE_API = """async ([text, repeats, tiny]) => {
    const peer = await import(new URL("face-api.mjs", document.baseURI));
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const times = [];
    for (let i = 0; i < repeats; i++) times.push(await peer.analyze(bytes, tiny));
    return times;
}"""

Times = list[dict[str, float]]
Contestant = Callable[[Path, int], Times]


def text_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def in_python(threads: int) -> Contestant:
    analyzer = Analyzer(threads=threads)

    def run(path: Path, repeats: int) -> Times:
        data, rows = path.read_bytes(), []
        for _ in range(repeats):
            timings = Timings()
            analyzer.analyze(data, timings=timings)
            rows.append({**timings, "total": sum(timings.values())})
        return rows

    return run


def in_page(browser: Any, url: str) -> tuple[int, Contestant]:
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=300_000)

    def run(path: Path, repeats: int) -> Times:
        page.bring_to_front()
        return page.evaluate(PAGE, [text_of(path), repeats])

    return page.evaluate(THREADS), run


def in_face_api(browser: Any, url: str, tiny: bool) -> Contestant:
    """face-api on one thread: its WebAssembly has threads only with isolation headers."""
    page = browser.new_page()
    page.goto(url)
    page.evaluate(FACE_API_LOAD, tiny)

    def run(path: Path, repeats: int) -> Times:
        page.bring_to_front()
        return page.evaluate(FACE_API, [text_of(path), repeats, tiny])

    return run


def plural(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def contestants(stack: ExitStack, playwright: Any, page_folder: Path, peer: bool) -> Any:
    """Contestants by name, each in its own browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")

    def launch() -> Any:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        stack.callback(browser.close)
        return browser

    found: dict[str, Contestant] = {}
    for headers in (None, ISOLATION):
        host = stack.enter_context(serve(page_folder, headers=headers))
        browser = launch()
        count, run = in_page(browser, host.url)
        found[f"page, {plural(count)}"] = run
    for count in sorted({1, os.cpu_count() or 1}):
        found[f"Python, {plural(count)}"] = in_python(count)
    if peer:
        host = stack.enter_context(serve(BENCH))
        for tiny, words in ((False, "landmarks"), (True, "tiny landmarks")):
            found[f"face-api 1.7.15, tiny detector, 416 px, {words}, 1 thread"] = in_face_api(
                launch(), host.url, tiny
            )
    return browser.version, found


def measure(found: dict[str, Contestant], rounds: int, repeats: int) -> dict[str, Any]:
    pictures: dict[str, Any] = {}
    for title, path in PICTURES.items():
        times: dict[str, Times] = {name: [] for name in found}
        for run in found.values():
            run(path, 3)  # warm-up
        for _ in range(rounds):
            for name, run in found.items():
                times[name] += run(path, repeats)
        pictures[title] = {name: medians(rows) for name, rows in times.items()}
    return pictures


def medians(rows: Times) -> dict[str, float]:
    found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {key: round(found[key], 1) for key in (*STAGES, "faces") if key in found}


def table(result: dict[str, Any]) -> str:
    lines = [
        "# The page on the visitor's own device: size and speed",
        "",
        f"Written by `scripts/page_bench.py`; {result['cores']} cores, Chromium "
        f"{result['chromium']}, medians of {result['repeats']} warm runs that took turns, "
        f"milliseconds. Load of the machine before: {result['load_before']}.",
        "",
        f"The whole folder is {result['folder_bytes'] / 1e6:.2f} MB as tar.gz; the attribute model "
        f"{result['model_bytes'] / 1e6:.2f} MB.",
        "",
    ]
    for picture, rows in result["pictures"].items():
        lines += [
            f"## {picture}",
            "",
            f"| | {' | '.join(STAGES)} |",
            "|---|" + "--:|" * len(STAGES),
        ]
        for name, row in rows.items():
            if "faces" in row:
                name = f"{name}: {row['faces']:.0f} found"
            cells = [f"{row[stage]:.1f}" if stage in row else "" for stage in STAGES]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each a round")
    parser.add_argument("--without-face-api", action="store_true")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    peer = not options.without_face_api and node.install(BENCH, "@vladmandic/face-api")
    with (
        tempfile.TemporaryDirectory() as name,
        sync_playwright() as playwright,
        ExitStack() as stack,
    ):
        out = Path(name)
        build: list[str | Path] = [sys.executable, ROOT / "scripts/make_page.py"]
        subprocess.run([*build, "--out", out / "page", "--device", out / "device"], check=True)
        version, found = contestants(stack, playwright, out / "page", peer)
        spec = json.loads((out / "device/device.json").read_text(encoding="utf-8"))
        result = {
            "chromium": version,
            "cores": os.cpu_count() or 1,
            "load_before": load,
            "repeats": options.rounds * options.repeats,
            "folder_bytes": packed_bytes(out / "page"),
            "model_bytes": spec["model"]["bytes"],
            "pictures": measure(found, options.rounds, options.repeats),
        }
    RESULT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    RESULT.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
