"""The deploying files: what can be checked without building anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/check_deploy.py"


def test_the_files_keep_their_rules() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--files"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok  ") >= 20
