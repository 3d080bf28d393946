"""``facewise audit`` from pictures to report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def audit(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facewise", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_table_becomes_a_summary_a_report_and_json(table: Path, tmp_path: Path) -> None:
    done = audit(table, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert figures["images"] == 24
    assert figures["faces"] >= 20
    for name in ("age", "gender", "ethnicity"):
        for kind in ("naive", "corrected"):
            shares = [row[kind]["share"] for row in figures["attributes"][name]]
            assert sum(shares) == pytest.approx(1, abs=1e-6)
        for row in figures["attributes"][name]:
            cell = row["corrected"]
            assert 0 <= cell["low"] <= cell["high"] <= 1
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page or "data:image" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_a_table_against_itself_has_changed_by_nothing_and_says_how_surely(
    table: Path, tmp_path: Path
) -> None:
    done = audit(table, "--against", table, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    change = json.loads((tmp_path / "report.json").read_text())["change"]
    women = next(row for row in change["gender"] if row["label"] == "female")
    assert women["change"] == pytest.approx(0)
    # Some twenty faces tell a share to some twenty points; equal draws would have said zero.
    assert women["high"] - women["low"] > 0.1


def test_a_reference_is_compared_and_a_bad_one_explained(table: Path, tmp_path: Path) -> None:
    reference = tmp_path / "census.csv"
    reference.write_text("attribute,label,share\ngender,male,0.49\ngender,female,0.51\n")
    done = audit(table, "--against", reference, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["against_reference"]["gender"]
    assert {row["label"] for row in rows} == {"male", "female"}
    reference.write_text("who,how many\nmen,3\n")
    bad = audit(table, "--against", reference)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    assert audit(tmp_path).returncode == 2


def test_without_the_extra_it_says_what_to_install(table: Path) -> None:
    script = "import sys; sys.modules['pyarrow'] = None; from facewise.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "audit", str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "facewise[batch]" in done.stderr
    assert "Traceback" not in done.stderr
