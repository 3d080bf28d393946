"""The command line as a user meets it: real processes, exit codes, no traceback ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import facewise


def run(*args: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        [sys.executable, "-m", "facewise", *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert b"Traceback" not in result.stderr
    return result


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    y, x = np.mgrid[:300, :500]
    sky = np.stack([np.where(y < 150, 150, 60), 160 + x // 20, 255 - y // 3], -1)
    path = tmp_path / "landscape.png"
    Image.fromarray(sky.astype(np.uint8)).save(path)
    return path


def test_version_and_help() -> None:
    assert run("--version").stdout.decode().strip() == f"facewise {facewise.__version__}"
    assert b"predict" in run("--help").stdout


def test_table(pictures: Path) -> None:
    result = run("predict", pictures / "astronaut.jpg", "--threads", "1")
    assert result.returncode == 0
    text = result.stdout.decode()
    assert "1 face" in text
    assert "female" in text
    assert "between" in text


def test_json_lines(pictures: Path, landscape: Path, tmp_path: Path) -> None:
    bad = tmp_path / "text.jpg"
    bad.write_text("no picture")
    result = run("predict", "--json", "--vector", pictures / "astronaut.jpg", landscape, bad)
    assert result.returncode == 1
    face, nobody, failed = (json.loads(line) for line in result.stdout.splitlines())
    assert face["schema_version"] == 1
    assert (face["width_px"], face["height_px"]) == (512, 512)
    assert len(face["faces"][0]["vector"]) == 19
    assert face["faces"][0]["gender"]["label"] == "female"
    assert nobody["faces"] == []
    assert failed["error"]["code"] == "not_an_image"
    assert b"text.jpg" in result.stderr


def test_exit_codes(pictures: Path, landscape: Path, tmp_path: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    assert run("predict", landscape).returncode == 3
    assert run("predict", landscape, astronaut).returncode == 0
    missing = run("predict", tmp_path / "missing.jpg", astronaut)
    assert missing.returncode == 1
    assert b"1 face" in missing.stdout
    assert b"missing.jpg" in missing.stderr
    for usage in (
        ["predict"],
        ["predict", "--nonsense", astronaut],
        ["predict", astronaut, "--attributes", "mood"],
        ["predict", astronaut, "--coverage", "0.5"],
        ["predict", astronaut, "--model", "nobody"],
        ["predict", "-", "-"],
        ["predict", astronaut, "--draw", tmp_path / "out.txt"],
        ["nonsense"],
    ):
        result = run(*usage)
        assert result.returncode == 2, usage
        assert result.stderr, usage


def test_every_bad_input_is_one_line(tmp_path: Path) -> None:
    jpeg = tmp_path / "whole.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(jpeg)
    cases = {
        "text.jpg": b"only text",
        "empty.jpg": b"",
        "half.jpg": jpeg.read_bytes()[: jpeg.stat().st_size // 2],
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("L", (10_000, 6_000)).save(tmp_path / "sixty.jpg", quality=5)
    names = [*cases, "dot.png", "sixty.jpg", ".", "missing.jpg"]
    result = run("predict", *(tmp_path / name for name in names))
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert len(lines) == len(names)
    for line, word in zip(
        lines, ["not a picture", "empty", "truncated", "16", "scale", "directory", "path"],
        strict=True,
    ):  # fmt: skip
        assert word in line


def test_animated_gif_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (60, 60), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert run("predict", tmp_path / "a.gif").returncode == 3


def test_standard_input(pictures: Path) -> None:
    data = (pictures / "astronaut.jpg").read_bytes()
    result = run("predict", "-", "--json", stdin=data)
    assert result.returncode == 0
    assert json.loads(result.stdout)["photo"] == "-"
    assert run("predict", "-", stdin=b"").returncode == 1


def test_drawing(pictures: Path, tmp_path: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    assert run("predict", astronaut, "--draw", tmp_path / "out.png").returncode == 0
    drawn = np.array(Image.open(tmp_path / "out.png"))
    plain = np.array(Image.open(astronaut))
    assert drawn.shape == plain.shape
    changed = np.abs(drawn.astype(int) - plain).max(-1) > 0
    assert 0.005 < changed.mean() < 0.3
    folder = tmp_path / "folder"
    face = next((pictures / "faces").glob("*.webp"))
    assert run("predict", astronaut, face, "--draw", folder).returncode == 0
    assert len(list(folder.iterdir())) == 2
    assert run("predict", astronaut, face, "--draw", tmp_path / "out.png").returncode == 2


def test_attributes_off(pictures: Path) -> None:
    result = run("predict", "--json", "--attributes", "age", pictures / "astronaut.jpg")
    (face,) = json.loads(result.stdout)["faces"]
    assert "age" in face
    assert "gender" not in face
    assert "ethnicity" not in face


def test_models_and_doctor() -> None:
    rows = json.loads(run("models", "--json").stdout)
    assert rows[0]["name"] == "facewise-default"
    assert rows[0]["size_bytes"] < 25_000_000
    assert b"UTKFace" in run("models").stdout
    doctor = run("doctor")
    assert doctor.returncode == 0, doctor.stderr
    assert b"CPUExecutionProvider" in doctor.stdout
