"""``facewise thumbs``: the right faces, in order, from every kind of source."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facewise.annotated import MANIFEST
from facewise.batch.annotate import annotate
from facewise.batch.job import Job
from facewise.batch.table import PLAN
from facewise.batch.thumbs import GREY, _cut, choose, make_sheet
from facewise.errors import OptionError, TableError

from .conftest import Command


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


def test_a_part_of_a_table_without_boxes_says_so(table: Path, tmp_path: Path) -> None:
    whole = pq.read_table(table)
    pq.write_table(whole.drop_columns(["bbox"]), tmp_path / "part.parquet")
    with pytest.raises(TableError, match="lacks the columns bbox"):
        choose(tmp_path / "part.parquet", "age_years", 5, largest=False)


def test_each_face_of_the_sheet_is_the_one_that_its_number_says(
    table: Path, pictures: Path
) -> None:
    sheet, chosen = make_sheet(table, "detection_score", count=4, size_px=64)
    assert sheet.width == 64 * 3
    for number, face in enumerate(chosen):
        x, y = number % 3 * 64, number // 3 * (64 + 18)
        name = face.image_id.rpartition("/")[2]
        path = next(pictures.rglob(name))
        with Image.open(path) as image:
            wide, high = image.size
        left, top, right, bottom = np.clip(face.bbox, 0, [wide, high, wide, high]).tolist()
        middle = (left + right) / 2, (top + bottom) / 2
        half = max(right - left, bottom - top) * 0.75
        x0, y0, x1, y1 = (round(middle[k % 2] + (half if k > 1 else -half)) for k in range(4))
        with Image.open(path) as image:
            wanted = image.convert("RGB").crop((x0, y0, x1, y1)).resize((64, 64))
        found = np.asarray(sheet.crop((x, y, x + 64, y + 64)), np.float32)
        assert np.abs(found - np.asarray(wanted, np.float32)).mean() < 6


def test_a_face_of_a_tight_picture_fills_its_tile() -> None:
    """Its box reaches past the picture on all sides; only the margin may be black."""
    image = Image.new("RGB", (100, 100), "white")
    for box in ((-60.0, -90.0, 130.0, 170.0), (-200.0, 0.0, 110.0, 100.0)):
        tile = np.asarray(_cut(image, box, 60))
        assert (tile == 255).mean() == pytest.approx(1 / 1.5**2, abs=0.05)


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
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[4:2000] = bytes(1996)
    (tmp_path / "a.parquet").write_bytes(data)
    for name, reason in (("a.tar", "No such file"), ("a.parquet", "")):
        for _ in range(2):  # damaged, then gone
            said: list[str] = []
            sheet, chosen = make_sheet(tmp_path / f"{name}.t", "sharpness", note=said.append)
            assert (np.asarray(sheet)[:128, :128] == GREY).all()
            assert len(said) == 1
            assert said[0].startswith(f"{len(chosen)} of {len(chosen)} faces are grey: ")
            assert reason in said[0]
            (tmp_path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_nobody_else_is_shown_where_a_source_changed(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    files = sorted((pictures / "faces").glob("*.webp"))[:3]
    path = tmp_path / name

    def write(files: list[Path]) -> None:
        if name == "a.parquet":
            pq.write_table(pa.table({"image": [p.read_bytes() for p in files]}), path)
            return
        with tarfile.open(path, "w") as tar:
            for number, file in enumerate(files):
                tar.add(file, f"{number}.webp")

    write(files)
    annotate([str(path)], tmp_path / "t", Job(), workers=1)
    path.rename(tmp_path / "kept")
    write(files[::-1])
    said: list[str] = []
    sheet, _ = make_sheet(tmp_path / "t", "sharpness", count=1, note=said.append)
    assert (np.asarray(sheet)[:128, :128] == GREY).all()
    assert "changed since it was annotated" in said[0]
    (tmp_path / "kept").replace(path)
    sheet, _ = make_sheet(tmp_path / "t", "sharpness", count=1)
    assert np.asarray(sheet)[:128].std() > 20


def test_the_column_that_the_table_was_made_with_is_read(pictures: Path, tmp_path: Path) -> None:
    """With two columns of pictures, it must not guess which one."""
    files = sorted((pictures / "faces").glob("*.webp"))[:3]
    blank = io.BytesIO()
    Image.new("RGB", (200, 200), "navy").save(blank, "PNG")
    columns = {"mask": [blank.getvalue()] * 3, "photo": [p.read_bytes() for p in files]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    annotate([str(tmp_path / "a.parquet")], tmp_path / "t", Job(image_column="photo"), workers=1)
    sheet, _ = make_sheet(tmp_path / "t", "sharpness", count=1)
    assert np.asarray(sheet)[:128].std() > 20


def test_faces_of_video_are_cut_from_their_frames(pictures: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with Image.open(pictures / "astronaut.jpg") as image:
        rgb = np.asarray(image.convert("RGB").resize((256, 256)))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for k in range(20):
            darker = (rgb * (1 - 0.04 * k)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(darker, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    annotate([str(tmp_path / "a.mp4")], tmp_path / "t", Job(frames_per_second=2.0), workers=1)
    said: list[str] = []
    sheet, chosen = make_sheet(
        tmp_path / "t", "frame_index", count=4, size_px=64, largest=True, note=said.append
    )
    assert not said
    assert [face.value for face in chosen] == sorted((f.value for f in chosen), reverse=True)
    assert chosen[0].value > chosen[-1].value
    last, first = sheet.crop((0, 0, 64, 64)), sheet.crop((0, 82, 64, 146))
    assert np.asarray(first).mean() > 1.5 * np.asarray(last).mean() > 15
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:2000])
    make_sheet(tmp_path / "t", "frame_index", note=said.append)
    assert "faces are grey" in said[0]


def test_a_damaged_part_or_plan_is_one_sentence_and_an_unfinished_table_a_note(
    table: Path, tmp_path: Path, facewise: Command
) -> None:
    shutil.copytree(table, tmp_path / "t")
    part = sorted((tmp_path / "t").glob("part-*"))[-1]
    whole = part.read_bytes()
    part.unlink()
    said: list[str] = []
    make_sheet(tmp_path / "t", "sharpness", count=1, note=said.append)
    assert "is not finished (3 of 4 parts" in said[0]
    done = facewise(
        "thumbs", tmp_path / "t", "--by", "sharpness", "--count", 1, "--out", tmp_path / "s.png"
    )
    assert done.returncode == 0
    assert "note: t is not finished" in done.stderr
    part.write_bytes(whole[:-30])
    with pytest.raises(TableError, match="is damaged"):
        make_sheet(tmp_path / "t", "sharpness")
    part.write_bytes(whole)
    plan = tmp_path / "t" / PLAN
    plan.write_bytes(plan.read_bytes()[:-30])
    with pytest.raises(TableError, match="is damaged"):
        make_sheet(tmp_path / "t", "sharpness")


def test_a_part_alone_does_not_say_where_its_pictures_are(table: Path, tmp_path: Path) -> None:
    part = next(table.glob("part-*.parquet"))
    with pytest.raises(TableError, match=r"is a file, but _plan and .* name the folder; for some"):
        make_sheet(part, "age_years")
    (tmp_path / "some").mkdir()
    shutil.copy(part, tmp_path / "some" / "part-0.parquet")
    for name in (PLAN, MANIFEST):
        shutil.copy(table / name, tmp_path / "some")
    assert make_sheet(tmp_path / "some", "age_years")[1]


def test_what_cannot_be_shown_says_why(table: Path, tmp_path: Path) -> None:
    assert len(choose(table, "age_years", 2.0, largest=False)) == 2  # type: ignore[arg-type]
    for count in (0, 1.5, float("nan")):
        with pytest.raises(OptionError, match="count must be a whole number, 1 or more"):
            choose(table, "age_years", count, largest=False)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no column shoe_size"):
        choose(table, "shoe_size", 5, largest=False)
    with pytest.raises(OptionError, match="no order"):
        choose(table, "bbox", 5, largest=False)
    with pytest.raises(
        OptionError, match="abstained has no order: choose abstentions, their number"
    ):
        choose(table, "abstained", 5, largest=False)
    with pytest.raises(TableError, match="not an annotated table"):
        choose(tmp_path, "age_years", 5, largest=False)


def test_the_command_writes_the_sheet_and_names_the_faces(
    table: Path, pictures: Path, tmp_path: Path, facewise: Command
) -> None:
    sheet_of = ("thumbs", table, "--by", "abstentions")
    done = facewise(*sheet_of, "--largest", "--count", 3, "--out", tmp_path / "new" / "s.png")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["number", "abstentions", "image_id", "face_index"]
    assert [line[0] for line in lines[1:]] == ["1", "2", "3"]
    assert {len(line) for line in lines} == {4}
    with Image.open(tmp_path / "new" / "s.png") as sheet:
        assert sheet.width > 128
    again = facewise(*sheet_of, "--count", 1, "--out", tmp_path / "new" / "s.png")
    assert again.returncode == 0
    photo = shutil.copy(pictures / "astronaut.jpg", tmp_path / "photo.png")
    data = Path(photo).read_bytes()
    done = facewise(*sheet_of, "--out", photo)
    assert done.returncode == 2
    assert "did not write it: choose another --out" in done.stderr
    assert Path(photo).read_bytes() == data
    bad = facewise(*sheet_of, "--out", "s.gif")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
