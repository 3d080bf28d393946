"""``facewise audit`` from pictures to report."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from facewise.annotated import part_files
from facewise.audit.audit import audit_faces, changes
from facewise.audit.known import known_confusions
from facewise.audit.notes import notes_on
from facewise.audit.reference import read_reference
from facewise.audit.report import summary
from facewise.audit.run import audit_tables
from facewise.audit.table import COLUMNS, Faces, read_faces
from facewise.errors import OptionError, TableError
from facewise.models import load_spec
from facewise.reporting.report import Report

from .test_table import part as made_up
from .test_table import videos

Ended = subprocess.CompletedProcess[str]
Audit = Callable[..., Ended]


@pytest.fixture
def audit(run: Callable[..., subprocess.CompletedProcess[bytes]]) -> Audit:
    """Run ``facewise audit`` in this process."""

    def ask(*arguments: object) -> Ended:
        done = run("audit", *arguments)
        return Ended(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return ask


def spawn_audit(*arguments: object) -> Ended:
    """Run ``facewise audit`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "facewise", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def other(table: Path, tmp_path: Path) -> Path:
    """The first twelve pictures of the table, with rows as if from other weights."""
    rows = pq.read_table(table)
    ids = list(dict.fromkeys(rows["image_id"].to_pylist()))[:12]
    kept = rows.filter(pc.is_in(rows["image_id"], pa.array(ids)))
    place = kept.schema.get_field_index("model_sha256")
    weights = pa.array(["0" * 64] * len(kept))
    (tmp_path / "other.table").mkdir()
    pq.write_table(
        kept.set_column(place, "model_sha256", weights),
        tmp_path / "other.table" / "part-00000000.parquet",
    )
    return tmp_path / "other.table"


def test_a_table_becomes_a_summary_a_report_and_json(twice: Path, tmp_path: Path) -> None:
    done = spawn_audit(twice, "--out", tmp_path / "report-v1.2")
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads((tmp_path / "report-v1.2.json").read_text())
    assert figures["images"] == 48
    assert figures["faces"] >= 40
    for name in ("age", "gender", "ethnicity"):
        for kind in ("naive", "corrected"):
            shares = [row[kind]["share"] for row in figures["attributes"][name]]
            assert sum(shares) == pytest.approx(1, abs=1e-6)
        for row in figures["attributes"][name]:
            cell = row["corrected"]
            assert 0 <= cell["low"] <= cell["high"] <= 1
    page = (tmp_path / "report-v1.2.html").read_text()
    assert "<svg" in page or "data:image" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    for name, of in figures["crossings_of"].items():  # rare cells too, so that a column adds up
        table = page.split(f"Crossing: {name}<")[1].partition("</table>")[0]
        counts = re.findall(r"<tr>\s*<td>[^<]*</td>\s*<td>([\d,]+)</td>", table)
        assert sum(int(count.replace(",", "")) for count in counts) == of


def test_a_report_goes_into_a_folder(table: Path, tmp_path: Path, audit: Audit) -> None:
    there = tmp_path / "report-v1.2"
    there.mkdir()
    for out, folder in ((there, there), (f"{tmp_path}/new.json/", tmp_path / "new.json")):
        done = audit(table, "--no-crossings", "--method", "adjusted", "--out", out)
        assert done.returncode == 0, done.stderr
        assert json.loads((folder / "audit.json").read_text())["method"] == "adjusted"
        assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
        assert f"full report: {folder / 'audit.html'}" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "report-v1.2"]


def test_a_report_replaces_reports_alone(table: Path, tmp_path: Path, audit: Audit) -> None:
    options = ("--no-crossings", "--out", tmp_path / "report")
    assert audit(table, *options).returncode == 0
    page, figures = tmp_path / "report.html", tmp_path / "report.json"
    for path in (page, figures):
        path.with_name(f"earlier-{path.name}").hardlink_to(path)
    again = audit(table, *options)
    assert again.returncode == 0, again.stderr
    for path in (page, figures):
        assert not path.samefile(path.with_name(f"earlier-{path.name}")), "was written over"
    # An evaluation's page is facewise's, too, but not one that an audit may replace.
    other = Report("Who is in it?")
    other.text("Nobody says.")
    for path, text in ((page, other.html()), (figures, '{"notes": []}'), (figures, "[")):
        kept = path.read_text()
        path.write_text(text)
        refused = audit(table, *options)
        assert refused.returncode == 2
        assert f"{path} already exists" in refused.stderr
        assert "choose another --out, or remove it first" in refused.stderr
        assert path.read_text() == text
        assert not refused.stdout
        path.write_text(kept)


def test_a_table_against_itself_has_changed_by_nothing_and_says_how_surely(
    twice: Path, tmp_path: Path, audit: Audit
) -> None:
    done = audit(twice, "--against", twice, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    change = json.loads((tmp_path / "report.json").read_text())["change"]
    women = next(row for row in change["gender"] if row["label"] == "female")
    assert women["kind"] == "corrected"
    rows = [row for attribute in change.values() for row in attribute]
    assert [row["change"] for row in rows] == pytest.approx([0] * len(rows))
    # Some twenty faces fix a share to some twenty points only; equal draws would have given zero.
    assert women["high"] - women["low"] > 0.1
    assert "note: 48 image_ids are in both tables: if these are the same pictures" in done.stdout
    assert "-0.0" not in done.stdout + (tmp_path / "report.html").read_text()


def test_two_tables_stand_side_by_side_with_the_change(
    table: Path, other: Path, tmp_path: Path, audit: Audit
) -> None:
    """The other table has half the pictures and rows of other weights, so shares are counted."""
    done = audit(table, "--against", other, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["second"]["images"] == 12
    assert figures["second"]["confusions_from"] == []
    assert any("different models" in note for note in figures["notes"])
    assert any("second table: shares are counted" in note for note in figures["notes"])
    most = max(figures["change"]["ethnicity"], key=lambda row: abs(row["change"]))
    assert most["kind"] == "naive"
    assert abs(most["change"]) > 0.01
    shares = [
        next(r for r in f["attributes"]["ethnicity"] if r["label"] == most["label"])["naive"][
            "share"
        ]
        for f in (figures, figures["second"])
    ]
    assert shares[1] - shares[0] == pytest.approx(most["change"])
    points = f"{most['change'] * 100:+.1f} ("
    (line,) = (t for t in done.stdout.splitlines() if f"{shares[1]:.1%}   {points}" in t)
    assert f"{shares[0]:.1%}" in line
    assert "second table: 12 images" in done.stdout
    page = (tmp_path / "report.html").read_text()
    for text in ("Compared with the second table", f"<td>{shares[1]:.1%}</td>", "share, second"):
        assert text in page
    back = audit(other, "--against", table)
    assert back.returncode == 0, back.stderr
    assert f"{-most['change'] * 100:+.1f} (" in back.stdout


def test_pictures_in_both_tables_are_told_also_where_files_differ(tmp_path: Path) -> None:
    """As where a folder is annotated again after it grew."""
    pq.write_table(made_up(60, 0), tmp_path / "old.parquet")
    grown = pa.concat_tables([made_up(60, 1), made_up(30, 0), made_up(60, 2)])
    pq.write_table(grown, tmp_path / "new.parquet")
    old, new = ([tmp_path / f"{name}.parquet"] for name in ("old", "new"))
    for first, second, common in ((old, new, 20), (new, old, 20), ([*old, *new], new, 100)):
        notes = audit_tables(first, second=second, crossings=False)["notes"]
        (note,) = (note for note in notes if "in both tables" in note)
        assert note.startswith(f"{common} image_ids are in both tables: if these are the same")
    pq.write_table(made_up(60, 3), tmp_path / "old.parquet")
    notes = audit_tables(old, second=new, crossings=False)["notes"]
    assert not any("in both" in note for note in notes)


def test_a_change_is_the_difference_of_the_shares_beside_it(tmp_path: Path) -> None:
    """Also where corrections move shares as far as their draws agree."""
    spec, paths = load_spec(), [tmp_path / f"{seed}.parquet" for seed in range(2)]
    made_by = {"model": f"{spec.name}@{spec.version}", "model_sha256": spec.sha256}
    for seed, path in enumerate(paths):
        rows = made_up(300, seed)
        for name, value in made_by.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(name), pa.array([value] * len(rows)))
        pq.write_table(rows, path)
    first, second = ([path] for path in paths)
    both = audit_tables(first, second=second, crossings=False)
    alone = audit_tables(second, crossings=False)
    assert both["second"]["attributes"] == alone["attributes"]
    for name, rows in both["change"].items():
        for k, row in enumerate(rows):
            assert row["kind"] == "corrected"
            one, other = (f["attributes"][name][k]["corrected"] for f in (both, alone))
            assert row["change"] == pytest.approx(other["share"] - one["share"], abs=1e-6)
            assert row["low"] <= row["change"] <= row["high"]


def test_counted_shares_have_the_intervals_that_the_heading_speaks_of(
    other: Path, tmp_path: Path, audit: Audit
) -> None:
    done = audit(other, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    (women,) = (
        row["naive"]
        for row in json.loads((tmp_path / "report.json").read_text())["attributes"]["gender"]
        if row["label"] == "female"
    )
    ends = f"{women['low']:.1%} to {women['high']:.1%}"
    said = "95 % interval over pictures and videos, as if the model never erred"
    assert f"apparent gender (share of faces, {said})" in done.stdout
    assert f"female    counted {women['share']:6.1%} ({ends})" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert f"<th>{said}</th>" in page
    assert f"<td>{women['share']:.1%}</td>\n<td>{ends}</td>" in page
    assert "corrected share" not in page


def test_without_confusions_intervals_hold_either_and_all_outputs_say_so(
    twice: Path, tmp_path: Path, audit: Audit
) -> None:
    found = {}
    for name in ("either", "fairface", "utkface"):
        option = () if name == "either" else ("--confusions", name)
        done = audit(twice, "--against", twice, "--no-crossings", "--out", tmp_path / name, *option)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
        said = found[name]["correction"]
        lines = done.stdout.splitlines()
        assert lines.index(said) < next(
            i for i, t in enumerate(lines) if t.startswith("apparent age (")
        )
        page = html.unescape((tmp_path / f"{name}.html").read_text())
        assert page.count(said) == 1
        assert page.index(said) < page.index("<table")
        assert ("--confusions fairface or utkface" in said) == (name == "either")
        # Warnings about what intervals do not hold appear only if a source was named.
        single = "interval of a single decade may hold its true share far less often than that"
        assert (single in done.stdout) == (name != "either")
    both = found.pop("either")
    assert both["confusions_from"] == both["second"]["confusions_from"] == ["fairface", "utkface"]
    for one in found.values():
        for name, rows in both["attributes"].items():
            for row, own in zip(rows, one["attributes"][name], strict=True):
                assert row["corrected"]["low"] <= own["corrected"]["low"]
                assert own["corrected"]["high"] <= row["corrected"]["high"]
            for row, own in zip(both["change"][name], one["change"][name], strict=True):
                assert row["kind"] == own["kind"] == "corrected"
                assert row["low"] <= own["low"] <= own["high"] <= row["high"]


def test_notes_say_what_intervals_do_not_hold(twice: Path) -> None:
    faces = read_faces(twice)
    known, _ = known_confusions(faces, [twice], None)
    gender = known["utkface"]["gender"]
    known["utkface"]["gender"] = replace(gender, offsets=gender.offsets + np.array([5, -5]))
    figures, _ = audit_faces(faces, known, source="fairface", crossings=False)
    (note,) = (text for text in notes_on(figures) if text.startswith("gender"))
    assert "(--confusions utkface) would differ by more than the interval for male" in note
    figures, _ = audit_faces(faces, known, crossings=False)
    assert not any("differ" in text or "only" in text for text in notes_on(figures))
    del known["utkface"]["gender"]
    figures, _ = audit_faces(faces, known, crossings=False)
    (note,) = (text for text in notes_on(figures) if text.startswith("gender"))
    assert "gender is corrected as on fairface's faces only" in note


def test_a_note_says_what_intervals_take_video_for(tmp_path: Path) -> None:
    figures, _ = audit_faces(
        read_faces(videos(tmp_path / "t.parquet", [0, 1], 20)), {}, crossings=False
    )
    (note,) = (text for text in notes_on(figures) if text.startswith("on video"))
    assert "80 rows make 40 tracks" in note
    assert "follow each other in the same place, as after a cut, may count as one" in note
    assert "treat each video as one observation (2 videos)" in note
    rows = pq.read_table(tmp_path / "t.parquet")
    ethnicity = [pa.nulls(len(rows), pa.float32())] * 5
    for name, column in zip(COLUMNS["ethnicity"], ethnicity, strict=True):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    pq.write_table(rows.slice(0, 1), tmp_path / "t.parquet")
    figures, _ = audit_faces(read_faces(tmp_path / "t.parquet"), {}, crossings=False)
    notes = notes_on(figures)
    assert any("1 row makes 1 track;" in note for note in notes)
    assert any("(1 video)" in note for note in notes)
    (note,) = (text for text in notes if text.startswith("ethnicity"))
    assert note.startswith("ethnicity is known of 0 of 1 face: it has no shares (on video, ")
    assert "unless asked: --attributes age,gender,ethnicity)" in note
    said = summary(figures | {"notes": notes}, "t")
    assert said.startswith("t: 1 image or video frame, 1 face; 0 without a face (0.0%), 0 errors (")


@pytest.mark.parametrize("source", [None, "fairface"])
def test_errors_known_on_one_kind_of_photos_only_are_said_so_at_the_top(
    twice: Path, tmp_path: Path, audit: Audit, source: str | None
) -> None:
    """The counted shares are the ones to trust, unless the user says that the kind is theirs."""
    spec = load_spec()
    fitted = json.loads(spec.path.read_text())
    del fitted["calibration"]["confusions"]["utkface"]
    (tmp_path / "one.json").write_text(json.dumps(fitted))
    option = () if source is None else ("--confusions", source)
    done = audit(
        twice, "--against", twice, "--model", tmp_path / "one.json", "--no-crossings",
        "--out", tmp_path / "report", *option,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "report.json").read_text())
    text = (
        f"the errors of {figures['model']['name']} are known on one kind of photos, fairface: if "
        "yours are labelled or collected otherwise, trust the counted shares"
    )
    for table in (figures, figures["second"]):
        assert table["confusions_from"] == ["fairface"]
        assert table["correction"].startswith(text) == (source is None)
    page = html.unescape((tmp_path / "report.html").read_text())
    assert page.partition("<table")[0].count(text) == (source is None)
    assert done.stdout.partition("age (share of faces")[0].count(text) == (source is None)


def test_a_second_table_is_not_said_to_have_but_the_kind_that_was_named(
    twice: Path, tmp_path: Path, audit: Audit
) -> None:
    options = ("--confusions", "utkface", "--no-crossings", "--out", tmp_path / "report")
    assert audit(twice, "--against", twice, *options).returncode == 0
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["second"]["correction"] == figures["correction"]
    assert "one kind of photos" not in figures["correction"]


def test_labels_that_may_be_common_have_a_line_in_the_summary(twice: Path, audit: Audit) -> None:
    """Of some forty faces, none of 111-120, so that a tenth of the population might be."""
    done = audit(twice, "--no-crossings")
    (line,) = (t for t in done.stdout.splitlines() if t.startswith("  111-120"))
    assert float(line.rpartition(" to ")[2].rstrip("%)")) >= 5
    figures, _ = audit_faces(read_faces(twice), {}, crossings=False)
    for row in figures["attributes"]["age"]:
        row["naive"].update(share=0.0, low=0.0, high=0.04 if row["label"] == "1-10" else 0.06)
    said = summary(figures | {"notes": []}, "t")
    assert "  1-10 " not in said
    assert "  11-20 " in said


def test_tables_of_few_faces_are_compared_as_counted(
    table: Path, twice: Path, audit: Audit
) -> None:
    few = "age, gender, ethnicity: counted but not corrected (under 30 faces)"
    done = audit(table, "--no-crossings")
    assert f"note: {few}" in done.stdout
    assert "corrected  " not in done.stdout
    assert "as if the model never erred" in done.stdout
    done = audit(twice, "--against", table, "--no-crossings")
    assert f"note: second table: {few}" in done.stdout
    assert "change in percentage points" in done.stdout


def test_shares_are_compared_only_where_both_models_know_the_sources(
    twice: Path, tmp_path: Path
) -> None:
    """The second table has the same weights as the first, but its spec lacks a source."""
    spec = load_spec()
    fitted = json.loads(spec.path.read_text())
    fitted["name"] = "less"
    del fitted["calibration"]["confusions"]["utkface"]
    (tmp_path / "less.json").write_text(json.dumps(fitted))
    faces = read_faces(twice)
    known, _ = known_confusions(faces, [twice], str(tmp_path / "less.json"))
    figures, shares = audit_faces(faces, known, crossings=False)
    assert figures["confusions_from"] == ["fairface"]
    assert "as on fairface's" in figures["correction"]
    both, _ = known_confusions(faces, [twice], None)
    _, others = audit_faces(faces, both, crossings=False)
    assert {row["kind"] for row in changes(shares, others)["gender"]} == {"naive"}
    assert {row["kind"] for row in changes(shares, shares)["gender"]} == {"corrected"}


def test_a_file_of_another_kind_is_not_called_damaged(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    listing = tmp_path / "x.csv"
    listing.write_text("attribute,label,share\ngender,male,1\n")
    done = audit(listing)
    assert done.returncode == 2
    assert "x.csv is not an annotated table: name the folder" in done.stderr
    assert "damaged" not in done.stderr
    # A part is read under any name; a file that is named like a part but is not one is damaged.
    part = shutil.copy(table / "part-00000000.parquet", tmp_path / "part")
    assert audit(part, "--no-crossings").returncode == 0
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"lost")
    assert "is damaged" in audit(broken).stderr


def test_a_tables_name_is_shown_as_it_is(table: Path, tmp_path: Path, audit: Audit) -> None:
    """Neither the terminal nor the page takes it for more than text; its note names it, too."""
    evil = tmp_path / "evil\x1b[31m\nname <img src=x>![a](http:)"
    shutil.copytree(table, evil)
    manifest = json.loads((evil / "_manifest.json").read_text())
    (evil / "_manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    done = audit(evil, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    shown = r"evil\x1b[31m\nname <img src=x>![a](http:)"
    assert done.stdout.startswith(f"{tmp_path}/{shown}: 24 images")
    assert f"note: all parts of {shown} are there, but" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    page = (tmp_path / "r.html").read_text()
    said = html.escape(shown, quote=False)
    assert f"<h1>Who is in {said}?</h1>" in page
    assert f"<title>Who is in {said}?</title>" in page
    assert f"<li>all parts of {said} are there, but" in page


def test_what_is_no_table_yet_or_is_named_otherwise_says_what_to_name(tmp_path: Path) -> None:
    begun, partitioned = tmp_path / "begun.table", tmp_path / "by_gender"
    begun.mkdir()
    (begun / "_manifest.json").write_text("{}")
    (partitioned / "gender=male").mkdir(parents=True)
    (partitioned / "gender=male" / "data_0.parquet").touch()
    for table, message in (
        (begun, "has no finished part yet: run the same"),
        (tmp_path / "t.table" / "part-*.parquet", "name one, or its Parquet files"),
        (partitioned, "name one, or its Parquet files"),
        (tmp_path / "none", "make one with facewise annotate"),
    ):
        with pytest.raises(TableError, match=re.escape(f"{table} ") + ".*" + message):
            part_files(table)


def test_the_summary_says_what_was_abstained_from_and_what_went_wrong(
    table: Path, audit: Audit
) -> None:
    done = audit(table, "--no-crossings")
    assert "0 errors (0.0% of images)" in done.stdout
    (line,) = (t for t in done.stdout.splitlines() if t.startswith("abstained from"))
    assert re.search(r"age [\d.]+%, gender [\d.]+%, ethnicity [\d.]+%", line)


def test_only_what_was_calibrated_with_the_same_temperatures_is_corrected(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    spec = load_spec()
    fitted = json.loads(spec.path.read_text())
    fitted["version"] += "9"
    fitted["calibration"]["gates"] = {}
    (tmp_path / "gates.json").write_text(json.dumps(fitted))
    fitted["calibration"]["temperatures"]["gender"] += 0.1
    (tmp_path / "fitted.json").write_text(json.dumps(fitted))
    faces = read_faces(table)
    another = replace(faces, model=(f"{spec.name}@0", spec.sha256))

    def corrected(table: Path, model: str | None = None, faces: Faces = faces) -> bool:
        known, notes = known_confusions(faces, [table], model)
        assert bool(known) != any("calibrated" in note or "temperatures" in note for note in notes)
        return bool(known)

    assert corrected(table)
    assert corrected(table, str(tmp_path / "gates.json"))
    assert not corrected(table, str(tmp_path / "fitted.json"))
    # Without a manifest, the version in the rows decides.
    part = table / "part-00000000.parquet"
    assert corrected(part)
    assert not corrected(part, faces=another)
    failed = audit(table, "--model", tmp_path / "fitted.json", "--confusions", "fairface")
    assert failed.returncode == 2
    assert "--confusions fairface cannot be used: faces.table (facewise-d" in failed.stderr
    assert "has other temperatures than" in failed.stderr
    said = audit(table, "--model", tmp_path / "fitted.json", "--no-crossings").stdout
    assert "note: shares are counted, not corrected: faces.table (facewise-default@" in said
    assert f"has other temperatures than facewise-default@{fitted['version']} has now" in said
    assert "name the spec that made it with --model" in said
    said = audit(part, "--model", tmp_path / "fitted.json", "--no-crossings").stdout
    assert "nothing shows that part-00000000.parquet (facewise-default@" in said


def test_abstentions_are_of_the_faces_that_could_be_abstained_from(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    """As beside video: ethnicity is known for four faces only, and one of these is unsure."""
    rows = pq.read_table(table)
    face = pc.cumulative_sum(rows["face_index"].is_valid().cast("int32"))
    for name in COLUMNS["ethnicity"]:
        kept = pc.if_else(pc.less_equal(face, 4), rows[name], None)
        rows = rows.set_column(rows.schema.get_field_index(name), name, kept)
    said = pa.array([["ethnicity"] if k == 1 else [] for k in face.to_pylist()])
    rows = rows.set_column(rows.schema.get_field_index("abstained"), "abstained", said)
    pq.write_table(rows, tmp_path / "part.parquet")
    done = audit(tmp_path / "part.parquet", "--no-crossings", "--out", tmp_path / "report")
    assert "ethnicity 25.0%" in done.stdout, done.stderr
    figures = json.loads((tmp_path / "report.json").read_text())
    said_of = f"ethnicity is known of 4 of {figures['faces']} faces"
    (note,) = (text for text in figures["notes"] if "is known of" in text)
    assert said_of in note
    assert (
        audit(table, "--against", tmp_path / "part.parquet").stdout.count(
            f"second table: {said_of}"
        )
        == 1
    )


def test_an_unfinished_table_is_audited_with_a_note(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    half = tmp_path / "half.table"
    shutil.copytree(table, half)
    assert "not finished" not in audit(half, "--no-crossings").stderr
    manifest = json.loads((half / "_manifest.json").read_text())
    manifest["complete"] = False
    (half / "_manifest.json").write_text(json.dumps(manifest))
    said = audit(half, "--no-crossings").stderr
    assert "all parts of half.table are there, but its last run did not end: pictures with" in said
    manifest["plan"]["shards"] = 7
    (half / "_manifest.json").write_text(json.dumps(manifest))
    done = audit(half, "--no-crossings", "--out", tmp_path / "report")
    assert done.returncode == 0
    assert "half.table is not finished (1 of 7 parts" in done.stderr
    assert "half.table is not finished (1 of 7 parts" in (tmp_path / "report.html").read_text()
    assert "half.table is not finished" in audit(table, "--against", half).stderr


def test_chosen_rows_beside_their_tables_plan_are_no_unfinished_table(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    """As ``thumbs`` takes some rows: annotate, run again on that folder, would remove them."""
    some = tmp_path / "some"
    some.mkdir()
    manifest = json.loads((table / "_manifest.json").read_text())
    manifest["plan"]["shards"] = 7
    (some / "_manifest.json").write_text(json.dumps(manifest))
    pq.write_table(pq.read_table(table).slice(0, 3), some / "part-0.parquet")
    done = audit(some, "--no-crossings")
    assert done.returncode == 0
    assert "parts" not in done.stdout + done.stderr
    part = some / "part-0.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    assert "part-0.parquet is damaged" in (said := audit(some).stderr)
    assert "copy it again, or make it anew" in said


@pytest.mark.parametrize("here", [".", "../half.table", "part/.."])
def test_the_folder_that_one_is_in_has_a_name(
    here: str, table: Path, tmp_path: Path, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half.table"
    shutil.copytree(table, half)
    (half / "part").mkdir()
    manifest = json.loads((half / "_manifest.json").read_text())
    manifest["plan"]["shards"] = 7
    manifest["temperatures"]["age"] += 0.1
    (half / "_manifest.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(half)
    done = audit(here, "--no-crossings", "--out", tmp_path / "report")
    assert "note: half.table is not finished (1 of 7 parts" in done.stderr
    assert "half.table (facewise-default@" in done.stdout
    assert "<h1>Who is in half.table?</h1>" in (tmp_path / "report.html").read_text()


def test_data_that_were_split_over_tables_are_one(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    """Later files went to another, unfinished table; the second table may be split, too."""
    later = tmp_path / "later.table"
    shutil.copytree(table, later)
    manifest = json.loads((later / "_manifest.json").read_text())
    (later / "_manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    done = audit(
        table, later, "--against", later, "--against", table,
        "--no-crossings", "--out", tmp_path / "report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{table} and 1 more: 48 images" in done.stdout
    assert "second table: 48 images" in done.stdout
    assert done.stderr.count("all parts of later.table are there, but") == 2
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["confusions_from"] == figures["second"]["confusions_from"]
    assert figures["confusions_from"] == ["fairface", "utkface"]
    assert "faces.table and 1 more" in (tmp_path / "report.html").read_text()
    # One of the tables has another calibration, so none of the data is corrected.
    manifest["temperatures"]["age"] += 0.1
    (later / "_manifest.json").write_text(json.dumps(manifest))
    assert "later.table (facewise-default@" in audit(table, later, "--no-crossings").stdout
    part = table / "part-00000000.parquet"
    for again in (table / ".." / table.name, part, table / ".." / table.name / part.name):
        for tables in (
            (table, again),
            (again, table),
            (later, "--against", table, "--against", again),
        ):
            twice = audit(*tables)
            assert (twice.returncode, twice.stdout) == (2, "")
            assert f"{part} is named twice: its faces would count twice" in twice.stderr


def test_a_damaged_part_is_one_sentence(table: Path, tmp_path: Path, audit: Audit) -> None:
    bad = tmp_path / "bad.table"
    shutil.copytree(table, bad)
    part = bad / "part-00000000.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    done = spawn_audit(bad)
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert "run the same facewise annotate command again" in done.stderr
    assert "Traceback" not in done.stderr
    # A part of one that SQL wrote is not annotate's to make.
    part.rename(bad / "rest.parquet")
    said = audit(bad / "rest.parquet").stderr
    assert "rest.parquet is damaged" in said
    assert "make it anew" in said
    assert "annotate" not in said


def test_a_reference_is_compared_and_a_bad_one_explained(
    table: Path, tmp_path: Path, audit: Audit
) -> None:
    reference = tmp_path / "census.csv"
    reference.write_text("attribute,label,share\ngender,male,0.49\ngender,female,0.51\n")
    done = audit(table, "--against", reference, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["against_reference"]["gender"]
    assert {row["label"] for row in rows} == {"male", "female"}
    reference.write_text("who,how many\nmen,3\n")
    bad = audit(table, "--against", reference)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    assert "lacks the columns attribute, label, share" in bad.stderr
    assert "its columns are who, how many" in bad.stderr
    assert audit(tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no share"),
        (["gender,male,nan", "gender,female,0.5"], "sum to nan"),
        (
            ["gender,male,0.5", "gender,male,0.5", "gender,female,0.5"],
            "'male' of 'gender' is listed",
        ),
        (["gender,male,1.5", "gender,female,-0.5"], "below 0"),
        (["gender,male,150", "gender,female,-50"], "below 0"),
        (["gender,male,49.2", "gender,female,52"], "sum to 101.200, not 1 or 100 %"),
        (["gender,male,49 %", "gender,female,51"], "sum to 51.490, not 1 or 100 %"),
        (["gender,male,%", "gender,female,1"], "is not a number, but '%'"),
        (["gender,somebody,1"], "no 'somebody' of 'gender'"),
        (["gender,man,0.5", "gender,male,0.5"], "'male' of 'gender' is listed"),
    ],
)
def test_a_reference_that_says_nothing_sound_is_refused(
    rows: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "census.csv"
    path.write_text("\n".join(["attribute,label,share", *rows]) + "\n")
    with pytest.raises(OptionError, match=message):
        read_reference(path)


@pytest.mark.parametrize(("male", "female"), [("49%", "51 %"), ("49", "51.0"), ('"49,0%"', "51%")])
def test_a_reference_may_hold_percentages(male: str, female: str, tmp_path: Path) -> None:
    path = tmp_path / "census.csv"
    path.write_text(f"attribute,label,share\ngender,male,{male}\ngender,female,{female}\n")
    assert read_reference(path)["gender"] == pytest.approx({"male": 0.49, "female": 0.51})


def test_a_reference_goes_by_any_case_and_other_words_for_a_gender(tmp_path: Path) -> None:
    path = tmp_path / "census.csv"
    path.write_text("Attribute, LABEL,Share \nSex,Female,0.5\ngender, male,0.5\nRACE,white,1\n")
    read = read_reference(path)
    assert read["gender"] == {"male": 0.5, "female": 0.5}
    assert (read["ethnicity"]["White"], read["ethnicity"]["Black"]) == (1, 0)
    for words in ("M,F", "man, Woman"):
        man, woman = words.split(",")
        path.write_text(f"attribute,label,share\ngender,{man},0.4\ngender,{woman},0.6\n")
        assert read_reference(path)["gender"] == {"male": 0.4, "female": 0.6}
    path.write_text("attribute,label,share\ngender,male\ngender\n")
    with pytest.raises(OptionError, match="share of 'male' of 'gender' is not a number, but ''"):
        read_reference(path)


@pytest.mark.parametrize(
    ("name", "separator", "comma", "encoding"),
    [
        ("census.tsv", "\t", ".", "utf-8"),
        ("census.TSV", "\t", ",", "utf-16"),
        ("census.csv", ";", ",", "utf-8-sig"),
    ],
)
def test_a_reference_is_read_as_spreadsheets_write_it(
    table: Path,
    tmp_path: Path,
    audit: Audit,
    name: str,
    separator: str,
    comma: str,
    encoding: str,
) -> None:
    cells = ("attribute", "label", "share"), ("gender", "male", ".4"), ("gender", "female", ".6")
    lines = [separator.join(row).replace(".", f"0{comma}") for row in cells]
    (tmp_path / name).write_text("\r\n".join(lines) + "\r\n", encoding=encoding, newline="")
    done = audit(
        table, "--against", tmp_path / name, "--no-crossings", "--out", tmp_path / "report"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["against_reference"]["gender"]
    assert {row["label"]: row["reference"] for row in rows} == {"male": 0.4, "female": 0.6}


def test_a_reference_that_cannot_be_read_is_not_said_to_lack_columns(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.csv cannot be read as CSV: .*No such file"):
        read_reference(tmp_path / "none.csv")


def test_what_cannot_be_compared_is_named(table: Path, tmp_path: Path, audit: Audit) -> None:
    rows = pq.read_table(table)
    kept = [n for n in rows.column_names if n not in (*COLUMNS["ethnicity"], "ethnicity")]
    (tmp_path / "less.table").mkdir()
    pq.write_table(rows.select(kept), tmp_path / "less.table" / "part-00000000.parquet")
    done = audit(table, "--against", tmp_path / "less.table", "--no-crossings")
    assert "no change of ethnicity: one of the two tables has it" in done.stdout
    (tmp_path / "census.csv").write_text("attribute,label,share\nethnicity,White,1\n")
    done = audit(tmp_path / "less.table", "--against", tmp_path / "census.csv", "--no-crossings")
    assert "the reference's ethnicity is compared with nothing" in done.stdout


def test_without_the_extra_it_says_what_to_install(table: Path) -> None:
    script = "import sys; sys.modules['pyarrow'] = None; from facewise.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "audit", str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "facewise[batch]" in done.stderr
    assert "Traceback" not in done.stderr
