"""File lists compared with near-duplicate groups: labels, splits, and what a list misses."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from facewise.data.lists import (
    Row,
    either,
    is_unknown,
    parse_age,
    parse_label,
    short_name,
    split_name,
)
from facewise.data.sets import SPLITS, parse_utkface_name
from facewise.errors import OptionError
from facewise.labels import (
    ATTRIBUTES,
    ETHNICITY_LABELS,
    ETHNICITY_SYNONYMS,
    GENDER_LABELS,
    GENDER_SYNONYMS,
)

LARGE_GROUP: Final = 0.05
MANY_ALIKE: Final = 10
"""A group of more than this share of all pictures, and of more than this many, deserves a look."""

FAR_OFF: Final = 0.05
"""How far a split's share of the pictures may be from the requested one."""

EXCLUSION_COLUMNS: Final = ("file", "split", "duplicate_of", "in_split")


def labels_of(name: str, row: Row | None) -> Row:
    """Age, gender and ethnicity of a file, from its row or else from a UTKFace file name.

    Spellings, synonyms and FairFace's races become labels of the contract, as in
    ``facewise.data.sets.read_csv``; other labels are lower-cased. Unknown ones are absent.
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


def _label(text: str, labels: tuple[str, ...], synonyms: Mapping[str, str]) -> str:
    """A label as the contract spells it, so that Male and male do not disagree."""
    try:
        index = parse_label(text, labels, synonyms)
    except ValueError:
        return text.strip().lower()
    return "" if index is None else labels[index]


def parse_shares(text: str) -> dict[str, float]:
    """Parse shares of 1 by name, from a text such as "train=0.8,test=0.2".

    Raises:
        OptionError: the text has another form, or the shares do not sum to 1.
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
    paths: Mapping[str, str],
    groups: Sequence[Sequence[str]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, str]:
    """Assign files to splits without dividing any group.

    A hash of the seed and a picture's path, in a group the first of its paths, says where in the
    shares it falls. So it keeps its split when others come or go, unless a copy with an earlier
    path comes or the first copy goes. Shares are therefore met as by drawing lots.

    Args:
        paths: name to path below SOURCE, which does not depend on other pictures' names.
        groups: names of the pictures that are one photo, per photo.
        shares: of the splits, by name.
        seed: another one gives other splits.
    """
    ends = list(itertools.accumulate(shares.values()))[:-1]
    first = {name: min(paths[other] for other in group) for group in groups for name in group}
    out = {}
    for name, path in paths.items():
        digest = hashlib.sha256(f"{seed}:{first.get(name, path)}".encode()).digest()
        lot = int.from_bytes(digest[:8], "big") / 2**64
        out[name] = list(shares)[bisect.bisect_right(ends, lot)]
    return out


def lopsided(
    groups: Sequence[Sequence[str]], splits: Mapping[str, str], shares: Mapping[str, float]
) -> list[str]:
    """Describe oddities of an assignment to splits, one sentence each.

    A group that holds a large part of all pictures is rarely one photo, and leaves splits far from
    their shares. Those of few pictures are, too, by chance.
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
        far = abs(held[split] - share * count) > max(1.0, FAR_OFF * count)
        if far or (not held[split] and share * count >= 1):
            found.append(
                f"split {split} got {held[split]:,} of {count:,} pictures in place of "
                f"{share:.0%}: groups are never taken apart, and few pictures divide unevenly "
                "(another --seed divides them otherwise)"
            )
    return found


def compare_with_list(
    groups: Sequence[Sequence[str]], rows: Mapping[str, Row], names: Sequence[str]
) -> dict[str, Any]:
    """Which of a list's groups were found, and which groups go beyond the list.

    A listed group counts as found if all of its files that were read are in one group.
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
    """Groups whose files are in different splits of the list, and which files to leave out."""
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
    """Order of splits; a duplicate is left out of the later one.

    Names that begin with a known split's name count as that split. All others, such as "holdout",
    come last, because nothing was learned from them.
    """
    known = (rank for rank, name in enumerate(SPLITS) if split.startswith(name))
    return next(known, len(SPLITS))


def exclusions(crossing: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The files an evaluation leaves out, one per row, each with the duplicate that is kept."""
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
    """Rows of groups whose labels disagree, and in which columns.

    Ages disagree if they have no year in common: 25 agrees with 25.0 and 20-29.
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
    """First and last year of a row's age; None if it has none that can be read."""
    try:
        return parse_age(row.get("age", ""))
    except ValueError:
        return None


def years_apart(rows: Sequence[Row]) -> int:
    """Largest gap between any two rows' ages; 0 if all have a year in common."""
    ranges = [ages for row in rows if (ages := age_range(row)) is not None]
    if not ranges:
        return 0
    return max(0, max(first for first, _ in ranges) - min(last for _, last in ranges))
