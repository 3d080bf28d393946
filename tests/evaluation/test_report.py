"""The report, rendered from results of random outcomes."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from markdown_it import MarkdownIt

from facewise.evaluation.card import build_card
from facewise.evaluation.degrade import INPUTS, degradations
from facewise.evaluation.report import build_report, write_reports
from facewise.evaluation.report_tables import (
    abstention,
    age_noise,
    missed_in_short,
    ratios_in_short,
)
from facewise.evaluation.report_words import below_the_estimate, known_of_test, noise_words
from facewise.evaluation.results import SINGLE_GROUPINGS, score_model, write_results
from facewise.evaluation.summary import summary
from facewise.models import load_spec
from facewise.reporting import plots
from facewise.reporting.report import Report

from .conftest import random_outcomes
from .made import made, years


@pytest.fixture(scope="module", autouse=True)
def _draw_once() -> Iterator[None]:
    """Draw plots of the same figures once: a report has 30, and most tests change a table only."""

    def once(draw: Callable[..., str]) -> Callable[..., str]:
        drawn: dict[str, str] = {}

        def draw_or_recall(*args: Any, **options: Any) -> str:
            key = json.dumps([args, options])
            if key not in drawn:
                drawn[key] = draw(*args, **options)
            return drawn[key]

        return draw_or_recall

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reliability", "lines", "intervals", "confusion"):
            patch.setattr(plots, name, once(getattr(plots, name)))
        yield


def render_report(
    results: Mapping[str, Any], *, dedupe: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    page = build_report(results, dedupe=dedupe)
    return page.html(), page.markdown()


@pytest.fixture(scope="module")
def rendered(results: dict[str, Any], dedupe: dict[str, Any]) -> tuple[str, str]:
    return render_report(results, dedupe=dedupe)


class Page(HTMLParser):
    """Collects what a page loads, its pictures' names, and its tables' first cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.pictures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        if tag in ("img", "script", "link", "iframe"):
            self.loads.append(held.get("src") or held.get("href") or tag)
        if held.get("role") == "img":
            self.pictures.append(held.get("aria-label") or "")


def figure_text(value: float, *, years: bool = False) -> str:
    return f"{value:.2f}" if years else f"{value:.1%}"


def test_report_holds_the_figures_of_its_results(
    results: dict[str, Any], dedupe: dict[str, Any], rendered: tuple[str, str]
) -> None:
    html, markdown = rendered
    mae = results["overall"]["utkface"]["age_mae_years"]
    for text in (html, markdown):
        assert f"{mae['value']:.2f} ({mae['low']:.2f} to {mae['high']:.2f})" in text
        assert figure_text(results["overall"]["fairface"]["gender_accuracy"]["value"]) in text
        widest = results["head"]["worst_groups"][0]
        assert widest["worst"] in text
        assert figure_text(results["coverage"]["0.9"]["intervals"]["value"]) in text
        assert f"{results['calibration_error']['gender']['after']['ece']:.4f}" in text
        assert "left-out.jpg" in text
        assert "this does not make the model fit for age checks" in text
        assert "blur-7%" in text
        floor = dedupe["label_noise"]["age"]["mae_floor_normal_years"]["value"]
        assert figure_text(floor, years=True) in text
    for group, row in results["groups"]["utkface"]["ethnicity x gender"].items():
        block = markdown.split("### utkface, by ethnicity x gender\n")[1].split("\n#")[0]
        (line,) = [line for line in block.splitlines() if line.startswith(f"| {group} |")]
        assert figure_text(row["gender_accuracy"]["value"]) in line
    for group, row in results["groups"]["utkface"]["age"].items():
        block = markdown.split("### utkface, by age\n")[1].split("\n#")[0]
        (line,) = [line for line in block.splitlines() if line.startswith(f"| {group} |")]
        assert figure_text(row["ethnicity_macro_f1"]["value"]) in line
        assert figure_text(row["age_median_error_years"]["value"], years=True) in line


def test_the_head_names_the_worst_crossing_after_the_widest_gap(results: dict[str, Any]) -> None:
    rows = results["head"]["worst_groups"]
    (wide, fine) = (
        r for r in rows if (r["dataset"], r["metric"]) == ("utkface", "gender_accuracy")
    )
    assert wide["grouping"] in SINGLE_GROUPINGS
    assert fine["grouping"] not in SINGLE_GROUPINGS
    cells = [
        row["gender_accuracy"]["value"]
        for grouping, table in results["groups"]["utkface"].items()
        if grouping not in SINGLE_GROUPINGS
        for row in table.values()
    ]
    assert fine["worst_figure"]["value"] == min(cells)


def test_worst_groups_come_first(rendered: tuple[str, str]) -> None:
    _, markdown = rendered
    headings = re.findall(r"^## (.+)$", markdown, re.MULTILINE)
    assert headings[:3] == ["Worst groups and gaps", "Overall", "By group"]
    assert len(headings) == len(set(headings))


def test_the_sections_are_linked_under_the_title(rendered: tuple[str, str]) -> None:
    html, markdown = rendered
    links = re.findall(r"\[(.+?)\]\(#(.+?)\)", markdown.split("\n")[2])
    assert [name for name, _ in links] == re.findall(r"^## (.+)$", markdown, re.MULTILINE)
    assert ("Age estimation in NIST's format", "age-estimation-in-nists-format") in links
    for _, target in links:
        assert f'<h2 id="{target}">' in html
        assert f'href="#{target}"' in html


def test_the_head_has_coverage_and_calibration(
    results: dict[str, Any], rendered: tuple[str, str]
) -> None:
    block = rendered[1].split("## Overall")[1].split("\n##")[0]
    for row in results["coverage"].values():
        assert f"{row['intervals']['mean_width_years']:.1f} years" in block
        for name in ("intervals", "gender_sets", "ethnicity_sets"):
            assert figure_text(row[name]["value"]) in block
    for row in results["calibration_error"].values():
        assert f"| {row['before']['ece']:.4f} | {row['after']['ece']:.4f} |" in block
    worst = rendered[1].split("## Worst groups and gaps")[1].split("\n##")[0]
    assert "| utkface | 90 % age interval, coverage |" in worst


def test_what_is_not_independent_of_test_is_said_of_shipped_models(
    results: dict[str, Any], rendered: tuple[str, str]
) -> None:
    known = known_of_test(results)
    assert list(known) == ["splits", "intervals", "gates"]
    for title, key in {"Intervals and label sets": "intervals", "Abstention": "gates"}.items():
        assert known[key] in rendered[1].split(f"## {title}\n")[1].split("\n## ")[0]
    assert known["splits"] in rendered[1].split("\n## ")[0]
    model = {**results["model"], "sha256": "0" * 64}
    for other in (
        {"model": model},
        {"split": "val"},
        {"data": results["data"] | {"lists": {"splits": "mine.csv"}}},
        {"overall": {"csv": results["overall"]["utkface"]}},
    ):
        assert known_of_test(results | other) == {}
    assert list(known_of_test(results | {"calibration": {}})) == ["splits"]


def test_a_ratio_is_within_the_limit_only_with_its_whole_interval(results: dict[str, Any]) -> None:
    def held(value: float, high: float | None, **more: Any) -> dict[str, Any]:
        figure = {"value": value, "low": 0.5, "high": high, "n": 40}
        other = {"judged": 40, "within": value <= 2, "by_dataset": {}, "relative": figure}
        return results["abstention"]["blur-7%"]["age"] | other | more

    few = {"judged": 11, "relative": None, "within": None}
    faultless = few | {"judged": 40, "error": 0.5}  # no clean answer is wrong: there is no ratio
    alone = {"by_dataset": {"csv": held(2.01, 3.0)}}
    row = results["abstention"]["blur-7%"]
    table = {
        "clean": results["abstention"]["clean"],
        "a": row | {"age": held(1.5, 2), "gender": held(1.5, 2.4), "ethnicity": held(2.1, 3)},
        "b": row | {"age": held(1.5, None), "gender": held(0, 0, **few)},
    }
    table["b"]["ethnicity"] = held(1.2, 1.5, **alone)
    table["c"] = row | {name: held(0, 0, **faultless) for name in ("age", "gender", "ethnicity")}
    header, rows = abstention({"abstention": table})
    none = held(0, 0, **few | {"judged": 0})
    table["d"] = row | {"age": none, "gender": held(1.2, 1.5, by_dataset={"csv": faultless})}
    table["d"]["ethnicity"] = none
    verdicts = [line[header.index("ratio at most 2")] for line in rows[3:]]
    unjudged = ["no clean error"] * 3
    assert verdicts == ["yes", "not shown", "**no**", "not shown", "too few", "yes", *unjudged]
    over, unsure, unknown, without = ratios_in_short({"abstention": table}).values()
    assert over == ["a ethnicity 2.10 (0.50 to 3.00)", "b ethnicity in csv 2.01 (0.50 to 3.00)"]
    assert unsure == ["a gender 1.50 (0.50 to 2.40)", "b age 1.50 (too few for an interval)"]
    assert unknown == ["b gender n 11"]
    assert without == ["c age 0.50", "c gender 50.0%", "c ethnicity 50.0%", "d gender in csv 50.0%"]
    _, markdown = render_report(results | {"abstention": table})
    block = markdown.split("## Overall")[1].split("\n##")[0]
    assert f"err more than 2 times as much as on clean faces: {', '.join(over)}" in block
    assert f"for no clean answer is wrong; the error itself: {', '.join(without)}" in block


def test_inputs_are_explained_above_the_table(rendered: tuple[str, str]) -> None:
    assert INPUTS in rendered[1].split("## Abstention")[1].split("| input |")[0]
    for name in degradations():
        word = name.split("-")[0]
        assert f"`{word}" in INPUTS, name


def test_plain_prediction_stands_beside_the_undercovered_groups(
    results: dict[str, Any], rendered: tuple[str, str]
) -> None:
    block = rendered[1].split("### Undercovered groups")[1].split("\n#")[0]
    for level, row in results["coverage"].items():
        plain = f"{len(row['baseline']['groups_missed'])} of {row['baseline']['groups_judged']}"
        (line,) = [x for x in block.splitlines() if x.startswith(f"| {level[2:]:0<2}% | age")]
        assert line.split(" | ")[3] == plain


def test_label_noise_stands_beside_the_models_error_at_each_age(
    results: dict[str, Any], dedupe: dict[str, Any]
) -> None:
    def figure(value: float, n: int) -> dict[str, dict[str, float]]:
        return {"age_mae_years": {"value": value, "n": n}}

    noise = dedupe["label_noise"]["age"]
    bands = {"1-12": noise, "40-49": noise, "50-64": noise}
    known = {"label_noise": {"age": {**noise, "by_age": bands}}}
    floor = noise["mae_floor_normal_years"]["value"]
    ages = {"1-3": figure(1, 30), "4-12": figure(4, 60), "40-49": figure(floor - 0.01, 50)}
    mine = results | {"groups": {"utkface": {"age": ages | {"51-64": figure(9, 40)}}}}
    header, rows = age_noise(mine, known)
    assert header[-1] == "this model's MAE, years"
    own = results["overall"]["utkface"]["age_mae_years"]["value"]
    assert [row[-1] for row in rows] == [f"{own:.2f}", "3.00", f"{floor - 0.01:.2f}", "-"]
    assert below_the_estimate(mine, known).startswith("At 40-49 the model errs less")
    assert "at the ages of the test faces" not in noise_words(mine, known), "50-64 is unknown"
    older = {**noise, "mae_floor_normal_years": {"value": floor + 3}}
    both = {"age": {**noise, "by_age": {"1-12": noise, "40-49": older}}}
    weighed = (90 * floor + 50 * (floor + 3)) / 140
    said = f"; at the ages of the test faces, by {weighed:.2f} if normal. A model"
    assert said in noise_words(mine, {"label_noise": both})
    assert "would err by about as much: an estimate" in noise_words(mine, known)


def test_page_needs_no_other_file_and_says_what_its_plots_show(rendered: tuple[str, str]) -> None:
    page = Page(rendered[0])
    assert page.loads == []
    assert all(len(words) > 30 for words in page.pictures)
    shown = " ".join(page.pictures)
    for words in (
        "Confusion matrix of ethnicity on fairface",
        "Reliability of gender",
        "Share of ages inside their 90 % interval",
        "Error on answered faces against the share answered: age",
        "age error by decade",
    ):
        assert words in shown


def test_few_faces_are_told_without_an_interval(tmp_path: Path) -> None:
    outcomes = made(40, age=[25] * 37 + [95] * 3, said_ages=[years(30)] * 40)
    small = score_model(load_spec("default"), outcomes, "all")
    write_results(small, tmp_path / "results.json")
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["age_by_decade"]["utkface"]["91-100"]["low"] is None
    html, markdown = render_report(read)
    assert "| 91-100 | 65.00 (too few for an interval) | 3 |" in markdown
    assert "| 21-30 | 5.00 (5.00 to 5.00) | 37 |" in markdown
    assert html.count("<svg") > 1
    few = score_model(load_spec("default"), outcomes.take(np.arange(3)), "all")
    assert "age_mae_years: 5.00 (too few for an interval, n 3)" in summary(few)


def test_what_a_model_lacks_is_left_out(results: dict[str, Any]) -> None:
    """A data set without ages, degraded inputs, label noise or suspects."""
    outcomes = made(40, gender=[0, 1] * 20, said_genders=[[0.8, 0.2], [0.4, 0.6]] * 20)
    small = score_model(load_spec("default"), outcomes, "all")
    html, markdown = render_report(json.loads(json.dumps(small)))
    assert "gender accuracy" in markdown
    assert "Suspect labels" not in markdown
    assert "NIST" not in markdown
    assert "<table>" in html


def test_noise_of_utkfaces_labels_is_told_beside_utkface_alone(
    results: dict[str, Any], dedupe: dict[str, Any]
) -> None:
    outcomes = made(40, gender=[0, 1] * 20, said_genders=[[0.8, 0.2]] * 40, dataset="csv")
    other = json.loads(json.dumps(score_model(load_spec("default"), outcomes, "all")))
    assert "photos more than once" in render_report(results, dedupe=dedupe)[1]
    assert "photos more than once" not in render_report(other, dedupe=dedupe)[1]


def test_noise_of_labels_stands_beside_the_models_own_errors(
    results: dict[str, Any], dedupe: dict[str, Any]
) -> None:
    text = noise_words(results, dedupe)
    # Forty pairs, all four years apart, half of them with two genders.
    assert "Two ages of one photo disagree in 100% of cases, and differ by 4.0 years" in text
    error = dedupe["label_noise"]["gender"]["error_if_independent"]["value"]
    assert error == pytest.approx(0.5)
    assert "\n- Age: " in text
    assert "\n- Gender: two labels of one photo disagree in 50.0% of cases (40 photos" in text
    assert "if errors are independent, at least 50.0% (" in text
    for dataset in ("utkface", "fairface"):
        wrong = 1 - results["overall"][dataset]["gender_accuracy"]["value"]
        assert f"{wrong:.1%} of {dataset}'s" in text
    assert "Ethnicity" not in text, "nobody has two labels of it"
    # A file with fewer figures is still read.
    noise = dedupe["label_noise"]
    less = {"age": noise["age"], "gender": {**noise["gender"], "error_if_independent": None}}
    assert "errors are independent" not in noise_words(results, {"label_noise": less})


def test_coverage_of_groups_is_summed_up_at_the_head(results: dict[str, Any]) -> None:
    page = render_report(results)[1].split("## Overall")[1].split("\n#")[0]
    for output in ("age interval", "gender set", "ethnicity set"):
        assert f"- {output}: of " in page
    for level, row in results["head"]["label_groups_missed"].items():
        for name, told in row.items():
            groups = results["coverage"][level][f"{name}_sets"]["groups"]
            missed = [group for group, figure in groups.items() if not figure["reaches"]]
            assert told == {"of": len(groups), "missed": missed}
            assert told["of"] > 0

    def sets(*shares: float) -> dict[str, Any]:
        cells = {f"g{k}": {"value": v, "reaches": v > 0.75} for k, v in enumerate(shares)}
        return {"gender_sets": {"groups": cells}}

    many = [0.99] * 21
    made_up = {"coverage": {"0.8": sets(0.7, 0.6, 0.9, *many), "0.9": sets(0.8, 0.9, 1, *many)}}
    (line,) = missed_in_short(made_up)
    assert line.startswith("gender set: of 24 groups of 150 faces or more")
    assert line.endswith("below the level: 2 at 80% (worst: g1, 60.0%); none at 90%")


def test_another_border_is_said_at_the_head() -> None:
    def page(border: float) -> tuple[dict[str, Any], str, str]:
        raw = score_model(load_spec("default"), made(1, gender=[0]), "test", border=border)
        results = json.loads(json.dumps(raw))
        return results, render_report(results)[1], summary(results).splitlines()[0]

    usual, markdown, first = page(0.35)
    assert "border" not in usual, "as in the results files of the models that ship"
    assert "Each picture got a grey border of 35% of its width" in markdown
    assert "The data sets' pictures" not in markdown, "they may be anybody's, cropped or not"
    assert "border" not in first
    for border, said, share in (
        (0.0, "The pictures got no border (`--border 0`)", "0 %"),
        (0.07, "got a grey border of 7% of their width (`--border 0.07`)", "7 %"),
    ):
        results, markdown, first = page(border)
        assert results["border"] == border
        assert said in markdown.split("## ")[0]
        assert "Each picture got a grey border of 35%" not in markdown
        assert first.endswith(f"on test, in a border of {share}")


def test_a_report_without_degraded_faces_shows_none(results: dict[str, Any]) -> None:
    n = 40
    raw = score_model(load_spec("default"), made(n, gender=[0, 1] * 20), "all")
    _, clean = render_report(json.loads(json.dumps(raw)))
    assert "none was degraded on purpose (`--degraded`)" in clean
    assert "clean and degraded faces together" not in clean
    _, worsened = render_report(results)
    assert "a random sample of each data set degraded in several ways" in worsened
    assert "are not replaced by others, so n can be a little smaller" in worsened
    assert "clean and degraded faces together" in worsened


def test_a_model_without_a_calibration_is_not_reported_as_calibrated() -> None:
    outcomes = random_outcomes(330, "utkface", 0)
    bare = dataclasses.replace(load_spec("default"), calibration={})
    results = json.loads(json.dumps(score_model(bare, outcomes, "test")))
    html, markdown = render_report(results)
    ece = results["calibration_error"]["gender"]["after"]["ece"]
    (line,) = [x for x in summary(results).splitlines() if "calibration error of gender" in x]
    assert line.startswith(f"calibration error of gender: {ece:.4f} not calibrated, ")
    assert "| output | not calibrated | by chance | n |" in markdown
    assert "| output | group | not calibrated | by chance | n |" in markdown
    for text in (html, markdown, summary(results)):
        for said in ("temperature", "Gates are chosen", "gate alone answers", " after"):
            assert said not in text.replace("certainty, after", ""), said
    assert "The model has no gates, so it abstains from nothing" in markdown
    assert "Label sets were not fitted: they hold" in markdown
    assert f"calibration error {ece:.3f}." in markdown


def test_intervals_without_bands_are_of_everyone(results: dict[str, Any]) -> None:
    """As of a model that was fitted without exact ages: its one band is no group."""
    cell = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 200, "reaches": False, "mean_size": 9.0}
    level = results["coverage"]["0.9"] | {"interval_groups": {"predicted age: 1-120": cell}}
    head = results["head"]
    missed = {**head["groups_missed"], "0.9": {"of": 1, "missed": ["predicted age: 1-120"]}}
    mine = results | {
        "coverage": results["coverage"] | {"0.9": level},
        "head": head | {"groups_missed": missed},
    }
    html, markdown = render_report(mine)
    for text in (html, markdown, summary(mine)):
        assert "1-120" not in text
    assert "everyone (50.0% (40.0% to 60.0%), n 200)" in markdown
    assert "1 at 90% (worst: everyone, 50.0%)" in markdown
    assert "| everyone | 50.0%" in markdown


def test_coverage_is_reported_at_the_levels_of_the_model() -> None:
    """Which may be fewer than a fit gives, and others, but for 0.9."""
    spec = load_spec("default")
    fitted = dict(spec.calibration)
    at_90 = {name: {"0.9": sets["0.9"]} for name, sets in fitted["label_sets"].items()}
    some = fitted["age_intervals"]["thresholds"]["0.9"]
    alone = {**fitted["age_intervals"], "thresholds": {"0.9": some}}
    mine = dataclasses.replace(
        spec, calibration=fitted | {"label_sets": at_90, "age_intervals": alone}
    )
    results = json.loads(json.dumps(score_model(mine, random_outcomes(40, "utkface", 0), "test")))
    assert list(results["coverage"]) == ["0.9"]
    _, markdown = render_report(results)
    assert "| coverage, mean size | at 90% |" in markdown
    text = summary(results)
    assert "coverage at 0.9, intervals" in text
    assert "coverage at 0.8" not in text


def test_tables_in_nists_format_say_their_ages(results: dict[str, Any]) -> None:
    _, markdown = render_report(results)
    block = markdown.split("## Age estimation in NIST's format\n")[1].split("\n## ")[0]
    assert "| labelled 18 to 30 | age MAE, years | n |" in block
    assert "| labelled 14 to 17 | called 25 or more | n |" in block


def test_a_report_replaces_an_earlier_one(tmp_path: Path) -> None:
    """So that what cannot be written whole leaves the earlier one as it was."""
    names = ("r.md", "r.html", "r-figures/p.svg")
    for word in ("old", "new"):
        report = Report(word)
        report.plot("p", f"<svg>{word}</svg>", "a plot of a]")
        report.write(tmp_path / "r.json")
        for number, name in enumerate(names if word == "old" else ()):
            (tmp_path / f"earlier-{number}").hardlink_to(tmp_path / name)
    assert 'aria-label="a plot of a)"><svg>new' in (tmp_path / "r.html").read_text()
    for number, name in enumerate(names):
        assert "new" in (tmp_path / name).read_text()
        assert "old" in (tmp_path / f"earlier-{number}").read_text()


def test_data_without_splits_are_all_pictures() -> None:
    raw = score_model(load_spec("default"), made(40, gender=[0, 1] * 20), "all")
    results = json.loads(json.dumps(raw))
    _, markdown = render_report(results)
    assert markdown.startswith(f"# {load_spec().name}@{load_spec().version} on all pictures\n")
    assert "The table has all clean faces of all pictures;" in markdown
    assert "against the share answered: gender on all pictures." in markdown
    assert summary(results).splitlines()[0].endswith(" on all pictures")
    written = {"training": "So.", "failures": "- Here."}
    assert "utkface: 40 faces of all pictures, 0 not" in build_card(results, written).markdown()


def test_a_split_and_a_model_of_any_name_have_their_plots(tmp_path: Path) -> None:
    outcomes = made(40, gender=[0, 1] * 20, said_genders=[[0.8, 0.2], [0.4, 0.6]] * 20)
    mine = dataclasses.replace(load_spec("default"), name="my own (1)")
    write_results(score_model(mine, outcomes, "year 1/2 é%"), tmp_path / f"{mine.name}.json")
    markdown, html, *_ = write_reports(tmp_path, mine.name)
    links = [unquote(link) for link in re.findall(r"\]\((\S+\.svg)\)", markdown.read_text())]
    assert "my own (1)-figures/risk-coverage-year-1-2----gender.svg" in links
    assert all((tmp_path / link).is_file() for link in links)
    assert html.read_text().count('role="img"') == len(links)
    rendered = MarkdownIt("commonmark").render(markdown.read_text())
    assert rendered.count("<img") == len(links) == markdown.read_text().count("![")


def test_reports_are_written_beside_the_results(
    results: dict[str, Any], dedupe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "dedupe.json").write_text(json.dumps(dedupe))
    name = results["model"]["name"]
    write_results(results, tmp_path / f"{name}.json")
    old = tmp_path / f"{name}-figures" / "no-longer-shown.svg"
    old.parent.mkdir()
    old.write_text("<svg></svg>")
    written = write_reports(tmp_path, name)
    assert not old.exists(), "a figure of an earlier report"
    assert [path.name for path in written] == [f"{name}.md", f"{name}.html", f"{name}-suspects.csv"]
    markdown = written[0].read_text()
    pictures = re.findall(r"\]\((\S+\.svg)\)", markdown)
    assert len(pictures) > 10
    assert all((tmp_path / picture).read_text().startswith("<svg") for picture in pictures)
    assert "photos more than once" in markdown
    with written[2].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 30
    write_results({**results, "suspect_labels": []}, tmp_path / f"{name}.json")
    write_reports(tmp_path, name)
    assert not written[2].exists(), "the suspects of earlier results"
