"""The data of an evaluation: data sets, their splits, and excluded pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from facewise.data.folder import has_shared_splits, read_any, with_splits
from facewise.data.lists import PATH_COLUMNS, read_rows, rows_by_picture, split_name
from facewise.data.sets import SPLITS, DataSet
from facewise.errors import OptionError
from facewise.evaluation.groups import UNKNOWN
from facewise.evaluation.outcomes import Outcomes
from facewise.text import by_reason
from facewise.types import TextArray

log = logging.getLogger("facewise")

EXCLUSIONS: Final = Path(__file__).parent / "exclusions.csv"
"""Pictures of the shared data sets whose photo is also in an earlier split; see docs/dedupe.md."""

TAKEN: Final = "the report calls its own groups so; rename the column"
NOT_BY: Final = {
    "": "name a column",
    **dict.fromkeys(("age", "gender", "ethnicity"), "there are figures by it in any case"),
    "sex": "it is read as gender, and there are figures by that in any case",
    "group": "it is read as groups of near-duplicates; rename the column if it is none",
    "split": "one split is scored at a time, the one that --split names",
    **dict.fromkeys(PATH_COLUMNS, "it names pictures, and a group of one has no figures"),
    **dict.fromkeys(("data set", "predicted age", "certainty"), TAKEN),
}
"""Columns that cannot be grouped by, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationData:
    """Data sets, and which of their pictures are scored.

    Attributes:
        source: where they come from, for messages.
        sets: as read, or as assigned to splits by a list.
        split: the split to score; "" for all pictures, in any split or none.
        whole: ``sets``, with each set that has no splits of its own put into ``split`` entirely.
        exclusions: path of the list of excluded pictures, for messages.
        excluded: keys of the excluded pictures.
        by: columns of the sets to group figures by.
        shared: whether these are the shared data sets, with their list of splits.
        lists: names of the user's lists, by option; None for the shared data sets with facewise's.
    """

    source: Path
    sets: Sequence[DataSet]
    split: str
    whole: Sequence[DataSet]
    exclusions: Path
    excluded: frozenset[str]
    by: Sequence[str] = ()
    shared: bool = False
    lists: Mapping[str, str] | None = None

    @property
    def splits(self) -> set[str]:
        """Names of all splits present; "" for pictures without one."""
        return {sample.split for data_set in self.sets for sample in data_set.samples}

    def sets_of(self, part: str) -> Sequence[DataSet]:
        """The data sets in which to look for a split."""
        return self.whole if part == self.split else self.sets

    def keys_of(self, part: str) -> set[str]:
        """Keys of a split's pictures."""
        sets = self.sets_of(part)
        return {s.key for d in sets for s in d.samples if part in ("", s.split)}

    def columns_of(self, outcomes: Outcomes) -> dict[str, TextArray]:
        """Each column of ``by`` to the value of each row, "unknown" if it has none."""
        rows = list(zip(outcomes.datasets.tolist(), outcomes.keys.tolist(), strict=True))
        sets = {d.samples[0].dataset: d.columns for d in self.sets if d.samples}
        # Objects: in a text array, every value takes as much memory as the longest.
        return {
            name: np.array([sets[d].get(name, {}).get(key, UNKNOWN) for d, key in rows], object)
            for name in self.by
        }

    def check_left(self, parts: Iterable[str]) -> None:
        """Check that exclusions leave at least one picture in each split that has any.

        Raises:
            OptionError: they leave none.
        """
        for part in parts:
            there = self.keys_of(part)
            if there and there <= self.excluded:
                raise self.none_left(part)

    def none_left(self, part: str, to: str = "", advice: str = "") -> OptionError:
        """The error for a split that has no picture left for the purpose ``to``."""
        return OptionError(
            f"nothing is left{to} of {f'split {part}' if part else 'the data'} after --exclude "
            f"{self.exclusions}: leave out fewer pictures{advice}"
        )


def read_data(
    source: Path,
    *,
    labels: Path | None = None,
    split: str = "test",
    splits: Path | None = None,
    exclude: Path | None = None,
    by: Sequence[str] = (),
) -> EvaluationData:
    """Read the data to score.

    Args:
        source: as for ``read_any``.
        labels: FairFace's labels, if the source is FairFace.
        split: the split to score, in upper or lower case; "all" for all pictures, unless a split
            has that name.
        splits: CSV that assigns pictures to splits and groups, replacing their own.
        exclude: CSV of pictures to exclude; with None, ``EXCLUSIONS`` apply to the shared data sets
            with their own splits, and nothing is excluded from other data.
        by: columns of a CSV, or of FairFace's labels, in upper or lower case, to group figures by.

    Raises:
        OptionError: something cannot be read, there is no usable face, or a column is missing or
            cannot be grouped by.
    """
    by = _columns(by)
    sets, split = read_any(source, labels, by), split_name(split)
    if not any(data_set.samples for data_set in sets):
        reasons = by_reason([pair for data_set in sets for pair in data_set.skipped])
        named = f"; skipped: {'; '.join(reasons)}" if reasons else ""
        raise OptionError(f"{source} has no face that can be used{named}")
    if by and not any(data_set.columns for data_set in sets):
        raise OptionError(
            f"--by {by[0]}: {source} has no columns, for UTKFace's labels are its files' names: "
            "list the pictures in a CSV with the columns path, age, gender, ethnicity, and your own"
        )
    if splits is not None:
        sets = with_splits(sets, splits)
    shared = has_shared_splits(source, labels)
    keys = [sample.key for data_set in sets for sample in data_set.samples]
    excluded: frozenset[str] = frozenset()
    if exclude is not None:
        excluded = _excluded(exclude, keys, named=True)
    elif splits is None and shared:
        excluded = _excluded(EXCLUSIONS, keys)
    present = Counter(sample.split for data_set in sets for sample in data_set.samples)
    if not any(present) or (split == "all" and split not in present):
        split = ""
    given = {"splits": splits, "exclude": exclude}
    lists = {option: path.name for option, path in given.items() if path is not None}
    others = {name: present[name] for name in SPLITS if split and name != split and present[name]}
    if others:
        log.info(
            "%d of %d pictures are in other splits (%s) and are not scored; --split all scores all",
            sum(others.values()),
            present.total(),
            ", ".join(f"{name} {n}" for name, n in others.items()),
        )
    return EvaluationData(
        source=source,
        sets=sets,
        split=split,
        whole=[_in_split(data_set, split) for data_set in sets],
        exclusions=exclude or EXCLUSIONS,
        excluded=excluded,
        by=by,
        shared=shared,
        lists=lists if lists or not shared else None,
    )


def _columns(names: Sequence[str]) -> tuple[str, ...]:
    """Column names in the form of ``read_rows``, without repeats."""
    columns = tuple(dict.fromkeys(name.strip().lower() for name in names))
    for name in columns:
        why = TAKEN if " x " in name or ": " in name else NOT_BY.get(name)
        if why is not None:
            raise OptionError(f"--by {name or repr(name)}: {why}")
    return columns


def _in_split(data_set: DataSet, split: str) -> DataSet:
    """Put a data set without splits of its own into one split entirely.

    If it has splits, rows without one or with an unknown one are listed as skipped.
    """
    if not any(sample.split for sample in data_set.samples):
        samples = (dataclasses.replace(sample, split=split) for sample in data_set.samples)
        return dataclasses.replace(data_set, samples=tuple(samples))
    lost = [
        (s.key, f"split {s.split!r} is none of {', '.join(SPLITS)}" if s.split else "no split")
        for s in data_set.samples
        if split and s.split not in (*SPLITS, split)
    ]
    if lost:
        text = "%d pictures are in no known split, the first %s: %s"
        log.warning(text, len(lost), *lost[0])
    return dataclasses.replace(data_set, skipped=(*data_set.skipped, *lost))


def read_exclusions(path: Path = EXCLUSIONS) -> dict[str, dict[str, str]]:
    """Rows of a CSV of pictures to leave out, by the name it has for each.

    Raises:
        OptionError: the CSV cannot be read, or has no column of names.
    """
    return {row["file"]: row for row in read_rows(path, ("file",))}


def _excluded(path: Path, keys: Sequence[str], *, named: bool = False) -> frozenset[str]:
    """Keys of the pictures a CSV lists, by file name or by the end of the path.

    If the user ``named`` the list, entries that match no picture are logged; if none matches, that
    is an error.
    """
    names = read_exclusions(path)
    excluded = frozenset(keys) & rows_by_picture(names, keys).keys()
    if named and len(excluded) < len(names):
        text = f"{len(names) - len(excluded)} of {len(names)} excluded names match no picture"
        if not excluded:
            raise OptionError(
                f"{path}: {text}, or pictures in several folders: check --exclude and --data"
            )
        log.warning("%s, or pictures in several folders", text)
    return excluded
