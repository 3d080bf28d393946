"""Finds near-duplicates and makes new splits, from pictures to lists, report and contact sheets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from facewise.data.lists import Row, rows_by_picture
from facewise.data.sets import DataSet, read_pictures
from facewise.dedupe.fingerprints import Fingerprints, fingerprints, named_samples
from facewise.dedupe.lists import (
    EXCLUSION_COLUMNS,
    conflicts,
    exclusions,
    labels_of,
    lopsided,
    make_splits,
)
from facewise.dedupe.pairs import Pair, find_pairs
from facewise.dedupe.report import (
    TITLE,
    contact_sheets,
    is_report,
    named_groups,
    report,
    summarise,
    worth_looking_at,
)
from facewise.errors import OptionError
from facewise.files import has_header, json_text, write_csv, write_text
from facewise.labels import ATTRIBUTES
from facewise.text import as_utf8

MARK: Final = "dedupe.json"
"""Always written, as a sign that the lists and sheets beside it may be replaced."""

SPLITS_CSV: Final = "splits.csv"
CONFLICTS: Final = "conflicts.csv"
EXCLUSIONS: Final = "exclusions.csv"
_SHEET: Final = re.compile(r"pairs-\d+\.png")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run writes.

    Attributes:
        out: folder of the lists, the contact sheets and ``MARK``.
        reports: JSON and Markdown files for the findings; one of them is ``MARK``.
        exclusions: CSV of what a list has in two splits.
    """

    out: Path
    reports: Sequence[Path]
    exclusions: Path

    def sheets(self) -> list[Path]:
        """Existing contact sheets, recognised by their names."""
        return [path for path in self.out.glob("pairs-*.png") if _SHEET.fullmatch(path.name)]

    def outputs(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        """All that ``write`` may replace or delete, each with a test for what a run wrote.

        One output under two names comes once; two outputs under one name come twice.
        """
        default = self.out / EXCLUSIONS
        beside_mark = [self.out / SPLITS_CSV, self.out / CONFLICTS, default, *self.sheets()]
        if _SHEET.fullmatch(self.exclusions.name):  # a sheet that may not be there yet
            beside_mark.append(self.out / self.exclusions.name)
        for path in dict.fromkeys(beside_mark):
            yield path, lambda _: is_report(self.out / MARK)
        for path in {path.resolve(): path for path in self.reports}.values():
            yield path, is_report
        if self.exclusions.resolve() != default.resolve():
            yield self.exclusions, lambda path: has_header(path, EXCLUSION_COLUMNS)


class Found(NamedTuple):
    """Result of a search.

    Attributes:
        data_sets: the pictures' sources.
        prints: the pictures.
        pairs: as ``find_pairs`` returns them.
        groups: names of the pictures that are one photo, per photo.
        labels: name to age, gender and ethnicity.
        summary: all findings as plain data.
    """

    data_sets: Sequence[DataSet]
    prints: Fingerprints
    pairs: Sequence[Pair]
    groups: Sequence[Sequence[str]]
    labels: Mapping[str, Row]
    summary: dict[str, Any]


def search(
    sources: Sequence[Path],
    lists: Mapping[str, Row],
    *,
    near_bits: int,
    thorough: bool,
    threads: int = 2,
) -> Found:
    """Find near-duplicates in folders and tars, and compare them with lists.

    Args:
        sources: folders or tars of pictures, counted as one.
        lists: rows of lists, as returned by ``read_lists``; empty for none.
        near_bits: as for ``find_pairs``.
        thorough: as for ``find_pairs``.
        threads: for reading and comparing.

    Raises:
        OptionError: a source cannot be read, there is no picture that can, or the lists name none.
    """
    data_sets = [read_pictures(source) for source in sources]
    if not any(data_set.samples for data_set in data_sets):
        raise OptionError(f"no pictures in {', '.join(map(str, sources))}: check the path")
    listed = _listed(lists, data_sets)
    prints = fingerprints(data_sets, threads=threads)
    pairs = find_pairs(prints, near_bits=near_bits, thorough=thorough, threads=threads)
    labels = {name: labels_of(name, listed.get(name)) for name in prints.names}
    summary = summarise(prints, pairs, labels, listed, near_bits=near_bits, thorough=thorough)
    summary = {"sources": [source.name for source in sources], **summary}
    return Found(data_sets, prints, pairs, named_groups(prints, pairs), labels, summary)


def _listed(lists: Mapping[str, Row], data_sets: Sequence[DataSet]) -> dict[str, Row]:
    """Rows of lists by picture name; rows of other files keep their listed names.

    Pictures are looked for by their whole paths, also those that cannot be read: without folders,
    one could get the row of another, or none.

    Raises:
        OptionError: there are lists, but no picture is in them.
    """
    names = {as_utf8(s.key): name for name, (_, s) in named_samples(data_sets).items()}
    rows = rows_by_picture(lists, list(names))
    others = {file: row for file, row in rows.items() if file not in names}
    own = {name: rows[path] for path, name in names.items() if path in rows}
    if lists and not own:
        raise OptionError(
            f"no --list has any of the pictures, such as {next(iter(names))}: check its file names"
        )
    return others | own


def write(
    found: Found, places: Places, *, shares: Mapping[str, float], seed: int, sheets: int
) -> list[str]:
    """Write everything, in place of what an earlier run wrote.

    Args:
        found: result of the search.
        places: where.
        shares: of the new splits, by name.
        seed: of the new splits.
        sheets: most contact sheets to draw.

    Returns:
        Oddities of the new splits, one sentence each.
    """
    # Written first: if the run fails below, the folder is already marked as facewise's.
    for path in places.reports:
        text = page_of(found) if path.suffix == ".md" else json_text(found.summary)
        write_text(path, text)
    samples = named_samples(found.data_sets)
    paths = {name: as_utf8(samples[name][1].key) for name in found.prints.names}
    splits = make_splits(paths, found.groups, shares, seed)
    group_of = {name: group[0] for group in found.groups for name in group}
    write_csv(
        places.out / SPLITS_CSV,
        ("file", "split", "duplicate_group"),
        [
            {"file": name, "split": splits[name], "duplicate_group": group_of.get(name, "")}
            for name in found.prints.names
        ],
    )
    write_csv(
        places.out / CONFLICTS,
        ("duplicate_group", "file", *ATTRIBUTES, "disagree"),
        conflicts(found.groups, found.labels),
    )
    # Files of an earlier run that this one might not overwrite.
    for stale in (places.out / EXCLUSIONS, *places.sheets()):
        stale.unlink(missing_ok=True)
    if "across_splits" in found.summary:
        rows = exclusions(found.summary["across_splits"]["list"])
        write_csv(places.exclusions, EXCLUSION_COLUMNS, rows)
    pairs = worth_looking_at(found.pairs)
    drawn = contact_sheets(found.prints, pairs, found.data_sets, most=sheets)
    for number, sheet in enumerate(drawn, start=1):
        sheet.save(places.out / f"pairs-{number}.png")
    return lopsided(found.groups, splits, shares)


def page_of(found: Found) -> str:
    """The findings as Markdown."""
    return report(found.summary, TITLE).markdown()
