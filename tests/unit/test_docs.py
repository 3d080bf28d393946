"""The documents must agree with the stored results and the code."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from facewise import errors
from facewise.cli.exits import Exit
from facewise.evaluation.degrade import degradations
from facewise.server.middleware import CONTENT_SECURITY_POLICY
from facewise.settings import Settings

ROOT = Path(__file__).parents[2]


def test_the_detectors_page_has_the_measured_table() -> None:
    """``scripts/mtcnn_parity.py compare`` writes both."""
    page = (ROOT / "docs/mtcnn.md").read_text(encoding="utf-8")
    table = page.split("<!-- parity -->")[1].split("<!-- end of parity -->")[0]
    assert table.strip() == (ROOT / "docs/results/mtcnn-parity.md").read_text().strip()


def test_the_readme_has_the_measured_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    figures = importlib.import_module("readme_figures")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split(figures.MARKS[0])[1].split(figures.MARKS[1])[0]
    assert table.strip() == figures.table(figures.shipped())


def test_the_peers_figures_are_those_of_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """``make peers`` measures them; scripts/readme_figures.py renders them again."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    figures, tables = map(importlib.import_module, ("readme_figures", "peers_tables"))
    result, models = tables.stored(), tables.shipped()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    short = text.split(figures.PEER_MARKS[0])[1].split(figures.PEER_MARKS[1])[0]
    assert short.strip() == tables.short(result, models)
    page = (ROOT / "docs/results/peers.md").read_text(encoding="utf-8")
    assert page == tables.page(result, models)
    for data, row in models[0]["overall"].items():
        for peer in result["peers"].values():
            assert peer["overall"][data]["n"] == (peer["sample"] or row["n"])


def test_every_way_of_degrading_is_explained() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    table = page.split("## Abstention under bad input")[1].split("\n## ")[0]
    assert all(f"`{name}`" in table for name in degradations())


def test_what_the_page_on_training_says_of_the_ablation() -> None:
    """By the score, which changes differ from the whole by more than its seeds do."""
    stored = json.loads((ROOT / "docs/results/ablation-head.json").read_text())
    scores = {row["variant"]: row["headline"] for row in stored["rows"]}
    whole = [score for name, score in scores.items() if name.startswith("the loss of stages")]
    assert len(whole) == 3
    outside = {name for name, score in scores.items() if not min(whole) <= score <= max(whole)}
    named = {"expected age not pulled (age_l1 = 0)", "without FairFace", "without UTKFace"}
    assert outside == named
    framings = json.loads((ROOT / "docs/results/sweep-framing.json").read_text())
    framed = {(row["size_px"], row["eye_distance"]): f"{row['headline']:.2f}" for row in framings}
    page = " ".join((ROOT / "docs/training.md").read_text(encoding="utf-8").split())
    assert f"({framed[160, 0.4]} and {framed[160, 0.36]})" in page


def test_what_the_page_on_training_says_of_fine_tuning() -> None:
    """Differences of the score on clean and on degraded pictures, from the mean of three seeds."""
    lines = (ROOT / "docs/results/ablation.md").read_text().splitlines()[4:]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    clean, bad = ({row[1]: float(row[column]) for row in rows} for column in (4, 6))
    seeds = [name for name in clean if name.startswith("the whole")]
    assert len(seeds) == 3
    assert all(abs(clean[name]) <= 0.1 and abs(bad[name]) <= 0.15 for name in seeds)
    page = " ".join((ROOT / "docs/training.md").read_text(encoding="utf-8").split())
    norms, still, twice = (
        "no batch norms, a third of the rate",
        "no shift, scale, turn",
        "twice an epoch",
    )
    pixels = ("blur, noise, JPEG", "low resolution", "changes of light and colour")
    most = max(abs(clean[name]) for name in (*(f"no {what}" for what in pixels), "nothing erased"))
    for said in (
        f"each of them changes the score by {most:.2f} at most",
        f"Batch norms are worth most: {clean[norms]:.1f} without",
        f"also help: {clean['no frozen stages']:.1f} without",
        f"Blur, noise and JPEG gain {bad['no blur, noise, JPEG']:.1f} on degraded",
        f"low resolution {bad['no low resolution']:.1f}, changes of light and colour "
        f"{bad['no changes of light and colour']:.1f}, and erasing {bad['nothing erased']:.2f};",
        f"One rate for all layers costs {bad['one rate for all layers']:.1f} on",
        f"costs {-clean[still]:.1f} on clean pictures and {-bad[still]:.2f} on degraded",
        f"{twice} is {-clean['FairFace twice an epoch']:.1f} better on clean pictures and "
        f"{bad['FairFace twice an epoch']:.1f} worse",
        f"{twice} are {clean['rare groups of UTKFace twice an epoch']:.1f} worse",
    ):
        assert said in page


def test_the_page_on_ray_has_the_measured_stages() -> None:
    """``make bench`` writes them."""
    page = " ".join((ROOT / "docs/ray.md").read_text(encoding="utf-8").split())
    bench = json.loads((ROOT / "docs/results/bench.json").read_text())
    ms = bench["stages"]["12 megapixels, 3 faces"]["ms"]
    share = {name: round(100 * value / ms["all"]) for name, value in ms.items()}
    assert f"decoding takes {share['decode']} %" in page
    rest = sorted(share[name] for name in ("P-net", "pyramid", "attributes"))
    assert f"the attribute network {rest[0]} to {rest[-1]} % each" in page


def test_the_readmes_code_runs_and_prints_what_it_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, printed = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("page", ["library.md", "coming-from.md"])
def test_the_librarys_pages_run_and_print_what_they_show(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python")
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for code, printed in blocks:
        exec(compile(code, page, "exec"), names)
        assert capsys.readouterr().out == printed


def test_the_notebook_runs_and_shows_what_it_stores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare text only: drawings must merely exist, because decoders differ slightly."""
    cells = json.loads((ROOT / "docs/notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    monkeypatch.chdir(ROOT / "docs")
    names: dict[str, Any] = {}
    for cell in code:
        source = ast.parse("".join(cell["source"]))
        last = source.body.pop() if isinstance(source.body[-1], ast.Expr) else None
        exec(compile(source, "notebook.ipynb", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "notebook.ipynb", "eval"), names)
        printed = capsys.readouterr().out
        stored = {output["output_type"]: output for output in cell["outputs"]}
        assert printed == "".join(stored.pop("stream", {"text": []})["text"])
        result = stored.pop("execute_result", None)
        assert not stored
        assert (value is None) == (result is None)
        if result is not None and value is not None:
            data = result["data"]
            assert "".join(data["text/plain"]) == re.sub(r" at 0x\w+", "", repr(value))
            assert ("text/html" in data) == hasattr(value, "_repr_html_")
            if "text/html" in data:
                assert "".join(data["text/html"]) == value._repr_html_()
            assert ("image/jpeg" in data) == isinstance(value, Image.Image)


def test_every_error_is_documented() -> None:
    page = (ROOT / "docs/library.md").read_text(encoding="utf-8")
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.FacewiseError):
            assert f"`{name}`" in page
            assert name == "FacewiseError" or f"`{error.code}`" in page


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_are_named_in_full(page: Path) -> None:
    """A variable without its prefix sets nothing, and nothing says so."""
    short = {name.upper() for name in Settings.model_fields}
    assert not short & set(re.findall(r"`([A-Z_]+)[`=]", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_a_server_of_ones_own_is_told_the_servers_policy() -> None:
    page = (ROOT / "docs/static-hosting-own.md").read_text(encoding="utf-8")
    assert f'"{CONTENT_SECURITY_POLICY}"' in page


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    table = page.split("## Exit codes")[1].split("##")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", table)} == {int(code) for code in Exit}
