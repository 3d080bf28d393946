"""What an evaluation is of: data sets, their splits, and pictures that are left out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from facewise.data_folder import has_shared_splits, read_any
from facewise.datasets import SPLITS, DataSet, read_rows, split_name
from facewise.errors import OptionError
from facewise.evaluation.dedupe_lists import read_lists, rows_by_picture
from facewise.evaluation.results import by_reason

log = logging.getLogger("facewise")

EXCLUSIONS: Final = Path(__file__).parent / "exclusions.csv"
"""Pictures of the shared data sets whose photo is in an earlier split, too; see docs/dedupe.md."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationData:
    """Data sets, and which of their pictures are scored.

    Attributes:
        source: where they are from, for messages.
        sets: as they were read, or dealt out by a list.
        split: the one to score; "" where no picture has a split.
        whole: the sets where one that has no splits of its own is in ``split`` as a whole.
        exclusions: the list of pictures to leave out, for messages.
        excluded: keys of the pictures to leave out.
    """

    source: Path
    sets: Sequence[DataSet]
    split: str
    whole: Sequence[DataSet]
    exclusions: Path
    excluded: frozenset[str]

    @property
    def splits(self) -> set[str]:
        """Names of the splits that there are; "" is of pictures without one."""
        return {sample.split for data_set in self.sets for sample in data_set.samples}

    def sets_of(self, part: str) -> Sequence[DataSet]:
        """The data sets to look for a split in."""
        return self.whole if part == self.split else self.sets

    def check_left(self, parts: Iterable[str]) -> None:
        """See that exclusions leave something of each split that has pictures.

        Raises:
            OptionError: they do not.
        """
        for part in parts:
            sets = self.sets_of(part)
            there = {s.key for d in sets for s in d.samples if part in ("", s.split)}
            if there and there <= self.excluded:
                raise self.none_left(part)

    def none_left(self, part: str, to: str = "", advice: str = "") -> OptionError:
        """The error that a split has no picture left, to do something with."""
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
) -> EvaluationData:
    """Read what is to be scored.

    Args:
        source: as ``read_any`` takes it.
        labels: FairFace's, where the source is FairFace.
        split: the one to score, in any case.
        splits: CSV that deals the pictures out, in the place of their own splits and groups.
        exclude: CSV of pictures to leave out; None leaves ``EXCLUSIONS`` out of the shared data
            sets by their own splits, and nothing of other data.

    Raises:
        OptionError: something cannot be read, or there is no face that can be used.
    """
    sets, split = read_any(source, labels), split_name(split)
    if not any(data_set.samples for data_set in sets):
        reasons = by_reason([pair for data_set in sets for pair in data_set.skipped])
        named = f"; skipped: {'; '.join(reasons)}" if reasons else ""
        raise OptionError(f"{source} has no face that can be used{named}")
    if splits is not None:
        sets = with_splits(sets, splits)
    keys = [sample.key for data_set in sets for sample in data_set.samples]
    excluded: frozenset[str] = frozenset()
    if exclude is not None:
        excluded = _excluded(exclude, keys, named=True)
    elif splits is None and has_shared_splits(source, labels):
        excluded = _excluded(EXCLUSIONS, keys)
    if not any(sample.split for data_set in sets for sample in data_set.samples):
        split = ""
    return EvaluationData(
        source=source,
        sets=sets,
        split=split,
        whole=[_in_split(data_set, split) for data_set in sets],
        exclusions=exclude or EXCLUSIONS,
        excluded=excluded,
    )


def with_splits(sets: Sequence[DataSet], path: Path) -> list[DataSet]:
    """Data sets dealt out by a list; pictures that it does not name are in no split.

    Raises:
        OptionError: the list cannot be read, or has no split of any picture.
    """
    listed = read_lists([path])
    rows = rows_by_picture(listed, [sample.key for data_set in sets for sample in data_set.samples])
    dealt = [
        dataclasses.replace(
            data_set,
            samples=tuple(
                dataclasses.replace(
                    sample,
                    split=split_name(rows.get(sample.key, {}).get("split")),
                    group=rows.get(sample.key, {}).get("duplicate_group") or sample.key,
                )
                for sample in data_set.samples
            ),
        )
        for data_set in sets
    ]
    if not any(sample.split for data_set in dealt for sample in data_set.samples):
        raise OptionError(f"{path} has no split for any picture: check --splits and --data")
    return dealt


def _in_split(data_set: DataSet, split: str) -> DataSet:
    """A data set that has no splits of its own, as if all of it were in one.

    Of one that has, rows without a split, or of a split that nobody knows, are named as skipped.
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


def _excluded(path: Path, keys: Sequence[str], *, named: bool = False) -> frozenset[str]:
    """Which pictures a CSV lists, by their names or by the ends of their paths.

    Of a list that the user named, what is of no picture is said.
    """
    names = {row["file"]: row for row in read_rows(path, ("file",))}
    excluded = frozenset(keys) & rows_by_picture(names, keys).keys()
    if named and len(excluded) < len(names):
        text = f"{len(names) - len(excluded)} of {len(names)} excluded names match no picture"
        if not excluded:
            raise OptionError(
                f"{path}: {text}, or pictures in several folders: check --exclude and --data"
            )
        log.warning("%s, or pictures in several folders", text)
    return excluded
