"""``facewise dedupe``."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.options import Verbose, report_path
from facewise.errors import OptionError


def dedupe(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders or tars of pictures.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for lists and contact sheets.")] = Path(
        "runs/dedupe"
    ),
    bits: Annotated[
        int, typer.Option(min=0, max=64, help="Hashes within so many bits of 256 are one picture.")
    ] = 20,
    thorough: Annotated[
        bool,
        typer.Option(
            "--embedding/--hash-only",
            help="Look also for mirrored, tilted, cropped and recoloured copies.",
        ),
    ] = False,
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--list",
            help="CSV with file and any of split, duplicate_group, age, gender, ethnicity, race: "
            "labels, and groups and splits to compare with.",
        ),
    ] = None,
    shares: Annotated[str, typer.Option(help="Of the new split.")] = "train=0.8,val=0.1,test=0.1",
    seed: Annotated[int, typer.Option(help="Of the new split.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="The report, .json and .md; in --out if not given.")
    ] = None,
    left_out: Annotated[
        Path | None,
        typer.Option(
            "--exclusions",
            help="CSV of what to leave out because the list has it in two splits; in --out if not "
            "given.",
        ),
    ] = None,
    sheets: Annotated[int, typer.Option(min=0, help="Contact sheets, at most.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="For reading and comparing.")] = 2,
    verbose: Verbose = 0,
) -> None:
    """Find pictures that are the same photo, and split a data set so that none is in two parts."""
    from facewise.datasets import read_pictures
    from facewise.evaluation.dedupe import find_pairs, fingerprints
    from facewise.evaluation.dedupe_lists import (
        LABEL_COLUMNS,
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
        contact_sheets,
        named_groups,
        summarise,
        worth_looking_at,
    )
    from facewise.evaluation.dedupe_report import report as page

    logging.getLogger("facewise").setLevel(logging.INFO)
    wanted, listed = parse_shares(shares), read_lists(lists or [])
    data_sets = [read_pictures(source) for source in sources]
    if not any(data_set.samples for data_set in data_sets):
        raise OptionError(f"no pictures in {', '.join(map(str, sources))}: check the path")
    path = report or out / "dedupe.json"
    _make_folder("--out", out)
    _make_folder("--report", path.parent)
    if left_out is not None:
        _make_folder("--exclusions", left_out.parent)
    prints = fingerprints(data_sets, threads=threads)
    listed = rows_by_picture(listed, prints.names)
    pairs = find_pairs(prints, near_bits=bits, thorough=thorough, threads=threads)
    groups = named_groups(prints, pairs)
    labels = {name: labels_of(name, listed.get(name)) for name in prints.names}
    summary = summarise(prints, pairs, labels, listed, near_bits=bits, thorough=thorough)
    summary = {"sources": [source.name for source in sources], **summary}

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
        ("duplicate_group", "file", *LABEL_COLUMNS, "disagree"),
        conflicts(groups, labels),
    )
    # What an earlier run wrote here, and this one may not write over.
    sheets_before = (p for p in out.glob("pairs-*.png") if p.stem[len("pairs-") :].isdecimal())
    for stale in (out / "exclusions.csv", *sheets_before):
        stale.unlink(missing_ok=True)
    if listed:
        write_csv(
            left_out or out / "exclusions.csv",
            ("file", "split", "duplicate_of", "in_split"),
            exclusions(summary["across_splits"]["list"]),
        )
    for number, sheet in enumerate(
        contact_sheets(prints, worth_looking_at(pairs), data_sets, most=sheets), start=1
    ):
        sheet.save(out / f"pairs-{number}.png")
    written = json.dumps(summary, indent=1) + "\n"
    report_path(path, ".json").write_text(written, encoding="utf-8")
    text = page(summary, "Near-duplicates").markdown()
    report_path(path, ".md").write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(f"lists and contact sheets: {out}")


def _make_folder(option: str, folder: Path) -> None:
    """A folder that files can be made in: told by making one, before the pictures are read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"{option}: nothing can be written to the folder {folder} ({reason}): name another"
        ) from error
