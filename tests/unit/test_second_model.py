"""An installation with two models: each is found, pinned, listed and served by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import facewise
from facewise.models import WEIGHTS_FOLDER, list_models, load_spec

PACKAGE = Path(facewise.__file__).parent
PHOTO = Path(__file__).parents[1] / "data" / "astronaut.jpg"

SERVED = """
import asyncio, httpx, json
from facewise import Analyzer
from facewise.server import create_app
from facewise.settings import Settings

async def ask():
    app = create_app(Settings(threads=1), Analyzer(model="facewise-small@7", threads=1))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        about = (await client.get("/v1/models")).json()
        cards = [(await client.get("/" + m["card"])).text for m in about["models"]]
        default = (await client.get("/v1/models/default/card")).text
    print(json.dumps([about["models"], cards, default]))

asyncio.run(ask())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which to import a facewise with two models."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(
        PACKAGE,
        folder / "facewise",
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns("*.pyc", "facewise-small*"),
    )
    weights = folder / "facewise" / "weights"
    shipped = load_spec()
    # A different file of the same network: protobuf allows appending a doc string.
    data = shipped.weights_path.read_bytes() + b"\x32\x05small"
    (weights / "facewise-small.onnx").write_bytes(data)
    spec = json.loads(shipped.path.read_text(encoding="utf-8"))
    spec |= {
        "name": "facewise-small",
        "version": "7",
        "file": "facewise-small.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "description": "The second.",
    }
    (weights / "facewise-small.json").write_text(json.dumps(spec), encoding="utf-8")
    (weights / "facewise-small.md").write_text("# Card of the second\n", encoding="utf-8")
    return folder


def python(installed: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FACEWISE_")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=installed,
        env={**environment, "PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_both_are_listed_the_default_first(installed: Path) -> None:
    rows = json.loads(python(installed, "-m", "facewise", "models", "--json").stdout)
    names = [row["name"] for row in rows]
    assert names[0] == "facewise-default"
    assert "facewise-small" in names[1:]
    doctor = python(installed, "-m", "facewise", "doctor")
    assert "facewise-small" in doctor.stdout
    assert doctor.returncode == 0, doctor.stderr


@pytest.mark.parametrize("model", ["facewise-small", "facewise-small@7", "default"])
def test_each_answers_by_its_name(installed: Path, model: str) -> None:
    result = python(installed, "-m", "facewise", "predict", PHOTO, "--model", model, "--json")
    named = re.findall(r'"name": ?"(facewise-\w+)"', result.stdout)
    assert named, result.stderr
    assert set(named) == {"facewise-default" if model == "default" else "facewise-small"}


def test_a_version_that_is_not_there_is_refused(installed: Path) -> None:
    result = python(installed, "-m", "facewise", "predict", PHOTO, "--model", "facewise-small@8")
    assert result.returncode == 2
    assert "facewise-small@7" in result.stderr


def test_a_server_of_the_second_shows_both_cards(installed: Path) -> None:
    result = python(installed, "-c", SERVED)
    assert result.returncode == 0, result.stderr
    models, cards, default = json.loads(result.stdout)
    assert [model["name"] for model in models if model["serving"]] == ["facewise-small"]
    assert models[0]["name"] == "facewise-small"
    by_name = dict(zip([model["name"] for model in models], cards, strict=True))
    assert by_name["facewise-small"] == default == "# Card of the second\n"
    assert "facewise-default" in by_name["facewise-default"]


def test_terms_name_all_that_stands_behind_a_model() -> None:
    """What its spec lists, there or in the row that it refers to."""
    terms = (WEIGHTS_FOLDER / "LICENSE-weights.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\S+)\.onnx` \|(.*)$", terms, re.MULTILINE))
    start = ("faceres-deep", "VGGFace2", "IMDB-WIKI")
    sources = ("UTKFace", "FairFace", *start, "dlib", "FaceScrub", "VGG Face")
    for spec in list_models():
        said = rows[spec.name]
        if "all that stands behind `facewise-default`" in said:
            said += rows["facewise-default"]
        for entry in spec.data:
            assert (named := [source for source in sources if source in entry]), entry
            assert [source for source in named if source not in said] == [], spec.name


def test_terms_are_told_for_every_file_of_weights() -> None:
    terms = (WEIGHTS_FOLDER / "LICENSE-weights.md").read_text(encoding="utf-8")
    patterns = re.findall(r"^\| `([^`]+)` \|", terms, re.MULTILINE)
    for path in WEIGHTS_FOLDER.glob("*.onnx"):
        assert sum(fnmatch(path.name, pattern) for pattern in patterns) == 1, path.name
    for text in re.findall(r"`(LICENSE-[^`]+)`", terms):
        assert (WEIGHTS_FOLDER / text).is_file()
