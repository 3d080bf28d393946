"""``facewise annotate --engine ray`` on a Ray started for the test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from facewise.batch.annotate import annotate
from facewise.batch.job import Job

RAY = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # otherwise it writes a token into the home folder
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a future change
}


@pytest.fixture
def photos(pictures: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((pictures / "faces").glob("*.webp"))[:4]:
        shutil.copy(path, folder)
    (folder / "text.jpg").write_text("not a picture")
    return folder


def command(photos: Path, table: Path, workers: int = 1) -> list[str]:
    return [
        *(sys.executable, "-m", "facewise", "annotate", str(photos), "--out", str(table)),
        *("--shard-size", "2", "--engine", "ray", "--workers", str(workers)),
    ]


def skip_if_ray_does_not_start(said: str) -> None:
    """As on a machine that is overloaded; a Ray that is called wrongly is our own error."""
    is_misuse = re.search("(keyword|positional) argument|has no attribute", said)
    if "no Ray could be reached or started" in said and not is_misuse:
        pytest.skip(f"Ray does not start on this machine: {said[-300:]}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_local_ray_gives_the_same_bytes(photos: Path, tmp_path: Path, workers: int) -> None:
    pytest.importorskip("ray")
    annotate([str(photos)], tmp_path / "local", Job(shard_size=2), workers=1)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        command(photos, tmp_path / "ray", workers),
        capture_output=True,
        text=True,
        env=environment | RAY,
        check=False,
    )
    skip_if_ray_does_not_start(done.stderr)  # it gives up after a few seconds
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "local").glob("part-*.parquet"))
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    rows = pq.read_table(tmp_path / "ray").to_pylist()
    assert sum(row["face_index"] is not None for row in rows) >= 3
    assert [row["error_code"] for row in rows].count(None) == len(rows) - 1


DEADLY = """
import os, signal
from facewise.batch import on_ray
from facewise.batch.job import FILE, Item, Job, Task

class Deadly:
    def __init__(self, job): pass
    def __call__(self, batch): os.kill(os.getpid(), signal.SIGKILL)

on_ray._Actor = Deadly
try:
    list(on_ray.run([Task(0, 0, (Item("a", FILE, "/a"),))], Job(), 1))
except on_ray.FacewiseError as error:
    print(error)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_picture_that_kills_its_process_ends_the_run() -> None:
    pytest.importorskip("ray")
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", DEADLY],
        capture_output=True,
        text=True,
        env=environment | RAY,
        check=False,
        timeout=180,  # it would never end if retried forever
    )
    skip_if_ray_does_not_start(done.stdout)
    assert "the cluster failed" in done.stdout
    assert "finish the table with the engine local" in done.stdout


def test_a_cluster_that_is_not_there_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        command(photos, tmp_path / "ray"),
        capture_output=True,
        text=True,
        env=os.environ | RAY | {"RAY_ADDRESS": "no address"},
        check=False,
    )
    assert done.returncode == 2
    assert "use the engine local" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ray_it_says_what_to_install(photos: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['ray'] = None; from facewise.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *command(photos, tmp_path / "ray")[3:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "facewise[ray]" in done.stderr
    assert "listing" not in done.stderr
    assert not (tmp_path / "ray").exists(), "nothing was begun"
