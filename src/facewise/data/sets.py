"""Readers of labelled faces: UTKFace, FairFace, and any CSV of paths and labels.

A data set is a list of samples and a way to read each sample's bytes, from a folder or directly
from a tar. Anything unusable is listed with the reason, never dropped silently.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from facewise.data.lists import (
    either,
    listed_name,
    listed_twice,
    other_values,
    parse_age,
    parse_label,
    read_rows,
    rows_by_file,
    short_name,
    split_name,
)
from facewise.data.tars import DAMAGE, read_tar
from facewise.data.walk import is_hidden, walk
from facewise.errors import OptionError
from facewise.formats import SUFFIXES
from facewise.labels import (
    ETHNICITY_LABELS,
    ETHNICITY_SYNONYMS,
    FAIRFACE_RACES,
    GENDER_LABELS,
    GENDER_SYNONYMS,
)
from facewise.text import counted

log = logging.getLogger("facewise")

DataSetName = Literal["utkface", "fairface", "csv"]

Place = tuple[Path, int, int]
"""File, first byte and size; size -1 means the whole file."""

SPLITS: Final = ("train", "val", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture; unknown labels are None.

    Attributes:
        key: file name inside the data set.
        dataset: the data set it comes from.
        split: one of ``SPLITS`` or another name, in lower case; "" where no split was given.
        age_range: first and last year, inclusive; equal for an exact age.
        gender: index in ``labels.GENDER_LABELS``.
        ethnicity: index in ``labels.ETHNICITY_LABELS``.
        group: shared by near-duplicates; the sample's own key if it has none.
        race: FairFace's own seven-class label.
    """

    key: str
    dataset: DataSetName
    split: str
    age_range: tuple[int, int] | None
    gender: int | None
    ethnicity: int | None
    group: str
    race: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """Samples, the items skipped and why, and where the samples' bytes lie.

    ``columns`` holds the extra columns requested, as name to key to value, without keys whose value
    is unknown. They are not part of the samples, by which outcomes are stored.
    """

    samples: tuple[Sample, ...]
    skipped: tuple[tuple[str, str], ...]
    places: Mapping[str, Place] = field(repr=False)
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)

    def read(self, sample: Sample) -> bytes:
        """Encoded bytes of a sample's picture; safe from several threads and processes."""
        path, offset, size = self.places[sample.key]
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)  # -1 reads the whole file


def samples_hash(chosen: Iterable[tuple[DataSet, Sample]]) -> str:
    """Hash of samples, their labels, where their bytes lie, and the files' sizes and modification
    times; 64 hex digits.
    """

    @cache
    def state(path: Path) -> tuple[str, int, int]:
        there = path.stat() if path.exists() else None
        return str(path.resolve()), *((there.st_size, there.st_mtime_ns) if there else (-1, -1))

    digest = hashlib.sha256()
    for data_set, sample in chosen:
        path, offset, size = data_set.places[sample.key]
        digest.update(repr((sample, state(path), offset, size)).encode())
    return digest.hexdigest()


def _index(source: Path) -> tuple[dict[str, Place], list[tuple[str, str]]]:
    """Index all pictures in a folder or an uncompressed tar.

    Returns:
        Name to place; then the pictures that are unreadable, with the reason.
    """
    places: dict[str, Place] = {}
    skipped: list[tuple[str, str]] = []

    def skip(name: str, reason: str = "not a regular file") -> None:
        if _is_picture(name):
            skipped.append((name, reason))

    if source.is_dir():
        for path in sorted(map(Path, walk(str(source), skip))):
            if _is_picture(key := path.as_posix()):
                places[key] = (source / path, 0, -1)
        return places, skipped
    try:
        with source.open("rb") as file:
            for name, place, problem in read_tar(file):
                if name in places:
                    skip(name, "a second file of that name")
                elif place is None and problem:
                    skip(name, problem)
                elif place is None:
                    skip(name)
                elif _is_picture(name):
                    places[name] = (source, *place)
    except (OSError, *DAMAGE) as error:
        raise OptionError(
            f"{source} is neither a folder nor an uncompressed tar of pictures, whole and alone "
            f"({error}); unpack it, copy it again, or check the path"
        ) from error
    return places, skipped


def _is_picture(key: str) -> bool:
    """Whether a name is a picture's, and not hidden: hidden files are thumbnails or discarded.

    Some of UTKFace's own names lack the dot before the suffix.
    """
    path = PurePosixPath(key)
    known = path.suffix.lower() in SUFFIXES or _UTKFACE_NAME.match(path.name) is not None
    return known and not is_hidden(key)


def read_pictures(source: Path) -> DataSet:
    """All pictures of a folder or tar, without labels; keys are their paths in it.

    Raises:
        OptionError: the source cannot be read.
        OSError: a folder in it cannot be listed, which may be temporary.
    """
    places, skipped = _index(source)
    samples = (Sample(key, "csv", "", None, None, None, key) for key in places)
    return DataSet(tuple(samples), tuple(skipped), places)


_UTKFACE_NAME: Final = re.compile(r"^(\d{1,3})_(\d)_(?:(\d)_)?(\d{8,})\s*\.?jpg(\.chip\.jpg)?$")


def parse_utkface_name(name: str) -> tuple[int, int, int | None] | str:
    """Age, gender and ethnicity from ``[age]_[gender]_[ethnicity]_[date].jpg``, or why not.

    The public set has names without an ethnicity, with a space before ``.jpg``, or without the
    dot; they are read as far as possible.
    """
    match = _UTKFACE_NAME.match(name)
    if match is None:
        return "name is not [age]_[gender]_[ethnicity]_[date].jpg"
    age, gender = int(match[1]), int(match[2])
    ethnicity = None if match[3] is None else int(match[3])
    if not 1 <= age <= 120:
        return f"age {age} is not 1 to 120"
    if gender >= len(GENDER_LABELS):
        return f"gender {gender} is not 0 or 1"
    if ethnicity is not None and ethnicity >= len(ETHNICITY_LABELS):
        return f"ethnicity {ethnicity} is not 0 to 4"
    return age, gender, ethnicity


def read_utkface(source: Path, splits: Path | None = None) -> DataSet:
    """UTKFace, cropped and aligned, as a folder or tar.

    Args:
        source: folder or tar.
        splits: CSV of ``file,split,duplicate_group``. Skipped are files it does not list, listed
            files that do not exist, and rows that repeat a file.

    Raises:
        OptionError: a source or CSV cannot be read.
    """
    listed, repeated = None, list[tuple[str, str]]()
    if splits is not None:
        listed, repeated = rows_by_file(read_rows(splits, ("file", "split")))
    samples, places = [], {}
    pictures, skipped = _index(source)
    seen = {short_name(path) for path, _ in skipped}
    for path, place in pictures.items():
        name = short_name(path)
        seen.add(name)
        parsed = parse_utkface_name(name)
        row = listed.get(name) if listed is not None else {}
        if isinstance(parsed, str):
            skipped.append((name, parsed))
        elif row is None:
            skipped.append((name, "not in the list of splits"))
        elif name in places:
            skipped.append((path, "a second file of that name"))
        else:
            age, gender, ethnicity = parsed
            samples.append(
                Sample(
                    key=name,
                    dataset="utkface",
                    split=split_name(row.get("split")),
                    age_range=(age, age),
                    gender=gender,
                    ethnicity=ethnicity,
                    group=row.get("duplicate_group") or name,
                )
            )
            places[name] = place
    skipped += [*_unseen(listed or (), seen), *repeated]
    return DataSet(tuple(samples), tuple(skipped), places)


def _unseen(listed: Iterable[str], seen: Collection[str | None]) -> list[tuple[str, str]]:
    """Listed names that no picture has."""
    return [(name, "no picture of that name") for name in listed if name not in seen]


def read_fairface(source: Path, labels: Path, by: Sequence[str] = ()) -> DataSet:
    """FairFace as a folder or tar, with labels ``file,age,gender,race`` and optionally ``split``.

    ``file`` is a file name, preceded by as many folders as are needed to tell files apart. Skipped
    are files without a label, labels without a file, samples without an age, and rows that repeat
    a file. Labels and further columns are read as by ``read_csv``.

    Raises:
        OptionError: the source or the CSV cannot be read, or lacks a column.
    """
    rows, repeated = rows_by_file(read_rows(labels, ("file", "age", "gender", "race", *by)))
    samples, places = [], {}
    columns: dict[str, dict[str, str]] = {column: {} for column in by}
    pictures, skipped = _index(source)
    seen = {listed_name(path, rows) for path, _ in skipped}
    for path, place in pictures.items():
        name = listed_name(path, rows)
        seen.add(name)
        if name is None:
            skipped.append((path, "not in the list of labels"))
            continue
        if name in places:
            skipped.append((path, f"a second file for the label of {name}"))
            continue
        row = rows[name]
        try:
            sample = Sample(
                key=name,
                dataset="fairface",
                split=split_name(row.get("split")),
                age_range=parse_age(row["age"]),
                gender=parse_label(row["gender"], GENDER_LABELS, GENDER_SYNONYMS),
                ethnicity=parse_label(row["race"], ETHNICITY_LABELS, FAIRFACE_RACES),
                group=name,
                race=row["race"] or None,
            )
        except ValueError as error:
            skipped.append((name, str(error)))
            continue
        if sample.age_range is None:
            skipped.append((name, "no age"))
            continue
        samples.append(sample)
        places[name] = place
        for column, value in other_values(row, by).items():
            columns[column][name] = value
    skipped += [*_unseen(rows, seen), *repeated]
    return DataSet(tuple(samples), tuple(skipped), places, columns)


def read_csv(path: Path, by: Sequence[str] = ()) -> DataSet:
    """Any labelled pictures: a CSV with ``path`` and some of age, gender, ethnicity, group, split.

    Column names ignore case; path may be called file, filename or image, gender sex, and ethnicity
    race, as in FairFace. Paths are relative to the CSV's folder. ``age`` is a year, a range such as
    20-29, one of FairFace's groups, or open-ended such as 70+; 0 is read as 1, as in FairFace's
    youngest group. Gender and ethnicity are the contract's names, in any case, their synonyms, or
    FairFace's races. Empty fields, and words such as NA, are unknown. Labels that cannot be read
    are unknown too, and a warning counts them; a row whose only labels are unreadable is skipped.

    Args:
        path: the CSV.
        by: further columns to keep, in lower case. Values are kept as written, except for white
            space; fields that are empty, NA or unknown have no value.

    Raises:
        OptionError: the CSV cannot be read, lacks a column, or has no label in any row.
    """
    samples, skipped, places = [], [], {}
    columns: dict[str, dict[str, str]] = {column: {} for column in by}
    rows, seen = read_rows(path, ("path", *by)), dict[tuple[str, str], Sample]()
    folder = cache(os.path.realpath)  # a link before .. leads elsewhere; cached for speed
    unread = Counter[tuple[str, str]]()
    for number, row in enumerate(rows, start=1):
        key = row["path"]
        if not key:
            skipped.append((f"row {number}", "no path"))
            continue
        labels, wrong = _labels(row)
        if wrong and not any(label is not None for label in labels.values()):
            skipped.append((key, "; ".join(wrong.values())))
            continue
        sample = Sample(
            key=key,
            dataset="csv",
            split=split_name(row.get("split")),
            group=row.get("group") or key,
            **labels,
        )
        values = other_values(row, by)
        parent, name = os.path.split(path.parent / key)
        first = seen.setdefault((folder(parent), name), sample)
        if first is not sample:
            other = [c for c in by if columns[c].get(first.key) != values.get(c)]
            skipped.append((key, listed_twice(first.key, _differing(first, sample) + other)))
            continue
        unread.update(wrong.items())
        samples.append(sample)
        places[key] = (path.parent / key, 0, -1)
        for column, value in values.items():
            columns[column][key] = value
    _warn_of_unread(path, unread)
    if samples and all((s.age_range, s.gender, s.ethnicity) == (None,) * 3 for s in samples):
        raise OptionError(
            f"{path} has no label in any row: labels are read from the columns age, gender (or "
            f"sex) and ethnicity (or race), and its columns are {', '.join(rows[0])}"
        )
    return DataSet(tuple(samples), tuple(skipped), places, columns)


MOST_REASONS: Final = 10
"""Most reasons listed for unreadable labels of each kind; the others are only counted."""


def _warn_of_unread(path: Path, unread: Mapping[tuple[str, str], int]) -> None:
    """Log a warning for each kind of label with unreadable values, the commonest reasons first."""
    for name in dict.fromkeys(name for name, _ in unread):
        reasons = Counter({reason: n for (own, reason), n in unread.items() if own == name})
        shown = reasons.most_common(MOST_REASONS)
        rest = reasons.total() - sum(n for _, n in shown)
        log.warning(
            "%s: %s of %s counts as unknown: %s",
            path,
            name.removesuffix("_range"),
            counted(reasons.total(), "row", "rows"),
            "; ".join(f"{reason} ({n:,})" for reason, n in shown)
            + (f"; other reasons ({rest:,})" if rest else ""),
        )


def _labels(row: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Label fields of a ``Sample``; then the unreadable ones, which are None, and why."""
    gender, ethnicity = either(row, "gender", "sex"), either(row, "ethnicity", "race")
    fields: dict[str, Callable[[], object]] = {
        "age_range": lambda: parse_age(row.get("age") or ""),
        "gender": lambda: parse_label(gender, GENDER_LABELS, GENDER_SYNONYMS),
        "ethnicity": lambda: parse_label(ethnicity, ETHNICITY_LABELS, ETHNICITY_SYNONYMS),
    }
    labels: dict[str, Any] = dict.fromkeys(fields)
    wrong: dict[str, str] = {}
    for name, read in fields.items():
        try:
            labels[name] = read()
        except ValueError as error:
            wrong[name] = str(error)
    return labels, wrong


def _differing(first: Sample, second: Sample) -> list[str]:
    """Columns in which two rows of one file differ; they may spell its path differently."""
    names = {"age": "age_range", "gender": "gender", "ethnicity": "ethnicity", "split": "split"}
    return [n for n, field in names.items() if getattr(first, field) != getattr(second, field)]
