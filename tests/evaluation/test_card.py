"""Model cards: the hand-written part is present, and every number comes from the results."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from facewise.errors import OptionError
from facewise.evaluation.card import FIGURES, TEMPLATE, build_card, hand_written, write_card
from facewise.evaluation.coverage import below
from facewise.evaluation.report_words import FILLED
from facewise.evaluation.results import write_results
from facewise.models import ModelSpec, list_models, load_spec

WRITTEN = {"training": "Trained so.", "failures": "- Fails here."}

RESULTS = Path(__file__).parents[2] / "docs" / "results"

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
    assert "photos more than once" in found["Training data"]
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
        row(0.93, variant="whole"),
        row(0.1, variant="without FairFace"),
        row(0.9, variant="whole, seed 1"),
    ]
    text = build_card(results, WRITTEN, seeds=seeds, heads=heads).markdown()
    details = sections(text)["Model details"]
    assert (
        "| the last stage, on val, 3 seeds | 0.50 to 0.50 | 50.0% to 50.0% | 94.1% to 95.2% |"
        in details
    )
    assert "| a head on frozen features, on val and faces kept from train, 2 seeds |" in details
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


def test_shipped_cards_are_those_of_their_results() -> None:
    dedupe, seeds, heads = (
        json.loads((RESULTS / f"{name}.json").read_text())
        for name in ("dedupe", "seeds", "ablation-head")
    )
    for spec in list_models():
        stored = json.loads((RESULTS / f"{spec.name}.json").read_text())
        card = build_card(
            stored, hand_written(spec), dedupe=dedupe, seeds=seeds, heads=heads["rows"]
        )
        assert card.markdown() == spec.path.with_suffix(".md").read_text(encoding="utf-8")


def test_known_failures_are_those_of_the_results() -> None:
    """What the hand-written parts say in words, since figures are filled in."""
    for spec in list_models():
        stored = json.loads((RESULTS / f"{spec.name}.json").read_text())
        failures = hand_written(spec)["failures"]
        assert {f"{{{{{name}}}}}" for name in FILLED} <= set(re.findall(r"{{\w+}}", failures))
        levels, ages = stored["coverage"], stored["groups"]["utkface"]["age"]
        if "and men of 20 to 29: their narrowest age intervals hold less" in failures:
            groups = below(levels["0.8"]["interval_groups"])
            assert {"age: 4-12", "age x gender: 20-29 / male"} <= set(groups)
        errors = [row["age_mae_years"]["value"] for row in ages.values()]
        assert ages["65-120"]["age_mae_years"]["value"] == max(errors)
        assert ages["65-120"]["age_bias_years"]["high"] < 0, "the oldest are estimated too young"
        if "errors in years grow with age" in failures:
            grown = ("4-12", "20-29", "30-39", "40-49", "50-64", "65-120")
            years = [ages[band]["age_mae_years"]["value"] for band in grown]
            assert years == sorted(years)
        if "age intervals hold much less often than stated, without abstaining" in failures:
            assert levels["0.9"]["interval_groups"]["age: 65-120"]["high"] < 0.8
            assert ages["65-120"]["age_abstained"]["value"] < 0.05
        for dataset, young in {"utkface": ("1-3", "4-12"), "fairface": ("0-2", "3-9")}.items():
            right = {
                age.removeprefix("group "): row["gender_accuracy"]["value"]
                for age, row in stored["groups"][dataset]["age"].items()
            }
            adults = min(right[age] for age in ("20-29", "30-39", "40-49"))
            assert 1 - max(right[age] for age in young) > 2 * (1 - adults)


def test_blanks_of_the_hand_written_part_are_filled_from_the_results(
    results: dict[str, Any],
) -> None:
    def figure(value: float, high: float) -> dict[str, Any]:
        return {"gender_accuracy": {"value": value, "low": 0, "high": high, "n": 40}}

    counts = [[0] * 6] * 4 + [[5, 0, 9, 0, 20, 1]]
    names = ["White", "Black", "Asian", "Indian", "Others"]
    matrix = {"labels": names, "answers": [*names, "not found"], "n": counts}
    row = results["abstention"]["blur-7%"] | {"found": 0.5}

    def from_all(*shares: float) -> dict[str, Any]:
        held: dict[str, Any] = {"judged": 0, "relative": None, "within": None, "by_dataset": {}}
        return row | {
            name: row[name] | held | {"abstained": share}
            for name, share in zip(("age", "gender", "ethnicity"), shares, strict=True)
        }

    mine = results | {
        "overall": {"csv": figure(0.9, 1)},
        "groups": {
            "csv": {"age": {"group 3-9": figure(0.7, 0.8), "group 20-29": figure(0.8, 0.9)}}
        },
        "confusions": {"csv": {"ethnicity": matrix}},
        "abstention": {
            "clean": results["abstention"]["clean"],
            "blur-7%": from_all(0.9, 1, 0.95),
            "turned-70": from_all(0.43, 0.4, 0.42),
            "dark": from_all(0.5, 0.5, 0.5),
            "not-a-face-tiles": from_all(0, 0, 0),
        },
    }
    assert FILLED["gender_by_age"](mine) == "right in csv, 70.0% at 3-9, and 90.0% over all ages"
    called = "of csv's 35, it calls 9 Asian, 5 White, 1 not found"
    assert FILLED["called_instead_of_others"](mine) == called
    nearly, fewer, *ratios = FILLED["degraded"](mine).splitlines()
    assert nearly == "  - it abstains from 90% or more: blur-7%"
    assert fewer.endswith(": turned-70 40% to 43%, dark 50%")
    assert all(line.endswith(": none") for line in ratios)
    clean = results | {"abstention": {"clean": results["abstention"]["clean"]}}
    assert FILLED["degraded"](clean) == "  - not measured (`--degraded`)"
    written = WRITTEN | {"failures": "- Others: {{called_instead_of_others}}."}
    text = build_card(results | {"confusions": mine["confusions"]}, written).markdown()
    assert f"- Others: {called}." in text


def test_the_card_of_the_model_without_utkface_names_its_whole_chain(
    results: dict[str, Any], dedupe: dict[str, Any]
) -> None:
    written = hand_written(dataclasses.replace(load_spec("default"), name="fairface-only"))
    for name in ("FairFace", "VGGFace2", "IMDB-WIKI", "WIDER FACE", "CelebA", "promises nothing"):
        assert name in written["training"]
    assert "commercial model" not in written["training"]
    other = {**results, "model": {**results["model"], "data": ["FairFace"]}}
    assert "photos more than once" not in build_card(other, written, dedupe=dedupe).markdown()


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
    (cards / "m.md").write_text("## Training\n\nSo.\n\n## Failures\n\n- {{shares}}\n")
    with pytest.raises(OptionError, match="nothing fills: shares; there are gender_by_age"):
        write_card(spec, tmp_path)
    shutil.copy(shipped.path.parent / "cards" / f"{shipped.name}.md", cards / "m.md")
    paths = write_card(spec, tmp_path)
    assert [path.name for path in paths] == ["m.md", "m.html"]
    html = paths[1].read_text(encoding="utf-8")
    assert "<h2>Intended use</h2>" in html
    assert html.count("<table>") > 10
    earlier = [path.with_name(f"earlier-{path.name}") for path in paths]
    for path, link in zip(paths, earlier, strict=True):
        link.hardlink_to(path)
    assert write_card(spec, tmp_path) == paths
    assert not any(map(Path.samefile, paths, earlier)), "written over, which may end halfway"
    other = dataclasses.replace(spec, sha256="0" * 64)
    with pytest.raises(OptionError, match="evaluate first"):
        write_card(other, tmp_path)
