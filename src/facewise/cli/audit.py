"""``facewise audit TABLE...``."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from facewise.annotated import part_files, table_name
from facewise.cli.options import Verbose, local_path, report_path
from facewise.cli.outputs import Outputs
from facewise.cli.streams import note
from facewise.errors import OptionError, needs_extra
from facewise.files import write_json, write_text
from facewise.text import printable


def audit(
    tables: Annotated[
        list[Path],
        typer.Argument(
            parser=local_path,
            metavar="TABLE",
            help="Tables written by facewise annotate; several count as one.",
        ),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            parser=local_path,
            metavar="TABLE",
            help="A second table, to report the change to it (repeat for its parts), or a "
            "reference CSV or TSV.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Name of the report, for NAME.html and NAME.json; or a folder (existing, or "
            "ending in /), for audit.html and audit.json.",
        ),
    ] = None,
    confusions: Annotated[
        str | None,
        typer.Option(
            help="Which calibration faces yours are like: fairface or utkface. By default, "
            "intervals cover all that the model has."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Correction method: em or adjusted.")] = "em",
    model: Annotated[
        str | None, typer.Option(help="Model whose confusions to use; default: the table's.")
    ] = None,
    crossings: Annotated[bool, typer.Option(help="Also report crossings of attributes.")] = True,
    verbose: Verbose = 0,
) -> None:
    """Report who is in a data set: shares corrected for known model errors, with intervals."""
    with needs_extra("a table", "batch"):
        import pyarrow  # noqa: F401
    from facewise.audit.reference import read_reference
    from facewise.audit.report import is_report, make_report, summary
    from facewise.audit.run import audit_tables
    from facewise.data.lists import is_table

    written = [] if out is None else _report_paths(out)
    against = against or []
    outputs = Outputs("--out", [*tables, *against])
    for path in written:
        outputs.add(path, is_report)
    is_reference = len(against) == 1 and is_table(against[0])  # Parquet files are annotate's
    reference = read_reference(against[0]) if is_reference else None
    figures = audit_tables(
        _each_once(tables),
        second=[] if is_reference else _each_once(against),
        reference=reference,
        model=model,
        source=confusions,
        method=method,
        crossings=crossings,
        tell=note,
    )
    more = f" and {len(tables) - 1:,} more" if len(tables) > 1 else ""
    typer.echo(summary(figures, printable(f"{tables[0]}{more}")))
    if written:
        html, data = written
        page = make_report(figures, f"{table_name(tables[0])}{more}").html()
        write_text(html, page)
        write_json(data, figures)
        typer.echo(f"full report: {html}, {data}")


def _report_paths(out: str) -> list[Path]:
    """Paths of page and figures; ``out`` is a string because a Path drops a trailing slash."""
    is_folder = out.endswith(("/", os.sep)) or Path(out).is_dir()
    name = Path(out) / "audit" if is_folder else Path(out)
    return [report_path(name, suffix) for suffix in (".html", ".json")]


def _each_once(tables: list[Path]) -> list[Path]:
    """Return the tables, after checking that no part is named twice (as a file and by its folder).

    Raises:
        OptionError: a part is named twice.
        TableError: there is no such table.
    """
    files = Counter(part.resolve() for table in tables for part in part_files(table))
    if twice := [file for file, count in files.items() if count > 1]:
        raise OptionError(f"{twice[0]} is named twice: its faces would count twice")
    return tables
