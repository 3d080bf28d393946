"""What the Makefile does before any package is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
# As `python3 -m venv FOLDER`: add pip to the environment.
test "$1 $2" = "-m venv" && ln -s python "$3/bin/pip"
"""


@pytest.mark.parametrize("target", [".app", ".dev"])
def test_an_environment_that_was_cut_off_is_finished(target: str, tmp_path: Path) -> None:
    """Debian's Python without python3-venv, or Ctrl-C, leaves one without pip."""
    make = shutil.which("make") or pytest.skip("make is not installed")
    venv, python = tmp_path / "venv", tmp_path / "python"
    (venv / "bin").mkdir(parents=True)
    for path, text in ((venv / "bin/python", "#!/bin/sh\n"), (python, PYTHON)):
        path.write_text(text)
        path.chmod(0o755)
    done = subprocess.run(
        [make, "-C", ROOT, f"VENV={venv}", f"PYTHON={python}", venv / target],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (venv / target).exists()


def test_the_data_of_fairface_may_be_a_folder(tmp_path: Path) -> None:
    make = shutil.which("make") or pytest.skip("make is not installed")
    for name in ("FairFace", "fairface.tar"):  # if both are there, the tar
        (tmp_path / name).mkdir()
        said = subprocess.check_output(
            [
                make,
                "-C",
                ROOT,
                "--dry-run",
                "--no-print-directory",
                f"DATA={tmp_path}",
                "fairface-only",
            ],
            text=True,
        )
        assert f"--data {tmp_path / name} --labels" in said
        assert said.rstrip().endswith("scripts/readme_figures.py")
