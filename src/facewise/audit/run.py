"""Audit tables: read them, correct shares where that is sound, compare, and add notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facewise.annotated import unfinished
from facewise.audit.audit import (
    Estimates,
    audit_faces,
    changes,
    compare_with_reference,
    estimate_all,
)
from facewise.audit.known import COUNTED, Known, known_confusions
from facewise.audit.notes import notes_on
from facewise.audit.prevalence import CombinedShares
from facewise.audit.table import Faces, read_faces
from facewise.errors import OptionError
from facewise.text import counted, printable


def audit_tables(
    tables: Sequence[Path],
    *,
    second: Sequence[Path] = (),
    reference: Mapping[str, Mapping[str, float]] | None = None,
    model: str | None = None,
    source: str | None = None,
    method: str = "em",
    crossings: bool = True,
    tell: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:
    """Figures of the tables, ready for JSON, with notes for the reader.

    Args:
        tables: folders or Parquet files, counted as one.
        second: likewise, to compare them with; ignored if there is a reference.
        reference: a population to compare them with, from ``read_reference``.
        model: spec with the confusions; None takes the model that the tables name. If it is not
            the model that made them, shares are counted, not corrected.
        source: the data set whose confusions to use; None for all.
        method: one of ``prevalence.METHODS``.
        crossings: also cross-tabulate the attributes.
        tell: called at once with problems of a table, which are also in the notes.

    Raises:
        TableError: a table cannot be read, or rows come from several models.
        OptionError: there is no such source or method, or shares cannot be corrected at all.
    """
    faces = read_faces(*tables)
    known, why = known_confusions(faces, tables, model)
    if source is not None and not known:  # the table's fault, or the model's: say which
        reason = why[0].removeprefix(f"{COUNTED}: ")
        raise OptionError(f"--confusions {source} cannot be used: {reason}")
    notes = [*_unfinished(tables, tell), *why]
    figures, shares = audit_faces(faces, known, source=source, method=method, crossings=crossings)
    if reference is not None:
        figures["against_reference"] = compare_with_reference(figures, reference)
        absent = [name for name in reference if name not in figures["against_reference"]]
        notes += [
            f"the reference's {name} is compared with nothing: no face has it" for name in absent
        ]
    elif second:
        other = read_faces(*second)
        notes += [*_unfinished(second, tell), *_in_both(faces, other)]
        if other.model != faces.model:
            notes.append("the two tables are of different models: the change holds theirs, too")
        own, why = known_confusions(other, second, model)
        notes += _add_second(figures, shares, other, own, why, method)
    figures["notes"] = [*map(printable, notes), *notes_on(figures)]
    return figures


def _unfinished(tables: Sequence[Path], tell: Callable[[str], None]) -> list[str]:
    """Notes on tables that annotate has not finished."""
    notes = [note for table in tables if (note := unfinished(table)) is not None]
    for note in notes:
        tell(note)
    return notes


def _in_both(faces: Faces, other: Faces) -> list[str]:
    """A note if tables to compare have names in common, as of a folder before and after it grew."""
    common = len(np.intersect1d(faces.names, other.names, assume_unique=True))
    if not common:
        return []
    return [
        f"{counted(common, 'image_id is', 'image_ids are')} in both tables: if these are the same "
        "pictures, the change's interval takes them for different ones, and is wider than need be"
    ]


def _add_second(
    figures: dict[str, Any],
    shares: Estimates,
    other: Faces,
    own: Known,
    why: Sequence[str],
    method: str,
) -> list[str]:
    """Add a second table's figures, and the change to them, to the first's; returns the notes.

    Only shares made in the same way are compared: counted ones, if one table cannot be corrected
    as the other is.

    Args:
        figures: figures of the first table.
        shares: the shares behind them.
        other: the second table.
        own: confusions of its model.
        why: the reasons if there are none.
        method: one of ``prevalence.METHODS``.
    """
    sources = figures["confusions_from"]
    if own and (lacking := [source for source in sources if source not in own]):
        lack = " or ".join(lacking)
        why, own = [f"counted shares are compared: its model knows no confusions of {lack}"], {}
    used = {source: own[source] for source in sources if own}
    notes = [f"second table: {text}" for text in why]
    figures["second"], shown = audit_faces(other, used, method=method, crossings=False)
    if figures["second"]["correction"]:  # by the sources of the first, which may not be all
        figures["second"]["correction"] = figures["correction"]
    # Draws must not be the first table's, but shares, which may depend on draws, are those shown.
    after = {
        name: {kind: CombinedShares(shown[name][kind].value, s.parts) for kind, s in drawn.items()}
        for name, drawn in estimate_all(other, used, method, sample=1).items()
    }
    figures["change"] = changes(shares, after)
    alone = [name for name in {**shares, **after} if name not in figures["change"]]
    notes += [f"no change of {name}: one of the two tables has it, the other not" for name in alone]
    return notes
