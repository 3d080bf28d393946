"""The command line as a user meets it: output, exit codes, and never a traceback."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shlex
import struct
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import facewise
from facewise import errors
from facewise.annotated import MANIFEST
from facewise.batch.job import Job
from facewise.cli import app
from facewise.cli.drawings import plan_drawings
from facewise.cli.options import report_path

FACEWISE = [sys.executable, "-m", "facewise"]
posix = pytest.mark.skipif(os.name != "posix", reason="shells and devices are POSIX's here")
Result = subprocess.CompletedProcess[bytes]
Run = Callable[..., Result]


def spawn(*args: str | Path, **environment: str) -> Result:
    """Run a command in its own process, for tests that depend on its environment."""
    return _result([*FACEWISE, *map(str, args)], COLUMNS="160", **environment)


def shell(command: str, *args: str | Path) -> Result:
    """Run a line of sh with this ``facewise``; the arguments are ``$1`` and so on."""
    line = command.replace("facewise", shlex.join(FACEWISE))
    return _result(["/bin/sh", "-c", line, "sh", *map(str, args)])


def _result(command: list[str], **environment: str) -> Result:
    ended = subprocess.run(
        command, capture_output=True, timeout=300, env={**os.environ, **environment}
    )
    assert b"Traceback" not in ended.stderr
    return ended


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    y, x = np.mgrid[:300, :500]
    sky = np.stack([np.where(y < 150, 150, 60), 160 + x // 20, 255 - y // 3], -1)
    path = tmp_path / "landscape.png"
    Image.fromarray(sky.astype(np.uint8)).save(path)
    return path


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout.decode().strip() == f"facewise {facewise.__version__}"
    assert b"predict" in run("--help").stdout


def test_a_face_is_one_line_in_a_pipe(pictures: Path) -> None:
    ended = _result([*FACEWISE, "predict", str(pictures / "astronaut.jpg")], COLUMNS="30")
    assert len(ended.stdout.decode().splitlines()) == 3  # the photo, the header, the face


@pytest.mark.parametrize("begun_by", ["module", "script"])
def test_an_interrupt_while_commands_are_imported_is_no_traceback(begun_by: str) -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    entry = tomllib.loads(project.read_text())["project"]["scripts"]["facewise"]
    begin = {
        "module": "runpy.run_module('facewise', run_name='__main__', alter_sys=True)",
        "script": f"EntryPoint('facewise', {entry!r}, 'console_scripts').load()()",
    }[begun_by]
    ctrl_c = f"""
import runpy, sys
from importlib.metadata import EntryPoint

class CtrlC:
    def find_spec(self, name, *_):
        if name == "facewise.cli.predict":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
{begin}
"""
    ended = _result([sys.executable, "-c", ctrl_c, "--version"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_the_vector_is_in_json_only(run: Run, landscape: Path) -> None:
    result = run("predict", "--vector", landscape)
    assert result.returncode == 2
    assert b"--json" in result.stderr


def test_table(pictures: Path) -> None:
    result = spawn("predict", pictures / "astronaut.jpg", "--threads", "1")
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode()
    assert "1 face" in text
    assert "female" in text
    (age,) = re.findall(r"\d+, between \d+ and \d+", text)
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    assert f'under `apparent age (90 %)`, "{age}" holds' in " ".join(page.split())
    assert "apparent age (90 %)" in text, "of what lies between the two"
    assert "apparent gender" in text
    assert "apparent ethnicity" in text
    other = spawn("predict", pictures / "astronaut.jpg", "--threads", "1", "--coverage", "0.8")
    assert b"apparent age (80 %)" in other.stdout
    unfitted = spawn("predict", pictures / "astronaut.jpg", "--model", "fairface-only")
    assert b"apparent age (90 %, not fitted)" in unfitted.stdout


def test_an_address_of_the_web_has_to_be_fetched_first() -> None:
    result = spawn("predict", "http://localhost/photo.jpg")
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith(b": download it first")


def test_verbosity_before_and_after_the_command(pictures: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    orders: list[list[str | Path]] = [["-v", "predict", astronaut], ["predict", astronaut, "-v"]]
    for arguments in orders:
        result = spawn(*arguments)
        assert result.returncode == 0
        assert b"INFO" in result.stderr
        assert b"512 x 512 px, faces: 1; decode" in result.stderr
        assert b"INFO" not in result.stdout


def test_exit_codes(run: Run, pictures: Path, landscape: Path, tmp_path: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    assert run("predict", landscape).returncode == 3
    assert run("predict", landscape, astronaut).returncode == 0
    missing = run("predict", tmp_path / "missing.jpg", landscape, astronaut)
    assert missing.returncode == 1
    assert b"1 face" in missing.stdout
    assert b"no face" in missing.stdout
    assert missing.stderr.decode().splitlines() == [
        f"facewise: {tmp_path / 'missing.jpg'}: cannot be read (No such file or directory): check "
        "the path"
    ]
    assert run("predict", tmp_path / "missing.jpg", landscape).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "issing argument"),
        (["--nonsense", "ASTRONAUT"], "nonsense"),
        (["ASTRONAUT", "--attributes", "mood"], "not mood"),
        (["ASTRONAUT", "--attributes", ","], "age, gender, ethnicity"),
        (["ASTRONAUT", "--coverage", "0.5"], "0.8, 0.9, 0.95"),
        (["ASTRONAUT", "--coverage", "nan"], "0.8, 0.9, 0.95"),
        (["ASTRONAUT", "--model", "nobody"], "facewise-default@"),
        (["ASTRONAUT", "--min-face", "nan"], "12 or more"),
        (["ASTRONAUT", "--min-face", "inf"], "12 or more"),
        (["ASTRONAUT", "--min-face", "big"], "min-face"),
        (["ASTRONAUT", "--max-faces", "0"], "1 or more"),
        (["ASTRONAUT", "--threads", "0"], "1 or more"),
        (["ASTRONAUT", "--max-pixels", "0"], "max_pixels must be"),
        (["ASTRONAUT", "--providers", "FancyProvider"], "no FancyProvider"),
        (["-", "-"], "only once"),
        (["ASTRONAUT", "--draw", "OUT/out.txt"], "name a .jpg, .png or .webp file"),
        (["ASTRONAUT", "--draw", "OUT/nowhere/out.png"], "does not exist"),
        (["ASTRONAUT", "ASTRONAUT", "--draw", "OUT/out.png"], "name a folder"),
        (["ASTRONAUT", "ASTRONAUT", "--draw", "OUT/file/folder"], "cannot be made"),
        (["ASTRONAUT", "--draw", "OUT/file"], "cannot be made"),
        (["ASTRONAUT", "--draw", "-"], "name a file or a folder"),
    ],
)
def test_bad_usage(
    run: Run, arguments: list[str], words: str, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    stand_ins = {"ASTRONAUT": str(pictures / "astronaut.jpg"), "OUT": str(tmp_path)}
    for word, stands_for in stand_ins.items():
        arguments = [argument.replace(word, stands_for) for argument in arguments]
    result = run("predict", *arguments)
    assert result.returncode == 2
    assert result.stdout == b""
    assert words in result.stderr.decode()


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("dedupe s3://bucket/photos", "s3://bucket/photos is a URL, not a path: download it"),
        ("dedupe photos --list https://host/list.csv", "https://host/list.csv is a URL"),
        ("audit gs://bucket/table", "gs://bucket/table is a URL"),
        ("audit table --against s3://bucket/table", "s3://bucket/table is a URL"),
        ("thumbs s3://bucket/table --by age --out sheet.png", "s3://bucket/table is a URL"),
        ("evaluate --data file:///faces.csv", "pass the path alone, /faces.csv"),
        ("train --config mine.toml --data s3://bucket/faces.csv", "s3://bucket/faces.csv is a URL"),
    ],
)
def test_a_url_where_a_path_is_needed(run: Run, command: str, advice: str) -> None:
    result = run(*command.split())
    assert result.returncode == 2
    assert advice in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr.decode()).split())


def test_data_where_none_is_named(tmp_path: Path) -> None:
    """The default is a path already when the options are parsed."""
    command = [*FACEWISE, "evaluate", "--out", str(tmp_path / "out")]
    environment = {k: v for k, v in os.environ.items() if k != "FACEWISE_DATA"}
    (tmp_path / "here").mkdir()
    ended = subprocess.run(command, capture_output=True, cwd=tmp_path / "here", env=environment)
    assert ended.returncode == 2
    assert b"../shared/data does not exist: name your data with --data" in ended.stderr


@pytest.mark.parametrize(
    ("command", "module", "distribution"),
    [
        ("predict", "cv2", "opencv-python-headless"),
        ("predict", "onnxruntime", "onnxruntime"),
        ("annotate", "cv2", "opencv-python-headless"),
        ("evaluate", "cv2", "opencv-python-headless"),
        ("serve", "cv2", "opencv-python-headless"),
        ("serve", "onnxruntime", "onnxruntime"),
    ],
)
def test_a_broken_package_is_named(
    command: str, module: str, distribution: str, pictures: Path, tmp_path: Path
) -> None:
    """As happens when a package that was installed over another one is uninstalled."""
    (tmp_path / f"{module}.py").write_text("raise ImportError('libGL.so.1: no such file')")
    photo = str(pictures / "astronaut.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"path,age,gender\n{photo},36,female\n")
    evaluated = ["--data", str(labels), "--store", str(tmp_path / "store"), "--workers", "2"]
    arguments = {
        "predict": [photo],
        "annotate": [photo, "--out", str(tmp_path / "table")],
        "evaluate": [*evaluated, "--out", str(tmp_path / "report")],
        "serve": ["--no-open", "--port", "0"],
    }
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = spawn(command, *arguments[command], PYTHONPATH=path)
    assert result.returncode == 2
    assert result.stdout == b""
    said = result.stderr.decode().splitlines()[-1]
    assert said.startswith("facewise: ")
    assert f"{distribution} does not import (libGL.so.1: no such file): pip install" in said


def test_limits_of_a_photo(run: Run, pictures: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    small = run("predict", astronaut, "--max-pixels", "1000")
    assert small.returncode == 1
    assert small.stderr.decode().count("astronaut.jpg") == 1
    assert b"more than 1,000: scale the picture down, or raise --max-pixels" in small.stderr
    less = run("predict", astronaut, "--json", "--max-bytes", "1000")
    assert less.returncode == 1
    assert json.loads(less.stdout)["error"]["message"].endswith("or raise --max-bytes")


def test_every_command_can_say_more() -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        options = [option for parameter in command.params for option in parameter.opts]
        assert "--verbose" in options, name


@pytest.mark.parametrize(
    ("command", "least"),
    [
        (("evaluate", "--data", "nowhere.csv"), logging.INFO),
        (("dedupe", "nowhere", "--shares", "?"), logging.WARNING),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_no_command_undoes_vv(
    command: tuple[str, ...], least: int, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("facewise")
    caplog.set_level(logging.WARNING, logger.name)  # and back to what it was, at the end
    for flag, level in (((), least), (("-vv",), logging.DEBUG)):
        assert CliRunner().invoke(app, [*flag, *command]).exit_code
        assert logger.level == level


def test_help_loses_no_words() -> None:
    text = spawn("teach", "--help").stdout.decode()
    assert "loss.teacher" in text


def test_a_version_in_a_reports_name_is_no_suffix() -> None:
    folder = Path("out")
    assert report_path(folder / "report-v1.2", ".html") == folder / "report-v1.2.html"
    assert report_path(folder / "report.json", ".md") == folder / "report.md"


def test_an_unknown_command(run: Run) -> None:
    assert run("nonsense").returncode == 2


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size but carries almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def make_bad_files(folder: Path) -> dict[str, str]:
    """Make files that are not photos; map each name to a word of the expected message."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    (folder / "text.jpg").write_text("only text")
    (folder / "empty.jpg").touch()
    (folder / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "bomb.png").write_bytes(png_header(100_000, 100_000))
    Image.new("L", (10_000, 6_000)).save(folder / "sixty.jpg", quality=5)
    (folder / "folder.jpg").mkdir()
    np.save(folder / "floats.npy", np.zeros((20, 20, 3)))
    np.save(folder / "flat.npy", np.zeros(20, np.uint8))
    return {
        "text.jpg": "not a picture",
        "empty.jpg": "empty",
        "half.jpg": "ends too early",
        "dot.png": "16",
        "bomb.png": "100,000 x 100,000",
        "sixty.jpg": "scale the picture down",
        "folder.jpg": "is a directory",
        "floats.npy": "not a picture",
        "flat.npy": "not a picture",
        "missing.jpg": "check the path",
        "null\udcff.jpg": "check the path",
    }


def test_every_bad_input_is_one_line(tmp_path: Path, landscape: Path) -> None:
    bad = make_bad_files(tmp_path)
    result = spawn("predict", *(tmp_path / name for name in bad), landscape)
    assert result.returncode == 1
    assert result.stdout.decode().splitlines() == [f"{landscape}: no face"]
    lines = result.stderr.decode().splitlines()
    assert len(lines) == len(bad)
    for line, (name, words) in zip(lines, bad.items(), strict=True):
        assert line.startswith(f"facewise: {tmp_path / name.replace(chr(0xDCFF), '')}"[:40])
        assert words in line


def test_pictures_without_an_upright_face_are_answers(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    """An animation counts by its first frame; a face upside down may be found or not."""
    astronaut = Image.open(pictures / "astronaut.jpg")
    plain = Image.new("RGB", astronaut.size, "teal")
    plain.save(tmp_path / "later.gif", save_all=True, append_images=[astronaut])
    astronaut.save(tmp_path / "first.gif", save_all=True, append_images=[plain])
    astronaut.rotate(180).save(tmp_path / "upside-down.png")
    names = ("later.gif", "first.gif", "upside-down.png")
    result = run("predict", "--json", *(tmp_path / name for name in names))
    assert (result.returncode, result.stderr) == (0, b"")
    later, first, turned = (json.loads(line) for line in result.stdout.splitlines())
    assert later["faces"] == []
    assert len(first["faces"]) == 1
    assert (turned["width_px"], turned["height_px"]) == astronaut.size
    assert len(turned["faces"]) <= 1


def test_standard_input(run: Run, pictures: Path, landscape: Path) -> None:
    data = (pictures / "astronaut.jpg").read_bytes()
    result = run("predict", "-", "--json", landscape, stdin=data)
    assert result.returncode == 0
    one, other = (json.loads(line) for line in result.stdout.splitlines())
    assert one["photo"] == "-"
    assert len(one["faces"]) == 1
    assert other["faces"] == []
    empty = run("predict", "-", stdin=b"")
    assert empty.returncode == 1
    assert b"-: the input is empty" in empty.stderr


def test_attributes(run: Run, pictures: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    result = run("predict", "--json", "--vector", "--attributes", "gender, age", astronaut)
    (face,) = json.loads(result.stdout)["faces"]
    assert {"age", "gender"} < face.keys()
    assert "ethnicity" not in face
    assert [value is None for value in face["vector"]] == [False] * 14 + [True] * 5
    table = run("predict", "--attributes", "ethnicity", astronaut).stdout
    assert b"ethnicity" in table
    assert b"gender" not in table
    assert b"age" not in table


# The JSON lines


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema that ships in the package."""
    path = resources.files("facewise") / "schemas" / "predict.schema.json"
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def is_valid(schema: dict[str, Any], closed: Callable[[Any], Any]) -> Callable[[object], bool]:
    """Whether a line matches the schema and has no field that the schema does not name."""
    validator = jsonschema_rs.Draft202012Validator(closed(schema))

    def check(line: object) -> bool:
        valid: bool = validator.is_valid(line)
        return valid

    return check


def test_json_lines_match_the_schema(
    run: Run, is_valid: Callable[[object], bool], pictures: Path, landscape: Path, tmp_path: Path
) -> None:
    bad = [tmp_path / name for name in make_bad_files(tmp_path)]
    faces = sorted((pictures / "faces").glob("*.webp"))[:12]
    photos = [pictures / "astronaut.jpg", *faces, landscape, *bad]
    result = run("predict", "--json", *photos)
    assert result.returncode == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(photos)
    for line in lines:
        assert is_valid(line), line
    assert lines[0]["photo"] == str(photos[0])
    assert (lines[0]["width_px"], lines[0]["height_px"]) == (512, 512)
    assert lines[0]["faces"][0]["gender"]["label"] == "female"
    assert lines[13]["faces"] == []
    failures = {Path(line["photo"]).name: line["error"]["code"] for line in lines[14:]}
    assert failures["text.jpg"] == "not_an_image"
    assert failures["bomb.png"] == "image_too_large"
    assert failures["missing.jpg"] == "image_not_found"


def test_the_schema_refuses_what_is_wrong(
    run: Run, is_valid: Callable[[object], bool], pictures: Path
) -> None:
    result = run("predict", "--json", "--vector", pictures / "astronaut.jpg")
    line = json.loads(result.stdout)
    assert is_valid(line)

    def broken(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bool:
        other = copy.deepcopy(line)
        change(other, other["faces"][0])
        return not is_valid(other)

    assert broken(lambda photo, face: photo.update(schema_version=2))
    assert broken(lambda photo, face: photo.update(error={"code": "failed", "message": "no"}))
    assert broken(lambda photo, face: photo.pop("faces"))
    assert broken(lambda photo, face: face.update(mood="happy"))
    assert broken(lambda photo, face: face.pop("bbox"))
    assert broken(lambda photo, face: face["vector"].pop())
    assert broken(lambda photo, face: face["landmarks"][0].pop())
    assert broken(lambda photo, face: face["gender"].update(label="none"))
    assert broken(lambda photo, face: face["gender"].update(label_set=[]))
    assert broken(lambda photo, face: face["ethnicity"]["probabilities"].update(White=1.5))
    assert broken(lambda photo, face: face["age"].update(interval_years=[0, 121]))
    assert broken(lambda photo, face: face["abstained"].update(mood="too dark"))
    assert not broken(lambda photo, face: face.pop("ethnicity"))


def test_the_schema_accepts_fields_of_later_releases(
    run: Run, schema: dict[str, Any], pictures: Path
) -> None:
    line = json.loads(run("predict", "--json", pictures / "astronaut.jpg").stdout)
    line["later"] = line["faces"][0]["later"] = line["faces"][0]["age"]["later"] = 1
    assert jsonschema_rs.Draft202012Validator(schema).is_valid(line)


def test_the_schema_knows_every_error_code(schema: dict[str, Any]) -> None:
    codes = {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.ImageError)
    }
    error = schema["$defs"]["failure"]["properties"]["error"]
    assert set(error["properties"]["code"]["enum"]) == codes | {"failed"}


# Names and streams of every kind


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@posix
def test_names_that_the_output_cannot_carry(
    encoding: str, landscape: Path, tmp_path: Path, is_valid: Callable[[object], bool]
) -> None:
    """Letters outside the encoding, bytes that are not UTF-8, line breaks, escape sequences."""
    names = ["写真 été 😀.png", "byte\udcff.png", "line\nbreak\x1b[31m.png", "missing é.png"]
    photos = [tmp_path / name for name in names]
    for photo in photos[:3]:
        os.link(landscape, photo)
    lines = spawn("predict", "--json", *photos, PYTHONIOENCODING=encoding).stdout.splitlines()
    assert len(lines) == 4
    for line, photo in zip(lines, photos, strict=True):
        value = json.loads(line.decode("utf-8"))
        assert value["photo"] == str(photo)
        assert is_valid({**value, "photo": ""})
    table = spawn("predict", *photos, PYTHONIOENCODING=encoding)
    assert table.returncode == 1
    shown = table.stdout.decode(encoding).splitlines()
    assert len(shown) == 3
    assert shown[1].endswith(r"byte\udcff.png: no face")
    assert shown[2].endswith(r"line\nbreak\x1b[31m.png: no face")
    assert len(table.stderr.splitlines()) == 1


@posix
def test_no_locale_at_all(landscape: Path, tmp_path: Path) -> None:
    photo = tmp_path / "été.png"
    photo.write_bytes(landscape.read_bytes())
    result = spawn("predict", photo, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (3, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command",
    ["predict $1", "models --json", "--help"],
)
def test_a_full_disk_under_the_output(command: str, landscape: Path) -> None:
    result = shell(f"facewise {command} > /dev/full", landscape)
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "facewise: cannot write the output: No space left on device"
    ]


@pytest.mark.parametrize("command", ["predict", "models"])
def test_a_reader_that_goes_away(command: str, pictures: Path) -> None:
    photos = [pictures / "astronaut.jpg"] * 2 if command == "predict" else []
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [*FACEWISE, command, *photos], stdout=writer, stderr=subprocess.PIPE, timeout=300
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@posix
def test_closed_streams(landscape: Path) -> None:
    assert shell("facewise predict $1 >&- 2>&-", landscape).returncode == 3
    closed = shell("facewise predict - <&-")
    assert closed.returncode == 1
    assert b"standard input is closed" in closed.stderr


# Drawing


def test_drawing(run: Run, pictures: Path, tmp_path: Path) -> None:
    astronaut = pictures / "astronaut.jpg"
    assert run("predict", astronaut, "--draw", tmp_path / "out.png").returncode == 0
    drawn = np.array(Image.open(tmp_path / "out.png"))
    plain = np.array(Image.open(astronaut))
    assert drawn.shape == plain.shape
    changed = np.abs(drawn.astype(int) - plain).max(-1) > 0
    assert 0.005 < changed.mean() < 0.3


@posix
def test_drawing_never_writes_over_a_photo(run: Run, pictures: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    data = (pictures / "astronaut.jpg").read_bytes()
    photo.write_bytes(data)
    (tmp_path / "link.jpg").symlink_to(photo)
    os.link(photo, tmp_path / "hard.jpg")
    (tmp_path / "folder").mkdir()
    for out in ("photo.jpg", "link.jpg", "hard.jpg", "folder/../photo.jpg"):
        result = run("predict", photo, "--draw", tmp_path / out)
        assert result.returncode == 2
        assert b"is an input, and would be overwritten" in result.stderr
    piped = shell('facewise predict - --draw "$1" < "$1"', photo)
    assert piped.returncode == 2
    assert photo.read_bytes() == data


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_drawing_writes_over_its_own_drawings_alone(
    run: Run, pictures: Path, landscape: Path, tmp_path: Path, suffix: str
) -> None:
    """Arguments in the wrong order, ``--draw a.jpg b.jpg``, must not destroy a photo."""
    other = tmp_path / f"other{suffix}"
    Image.open(landscape).save(other)
    data = other.read_bytes()
    refused = run("predict", pictures / "astronaut.jpg", "--draw", other)
    assert refused.returncode == 2
    assert b"did not write it: choose another --draw" in refused.stderr
    assert other.read_bytes() == data
    drawing = tmp_path / f"drawing{suffix}"
    assert run("predict", landscape, "--draw", drawing).returncode == 3
    assert run("predict", pictures / "astronaut.jpg", "--draw", drawing).returncode == 0
    assert np.array(Image.open(drawing)).shape == (512, 512, 3)
    taken = tmp_path / "folder" / "landscape.png.faces.png"
    taken.parent.mkdir()
    taken.write_bytes(data)
    assert run("predict", landscape, "--draw", taken.parent).returncode == 3
    assert taken.read_bytes() == data
    assert taken.with_name("landscape.png-2.faces.png").is_file()


def test_photos_of_one_name_are_drawn_side_by_side(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    photos = []
    for index, name in enumerate(("a/photo.webp", "b/photo.webp", "c/PHOTO.webp")):
        path = tmp_path / name
        path.parent.mkdir()
        face = sorted((pictures / "faces").glob("*.webp"))[index]
        path.write_bytes(face.read_bytes())
        photos.append(path)
    folder = tmp_path / "new" / "folder"
    result = run("predict", *photos, "--draw", folder)
    assert result.returncode == 0
    drawn = {path.name: np.array(Image.open(path)) for path in folder.iterdir()}
    assert drawn.keys() == {
        "photo.webp.faces.png",
        "photo.webp-2.faces.png",
        "PHOTO.webp-3.faces.png",
    }
    first = np.array(Image.open(photos[0]))
    same = (drawn["photo.webp.faces.png"] == first).all(-1).mean()
    assert 0.5 < same < 1


def test_planned_names(tmp_path: Path) -> None:
    """A drawing never overwrites a photo, regardless of the photo's name."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.jpg.faces.png").touch()
    photos = [str(tmp_path / "a.jpg"), str(tmp_path / "a.jpg.faces.png"), "-", "x/.."]
    names = [path.name for path in plan_drawings(tmp_path, photos)]
    assert names == [
        "a.jpg-2.faces.png",
        "a.jpg.faces.png.faces.png",
        "stdin.faces.png",
        "...faces.png",
    ]
    assert plan_drawings(tmp_path / "made", ["a.jpg"]) == [tmp_path / "made" / "a.jpg.faces.png"]
    assert (tmp_path / "made").is_dir()


def test_a_drawing_that_cannot_be_written(run: Run, tmp_path: Path, landscape: Path) -> None:
    """The answer still comes; the photo counts as failed."""
    Image.new("RGB", (17_000, 20)).save(tmp_path / "wide.png")
    wide = run("predict", tmp_path / "wide.png", "--draw", tmp_path / "out.webp")
    assert wide.returncode == 1
    assert b"no face" in wide.stdout
    assert b"out.webp cannot be written" in wide.stderr
    folder = tmp_path / "out"
    long = landscape.rename(tmp_path / f"{'x' * 247}.png")  # .faces.png does not fit behind it
    other = run("predict", long, tmp_path / "wide.png", "--draw", folder)
    assert other.returncode == 1
    assert len(other.stderr.splitlines()) == 1
    assert b"File name too long" in other.stderr
    assert (folder / "wide.png.faces.png").is_file()


def test_a_table_is_made_with_every_option_of_annotate(pictures: Path, tmp_path: Path) -> None:
    photo = (pictures / "astronaut.jpg").read_bytes()
    columns = {"thumb": [b"", b""], "photo": [photo, photo], "name": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "photos.parquet")
    table = tmp_path / "t"
    ended = spawn(
        *("annotate", tmp_path / "photos.parquet", "--out", table, "--workers", "1"),
        *("--attributes", "gender,age", "--model", "small", "--coverage", "0.8"),
        *("--min-face", "31", "--max-faces", "3", "--max-bytes", "900000"),
        *("--max-pixels", "400000", "--image-column", "photo", "--id-column", "name"),
        *("--fps", "2.5", "--shard-size", "7", "--inference-batch", "2"),
        *("--providers", "CPUExecutionProvider"),
    )
    assert ended.returncode == 0, ended.stderr
    job = Job(
        attributes=("age", "gender"),
        model="small",
        coverage=0.8,
        min_face_px=31,
        max_faces=3,
        max_bytes=900_000,
        max_pixels=400_000,
        providers=("CPUExecutionProvider",),
        photos_per_inference=2,
        shard_size=7,
        image_column="photo",
        id_column="name",
        frames_per_second=2.5,
    )
    sources = [str(tmp_path / "photos.parquet")]
    settings = json.loads((table / MANIFEST).read_text())["settings"]
    assert settings == job.describe() | {"sources": sources}
    rows = pq.read_table(table, columns=["image_id", "face_index"]).to_pylist()
    assert rows == [{"image_id": name, "face_index": 0} for name in "ab"]


def test_models(run: Run) -> None:
    rows = json.loads(run("models", "--json").stdout)
    assert rows[0]["name"] == "facewise-default"
    assert rows[0]["size_bytes"] < 25_000_000
    figures = rows[0]["figures"]
    printed = " ".join(run("models").stdout.decode().split())
    for said in (rows[0]["licence"], *rows[0]["data"]):
        assert said in printed, said
    assert f"utkface age mae years {figures['utkface_age_mae_years']:.2f}" in printed
    assert f"utkface gender accuracy {figures['utkface_gender_accuracy']:.1%}" in printed
    held = figures["coverage"]["0.9"]["intervals"]
    width = f"{held['mean_width_years']:.1f} years"
    assert f"intervals at 90% hold {held['coverage']:.1%}, {width} on average" in printed
