"""``facewise evaluate``, from a CSV to its results file."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from facewise.analyzer import Analyzer
from facewise.calibration import Calibration
from facewise.cli import app
from facewise.data.folder import with_splits
from facewise.data.lists import read_lists
from facewise.data.sets import read_csv, read_pictures, samples_hash
from facewise.errors import FacewiseError, OptionError
from facewise.evaluation.card import TEMPLATE, card_paths, is_card
from facewise.evaluation.data import EXCLUSIONS, read_data
from facewise.evaluation.faces import face_rows
from facewise.evaluation.outcomes import OUTCOMES_VERSION, collect
from facewise.evaluation.report import build_report
from facewise.evaluation.report_words import known_of_test
from facewise.evaluation.results import (
    calibrated,
    score_model,
    spec_figures,
    write_results,
)
from facewise.evaluation.run import default_degraded
from facewise.evaluation.scoring import Scored
from facewise.evaluation.summary import summary
from facewise.labels import ETHNICITY_LABELS, GENDER_LABELS, expected_age
from facewise.models import DETECTOR_SPEC, load_spec, read_spec
from facewise.text import by_reason

from .made import GOOD_QUALITY, made, years

LEVELS = ("0.8", "0.9", "0.95")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of committed faces, a picture without a face, and missing or invalid files.

    The labels are made up, because only the path from file to figure is tested.
    """
    folder = tmp_path_factory.mktemp("faces")
    sources = sorted((Path(__file__).parent.parent / "data" / "faces").glob("*.webp"))[:6]
    rows = []
    for index, source in enumerate(sources):
        shutil.copy(source, folder / source.name)
        rows.append([source.name, "20-29" if index else "41", "Female", "white", "pair"])
    (folder / "broken.jpg").write_bytes(b"not a picture")
    Image.new("RGB", (120, 120), "grey").save(folder / "blank.png")
    rows += [["blank.png", "30", "male", "", ""]]
    rows += [["missing.jpg", "30", "male", "", ""], ["broken.jpg", "30", "male", "", ""]]
    rows += [["odd.jpg", "130", "", "", ""]]
    with (folder / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "age", "gender", "ethnicity", "group"])
        writer.writerows(rows)
    return folder / "faces.csv"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_csv_to_results(faces: Path, tmp_path: Path) -> None:
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path, "--workers", 1)
    text = run(*options, "--degraded", 0)
    path = tmp_path / f"{load_spec().name}.json"
    results: dict[str, Any] = json.loads(path.read_text())
    assert results["data"]["faces"] == {"csv": 7}
    assert results["data"]["not_found"] == {"csv": ["blank.png"]}
    odd, missing, broken = results["data"]["skipped"]
    assert odd == ["odd.jpg", "age '130' is not within 0 to 120"]
    assert missing == ["missing.jpg", "No such file or directory"]
    assert broken[0] == "broken.jpg"
    assert broken[1].startswith("not a picture")
    row = results["overall"]["csv"]
    assert row["gender_accuracy"]["n"] == 7
    assert row["gender_accuracy"]["value"] <= 6 / 7
    assert row["age_mae_years"]["n"] == 2
    assert results["confusions"]["csv"]["gender"]["n"][0] == [0, 0, 1]
    assert results["model"]["sha256"] == load_spec().sha256
    assert "faces not found: 1" in text
    assert "worst groups:" not in text, "of seven faces none is large enough"
    assert "skipped: 3\n  1, the first odd.jpg: age '130'" in text
    assert "\n  1, the first missing.jpg: No such file" in text
    # The scored answers are facewise's for the same pictures.
    outcomes = collect("default", [read_csv(faces)], "", store=tmp_path / "store", workers=1)
    assert outcomes.found.tolist() == [True] * 6 + [False]
    np.testing.assert_allclose(outcomes.ages[:6].sum(1), 1, atol=1e-3)
    # A second run reads the first one's stored outcomes, with the same results.
    stored = list((tmp_path / "store").glob("*.npz"))
    assert len(stored) == 1
    before = stored[0].stat().st_mtime_ns
    path.unlink()
    run(*options, "--degraded", 0)
    assert json.loads(path.read_text()) == results
    assert stored[0].stat().st_mtime_ns == before


def test_standard_output_has_the_figures_alone(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bar for each run of the network, on a terminal; a pipe has no bar at all."""
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path, "--workers", 1)
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = CliRunner().invoke(app, ["evaluate", *map(str, options), "--degraded", "0"])
    assert result.stdout.startswith(f"{load_spec().name}@")
    assert "100%" in result.stderr


def test_each_faces_answer_is_written_where_asked(faces: Path, tmp_path: Path) -> None:
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    listing = tmp_path / "sub" / "answers.csv"
    for _ in range(2):  # its own file may be replaced
        text = run(*options, "--workers", 1, "--degraded", 0, "--faces", listing)
    assert str(listing) in text
    with listing.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    first, blank = rows[0], rows[-1]
    assert [first[name] for name in ("dataset", "found", "age", "gender", "ethnicity")] == [
        "csv", "true", "41", "female", "White",
    ]  # fmt: skip
    assert (rows[1]["age"], first["split"]) == ("20-29", "")
    assert {name: cell for name, cell in blank.items() if cell} == {
        "file": "blank.png",
        "dataset": "csv",
        "found": "false",
        "age": "30",
        "gender": "male",
    }
    # The same answers as the library's for these outcomes.
    outcomes = collect("default", [read_csv(faces)], "", store=tmp_path / "store", workers=1)
    scored = Scored(outcomes, Calibration.from_dict(load_spec().calibration))
    columns = [f"p_{label.lower()}" for label in ETHNICITY_LABELS]
    for index, row in enumerate(rows[:-1]):
        assert row["file"] == outcomes.keys[index]
        assert float(row["age_years"]) == pytest.approx(scored.age[index], abs=0.01)
        interval = [int(row["age_low_years"]), int(row["age_high_years"])]
        assert interval == scored.intervals(0.9)[index].tolist()
        assert float(row["p_female"]) == pytest.approx(
            scored.probabilities["gender"][index, 1], abs=1e-5
        )
        np.testing.assert_allclose(
            [float(row[name]) for name in columns],
            scored.probabilities["ethnicity"][index],
            atol=1e-5,
        )


def test_faces_that_are_abstained_from_say_of_what() -> None:
    poor = (5.0, 0.0, 80.0, 0.02, 0.0, 0.5)
    calibration = Calibration.from_dict(load_spec().calibration)
    outcomes = made(2, age=[(20, 29), 0], quality=np.array([poor, GOOD_QUALITY]))
    first, _ = face_rows(
        Scored(outcomes, calibration), {("utkface", f"{i}.jpg"): "val" for i in (0, 1)}
    )
    assert (first["abstained"], first["split"]) == ("age;gender;ethnicity", "val")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{faces}", "is an input, and would be overwritten"),
        ("mine.csv", "already exists"),
        ("out/facewise-default.json", "would be written twice"),
    ],
)
def test_faces_are_written_over_nothing_else(
    name: str, message: str, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("file,age\n")
    before = faces.read_bytes()
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    with pytest.raises(OptionError, match=message):
        run(*options, "--workers", 1, "--degraded", 0, "--faces", name.format(faces=faces))
    assert (faces.read_bytes(), Path("mine.csv").read_text()) == (before, "file,age\n")
    assert not (tmp_path / "store").exists(), "nothing was scored"


def test_a_list_of_suspects_that_was_checked_is_not_written_over(
    faces: Path, tmp_path: Path
) -> None:
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    checked = tmp_path / "out" / f"{load_spec().name}-suspects.csv"
    checked.parent.mkdir()
    checked.write_text("file,attribute,label,note\nblank.png,age,30,wrong\n")
    with pytest.raises(OptionError, match=r"suspects.csv already exists, and this command did not"):
        run(*options)
    with pytest.raises(OptionError, match=r"suspects.csv is an input, and would be overwritten"):
        run(*options, "--exclude", checked)
    assert checked.read_text().endswith("blank.png,age,30,wrong\n")
    assert not (tmp_path / "store").exists(), "nothing was scored"


@pytest.mark.parametrize("end", [".json", ".md", ".html"])
def test_reports_are_written_over_nothing_else(end: str, faces: Path, tmp_path: Path) -> None:
    """Such as another model's spec, whose file may have this model's name."""
    other = tmp_path / f"{load_spec().name}{end}"
    other.write_bytes(load_spec().path.with_suffix(end).read_bytes())  # a spec, or its card
    with pytest.raises(OptionError, match=f"{end} already exists"):
        run("--data", faces, "--out", tmp_path, "--store", tmp_path / "store")
    assert other.read_bytes() == load_spec().path.with_suffix(end).read_bytes()


@pytest.mark.parametrize("end", [".md", ".html"])
def test_a_card_is_written_over_nothing_else(end: str, faces: Path, tmp_path: Path) -> None:
    spec = load_spec()
    (tmp_path / "cards").mkdir()
    for path in (spec.path, spec.weights_path, spec.path.parent / "cards" / f"{spec.name}.md"):
        shutil.copy(path, tmp_path / path.relative_to(spec.path.parent))
    notes = tmp_path / f"{spec.name}{end}"
    notes.write_text("mine")
    options = ("--data", faces, "--out", tmp_path / "out", "--store", tmp_path / "store", "--card")
    with pytest.raises(OptionError, match=f"{end} already exists"):
        run("--model", tmp_path / spec.path.name, *options)
    assert notes.read_text() == "mine"
    assert all(map(is_card, card_paths(spec)))


def test_reasons_are_counted_the_commonest_first() -> None:
    skipped = [("a", "odd"), *((name, "no path") for name in "bc")]
    assert by_reason(skipped) == ["2, the first b: no path", "1, the first a: odd"]
    assert by_reason([*skipped, ("d", "worse")], 1)[1:] == ["2 for 2 other reasons"]


def test_results_do_not_replace_the_spec_they_are_of(faces: Path, tmp_path: Path) -> None:
    spec = load_spec()
    for path in (spec.path, spec.weights_path):
        shutil.copy(path, tmp_path)
    mine = tmp_path / spec.path.name
    result = CliRunner().invoke(
        app, ["evaluate", "--model", str(mine), "--data", str(faces), "--out", str(tmp_path)]
    )
    assert isinstance(result.exception, OptionError)
    assert "is an input, and would be overwritten" in str(result.exception)
    assert mine.read_bytes() == spec.path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out mine.csv/x", r"--out: nothing can be written to the folder mine.csv/x \(Not a dir"),
        ("--store mine.csv", "--store: nothing can be written to the folder mine.csv"),
        (f"--out new/er/{'x' * 300}", r"--out: nothing can be .* \(File name too long\): choose"),
        ("--faces mine.csv/x.csv", "--faces: nothing can be written to the folder mine.csv"),
        ("--model own/facewise-default.json --card", "has no hand-written part of its card"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_scored(
    options: str, message: str, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*_: object, **__: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr("facewise.evaluation.run.collect", scored)
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("mine")
    Path("own").mkdir()
    for path in (load_spec().path, load_spec().weights_path):
        shutil.copy(path, "own")
    with pytest.raises(OptionError, match=message):
        run("--data", faces, "--degraded", 0, *options.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "own"]


def test_a_version_that_none_follows_is_said_before_anything_is_scored(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*_: object, **__: object) -> None:
        raise AssertionError("scored")

    monkeypatch.setattr("facewise.evaluation.run.collect", scored)
    names = sorted(str(path) for path in faces.parent.glob("*.webp"))
    splits = ("calibration", "val", "test")
    rows = "".join(f"{name},30,{split}\n" for name, split in zip(names, splits, strict=False))
    (tmp_path / "faces.csv").write_text(f"path,age,split\n{rows}")
    shutil.copy(load_spec().weights_path, tmp_path)
    spec = json.loads(load_spec().path.read_text()) | {"version": "1.2.3"}
    options = (
        *("--model", tmp_path / "own.json", "--data", tmp_path / "faces.csv", "--fit"),
        *("--store", tmp_path / "store", "--out", tmp_path / "out"),
    )
    calibrations: list[dict[str, Any]] = [spec["calibration"], {}]
    for calibration in calibrations:  # the first one needs a version, too
        (tmp_path / "own.json").write_text(json.dumps(spec | {"calibration": calibration}))
        with pytest.raises(OptionError, match=r"own.json: no version follows '1.2.3'"):
            run(*options)


@pytest.mark.parametrize("split", ["test", "tests"])
def test_a_split_to_score_that_is_not_there_is_said_before_anything_is_fitted(
    split: str, faces: Path, tmp_path: Path
) -> None:
    names = sorted(str(path) for path in faces.parent.glob("*.webp"))
    (tmp_path / "faces.csv").write_text(
        f"path,age,split\n{names[0]},30,calibration\n{names[1]},30,val\n"
    )
    with pytest.raises(OptionError, match=f"--fit scores the split {split} at the end, and .*csv"):
        run(
            *("--data", tmp_path / "faces.csv", "--fit", "--split", split, "--workers", 1),
            *("--store", tmp_path / "store", "--out", tmp_path / "out"),
        )
    assert not (tmp_path / "store").exists()


def test_a_splits_name_need_be_no_files_name(faces: Path, tmp_path: Path) -> None:
    name = min(faces.parent.glob("*.webp"))
    (tmp_path / "faces.csv").write_text(f"path,gender,split\n{name},male,2024/a\n")
    options = ("--data", tmp_path / "faces.csv", "--split", "2024/a", "--workers", 1)
    for _ in range(2):  # the second one reads what the first one stored
        run(*options, "--store", tmp_path / "store", "--out", tmp_path, "--degraded", 0)
    stored = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert [path.rpartition("-")[0] for path in stored] == [
        "detections-2024-a", f"{load_spec().name}-2024-a",
    ]  # fmt: skip


def test_stored_detections_give_what_the_detector_gave(faces: Path, tmp_path: Path) -> None:
    sets = [read_csv(faces)]
    first = collect(
        "default", sets, "", store=tmp_path, workers=1, sample=3, degradation="noise-40"
    )
    (outcomes,) = tmp_path.glob("*.npz")
    outcomes.unlink()
    again = collect(
        "default", sets, "", store=tmp_path, workers=1, sample=3, degradation="noise-40"
    )
    np.testing.assert_array_equal(again.ages, first.ages)
    np.testing.assert_array_equal(again.quality, first.quality)
    assert len(first) == 2, "the third is missing"


def test_what_was_stored_half_is_made_anew(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def again() -> np.ndarray[Any, Any]:
        return collect("default", [read_csv(faces)], "", store=tmp_path, workers=1, sample=2).ages

    first = again()
    (outcomes,), (detections,) = tmp_path.glob("*.npz"), tmp_path.glob("*.npy")
    whole = outcomes.read_bytes(), detections.read_bytes()
    for part in (0, 60, len(whole[1]) - 9):
        outcomes.write_bytes(whole[0][:part])
        detections.write_bytes(whole[1][:part])
        np.testing.assert_array_equal(again(), first)
        assert f"{outcomes} cannot be read" in caplog.text
        assert f"{detections} cannot be read" in caplog.text
        assert detections.read_bytes() == whole[1]
        caplog.clear()
    assert sorted(tmp_path.iterdir()) == sorted([outcomes, detections])


def test_a_run_that_ends_while_it_stores_leaves_nothing_half(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    savez = np.savez

    def full(file: Any, **columns: Any) -> None:
        savez(file, keys=columns["keys"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        collect("default", [read_csv(faces)], "", store=tmp_path, workers=1, sample=2)
    assert list(tmp_path.iterdir()) == []


def test_outcomes_are_of_these_files_and_no_others_of_their_names(
    faces: Path, tmp_path: Path
) -> None:
    def key(listing: Path) -> str:
        data_set = read_csv(listing)
        return samples_hash((data_set, sample) for sample in data_set.samples)

    shutil.copytree(faces.parent, tmp_path / "again")
    copy = tmp_path / "again" / faces.name
    assert key(faces) == key(faces.parent / "." / faces.name)
    assert key(copy) != key(faces)
    before = key(copy)
    os.utime(tmp_path / "again" / "broken.jpg", ns=(1, 1))
    assert key(copy) != before


def test_a_border_of_0_scores_pictures_as_predict_does(tmp_path: Path) -> None:
    photo = Path(__file__).parent.parent / "data" / "astronaut.jpg"
    listing = tmp_path / "faces.csv"
    listing.write_text(f"path,age\n{photo},30\n")
    (person,) = Analyzer().analyze(photo)
    answers = []
    for border in (0, 0.35):
        o = collect("default", [read_csv(listing)], "", workers=1, border=border)
        answers.append(Scored(o, Calibration.from_dict(load_spec().calibration)).age[0])
    assert answers[0] == pytest.approx(person.age_years, abs=1e-3)
    assert answers[1] != pytest.approx(person.age_years, abs=1e-3)


def test_each_border_has_stored_outcomes_of_its_own(faces: Path, tmp_path: Path) -> None:
    data_set = read_csv(faces)

    def stored(border: float) -> set[str]:
        collect("default", [data_set], "", store=tmp_path, workers=1, sample=2, border=border)
        return {path.name for path in tmp_path.iterdir()}

    usual = stored(0.35)
    # The name as it was before there were borders: what was stored then is still read.
    drawn = np.random.default_rng(0).choice(len(data_set.samples), 2, replace=False)
    samples = [data_set.samples[index] for index in sorted(drawn)]
    what = f"all-2-None-{OUTCOMES_VERSION}-{samples_hash((data_set, s) for s in samples)[:12]}"
    detector = DETECTOR_SPEC.read_bytes()
    key = hashlib.sha256(detector + what.encode()).hexdigest()[:12]
    assert f"detections-all-{key}.npy" in usual
    assert len(stored(0)) == len(stored(0.0)) == 4
    assert len(stored(0.1)) == 6


def test_a_border_is_recorded_and_changes_no_spec_or_card(faces: Path, tmp_path: Path) -> None:
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    for option in ("--fit", "--card"):
        with pytest.raises(OptionError, match="--border with --fit or --card"):
            run(*options, "--border", 0, option)
    assert not (tmp_path / "out").exists()
    text = run(*options, "--workers", 1, "--border", 0, "--degraded", 3)
    results = json.loads((tmp_path / "out" / f"{load_spec().name}.json").read_text())
    assert results["border"] == 0
    assert len(results["abstention"]) == 1 + 17
    assert "tight" not in results["abstention"]
    assert "in a border of 0 %" in text


def test_pictures_of_ones_own_are_degraded_where_asked(
    faces: Path, shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    text = run(*options, "--workers", 1)
    results = json.loads((tmp_path / "out" / f"{load_spec().name}.json").read_text())
    assert list(results["abstention"]) == ["clean"]
    assert "--degraded N scores N of them" in caplog.text
    assert f"kept in {tmp_path / 'store'} for the next run" in text.splitlines()[-1]
    assert default_degraded(read_data(faces), calibrate=True) == 450
    for data, labels in (
        (shared, None),
        (shared / "utkface.tar", None),
        (shared / "FairFace", shared / "fairface_labels.csv"),
    ):
        assert default_degraded(read_data(data, labels=labels), calibrate=False) == 450
    (shared / "utkface_splits.csv").unlink()
    assert default_degraded(read_data(shared), calibrate=False) == 0


def test_other_splits_are_counted_and_may_be_scored(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(path.name for path in faces.parent.glob("*.webp"))
    splits = ("test", "train", "train", "val", "", "test")
    listing = faces.parent / "several.csv"
    rows = "".join(f"{name},30,{split}\n" for name, split in zip(names, splits, strict=True))
    listing.write_text(f"path,age,split\n{rows}")
    leave = tmp_path / "leave.csv"
    leave.write_text(f"file\n{names[1]}\n{names[5]}\n")
    options = ("--store", tmp_path, "--out", tmp_path, "--workers", 1, "--exclude", leave)
    path = tmp_path / f"{load_spec().name}.json"
    run("--data", listing, *options)
    assert "3 of 6 pictures are in other splits (train 2, val 1) and are not scored" in caplog.text
    data = json.loads(path.read_text())["data"]
    assert (data["faces"], data["excluded"]) == ({"csv": 1}, [names[5]])
    caplog.clear()
    run("--data", listing, *options, "--split", "All")
    results = json.loads(path.read_text())
    assert "other splits" not in caplog.text
    assert (results["split"], results["data"]["faces"]) == ("all", {"csv": 4})
    assert results["data"]["excluded"] == [names[1], names[5]]
    assert results["data"]["skipped"] == []
    # A split of that name is a split like any other.
    listing.write_text(listing.read_text().replace("train", "all"))
    run("--data", listing, *options, "--split", "all")
    assert json.loads(path.read_text())["data"]["faces"] == {"csv": 1}
    listing.write_text(listing.read_text().replace("all", "calibration"))
    for split in ("all", "calibration", "val"):
        with pytest.raises(OptionError, match=f"--split {split} would score the faces that it fit"):
            run("--data", listing, *options, "--split", split, "--fit")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder laid out like the shared data sets: UTKFace with splits, FairFace without."""
    folder = tmp_path / "shared"
    listed = csv.DictReader(EXCLUSIONS.read_text().splitlines())
    left_out = next(row["file"] for row in listed if "chip" in row["file"])
    names = [left_out, "25_1_3_20200101000000000.jpg", "26_1_3_20200101000000000.jpg"]
    source = sorted((Path(__file__).parent.parent / "data" / "faces").glob("*.webp"))[0]
    for path in [*(f"UTKFace/{name}" for name in names), "FairFace/a.webp", "FairFace/b.webp"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / path)
    with tarfile.open(folder / "utkface.tar", "w") as archive:
        archive.add(folder / "UTKFace", arcname="UTKFace")
    splits = "".join(f"{n},{s},\n" for n, s in zip(names, ("test", "test", "val"), strict=True))
    (folder / "utkface_splits.csv").write_text(f"file,split,duplicate_group\n{splits}")
    (folder / "fairface_labels.csv").write_text(
        "file,age,gender,race\na.webp,20-29,Male,White\nb.webp,30-39,Female,Black\n"
    )
    return folder


@pytest.mark.parametrize(
    ("data", "counts"), [(".", {"utkface": 1, "fairface": 2}), ("utkface.tar", {"utkface": 1})]
)
def test_shared_splits_bring_their_exclusions_and_data_without_splits_count_whole(
    shared: Path, tmp_path: Path, data: str, counts: dict[str, int]
) -> None:
    options = ("--store", tmp_path, "--out", tmp_path, "--workers", 1, "--degraded", 0)
    run("--data", shared / data, *options)
    results = json.loads((tmp_path / f"{load_spec().name}.json").read_text())
    assert results["data"]["faces"] == counts
    assert len(results["data"]["excluded"]) == 1
    assert results["split"] == "test"


@pytest.mark.parametrize("option", ["none", "--splits", "--exclude", "no splits"])
def test_what_is_known_of_test_is_said_of_facewises_own_lists_alone(
    option: str, shared: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("file,split\n25_1_3_20200101000000000.jpg,test\n")
    options = [*("--store", tmp_path, "--out", tmp_path), *("--workers", 1, "--degraded", 0)]
    if option.startswith("--"):
        options += [option, mine]
    elif option == "no splits":
        (
            shared / "utkface_splits.csv"
        ).unlink()  # so UTKFace is scored whole, beside FairFace's test
        labels = shared / "fairface_labels.csv"
        labels.write_text("file,age,gender,race,split\na.webp,20-29,Male,White,test\n")
    run("--data", shared, *options)
    results = json.loads((tmp_path / f"{load_spec().name}.json").read_text())
    assert (results["split"], set(results["overall"])) == ("test", {"utkface", "fairface"})
    lists = {"--splits": {"splits": "mine.csv"}, "--exclude": {"exclude": "mine.csv"}}
    assert results["data"].get("lists") == {"no splits": {}, **lists}.get(option)
    assert bool(known_of_test(results)) == (option == "none")


def test_left_out_pictures_are_named(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "leave.csv").write_text("file\nmissing.jpg\nelsewhere.jpg\n")
    run(
        *("--data", faces, "--store", tmp_path, "--out", tmp_path, "--workers", 1),
        *("--degraded", 0, "--exclude", tmp_path / "leave.csv"),
    )
    results = json.loads((tmp_path / f"{load_spec().name}.json").read_text())
    assert results["data"]["excluded"] == ["missing.jpg"]
    assert [name for name, _ in results["data"]["skipped"]] == ["odd.jpg", "broken.jpg"]
    assert results["data"]["faces"] == {"csv": 7}


def test_one_list_fits_every_option(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.parent.glob("*.webp"))[:3]
    for column in ("path", "file"):
        listing = faces.parent / f"{column}.csv"
        listing.write_text(f"{column},age,split\n{names[0]},30,test\n{names[1]},30,train\n")
        options = ("--data", listing, "--splits", listing, "--store", tmp_path, "--workers", 1)
        run(*options, "--out", tmp_path, "--degraded", 0)
        data = json.loads((tmp_path / f"{load_spec().name}.json").read_text())["data"]
        assert data["faces"] == {"csv": 1}
        with pytest.raises(OptionError, match="nothing is left of split test"):
            run(*options, "--out", tmp_path, "--degraded", 0, "--exclude", listing)
        assert read_lists([listing]).keys() == set(names[:2])


def test_left_out_pictures_go_by_the_ends_of_their_paths(
    faces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in lists by ``facewise dedupe``, which removes folders if it can, or in a folder above."""
    names = sorted(path.name for path in faces.parent.glob("*.webp"))[:4]
    for name in names:
        (tmp_path / "imgs").mkdir(exist_ok=True)
        shutil.copy(faces.parent / name, tmp_path / "imgs")
    rows = "".join(f"imgs/{name},30\n" for name in names)
    (tmp_path / "faces.csv").write_text(f"path,age\n{rows}")
    leave = tmp_path / "leave.csv"
    leave.write_text(f"File\n{names[0]}\nimgs/{names[1]}\nall/imgs/{names[2]}\nelsewhere.jpg\n")
    options = ("--data", tmp_path / "faces.csv", "--store", tmp_path, "--workers", 1)
    run(*options, "--out", tmp_path, "--degraded", 0, "--exclude", leave)
    data = json.loads((tmp_path / f"{load_spec().name}.json").read_text())["data"]
    assert data["excluded"] == [f"imgs/{name}" for name in names[:3]]
    assert data["faces"] == {"csv": 1}
    assert "1 of 4 excluded names match no picture" in caplog.text
    leave.write_text("file\nelsewhere.jpg\n")
    with pytest.raises(OptionError, match="1 of 1 excluded names match no picture"):
        run(*options, "--out", tmp_path, "--degraded", 0, "--exclude", leave)


def test_splits_that_dedupe_wrote_take_the_place_of_a_csvs_own(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.parent.glob("*.webp"))[:4]
    (tmp_path / "imgs").mkdir()
    for name in names:
        shutil.copy(faces.parent / name, tmp_path / "imgs")
    rows = "".join(f"imgs/{name},30,train\n" for name in names)
    (tmp_path / "faces.csv").write_text(f"path,age,split\n{rows}")
    dealt = tmp_path / "splits.csv"
    dealt.write_text(
        f"file,split,duplicate_group\n{names[0]},test,{names[0]}\n{names[1]},test,{names[0]}\n"
        f"{names[2]},train,\n"
    )
    data_set = read_csv(tmp_path / "faces.csv")
    (given,) = with_splits([data_set], dealt)
    assert [(sample.split, sample.group) for sample in given.samples] == [
        ("test", names[0]),
        ("test", names[0]),
        ("train", f"imgs/{names[2]}"),
        ("", f"imgs/{names[3]}"),
    ]
    options = ("--data", tmp_path / "faces.csv", "--store", tmp_path, "--workers", 1)
    run(*options, "--out", tmp_path, "--degraded", 0, "--splits", dealt)
    data = json.loads((tmp_path / f"{load_spec().name}.json").read_text())["data"]
    assert data["faces"] == {"csv": 2}
    assert data["skipped"] == [[f"imgs/{names[3]}", "no split"]]
    dealt.write_text("file,split\nelsewhere.jpg,test\n")
    with pytest.raises(OptionError, match="has no split for any picture"):
        run(*options, "--out", tmp_path, "--degraded", 0, "--splits", dealt)


@pytest.mark.parametrize(
    ("left_out", "arguments", "message"),
    [
        ([1, 2, 3], [], "nothing is left of split test"),
        ([2, 3], [], "nothing is left of split test"),  # the first is missing
        ([4], ["--fit"], "nothing is left of split calibration"),
        ([0], ["--fit"], "nothing is left of split val"),
        ([3], ["--degraded", "1"], "nothing is left to worsen of split test .* or raise --deg"),
    ],
)
def test_exclusions_that_leave_nothing_write_nothing(
    left_out: list[int], arguments: list[str], message: str, faces: Path, tmp_path: Path
) -> None:
    names = [str(path) for path in sorted(faces.parent.glob("*.webp"))]
    names[1] = "missing.jpg"
    splits = ("val", "test", "test", "test", "calibration")
    rows = "".join(f"{name},30,{split}\n" for name, split in zip(names, splits, strict=False))
    (tmp_path / "faces.csv").write_text(f"path,age,split\n{rows}")
    leave = tmp_path / "leave.csv"
    leave.write_text("".join(["file\n", *(f"{names[number]}\n" for number in left_out)]))
    options = ("--data", tmp_path / "faces.csv", "--store", tmp_path / "store", "--workers", 1)
    with pytest.raises(OptionError, match=message):
        run(
            *(*options, "--out", tmp_path / "out", "--exclude", leave),
            *(arguments if "--degraded" in arguments else [*arguments, "--degraded", 0]),
        )
    assert not (tmp_path / "out").exists()


def test_exclusions_of_nothing_else_are_refused_for_all_of_the_data(
    faces: Path, tmp_path: Path
) -> None:
    name = min(faces.parent.glob("*.webp")).name
    (tmp_path / "faces.csv").write_text(f"path,age\n{faces.parent / name},30\n")
    (tmp_path / "leave.csv").write_text(f"file\n{name}\n")
    with pytest.raises(OptionError, match="nothing is left of the data after --exclude"):
        run("--data", tmp_path / "faces.csv", "--exclude", tmp_path / "leave.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fit"], "--fit needs the splits calibration and val"),
        (["--exclude", "{names}"], "lacks the columns file: its columns are name"),
        (["--model", "none-such"], "no model 'none-such'"),
    ],
)
def test_errors_say_what_to_do(
    arguments: list[str], message: str, faces: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("name\na.jpg\n")
    with pytest.raises(FacewiseError, match=message):
        run(
            *("--data", faces, "--store", tmp_path, "--out", tmp_path, "--degraded", 0),
            *(a.format(names=names) for a in arguments),
        )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("missing.jpg,30,\ngone.jpg,25,\n", "none of 2 pictures can be read, the first, missing"),
        (
            "a.jpg,130,\nb.jpg,young,\nc.jpg,young,\n",
            "no face that can be used; skipped: 2, the first b.jpg: age 'young' is not a year, nor "
            "a range such as 20-29; 1, the first a.jpg: age '130' is not within 0 to 120",
        ),
        ("", "no face that can be used"),
        ("a.jpg,30,tets\nb.jpg,30,\n", "no face is in the split 'test'; splits with faces: tets"),
    ],
)
def test_a_list_of_nothing_gives_no_figures(rows: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text(f"path,age,split\n{rows}")
    options = ("--data", tmp_path / "faces.csv", "--store", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(OptionError, match=message):
        run(*options, "--degraded", 0, "--workers", 1)
    assert not (tmp_path / "out").exists()


def test_rows_of_no_split_are_named(faces: Path, tmp_path: Path) -> None:
    splits = ["Test", "", "tets", "train", "mine", "TEST"]
    names = sorted(path.name for path in faces.parent.glob("*.webp"))
    listing = faces.parent / "splits.csv"
    rows = "".join(f"{name},30,{split}\n" for name, split in zip(names, splits, strict=True))
    listing.write_text(f"path,Age,Split\n{rows}")
    options = ("--store", tmp_path, "--out", tmp_path, "--workers", 1, "--degraded", 0)
    run("--data", listing, *options)
    data = json.loads((tmp_path / f"{load_spec().name}.json").read_text())["data"]
    assert data["faces"] == {"csv": 2}
    known = "train, val, calibration, test"
    assert data["skipped"] == [
        [names[1], "no split"],
        [names[2], f"split 'tets' is none of {known}"],
        [names[4], f"split 'mine' is none of {known}"],
    ]
    run("--data", listing, *options, "--split", "Mine")
    data = json.loads((tmp_path / f"{load_spec().name}.json").read_text())["data"]
    assert data["faces"] == {"csv": 1}
    assert [name for name, _ in data["skipped"]] == names[1:3]


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--degraded", "-1"), ("evaluate", "--workers", "0")]
)
def test_numbers_have_a_least(arguments: tuple[str, ...], faces: Path, tmp_path: Path) -> None:
    options = ("--data", str(faces), "--store", str(tmp_path), "--out", str(tmp_path))
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 2
    assert arguments[1] in result.output


@pytest.mark.parametrize("name", ["faces.txt", "faces.parquet"])
def test_other_lists_are_refused_with_the_form_that_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a.jpg\n")
    with pytest.raises(OptionError, match=f"{name}: a list of labelled pictures is a CSV or TSV"):
        run("--data", tmp_path / name)


def test_without_data_the_user_is_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FACEWISE_DATA", raising=False)
    with pytest.raises(OptionError, match="data does not exist: name your data with --data, such"):
        run()


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacewiseError, match="pass --labels for FairFace"):
        run("--data", tmp_path, "--store", tmp_path, "--out", tmp_path)


def test_figures_for_the_spec(tmp_path: Path) -> None:
    n = 200
    said = [years(20 + i % 5) for i in range(n)]
    outcomes = made(n, age=[22] * n, said_ages=said, gender=[0] * n, said_genders=[[0.9, 0.1]] * n)
    spec = load_spec()
    results = score_model(spec, outcomes, "test")
    figures = spec_figures(results)
    assert figures["utkface_age_mae_years"] == pytest.approx((2 + 1 + 0 + 1 + 2) / 5)
    assert figures["utkface_gender_accuracy"] == 1
    assert set(figures["coverage"]) == set(LEVELS)
    row = figures["coverage"]["0.9"]["intervals"]  # in the form that the web page reads
    assert row["n"] == n
    assert 0 <= row["low"] <= row["coverage"] <= row["high"] <= 1
    shutil.copy(spec.path, tmp_path / "copy.json")
    mine = read_spec(tmp_path / "copy.json")
    write_results(results, tmp_path / "results.json", stated=mine)
    copy = read_spec(tmp_path / "copy.json")
    assert copy.figures == figures
    assert copy.calibration == spec.calibration
    assert Calibration.from_dict(copy.calibration).coverages == (0.8, 0.9, 0.95)
    assert "NaN" not in (tmp_path / "results.json").read_text()


def test_another_calibration_is_another_version() -> None:
    spec = load_spec()
    assert calibrated(spec, spec.calibration).version == spec.version, "it is the same one"
    major, _, first = spec.version.partition(".")
    other = spec
    for minor in (1, 2):
        temperatures = {**spec.calibration["temperatures"], "age": 1 + minor / 10}
        other = calibrated(other, {**spec.calibration, "temperatures": temperatures})
        assert other.version == f"{major}.{int(first or 0) + minor}"
        assert other.calibration["temperatures"] == temperatures
    # Without a calibration, the same name and version gave other answers.
    bare = dataclasses.replace(spec, version="7", calibration={})
    assert calibrated(bare, spec.calibration).version == "7.1"


def test_results_and_spec_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    shutil.copy(load_spec().path, tmp_path / "copy.json")
    spec, path = read_spec(tmp_path / "copy.json"), tmp_path / "results.json"
    results = score_model(spec, made(2, age=[30, 40]), "test")
    path.write_text("older")
    results["model"]["name"] = "\udce9"  # cannot be encoded in UTF-8
    before = spec.path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_results(results, path, stated=spec)
    assert (path.read_text(), spec.path.read_bytes()) == ("older", before)
    results["model"]["name"] = "m"
    write_results(results, path, stated=calibrated(spec, {"temperatures": {"age": 2.0}}))
    assert json.loads(path.read_text())["model"]["name"] == "m"
    assert read_spec(spec.path).calibration == {"temperatures": {"age": 2.0}}
    assert read_spec(spec.path).version != spec.version
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.json", "results.json"]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A CSV of the committed faces, all in each of three splits; the files of test are missing.

    The labels are the model's own answers, except for the three it is least certain of.
    """
    folder = tmp_path / "labelled"
    shutil.copytree(Path(__file__).parent.parent / "data" / "faces", folder / "a")
    o = collect("default", [read_pictures(folder)], "", workers=1)
    genders, ages = o.genders.argmax(1), expected_age(o.ages).round().astype(int)
    ethnicities = o.ethnicities.argmax(1)
    genders[np.argsort(o.genders.max(1))[:3]] ^= 1
    unsure = np.argsort(o.ethnicities.max(1))[:3]
    ethnicities[unsure] = o.ethnicities[unsure].argsort(1)[:, -2]
    ages[::2] += 6
    lines = ["path,age,gender,ethnicity,split"]
    for letter, split in zip("abc", ("calibration", "val", "test"), strict=True):
        if letter == "b":
            shutil.copytree(folder / "a", folder / "b")
        lines += [
            f"{letter}{key[1:]},{age},{GENDER_LABELS[g]},{ETHNICITY_LABELS[e]},{split}"
            for key, age, g, e in zip(o.keys, ages, genders, ethnicities, strict=True)
        ]
    (folder / "faces.csv").write_text("\n".join(lines) + "\n")
    return folder / "faces.csv"


@pytest.mark.filterwarnings("ignore:the no. of calibration examples")
def test_a_fit_is_refused_or_scored_before_the_spec_is_written(
    labelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = load_spec()
    for path in (spec.path, spec.weights_path):
        (tmp_path / "own").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "own")
    mine, out = tmp_path / "own" / spec.path.name, tmp_path / "out"
    options = (
        *("--model", mine, "--data", labelled, "--store", tmp_path / "store", "--out", out),
        *("--workers", 1, "--degraded", 0, "--fit"),
    )
    with pytest.raises(OptionError, match="too few faces to fit a calibration"):
        run(*options)
    assert "--degraded 0: the gates on size, sharpness, light and so on are chosen" in caplog.text
    monkeypatch.setattr("facewise.evaluation.fit.MIN_FACES", 20)
    monkeypatch.setattr("facewise.evaluation.fit.MIN_OF_CLASS", 1)
    whole = labelled.read_text()
    lines = whole.splitlines()
    labelled.write_text("\n".join([*lines[:40], *lines[47:]]) + "\n")
    with pytest.raises(OptionError, match="the split val has 16 with an age"):
        run(*options)
    labelled.write_text(whole)
    with pytest.raises(OptionError, match="none of 23 pictures can be read"):
        run(*options)
    assert mine.read_bytes() == spec.path.read_bytes(), "test was not scored"
    assert "calibration of the installed" not in caplog.text
    shutil.copytree(labelled.parent / "a", labelled.parent / "c")
    monkeypatch.setattr("facewise.models.WEIGHTS_FOLDER", mine.parent)
    run(*options)
    assert f"replaces the calibration of the installed {spec.name}" in caplog.text
    results, fitted = json.loads((out / mine.name).read_text()), read_spec(mine)
    major, _, minor = spec.version.partition(".")
    assert fitted.version == results["model"]["version"] == f"{major}.{int(minor or 0) + 1}"
    assert fitted.calibration["temperatures"] == results["calibration"]["temperatures"]
    assert fitted.calibration["temperatures"] != spec.calibration["temperatures"]
    assert fitted.figures["csv_faces"] == 23


def test_a_card_alone_says_that_the_spec_gets_new_figures(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec()
    own = tmp_path / "own"
    (own / "cards").mkdir(parents=True)
    for path in (spec.path, spec.weights_path):
        shutil.copy(path, own)
    shutil.copy(TEMPLATE.parent / f"{spec.name}.md", own / "cards")
    mine = own / spec.path.name
    monkeypatch.setattr("facewise.models.WEIGHTS_FOLDER", own)
    options = ("--data", faces, "--store", tmp_path / "store", "--out", tmp_path / "out")
    text = run("--model", mine, *options, "--workers", 1, "--degraded", 0, "--card")
    assert f"replaces the figures of the installed {spec.name}" in caplog.text
    assert read_spec(mine).figures["csv_faces"] == 7
    assert read_spec(mine).calibration == spec.calibration
    assert f"{mine}, " in text.split("results written to: ")[1]


def test_results_are_json_even_where_nothing_was_found(tmp_path: Path) -> None:
    blank = [np.zeros(120, np.float32)] * 2
    outcomes = made(
        2, age=[30, 40], gender=[0, 1], said_ages=blank, said_genders=[[0, 0]] * 2,
        said_ethnicities=[[0] * 5] * 2, found=[False] * 2,
    )  # fmt: skip
    results = score_model(load_spec(), outcomes, "test")
    write_results(results, tmp_path / "results.json")
    read = json.loads((tmp_path / "results.json").read_text())
    text = summary(results)
    assert "nan" not in text
    assert "abstained" not in text
    assert "coverage at 0.9, intervals: 0.0% of 2\n" in text
    assert "alibration error" not in build_report(read).markdown()
    assert read["overall"]["utkface"]["gender_accuracy"]["value"] == 0
    assert read["overall"]["utkface"]["age_mae_years"]["value"] == 5  # 33 against 30 and 40
    assert read["coverage"]["0.9"]["intervals"]["value"] == 0
