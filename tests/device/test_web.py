"""The page's TypeScript: a strict type check, and its own tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facewise.models import load_spec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import make_page  # noqa: E402

NODE = [sys.executable, str(ROOT / "scripts/node.py"), "node"]


def test_ethnicity_is_published_only_where_it_is_named() -> None:
    assert make_page.attributes_of("") == ("age", "gender")
    assert make_page.attributes_of("ethnicity,age") == ("age", "ethnicity")
    with pytest.raises(SystemExit, match="--attributes"):
        make_page.attributes_of("race")


def test_the_card_has_what_12_bits_cost_these_weights_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(make_page, "COST", tmp_path / "page-model.json")
    cost = json.loads((ROOT / "docs/results/page-model.json").read_text())
    for sha256, is_there in ((load_spec().sha256, True), ("0" * 64, False)):
        make_page.COST.write_text(json.dumps(cost | {"sha256": sha256}))
        assert ("<h2>On this page</h2>" in make_page.card()) == is_there


def run(*arguments: str) -> None:
    if not (ROOT / "web/node_modules/vitest").is_dir():
        pytest.skip("web/node_modules is missing: `make test` or `make page` installs it (Node.js)")
    done = subprocess.run([*NODE, *arguments], cwd=ROOT / "web", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_mirror_the_python_rooms() -> None:
    """Knowing one helps to find the way in the other; docs/device.md names every file."""
    python = {path.stem for path in (ROOT / "src/facewise").glob("*.py")}
    script = {path.stem for path in (ROOT / "web/src").glob("*.ts")}
    assert script - python == {"kernels", "spec", "webgpu", "worker"}
    page = (ROOT / "docs/device.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in script)


def test_types() -> None:
    run("node_modules/typescript/bin/tsc", "--noEmit")


def test_units() -> None:
    run("node_modules/vitest/vitest.mjs", "run")
