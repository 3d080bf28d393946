"""Choose the confusions to correct a table with: those of its own model, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.annotated import has_temperatures_of, read_manifest, table_name
from facewise.audit.table import Faces
from facewise.errors import ModelNotFoundError, OptionError
from facewise.models import ModelSpec, load_spec
from facewise.reporting.confusions import Confusions

Known = Mapping[str, Mapping[str, Confusions]]
"""Data set of the calibration faces to attribute to confusions."""

COUNTED: Final = "shares are counted, not corrected"


def read_confusions(spec: ModelSpec) -> dict[str, dict[str, Confusions]]:
    """A model's confusions; empty if none were fitted."""
    stored: Mapping[str, Any] = spec.calibration.get("confusions", {})
    return {
        source: {name: Confusions.from_dict(c) for name, c in attributes.items()}
        for source, attributes in stored.items()
    }


def choose_sources(known: Known, wanted: str | None) -> Known:
    """The named source, or all: only the data's owner can know which one they resemble.

    Raises:
        OptionError: the model has no confusions of that name.
    """
    if wanted is None:
        return known
    if wanted not in known:
        have = ", ".join(known) or "none: run facewise evaluate --fit"
        raise OptionError(f"the model knows no confusions of {wanted!r}; it has {have}")
    return {wanted: known[wanted]}


def known_confusions(
    faces: Faces, tables: Sequence[Path], model: str | None = None
) -> tuple[dict[str, dict[str, Confusions]], list[str]]:
    """Confusions of the model that made the tables, and the reasons if there are none.

    Other weights or temperatures give other probabilities, so their confusions do not apply.

    Args:
        faces: the faces read from the tables.
        tables: their folders or files, for the manifests.
        model: name or spec path; None takes the model that the rows name.

    Raises:
        ModelIntegrityError: the model's confusions are malformed.
        TableError: a manifest cannot be read.
    """
    try:
        # Any version will do: weights and temperatures are compared below.
        spec = load_spec(model or faces.model[0].partition("@")[0] or "default")
    except ModelNotFoundError as error:
        return {}, [f"{COUNTED}: {error} (name the spec with --model)"]
    here = f"{spec.name}@{spec.version}"
    if faces.model[1] and spec.sha256 != faces.model[1]:
        return {}, [f"{COUNTED}: {here} here has other weights than the table's"]
    for table in tables if faces.model[1] else ():
        manifest = read_manifest(table)
        alike = here == faces.model[0] if manifest is None else has_temperatures_of(manifest, spec)
        if alike:
            continue
        which = f"{table_name(table)} ({faces.model[0]})"
        why = f"nothing shows that {which} has the temperatures of {here}"
        if manifest is not None:
            why = f"{which} has other temperatures than {here} has now: was that calibrated since?"
        return {}, [f"{COUNTED}: {why} (name the spec that made it with --model, or annotate anew)"]
    known = read_confusions(spec)
    return known, [] if known else [f"{COUNTED}: the model has no confusions (evaluate --fit)"]
