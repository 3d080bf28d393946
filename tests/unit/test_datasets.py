"""Readers of UTKFace and FairFace, as folders and as tars."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from facewise.data.folder import read_any
from facewise.data.lists import read_rows
from facewise.data.sets import (
    parse_utkface_name,
    read_csv,
    read_fairface,
    read_pictures,
    read_utkface,
)
from facewise.errors import OptionError


def store(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    """Write a data set of these files, as a folder or a tar."""
    source = folder / "set"
    for name, data in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if kind == "folder":
        return source
    with tarfile.open(folder / "set.tar", "w") as archive:
        archive.add(source, arcname="set")
    return folder / "set.tar"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("25_1_3_20170119172047553.jpg.chip.jpg", (25, 1, 3)),
        ("116_0_4_20170120134744096.jpg", (116, 0, 4)),
        ("1_0_0_20161219140623097.jpg", (1, 0, 0)),
        ("120_1_2_20170120134744096.jpg", (120, 1, 2)),
        ("61_1_20170109150557335.jpg.chip.jpg", (61, 1, None)),  # no ethnicity
        ("24_0_1_20170116220224657 .jpg.chip.jpg", (24, 0, 1)),  # a space
        ("55_0_0_20170116232725357jpg.chip.jpg", (55, 0, 0)),  # no dot
    ],
)
def test_the_public_sets_names(name: str, labels: tuple[int, int, int | None]) -> None:
    assert parse_utkface_name(name) == labels


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("portrait.jpg", "name is not"),
        ("0_1_3_20170119172047553.jpg", "age 0"),
        ("121_1_3_20170119172047553.jpg", "age 121"),
        ("25_2_3_20170119172047553.jpg", "gender 2"),
        ("25_1_5_20170119172047553.jpg", "ethnicity 5"),
    ],
)
def test_names_that_say_nothing_are_refused_with_the_reason(name: str, reason: str) -> None:
    said = parse_utkface_name(name)
    assert isinstance(said, str)
    assert said.startswith(reason)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_utkface(tmp_path: Path, kind: str) -> None:
    good, alone, odd = (
        "25_1_3_20170119172047553.jpg.chip.jpg",
        "61_1_20170109150557335.jpg.chip.jpg",
        "39_1_20170116174525125.jpg.chip.jpg",
    )
    files = {f"UTKFace/{name}": name.encode() for name in (good, alone, odd, "nobody.jpg")}
    files[f"again/{good}"] = b"another file of that name"
    splits = tmp_path / "splits.csv"
    splits.write_text(f"file,split,duplicate_group\n{good},train,\n{alone},val,{good}\n")
    data_set = read_utkface(store(tmp_path, kind, files), splits)
    by_key = {sample.key: sample for sample in data_set.samples}
    assert by_key.keys() == {good, alone}
    assert (by_key[good].age_range, by_key[good].gender, by_key[good].ethnicity) == (
        (25, 25),
        1,
        3,
    )
    assert by_key[alone].ethnicity is None
    assert (by_key[good].group, by_key[alone].group) == (good, good)
    assert data_set.read(by_key[alone]) == alone.encode()
    reasons = {name.rsplit("/", 1)[-1]: reason for name, reason in data_set.skipped}
    assert reasons.keys() == {odd, "nobody.jpg", good}
    assert reasons[odd] == "not in the list of splits"
    assert reasons[good] == "a second file of that name"


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_pictures_of_every_format_and_nothing_else(tmp_path: Path, kind: str) -> None:
    pictures = ["a.jpg", "a.JPE", "a.jfif", "a.tiff", "a.gif", "a.avif", "sub/a.HEIC", "v1.2.3.png"]
    pictures += ["a.pgm", "a.ppm", "a.pnm"]
    pictures += ["55_0_0_20170116232725357jpg"]  # as in UTKFace, without the dot
    others = ["notes.v1.2.txt", "a.mp4", ".a.jpg", ".thumbs/a.jpg", "sub/.trash/b/a.jpg"]
    source = store(tmp_path, kind, dict.fromkeys(pictures + others, b""))
    found = {sample.key.removeprefix("set/") for sample in read_pictures(source).samples}
    assert found == set(pictures)


def write_tar(path: Path, members: Iterable[tuple[str, bytes | str]]) -> Path:
    """Write a tar of files in this order; a string is the target of a link."""
    with tarfile.open(path, "w") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                archive.addfile(info)
            else:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
    return path


def test_a_tar_that_is_damaged_or_joined_is_refused_not_cut_short(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("a.jpg", b"a" * 700), ("b.jpg", b"b" * 700)])
    assert len(read_pictures(path).samples) == 2
    whole, second = path.read_bytes(), 512 + 1024
    flipped = whole[: second + 3] + b"\xff" + whole[second + 4 :]
    hole = whole[:second] + bytes(512) + whole[second + 512 :]
    for data in (flipped, hole, whole[: second + 100], whole[: second + 600], whole + whole):
        path.write_bytes(data)
        with pytest.raises(OptionError, match="tar of pictures, whole and alone"):
            read_pictures(path)


def test_links_of_a_tar_are_what_they_lead_to_and_the_first_of_a_name_counts(
    tmp_path: Path,
) -> None:
    members: list[tuple[str, bytes | str]] = [
        ("./a.jpg", b"first"),
        ("./a.jpg", b"second"),
        ("sub/link.jpg", "../blob"),
        ("gone.jpg", "nowhere.jpg"),
        ("gone.txt", "nowhere.txt"),
        ("blob", b"a picture without an ending"),
        ("blob", b"another"),
        ("twice.jpg", "blob"),
        ("twice.jpg", "a.jpg"),
    ]
    data_set = read_pictures(write_tar(tmp_path / "t.tar", members))
    assert {sample.key: data_set.read(sample) for sample in data_set.samples} == {
        "a.jpg": b"first",
        "sub/link.jpg": b"a picture without an ending",
        "twice.jpg": b"a picture without an ending",
    }
    assert data_set.skipped == (
        ("a.jpg", "a second file of that name"),
        ("gone.jpg", "a link to nowhere.jpg, which is no file in the tar"),
    )


def test_linked_folders_are_read_and_what_is_no_file_is_named(tmp_path: Path) -> None:
    source = store(tmp_path, "folder", {"a.jpg": b"", "sub/b.jpg": b""})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.jpg").write_bytes(b"c")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "sub" / "loop").symlink_to(source)
    os.mkfifo(source / "sub" / "pipe.jpg")
    data_set = read_pictures(source)
    assert [s.key for s in data_set.samples] == ["a.jpg", "linked/c.jpg", "sub/b.jpg"]
    assert data_set.read(data_set.samples[1]) == b"c"
    assert data_set.skipped == (("sub/pipe.jpg", "not a regular file"),)


def test_a_folder_that_cannot_be_listed_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = store(tmp_path, "folder", {"a.jpg": b"", "closed/b.jpg": b""})
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not stop root, and tests may run as root
        if "closed" in os.fspath(path):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OptionError, match=r"closed/?: cannot be listed \(Permission denied\)"):
        read_pictures(source)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_names_of_a_list_that_no_picture_has_are_skipped(tmp_path: Path, kind: str) -> None:
    here, gone, odd = (f"25_1_{n}_20170119172047553.jpg" for n in (3, 4, 9))
    source = store(tmp_path, kind, {f"sub/{here}": b"", f"sub/{odd}": b""})
    splits = tmp_path / "splits.csv"
    splits.write_text(f"file,split\n{here},train\n{gone},train\n{odd},train\n")
    assert dict(read_utkface(source, splits).skipped) == {
        odd: "ethnicity 9 is not 0 to 4",
        gone: "no picture of that name",
    }
    labels = tmp_path / "labels.csv"
    rows = "".join(f"{name},20-29,Male,White\n" for name in (f"sub/{here}", gone, odd))
    labels.write_text(f"file,age,gender,race\n{rows}")
    data_set = read_fairface(source, labels)
    assert [sample.key for sample in data_set.samples] == [f"sub/{here}", odd]
    assert data_set.skipped == ((gone, "no picture of that name"),)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_fairface(tmp_path: Path, kind: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "file,age,gender,race,split\n"
        "1.webp,50-59,Male,East Asian,train\n"
        "2.webp,more than 70,Female,Latino_Hispanic,test\n"
        "3.webp,unknown,Male,White,train\n"
    )
    files = {f"FairFace/{n}.webp": str(n).encode() for n in (1, 2, 3, 4)}
    files["again/2.webp"] = b"another file of that name"
    files["once/2.webp"] = b"and one more"
    data_set = read_fairface(store(tmp_path, kind, files), labels)
    first, second = data_set.samples
    assert (first.key, first.age_range, first.gender, first.split) == (
        "1.webp",
        (50, 59),
        0,
        "train",
    )
    assert (first.race, second.race) == ("East Asian", "Latino_Hispanic")
    assert second.age_range is not None
    assert second.age_range[0] == 70
    assert data_set.read(second) == b"2"
    twice = [name for name, reason in data_set.skipped if "second file for the label" in reason]
    assert [name.removeprefix("set/") for name in twice] == ["again/2.webp", "once/2.webp"]
    reasons = {name.rsplit("/", 1)[-1]: reason for name, reason in data_set.skipped}
    assert reasons["4.webp"] == "not in the list of labels"
    assert reasons["3.webp"] == "no age"


def test_fairfaces_labels_go_by_any_case_and_none_is_lost_in_silence(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "file,age,gender,race\n"
        "1.jpg,MORE THAN 70,F,east asian\n"
        "2.jpg,20-29, Man ,Middle eastern\n"
        "3.jpg,25,female,\n"
        "4.jpg,20-29,Male,Martian\n"
        "5.jpg,20-29,other,White\n"
        "6.jpg,30-39,,Black\n"
        "7.jpg, ,Male,Black\n"
    )
    files = {f"{n}.jpg": b"" for n in range(1, 8)}
    data_set = read_fairface(store(tmp_path, "folder", files), labels)
    assert [(s.key, s.age_range, s.gender, s.ethnicity) for s in data_set.samples] == [
        ("1.jpg", (70, 120), 1, 2),
        ("2.jpg", (20, 29), 0, 4),
        ("3.jpg", (25, 25), 1, None),
        ("6.jpg", (30, 39), None, 1),
    ]
    assert data_set.skipped == (
        ("4.jpg", "'Martian' is not one of White, Black, Asian, Indian, Others"),
        ("5.jpg", "'other' is not one of male, female"),
        ("7.jpg", "no age"),
    )


def test_of_a_file_that_a_list_names_twice_the_first_row_counts(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "file,age,gender,race,split\n1.jpg,50-59,Male,White,train\n1.jpg,3-9,Female,White,train\n"
    )
    fairface = read_fairface(store(tmp_path, "folder", {"1.jpg": b"a man"}), labels)
    assert [(s.key, s.age_range, s.gender) for s in fairface.samples] == [("1.jpg", (50, 59), 0)]
    why = "listed twice, with another age and gender: the first row, 1.jpg, counts"
    assert fairface.skipped == (("1.jpg", why),)
    name = "25_1_3_20170119172047553.jpg"
    for split, why in (
        ("train", "listed twice"),
        ("test", f"listed twice, with another split: the first row, {name}, counts"),
    ):
        splits = tmp_path / "splits.csv"
        splits.write_text(f"file,split\n{name},train\n{name},{split}\n")
        utkface = read_utkface(store(tmp_path / split, "folder", {name: b"a woman"}), splits)
        assert [(s.key, s.split) for s in utkface.samples] == [(name, "train")]
        assert utkface.skipped == ((name, why),)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_fairfaces_own_layout_has_two_faces_of_each_number(tmp_path: Path, kind: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "file,age,gender,race\ntrain/1.jpg,50-59,Male,White\nval/1.jpg,3-9,Female,Black\n"
    )
    files = {"train/1.jpg": b"a man", "val/1.jpg": b"a girl", "more/val/1.jpg": b"who?"}
    data_set = read_fairface(store(tmp_path, kind, files), labels)
    read = {s.key: (s.age_range, s.gender, data_set.read(s)) for s in data_set.samples}
    assert read["train/1.jpg"] == ((50, 59), 0, b"a man")
    assert read["val/1.jpg"][:2] == ((3, 9), 1)
    assert [reason for _, reason in data_set.skipped] == [
        "a second file for the label of val/1.jpg"
    ]


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("", None),
        (" ", None),
        (" 25 ", (25, 25)),
        ("25", (25, 25)),
        ("25.0", (25, 25)),
        ("0", (1, 1)),
        ("20-29", (20, 29)),
        ("18 - 30", (18, 30)),
        ("0-2", (1, 2)),
        ("70+", (70, 120)),
        ("More than 70", (70, 120)),
        ("60+", (60, 120)),
        ("25.4", (25, 25)),
        ("25.5", (26, 26)),
        ("24.5", (24, 24)),
        ("0.3", (1, 1)),
        ("20.6-29.5", (21, 30)),
        ("69.5+", (70, 120)),
        ("20\u201329", (20, 29)),
        (">70", (70, 120)),
        ("(25, 32)", (25, 32)),
        ("(25,32)", (25, 32)),
        ("31,5", (32, 32)),
        ("20,5-29,4", (20, 29)),
        ("25 years", (25, 25)),
        ("25 Years old", (25, 25)),
        (">=70", (70, 120)),
        ("NaN", None),
        ("N/A", None),
        ("unknown", None),
        ("-1", None),
        ("25.5.1", "not a year"),
        ("25,32", "not a year"),  # a range, or decimals
        ("(25,3)", "not within"),
        ("-0.5", "not a year"),
        ("120.4", "not within"),
        ("young", "not a year"),
        ("-3", "not a year"),
        ("30-20", "not within"),
        ("121", "not within"),
    ],
)
def test_ages_of_a_csv(tmp_path: Path, age: str, years: tuple[int, int] | str | None) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text(f'path,age,gender\na.jpg,"{age}",Female\nb.jpg,"{age}",\nc.jpg,30,\n')
    data_set = read_csv(listing)
    wrong = isinstance(years, str)
    ages = [sample.age_range for sample in data_set.samples]
    assert ages == ([None, (30, 30)] if wrong else [years, years, (30, 30)])
    assert data_set.samples[0].gender == 1
    if isinstance(years, str):  # b.jpg has no label left
        ((name, reason),) = data_set.skipped
        assert name == "b.jpg"
        assert years in reason


def test_a_row_that_ends_before_its_path_is_skipped(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text("age, Path \n30,a.jpg\n31\n")
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    data_set = read_csv(listing)
    assert data_set.read(data_set.samples[0]) == b"a picture"
    assert [sample.key for sample in data_set.samples] == ["a.jpg"]
    assert data_set.skipped == (("row 2", "no path"),)


def test_a_file_counts_once_however_its_path_is_spelt(tmp_path: Path) -> None:
    own, listing = tmp_path / "own", tmp_path / "own" / "faces.csv"
    (own / "deep" / "er").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(own)
    (own / "link").symlink_to(own / "deep" / "er")
    listing.write_text(
        "path,age,gender,split\n"
        "a.jpg,30,male,test\n"
        "./a.jpg,30,male,test\n"
        "../own/./a.jpg,30,female,train\n"
        f"{own}/a.jpg,30,male,test\n"
        f"{tmp_path}/linked/a.jpg,31,male,test\n"
        "link/../a.jpg,30,male,test\n"  # in deep: the link leads to deep/er
        "deep/er/../a.jpg,30,male,test\n"
        "Deep/a.jpg,30,male,test\n"
    )
    data_set = read_csv(listing)
    assert [s.key for s in data_set.samples] == ["a.jpg", "link/../a.jpg", "Deep/a.jpg"]
    assert data_set.skipped == (
        ("./a.jpg", "listed twice"),
        (
            "../own/./a.jpg",
            "listed twice, with another gender and split: the first row, a.jpg, counts",
        ),
        (f"{own}/a.jpg", "listed twice"),
        (
            f"{tmp_path}/linked/a.jpg",
            "listed twice, with another age: the first row, a.jpg, counts",
        ),
        ("deep/er/../a.jpg", "listed twice"),
    )
    assert read_csv(tmp_path / "linked" / "faces.csv").skipped == data_set.skipped


def test_a_list_that_lacks_a_column(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,age,gender\n")
    with pytest.raises(OptionError, match="lacks the columns race: its columns are file, age, gen"):
        read_fairface(store(tmp_path, "folder", {"1.jpg": b""}), labels)
    with pytest.raises(OptionError, match="neither a folder nor an uncompressed tar"):
        read_utkface(labels)


def test_path_and_file_stand_for_each_other(tmp_path: Path) -> None:
    source = store(tmp_path, "folder", {"1.jpg": b""})
    listing = source / "labels.csv"
    listing.write_text("File,age,gender,race\n1.jpg,30,male,White\n")
    assert [sample.key for sample in read_csv(listing).samples] == ["1.jpg"]
    listing.write_text("Path,age,gender,race\n1.jpg,30,male,White\n")
    assert [sample.key for sample in read_fairface(source, listing).samples] == ["1.jpg"]
    listing.write_text("path,file,age\na.jpg,1.jpg,30\n")
    assert read_csv(listing).samples[0].key == "a.jpg"
    assert read_rows(listing, ("file",))[0]["file"] == "1.jpg"
    listing.write_text("name,age\n1.jpg,30\n")
    with pytest.raises(OptionError, match="lacks the columns path: its columns are name, age"):
        read_csv(listing)
    listing.write_text("")
    with pytest.raises(OptionError, match="lacks the columns path: its columns are none"):
        read_csv(listing)
    listing.write_text("photos/1.JPEG,30,male\n")
    with pytest.raises(OptionError, match="has no line of column names: put one at its"):
        read_csv(listing)


def test_columns_go_by_any_case_and_by_fairfaces_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text(
        "Path,Age,Sex,race,SPLIT,note,Note\n"
        "a.jpg,25,Female,East Asian, Test ,,\n"
        "b.jpg,30,male,white,,,\n"
        "c.jpg,30,male,latino_hispanic,Mine,,\n"
        "d.jpg,30,male,Martian,,,\n"
    )
    data_set = read_csv(listing)
    assert [(s.age_range, s.gender, s.ethnicity, s.split) for s in data_set.samples] == [
        ((25, 25), 1, 2, "test"),
        ((30, 30), 0, 0, ""),
        ((30, 30), 0, 4, "mine"),
        ((30, 30), 0, None, ""),
    ]
    assert data_set.skipped == ()
    assert (
        "ethnicity of 1 row counts as unknown: "
        "'Martian' is not one of White, Black, Asian, Indian, Others (1)"
    ) in caplog.text


def test_every_label_that_cannot_be_read_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = tmp_path / "faces.csv"
    rows = [f"{i}.jpg,age {i},male" for i in range(12)] + ["a.jpg,25 Years,x", "a.jpg,25,x"]
    listing.write_text("\n".join(["path,age,gender", *rows]))
    data_set = read_csv(listing)
    assert [s.age_range for s in data_set.samples] == [None] * 12 + [(25, 25)]
    assert "age of 12 rows counts as unknown: age 'age 0' is not a year" in caplog.text
    assert "other reasons (2)" in caplog.text
    assert "gender of 1 row counts as unknown: 'x' is not one of male, female (1)" in caplog.text


def test_separators_within_quotes_separate_nothing(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text('"note; a; b; c",path,race\nx,a.jpg,african-american\n')
    (sample,) = read_csv(listing).samples
    assert (sample.key, sample.ethnicity) == ("a.jpg", 1)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("column", ["path", "file", "filename", "Image"])
def test_a_list_is_read_as_a_spreadsheet_saves_it(
    tmp_path: Path, separator: str, encoding: str, column: str
) -> None:
    listing = tmp_path / "faces.tsv"
    rows = [[column, "age", "race"], ["é.jpg", "30", "Caucasian"], ["b.jpg", "40", "Other"]]
    text = "\r\n".join(separator.join(row) for row in rows)
    listing.write_bytes(text.encode(encoding))
    (data_set,) = read_any(listing)
    assert [(s.key, s.age_range, s.ethnicity) for s in data_set.samples] == [
        ("é.jpg", (30, 30), 0),
        ("b.jpg", (40, 40), 4),
    ]


def test_a_list_in_another_encoding_is_told_what_to_do(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_bytes("path,age\né.jpg,30\n".encode("latin-1"))
    with pytest.raises(OptionError, match="save it as CSV UTF-8"):
        read_csv(listing)
    listing.write_bytes("path,age\na.jpg,30\n".encode("utf-16-le"))
    with pytest.raises(OptionError, match="save it as CSV UTF-8"):
        read_csv(listing)


def test_genders_go_by_other_words(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    words = ["m", "F", "Man", " WOMAN ", "boy", "Girl", "", "x"]
    listing.write_text("path,gender\n" + "".join(f"{i}.jpg,{w}\n" for i, w in enumerate(words)))
    data_set = read_csv(listing)
    assert [sample.gender for sample in data_set.samples] == [0, 1, 0, 1, 0, 1, None]
    assert data_set.skipped == (("7.jpg", "'x' is not one of male, female"),)


def test_of_two_columns_the_one_that_is_spelt_rightly_counts(tmp_path: Path) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text("path,Age,age,AGE,race,ethnicity\na.jpg,1,2,3,Black,White\n")
    (sample,) = read_csv(listing).samples
    assert (sample.age_range, sample.ethnicity) == ((2, 2), 0)


@pytest.mark.parametrize("text", ["path,years,m/f\na.jpg,25,f\n", "path,age\na.jpg,\n"])
def test_a_list_without_a_label_says_which_there_could_be(tmp_path: Path, text: str) -> None:
    listing = tmp_path / "faces.csv"
    listing.write_text(text)
    with pytest.raises(OptionError, match=r"columns age, gender \(or sex\) and ethnicity \(or"):
        read_csv(listing)
