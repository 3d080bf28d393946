"""``facewise thumbs TABLE --by COLUMN --out SHEET``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facewise.cli.drawings import is_drawing, save_drawing
from facewise.cli.options import Verbose, local_path
from facewise.cli.outputs import Outputs
from facewise.cli.streams import note
from facewise.errors import OptionError, needs_extra
from facewise.text import printable


def thumbs(
    table: Annotated[
        Path,
        typer.Argument(
            parser=local_path, metavar="TABLE", help="Table written by facewise annotate."
        ),
    ],
    by: Annotated[
        str,
        typer.Option(help='Order: a column, "interval" (its width) or "abstentions" (how many).'),
    ],
    out: Annotated[Path, typer.Option(help="PNG to write; it shows faces, so mind who sees it.")],
    count: Annotated[int, typer.Option(help="Most faces to draw.")] = 60,
    largest: Annotated[
        bool, typer.Option("--largest", help="Put the largest values first, not the smallest.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Draw a contact sheet of faces, ordered by any column, and print their names."""
    with needs_extra("a table", "batch"):
        import pyarrow  # noqa: F401
    from facewise.batch.thumbs import make_sheet

    if out.suffix.lower() != ".png":
        raise OptionError(f"{out}: the sheet is a PNG, so its name must end in .png")
    Outputs("--out").add(out, is_drawing)
    out.parent.mkdir(parents=True, exist_ok=True)  # first: making a sheet takes a while
    sheet, chosen = make_sheet(table, by, count=count, largest=largest, note=note)
    save_drawing(sheet, out)
    rows = [(n, face.value, face.image_id, face.face_index) for n, face in enumerate(chosen, 1)]
    for row in [("number", by, "image_id", "face_index"), *rows]:
        typer.echo("\t".join(printable(str(cell)) for cell in row))
