"""Lists of files beside their near-duplicate groups: labels, splits, what a list misses."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.datasets import (
    SPLITS,
    either,
    is_unknown,
    listed_name,
    parse_age,
    parse_label,
    parse_utkface_name,
    read_rows,
    short_name,
    split_name,
)
from facewise.errors import OptionError
from facewise.files import replacing
from facewise.labels import (
    ATTRIBUTES,
    ETHNICITY_LABELS,
    ETHNICITY_SYNONYMS,
    GENDER_LABELS,
    GENDER_SYNONYMS,
)

LARGE_GROUP: Final = 0.05
MANY_ALIKE: Final = 10
"""A group of more than this share, and this many, of all pictures is worth a second look."""

FAR_OFF: Final = 0.05
"""How far a split's share may be from what was asked for."""

EXCLUSION_COLUMNS: Final = ("file", "split", "duplicate_of", "in_split")

Row = dict[str, str]


def read_lists(paths: Sequence[Path]) -> dict[str, Row]:
    """File name to its row, of CSVs with a column ``file``; columns are in lower case.

    Folders are cut off a name as long as no other file is called so: FairFace's own lists have a
    ``train/1.jpg`` and a ``val/1.jpg``.

    Raises:
        OptionError: a list cannot be read, or names a file twice.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        for row in read_rows(path, ("file",)):
            name = row["file"]
            if name in rows:
                raise OptionError(f"{path}: {name} is already listed, here or in another list")
            rows[name] = row
    short = {name: short_name(name) for name in rows}
    times = Counter(short.values())
    return {short[name] if times[short[name]] == 1 else name: row for name, row in rows.items()}


def rows_by_picture(rows: Mapping[str, Row], names: Sequence[str]) -> dict[str, Row]:
    """Rows of lists by the names that pictures go by; rows of other files keep their own.

    A picture's row is that of the longest end of its path that is listed, unless another picture's
    path ends so, too.
    """
    claims = {name: listed_name(name, rows) for name in names}
    times = Counter(claims.values())
    out = {
        name: rows[listed]
        for name, listed in claims.items()
        if listed is not None and (times[listed] == 1 or listed == name)
    }
    return out | {name: row for name, row in rows.items() if name not in times}


def labels_of(name: str, row: Row | None) -> Row:
    """Age, gender and ethnicity of a file by its row of a list or else by UTKFace's file names.

    Labels are the contract's, in any case, by their synonyms and FairFace's races, as
    ``datasets.read_csv`` takes them; others are in lower case. What is unknown is absent.
    """
    parsed = parse_utkface_name(short_name(name))
    out: Row = {}
    if not isinstance(parsed, str):
        age, gender, ethnicity = parsed
        out = {"age": str(age), "gender": GENDER_LABELS[gender]}
        if ethnicity is not None:
            out["ethnicity"] = ETHNICITY_LABELS[ethnicity]
    if row:
        age_text = row.get("age", "")
        ethnicity_text = either(row, "ethnicity", "race")
        given = {
            "age": "" if is_unknown(age_text) else age_text,
            "gender": _label(either(row, "gender", "sex"), GENDER_LABELS, GENDER_SYNONYMS),
            "ethnicity": _label(ethnicity_text, ETHNICITY_LABELS, ETHNICITY_SYNONYMS),
        }
        out |= {name: label for name, label in given.items() if label}
    return out


def _label(text: str, labels: tuple[str, ...], synonyms: Mapping[str, str] | None = None) -> str:
    """A label as the contract spells it, so that Male and male are no disagreement."""
    try:
        index = parse_label(text, labels, synonyms)
    except ValueError:
        return text.strip().lower()
    return "" if index is None else labels[index]


def parse_shares(text: str) -> dict[str, float]:
    """Shares by name, of 1, from a text such as "train=0.8,test=0.2".

    Raises:
        OptionError: it is not that, or does not sum to 1.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\w-]+)\s*=\s*([0-9.]+)\s*", part)
        try:
            name, share = (match[1], float(match[2])) if match else ("", -1.0)
        except ValueError:
            name, share = "", -1.0
        if not name or share <= 0 or name in shares:
            raise OptionError(f"--shares {text!r} must look like train=0.8,val=0.1,test=0.1")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise OptionError(f"--shares {text!r} sum to {sum(shares.values()):g}, not 1")
    return shares


def make_splits(
    names: Sequence[str], groups: Sequence[Sequence[str]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """File to split; a group is never taken apart.

    Groups and single pictures are shuffled by a hash of the seed and their first file's name, then
    dealt out: each goes to the split that lacks most of its share.
    """
    units = [tuple(group) for group in groups]
    grouped = {name for unit in units for name in unit}
    units += [(name,) for name in names if name not in grouped]
    units.sort(key=lambda unit: hashlib.sha256(f"{seed}:{unit[0]}".encode()).digest())
    held = dict.fromkeys(shares, 0)
    out: dict[str, str] = {}
    for unit in units:
        split = max(shares, key=lambda name: shares[name] * (len(out) + len(unit)) - held[name])
        held[split] += len(unit)
        out |= dict.fromkeys(unit, split)
    return out


def lopsided(
    groups: Sequence[Sequence[str]], splits: Mapping[str, str], shares: Mapping[str, float]
) -> list[str]:
    """What is odd about a split that was dealt out, in sentences: a group of a good part of all
    pictures is rarely one photo, and leaves splits far from their shares.
    """
    count, found = len(splits), []
    largest = max(groups, key=len, default=())
    if len(largest) > max(MANY_ALIKE, LARGE_GROUP * count):
        found.append(
            f"{len(largest):,} of {count:,} pictures are in one group, {largest[0]}'s: look at the "
            "pairs, and lower --bits if they are not one photo"
        )
    held = Counter(splits.values())
    for split, share in shares.items():
        # As near as single pictures can come is near enough.
        if abs(held[split] - share * count) > max(1.0, FAR_OFF * count):
            found.append(
                f"split {split} got {held[split]:,} of {count:,} pictures in place of "
                f"{share:.0%}: groups are never taken apart"
            )
    return found


def compare_with_list(
    groups: Sequence[Sequence[str]], rows: Mapping[str, Row], names: Sequence[str]
) -> dict[str, Any]:
    """Which of a list's groups were found, and which groups say more than the list.

    A listed group is found when all of its files that were read are in one group.
    """
    have = set(names)
    listed: dict[str, list[str]] = defaultdict(list)
    for name, row in rows.items():
        if row.get("duplicate_group"):
            listed[row["duplicate_group"]].append(name)
    owner = {name: index for index, group in enumerate(groups) for name in group}
    found, exact, missed, absent = 0, 0, [], 0
    for members in listed.values():
        read = [name for name in members if name in have]
        if len(read) < 2:
            absent += 1
            continue
        homes = {owner.get(name) for name in read}
        if len(homes) == 1 and None not in homes:
            found += 1
            exact += set(groups[owner[read[0]]]) == set(read)
        else:
            missed.append(sorted(read))
    judged = len(listed) - absent
    beyond = [
        list(group)
        for group in groups
        if len({rows.get(name, {}).get("duplicate_group") or name for name in group}) > 1
    ]
    return {
        "listed": len(listed),
        "not_there": absent,
        "found": found,
        "share_found": found / judged if judged else None,
        "exactly": exact,
        "missed": missed,
        "beyond": beyond,
    }


def across_splits(groups: Sequence[Sequence[str]], rows: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Groups whose files the list puts into different splits, and which files to leave out."""
    out = []
    for group in groups:
        told = ((name, split_name(rows.get(name, {}).get("split"))) for name in group)
        splits = {name: split for name, split in told if split}
        if len(set(splits.values())) > 1:
            first = min(splits.values(), key=_rank)
            out.append(
                {"files": splits, "leave_out": sorted(n for n in splits if splits[n] != first)}
            )
    return out


def _rank(split: str) -> int:
    """A picture is left out of the later split when its duplicate is in an earlier one.

    Names that begin so are these splits, too; of any other name, "holdout" say, nothing was
    learned.
    """
    known = (rank for rank, name in enumerate(SPLITS) if split.startswith(name))
    return next(known, len(SPLITS))


def exclusions(crossing: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What an evaluation leaves out: a row a file, with the duplicate that it is left out for."""
    out = []
    for group in crossing:
        splits = group["files"]
        first = min(splits.values(), key=_rank)
        keeper = min(name for name in splits if splits[name] == first)
        out += [
            {
                "file": name,
                "split": splits[name],
                "duplicate_of": keeper,
                "in_split": first,
            }
            for name in group["leave_out"]
        ]
    return sorted(out, key=lambda row: (-_rank(row["split"]), row["file"]))


def conflicts(groups: Sequence[Sequence[str]], labels: Mapping[str, Row]) -> list[Row]:
    """Rows of the groups whose labels disagree, with the columns that do.

    Ages disagree where no year is in all of them: 25 is no other age than 25.0 or 20-29.
    """
    out = []
    for group in groups:
        rows = [labels[name] for name in group]
        differ = ["age"] if years_apart(rows) > 0 else []
        differ += [
            column
            for column in ATTRIBUTES
            if column != "age" and len({row[column] for row in rows if column in row}) > 1
        ]
        if differ:
            out += [
                {
                    "duplicate_group": group[0],
                    "file": name,
                    **{column: labels[name].get(column, "") for column in ATTRIBUTES},
                    "disagree": " ".join(differ),
                }
                for name in group
            ]
    return out


def age_range(row: Row) -> tuple[int, int] | None:
    """First and last year of a row's age; None where it has none, or none that can be read."""
    try:
        return parse_age(row.get("age", ""))
    except ValueError:
        return None


def years_apart(rows: Sequence[Row]) -> int:
    """How far the ages of rows are apart at the least; 0 where one year is in all of them."""
    ranges = [ages for row in rows if (ages := age_range(row)) is not None]
    if not ranges:
        return 0
    return max(0, max(first for first, _ in ranges) - min(last for _, last in ranges))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Rows as CSV with plain line ends, the header in any case; the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def has_header(path: Path, header: Sequence[str]) -> bool:
    """Whether a CSV begins as ``write_csv`` writes it; not where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline() == ",".join(header) + "\n"
    except (OSError, ValueError):
        return False
