"""Table names that are not UTF-8, which a disk may hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facewise.batch.thumbs import choose
from facewise.errors import OptionError


def facewise(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facewise", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tables_reports_and_sheets_may_have_names_that_are_no_utf_8(
    pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"f\xe9")
    table = folder / os.fsdecode(b"t\xe9.table")
    faces = sorted((pictures / "faces").glob("*.webp"))[:3]
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system takes no name that is no UTF-8")
    begin = ("annotate", *faces, faces[0], "--out", table, "--workers", "1")
    for annotated in (facewise(*begin), facewise(*begin)):
        assert annotated.returncode == 0, annotated.stderr
    report = folder / os.fsdecode(b"r\xe9")
    for _ in range(2):  # the second replaces the first
        audited = facewise("audit", table, "--out", report)
        assert audited.returncode == 0, audited.stderr
    assert r"Who is in t\udce9.table?" in report.with_suffix(".html").read_text(encoding="utf-8")
    assert json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["images"] == 3
    drawn = facewise("thumbs", table, "--by", "age_years", "--out", folder / "s.png")
    assert drawn.returncode == 0, drawn.stderr
    assert "grey" not in drawn.stderr
    with pytest.raises(OptionError, match="no column colour; it has image_id"):
        choose(table, "colour", 1, largest=False)
