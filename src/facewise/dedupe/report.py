"""Results of a search for near-duplicates: plain numbers, Markdown, and sheets of pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from facewise.data.lists import Row
from facewise.data.sets import DataSet
from facewise.dedupe.fingerprints import Fingerprints, named_samples
from facewise.dedupe.likeness import CONFIRMED
from facewise.dedupe.lists import (
    across_splits,
    age_range,
    compare_with_list,
    conflicts,
    exclusions,
    years_apart,
)
from facewise.dedupe.noise import label_noise
from facewise.dedupe.pairs import Pair, join
from facewise.images import load_photo
from facewise.labels import ATTRIBUTES
from facewise.reporting.figures import NONE, SHARE, YEARS, cell
from facewise.reporting.report import Report

if TYPE_CHECKING:
    from PIL import Image

TITLE: Final = "Near-duplicates"
_KEYS: Final = frozenset(("pictures", "near_bits", "hash_pairs_not_confirmed", "label_noise"))
"""Keys that every summary has, and hardly any other file."""

TILE_PX: Final = 112
CAPTION_PX: Final = 30
COLUMNS: Final = 6
PAIRS_A_SHEET: Final = 90


def named_groups(prints: Fingerprints, pairs: Sequence[Pair]) -> list[list[str]]:
    """Groups as file names, in the order of ``prints.names``."""
    return [[prints.names[row] for row in rows] for rows in join(len(prints), pairs)]


def summarise(
    prints: Fingerprints,
    pairs: Sequence[Pair],
    labels: Mapping[str, Row],
    listed: Mapping[str, Row],
    *,
    near_bits: int,
    thorough: bool,
) -> dict[str, Any]:
    """All findings as plain data.

    Args:
        prints: the pictures.
        pairs: as returned by ``find_pairs``.
        labels: file name to labels.
        listed: file name to its row in a list to compare with; empty for none.
        near_bits: the threshold with which the pairs were found.
        thorough: whether confirmed pairs beyond the threshold were searched for.
    """
    names = prints.names
    by_hash = named_groups(prints, [p for p in pairs if p.found_by == "hash"])
    groups = named_groups(prints, pairs)
    out: dict[str, Any] = {
        "pictures": len(prints),
        "unreadable": [list(row) for row in prints.unreadable],
        "near_bits": near_bits,
        "thorough": thorough,
        "by_hash": _sizes(by_hash) | {"pairs": sum(p.found_by == "hash" for p in pairs)},
        "all": _sizes(groups) | {"pairs": len(pairs)},
        "hash_pairs_not_confirmed": _listing(
            prints, [p for p in pairs if p.found_by == "hash" and not p.confirmed]
        ),
    }
    if thorough:
        beyond = [p for p in pairs if p.found_by != "hash"]
        counts = Counter((p.found_by, p.mirrored) for p in beyond)
        out["beyond_hash"] = {
            "pairs": len(beyond),
            "by": [
                {"found_by": by, "mirrored": mirrored, "pairs": n}
                for (by, mirrored), n in sorted(counts.items())
            ],
            "list": _listing(prints, beyond),
        }
    if listed:
        out["list"] = {
            "pictures_listed": sum(name in listed for name in names),
            "by_hash": compare_with_list(by_hash, listed, names),
            "all": compare_with_list(groups, listed, names),
        }
        crossing = across_splits(groups, listed)
        hash_crossing = across_splits(by_hash, listed)
        left_out = exclusions(crossing)
        out["across_splits"] = {
            "groups": len(crossing),
            "groups_by_hash": len(hash_crossing),
            "left_out": dict(Counter(row["split"] for row in left_out)),
            "list": crossing,
        }
    same = named_groups(prints, [p for p in pairs if p.confirmed])
    rows = conflicts(same, labels)
    kinds = {row["duplicate_group"]: row["disagree"].split() for row in rows}
    out["conflicts"] = {
        "groups": len(kinds),
        **{column: sum(column in kind for kind in kinds.values()) for column in ATTRIBUTES},
        "age_by_more_than_5_years": sum(
            years_apart([labels[name] for name in group]) > 5 for group in same
        ),
        "of_confirmed_groups": len(same),
        "of_groups_with_labels": sum(
            any(sum(column in labels[name] for name in group) > 1 for column in ATTRIBUTES)
            for group in same
        ),
    }
    out["label_noise"] = label_noise([[_labels(labels[name]) for name in group] for group in same])
    return out


def _sizes(groups: Sequence[Sequence[str]]) -> dict[str, int]:
    return {
        "groups": len(groups),
        "pictures": sum(map(len, groups)),
        "largest": max(map(len, groups), default=0),
    }


def _listing(prints: Fingerprints, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [
        {
            "files": [prints.names[p.first], prints.names[p.second]],
            "bits": p.bits,
            "likeness": round(p.likeness, 3),
            "mirrored": p.mirrored,
            "found_by": p.found_by,
        }
        for p in pairs
    ]


def _labels(row: Row) -> dict[str, int | str | None]:
    """Labels for the noise estimate: the age if known to the year, and classes by name."""
    first, last = age_range(row) or (0, 1)
    age = first if first == last else None
    return {"age": age, "gender": row.get("gender"), "ethnicity": row.get("ethnicity")}


def is_report(path: Path) -> bool:
    """Whether a file is the page or the summary of a run; False if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            return text.startswith(f"# {TITLE}\n")
        summary = json.loads(text)
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.keys() >= _KEYS


def report(summary: Mapping[str, Any], title: str) -> Report:
    """The summary as a page."""
    page = Report(title)
    rows = [
        ["pictures", summary["pictures"]],
        ["pictures that could not be read", len(summary["unreadable"])],
        [f"groups by hash ({summary['near_bits']} bits of 256)", summary["by_hash"]["groups"]],
        ["pictures in them", summary["by_hash"]["pictures"]],
        [
            f"pairs in them whose detail does not agree (likeness below {CONFIRMED})",
            len(summary["hash_pairs_not_confirmed"]),
        ],
    ]
    if summary["thorough"]:
        rows += [
            ["further pairs, confirmed", summary["beyond_hash"]["pairs"]],
            ["groups, including these pairs", summary["all"]["groups"]],
            ["pictures in them", summary["all"]["pictures"]],
        ]
    page.table(["", "n"], rows)
    if summary["thorough"] and summary["beyond_hash"]["by"]:
        page.text("The further pairs, by the method that found them first:")
        page.table(
            ["found by", "mirrored", "pairs"],
            [
                [row["found_by"], "yes" if row["mirrored"] else "no", row["pairs"]]
                for row in summary["beyond_hash"]["by"]
            ],
        )
    if "list" in summary:
        _list_part(page, summary)
    _noise_part(page, summary)
    return page


def _list_part(page: Report, summary: Mapping[str, Any]) -> None:
    page.heading("Compared with the list")
    page.text(
        f"{summary['list']['pictures_listed']} of {summary['pictures']} pictures are in the list."
    )
    if summary["list"]["all"]["listed"]:
        _groups_beside(page, summary["list"])
    else:
        page.text(
            "The list has no groups to compare with (no value in a column `duplicate_group`)."
        )
    across = summary["across_splits"]
    page.heading("Across splits", 3)
    left = ", ".join(f"{n} of {split}" for split, n in across["left_out"].items())
    page.text(
        f"Groups with files in different splits: {across['groups']}, of which "
        f"{across['groups_by_hash']} by hash alone. Left out of the later split: {left or 'none'}."
    )
    page.table(
        ["file left out", "its split", "same photo in"],
        [
            [f"`{name}`", group["files"][name], _others(group, name)]
            for group in across["list"]
            for name in group["leave_out"]
        ],
    )


def _groups_beside(page: Report, compared: Mapping[str, Any]) -> None:
    page.table(
        ["", "by hash", "with confirmed pairs"],
        [
            [name, *(_shown(compared[kind][key]) for kind in ("by_hash", "all"))]
            for name, key in (
                ("groups in the list", "listed"),
                ("of these, with fewer than two files here", "not_there"),
                ("found", "found"),
                ("share", "share_found"),
                ("found with exactly the same files", "exactly"),
                ("groups that go beyond the list", "beyond"),
            )
            if key != "not_there" or compared["all"][key]
        ],
    )


def _others(group: Mapping[str, Any], name: str) -> str:
    kept = [n for n in group["files"] if n not in group["leave_out"]]
    return ", ".join(f"`{n}` ({group['files'][n]})" for n in kept)


def _shown(value: Any) -> object:
    if isinstance(value, list):
        return len(value)
    if value is None:
        return NONE
    return f"{value:.1%}" if isinstance(value, float) else value


def _noise_part(page: Report, summary: Mapping[str, Any]) -> None:
    held, noise = summary["conflicts"], summary["label_noise"]
    page.heading("Labels that disagree")
    if not held["of_groups_with_labels"]:
        page.text(
            f"None of the {held['of_confirmed_groups']} groups whose detail agrees has labels for "
            "two pictures, so there was nothing to compare."
        )
        return
    page.text(
        f"Of {held['of_groups_with_labels']} groups whose detail agrees and of which two pictures "
        f"have labels, {held['groups']} have labels that disagree: age in {held['age']} (by more "
        f"than five years in {held['age_by_more_than_5_years']}), gender in {held['gender']}, "
        f"ethnicity in {held['ethnicity']}."
    )
    for name in ("gender", "ethnicity"):
        if noise[name]["n_groups"]:
            page.bullets(
                [
                    f"{name}: two labels of one photo disagree in "
                    f"{cell(SHARE, noise[name]['pairs_disagree'])} of cases; if labellers are "
                    "equally good and err independently, each is wrong in at least "
                    f"{cell(SHARE, noise[name]['error_if_independent'])}."
                ]
            )
    if not noise["age"]["n_groups"]:
        return
    page.heading("Age: label noise", 3)
    page.text(
        "Two labels of one photo are two draws of the same noise. A label's mean error is at least "
        "half the mean difference and at most the whole; normal errors would make it the "
        "difference divided by 1.41, Laplace errors the difference divided by 1.5. A model that "
        "knew every apparent age would err by about as much: an estimate, not a floor."
    )
    page.table(
        [
            "age",
            "pairs",
            "disagree",
            "by more than 5 years",
            "mean difference",
            "label error if normal",
            "if Laplace",
            "bounds",
            "sd, robust",
            "sd",
        ],
        [
            _noise_row(name, row)
            for name, row in {"all": noise["age"], **noise["age"]["by_age"]}.items()
        ],
    )


def _noise_row(name: str, row: Mapping[str, Any]) -> list[object]:
    low, high = row["mae_floor_bounds_years"]
    return [
        name,
        row["n_pairs"],
        cell(SHARE, row["share_that_disagrees"]),
        cell(SHARE, row["share_over_5_years"]),
        cell(YEARS, row["mean_difference_years"]),
        cell(YEARS, row["mae_floor_normal_years"]),
        cell(YEARS, row["mae_floor_laplace_years"]),
        f"{low:.2f} to {high:.2f}",
        f"{row['label_sd_robust_years']['value']:.2f}",
        f"{row['label_sd_years']['value']:.2f}",
    ]


def worth_looking_at(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs found only by the closer look, then the others, each with the least alike first."""
    return sorted(pairs, key=lambda p: (p.found_by == "hash", p.likeness))


def contact_sheets(
    prints: Fingerprints, pairs: Sequence[Pair], data_sets: Sequence[DataSet], *, most: int = 4
) -> list[Image.Image]:
    """Sheets of pairs side by side, with the measurements below each.

    Args:
        prints: the pictures.
        pairs: in the order in which to show them.
        data_sets: the data sets that were fingerprinted.
        most: largest number of sheets.
    """
    from PIL import Image, ImageDraw

    places = named_samples(data_sets)

    def tile(row: int) -> Image.Image:
        data_set, sample = places[prints.names[row]]
        rgb = load_photo(data_set.read(sample)).rgb  # any format that was read before, such as HEIC
        return Image.fromarray(rgb).resize((TILE_PX, TILE_PX))

    sheets = []
    for start in range(0, min(len(pairs), most * PAIRS_A_SHEET), PAIRS_A_SHEET):
        part = pairs[start : start + PAIRS_A_SHEET]
        rows = -(-len(part) // COLUMNS)
        width, height = 2 * TILE_PX + 12, TILE_PX + CAPTION_PX
        sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
        pen = ImageDraw.Draw(sheet)
        for index, pair in enumerate(part):
            x, y = index % COLUMNS * width, index // COLUMNS * height
            sheet.paste(tile(pair.first), (x, y))
            sheet.paste(tile(pair.second), (x + TILE_PX, y))
            mirrored = ", mirrored" if pair.mirrored else ""
            text = (
                f"{pair.bits} bits, alike {pair.likeness:.2f}{mirrored}\n"
                f"{prints.names[pair.first][:17]} | {prints.names[pair.second][:17]}"
            )
            pen.multiline_text((x + 2, y + TILE_PX + 2), text, "black", spacing=1)
        sheets.append(sheet)
    return sheets
