"""Reads the data sets at a path: the folder of docs/training.md, one of its sets, or a CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from facewise.data.lists import is_table, read_lists, rows_by_picture, split_name
from facewise.data.sets import DataSet, read_csv, read_fairface, read_utkface
from facewise.errors import OptionError

UTKFACE: Final = ("utkface.tar", "UTKFace")
FAIRFACE: Final = ("fairface.tar", "FairFace")
"""The first that exists is read."""

SPLITS_FILE: Final = "utkface_splits.csv"
LABELS_FILE: Final = "fairface_labels.csv"
"""Files beside the data sets."""

OTHER_LISTS: Final = (".txt", ".parquet", ".json", ".jsonl", ".xlsx")
A_LIST: Final = (
    "a CSV or TSV with a column path and any of age, gender, ethnicity (docs/evaluation.md)"
)


def read_folder(folder: Path) -> list[DataSet]:
    """Read UTKFace, FairFace or both from a folder laid out as in docs/training.md; or a CSV.

    Raises:
        OptionError: neither is there, or one cannot be read.
    """
    if is_table(folder):
        return [read_csv(folder)]
    if not (found := _read_both(folder)):
        raise OptionError(
            f"{folder} holds neither utkface.tar nor fairface.tar, nor their folders; to learn "
            "from pictures of your own name a CSV of path and labels (docs/training.md)"
        )
    return found


def read_any(data: Path, labels: Path | None = None, by: Sequence[str] = ()) -> list[DataSet]:
    """Read anything that ``read_folder`` reads, or UTKFace or FairFace alone.

    Args:
        data: a CSV; a folder of both sets; UTKFace as a folder or tar; with ``labels``, FairFace.
        labels: FairFace's labels.
        by: further columns of the CSV, or of FairFace's labels, to keep. UTKFace has none.

    Raises:
        OptionError: it is none of these, cannot be read, or lacks a column.
    """
    if not data.exists():
        raise OptionError(f"{data} does not exist: name your data with --data, such as {A_LIST}")
    if data.suffix.lower() in OTHER_LISTS:
        raise OptionError(f"{data}: a list of labelled pictures is {A_LIST}; save it as that")
    if labels is not None:
        return [read_fairface(data, labels, by)]
    if is_table(data):
        return [read_csv(data, by)]
    if found := _read_both(data, by):
        return found
    one = _read_utkface(data)
    if not one.samples:
        raise OptionError(
            f"{data} holds no picture named as UTKFace's are: pass --labels for FairFace, or a CSV "
            "with the columns path, age, gender, ethnicity"
        )
    return [one]


def has_shared_splits(data: Path, labels: Path | None = None) -> bool:
    """Whether the shared data sets' splits apply: their list is in ``data``, or beside it or
    ``labels``.
    """
    folders = [data, data.parent, *([labels.parent] if labels is not None else [])]
    return not is_table(data) and any((folder / SPLITS_FILE).exists() for folder in folders)


def with_splits(sets: Sequence[DataSet], path: Path) -> list[DataSet]:
    """Assign pictures to the splits of a list; those it does not name are in no split.

    Raises:
        OptionError: the list cannot be read, or gives no picture a split.
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


def _read_both(folder: Path, by: Sequence[str] = ()) -> list[DataSet]:
    found = []
    if (source := _first(folder, UTKFACE)) is not None:
        found.append(_read_utkface(source))
    if (source := _first(folder, FAIRFACE)) is not None:
        found.append(read_fairface(source, folder / LABELS_FILE, by))
    return found


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _read_utkface(source: Path) -> DataSet:
    splits = source.parent / SPLITS_FILE
    return read_utkface(source, splits if splits.exists() else None)
