"""``facewise audit TABLE...``."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facewise.cli.options import Verbose, report_path
from facewise.cli.streams import printable
from facewise.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from facewise.audit.table import Faces


def audit(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE", help="Tables written by facewise annotate; several count as one."
        ),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="A second table, to report the change to it (repeat for its parts), or a "
            "reference CSV."
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
            "intervals cover both."
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
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("reading a table", "batch") from error
    from facewise.audit.audit import against as compare
    from facewise.audit.audit import audit as run
    from facewise.audit.audit import changes, estimate_all
    from facewise.audit.reference import read_reference
    from facewise.audit.report import is_report, make_report, summary
    from facewise.audit.table import read_faces

    written = [] if out is None else _report_paths(out)
    for path in written:
        if path.exists() and not is_report(path):
            raise OptionError(
                f"--out: {path} is there already, and no report of facewise audit: name another "
                "report, or remove the file first"
            )
    against = against or []
    is_csv = len(against) == 1 and against[0].suffix.lower() == ".csv"
    reference = read_reference(against[0]) if is_csv else None
    faces = read_faces(*_each_once(tables))
    known, notes = _known(faces, tables, model)
    notes = _unfinished(tables) + notes
    figures, shares = run(faces, known, source=confusions, method=method, crossings=crossings)
    if reference is not None:
        figures["against_reference"] = compare(figures, reference)
        absent = [name for name in reference if name not in figures["against_reference"]]
        notes += [
            f"the reference's {name} is compared with nothing: no face has it" for name in absent
        ]
    elif against:
        second = read_faces(*_each_once(against))
        notes += _unfinished(against)
        if second.model != faces.model:
            notes.append("the two tables are of different models: the change holds theirs, too")
        own, why = _known(second, against, model)
        # Shares are compared that were made alike, which leaves the counted where one table's
        # cannot be corrected as the other's are.
        sources = figures["confusions_from"]
        if own and (lacking := [source for source in sources if source not in own]):
            lack = " or ".join(lacking)
            why, own = [f"counted shares are compared: its model knows no confusions of {lack}"], {}
        used = {source: own[source] for source in sources if own}
        notes += [f"second table: {text}" for text in why]
        figures["second"], _ = run(second, used, method=method, crossings=False)
        after = estimate_all(second, used, method, sample=1)
        figures["change"] = changes(shares, after)
        alone = [name for name in {**shares, **after} if name not in figures["change"]]
        notes += [
            f"no change of {name}: one of the two tables has it, the other not" for name in alone
        ]
    figures["notes"] = [*notes, *_notes(figures)]
    more = f" and {len(tables) - 1:,} more" if len(tables) > 1 else ""
    typer.echo(summary(figures, f"{tables[0]}{more}"))
    if written:
        html, data = written
        page = make_report(figures, f"{tables[0].name}{more}").html()
        html.parent.mkdir(parents=True, exist_ok=True)
        # A table's name may hold bytes that are no UTF-8; escaped like this they are JSON, too.
        html.write_text(page, encoding="utf-8", errors="backslashreplace")
        text = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        data.write_text(text, encoding="utf-8", errors="backslashreplace")
        typer.echo(f"all of it: {html}, {data}")


def _report_paths(out: str) -> list[Path]:
    """Page and figures; ``out`` is text because a Path has lost the / at its end."""
    is_folder = out.endswith(("/", os.sep)) or Path(out).is_dir()
    name = Path(out) / "audit" if is_folder else Path(out)
    return [report_path(name, suffix) for suffix in (".html", ".json")]


def _each_once(tables: list[Path]) -> list[Path]:
    """The tables, of which none may count twice."""
    if twice := [t for t, n in Counter(table.resolve() for table in tables).items() if n > 1]:
        raise OptionError(f"{twice[0]} is named twice: its faces would count twice")
    return tables


def _unfinished(tables: list[Path]) -> list[str]:
    """Notes on tables that annotate has not finished, said at once on standard error."""
    from facewise.parts import unfinished

    notes = [note for table in tables if (note := unfinished(table)) is not None]
    for note in notes:
        typer.echo(printable(f"note: {note}"), err=True)
    return notes


def _known(
    faces: Faces, tables: list[Path], model: str | None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Confusions of the table's model, and why there are none where that is so."""
    from facewise.audit.audit import read_confusions
    from facewise.errors import ModelNotFoundError
    from facewise.models import load_spec
    from facewise.parts import has_temperatures_of, read_manifest

    naive = "shares are counted, not corrected"
    try:
        # Of any version: its weights and temperatures are compared below.
        spec = load_spec(model or faces.model[0].partition("@")[0] or "default")
    except ModelNotFoundError as error:
        return {}, [f"{naive}: {error} (name the spec with --model)"]
    here = f"{spec.name}@{spec.version}"
    if faces.model[1] and spec.sha256 != faces.model[1]:
        return {}, [f"{naive}: {here} here has other weights than the table's"]
    for table in tables if faces.model[1] else ():
        manifest = read_manifest(table)
        alike = here == faces.model[0] if manifest is None else has_temperatures_of(manifest, spec)
        if not alike:
            return {}, [
                f"{naive}: nothing shows that {table.name} ({faces.model[0]}) has the temperatures "
                f"of {here}, whose confusions are known (name the spec that made it with --model, "
                "or annotate anew)"
            ]
    known = read_confusions(spec)
    return known, [] if known else [f"{naive}: the model has no confusions (evaluate --fit)"]


def _notes(figures: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    from facewise.audit.audit import FEW_FACES

    notes = ["faces that were not found are in no share"]
    for said, table in (("", figures), ("second table: ", figures.get("second", {}))):
        if tracks := table.get("tracks", {}).get("n"):
            videos = table["tracks"]["videos"]
            notes.append(
                f"{said}on video a face is a track: {table['tracks']['rows']:,} rows are "
                f"{tracks:,} of them; somebody who leaves the picture and returns counts again, "
                f"so intervals take a video's tracks for one observation ({videos:,} of these)"
            )
        notes += [
            f"{said}{name} is known of {of:,} of {table['faces']:,} faces: its shares are of those"
            for name, of in table.get("known_of", {}).items()
            if of < table["faces"]
        ]
        if few := table.get("too_few_to_correct"):
            notes.append(
                f"{said}{', '.join(few)}: fewer than {FEW_FACES} faces are counted, not corrected"
            )
    sources = figures["confusions_from"]
    if not sources:
        return notes
    if (kept := figures["faces_that_stand_for_all"]) < figures["faces"]:
        notes.append(f"counts are of all faces; {kept:,} of them stand for all in the corrections")
    if len(sources) > 1:  # what follows is in the intervals
        for name in figures["attributes"]:
            have = [source for source in sources if name in figures["by_source"][source]]
            if 0 < len(have) < len(sources):
                notes.append(
                    f"{name} is corrected as on {' or '.join(have)}'s faces alone: the model has "
                    "no other confusions of it"
                )
        return notes
    if "age" in figures["by_source"][sources[0]]:
        notes.append(
            "neighbouring decades are hard to tell apart: the interval of a single decade may hold "
            "its share far less often than 95 % says"
        )
    for other, attributes in figures["by_source"].items():
        for name, values in attributes.items():
            rows = {row["label"]: row["corrected"] for row in figures["attributes"][name]}
            apart = [
                label
                for label, v in values.items()
                if not rows[label]["low"] - 0.02 <= v <= rows[label]["high"] + 0.02
            ]
            if apart:
                notes.append(
                    f"{name} with {other}'s errors (--confusions {other}) would differ by more "
                    f"than the interval for {', '.join(apart)}: without --confusions, intervals "
                    "hold both"
                )
    return notes
