"""Damaged, unreadable, linked or changed sources: no picture is silently lost or misnamed."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facewise.annotated import MANIFEST, part_files
from facewise.batch import picture_tables, retry, storage
from facewise.batch.annotate import annotate
from facewise.batch.job import CHUNK, FILE, MISSING, PROBLEM, TAR, Item, Job, Result, Task
from facewise.batch.plan import open_plan, write_plan
from facewise.batch.run import Run, Summary
from facewise.batch.sources import list_items
from facewise.batch.table import LOCK, PARTS, PLAN, TableFolder, finished_images, part_name
from facewise.batch.watch import Watch
from facewise.batch.work import Annotator
from facewise.data.sets import read_pictures
from facewise.data.tars import SPARSE
from facewise.data.walk import SPECIAL, Skipped
from facewise.errors import (
    CorruptImageError,
    MissingExtraError,
    OptionError,
    SourceError,
    TableError,
)

from .conftest import AGE, Command, make_table, make_tar, rows_of, write_tar

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem fails as a disk does")


def listed(*sources: Path | str, skipped: Skipped | None = None) -> list[Item]:
    names = [str(source) for source in sources]
    return list(list_items(names, AGE, Skipped() if skipped is None else skipped, {}))


def contents(items: list[Item]) -> dict[str, bytes]:
    """The bytes of each picture in a tar, by its name there."""
    return {
        item.image_id.rpartition("::")[2]: storage.read_range(
            item.path, item.size, offset=item.offset
        )
        for item in items
        if item.kind == TAR
    }


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


THREE: dict[str, Any] = {"a.jpg": b"a" * 700, "b.jpg": b"b" * 700, "c.jpg": b"c" * 700}


def test_a_tar_that_is_whole_has_no_problem_however_long_its_end_mark_is(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    start = write_tar(path, THREE)
    whole = path.read_bytes()
    end = start["c.jpg"] + 512 + 1024
    for data in (whole, whole[: end + 1024], whole[: end + 512]):
        path.write_bytes(data)
        assert contents(listed(path)) == THREE
        assert len(listed(path)) == 3


@pytest.mark.parametrize("links", [False, True])
def test_a_tar_cut_off_between_two_members_says_so(links: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    members: dict[str, Any] = {"l.jpg": link("a.jpg")} if links else {}
    start = write_tar(path, members | THREE)
    path.write_bytes(path.read_bytes()[: start["c.jpg"]])
    *found, problem = listed(path)
    assert [item.kind for item in found] == [TAR] * (2 + links)
    assert problem.kind == PROBLEM
    assert f"no end mark at byte {start['c.jpg']:,}" in problem.path
    with pytest.raises(OptionError, match="no end mark at byte"):
        read_pictures(path)


def test_a_tar_damaged_or_cut_at_any_header_says_where(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    start = write_tar(path, THREE)
    whole = path.read_bytes()
    second = start["b.jpg"]
    zeros = whole[:second] + bytes(512) + whole[second + 512 :]  # a hole, not an end mark
    flipped = whole[: second + 3] + b"\xff" + whole[second + 4 :]
    cut = whole[: second + 100]
    for data, what in ((flipped, "no header"), (zeros, "no header"), (cut, "ends within")):
        path.write_bytes(data)
        first, problem = listed(path)
        assert first.image_id.endswith("::a.jpg")
        assert problem.kind == PROBLEM
        assert what in problem.path
        assert f"at byte {second:,}" in problem.path
        assert "copy it again" in problem.path
    path.write_bytes(whole[: start["c.jpg"] + 512 + 10])
    *_, problem = listed(path)
    assert problem.kind == PROBLEM


def test_what_follows_the_end_mark_of_a_tar_is_not_lost_in_silence(tmp_path: Path) -> None:
    """A page lost by a disk reads as zeros; ``cat`` appends a tar after another's end mark."""
    path = tmp_path / "t.tar"
    start = write_tar(path, {name: data * 4 for name, data in THREE.items()})
    whole = path.read_bytes()
    second = start["b.jpg"]
    lost = whole[:second] + bytes(1024) + whole[second + 1024 :]
    for data, at in ((lost, second + 1024), (whole + whole, len(whole))):
        path.write_bytes(data)
        *found, problem = listed(path)
        assert [item.kind for item in found] == [TAR] * (3 if data is not lost else 1)
        assert problem.kind == PROBLEM
        assert f"data after the end mark at byte {at:,}" in problem.path
    path.write_bytes(whole + bytes(3 << 20))
    assert len(listed(path)) == 3


def test_links_in_a_tar_are_the_pictures_they_lead_to(tmp_path: Path) -> None:
    hard = tarfile.LNKTYPE
    members: dict[str, Any] = {
        "x/early.jpg": link("../blobs/1234"),
        "x/a.jpg": b"picture a",
        "blobs/1234": b"a picture without an ending",
        "hard.jpg": link("x/a.jpg", hard),
        "y/hard.jpg": link("x/a.jpg", hard),  # from the root, not from y
        "soft.jpg": link("./x/a.jpg"),
        "twice.jpg": link("hard.jpg"),
        "y//odd.jpg": link("../x/a.jpg"),
        "over.jpg": link("y/odd.jpg"),
        "loop.jpg": link("pool.jpg"),
        "pool.jpg": link("loop.jpg"),
        "out.jpg": link("/etc/passwd"),
        "notes.txt": link("x/a.jpg"),
        "folder": link("", tarfile.DIRTYPE),
        "folder.jpg": link("", tarfile.DIRTYPE),
        "device.jpg": link("", tarfile.CHRTYPE),
        "./dot.jpg": b"picture dot",
        "to_dot.jpg": link("dot.jpg"),
    }
    write_tar(tmp_path / "t.tar", members)
    skipped = Skipped()
    items = listed(tmp_path / "t.tar", skipped=skipped)
    assert contents(items) == {
        "x/a.jpg": b"picture a",
        "x/early.jpg": b"a picture without an ending",
        "hard.jpg": b"picture a",
        "y/hard.jpg": b"picture a",
        "soft.jpg": b"picture a",
        "twice.jpg": b"picture a",
        "y//odd.jpg": b"picture a",
        "over.jpg": b"picture a",
        "dot.jpg": b"picture dot",
        "to_dot.jpg": b"picture dot",
    }
    nowhere = {i.image_id.rpartition("::")[2]: i.path for i in items if i.kind == MISSING}
    assert list(nowhere) == ["loop.jpg", "pool.jpg", "out.jpg"]
    assert nowhere["out.jpg"] == "a link to /etc/passwd, which is no file in the tar"
    assert skipped == {"no ending": 1, ".txt": 1, SPECIAL: 1}
    assert str(skipped).endswith("1 pipe, socket or device left out")


def sparse_pax(name: str) -> tuple[tarfile.TarInfo, bytes]:
    """Two 512-byte pieces of a 4,608-byte file, after a map of them, as ``tar -S`` writes them."""
    info = tarfile.TarInfo(name)
    keys = {"major": "1", "minor": "0", "name": name, "realsize": "4608"}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in keys.items()}
    return info, b"2\n0\n512\n4096\n512\n".ljust(512, b"\0") + b"1" * 512 + b"2" * 512


class SparseHeader(tarfile.TarInfo):
    """The same file in GNU tar's older format, with the map in the header."""

    def tobuf(self, *args: Any, **options: Any) -> bytes:
        header = bytearray(super().tobuf(*args, **options))
        for at, number in enumerate((0, 512, 4096, 512)):
            header[386 + 12 * at : 398 + 12 * at] = f"{number:011o}\0".encode()
        header[483:495] = f"{4608:011o}\0".encode()
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        return bytes(header)


def sparse_gnu(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = SparseHeader(name)
    info.type = tarfile.GNUTYPE_SPARSE
    return info, b"1" * 512 + b"2" * 512


@pytest.mark.parametrize("sparse", [sparse_pax, sparse_gnu])
def test_sparse_members_of_a_tar_are_rows_that_say_so(
    sparse: Callable[[str], tuple[tarfile.TarInfo, bytes]], annotator: Annotator, tmp_path: Path
) -> None:
    """Their bytes are in pieces: a plain read from the start would run into the next member."""
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "sparse.jpg", "b.jpg", "sparse.jpg"):
            info, data = sparse(name) if "sparse" in name else (tarfile.TarInfo(name), b"whole")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in ("link.jpg", "again.jpg"):
            info = link("sparse.jpg" if name == "link.jpg" else "link.jpg")
            info.name = name
            tar.addfile(info)
    with tarfile.open(path) as tar:
        assert tar.getmember("sparse.jpg").size == 4608
    items = listed(path)
    assert contents(items) == {"a.jpg": b"whole", "b.jpg": b"whole"}
    bad = [item for item in items if item.kind != TAR]
    names = [item.image_id.rpartition("::")[2] for item in bad]
    assert names == ["sparse.jpg", "sparse.jpg", "link.jpg", "again.jpg"]
    for row in rows_of(annotator, bad):
        assert row["error_code"] == "unsupported_format"
        assert row["error_message"] == "stored sparse: make the tar again without -S"
    data_set = read_pictures(path)
    assert [sample.key for sample in data_set.samples] == ["a.jpg", "b.jpg"]
    assert dict(data_set.skipped) == dict.fromkeys(names, SPARSE)


def test_of_a_tars_members_of_one_name_the_first_counts_whatever_the_others_are(
    tmp_path: Path,
) -> None:
    """Files, links that lead to a file or nowhere, and sparse files, as ``tar -r`` adds them."""
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for info, data in (
            (link("nowhere.jpg"), b""),
            (tarfile.TarInfo(), b"a picture"),
            sparse_pax("a.jpg"),
            (link("b.jpg"), b""),
        ):
            info.name, info.size = "a.jpg", len(data)
            tar.addfile(info, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("b.jpg"))
    with TableFolder(tmp_path / "plan") as table:
        digest, dropped = write_plan(table, listed(path), 9)
        plan = open_plan(table, digest, 9)
        items = plan.items(0)
        plan.close()
    assert contents(items) == {"a.jpg": b"a picture", "b.jpg": b""}
    assert (len(items), dropped) == (2, 2)
    data_set = read_pictures(path)
    assert data_set.skipped == (("a.jpg", "a second file of that name"),) * 2


def test_links_before_the_damage_of_a_tar_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    members: dict[str, Any] = {"a.jpg": b"a", "hard.jpg": link("a.jpg", tarfile.LNKTYPE)}
    start = write_tar(path, members | {"b.jpg": b"b"})
    path.write_bytes(path.read_bytes()[: start["b.jpg"] + 9])
    assert [item.kind for item in listed(path)] == [TAR, TAR, PROBLEM]


def picture(row: int) -> bytes:
    return bytes([row % 251]) * 400 + str(row).encode()


def read_all(reader: picture_tables.RowReader, places: list[tuple[int, int]]) -> list[bytes | None]:
    """Bytes of every row, in order; None for a damaged row."""
    out: list[bytes | None] = []
    for group, within in places:
        try:
            out.append(reader.read(group, within, 1 << 20))
        except CorruptImageError:
            out.append(None)
    return out


def damage_group(path: Path, group: int, share: float) -> None:
    """Overwrite a row group's picture bytes from the fraction ``share`` onwards."""
    column = pq.read_metadata(path).row_group(group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    first = start + int(column.total_compressed_size * share)
    end = start + column.total_compressed_size
    data[first:end] = b"\xff" * (end - first)
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_row_group_costs_its_own_rows_and_none_gets_anothers(
    tmp_path: Path, share: float
) -> None:
    path = tmp_path / "t.parquet"
    expected = [picture(row) for row in range(300)]
    pq.write_table(
        pa.table({"image": expected}),
        path,
        row_group_size=100,
        data_page_size=2048,
        write_batch_size=4,
        use_dictionary=False,
    )
    damage_group(path, 1, share)
    places = [(row // 100, row % 100) for row in range(300)]
    reader = picture_tables.RowReader(str(path), None)
    found = read_all(reader, places)
    lost = [row for row, data in enumerate(found) if data is None]
    assert lost
    assert lost == list(range(lost[0], 200))  # to the group's end, and no further
    assert lost[0] == 100 if share == 0 else 100 < lost[0] <= 150
    assert [d for d in found if d is not None] == expected[: lost[0]] + expected[200:]
    # A row's result does not depend on which rows were read before.
    assert read_all(reader, places[::-1])[::-1] == found
    reader.close()


def test_a_damaged_batch_of_an_arrow_stream_gives_no_other_batchs_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    expected = [picture(row) for row in range(80)]
    held = pa.table({"image": expected})
    ends = []
    with path.open("wb") as file:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(file, held.schema, options=options) as writer:
            for batch in held.to_batches(max_chunksize=20):
                writer.write_batch(batch)
                ends.append(file.tell())
    data = bytearray(path.read_bytes())
    frame = data.index(b"\x04\x22\x4d\x18", ends[0])  # LZ4, in the second batch's body
    data[frame : frame + 4] = bytes(4)
    path.write_bytes(data)
    places = [(row // 20, row % 20) for row in range(80)]
    reader = picture_tables.RowReader(str(path), None)
    found = read_all(reader, places)
    assert found == expected[:20] + [None] * 60
    assert read_all(reader, places[::-1])[::-1] == found
    reader.close()


def test_row_groups_that_cost_memory_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [{"bytes": bytes([row]) * 1000, "path": str(row)} for row in range(80)]
    table = pa.table({"image": held, "more": ["x" * 9000] * 80})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False)
    listed(tmp_path / "t.parquet")
    assert not caplog.messages
    monkeypatch.setattr(picture_tables, "LARGE_GROUP", 40_000)
    listed(tmp_path / "t.parquet")
    (said,) = caplog.messages
    assert "t.parquet: a row group holds 0 MB of pictures" in said
    assert "row_group_size=9," in said  # a quarter of the limit; rows of 1,000 bytes and a path
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, row_group_size=9)
    listed(tmp_path / "t.parquet")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_row_without_a_path_is_one_that_says_so(kind: pa.DataType, tmp_path: Path) -> None:
    """It is neither a file called None nor the table's folder."""
    path = tmp_path / "t.parquet"
    names = pa.array(["a.jpg", None, "", " "], kind)
    pq.write_table(pa.table({"path": names, "id": ["a", "b", "c", "d"]}), path)
    first, *others = listed(path)
    assert (first.image_id, first.kind, first.path) == ("a.jpg", FILE, str(tmp_path / "a.jpg"))
    assert [item.image_id for item in others] == [f"{path}::{row}" for row in (1, 2, 3)]
    assert {(item.kind, item.path) for item in others} == {(MISSING, "the table's row has no path")}
    keyed = list(list_items([str(path)], Job(id_column="id"), Skipped(), {}))
    assert [item.image_id for item in keyed] == ["a", "b", "c", "d"]


def test_rows_of_a_vanished_table_and_of_missing_links_are_not_found(
    annotator: Annotator, pictures: Path, tmp_path: Path
) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:2]
    stays = tmp_path / "stays.parquet"
    goes = tmp_path / "goes.parquet"
    for path in (stays, goes):
        pq.write_table(pa.table({"image": [face.read_bytes() for face in faces]}), path)
    kept, gone = listed(stays), listed(goes)
    goes.unlink()
    write_tar(tmp_path / "t.tar", {"x.jpg": link("gone.jpg")})
    items = [kept[0], *gone, kept[1], Item("file", FILE, str(tmp_path / "gone.jpg"))]
    found = rows_of(annotator, items + listed(tmp_path / "t.tar"))
    codes = [row["error_code"] for row in found]
    assert codes == [None, *["image_not_found"] * 2, None, *["image_not_found"] * 2]
    assert found[1]["error_message"] == found[4]["error_message"]
    assert "which is no file in the tar" in found[5]["error_message"]
    assert not any(str(tmp_path) in (row["error_message"] or "") for row in found)


def test_a_table_that_shrank_meanwhile_is_a_row_that_says_so(
    annotator: Annotator, pictures: Path, tmp_path: Path
) -> None:
    face = next((pictures / "faces").glob("*.webp")).read_bytes()
    path = tmp_path / "t.arrow"
    held = pa.table({"image": [face, face]})
    for count in (2, 1):
        with pa.ipc.new_stream(str(path), held.schema) as writer:
            writer.write_table(held.slice(0, count), max_chunksize=1)
        if count == 2:
            items = listed(path)
    first, second = rows_of(annotator, items)
    assert first["error_code"] is None
    assert "shorter than it was" in second["error_message"]


@LINUX
def test_a_source_that_fails_for_now_ends_the_command_and_is_listed_again(
    pictures: Path, tmp_path: Path, facewise: Command
) -> None:
    source, table = tmp_path / "images.parquet", tmp_path / "t"
    annotate = ("annotate", source, "--out", table, "--attributes", "age", "--workers", 1)
    source.symlink_to("/proc/self/mem")
    failed = facewise(*annotate)
    assert failed.returncode == 1
    assert f"facewise: {source}: cannot be read (" in failed.stderr
    assert "run the same command again" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (table / PLAN).exists()
    source.unlink()
    face = (pictures / "astronaut.jpg").read_bytes()
    pq.write_table(pa.table({"image": [face]}), source)
    done = facewise(*annotate)
    assert done.returncode == 0, done.stderr
    assert "1 image, 1 face, 0 without a face, 0 errors" in done.stdout


@LINUX
@pytest.mark.parametrize("name", ["t.tar", "t.parquet", "t.arrow", "t.txt"])
def test_a_failing_read_is_no_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(SourceError, match=rf"{name}: cannot be read \("):
        listed(tmp_path / name)


@pytest.mark.parametrize("name", ["t.tar", "t.parquet", "t.arrow"])
def test_a_file_of_another_kind_is_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no such thing" * 100)
    (item,) = listed(tmp_path / name)
    assert item.kind == PROBLEM
    assert "damaged" in item.path


def test_a_list_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(SourceError, match=r"list\.txt: cannot be read \(No such file") as caught:
        annotate([str(tmp_path / "list.txt")], tmp_path / "t", AGE)
    assert "written" not in str(caught.value)


def make_csv(path: Path, faces: list[Path]) -> None:
    path.write_text("\n".join(["path", *map(str, faces)]))


def make_list(path: Path, faces: list[Path]) -> None:
    path.write_text("\n".join(map(str, faces)))


def make_path_table(path: Path, faces: list[Path]) -> None:
    pq.write_table(pa.table({"path": [str(face) for face in faces]}), path)


@pytest.mark.parametrize(("name", "make"), [("t.tar", make_tar), ("t.parquet", make_table)])
def test_a_run_does_not_go_on_with_a_source_that_changed(
    name: str, make: Callable[[Path, list[Path]], None], pictures: Path, tmp_path: Path
) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    source, out = tmp_path / name, tmp_path / "out"
    make(source, faces)
    annotate([str(source)], out, AGE, workers=1)
    before = (out / part_name(1)).read_bytes()
    (out / part_name(1)).unlink()  # as if the run had been stopped
    source.rename(tmp_path / "kept")
    make(source, faces[::-1])
    with pytest.raises(TableError, match=rf"{name} changed since .*another table"):
        annotate([str(source)], out, AGE, workers=1)
    (tmp_path / "kept").replace(source)
    assert annotate([str(source)], out, AGE, workers=1).annotated == 2
    assert (out / part_name(1)).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "make"),
    [("t.txt", make_list), ("t.csv", make_csv), ("t.parquet", make_path_table)],
)
def test_a_run_goes_on_with_a_list_that_changed_or_is_gone(
    name: str, make: Callable[[Path, list[Path]], None], pictures: Path, tmp_path: Path
) -> None:
    """The plan holds its paths, and files added since need another table."""
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    source, out, notes = tmp_path / name, tmp_path / "out", list[str]()
    make(source, faces[:3])
    annotate([str(source)], out, AGE, workers=1)
    before = {part.name: part.read_bytes() for part in out.glob("part-*")}
    (out / part_name(1)).unlink()  # as if the run had been stopped
    make(source, faces[::-1])
    assert annotate([str(source)], out, AGE, workers=1, note=notes.append).annotated == 1
    (out / part_name(0)).unlink()
    source.unlink()
    assert annotate([str(source)], out, AGE, workers=1).annotated == 2
    assert {part.name: part.read_bytes() for part in out.glob("part-*")} == before
    assert any("files added since, also to lists, need another table" in note for note in notes)


def test_a_run_does_not_go_on_without_its_folder(pictures: Path, tmp_path: Path) -> None:
    """Each picture would become an error, as where a disk is not mounted."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for face in sorted((pictures / "faces").glob("*.webp"))[:4]:
        shutil.copy(face, photos)
    annotate([str(photos)], out, AGE, workers=1)
    (out / part_name(1)).unlink()  # as if the run had been stopped
    photos.rename(tmp_path / "away")
    with pytest.raises(OptionError, match="no such file or folder"):
        annotate([str(photos)], out, AGE, workers=1)
    assert finished_images(out) == 2
    (tmp_path / "away").rename(photos)
    assert annotate([str(photos)], out, AGE, workers=1).annotated == 2


@pytest.mark.parametrize(("name", "make"), [("t.tar", make_tar), ("t.parquet", make_table)])
def test_a_source_replaced_during_a_run_does_not_count(
    name: str, make: Callable[[Path, list[Path]], None], pictures: Path, tmp_path: Path
) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    sources, out = [str(faces[0]), str(faces[1]), str(tmp_path / name)], tmp_path / "out"
    make(tmp_path / name, faces)

    def replace(done: int, total: int) -> None:
        if not (tmp_path / "kept").exists():
            (tmp_path / name).rename(tmp_path / "kept")
            make(tmp_path / name, faces[::-1])

    with pytest.raises(TableError, match=rf"{name} changed while .* 2 parts do not count"):
        annotate(sources, out, AGE, workers=1, progress=replace)
    with pytest.raises(TableError, match=f"{name} changed since"):
        annotate(sources, out, AGE, workers=1)
    (tmp_path / "kept").replace(tmp_path / name)
    assert annotate(sources, out, AGE, workers=1).annotated == 4
    annotate(sources, tmp_path / "quiet", AGE, workers=1)
    for shard in range(3):
        assert (out / part_name(shard)).read_bytes() == (
            tmp_path / "quiet" / part_name(shard)
        ).read_bytes()


def test_parts_that_do_not_count_are_read_by_nobody(pictures: Path, tmp_path: Path) -> None:
    """The tar is replaced after they were written."""
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    sources, out = [str(faces[0]), str(faces[1]), str(tmp_path / "t.tar")], tmp_path / "out"
    make_tar(tmp_path / "t.tar", faces)

    def replace(done: int, total: int) -> None:
        if done == total:
            make_tar(tmp_path / "t.tar", faces[::-1])

    with pytest.raises(TableError, match="2 parts do not count"):
        annotate(sources, out, AGE, workers=1, progress=replace)
    assert [part.name for part in part_files(out)] == [part_name(0)]
    assert finished_images(out) == 2


@pytest.mark.parametrize(("name", "make"), [("t.tar", make_tar), ("t.parquet", make_table)])
def test_a_source_replaced_during_a_run_that_is_stopped_and_put_back_does_not_count(
    name: str, make: Callable[[Path, list[Path]], None], pictures: Path, tmp_path: Path
) -> None:
    """Restored as the message advises: results from the other file are computed again."""
    faces = sorted((pictures / "faces").glob("*.webp"))[:6]
    sources, out = [str(faces[0]), str(faces[1]), str(tmp_path / name)], tmp_path / "out"
    make(tmp_path / name, faces)

    def replace(done: int, total: int) -> None:
        if not (tmp_path / "kept").exists():
            (tmp_path / name).rename(tmp_path / "kept")
            make(tmp_path / name, faces[::-1])
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate(sources, out, AGE, workers=1, progress=replace)
    with pytest.raises(TableError, match=f"{name} changed since .*restore the old file"):
        annotate(sources, out, AGE, workers=1)
    (tmp_path / "kept").replace(tmp_path / name)
    assert annotate(sources, out, AGE, workers=1).annotated == 6
    annotate(sources, tmp_path / "quiet", AGE, workers=1)
    for shard in range(4):
        assert (out / part_name(shard)).read_bytes() == (
            tmp_path / "quiet" / part_name(shard)
        ).read_bytes()


@pytest.mark.parametrize("back", [False, True])
def test_parts_finished_before_their_source_was_gone_are_kept(
    back: bool, pictures: Path, tmp_path: Path
) -> None:
    """As a disk that is unmounted, perhaps only for a moment."""
    faces = sorted((pictures / "faces").glob("*.webp"))[:6]
    disk, away, out = tmp_path / "disk", tmp_path / "away", tmp_path / "out"
    disk.mkdir()
    make_tar(disk / "t.tar", faces)

    def unmount(done: int, total: int) -> None:
        if done == 2:
            disk.rename(away)
        if back and done == 4:
            away.rename(disk)

    with pytest.raises(TableError, match=r"t\.tar was gone .* 2 parts are missing.*Put it back"):
        annotate([str(disk / "t.tar")], out, AGE, workers=1, progress=unmount)
    assert [part.name for part in part_files(out)] == [part_name(0)]
    assert finished_images(out) == 2
    if not back:
        away.rename(disk)
    assert annotate([str(disk / "t.tar")], out, AGE, workers=1).annotated == 4
    annotate([str(disk / "t.tar")], tmp_path / "quiet", AGE, workers=1)
    for shard in range(3):
        assert (out / part_name(shard)).read_bytes() == (
            tmp_path / "quiet" / part_name(shard)
        ).read_bytes()


def test_a_source_that_is_gone_when_all_is_read_does_not_matter(
    pictures: Path, tmp_path: Path
) -> None:
    make_tar(tmp_path / "t.tar", sorted((pictures / "faces").glob("*.webp"))[:4])

    def remove(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "t.tar").unlink()

    out = tmp_path / "out"
    summary = annotate([str(tmp_path / "t.tar")], out, AGE, workers=1, progress=remove)
    assert summary.annotated == 4
    assert len(part_files(out)) == 2


def test_a_source_that_is_elsewhere_is_looked_at_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = str(tmp_path / "t.tar"), f"memory://{tmp_path.name}/t.tar"
    system, inner = storage.file_system(far)
    Path(near).write_bytes(b"1")
    system.pipe_file(inner, b"1")
    now = 0.0
    monkeypatch.setattr("facewise.batch.watch.time", SimpleNamespace(monotonic=lambda: now))
    watch = Watch({path: storage.fingerprint(path) for path in (near, far)})
    assert not watch.changed([far, far, near, "/a.jpg"])
    system.pipe_file(inner, b"22")
    now = 0.5
    assert not watch.changed([far, near])
    status = Path(near).stat()
    Path(near).write_bytes(b"22")
    assert watch.changed([near, "/a.jpg"])
    Path(near).write_bytes(b"1")
    os.utime(near, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert watch.changed([near])  # anything read meanwhile came from the other
    assert not watch.changed([far])
    assert watch.seen == {near}
    now = 1.5
    assert watch.changed([far])
    assert watch.seen == watch.replaced == {near, far}


def test_a_source_that_is_elsewhere_and_gone_may_have_been_gone_before_a_part_counted(
    tmp_path: Path,
) -> None:
    near, far = str(tmp_path / "t.tar"), f"memory://{tmp_path.name}/t.tar"
    system, inner = storage.file_system(far)
    Path(near).write_bytes(b"1")
    system.pipe_file(inner, b"1")
    watch = Watch({path: storage.fingerprint(path) for path in (near, far)})
    Path(near).unlink()
    system.rm(inner)
    watch.look_at_all()
    assert watch.seen == {near, far}
    assert watch.replaced == {far}


def test_a_list_that_changes_during_a_run_has_been_read(pictures: Path, tmp_path: Path) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:2]
    listing = tmp_path / "t.txt"
    make_list(listing, faces)

    def rewrite(done: int, total: int) -> None:
        make_list(listing, faces[::-1] * 2)

    summary = annotate([str(listing)], tmp_path / "out", AGE, workers=1, progress=rewrite)
    assert summary.annotated == 2


def test_a_tar_that_went_is_said_before_its_pictures_are_lost(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make_tar(tmp_path / "t.tar", sorted((pictures / "faces").glob("*.webp"))[:2])
    annotate([f"{tmp_path}/*.tar"], out, AGE, workers=1)
    (tmp_path / "t.tar").unlink()
    with pytest.raises(TableError, match=r"t\.tar changed"):
        annotate([f"{tmp_path}/*.tar"], out, AGE, workers=1)


def test_as_many_photos_as_asked_for_go_into_one_inference(tmp_path: Path) -> None:
    job = Job(photos_per_inference=20, shard_size=50)
    items = [Item(str(number), FILE, f"/{number}.jpg") for number in range(70)]
    with TableFolder(tmp_path / "t") as folder:
        digest, _ = write_plan(folder, items, job.shard_size)
        plan = open_plan(folder, digest, job.shard_size, job.chunk)
        tasks = list(plan.tasks(range(plan.shards)))
        assert [len(task.items) for task in tasks] == [20, 20, 10, 20]
        assert [item for task in tasks for item in task.items] == items
        plan.close()
    assert Job().chunk == Job(photos_per_inference=2).chunk == CHUNK


def test_a_large_inference_batch_gives_the_rows_of_a_small_one(
    pictures: Path, tmp_path: Path
) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:11]
    make_list(tmp_path / "list.txt", faces)
    found = []
    for batch in (1, 11):
        job = Job(attributes=("age",), photos_per_inference=batch)
        annotate([str(tmp_path / "list.txt")], tmp_path / str(batch), job, workers=1)
        table = pq.read_table(tmp_path / str(batch))
        found.append((table["image_id"].to_pylist(), table["age_years"].to_pylist()))
    assert found[0][0] == found[1][0]
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-3)
    job = Job(attributes=("age",), photos_per_inference=12)
    with pytest.raises(TableError, match="--inference-batch was 11, is now 12"):
        annotate([str(tmp_path / "list.txt")], tmp_path / "11", job, workers=1)


def test_pictures_with_errors_are_tried_again_where_that_is_asked_for(
    pictures: Path, tmp_path: Path
) -> None:
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    paths = [tmp_path / face.name for face in faces]
    for face, path in zip(faces, paths, strict=True):
        path.write_bytes(face.read_bytes())
    paths[3].write_bytes(b"")
    make_list(tmp_path / "list.txt", paths)
    out = tmp_path / "out"
    assert annotate([str(tmp_path / "list.txt")], out, AGE, workers=1).errors == {"image_empty": 1}
    before = (out / part_name(0)).stat().st_mtime_ns
    paths[3].write_bytes(faces[3].read_bytes())
    again = annotate([str(tmp_path / "list.txt")], out, AGE, workers=1)
    assert (again.annotated, again.errors.total()) == (0, 1)
    again = annotate([str(tmp_path / "list.txt")], out, AGE, workers=1, retry_errors=True)
    assert (again.annotated, again.errors.total()) == (1, 0)
    rows = pq.read_table(out).to_pylist()
    assert [row["image_id"] for row in rows] == [str(path) for path in paths]
    assert all(row["error_code"] is None for row in rows)
    assert (out / part_name(0)).stat().st_mtime_ns == before


@pytest.mark.parametrize("back", [False, True])
def test_no_row_is_lost_where_errors_are_tried_again_without_the_pictures(
    back: bool, pictures: Path, tmp_path: Path
) -> None:
    """As with an unmounted disk; if it is mounted, the table is that of an undisturbed run."""
    nas, job = tmp_path / "nas", Job(attributes=("age",), shard_size=20)
    nas.mkdir()
    faces = sorted((pictures / "faces").glob("*.webp"))[:11]
    for face in faces:
        (nas / face.name).write_bytes(face.read_bytes())
    (nas / "a.jpg").symlink_to("a.webp")
    (nas / "x.jpg").symlink_to("x.webp")
    out = tmp_path / "t"
    assert annotate([str(nas)], out, job, workers=1).errors == {"image_not_found": 2}
    before = pq.read_table(out)
    if back:
        for name in ("a.jpg", "x.jpg"):
            (nas / name).unlink()
            (nas / name).write_bytes(faces[0].read_bytes())
    else:
        nas.rename(tmp_path / "away")
        nas.mkdir()
    progress: list[tuple[int, int]] = []
    again = annotate(
        [str(nas)], out, job, workers=1, retry_errors=True,
        progress=lambda *counts: progress.append(counts),
    )  # fmt: skip
    assert progress[0] == (11, 13)
    assert progress[-1] == (13, 13)
    assert (again.images, again.annotated) == (13, 2)
    if not back:
        assert again.errors == {"image_not_found": 2}
        assert pq.read_table(out).equals(before)
        return
    assert not again.errors
    annotate([str(nas)], tmp_path / "quiet", job, workers=1)
    for name in (part_name(0), "_parts.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


@pytest.mark.parametrize("changes", [False, True])
def test_no_row_is_lost_where_trying_errors_again_is_stopped_at_any_step(
    changes: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any flush to disk, also where a tar of the same part changes at the end."""
    faces = sorted((pictures / "faces").glob("*.webp"))[:4]
    photos, tar, kept, job = tmp_path / "photos", tmp_path / "t.tar", tmp_path / "kept", Job()
    photos.mkdir()
    (photos / "a.webp").write_bytes(faces[0].read_bytes())
    (photos / "b.webp").write_bytes(b"")
    make_tar(tar, faces[2:])
    annotate([str(photos), str(tar)], tmp_path / "t", job, workers=1)
    before = pq.read_table(tmp_path / "t").to_pylist()
    assert [row["error_code"] for row in before] == [None, "image_empty", None, None]
    worker, left, flush = Annotator(job), 0, os.fsync

    def here(tasks: Iterable[Task], job: Job, workers: int | None) -> Generator[Result, None, None]:
        yield from map(worker, tasks)

    def stop(file: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        flush(file)

    def replace(done: int, total: int) -> None:
        if changes and done == total:
            tar.rename(kept)
            make_tar(tar, faces[:2])

    def go_on(out: Path, *, again: bool = False) -> Summary:
        with TableFolder(out) as folder:
            manifest = folder.read_manifest()
            assert manifest is not None
            listed = manifest["plan"]
            with contextlib.closing(open_plan(folder, listed["sha256"], job.shard_size)) as plan:
                run = Run(
                    folder, plan, manifest, job,
                    retry_errors=again, progress=replace, note=lambda text: None,
                )  # fmt: skip
                return run.finish(here, 1)

    for steps in range(30):
        out = tmp_path / f"t{steps}"
        shutil.copytree(tmp_path / "t", out)
        (photos / "a.webp").write_bytes(faces[0].read_bytes())
        (photos / "b.webp").write_bytes(faces[1].read_bytes())
        left, done = steps, True
        monkeypatch.setattr(os, "fsync", stop)
        try:
            go_on(out, again=True)
        except KeyboardInterrupt:
            done = False
        except TableError:
            assert changes
        monkeypatch.setattr(os, "fsync", flush)
        if kept.exists():
            kept.replace(tar)
        for photo in photos.iterdir():
            photo.unlink()
        assert go_on(out).annotated == 0, f"stopped at {steps}"
        rows = pq.read_table(out).to_pylist()
        assert [rows[k] for k in (0, 2, 3)] == [before[k] for k in (0, 2, 3)]
        files = {path.name for path in out.iterdir()}
        assert files == {part_name(0), MANIFEST, PLAN, PARTS, LOCK}
        if done:
            break
    assert done
    assert (rows[1] == before[1]) == changes


def test_frames_of_a_damaged_video_are_kept_where_it_has_gone_meanwhile() -> None:
    schema = pa.schema(
        [("image_id", pa.string()), ("frame_index", pa.int64()), ("error_code", pa.string())]
    )

    def table(*rows: tuple[str, int | None, str | None]) -> pa.Table:
        return pa.Table.from_pylist(
            [dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema
        )

    whole = [("a.mp4::0", 0, None), ("a.mp4::0", 0, None), ("a.mp4::9", 9, None)]
    cut, gone = ("a.mp4", None, "video_corrupt"), ("a.mp4", None, "image_not_found")
    beside, lost = ("b.jpg", None, None), ("c.jpg", None, "image_empty")
    part = table(*whole[:2], cut, beside, lost)
    assert retry.failed(part) == {"a.mp4", "c.jpg"}
    assert retry.spliced(part, table(gone)).equals(part)
    assert retry.spliced(part, table(whole[0], cut)).equals(part)
    found = retry.spliced(part, table(*whole, ("c.jpg", None, None)))
    assert found.equals(table(*whole, beside, ("c.jpg", None, None)))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("a.mp4", "av", "video"), ("a.heic", "pillow_heif", "heif"), ("t.tar", "pillow_heif", "heif")],
)
def test_without_an_extra_that_a_source_needs_nothing_is_begun(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    source, out = tmp_path / name, tmp_path / "out"
    source.write_bytes(b"neither film nor picture")
    if name == "t.tar":
        write_tar(source, {"a.HEIC": b"no picture"})
    with monkeypatch.context() as without:
        without.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"facewise\[{extra}\]"):
            annotate([str(source)], out, AGE, workers=1)
        assert not (out / MANIFEST).exists()
    errors = annotate([str(source)], out, AGE, workers=1).errors
    assert errors.total() == 1
    monkeypatch.setitem(sys.modules, module, None)
    assert annotate([str(source)], out, AGE, workers=1).errors == errors  # finished
    with pytest.raises(MissingExtraError):
        annotate([str(source)], out, AGE, workers=1, retry_errors=True)


def test_a_picture_that_takes_long_is_named(
    annotator: Annotator, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that has met a file made to be slow seems to have stopped."""
    said: list[str] = []
    named = threading.Event()

    def warn(text: str, *values: object) -> None:
        said.append(text % values)
        named.set()

    monkeypatch.setattr("facewise.batch.work.log.warning", warn)
    monkeypatch.setattr("facewise.batch.work.SLOW_SECONDS", 0.0)
    annotator._decoding.submit(named.wait, 30)  # the picture's turn comes once it was named
    photo = Item("evil\x1b.jpg", FILE, str(pictures / "astronaut.jpg"))
    (row,) = rows_of(annotator, [photo])
    assert row["error_code"] is None
    assert said == [
        r"'evil\x1b.jpg' is not read and decoded after 0 seconds: if it never is, leave it out"
    ]
