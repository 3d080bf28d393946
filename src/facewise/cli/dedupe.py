"""``facewise dedupe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.options import Verbose, check_folder, local_path, report_path
from facewise.cli.outputs import Outputs
from facewise.cli.streams import note
from facewise.errors import OptionError


def dedupe(
    sources: Annotated[
        list[Path],
        typer.Argument(parser=local_path, metavar="SOURCE", help="Folders or tars of pictures."),
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
            parser=local_path,
            metavar="FILE.csv",
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
    from facewise.data.lists import read_lists
    from facewise.dedupe.lists import parse_shares
    from facewise.dedupe.run import EXCLUSIONS, MARK, Places, page_of, search, write

    wanted, listed = parse_shares(shares), read_lists(lists or [])
    path = report or out / MARK
    pages = [report_path(path, suffix) for suffix in (".json", ".md")]
    places = Places(out, [out / MARK, *pages], left_out or out / EXCLUSIONS)
    _check_outside(out, sources)
    outputs = Outputs("--out, --report or --exclusions", [*sources, *(lists or [])])
    for output, is_ours in places.outputs():
        outputs.add(output, is_ours)
    check_folder("--out", out)
    check_folder("--report", path.parent)
    check_folder("--exclusions", places.exclusions.parent)
    found = search(sources, listed, near_bits=bits, thorough=thorough, threads=threads)
    for oddity in write(found, places, shares=wanted, seed=seed, sheets=sheets):
        note(oddity)
    typer.echo(page_of(found))
    typer.echo(f"lists and contact sheets: {out}")


def _check_outside(out: Path, sources: list[Path]) -> None:
    for source in sources:
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise OptionError(
                f"--out {out} lies in {source}, where its contact sheets would count as pictures: "
                "choose a folder elsewhere"
            )
