"""The doctor on broken installations: damaged copies of the package or of its weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import facewise
from facewise.cli import doctor
from facewise.formats import readable
from facewise.models import DEFAULT_MODEL

Run = Callable[..., subprocess.CompletedProcess[bytes]]

PACKAGE = Path(facewise.__file__).parent
ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "tests" / "data" / "astronaut.jpg"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder from which to import facewise; its files are links until a test replaces them."""
    shutil.copytree(
        PACKAGE,
        tmp_path / "facewise",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("*.pyc"),
    )
    return tmp_path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the weights, which this process uses instead; its files are links, too."""
    folder = tmp_path / "weights"
    shutil.copytree(PACKAGE / "weights", folder, copy_function=os.symlink)
    monkeypatch.setattr("facewise.models.WEIGHTS_FOLDER", folder)
    for module in ("models", "mtcnn"):
        monkeypatch.setattr(f"facewise.{module}.DETECTOR_SPEC", folder / "mtcnn.json")
    return folder


def examine(folder: Path) -> tuple[int, str, list[str]]:
    """Run ``facewise doctor`` on the copy in a folder."""
    result = subprocess.run(
        [sys.executable, "-m", "facewise", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr.splitlines()


def replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def test_a_sound_installation(copied: Path) -> None:
    code, out, errors = examine(copied)
    assert (code, errors) == (0, [])
    assert "no problems found" in out
    assert "CPUExecutionProvider" in out
    for name in (DEFAULT_MODEL, "mtcnn", "numpy", "opencv"):
        assert name in out


def test_everything_broken_is_named_and_nothing_stops_the_doctor(copied: Path) -> None:
    weights = copied / "facewise" / "weights"
    replace(weights / f"{DEFAULT_MODEL}.json", b"{ broken")
    (weights / "other.json").write_text('{"kind": "attributes", "name": "other"}')
    (weights / "list.json").write_text("[]")
    (weights / "mtcnn-pnet.onnx").unlink()
    data = bytearray((weights / "mtcnn-rnet.onnx").read_bytes())
    data[1000] ^= 1
    replace(weights / "mtcnn-rnet.onnx", bytes(data))
    (copied / "cv2.py").write_text("raise ImportError('libGL.so.1: no such file')")
    code, out, errors = examine(copied)
    assert code == 1
    assert all(line.startswith("problem: ") for line in errors)
    for words in (
        rf"{DEFAULT_MODEL}\.json is not a model spec",
        r"other\.json is not a model spec.*version",
        r"list\.json is not a model spec",
        rf"default model, {DEFAULT_MODEL}, is missing",
        r"mtcnn-pnet\.onnx cannot be read; reinstall",
        r"mtcnn-rnet\.onnx has SHA-256.*damaged",
        r"opencv-.* does not import \(libGL.*pip install",
    ):
        assert sum(bool(re.search(words, line)) for line in errors) == 1, words
    assert len(errors) == 7
    assert "damaged" in out
    assert "extra server" in out
    assert "no problems found" not in out


@pytest.mark.parametrize("text", ["", '{"networks": {"pnet": 3}}', '{"networks": {}}'])
def test_a_broken_detector(weights: Path, text: str) -> None:
    replace(weights / "mtcnn.json", text.encode())
    (problem,) = doctor.find_problems()
    assert re.search(r"mtcnn\.json is damaged.*reinstall", problem)


def test_a_network_that_onnx_runtime_cannot_open(weights: Path) -> None:
    """The hash is right but the file is not: only opening it reveals that."""
    replace(weights / "mtcnn-onet.onnx", b"not ONNX")
    spec = json.loads((weights / "mtcnn.json").read_text())
    spec["networks"]["onet"]["sha256"] = hashlib.sha256(b"not ONNX").hexdigest()
    replace(weights / "mtcnn.json", json.dumps(spec).encode())
    (problem,) = doctor.find_problems()
    assert re.search(r"mtcnn-onet\.onnx: ONNX Runtime cannot open it", problem)


def test_calibration_that_is_none(weights: Path) -> None:
    path = weights / f"{DEFAULT_MODEL}.json"
    text = re.sub(
        r'"calibration": \{', '"calibration": {"label_sets": 3, "was": {', path.read_text()
    )
    replace(path, (text + "}").encode())
    (problem,) = doctor.find_problems()
    assert "calibration is damaged" in problem


def test_other_commands_on_a_broken_spec(weights: Path, run: Run) -> None:
    """One line that says what to do, and exit code 2."""
    replace(weights / f"{DEFAULT_MODEL}.json", b"{ broken")
    for command in (["models"], ["predict", PHOTO]):
        ended = run(*command)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert b"reinstall facewise" in line


def test_predict_on_a_broken_detector(weights: Path, run: Run) -> None:
    replace(weights / "mtcnn.json", b"{ broken")
    for model in ("default", weights / f"{DEFAULT_MODEL}.json"):
        ended = run("predict", PHOTO, "--model", model)
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert re.search(rb"mtcnn\.json .*reinstall facewise", line)


def test_two_packages_that_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ONNX Runtimes and two OpenCVs, recognized by their metadata."""
    for name in ("onnxruntime_gpu", "opencv_python"):
        folder = tmp_path / f"{name}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 9.9\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    first, second = doctor.find_problems()
    assert "onnxruntime and onnxruntime-gpu are both installed" in first
    assert "pip uninstall opencv-python-headless opencv-python" in second


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in requirements}
    return found - {"facewise"}


def test_the_lists_agree_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert names(project["dependencies"]) == set(doctor.CORE)
    extras = {
        extra: names(requirements)
        for extra, requirements in project["optional-dependencies"].items()
    }
    extras["ray"] |= extras["batch"]  # ray requires batch
    assert extras == {extra: set(listed) for extra, listed in doctor.extras().items()}


def test_a_pillow_that_was_built_without_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda codec: codec not in ("webp", "avif"))
    assert set(readable()) - {"HEIC"} == {"JPEG", "PNG", "BMP", "GIF", "TIFF", "PGM", "PPM"}
    assert list(doctor.check_codecs()) == [
        "Pillow was built without AVIF, WebP: pip install --force-reinstall pillow"
    ]
