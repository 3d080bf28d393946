"""``facewise thumbs``: the right faces, in order, from every kind of source."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facewise.batch.annotate import annotate
from facewise.batch.job import Job
from facewise.batch.thumbs import GREY, choose, make_sheet
from facewise.errors import OptionError, TableError


@pytest.fixture(scope="module")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("thumbs") / "t"
    annotate([str(pictures)], out, Job(shard_size=7), workers=1)
    return out


def test_faces_come_in_the_order_of_the_column(table: Path) -> None:
    ages = [a for a in pq.read_table(table)["age_years"].to_pylist() if a is not None]
    youngest = choose(table, "age_years", 5, largest=False)
    assert [face.value for face in youngest] == sorted(ages)[:5]
    oldest = choose(table, "age_years", 5, largest=True)
    assert [face.value for face in oldest] == sorted(ages, reverse=True)[:5]
    widths = [face.value for face in choose(table, "interval", 50, largest=True)]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == len(ages)


def test_each_face_of_the_sheet_is_the_one_that_its_number_says(
    table: Path, pictures: Path
) -> None:
    sheet, chosen = make_sheet(table, "detection_score", count=4, size_px=64)
    assert sheet.width == 64 * 3
    for number, face in enumerate(chosen):
        x, y = number % 3 * 64, number // 3 * (64 + 18)
        left, top, right, bottom = face.bbox
        name = face.image_id.rpartition("/")[2]
        path = next(pictures.rglob(name))
        middle = (left + right) / 2, (top + bottom) / 2
        half = max(right - left, bottom - top) * 0.75
        x0, y0, x1, y1 = (round(middle[k % 2] + (half if k > 1 else -half)) for k in range(4))
        with Image.open(path) as image:
            wanted = image.convert("RGB").crop((x0, y0, x1, y1)).resize((64, 64))
        found = np.asarray(sheet.crop((x, y, x + 64, y + 64)), np.float32)
        assert np.abs(found - np.asarray(wanted, np.float32)).mean() < 6


def test_tars_and_tables_are_read_again_and_a_lost_picture_is_grey(
    pictures: Path, tmp_path: Path
) -> None:
    files = sorted((pictures / "faces").glob("*.webp"))[:3]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in files:
            tar.add(path, path.name)
    pq.write_table(pa.table({"image": [p.read_bytes() for p in files]}), tmp_path / "a.parquet")
    for name in ("a.tar", "a.parquet"):
        annotate([str(tmp_path / name)], tmp_path / f"{name}.t", Job(), workers=1)
        sheet, _ = make_sheet(tmp_path / f"{name}.t", "sharpness", count=1)
        assert np.asarray(sheet)[:128].std() > 20
    (tmp_path / "a.tar").unlink()
    sheet, _ = make_sheet(tmp_path / "a.tar.t", "sharpness", count=1)
    assert (np.asarray(sheet)[:128, :128] == GREY).all()


def test_what_cannot_be_shown_says_why(table: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no column shoe_size"):
        choose(table, "shoe_size", 5, largest=False)
    with pytest.raises(OptionError, match="no order"):
        choose(table, "bbox", 5, largest=False)
    with pytest.raises(TableError, match="no annotated table"):
        choose(tmp_path, "age_years", 5, largest=False)


def test_the_command_writes_the_sheet_and_names_the_faces(table: Path, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "facewise", "thumbs", str(table), "--by", "abstentions"]
    done = subprocess.run(
        [*run, "--largest", "--count", "3", "--out", str(tmp_path / "s.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 128
    bad = subprocess.run([*run, "--out", "s.gif"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
