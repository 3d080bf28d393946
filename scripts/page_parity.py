"""Compare the page's pipeline with the Python one, in Chromium, on montages of the fixture faces.

    python scripts/page_parity.py --faces 200 [--write]

Fails if they differ by more than the page promises: for PNG files, the same faces and abstentions,
within 2 px and a probability of 0.01; for JPEG files, whose decoders differ, 99 % of probabilities
within 0.03. Both run the page's model; the model as shipped, with 16 instead of 12 bits per weight,
is also compared, for the record. ``--write`` stores the figures in docs/results/page-parity.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from facewise import Analyzer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser.parity import compare, page_model  # noqa: E402
from browser.static_host import serve  # noqa: E402

RESULT = ROOT / "docs/results/page-parity.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        out = Path(name)
        build: list[str | Path] = [sys.executable, ROOT / "scripts/make_page.py"]
        build += ["--out", out / "page", "--device", out / "device"]
        subprocess.run(build, check=True)
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        with serve(out / "page") as host:
            page = browser.new_page()
            page.goto(host.url)
            page.wait_for_selector("html[data-ready]", timeout=120_000)
            folder = ROOT / "tests/data/faces"
            same = Analyzer(page_model(out / "device", out), threads=1)
            analyzers = [same, Analyzer(threads=1)]
            differences, shipped = compare(page, analyzers, folder, options.faces)
        version = browser.version
        browser.close()
    spec = analyzers[-1].spec
    result = {
        "model": f"{spec.name}@{spec.version}",
        "same_weights": {kind: found.summary() for kind, found in differences.items()},
        "weights_as_shipped": {kind: found.summary() for kind, found in shipped.items()},
    }
    print(json.dumps(result, indent=1))
    if options.write:
        RESULT.write_text(json.dumps({"chromium": version, **result}, indent=1) + "\n")
    complaints = [
        f"{kind}: {line}" for kind, found in differences.items() for line in found.complaints(kind)
    ]
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
