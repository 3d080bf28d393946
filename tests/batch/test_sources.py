"""Shards, tables of other kinds, and disks that are really full."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from facewise.batch import storage
from facewise.batch.annotate import annotate
from facewise.batch.job import FILE, MISSING, VIDEO, Item, Job
from facewise.batch.plan import open_plan, write_plan
from facewise.batch.sources import check, list_items
from facewise.batch.table import PLAN, TableFolder
from facewise.batch.work import Annotator
from facewise.data.walk import Skipped, walk
from facewise.errors import FacewiseError, OptionError, SourceError, TableError

AGE = Job(attributes=("age",), shard_size=2)


@pytest.fixture
def faces(pictures: Path) -> list[Path]:
    return sorted((pictures / "faces").glob("*.webp"))[:4]


def test_one_file_is_no_files() -> None:
    skipped = Skipped()
    skipped.add("a.txt")
    assert str(skipped) == "1 file is no picture by its name (.txt 1)"
    skipped.add("b.txt")
    assert str(skipped) == "2 files are no pictures by their names (.txt 2)"


def test_endings_without_end_take_no_memory() -> None:
    skipped = Skipped()
    for number in range(3000):
        skipped.add(f"frame.{number:07}")
        skipped.add(f"log.{number:x}z")
    assert len(skipped) < 1100
    assert str(skipped).startswith("6,000 files are no pictures by their names (numbers 3,000, ")
    skipped.add(".tar")
    assert skipped.total() == 6001


def test_pipes_are_said_to_be_pipes(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        os.mkfifo(tmp_path / name)
        skipped = Skipped()
        assert list(list_items([str(tmp_path)], AGE, skipped, {})) == []
    assert str(skipped) == "2 pipes, sockets or devices left out"
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "n.txt").touch()
    assert list(list_items([str(tmp_path)], AGE, skipped := Skipped(), {})) == []
    assert str(skipped) == (
        "1 file is no picture by its name (.txt 1); 1 pipe, socket or device left out"
    )


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (errno.EIO, SourceError, "sub/?: cannot be read .* then run the same command again"),
        (errno.ESTALE, SourceError, "sub/?: cannot be read .* then run the same command again"),
        (errno.EACCES, OptionError, r"sub/?: cannot be listed \(Permission denied\): make it"),
    ],
)
def test_a_folder_that_fails_for_now_is_told_from_one_that_may_not_be_listed(
    number: int,
    error: type[FacewiseError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ph" / "sub").mkdir(parents=True)
    scandir = os.scandir

    def fail(path: Any) -> Any:
        if "sub" in os.fspath(path):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    for source in ("ph", "ph/*/*.jpg"):
        with pytest.raises(error, match=message):
            list(list_items([f"{tmp_path}/{source}"], AGE, Skipped(), {}))


@pytest.mark.parametrize("pattern", ["a*/*/*.jpg", "*/sub/*.jpg", "a*/**/*.jpg", "a*/**", "a*"])
def test_a_pattern_lists_no_folder_in_which_nothing_can_match(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a folder may be unreadable, and nothing is missed."""
    for name in ("a1/sub", "b1/private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a1" / "sub" / "a.jpg").touch()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if "private" in os.fspath(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (item,) = list_items([f"{tmp_path}/{pattern}"], AGE, Skipped(), {})
    assert item.image_id.endswith("/a1/sub/a.jpg")


def test_a_folder_that_goes_meanwhile_may_come_again(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jpg").touch()
    names = walk(str(tmp_path), print)
    assert next(names) == "a.jpg"
    (tmp_path / "sub").rmdir()
    with pytest.raises(FileNotFoundError):
        list(names)


def test_a_folder_of_many_folders_takes_a_name_of_memory_for_each(tmp_path: Path) -> None:
    count = 4000
    for number in range(count):
        (tmp_path / f"{number:06}").mkdir()
    tracemalloc.start()
    try:
        assert list(walk(str(tmp_path), print)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 120 * count


def rows_of(sources: list[Any], folder: Path, job: Job = AGE) -> list[dict[str, Any]]:
    """Rows that a worker makes of the plan, here without a separate process."""
    items = list_items([str(source) for source in sources], job, Skipped(), {})
    with TableFolder(folder) as table:
        digest, _ = write_plan(table, items, job.shard_size)
        with contextlib.closing(open_plan(table, digest, job.shard_size)) as plan:
            annotator = Annotator(job)
            results = [annotator(task) for task in plan.tasks(range(plan.shards))]
    batches = [data for result in results for data in result.batches]
    return [row for data in batches for row in pa.ipc.open_stream(data).read_all().to_pylist()]


def ages(sources: list[Any], folder: Path, job: Job = AGE) -> list[float]:
    rows = rows_of(sources, folder, job)
    assert all(row["error_code"] is None for row in rows)
    return [row["age_years"] for row in rows]


def test_shards_of_a_webdataset(faces: list[Path], tmp_path: Path) -> None:
    """Pictures with captions beside them; a truncated shard loses only what follows the cut."""
    for shard in (0, 1):
        with tarfile.open(tmp_path / f"shard-{shard:03d}.tar", "w") as tar:
            for face in faces[2 * shard : 2 * shard + 2]:
                tar.add(face, face.name)
                caption = tmp_path / f"{face.stem}.txt"
                caption.write_text("a face")
                tar.add(caption, caption.name)
    found = rows_of([*faces, f"{tmp_path}/shard-{{000..001}}.tar"], tmp_path / "both")
    expected = [row["age_years"] for row in found[:4]]
    assert None not in expected
    assert [row["age_years"] for row in found[4:]] == expected
    assert found[4]["image_id"] == f"{tmp_path}/shard-000.tar::{faces[0].name}"
    last = tmp_path / "shard-001.tar"
    with tarfile.open(last) as tar:
        end = tar.getmember(faces[3].name).offset_data + 100
    last.write_bytes(last.read_bytes()[:end])
    rows = rows_of([f"{tmp_path}/shard-*.tar"], tmp_path / "cut")
    assert [row["age_years"] for row in rows[:3]] == expected[:3]
    assert rows[3:]
    assert all(row["error_code"] for row in rows[3:])


def test_hidden_folders_of_a_tar_are_left_out_as_those_of_a_disk_are(
    faces: list[Path], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("a/1.webp", "a/.thumbs/2.webp", ".trash/b/3.webp", "./a/.4.webp"):
            tar.add(faces[0], name)
        tar.add(faces[0], "../up/5.webp")
        for name, target in (("a/.links/6.webp", "../1.webp"), ("a/7.webp", ".thumbs/2.webp")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    items = list_items([str(tmp_path / "t.tar")], AGE, Skipped(), {})
    found = [item.image_id.rpartition("::")[2] for item in items]
    assert found == ["a/1.webp", "../up/5.webp", "a/7.webp"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x-{9..1}.tar", r"x-\{9\.\.1\}\.tar: .*write \{1\.\.9\}"),
        ("x-{0..1}-{09..08}.tar", r"x-0-\{09\.\.08\}\.tar: .*write \{08\.\.09\}"),
        ("x-{a,b}.tar", r"x-\{a,b\}\.tar: .*\{000\.\.099\} is understood"),
    ],
)
def test_braces_that_name_nothing_are_refused(
    source: str, message: str, faces: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        annotate([f"{tmp_path}/{source}", str(faces[0])], tmp_path / "t", AGE, workers=1)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_pattern_that_matches_nothing_is_refused(
    scheme: str, faces: list[Path], tmp_path: Path
) -> None:
    pattern = f"{scheme}{tmp_path}/*.tar"
    with pytest.raises(OptionError, match=r"\*\.tar: no file matches"):
        annotate([str(faces[0]), pattern], tmp_path / "t", AGE, workers=1)


def touch(folder: Path) -> Path:
    names = (
        *("cover.jpg", "n.txt", "2023/1.webp", "2023/n.txt", "2023/sub/2.webp"),
        *("2023-24.jpg/3.webp", "2024/.4.webp", ".5/5.webp", "t.tar/6.webp"),
        "2023/sub/2023/7.webp",
    )
    for name in names:
        path = folder / "ph" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


ALL = ["2023-24.jpg/3", "2023/1", "2023/sub/2", "2023/sub/2023/7", "cover", "t.tar/6"]


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
@pytest.mark.parametrize(
    ("pattern", "expected", "skipped"),
    [
        ("ph/*", ALL, 2),
        ("p[h]", ALL, 2),
        ("ph/*/", [name for name in ALL if name != "cover"], 1),
        ("ph/202?", ["2023/1", "2023/sub/2", "2023/sub/2023/7"], 1),
        ("ph/*/sub", ["2023/sub/2", "2023/sub/2023/7"], 0),
        ("ph/*.jpg", ["2023-24.jpg/3", "cover"], 0),
        ("ph/**", ALL, 2),
        ("ph/**/", ALL, 2),
        ("ph/**/*", ALL, 2),
        ("ph/**/2023", ["2023/1", "2023/sub/2", "2023/sub/2023/7"], 1),
        ("ph/**/*.webp", [name for name in ALL if name != "cover"], 0),
        ("ph/*.webp", None, 0),
        ("ph/2024*", None, 0),
    ],
)
def test_a_folder_that_a_pattern_matches_is_listed_as_one_that_is_named(
    scheme: str, pattern: str, expected: list[str] | None, skipped: int, tmp_path: Path
) -> None:
    """As with a shell's own pattern; hidden names are left out, and none appears twice."""
    touch(tmp_path)
    if scheme == "memory://":
        fsspec = pytest.importorskip("fsspec")
        fsspec.filesystem("memory").put(f"{tmp_path}/ph", f"{tmp_path}/ph", recursive=True)
    out = Skipped()
    items = list_items([f"{scheme}{tmp_path}/{pattern}"], AGE, out, {})
    if expected is None:
        with pytest.raises(OptionError, match="no file matches"):
            list(items)
        return
    found = [item.image_id for item in items]
    assert all(name.startswith(f"{scheme}{tmp_path}/ph/") for name in found)
    assert [name.partition("/ph/")[2].rpartition(".")[0] for name in found] == expected
    assert out.total() == skipped


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_links_to_folders_that_match_are_followed_once(scheme: str, tmp_path: Path) -> None:
    touch(tmp_path)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "2023").symlink_to(tmp_path / "ph" / "2023", target_is_directory=True)
    (tmp_path / "links" / "loop").symlink_to(tmp_path / "links", target_is_directory=True)
    out = Skipped()
    items = list_items([f"{scheme}{tmp_path}/links/20*"], AGE, out, {})
    assert [Path(item.image_id).stem for item in items] == ["1", "2", "7"]
    assert out == {".txt": 1}
    everything = list(list_items([f"{scheme}{tmp_path}/links/**"], AGE, Skipped(), {}))
    assert len(everything) == 3


def test_a_tar_is_opened_where_it_matches_itself_and_left_in_a_folder_that_does(
    faces: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("t.tar", "in/t.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(faces[0], "a.webp")
    for pattern, opened, left in (("*", ["t.tar"], 1), ("**", ["in/t.tar", "t.tar"], 0)):
        skipped = Skipped()
        items = list_items([f"{tmp_path}/{pattern}"], AGE, skipped, {})
        assert [item.image_id for item in items] == [f"{tmp_path}/{t}::a.webp" for t in opened]
        assert skipped.total() == left


def test_a_web_address_is_a_video_by_its_path_whatever_follows(tmp_path: Path) -> None:
    """As signed addresses have it; a key of object storage may hold a question mark."""
    kinds = {
        "https://host/clip.mp4?sig=1": VIDEO,
        "http://host/clip.MP4#t=3": VIDEO,
        "https://host/a.jpg?from=clip.mp4": FILE,
        "s3://bucket/clip.mp4?sig=1": FILE,
        "s3://bucket/what?.mp4": VIDEO,
    }
    (tmp_path / "l.txt").write_text("\n".join(kinds))
    items = list(list_items([str(tmp_path / "l.txt")], AGE, Skipped(), {}))
    assert {item.image_id: item.kind for item in items} == kinds
    assert [item.path for item in items] == list(kinds)


@pytest.mark.parametrize(
    ("header", "column"),
    [("file,image", "image"), ("image,file", "image"), ("path,file", "path"), ("file,x", "file")],
)
def test_an_id_column_may_be_called_as_a_column_of_paths_is(
    header: str, column: str, tmp_path: Path
) -> None:
    source = tmp_path / "l.csv"
    source.write_text(f"{header}\na.jpg,b.jpg\n")
    (item,) = list_items([str(source)], Job(id_column="file"), Skipped(), {})
    values = dict(zip(header.split(","), ["a.jpg", "b.jpg"], strict=True))
    assert item.image_id == values["file"]
    assert item.path == str(tmp_path / values[column])


def planned(folder: Path, sources: list[str], job: Job = AGE) -> tuple[list[str], int]:
    """Names in a plan, and how many repetitions were left out."""
    with TableFolder(folder / "plan") as table:
        digest, dropped = write_plan(table, list_items(sources, job, Skipped(), {}), 2)
        plan = open_plan(table, digest, 2)
        names = [item.image_id for shard in range(plan.shards) for item in plan.items(shard)]
        plan.close()
    return names, dropped


def test_a_file_counts_once_however_its_path_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its first name. A link to it is a separate file, as is one of the same name."""
    for name in ("s/a.jpg", "s/b.mp4", "s/naïve.jpg", "o/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "s" / "link.jpg").symlink_to("a.jpg")
    monkeypatch.chdir(tmp_path)
    first = ["s/a.jpg", "s/b.mp4", "s/link.jpg", "s/naïve.jpg"]
    spellings = ["./s", str(tmp_path / "s"), "s/../s/*", "o/..//s", f"file://{tmp_path}/o/../s"]
    assert planned(tmp_path, ["s", *spellings]) == (first, 20)
    assert planned(tmp_path, ["s", *spellings, "o"]) == ([*first, "o/a.jpg"], 20)
    listing = tmp_path / "list.txt"
    listing.write_text(
        f"{tmp_path}/s/a.jpg\nfile://{tmp_path}/s/a.jpg\ns/a.jpg\n./o/a.jpg\no/a.jpg"
    )
    assert planned(tmp_path, [str(listing)]) == ([f"{tmp_path}/s/a.jpg", "./o/a.jpg"], 3)
    # A name that was left out is free for another picture.
    (tmp_path / "o" / "list.txt").write_text("a.jpg")
    (tmp_path / "s" / "list.txt").write_text("a.jpg")
    both = ["s/list.txt", "o/list.txt"]
    assert planned(tmp_path, ["s/a.jpg", *both]) == (["s/a.jpg", "a.jpg"], 1)
    with pytest.raises(OptionError, match=r"two pictures would be called 'a\.jpg'"):
        planned(tmp_path, both)


def test_a_tar_or_table_counts_once_however_its_path_is_spelt(
    faces: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do the links in a tar, even dangling ones, and the report of its damage."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(faces[0], "a.webp")
        for name, target in (("b.webp", "a.webp"), ("c.webp", "nowhere.webp")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    with (tmp_path / "t.tar").open("ab") as file:
        file.write(b"damage")
    pq.write_table(pa.table({"id": ["x"], "image": [faces[0].read_bytes()]}), tmp_path / "t.pq")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.tar").symlink_to("t.tar")
    monkeypatch.chdir(tmp_path)
    first = ["t.tar::a.webp", "t.tar::b.webp", "t.tar::c.webp", "t.tar"]
    spellings = ["./t.tar", "sub/../t.ta[r]", f"{tmp_path}/t.*r", f"file://{tmp_path}/t.tar"]
    assert planned(tmp_path, ["t.tar", *spellings]) == (first, 16)
    assert planned(tmp_path, ["t.tar", "link.tar"])[1] == 0  # a separate file
    tables = ["t.pq", "./t.pq", f"file://{tmp_path}/*.pq"]
    assert planned(tmp_path, tables) == (["t.pq::0"], 2)
    assert planned(tmp_path, tables, Job(id_column="id")) == (["x"], 2)
    fingerprints: dict[str, Any] = {}
    list(list_items(["t.tar", *spellings, *tables], AGE, Skipped(), fingerprints))
    assert list(fingerprints) == [f"{tmp_path}/t.tar", f"{tmp_path}/t.pq"]


def test_a_plan_is_one_file_and_no_other_is_taken_for_it(tmp_path: Path) -> None:
    items = [Item("a.jpg", FILE, "/a.jpg")] * 2 + [Item("b.jpg", FILE, "/b.jpg")]
    with TableFolder(tmp_path / "t") as table:
        digest, dropped = write_plan(table, items, 2)
        assert dropped == 1
        assert sorted(path.name for path in table.path.iterdir()) == ["_lock", PLAN]
        open_plan(table, digest, 2).close()
        write_plan(table, items[2:], 2)
        with pytest.raises(TableError, match="missing or damaged"):
            open_plan(table, digest, 2)
        (table.path / PLAN).unlink()
        with pytest.raises(TableError, match="missing or damaged"):
            open_plan(table, digest, 2)


@pytest.mark.skipif(os.name != "posix", reason="Windows takes .. by the spelling")
def test_what_is_above_a_link_is_above_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel resolves it; other links in the path stay as they are."""
    for name in ("deep/a.jpg", "deep/inner/deeper/b.jpg", "a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "inner").symlink_to("deep/inner")
    (tmp_path / "kept").symlink_to("deep")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("inner/../a.jpg\na.jpg\n")
    for source in ("inner/../a.jpg", "inner/..", f"{tmp_path}/inner/../*.jpg", "list.txt"):
        item, *_ = list_items([source], AGE, Skipped(), {})
        assert item.path == f"{tmp_path}/deep/a.jpg"
        assert Path(item.path).read_bytes() == Path(item.image_id).read_bytes()
    for source, path in (
        ("kept/inner/../a.jpg", "kept/a.jpg"),
        ("./kept//a.jpg", "kept/a.jpg"),
        ("kept/./inner/deeper/../../a.jpg", "kept/a.jpg"),
        ("inner/deeper/../../../a.jpg", "a.jpg"),
        ("../" * 99 + f"{tmp_path}/a.jpg", "a.jpg"),
    ):
        assert storage.absolute(source) == f"{tmp_path}/{path}"
        assert Path(path).samefile(source)
    (tmp_path / "list.txt").write_text("inner/../a.jpg\ndeep/a.jpg\na.jpg")
    assert planned(tmp_path, ["list.txt"]) == (["inner/../a.jpg", "a.jpg"], 1)
    (tmp_path / "inner").unlink()
    (tmp_path / "inner").symlink_to("deep/inner/deeper")
    (item,) = list_items(["inner/../deeper/b.jpg"], AGE, Skipped(), {})
    assert item.path == f"{tmp_path}/deep/inner/deeper/b.jpg"


def tar_of(face: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(face, "a.webp")
    return out.getvalue()


COMPRESSIONS = ("gz", "GZ", "bz2", "xz", "zst", "lz4", "lzma", "Z")
PACKED = [f"tar.{ending}" for ending in COMPRESSIONS] + ["tgz", "tbz", "tbz2", "txz", "tzst", "zip"]


@pytest.mark.parametrize("ending", PACKED)
def test_what_is_packed_is_refused_whether_named_or_matched(
    ending: str, faces: list[Path], tmp_path: Path
) -> None:
    """Even by a glob that also matches pictures or plain tars; a folder skips both tars."""
    (tmp_path / f"z.{ending}").write_bytes(gzip.compress(tar_of(faces[0])))
    (tmp_path / "plain.tar").write_bytes(tar_of(faces[0]))
    shutil.copy(faces[0], tmp_path)
    for name in (f"z.{ending}", "*", f"*.{ending}", "z.*"):
        for scheme in ("", "file://"):
            with pytest.raises(OptionError, match=rf"z\.{ending}: .*unpack it"):
                list(list_items([f"{scheme}{tmp_path}/{name}"], AGE, Skipped(), {}))
    skipped = Skipped()
    assert len(list(list_items([str(tmp_path)], AGE, skipped, {}))) == 1
    assert skipped.total() == 2


def test_a_compressed_tar_is_refused_under_a_plain_ones_name(
    faces: list[Path], tmp_path: Path
) -> None:
    tar, path = tar_of(faces[0]), tmp_path / "z.tar"
    begin = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x1f\x9d")  # zstd, LZ4, compress
    packed = [gzip.compress(tar), bz2.compress(tar), lzma.compress(tar)]
    for data in (*packed, *(one + tar for one in begin)):
        path.write_bytes(data)
        with pytest.raises(OptionError, match="compressed tar cannot be read from the middle"):
            annotate([str(path)], tmp_path / "t", AGE, workers=1)
        assert not (tmp_path / "t").exists()
    with tarfile.open(path, "w") as archive:
        archive.add(faces[0], "BZh91.webp")
    (item,) = list_items([str(path)], AGE, Skipped(), {})
    assert item.image_id == f"{path}::BZh91.webp"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_lists_are_read_where_a_glob_ends_as_they_do(scheme: str, tmp_path: Path) -> None:
    """Otherwise they may be captions that lie beside pictures."""
    (tmp_path / "a.jpg").touch()
    for name in ("l.txt", "m.txt", "n.csv", "o.json"):
        (tmp_path / name).write_text(f"path\n{name}.jpg" if name == "n.csv" else f"{name}.jpg")
    skipped = Skipped()
    items = list(list_items([f"{scheme}{tmp_path}/*"], AGE, skipped, {}))
    assert [Path(item.path).name for item in items] == ["a.jpg"]
    assert skipped == {".txt": 2, ".csv": 1, ".json": 1}
    items = list(list_items([f"{scheme}{tmp_path}/*.txt"], AGE, skipped, {}))
    assert [item.image_id for item in items] == ["l.txt.jpg", "m.txt.jpg"]
    (item,) = list_items([f"{scheme}{tmp_path}/*.csv"], AGE, skipped, {})
    assert item.image_id == "n.csv.jpg"
    with pytest.raises(OptionError, match=r"o\.json: a list is a \.txt"):
        list(list_items([f"{scheme}{tmp_path}/*.json"], AGE, skipped, {}))


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("name", "header", "separator"),
    [
        ("l.csv", "path", ","),
        ("L.CSV", "note;File", ";"),
        ("l.tsv", "filename", "\t"),
        ("l.tsv", "image\tnote", "\t"),
    ],
)
def test_a_list_may_be_a_csv(
    name: str, header: str, separator: str, encoding: str, scheme: str, tmp_path: Path
) -> None:
    """Its paths start from its folder, as those of a text list do."""
    places = ["a.jpg", '"b, c\n""d"".jpg"', "sub/e.mp4", "/elsewhere/人.jpg", "s3://bucket/g.jpg"]
    width = header.count(separator)
    first = header.lower().startswith("note")
    lines = [
        separator.join(["x"] * width * first + [place] + ["x"] * width * (not first))
        for place in places
    ]
    data = "\r\n".join([header, *lines, separator * width]).encode(encoding)
    if scheme == "memory://":
        fsspec = pytest.importorskip("fsspec")
        folder = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").pipe(f"{folder}/{name}", data)
    else:
        folder = f"{scheme}{tmp_path}"
        (tmp_path / name).write_bytes(data)
    opened: dict[str, Any] = {}
    found = list(list_items([f"{folder}/{name}"], AGE, Skipped(), opened))
    here = storage.local(folder)
    ids = ["a.jpg", 'b, c\n"d".jpg', "sub/e.mp4", "/elsewhere/人.jpg", "s3://bucket/g.jpg"]
    if width:
        assert found.pop() == Item(f"{folder}/{name}::5", MISSING, "the table's row has no path")
    assert [item.image_id for item in found] == ids
    assert [item.kind for item in found] == [FILE, FILE, VIDEO, FILE, FILE]
    assert [item.path for item in found] == [f"{here}/{one}" for one in ids[:3]] + ids[3:]
    assert not opened, "a restart does not read the list"


def test_a_csv_names_its_columns_as_a_table_does(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("ID,Photo,path\nfirst,a.jpg,x\nsecond,./a.jpg,y\nthird,,z\n")
    source = [str(tmp_path / "l.csv")]
    job = Job(id_column="id", image_column="Photo")
    assert planned(tmp_path, source, job) == (["first", "second", "third"], 0)
    assert planned(tmp_path, source) == (["x", "y", "z"], 0)
    for wrong, message in (
        (Job(image_column="other"), r"l\.csv lacks the columns other: .* ID, Photo, path"),
        (Job(id_column="key"), r"l\.csv lacks the columns key"),
        (Job(id_column="photo"), r"l\.csv: row 2 has no photo"),
    ):
        with pytest.raises(OptionError, match=message):
            list(list_items(source, wrong, Skipped(), {}))
    (tmp_path / "l.tsv").write_text("path\nb,c.jpg\n")
    assert planned(tmp_path, [str(tmp_path / "l.tsv")]) == (["b,c.jpg"], 0)
    (tmp_path / "l.csv").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(
        OptionError, match=r"no line of column names: .* with path .* called file, f"
    ):
        list(list_items(source, AGE, Skipped(), {}))
    (tmp_path / "l.csv").write_bytes(b"path\na\xff.jpg\n")
    with pytest.raises(OptionError, match=r"is not text in utf-8 .*: save it as CSV UTF-8"):
        list(list_items(source, AGE, Skipped(), {}))


def test_rows_with_ids_of_their_own_are_kept_though_they_name_one_file(tmp_path: Path) -> None:
    table = pa.table({"id": ["first", "second"], "path": ["a.jpg", "./a.jpg"]})
    pq.write_table(table, tmp_path / "t.parquet")
    source = [str(tmp_path / "t.parquet")]
    assert planned(tmp_path, source) == (["a.jpg"], 1)
    assert planned(tmp_path, source, Job(id_column="id")) == (["first", "second"], 0)
    alike = ["x/a.jpg", "y/a.jpg"]  # both end in the file's name
    pq.write_table(table.set_column(0, "id", [alike]), tmp_path / "t.parquet")
    assert planned(tmp_path, source, Job(id_column="id")) == (alike, 0)


def test_ids_that_are_not_unique_are_said_to_be_so(faces: list[Path], tmp_path: Path) -> None:
    """Neither full paths nor several tables would help, as they do without such a column."""
    column = pa.array(["17", "17"])
    (tmp_path / "l.csv").write_text(f"id,path\n17,{faces[0]}\n17,{faces[1]}\n")
    pq.write_table(pa.table({"id": column, "path": list(map(str, faces[:2]))}), tmp_path / "p.pq")
    pictures = [face.read_bytes() for face in faces[:2]]
    pq.write_table(pa.table({"id": column, "image": pictures}), tmp_path / "b.pq")
    job = Job(attributes=("age",), id_column="id")
    for name, places in (("l.csv", ""), ("p.pq", ""), ("b.pq", r" \(rows 0 and 1\)")):
        with pytest.raises(OptionError, match=rf"called '17'.*{places}; the values of .* unique"):
            planned(tmp_path / f"{name}.t", [str(tmp_path / name)], job)
    (tmp_path / "both.csv").write_text(f"id,path\n17,{faces[0]}\n17,{faces[0]}\n")
    assert planned(tmp_path / "t", [str(tmp_path / "both.csv")], job) == (["17"], 1)


def test_ids_of_bytes_are_text_and_nested_ones_are_refused(tmp_path: Path) -> None:
    source, job = [str(tmp_path / "t.parquet")], Job(image_column="image", id_column="id")
    names = [b"abc", "naïve".encode(), b"\xff\x00"]
    plain = pa.array(names)
    for ids in (plain, plain.cast(pa.large_binary()), plain.dictionary_encode()):
        pq.write_table(pa.table({"id": ids, "image": [b"a", b"b", b"c"]}), source[0])
        found = [item.image_id for item in list_items(source, job, Skipped(), {})]
        assert found == ["abc", "naïve", "\\xff\x00"]
    for value in ([1], {"a": 1}):
        pq.write_table(pa.table({"id": [value], "image": [b"a"]}), source[0])
        with pytest.raises(
            OptionError, match=r"column id is .*: ids must be text, numbers or bytes"
        ):
            list(list_items(source, job, Skipped(), {}))


@pytest.mark.parametrize("pictures", [pa.array([b"x", b"y"]), pa.array(["a.jpg", "b.jpg"])])
@pytest.mark.parametrize("empty", ["", b"", None])
def test_a_row_without_an_id_is_named(empty: Any, pictures: pa.Array, tmp_path: Path) -> None:
    ids = pa.array([b"first" if isinstance(empty, bytes) else "first", empty])
    pq.write_table(pa.table({"id": ids, "image": pictures}), tmp_path / "t.parquet")
    job = Job(image_column="image", id_column="id")
    with pytest.raises(OptionError, match=r"t\.parquet: row 1 has no id"):
        list(list_items([str(tmp_path / "t.parquet")], job, Skipped(), {}))


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """As joins leave it: nothing says which of the two is meant."""
    columns = [pa.array([b"x"]), pa.array([b"y"]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["image", "thumb", "id", "id"])
    pq.write_table(table, tmp_path / "ids.parquet")
    table = table.rename_columns(["image", "image", "id", "key"])
    pq.write_table(table, tmp_path / "images.parquet")
    job = Job(image_column="image", id_column="id")
    for name, column in (("ids", "id"), ("images", "image")):
        with pytest.raises(
            OptionError, match=rf"{name}\.parquet: column {column} is there 2 times"
        ):
            list(list_items([str(tmp_path / f"{name}.parquet")], job, Skipped(), {}))


def test_a_pipe_under_a_url_of_this_machine_does_not_stop_a_run(
    faces: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "ph"
    folder.mkdir()
    shutil.copy(faces[0], folder / "a.webp")
    os.mkfifo(folder / "pipe.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text(f"file://{folder}/pipe.jpg\nlocal://{folder}/a.webp")
    rows = pa.table({"image": [{"bytes": None, "path": f"file://{folder}/pipe.jpg"}]})
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    pq.write_table(rows.cast(schema), tmp_path / "t.parquet")
    sources = [f"file://{folder}", f"file://{listing}", f"file://{tmp_path}/t.parquet"]
    done = subprocess.run(
        [sys.executable, "-m", "facewise", "annotate", *sources, "--out", str(tmp_path / "t")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,  # on failure it would wait forever
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "t")
    ids = [f"{folder}/a.webp", f"{folder}/pipe.jpg", f"{tmp_path}/t.parquet::0"]
    assert table["image_id"].to_pylist() == [f"file://{name}" for name in ids]
    codes = table["error_code"].to_pylist()
    assert codes == [None, "image_not_found", "image_not_found"]


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0", "/dev/null", "pipe.txt", "pipe"])
def test_a_list_from_a_pipe_is_refused_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes to the pipe, so opening it would block."""
    monkeypatch.chdir(tmp_path)
    if name.startswith("pipe"):
        os.mkfifo(name)
    with pytest.raises(OptionError, match=r"write the list to a \.txt"):
        check([name], listed=False)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_list_in_utf_16_is_refused(encoding: str, faces: list[Path], tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(map(str, faces)), encoding)
    with pytest.raises(OptionError, match=r"list\.txt: line 1 .* save the list as UTF-8"):
        annotate([str(listing)], tmp_path / "t", AGE, workers=1)


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("name", ["A.JSON", "a.jsonl", "a.ndjson", "a.md"])
def test_a_list_or_table_of_another_kind_is_refused_not_taken_for_a_picture(
    name: str, scheme: str, faces: list[Path], tmp_path: Path
) -> None:
    (tmp_path / name).write_text("\n".join(map(str, faces)))
    with pytest.raises(OptionError, match=rf"{name}: .* a \.txt with one path per line.* Parquet"):
        annotate([f"{scheme}{tmp_path}/{name}"], tmp_path / "t", AGE, workers=1)
    assert not (tmp_path / "t").exists()
    # A folder may hold such files beside pictures.
    shutil.copy(faces[0], tmp_path)
    assert len(list(list_items([f"{scheme}{tmp_path}"], AGE, Skipped(), {}))) == 1


def test_a_picture_that_is_named_may_have_any_suffix_or_none(
    faces: list[Path], tmp_path: Path
) -> None:
    names = [tmp_path / name for name in ("picture", "picture.bak")]
    for name in names:
        shutil.copy(faces[0], name)
    assert None not in ages([*names], tmp_path / "t")


def test_arrow_tables_and_columns_of_paths(faces: list[Path], tmp_path: Path) -> None:
    held = pa.table({"image": [{"bytes": f.read_bytes(), "path": f.name} for f in faces]})
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), held.schema) as writer:
        writer.write_table(held, max_chunksize=3)
    pyarrow.feather.write_feather(held, tmp_path / "file.feather")
    for face in faces:
        shutil.copy(face, tmp_path)
    pq.write_table(pa.table({"path": [f.name for f in faces]}), tmp_path / "paths.parquet")
    kinds = [tmp_path / name for name in ("stream.arrow", "file.feather", "paths.parquet")]
    found = ages([*faces, *kinds], tmp_path / "t")
    assert len(found) == 16
    assert found == 4 * found[:4]


def write_arrow(path: Path, name: str, values: pa.Array) -> Path:
    table = pa.table({name: values})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def test_columns_as_polars_and_pandas_write_them(faces: list[Path], tmp_path: Path) -> None:
    data, paths = [face.read_bytes() for face in faces], [str(face) for face in faces]
    categories = pa.array(paths).dictionary_encode()
    pq.write_table(pa.table({"path": categories}), tmp_path / "categories.parquet")
    tables = [
        write_arrow(tmp_path / "views.arrow", "image", pa.array(data, pa.binary_view())),
        write_arrow(tmp_path / "coded.arrow", "image", pa.array(data).dictionary_encode()),
    ]
    found = ages([*faces, *tables], tmp_path / "bytes")
    assert found == 3 * found[:4]
    assert ages([tmp_path / "categories.parquet"], tmp_path / "categories") == found[:4]
    views = write_arrow(tmp_path / "paths.arrow", "path", pa.array(paths, pa.string_view()))
    assert ages([views], tmp_path / "paths") == found[:4]


def test_hashes_are_no_pictures_unless_a_column_of_one_size_is_named(
    faces: list[Path], tmp_path: Path
) -> None:
    data = [face.read_bytes() for face in faces]
    hashes = pa.array([hashlib.sha256(one).digest() for one in data], pa.binary(32))
    pq.write_table(pa.table({"image": data, "sha256": hashes}), tmp_path / "both.parquet")
    found = ages([tmp_path / "both.parquet"], tmp_path / "both")
    size = max(map(len, data))  # bytes after the picture's end are ignored
    padded = pa.array([one.ljust(size, b"\0") for one in data], pa.binary(size))
    pq.write_table(pa.table({"image": padded}), tmp_path / "padded.parquet")
    named = Job(attributes=("age",), shard_size=2, image_column="image")
    assert ages([tmp_path / "padded.parquet"], tmp_path / "padded", named) == found


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip(
            "only root may mount a small disk; the limit on files' size is tested all the same"
        )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_says_so_and_room_lets_it_go_on(
    faces: list[Path], tiny_disk: Path
) -> None:
    table = tiny_disk / "t"
    sources = [str(face) for face in faces]
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 140_000)
    with pytest.raises(TableError, match="the disk is full"):
        annotate(sources, table, AGE, workers=1)
    ballast.unlink()
    annotate(sources, table, AGE, workers=1)
    rows = pq.read_table(table)
    assert rows["image_id"].to_pylist() == [str(face) for face in faces]
    assert rows["error_code"].null_count == 4
