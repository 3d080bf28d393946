"""Figures by the user's own columns: what is a group, and how it gets from table to report."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from facewise.cli import app
from facewise.data.sets import read_csv, samples_hash
from facewise.errors import OptionError
from facewise.evaluation.card import _analyses
from facewise.evaluation.data import read_data
from facewise.evaluation.report import build_report
from facewise.evaluation.results import HEAD_METRICS, score_model, write_results
from facewise.evaluation.summary import summary
from facewise.models import load_spec

from .made import made, years

FACES = Path(__file__).parent.parent / "data" / "faces"


def score(folder: Path, values: list[str], name: str = "camera", **labels: Any) -> dict[str, Any]:
    """Results, as read from a file, of faces aged 30 that each have a value in a column."""
    n = len(values)
    outcomes = made(n, age=[30] * n, dataset="csv", **labels)
    columns = {name: np.array(values, object)}
    path = folder / "results.json"
    write_results(score_model(load_spec(), outcomes, "test", columns=columns), path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_figures_by_hand(tmp_path: Path) -> None:
    # A spreadsheet would take these values for one number; 29 are too few, 6 are in no group.
    values = ["01"] * 40 + ["1"] * 160 + ["1.0"] * 29 + ["unknown"] * 6
    off = [2] * 40 + [7] * 160 + [50] * 35
    photos = [str(i // 2) for i in range(235)]  # two pictures of each
    results = score(tmp_path, values, said_ages=[years(30 + d) for d in off], groups=photos)
    table = results["groups"]["csv"]["camera"]
    assert list(table) == ["01", "1"]
    assert table["1"]["age_mae_years"] == {"value": 7, "low": 7, "high": 7, "n": 160}
    assert table["1"]["age_median_error_years"]["value"] == 7
    row = next(r for r in results["head"]["worst_groups"] if r["metric"] == "age_mae_years")
    assert [row[k] for k in ("grouping", "worst", "best", "gap")] == ["camera", "1", "01", 5]
    assert results["by"] == {"csv": {"camera": {"values": 3, "unknown": 6}}}
    cells = results["coverage"]["0.9"]["interval_groups"]
    assert cells["camera: 1"]["n"] == 160
    assert "camera: 01" not in cells, "40 faces are too few to judge coverage"
    assert results["calibration_error"]["age_decade"]["groups"]["camera: 1"]["n"] == 160
    said = (
        "csv, by camera: of 3 groups, 2 with 30 labelled faces or more; without a value, 6 of 235"
    )
    text, page = summary(results), build_report(results).markdown()
    assert said in text
    assert said in page
    assert "csv age_mae_years: camera 1 7.00 (7.00 to 7.00, n 160), 5.00 from 01" in text
    assert "\n| csv | age MAE, years | camera | **1** | 7.00 (7.00 to 7.00) | 160 | 01 |" in page
    assert "\n### csv, by camera\n" in page
    assert "#### csv, by camera\n" in _analyses(results)["groups"]


def test_near_duplicates_are_drawn_together(tmp_path: Path) -> None:
    off = [years(30 + d) for d in (0, 10)] * 20
    alone = score(tmp_path, ["a"] * 40, said_ages=off)
    twice = score(tmp_path, ["a"] * 40, said_ages=off, groups=[str(i % 20) for i in range(40)])
    few = score(tmp_path, ["a"] * 40, said_ages=off, groups=[str(i % 2) for i in range(40)])
    widths = [
        figure["high"] - figure["low"]
        for figure in (r["groups"]["csv"]["camera"]["a"]["age_mae_years"] for r in (alone, twice))
    ]
    assert widths[1] > 1.2 * widths[0]
    assert few["groups"]["csv"]["camera"]["a"]["age_mae_years"]["low"] is None


def test_a_group_is_what_is_written(tmp_path: Path) -> None:
    names = ["unknown brand", "a / unknown", "a / b", "Canon", "canon", "true", "<NA>"]
    results = score(tmp_path, [name for name in names for _ in range(30)], gender=[0, 1] * 105)
    assert set(results["groups"]["csv"]["camera"]) == set(names)
    assert results["by"]["csv"]["camera"] == {"values": 7, "unknown": 0}
    assert set(results["groups"]["csv"]["gender"]) == {"male", "female"}


def test_a_column_without_large_groups_says_so(tmp_path: Path) -> None:
    results = score(tmp_path, [f"id {i}" for i in range(1000)])
    assert "camera" not in results["groups"]["csv"]
    said = "of 1000 groups, none with 30 labelled faces or more, so there are no figures"
    assert said in summary(results)
    assert said in build_report(results).markdown()


class Cells(HTMLParser):
    """Texts of a page's cells and headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.inside = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "h3"):
            self.said.append("")
            self.inside += 1

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag in ("td", "h3")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.said[-1] += data


@pytest.mark.filterwarnings("error")
def test_any_name_is_shown_as_it_is(tmp_path: Path) -> None:
    names = [r"a|b \ <b>&amp; **c** `d`", "[e](f) $x$ ~~g~~", "__h__ i_j_", "\u4e2d\u56fd"]
    names += ["k" * 300, "\u00b2"]
    column = "lens*, <i>_#"
    values = [name for name in names for _ in range(150)]
    off = [years(30 + i // 150) for i in range(900)]
    results = score(tmp_path, values, column, said_ages=off)
    page = build_report(results)
    said = Cells(page.html()).said
    assert f"csv, by {column}" in said
    assert names[-1] in said, "the worst"
    for name in names:
        assert said.count(name) >= 1
        assert f"{column}: {name}" in said
    assert "<b>" not in page.markdown()
    lines = [line for line in page.markdown().splitlines() if line.startswith("| a&#124;b")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {lines[0].count("|")}
    plot = page.plots["coverage-by-group"]
    assert "lens*, &lt;i&gt;_#: [e](f) $x$ ~~g~~ (150)" in plot
    assert "k" * 70 not in plot


def test_values_of_a_csv(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    for name in "abcdefg":
        (tmp_path / f"{name}.jpg").touch()
    listing.write_text(
        "path;age;Camera ;glasses;x\na.jpg;30; A  1;none;\nb.jpg;30;a 1;-1\nc.jpg;30;NA;unknown\n"
        'd.jpg;30;"A\n1"\ne.jpg;30;UNKNOWN;?;\nf.jpg;30;n/a;\n'
        "./a.jpg;30;B;none\na.jpg;30;A 1;none\n",
        encoding="utf-16",
    )
    data_set, plain = read_csv(listing, ("camera", "glasses")), read_csv(listing)
    assert data_set.columns == {
        "camera": {"a.jpg": "A 1", "b.jpg": "a 1", "d.jpg": "A 1"},
        "glasses": {"a.jpg": "none", "b.jpg": "-1"},
    }
    assert [why for _, why in data_set.skipped] == [
        "listed twice, with another camera: the first row, a.jpg, counts",
        "listed twice",
    ]
    # Stored outcomes depend on the samples only.
    assert plain.columns == {}
    assert [
        samples_hash((some, sample) for sample in some.samples) for some in (data_set, plain)
    ] == [samples_hash((plain, sample) for sample in plain.samples)] * 2


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """UTKFace beside FairFace with its labels."""
    for name in ("UTKFace/25_1_3_20200101000000000.jpg", "FairFace/a.webp", "FairFace/b.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "fairface_labels.csv").write_text(
        "file,age,gender,race,service_test\n"
        "a.webp,20-29,Male,East Asian,True\nb.webp,30-39,Female,Latino_Hispanic,\n"
    )
    return tmp_path


def test_fairface_has_columns_and_utkface_none(shared: Path) -> None:
    data = read_data(shared, by=["Race", "service_test", "race "])
    assert data.by == ("race", "service_test")
    outcomes = made(3)
    rows = {
        "keys": np.array(["b.webp", "25_1_3_20200101000000000.jpg", "a.webp"]),
        "datasets": np.array(["fairface", "utkface", "fairface"]),
    }
    for name, values in rows.items():
        object.__setattr__(outcomes, name, values)
    columns = data.columns_of(outcomes)
    assert columns["race"].tolist() == ["Latino_Hispanic", "unknown", "East Asian"]
    assert columns["service_test"].tolist() == ["unknown", "unknown", "True"]
    labels = shared / "fairface_labels.csv"
    assert read_data(shared / "FairFace", labels=labels, by=["race"]).by == ("race",)
    with pytest.raises(OptionError, match=r"--by race: .*UTKFace has no columns, for UTKFace's"):
        read_data(shared / "UTKFace", by=["race"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "camra",
            r"lacks the columns camra: its columns are file, age, gender, race, service_test",
        ),
        ("AGE", "--by age: there are figures by it in any case"),
        ("ethnicity", "--by ethnicity: there are figures"),
        ("sex", "--by sex: it is read as gender"),
        ("file", "--by file: it names pictures"),
        ("split", "--by split: one split is scored"),
        ("group", "--by group: it is read as groups of near-duplicates"),
        ("ethnicity x gender", "rename the column"),
        ("Certainty", "rename the column"),
        (" ", "--by '': name a column"),
    ],
)
def test_columns_that_are_missing_or_no_groups(name: str, message: str, shared: Path) -> None:
    with pytest.raises(OptionError, match=message):
        read_data(shared, by=[name])


def test_from_a_csv_to_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few faces, so groups of 5 are large enough."""
    monkeypatch.setattr("facewise.evaluation.groups.MIN_GROUP", 5)
    names = sorted(path.name for path in FACES.glob("*.webp"))[:12]
    lines = ["path,age,gender,Camera,country"]
    cameras = ["Canon", "unknown brand"] * 5 + ["NA", ""]
    for country, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        shutil.copy(FACES / name, tmp_path)
        lines.append(f"{name},30,male,{camera},{country}")
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    options = [
        *("evaluate", "--data", str(tmp_path / "faces.csv"), "--out", str(tmp_path / "out")),
        *("--store", str(tmp_path / "store"), "--workers", "1", "--degraded", "0"),
    ]
    path = tmp_path / "out" / f"{load_spec().name}.json"

    def run(*more: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*options, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    plain = run()
    (stored,) = (tmp_path / "store").glob("*.npz")
    before = stored.stat().st_mtime_ns
    results = run("--by", "camera", "--by", "Country")
    (again,) = (tmp_path / "store").glob("*.npz")
    assert again.stat().st_mtime_ns == before, "the stored outcomes serve"
    assert results["by"]["csv"] == {
        "camera": {"values": 2, "unknown": 2},
        "country": {"values": 12, "unknown": 0},
    }
    table = results["groups"]["csv"]["camera"]
    assert {name: row["age_mae_years"]["n"] for name, row in table.items()} == {
        "Canon": 5,
        "unknown brand": 5,
    }
    assert "country" not in results["groups"]["csv"]
    # Nothing else changes.
    results["groups"]["csv"].pop("camera")
    assert plain["groups"] == results["groups"]
    assert plain["overall"] == results["overall"]
    assert plain["by"] == {"csv": {}}
    own = [row for row in results["head"]["worst_groups"] if row["grouping"] == "camera"]
    assert {row["metric"] for row in own} <= set(HEAD_METRICS)
    assert "country" in path.with_suffix(".md").read_text()
    with pytest.raises(OptionError, match="lacks the columns camra"):
        CliRunner().invoke(app, [*options, "--by", "camra"], catch_exceptions=False)
