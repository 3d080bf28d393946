"""``facewise annotate`` on every kind of source, through kills, damage and a full disk."""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from facewise.annotated import MANIFEST
from facewise.batch.annotate import annotate
from facewise.batch.job import Job, differences
from facewise.batch.run import Summary
from facewise.batch.schema import SCHEMA_VERSION, arrow_schema, columns
from facewise.batch.table import TableFolder
from facewise.batch.thumbs import make_sheet
from facewise.cli import app
from facewise.cli.annotate import BURST_SECONDS
from facewise.errors import FacewiseError, OptionError, TableError
from facewise.images import DEFAULT_MAX_BYTES

from .conftest import Command

AGE = Job(attributes=("age",), shard_size=4)


@pytest.fixture
def photos(pictures: Path, tmp_path: Path) -> Path:
    """Eleven faces, a portrait, a picture without a face, and three broken files."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for index, path in enumerate(sorted((pictures / "faces").glob("*.webp"))[:11]):
        shutil.copy(path, folder / ("sub" if index % 2 else ".") / path.name)
    shutil.copy(pictures / "astronaut.jpg", folder / "naïve 人.jpg")
    from PIL import Image

    Image.new("RGB", (200, 120), "navy").save(folder / "wall.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not a picture")
    half = (pictures / "astronaut.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(half[: len(half) // 2])
    return folder


def rows(table: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(table).to_pylist())


def parts(table: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(table.glob("part-*.parquet"))}


def run(source: Path | str, table: Path, job: Job = AGE, **options: Any) -> Summary:
    return annotate([str(source)], table, job, workers=1, **options)


def by_name(table: Path) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows(table):
        out.setdefault(row["image_id"].rpartition("/")[2], []).append(row)
    return out


def test_photos_of_more_pixels_than_are_allowed_are_rows_with_an_error(
    photos: Path, tmp_path: Path
) -> None:
    job = Job(attributes=("age",), max_pixels=200 * 120)
    run(photos, tmp_path / "t", job)
    table = by_name(tmp_path / "t")
    assert table["naïve 人.jpg"][0]["error_code"] == "image_too_large"
    assert table["wall.png"][0]["error_code"] is None
    with pytest.raises(TableError, match="--max-pixels was 24000, is now 50000000"):
        run(photos, tmp_path / "t", AGE)
    with pytest.raises(OptionError, match="max_pixels"):
        Job(max_pixels=0)


def test_files_of_more_bytes_than_are_allowed_are_rows_that_name_the_option(
    photos: Path, tmp_path: Path
) -> None:
    """A limit above the default already applies to reading: a file of 20 MB and more is read."""
    path = photos / "naïve 人.jpg"
    run(photos, tmp_path / "less", Job(attributes=("age",), max_bytes=path.stat().st_size - 1))
    row = by_name(tmp_path / "less")[path.name][0]
    assert row["error_code"] == "image_too_large"
    assert row["error_message"].endswith("use a smaller file, or raise --max-bytes")
    data, comment = path.read_bytes(), b"\xff\xfe\xff\xff" + bytes(65_533)
    path.write_bytes(data[:2] + comment * (DEFAULT_MAX_BYTES // 65_536) + data[2:])
    for table, limit in (("default", DEFAULT_MAX_BYTES), ("more", 2 * DEFAULT_MAX_BYTES)):
        run(path, tmp_path / table, Job(attributes=("age",), max_bytes=limit))
    assert rows(tmp_path / "default")[0]["error_code"] == "image_too_large"
    assert rows(tmp_path / "more")[0]["face_index"] == 0
    said: list[str] = []
    make_sheet(tmp_path / "more", "age_years", note=said.append)
    assert said == []
    with pytest.raises(OptionError, match="max_bytes"):
        Job(max_bytes=0)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "shard_size", "photos_per_inference"])
def test_counts_are_whole_numbers_however_they_are_written(name: str) -> None:
    def job(value: Any) -> Job:
        return replace(AGE, **{name: value})

    assert isinstance(getattr(job(2e7), name), int)
    for value in (0, 1.5, float("nan"), float("inf"), "8"):
        with pytest.raises(OptionError, match=f"{name} must be a whole number, 1 or more"):
            job(value)


def test_a_limit_of_bytes_that_is_a_whole_float_reads_every_picture(
    pictures: Path, tmp_path: Path
) -> None:
    limit: Any = 2e7
    summary = run(pictures / "astronaut.jpg", tmp_path / "t", replace(AGE, max_bytes=limit))
    assert (summary.faces, summary.errors.total()) == (1, 0)


@pytest.mark.parametrize("workers", [0, 1.5, float("nan")])
def test_workers_are_a_whole_number(workers: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="workers must be a whole number, 1 or more"):
        annotate([str(pictures / "astronaut.jpg")], tmp_path / "t", AGE, workers=workers)
    assert not (tmp_path / "t").exists()


def test_a_folder_becomes_a_row_a_face_and_a_row_a_failure(photos: Path, tmp_path: Path) -> None:
    summary = run(photos, tmp_path / "t", Job(shard_size=4))
    found = by_name(tmp_path / "t")
    assert summary.images == len(found) == 16
    (astronaut,) = found["naïve 人.jpg"]
    assert astronaut["face_index"] == 0
    assert astronaut["gender"] == "female"
    assert sum(astronaut[f"p_{name}"] for name in ("male", "female")) == pytest.approx(1, abs=1e-5)
    assert astronaut["age_low_years"] <= astronaut["age_years"] + 0.5
    (wall,) = found["wall.png"]
    assert wall["face_index"] is None
    assert wall["error_code"] is None
    for name in ("empty.jpg", "text.jpg", "half.jpg"):
        (row,) = found[name]
        assert row["error_code"]
        assert row["error_message"]
        assert str(tmp_path) not in row["error_message"]
    assert summary.errors.total() == 3
    assert summary.without_face >= 1
    schema = pq.read_schema(tmp_path / "t" / "part-00000000.parquet")
    assert schema.names[:2] == ["image_id", "face_index"]
    assert schema.names == list(columns())
    assert schema.metadata[b"facewise_schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.equals(arrow_schema())


def test_left_out_attributes_have_no_columns(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "t")
    names = pq.read_schema(tmp_path / "t" / "part-00000000.parquet").names
    assert "age_years" in names
    assert not {"gender", "ethnicity", "p_male", "p_white"} & set(names)


def answers(table: Path) -> list[tuple[str, Any, Any]]:
    """Each picture's answer, under its name without the source."""
    out = []
    for row in rows(table):
        name = row["image_id"].replace("::", "/").rpartition("/")[2]
        out.append((name, row["age_years"], row["error_code"]))
    return sorted(out, key=str)


def test_every_kind_of_source_gives_the_same_answers(photos: Path, tmp_path: Path) -> None:
    files = sorted(p for p in photos.rglob("*") if p.is_file())
    run(photos, tmp_path / "folder")
    expected = answers(tmp_path / "folder")

    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, "photos")
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(str(p.relative_to(tmp_path)) for p in files), encoding="utf-8")
    table = pa.table({"id": [p.name for p in files], "image": [p.read_bytes() for p in files]})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=5)

    run(tmp_path / "photos.tar", tmp_path / "tar")
    run(listing, tmp_path / "list")
    run(f"{photos}/**/*.*", tmp_path / "glob")
    keyed = Job(attributes=("age",), shard_size=4, image_column="image", id_column="id")
    run(tmp_path / "images.parquet", tmp_path / "table", keyed)
    for kind in ("tar", "list", "glob", "table"):
        assert answers(tmp_path / kind) == expected, kind


def test_a_url_is_a_source(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    run(photos, tmp_path / "folder")
    run(photos.as_uri(), tmp_path / "url")
    assert [a[1:] for a in answers(tmp_path / "url")] == [
        a[1:] for a in answers(tmp_path / "folder")
    ]


def test_links_to_files_are_followed_and_loops_end(photos: Path, tmp_path: Path) -> None:
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "link.jpg").symlink_to(photos / "naïve 人.jpg")
    (photos / "nowhere.jpg").symlink_to(photos / "gone.jpg")
    (photos / "self.jpg").symlink_to(photos / "self.jpg")
    run(photos, tmp_path / "t")
    found = by_name(tmp_path / "t")
    assert found["link.jpg"][0]["face_index"] == 0
    assert found["nowhere.jpg"][0]["error_code"] == "image_not_found"
    assert found["self.jpg"][0]["error_code"] == "image_not_found"
    assert len(found) == 19


def test_one_picture_that_is_named_twice_is_said_in_the_singular(
    photos: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    twice = [str(photos / "wall.png")] * 2
    annotate(twice, tmp_path / "t", AGE, workers=1, note=said.append)
    assert "1 picture was named more than once: the first of each counts" in said


def test_a_second_run_has_nothing_to_do_and_other_settings_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    run(photos, tmp_path / "t")
    before = parts(tmp_path / "t")
    said: list[str] = []
    assert run(photos, tmp_path / "t", note=said.append).annotated == 0
    (note,) = (text for text in said if "nothing is left" in text)
    assert note.endswith("files added since, also to lists, need another table")
    assert parts(tmp_path / "t") == before
    with pytest.raises(TableError, match="attributes"):
        run(photos, tmp_path / "t", Job(attributes=("gender",), shard_size=4))


def test_all_that_ends_in_parquet_is_a_part(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``*.parquet``, as DuckDB reads it, matches only rows, at every write and at the end."""
    seen: set[str] = set()
    flush = os.fsync

    def look(descriptor: int) -> None:
        seen.update(path.name for path in (tmp_path / "t").glob("*.parquet"))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    run(photos, tmp_path / "t")
    assert seen == set(parts(tmp_path / "t"))


def test_attributes_may_be_named_in_any_order(photos: Path, tmp_path: Path) -> None:
    """A restart sees the same job: attributes are stored in the contract's order."""
    table, wall = tmp_path / "t", photos / "wall.png"
    run(wall, table, Job(attributes=("gender", "age", "age")))
    assert run(wall, table, Job(attributes=("age", "gender"))).annotated == 0
    manifest = json.loads((table / MANIFEST).read_text())
    for name in ("attributes", "video_attributes"):
        assert manifest["settings"][name] == ["age", "gender"]
    with pytest.raises(TableError, match="--attributes was age,gender, is now age"):
        run(wall, table, AGE)
    with pytest.raises(OptionError, match="not colour"):
        Job(attributes=("age", "colour"))


def test_a_run_that_begins_nothing_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    out, bare = tmp_path / "new" / "t", tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(OptionError, match="no picture"):
        run(bare, out)
    assert not out.parent.exists()
    listing = tmp_path / "list.txt"
    listing.write_bytes(b"a.jpg\n" * 10 + b"\0")  # fails while the plan is written
    with pytest.raises(OptionError, match="line 11"):
        run(listing, out)
    assert not out.parent.exists()
    out.mkdir(parents=True)  # made by someone else, so it stays
    with pytest.raises(OptionError, match="no picture"):
        run(bare, out)
    assert out.is_dir()


def test_a_part_lost_or_cut_by_a_power_failure_is_made_again(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "t")
    before = parts(tmp_path / "t")
    names = sorted(before)
    (tmp_path / "t" / names[0]).write_bytes(before[names[0]][:500])
    (tmp_path / "t" / names[2]).unlink()
    said: list[str] = []
    assert run(photos, tmp_path / "t", note=said.append).annotated == 8
    assert sum("damaged" in text for text in said) == 2
    assert parts(tmp_path / "t") == before


def test_a_line_that_vouches_for_nothing_is_passed_over(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "t")
    before = (tmp_path / "t" / "_parts.jsonl").read_text()
    torn = "".join(f"{line}\n" for line in ('{"shard": 1}', "{}", "[]", "7", '{"sh'))
    (tmp_path / "t" / "_parts.jsonl").write_text(before + torn)
    assert run(photos, tmp_path / "t").annotated == 0


def test_workers_do_not_change_a_byte(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "one")
    annotate([str(photos)], tmp_path / "two", AGE, workers=2)
    assert parts(tmp_path / "one") == parts(tmp_path / "two")


def test_a_file_that_vanishes_is_a_row(photos: Path, tmp_path: Path) -> None:
    def remove(done: int, total: int) -> None:
        (photos / "wall.png").unlink(missing_ok=True)

    run(photos, tmp_path / "t", Job(attributes=("age",), shard_size=1), progress=remove)
    (row,) = by_name(tmp_path / "t")["wall.png"]
    assert row["error_code"] == "image_not_found"


@pytest.mark.parametrize(
    ("source", "message"),
    [("nowhere", "no such file"), ("photos.tar.gz", "compressed"), ("photos.zip", "unpack")],
)
def test_a_source_that_cannot_be_read_says_what_to_do(
    source: str, message: str, tmp_path: Path
) -> None:
    if source != "nowhere":
        (tmp_path / source).write_bytes(b"x")
    with pytest.raises(OptionError, match=message):
        run(tmp_path / source, tmp_path / "t")
    (tmp_path / "bare").mkdir()
    with pytest.raises(OptionError, match="no picture"):
        run(tmp_path / "bare", tmp_path / "t2")
    (tmp_path / "bare" / "a.tar").touch()
    with pytest.raises(OptionError, match=r"as a pattern: .*/bare/\*\.tar"):
        run(tmp_path / "bare", tmp_path / "t2")


def test_what_only_a_folder_can_be_told_is_not_told_of_a_tar(photos: Path, tmp_path: Path) -> None:
    """Patterns find nothing in a tar, and videos are read only outside tars."""
    for name in ("a.tar", "clip.mp4"):
        (tmp_path / name).touch()
    with tarfile.open(tmp_path / "nest.tar", "w") as tar:
        tar.add(tmp_path / "a.tar", "a.tar")
    with pytest.raises(OptionError, match=r"no picture in .*nest\.tar: .*\(\.tar 1\)") as raised:
        run(tmp_path / "nest.tar", tmp_path / "t")
    assert "as a pattern" not in str(raised.value)
    with tarfile.open(tmp_path / "mixed.tar", "w") as tar:
        tar.add(tmp_path / "clip.mp4", "clip.mp4")
        tar.add(photos / "wall.png", "wall.png")
    said: list[str] = []
    assert run(tmp_path / "mixed.tar", tmp_path / "t", note=said.append).images == 1
    assert any("(.mp4 1): videos in a tar are not read, unpack them" in text for text in said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_before_it_began_anything_says_so(
    number: signal.Signals, code: int, photos: Path, tmp_path: Path
) -> None:
    program = f"""
import os, signal
from facewise.batch import annotate
from facewise.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
annotate.list_items = lambda *_: os.kill(os.getpid(), {int(number)})
main()
"""
    arguments = ["annotate", str(photos), "--out", str(tmp_path / "t")]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.endswith("facewise: stopped; nothing was begun\n")
    assert not (tmp_path / "t").exists()


def command(source: Path, table: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "facewise", "annotate", str(source), "--out", str(table)),
        *("--attributes", "age", "--shard-size", "4", "--workers", "1", *more),
    ]


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command that does not outlive the test, even if that fails."""
    with ExitStack() as stack:

        def begin(arguments: list[str]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                arguments,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # A shell's background jobs ignore Ctrl-C, and their children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition holds, which on failure it may never do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def wait_for_part(table: Path, process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until a run has written ``count`` parts or ended."""
    until(lambda: process.poll() is not None or len(list(table.glob("part-*.parquet"))) >= count)


def test_killed_runs_end_in_the_table_of_one_that_was_not(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    run(photos, tmp_path / "quiet")
    table, killed = tmp_path / "killed", 0
    for count in (0, 1, 2):
        process = start(command(photos, table))
        wait_for_part(table, process, count)
        killed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed >= 2
    run(photos, table)
    assert parts(table) == parts(tmp_path / "quiet")


def test_ctrl_c_keeps_what_is_finished(photos: Path, tmp_path: Path, start: Start) -> None:
    for copy in range(100):  # enough work to be interrupted
        shutil.copy(photos / "naïve 人.jpg", photos / f"copy-{copy}.jpg")
    table = tmp_path / "t"
    process = start(command(photos, table))
    wait_for_part(table, process, 2)  # a part is noted as finished before the next is written
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"resumes from there" in said
    assert b"Traceback" not in said
    with TableFolder(table) as folder:
        finished, _ = folder.finished_parts()
    assert 1 <= len(finished) < 116 / 4
    images = sum(about["images"] for about in finished.values())
    assert f"stopped; {images} images are in finished parts in {table}: " in said.decode()


def test_a_burst_of_signals_stops_as_one_does(photos: Path, tmp_path: Path, start: Start) -> None:
    for copy in range(100):  # enough work to be interrupted
        shutil.copy(photos / "naïve 人.jpg", photos / f"copy-{copy}.jpg")
    process = start(command(photos, tmp_path / "t"))
    wait_for_part(tmp_path / "t", process, 1)
    end = time.monotonic() + BURST_SECONDS / 2  # on a busy machine fewer, not later ones
    for number in 40 * (signal.SIGINT, signal.SIGTERM):
        if time.monotonic() < end:
            process.send_signal(number)
            time.sleep(0.005)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"resumes from there" in said
    assert b"Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows when a worker begins")
def test_ctrl_c_is_the_commands_alone_while_workers_start(
    photos: Path, tmp_path: Path, start: Start
) -> None:
    """A terminal sends it to all processes: a worker must ignore it from the start, or it prints a
    traceback if the command is too slow to end it."""
    process = start(command(photos / "wall.png", tmp_path / "t"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []

    def appears() -> bool:
        assert process.poll() is None, "it has ended without a worker"
        workers[:] = [pid for pid in children.read_text().split() if is_new_worker(pid)]
        return bool(workers)

    until(appears)
    os.kill(int(workers[0]), signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert b"Traceback" not in said
    assert process.returncode == 0


def is_new_worker(pid: str) -> bool:
    """Whether it is a worker whose Python already turns Ctrl-C into KeyboardInterrupt."""
    if b"spawn_main" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        return False
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGINT - 1) & 1)


def test_a_worker_that_dies_costs_nothing_and_what_is_named_twice_is_there_once(
    photos: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            killed.extend(child.pid or 0 for child in multiprocessing.active_children())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    said: list[str] = []
    twice = [str(photos), str(photos)]
    summary = annotate(twice, tmp_path / "t", AGE, workers=1, progress=kill, note=said.append)
    assert killed
    assert summary.images == len(by_name(tmp_path / "t")) == 16
    assert "16 pictures were named more than once: the first of each counts" in said
    assert sorted(summary.errors) == sorted(
        {row["error_code"] for row in rows(tmp_path / "t")} - {None}
    )
    assert "worker_crashed" not in summary.errors


Hook = Callable[[str, str, str], None]


@pytest.fixture
def in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Let processes that start from now on run a statement when they open or import something.

    It stands for a decoder that crashes or never returns: nothing of ours is replaced.
    """

    def install(event: str, name: str, statement: str) -> None:
        folder = tmp_path / "hook"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"""
import os, signal, sys, threading
def look(event, arguments):
    if event == {event!r} and str(arguments[0]).endswith({name!r}):
        {statement}
sys.addaudithook(look)
"""
        )
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    return install


DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def test_a_picture_that_kills_its_worker_is_a_row_and_costs_no_other_its_own(
    photos: Path, tmp_path: Path, in_workers: Hook
) -> None:
    """Every row is where it would be otherwise, also of the pictures in the same task."""
    deadly = photos / "0-deadly.webp"  # the first of its task, and the last of it to be done
    shutil.copy(next(photos.glob("*.webp")), deadly)
    run(photos, tmp_path / "quiet")
    expected = rows(tmp_path / "quiet")
    assert expected[0]["image_id"].endswith(deadly.name)

    in_workers("open", deadly.name, DIE)
    summary = run(photos, tmp_path / "t")
    assert summary.images == 17
    assert summary.errors["worker_crashed"] == 1
    crashed, *others = rows(tmp_path / "t")
    assert crashed["image_id"] == expected[0]["image_id"]
    assert crashed["error_code"] == "worker_crashed"
    assert "died 2 times" in crashed["error_message"]
    assert crashed["face_index"] is None
    assert others == expected[1:]


def test_workers_that_keep_dying_end_the_run(
    photos: Path, tmp_path: Path, in_workers: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many pictures that kill: the machine is to blame, and every row would be an error."""
    monkeypatch.setattr("facewise.batch.pool.MAX_GIVEN_UP", 0)
    in_workers("open", "wall.png", DIE)
    with pytest.raises(FacewiseError, match=r"workers keep dying: .* finished parts are kept"):
        run(photos / "wall.png", tmp_path / "t")


def test_workers_that_die_as_they_start_end_the_run(
    photos: Path, tmp_path: Path, in_workers: Hook
) -> None:
    in_workers("import", "facewise.batch.work", DIE)
    with pytest.raises(FacewiseError, match=r"died as it started \(signal SIGKILL\)"):
        run(photos, tmp_path / "t")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends with its task")
def test_a_worker_does_not_outlive_a_killed_command(
    photos: Path, tmp_path: Path, in_workers: Hook, start: Start
) -> None:
    """Even if it is at a picture whose decoder never returns."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    tell = f"os.write(os.open({str(alive)!r}, os.O_WRONLY), b'%d' % os.getpid())"
    in_workers("open", "wall.png", f"{tell}; threading.Event().wait()")
    ours = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = start(command(photos / "wall.png", tmp_path / "t"))
        assert select.select([ours], [], [], 120)[0], "no worker has begun"
        worker = int(os.read(ours, 20))
        assert worker != process.pid
        process.kill()
        if not select.select([ours], [], [], 60)[0]:  # readable: the worker's end is closed
            os.kill(worker, signal.SIGKILL)
            pytest.fail("the worker goes on")
        assert os.read(ours, 20) == b""
    finally:
        os.close(ours)


def test_tasks_and_results_larger_than_a_pipe_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """A task is sent ahead while the worker sends a result, half a megabyte each."""
    listing = tmp_path / "long.txt"
    listing.write_text("\n".join(f"{number:060000}.jpg" for number in range(40)))
    done = subprocess.run(
        [*command(listing, tmp_path / "t"), "--shard-size", "8"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,  # on failure they would wait forever
    )
    assert done.returncode == 1, "nothing was read"
    assert "40 errors (image_not_found 40)" in done.stdout
    assert re.search(r"first is 0{150} \.\.\. 0+\.jpg: .*too long", done.stderr)
    assert len(done.stderr) < 2000


def test_a_folder_with_hidden_files_alone_may_become_a_table(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "t"
    out.mkdir()
    (out / ".DS_Store").touch()
    assert run(photos / "wall.png", out).images == 1
    assert len(rows(out)) == 1


def test_a_table_in_use_is_refused_and_free_again_afterwards(photos: Path, tmp_path: Path) -> None:
    with TableFolder(tmp_path / "t"), pytest.raises(TableError, match="is being written by"):
        run(photos, tmp_path / "t")
    assert run(photos, tmp_path / "t").annotated == 16


def test_a_full_disk_is_one_line_and_nothing_finished_is_lost(photos: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: writing fails midway."""
    table = tmp_path / "t"
    run(photos, tmp_path / "quiet")
    limit = max(len(data) for data in parts(tmp_path / "quiet").values()) // 2

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    failed = subprocess.run(
        command(photos, table), capture_output=True, text=True, preexec_fn=full, check=False
    )
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert "cannot be written" in failed.stderr or "space" in failed.stderr
    run(photos, table)
    assert parts(table) == parts(tmp_path / "quiet")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is always full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_log_ends_no_run(
    unbuffered: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(photos, tmp_path / "t"), stdout=subprocess.PIPE, stderr=full, check=False
        )
        assert done.returncode == 0
        assert b"16 images" in done.stdout
        nowhere = command(tmp_path / "nowhere", tmp_path / "t2")
        assert subprocess.run(nowhere, stderr=full, check=False).returncode == 2


def test_a_table_may_have_a_colon_in_its_name_and_no_url(
    photos: Path, tmp_path: Path, facewise: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make = ("annotate", photos / "wall.png", "--workers", 1, "--out")
    done = facewise(*make, "faces:v1")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "faces:v1")) == 1
    assert facewise(*make, "faces:v1").returncode == 0
    refused = facewise(*make, "s3://bucket/faces")
    assert refused.returncode == 2
    assert "s3://bucket/faces: a table is written to a local disk" in refused.stderr
    assert not (tmp_path / "s3:").exists()


def test_a_single_source_may_be_a_string_or_a_path(photos: Path, tmp_path: Path) -> None:
    sources: tuple[Path | str, ...] = (photos / "wall.png", str(photos / "wall.png"))
    for number, source in enumerate(sources):
        assert annotate(source, tmp_path / str(number), workers=1).annotated == 1


def test_of_many_sources_those_that_differ_are_named() -> None:
    """The first sixty characters of two lists of paths are mostly alike."""
    old = {"sources": [f"/home/somebody/pictures/of/{name}" for name in "abcd"]}
    new = {"sources": [*old["sources"][:3], "/home/somebody/pictures/of/x.jpg"]}
    had, now = "/home/somebody/pictures/of/d", "/home/somebody/pictures/of/x.jpg"
    assert differences(old, new) == [f"sources had {had}, now has {now}"]
    more = {"sources": [*old["sources"], now]}
    assert differences(old, more) == [f"sources now has {now}"]
    turned = {"sources": old["sources"][::-1]}
    assert differences(old, turned) == ["sources has another order or number of the same parts"]
    long = {name: f"/a/{name * 70}/model.json" for name in "xy"}
    (text,) = differences({"model": long["x"]}, {"model": long["y"]})
    assert text.count("/model.json") == 2
    assert len(text) < 150


def test_settings_that_differ_are_named_as_options() -> None:
    options = {
        option
        for parameter in get_command(app).commands["annotate"].params  # type: ignore[attr-defined]
        for option in parameter.opts
    }
    names = {field.name for field in dataclasses.fields(Job)} | {"video_attributes"}
    named = [text.split()[0] for text in differences(dict.fromkeys(names, 1), {})]
    assert options.issuperset(named)
    assert len(named) == len(names)
    assert {"--fps", "--min-face", "--inference-batch"} <= set(named)
    assert differences({"facewise_version": "1"}, {}) == ["facewise_version was 1, is now not set"]


def test_a_list_without_a_known_column_of_paths_says_which_option_names_it(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text(f"url,id\n{photos / 'wall.png'},1\n")
    with pytest.raises(OptionError, match="name its column with --image-column"):
        run(tmp_path / "list.csv", tmp_path / "t")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".JSON", ".jsonl", ".txt", ".xlsx"])
def test_a_table_is_not_called_like_a_single_file(
    ending: str, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        OptionError, match=rf"a folder of Parquet files, not a \{ending} file.*t\.t"
    ):
        run(pictures / "astronaut.jpg", tmp_path / f"t{ending}")
    assert not list(tmp_path.iterdir())


def test_a_table_may_be_called_parquet(pictures: Path, tmp_path: Path) -> None:
    """As Spark's folders are."""
    assert run(pictures / "astronaut.jpg", tmp_path / "t.parquet").faces == 1


@pytest.mark.parametrize("ids", ["", "--id-column id"])
@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_run_in_which_nothing_was_read_fails_and_says_which_paths_were_tried(
    name: str,
    ids: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facewise: Command,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures / "astronaut.jpg", tmp_path / "a.jpg")  # but the list is elsewhere
    Path("lists").mkdir()
    head = "path,id\n" if name == "list.csv" else ""
    Path("lists", name).write_text(
        f"{head}a.jpg{',17' * bool(head)}\ngone.jpg{',18' * bool(head)}\n"
    )
    command = ["annotate", f"lists/{name}", "--out", "t", *ids.split(), "--workers", "1"]
    for more in ([], [], ["--retry-errors"]):  # one that resumes, too
        done = facewise(*command, *more)
        assert done.returncode == 1
        said = " ".join(done.stderr.split())
        assert "no picture was read: 2 images have an error" in said
        assert "lists/a.jpg cannot be read (No such file or directory): check the path" in said
        assert "--retry-errors" in said
    found = {row["image_id"]: row["error_message"] for row in rows(tmp_path / "t")}
    assert list(found) == (["17", "18"] if ids and head else ["a.jpg", "gone.jpg"])
    tried = [f"{tmp_path}/lists/{file}.jpg" for file in ("a", "gone")]
    assert [text.split()[0] for text in found.values()] == tried
    Path("a.jpg").rename("lists/a.jpg")
    assert facewise(*command).returncode == 1, "nothing was tried again"
    done = facewise(*command, "--retry-errors")
    assert (done.returncode, "no picture was read" in done.stderr) == (0, False)
    assert facewise(*command, "--retry-errors", "--strict").returncode == 1


def test_a_missing_file_of_a_list_in_this_folder_is_said_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("gone.jpg\n")
    run("list.txt", Path("t"))
    (row,) = rows(Path("t"))
    assert row["image_id"] == "gone.jpg"
    assert row["error_message"].startswith(f"{tmp_path}/gone.jpg cannot be read (No such file")


def test_a_text_that_is_no_list_lacks_files_and_no_file_system(
    tmp_path: Path, facewise: Command
) -> None:
    listing = tmp_path / "prose.txt"
    listing.write_text("$ make app  # opens the web app at http://127.0.0.1:8000\n")
    done = facewise("annotate", listing, "--out", tmp_path / "t", "--workers", 1)
    assert done.returncode == 1
    assert "cannot be read (No such file or directory): check the path" in done.stderr
    assert "file system" not in done.stderr


def test_strict_ends_with_one_where_a_row_has_an_error(
    photos: Path, tmp_path: Path, facewise: Command
) -> None:
    _, *arguments = command(photos, tmp_path / "t")[2:]
    loose = facewise(*arguments)
    assert loose.returncode == 0
    assert "3 errors" in loose.stdout
    assert re.search(r"16 of 16 images, [\d.]+/s", loose.stderr)
    assert facewise(*arguments, "--strict").returncode == 1


def test_video_rows_share_the_answers_of_their_track(pictures: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    import numpy as np
    from PIL import Image

    rgb = np.asarray(Image.open(io.BytesIO((pictures / "astronaut.jpg").read_bytes())))
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for shift in range(30):
            frame = av.VideoFrame.from_ndarray(np.roll(rgb, shift, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    run(tmp_path / "clip.mp4", tmp_path / "t", Job(frames_per_second=2.0))
    found = rows(tmp_path / "t")
    assert sorted({row["frame_index"] for row in found}) == [0, 5, 10, 15, 20, 25]
    # The portrait is one person throughout; a doubtful second face must not join the track.
    mine = [row for row in found if row["track_id"] == found[0]["track_id"]]
    assert [row["frame_index"] for row in mine] == [0, 5, 10, 15, 20, 25]
    assert len({row["age_years"] for row in mine}) == 1
    assert mine[0]["bbox"][0] < mine[-1]["bbox"][0] - 15
    assert found[0]["ethnicity"] is None  # for videos, only on request
