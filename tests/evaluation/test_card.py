"""Model cards: the hand-written part is present, and every number comes from the results."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from facewise.errors import OptionError
from facewise.evaluation.card import FIGURES, TEMPLATE, build_card, hand_written, write_card
from facewise.evaluation.results import write_results
from facewise.models import ModelSpec, load_spec

WRITTEN = {"training": "Trained so.", "failures": "- Fails here."}

HEADINGS = (
    "Model details",
    "Intended use",
    "Out of scope",
    "Factors",
    "Metrics",
    "Evaluation data",
    "Training data",
    # Before two dozen tables, because nobody would read them after those.
    "Known failures",
    "Ethical considerations",
    "Quantitative analyses",
    "Caveats and recommendations",
    "Data and licences",
)


def sections(markdown: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_card_states_its_use_and_tells_every_group(
    results: dict[str, Any],
    dedupe: dict[str, Any],
) -> None:
    text = build_card(results, WRITTEN, dedupe=dedupe).markdown()
    found = sections(text)
    assert tuple(found) == HEADINGS
    assert "apparent" in found["Intended use"]
    assert "age assur" in found["Out of scope"] or "assuring anybody's age" in found["Out of scope"]
    assert "surveillance" in found["Out of scope"]
    assert "Trained so." in found["Model details"]
    assert "Fails here." in found["Known failures"]
    assert results["model"]["sha256"] in found["Model details"]
    assert "photos that UTKFace holds more than once" in found["Training data"]
    analyses = found["Quantitative analyses"]
    for dataset, groupings in results["groups"].items():
        for grouping, table in groupings.items():
            block = analyses.split(f"#### {dataset}, by {grouping}\n")[1].split("\n#")[0]
            for group, row in table.items():
                value = f"{row['gender_accuracy']['value']:.1%}"
                lines = [line for line in block.splitlines() if line.startswith(f"| {group} |")]
                assert len(lines) == 1
                assert value in lines[0]
                assert f"| {row['gender_accuracy']['n']} |" in lines[0]
    assert "{{" not in text
    assert "Expected calibration error before and after temperature scaling" in analyses
    assert "| labelled 18 to 30 | age MAE, years | n |" in analyses
    bare = build_card(results | {"calibration": {}}, WRITTEN, dedupe=dedupe).markdown()
    assert "temperature scaling" not in bare
    assert "Expected calibration error (not calibrated)" in bare


def test_the_card_tells_what_another_seed_changes(results: dict[str, Any]) -> None:
    def row(gender: float, **names: str) -> dict[str, Any]:
        return {**dict.fromkeys(FIGURES, 0.5), "utkface_gender": gender, **names}

    own = results["model"]["sha256"]
    seeds = [row(0.941, sha256=own), row(0.952, sha256="a"), row(0.948, sha256="b")]
    heads = [
        row(0.93, variant="the recipe"),
        row(0.1, variant="without FairFace"),
        row(0.9, variant="the recipe, seed 1"),
    ]
    text = build_card(results, WRITTEN, seeds=seeds, heads=heads).markdown()
    details = sections(text)["Model details"]
    assert "| the last stage, 3 seeds | 0.50 to 0.50 | 50.0% to 50.0% | 94.1% to 95.2% |" in details
    assert "| a head on frozen features, 2 seeds |" in details
    assert "90.0% to 93.0%" in details
    other = build_card(results, WRITTEN, seeds=seeds[1:], heads=heads).markdown()
    assert "seeds" not in other, "of other weights"


def test_hand_written_parts_hold_no_figures() -> None:
    own = [TEMPLATE.read_text(encoding="utf-8")]
    names = {path.stem for path in TEMPLATE.parent.glob("*.md")} - {TEMPLATE.stem}
    assert {"facewise-default", "facewise-small", "fairface-only"} <= names
    for name in names:
        own += hand_written(dataclasses.replace(load_spec("default"), name=name)).values()
    for text in own:
        # Levels, years of papers, licences and articles of law are not results.
        plain = text.replace("95 %", "").replace("CC BY 4.0", "")
        assert re.findall(r"\d+\.\d|\d+ ?%", plain) == []


def test_the_card_of_the_model_without_utkface_names_its_whole_chain(
    results: dict[str, Any], dedupe: dict[str, Any]
) -> None:
    written = hand_written(dataclasses.replace(load_spec("default"), name="fairface-only"))
    for name in ("FairFace", "VGGFace2", "IMDB-WIKI", "WIDER FACE", "CelebA", "promises nothing"):
        assert name in written["training"]
    assert "commercial model" not in written["training"]
    other = {**results, "model": {**results["model"], "data": ["FairFace"]}}
    assert "holds more than once" not in build_card(other, written, dedupe=dedupe).markdown()


def test_card_is_written_beside_the_spec_and_only_of_its_own_weights(
    results: dict[str, Any],
    tmp_path: Path,
) -> None:
    shipped = load_spec("default")
    spec: ModelSpec = dataclasses.replace(shipped, path=tmp_path / "weights" / "m.json", name="m")
    spec.path.parent.mkdir()
    write_results(results, tmp_path / "m.json")
    with pytest.raises(OptionError, match="hand-written"):
        write_card(spec, tmp_path)
    cards = spec.path.parent / "cards"
    cards.mkdir()
    (cards / "m.md").write_text("## Training\n\nSo.\n")
    with pytest.raises(OptionError, match="lacks the section failures"):
        write_card(spec, tmp_path)
    shutil.copy(shipped.path.parent / "cards" / f"{shipped.name}.md", cards / "m.md")
    paths = write_card(spec, tmp_path)
    assert [path.name for path in paths] == ["m.md", "m.html"]
    html = paths[1].read_text(encoding="utf-8")
    assert "<h2>Intended use</h2>" in html
    assert html.count("<table>") > 10
    other = dataclasses.replace(spec, sha256="0" * 64)
    with pytest.raises(OptionError, match="evaluate first"):
        write_card(other, tmp_path)
