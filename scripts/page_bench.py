"""Size and speed of the page that runs on the visitor's own device, beside the Python pipeline.

    python scripts/page_bench.py [--repeats 15] [--face-api FOLDER]

Chromium runs the page from a static host, with the isolation headers (threads) and without (one
thread); Python runs the same pictures with one thread and with all. ``--face-api`` names an
unpacked ``@vladmandic/face-api`` package (``npm pack @vladmandic/face-api@1.7.15``): its tiny
detector, landmarks, age and gender on its WebAssembly backend are timed on the same pictures.
Medians of warm runs, milliseconds. Writes docs/results/page.json and page.md.
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
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from facewise import Analyzer
from facewise.analyzer import Timings

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from make_page import packed_bytes  # noqa: E402
from tests.browser.static_host import ISOLATION, serve  # noqa: E402

RESULT = ROOT / "docs/results/page"
EXAMPLES = ROOT / "src/facewise/server/page/static/examples"
PICTURES = {
    "portrait, 512 x 512": ROOT / "tests/data/astronaut.jpg",
    "six faces": EXAMPLES / "six-ways.jpg",
}
STAGES = ("decode", "detect", "align", "attributes", "calibrate", "total")
FLAGS = ["--no-sandbox", "--disable-gpu"]

RUN = """async ([text, repeats]) => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const times = [];
    for (let i = 0; i < repeats + 3; i++) {
        const answer = await engine.analyze(new Blob([bytes]), {});
        if (i >= 3) times.push(answer.timings_ms);
    }
    return {times, threads: (await engine.describe()).threads};
}"""

FACE_API = """async ([text, repeats]) => {
    const api = window.faceapi;
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const options = new api.TinyFaceDetectorOptions({inputSize: 224});
    const times = [];
    let faces = 0;
    for (let i = 0; i < repeats + 3; i++) {
        const started = performance.now();
        const bitmap = await createImageBitmap(new Blob([bytes]));
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
        canvas.getContext("2d").drawImage(bitmap, 0, 0);
        const found = await api.detectAllFaces(canvas, options).withFaceLandmarks()
            .withAgeAndGender();
        faces = found.length;
        if (i >= 3) times.push(performance.now() - started);
    }
    return {times, faces, backend: api.tf.getBackend()};
}"""


def medians(times: list[dict[str, float]]) -> dict[str, float]:
    return {stage: round(statistics.median(t[stage] for t in times), 1) for stage in STAGES}


def python_times(path: Path, threads: int, repeats: int) -> dict[str, float]:
    analyzer = Analyzer(threads=threads)
    data, rows = path.read_bytes(), []
    for index in range(repeats + 3):
        timings = Timings()
        analyzer.analyze(data, timings=timings)
        if index >= 3:
            rows.append({**timings, "total": sum(timings.values())})
    return medians(rows)


def page_times(browser: Any, folder: Path, path: Path, repeats: int, isolated: bool) -> Any:
    text = base64.b64encode(path.read_bytes()).decode()
    with serve(folder, headers=ISOLATION if isolated else None) as host:
        page = browser.new_page()
        page.goto(host.url)
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        found = page.evaluate(RUN, [text, repeats])
        page.close()
    return found["threads"], medians(found["times"])


def face_api_times(browser: Any, package: Path, path: Path, repeats: int) -> dict[str, Any]:
    """One thread: the package's bundle has TensorFlow.js and its backends in it."""
    text = base64.b64encode(path.read_bytes()).decode()
    with serve(package) as host:
        page = browser.new_page()
        (package / "bench.html").write_text(
            "<!doctype html><script src='dist/face-api.js'></script>"
        )
        page.goto(host.url + "bench.html")
        page.evaluate(
            """async () => {
                const api = window.faceapi;
                if (api.tf.setWasmPaths) api.tf.setWasmPaths("wasm/");
                // Its plain JavaScript backend is many times slower: no fair comparison.
                if (!(await api.tf.setBackend("wasm").catch(() => false))) {
                    throw new Error("this bundle has no WebAssembly backend: build it in");
                }
                await api.tf.ready();
                for (const net of ["tinyFaceDetector", "faceLandmark68Net", "ageGenderNet"]) {
                    await api.nets[net].loadFromUri("model");
                }
            }"""
        )
        found = page.evaluate(FACE_API, [text, repeats])
        page.close()
    total = round(statistics.median(found["times"]), 1)
    return {"backend": found["backend"], "faces": found["faces"], "total": total}


def table(result: dict[str, Any]) -> str:
    lines = [
        "# The page on the visitor's own device: size and speed",
        "",
        f"Written by `scripts/page_bench.py`; {result['cores']} cores, Chromium "
        f"{result['chromium']}, medians of {result['repeats']} warm runs, milliseconds. Load of "
        f"the machine before: {result['load_before']}.",
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
            cells = [f"{row[stage]:.1f}" if stage in row else "" for stage in STAGES]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--face-api", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        out = Path(name)
        build = [sys.executable, ROOT / "scripts/make_page.py"]
        subprocess.run([*build, "--out", out / "page", "--device", out / "device"], check=True)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        spec = json.loads((out / "device/device.json").read_text(encoding="utf-8"))
        pictures: dict[str, dict[str, Any]] = {}
        cores = os.cpu_count() or 1
        for title, path in PICTURES.items():
            rows = pictures.setdefault(title, {})
            for isolated in (False, True):
                count, row = page_times(browser, out / "page", path, options.repeats, isolated)
                rows[f"page, {count} thread{'s' if count > 1 else ''}"] = row
            for count in sorted({1, cores}):
                row = python_times(path, count, options.repeats)
                rows[f"Python, {count} thread{'s' if count > 1 else ''}"] = row
            if options.face_api:
                row = face_api_times(browser, options.face_api, path, options.repeats)
                rows[f"face-api 1.7.15, {row['backend']}, {row['faces']} faces found"] = row
        result = {
            "chromium": browser.version,
            "cores": cores,
            "load_before": load,
            "repeats": options.repeats,
            "folder_bytes": packed_bytes(out / "page"),
            "model_bytes": spec["model"]["bytes"],
            "pictures": pictures,
        }
        browser.close()
    RESULT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = table(result)
    RESULT.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
