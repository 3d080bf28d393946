"""``facewise dedupe``."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from facewise.cli.options import Verbose, check_folder, report_path
from facewise.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK: Final = "dedupe.json"
"""Always written to --out, as a sign that the lists and sheets there may be replaced."""


def dedupe(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders or tars of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for lists and contact sheets.")] = Path(
        "runs/dedupe"
    ),
    bits: Annotated[
        int,
        typer.Option(
            min=0, max=64, help="Hashes that differ in at most this many of 256 bits are one photo."
        ),
    ] = 20,
    thorough: Annotated[
        bool,
        typer.Option(
            "--embedding/--hash-only",
            help="Also look for mirrored copies, and slightly tilted or cropped ones.",
        ),
    ] = False,
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--list",
            help="CSV with file (or path) and any of split, duplicate_group, age, gender, "
            "ethnicity, race: labels, and groups and splits to compare with.",
        ),
    ] = None,
    shares: Annotated[
        str, typer.Option(help="Shares of the new splits.")
    ] = "train=0.8,val=0.1,test=0.1",
    seed: Annotated[int, typer.Option(help="Random seed of the new splits.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Name of the report (.json and .md); default: in --out.")
    ] = None,
    left_out: Annotated[
        Path | None,
        typer.Option(
            "--exclusions",
            help="CSV for what the list has in two splits, to be left out; in --out if not given.",
        ),
    ] = None,
    sheets: Annotated[int, typer.Option(min=0, help="Most contact sheets to draw.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Threads for reading and comparing.")] = 2,
    verbose: Verbose = 0,
) -> None:
    """Find pictures that are the same photo, and make splits that no photo crosses."""
    from facewise.datasets import read_pictures
    from facewise.evaluation.dedupe import find_pairs, fingerprints
    from facewise.evaluation.dedupe_lists import (
        EXCLUSION_COLUMNS,
        conflicts,
        exclusions,
        labels_of,
        lopsided,
        make_splits,
        parse_shares,
        read_lists,
        rows_by_picture,
        write_csv,
    )
    from facewise.evaluation.dedupe_report import (
        TITLE,
        contact_sheets,
        named_groups,
        summarise,
        worth_looking_at,
    )
    from facewise.evaluation.dedupe_report import report as page
    from facewise.labels import ATTRIBUTES

    logging.getLogger("facewise").setLevel(logging.INFO)
    wanted, listed = parse_shares(shares), read_lists(lists or [])
    path = report or out / MARK
    reports = [out / MARK, *(report_path(path, suffix) for suffix in (".json", ".md"))]
    _check_outputs(sources, lists or [], out, reports, left_out)
    data_sets = [read_pictures(source) for source in sources]
    if not any(data_set.samples for data_set in data_sets):
        raise OptionError(f"no pictures in {', '.join(map(str, sources))}: check the path")
    check_folder("--out", out)
    check_folder("--report", path.parent)
    if left_out is not None:
        check_folder("--exclusions", left_out.parent)
    prints = fingerprints(data_sets, threads=threads)
    listed = rows_by_picture(listed, prints.names)
    pairs = find_pairs(prints, near_bits=bits, thorough=thorough, threads=threads)
    groups = named_groups(prints, pairs)
    labels = {name: labels_of(name, listed.get(name)) for name in prints.names}
    summary = summarise(prints, pairs, labels, listed, near_bits=bits, thorough=thorough)
    summary = {"sources": [source.name for source in sources], **summary}

    # Written first: if the run fails below, --out is already marked as facewise's.
    written = json.dumps(summary, indent=1) + "\n"
    text = page(summary, TITLE).markdown()
    for name in reports:
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(text if name.suffix == ".md" else written, encoding="utf-8")
    splits = make_splits(prints.names, groups, wanted, seed)
    for oddity in lopsided(groups, splits, wanted):
        typer.echo(f"note: {oddity}", err=True)
    owner = {name: group[0] for group in groups for name in group}
    write_csv(
        out / "splits.csv",
        ("file", "split", "duplicate_group"),
        [
            {"file": name, "split": splits[name], "duplicate_group": owner.get(name, "")}
            for name in prints.names
        ],
    )
    write_csv(
        out / "conflicts.csv",
        ("duplicate_group", "file", *ATTRIBUTES, "disagree"),
        conflicts(groups, labels),
    )
    # Files of an earlier run that this one might not overwrite.
    for stale in (out / "exclusions.csv", *_sheets(out)):
        stale.unlink(missing_ok=True)
    if listed:
        write_csv(
            left_out or out / "exclusions.csv",
            EXCLUSION_COLUMNS,
            exclusions(summary["across_splits"]["list"]),
        )
    for number, sheet in enumerate(
        contact_sheets(prints, worth_looking_at(pairs), data_sets, most=sheets), start=1
    ):
        sheet.save(out / f"pairs-{number}.png")
    typer.echo(text)
    typer.echo(f"lists and contact sheets: {out}")


def _sheets(out: Path) -> list[Path]:
    """Existing contact sheets, recognised by their names."""
    return [path for path in out.glob("pairs-*.png") if _is_sheet(path)]


def _is_sheet(path: Path) -> bool:
    return re.fullmatch(r"pairs-\d+\.png", path.name) is not None


def _check_outputs(
    sources: Sequence[Path],
    lists: Sequence[Path],
    out: Path,
    reports: Sequence[Path],
    left_out: Path | None,
) -> None:
    """Refuse outputs that are inputs, coincide, or exist but were not written by an earlier run.

    Raises:
        OptionError: an output is also an input or another output, exists but is not facewise's, or
            would count as a picture of a source.
    """
    from facewise.evaluation.dedupe_lists import EXCLUSION_COLUMNS, has_header
    from facewise.evaluation.dedupe_report import is_report

    for source in sources:
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise OptionError(
                f"--out {out} lies in {source}, where its contact sheets would count as pictures: "
                "choose a folder elsewhere"
            )
    _check_names_differ(out, reports, left_out)
    names = ("splits.csv", "conflicts.csv", "exclusions.csv")
    there = [p for p in (*(out / name for name in names), *_sheets(out)) if p.exists()]
    named = [*reports, *([left_out] if left_out is not None else [])]
    read = {path.resolve() for path in (*sources, *lists)}
    for path in (*there, *named):
        if path.resolve() in read:
            raise OptionError(
                f"{path} is an input, and would be overwritten: choose another --out, --report or "
                "--exclusions"
            )
    if there and not is_report(out / MARK):
        raise OptionError(
            f"--out: {there[0]} already exists, and no {MARK} says that facewise dedupe wrote it: "
            "choose another folder, or remove the file first"
        )
    for path in named:
        ours = has_header(path, EXCLUSION_COLUMNS) if path == left_out else is_report(path)
        if path.exists() and not ours:
            raise OptionError(
                f"{path} already exists, and facewise dedupe did not write it: choose another "
                "--out, --report or --exclusions, or remove the file first"
            )


def _check_names_differ(out: Path, reports: Sequence[Path], left_out: Path | None) -> None:
    """Refuse two outputs with the same path: the later would overwrite the earlier.

    Raises:
        OptionError: two outputs coincide.
    """
    lists = (out / "splits.csv", out / "conflicts.csv", left_out or out / "exclusions.csv")
    # Two of the reports are copies: --report may name the one in --out.
    every = Counter([*{path.resolve() for path in reports}, *(path.resolve() for path in lists)])
    twice = [path for path, count in every.items() if count > 1]
    if left_out is not None and _is_sheet(left_out) and left_out.parent.resolve() == out.resolve():
        twice.append(left_out)
    if twice:
        raise OptionError(
            f"{twice[0]} would be written twice, as two of the outputs: choose another --out, "
            "--report or --exclusions"
        )
