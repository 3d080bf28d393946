"""``facewise serve`` opens the page for a person at a terminal, and for nobody else."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")


@pytest.mark.parametrize("at_a_terminal", [True, False])
def test_the_page_opens_at_a_terminal_only(at_a_terminal: bool, tmp_path: Path) -> None:
    """The server answers while the browser is still running: this one blocks until it is read."""
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    os.mkfifo(opened)
    browser.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{opened}'\n")
    browser.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FACEWISE_")}
    environment = {**clean, "BROWSER": f"{browser} %s", "DISPLAY": ":99", "FACEWISE_THREADS": "1"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "facewise", "serve", "--port", "0"],
        stdout=theirs if at_a_terminal else subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        try:
            os.close(theirs)
            if at_a_terminal:
                said = os.read(ours, 4096).decode()
            else:
                assert process.stdout is not None
                said = process.stdout.readline().decode()
            url = said.split()[3]
            assert httpx.get(url, trust_env=False, timeout=60).status_code == 200
            reader = os.open(opened, os.O_RDONLY | os.O_NONBLOCK)
            if at_a_terminal:
                assert select.select([reader], [], [], 60)[0], "no browser was started"
                assert os.read(reader, 4096).decode() == url
        finally:
            process.terminate()
            process.wait()
    # Empty if nobody opened it for writing, or if nobody has it open any more.
    assert os.read(reader, 4096) == b""
    os.close(reader)
    os.close(ours)
