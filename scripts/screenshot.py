"""Write docs/images/app.png: the page with the astronaut's portrait, in a real browser.

python scripts/screenshot.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]


def main() -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "facewise", "serve", "--port", "0", "--no-open"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        match = re.search(r"http://\S+", server.stdout.readline())
        assert match is not None, "the server did not start"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1180, "height": 900})
            page.goto(match.group())
            page.click("[data-example='portrait.jpg']")
            page.wait_for_selector(".card")
            page.hover(".card")
            out = ROOT / "docs/images/app.png"
            out.parent.mkdir(parents=True, exist_ok=True)
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=out)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
