"""The deployment files: what can be checked without building anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/check_deploy.py"


def test_the_files_keep_their_rules() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--files"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") == 31


def test_the_health_check_asks_at_the_port_that_is_set(start_server: Callable[..., Any]) -> None:
    line = (ROOT / "Dockerfile").read_text().partition("HEALTHCHECK")[2].partition("CMD ")[2]
    _, *arguments = json.loads(line.partition("\n")[0])
    port = start_server().url.rstrip("/").rpartition(":")[2]
    for number, status in ((port, 0), ("1", 1)):
        environment = {**os.environ, "FACEWISE_PORT": number}
        done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True)
        assert done.returncode == status, done.stderr
    # Where the server takes its default instead, so does the check.
    code = (
        f"import urllib.request as u; u.urlopen = lambda url, timeout: print(url); {arguments[1]}"
    )
    for number in ("", "tcp://10.96.1.2:80"):
        environment = {**os.environ, "FACEWISE_PORT": number}
        said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert said.split() == ["http://127.0.0.1:8000/healthz"]
