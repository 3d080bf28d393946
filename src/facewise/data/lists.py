"""Lists of pictures with labels: CSVs as spreadsheets save them, and the spellings of labels."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from facewise.errors import OptionError
from facewise.labels import AGES

TABLE_SUFFIXES: Final = (".csv", ".tsv")
SEPARATORS: Final = (",", ";", "\t")
PATH_COLUMNS: Final = ("path", "file", "filename", "image")
PATHS_MAY_BE: Final = "path may also be called file, filename or image"

Row = dict[str, str]


def is_table(path: Path) -> bool:
    """Whether a path is named like a list of pictures."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_rows(path: Path, required: Collection[str]) -> list[dict[str, str]]:
    """Rows of a CSV, keyed by column names in lower case; between Age and age, age wins.

    See ``iterate_rows``.

    Raises:
        OptionError: it cannot be read, or lacks a required column.
    """
    try:
        with path.open("rb") as file:
            return list(iterate_rows(file, str(path), required))
    except OSError as error:
        raise OptionError(f"{path} cannot be read as CSV: {error}") from error


def iterate_rows(
    file: BinaryIO, name: str, required: Collection[str], hint: str = PATHS_MAY_BE
) -> Generator[dict[str, str], None, None]:
    """Rows of an open CSV, one at a time, keyed as by ``read_rows``.

    Fields are separated by commas, semicolons or tabs, depending on the spreadsheet's country; the
    text is UTF-8, or UTF-16 with a byte-order mark. Fields missing from a short row are "".
    ``path``, ``file``, ``filename`` and ``image`` are interchangeable, so that one list works for
    every command.

    Args:
        file: seekable; closed at the end.
        name: of the file, for messages.
        required: columns that it must have.
        hint: what to do if it lacks the column of paths.

    Raises:
        OptionError: it is no CSV, or lacks a required column.
    """
    utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    file.seek(0)
    encoding = "utf-16" if utf_16 else "utf-8-sig"
    try:
        with io.TextIOWrapper(file, encoding, newline="") as text:
            first = text.readline()
            if "\0" in first:
                raise OptionError(
                    f"{name} seems to be UTF-16 without its mark: save it as CSV UTF-8"
                )
            # Separators count between names, not inside quoted ones.
            header = re.sub(r'"[^"]*"', "", first)
            ordered = SEPARATORS[::-1] if name.lower().endswith(".tsv") else SEPARATORS
            separator = max(ordered, key=header.count)  # of one column's list: the first
            reader = csv.DictReader(chain([first], text), delimiter=separator)
            columns = _columns(reader.fieldnames or (), name, required, hint)
            for row in reader:
                yield {key: row[column] or "" for key, column in columns.items()}
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{name} is not text in {error.encoding} ({error.reason}): save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise OptionError(f"{name} cannot be read as CSV: {error}") from error


def _columns(
    names: Sequence[str], source: str, required: Collection[str], path_hint: str
) -> dict[str, str]:
    """A CSV's column names by their names in lower case.

    Raises:
        OptionError: one is missing.
    """
    columns = {name.strip().lower(): name for name in names}
    columns |= {name: name for name in names if name in columns}
    for path in PATH_COLUMNS[:2]:
        # Rather a column that is not asked for by its own name, as an id column may be.
        others = sorted((o for o in PATH_COLUMNS if o in columns), key=lambda o: o in required)
        if path in required and path not in columns and others:
            columns[path] = columns[others[0]]
            if others[0] not in required:
                del columns[others[0]]
    if missing := [name for name in dict.fromkeys(required) if name not in columns]:
        hint = f" ({path_hint})" if PATH_COLUMNS[0] in missing else ""
        lacks = ", ".join(missing)
        if any(re.search(r"\.[a-z]{3,4}$", name.lower()) for name in names):  # a picture's name
            raise OptionError(
                f"{source} has no line of column names: put one at its top, with {lacks}{hint}"
            )
        raise OptionError(
            f"{source} lacks the columns {lacks}: its columns are "
            f"{', '.join(names) or 'none'}{hint}"
        )
    return columns


def read_lists(paths: Sequence[Path]) -> dict[str, Row]:
    """Read CSVs with a column ``file``: file name to row, with column names in lower case.

    Rows without a file, as spreadsheets leave them at the end, are skipped. Groups of different
    lists are different ones: of several lists, ``duplicate_group`` begins with the list's number.

    Raises:
        OptionError: a list cannot be read, or names a file twice.
    """
    rows: dict[str, Row] = {}
    for number, path in enumerate(paths, start=1):
        for row in read_rows(path, ("file",)):
            name = row["file"].removeprefix("./")
            if not name:
                continue
            if name in rows:
                raise OptionError(f"{path}: {name} is already listed, here or in another list")
            if len(paths) > 1 and (group := row.get("duplicate_group")):
                row["duplicate_group"] = f"{number}:{group}"
            rows[name] = row
    return rows


def rows_by_picture(rows: Mapping[str, Row], names: Sequence[str]) -> dict[str, Row]:
    """Rows of lists by picture name; rows of other files keep their listed names.

    A picture gets the row named by the longest listed suffix of its path; without one, the row
    whose name ends in the picture's path, if there is just one. If several pictures claim a row,
    only an exact match gets it. Names whose folders differ are of different pictures: FairFace's
    own lists have a ``train/1.jpg`` and a ``val/1.jpg``.
    """
    claims = {name: listed_name(name, rows) for name in names}
    longer: defaultdict[str, list[str]] = defaultdict(list)
    for listed in rows.keys() - claims.values():
        for end in _ends(listed):
            longer[end].append(listed)
    for name, claim in claims.items():
        if claim is None and len(longer.get(name, ())) == 1:
            claims[name] = longer[name][0]
    times = Counter(claims.values())
    out = {
        name: rows[listed]
        for name, listed in claims.items()
        if listed is not None and (times[listed] == 1 or listed == name)
    }
    return out | {name: row for name, row in rows.items() if name not in times}


def rows_by_file(
    rows: Iterable[Mapping[str, str]],
) -> tuple[dict[str, Mapping[str, str]], list[tuple[str, str]]]:
    """The first row of each ``file``; then the files of repeated rows, and why they are skipped."""
    first: dict[str, Mapping[str, str]] = {}
    repeated = []
    for row in rows:
        before = first.setdefault(name := row["file"], row)
        if before is not row:
            other = [column for column in row if row[column] != before[column]]
            repeated.append((name, listed_twice(name, other)))
    return first, repeated


def listed_twice(first: str, other: Sequence[str]) -> str:
    """Why a row that repeats an earlier row's file is skipped; ``other`` are differing columns."""
    if not other:
        return "listed twice"
    return f"listed twice, with another {' and '.join(other)}: the first row, {first}, counts"


def listed_name(path: str, rows: Mapping[str, object]) -> str | None:
    """The longest tail of a path that is listed: in FairFace's own list, ``train/1.jpg`` and
    ``val/1.jpg`` are different faces.
    """
    return next((end for end in _ends(path) if end in rows), None)


def _ends(path: str) -> Iterator[str]:
    """A path and its tails, the longest first: a/b.jpg, b.jpg."""
    parts = path.split("/")
    return ("/".join(parts[start:]) for start in range(len(parts)))


def short_name(path: str) -> str:
    """A file name without its folders."""
    return path.rsplit("/", 1)[-1]


def split_name(text: str | None) -> str:
    """A split's name in lower case, as it is looked up: Test becomes test."""
    return (text or "").strip().lower()


def either(row: Mapping[str, str], name: str, other: str) -> str:
    """A field that may have either of two names."""
    return row.get(name) or row.get(other) or ""


def other_values(row: Mapping[str, str], by: Sequence[str]) -> dict[str, str]:
    """A row's values in columns that are not labels; runs of white space become one space."""
    values = {column: " ".join(row[column].split()) for column in by}
    return {c: v for c, v in values.items() if v.lower() in MAY_BE_VALUES or not is_unknown(v)}


UNKNOWN_WORDS: Final = frozenset(
    {"", "nan", "na", "n/a", "none", "null", "unknown", "?", "-", "-1"}
)
"""What tables contain for unknown labels, in lower case."""

MAY_BE_VALUES: Final = frozenset({"none", "-1"})
"""Those of the words that are values in columns other than labels: no glasses, exposure -1."""


def is_unknown(text: str) -> bool:
    """Whether a field marks a label as unknown."""
    return text.strip().lower() in UNKNOWN_WORDS


_YEAR: Final = r"(\d{1,3}(?:\.\d*|,\d)?)"
_AGE: Final = re.compile(
    rf"{_YEAR}(?:\s*(?:(\+)|[-\u2013\u2014]\s*{_YEAR}))?(?:\s*y(?:ears?)?(?: old)?)?"
)
_OVER: Final = re.compile(rf"(?:>=?|more than|over)\s*{_YEAR}")
_PAIR: Final = re.compile(rf"\(\s*{_YEAR}\s*,\s*{_YEAR}\s*\)")
"""Accepted ages: 70, 70+, 20-29, also with a spreadsheet's dash; >70; (25, 32), as in Adience. A
comma with one digit behind it is a decimal comma; 25,32 may be a range, and is refused."""


def parse_age(text: str) -> tuple[int, int] | None:
    """First and last year of an age as ``sets.read_csv`` accepts it; None if it is unknown.

    Decimals, as in means of several raters, are rounded to the nearest year.

    Raises:
        ValueError: it is not an age.
    """
    text = text.strip()
    if is_unknown(text):
        return None
    lower = text.lower()
    if pair := _PAIR.fullmatch(text):
        first, last = _number(pair[1]), _number(pair[2])
    elif over := _OVER.fullmatch(lower):
        first, last = _number(over[1]), float(AGES[-1])
    elif match := _AGE.fullmatch(lower):
        first = _number(match[1])
        last = float(AGES[-1]) if match[2] else _number(match[3] or match[1])
    else:
        raise ValueError(f"age {text!r} is not a year, nor a range such as 20-29")
    if not 0 <= first <= last <= AGES[-1]:
        raise ValueError(f"age {text!r} is not within 0 to {AGES[-1]}")
    return max(round(first), 1), max(round(last), 1)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def parse_label(text: str, labels: Sequence[str], synonyms: Mapping[str, str]) -> int | None:
    """Index of a label, ignoring case; None if it is unknown.

    Args:
        text: a label or a synonym.
        labels: in the order of the contract.
        synonyms: maps other names to labels.

    Raises:
        ValueError: it is none of them.
    """
    text = text.strip()
    if is_unknown(text):
        return None
    wanted = _plain(text)
    for name, label in [*zip(labels, labels, strict=True), *synonyms.items()]:
        if _plain(name) == wanted:
            return labels.index(label)
    raise ValueError(f"{text!r} is not one of {', '.join(labels)}")


def _plain(label: str) -> str:
    return label.lower().replace("_", " ").replace("-", " ")
