"""Reads annotated tables: their Parquet files and manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.errors import TableError, needs_extra
from facewise.labels import DECADE_LABELS, ETHNICITY_LABELS, GENDER_LABELS
from facewise.models import ModelSpec

PART_GLOB: Final = "part-*.parquet"
OWN_PARTS: Final = f"part-{'[0-9]' * 8}*.parquet"
"""Parts that annotate wrote; others are rows that somebody chose."""

MANIFEST: Final = "_manifest.json"

ALWAYS_THERE: Final = ("image_id", "face_index", "error_code")
"""Columns that every annotated table has."""

DECADE_COLUMNS: Final = tuple(f"p_age_{name.replace('-', '_')}" for name in DECADE_LABELS)
GENDER_COLUMNS: Final = tuple(f"p_{name}" for name in GENDER_LABELS)
ETHNICITY_COLUMNS: Final = tuple(f"p_{name.lower()}" for name in ETHNICITY_LABELS)
"""Columns of probabilities, in the order of ``facewise.labels``."""

BATCH: Final = 16_384
"""Rows read at a time."""


def part_files(table: Path) -> list[Path]:
    """The table's Parquet files: a folder's parts, or the one file named.

    Raises:
        TableError: there is none, yet or at all, or the file is of another kind.
    """
    if table.is_file() and table.suffix != ".parquet" and not _is_parquet(table):
        raise TableError(
            f"{table} is not an annotated table: name the folder that facewise annotate "
            "wrote, or one of its Parquet files"
        )
    files = [table] if table.is_file() else sorted(table.glob(PART_GLOB))
    if not files:
        raise TableError(f"{table} {_why_empty(table)}")
    return files


def _why_empty(table: Path) -> str:
    if (table / MANIFEST).exists():
        return "has no finished part yet: run the same facewise annotate command again"
    if "*" in table.name or any(table.rglob("*.parquet")):
        return "is not an annotated table: name one, or its Parquet files one by one (unquoted)"
    return "is not an annotated table: make one with facewise annotate"


def _is_parquet(path: Path) -> bool:
    """Whether a file begins like Parquet; True if unreadable, so that the reader reports it."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return True


def read_batches(
    table: Path, columns: Sequence[str], *, needed: Sequence[str] = ()
) -> Iterator[Any]:
    """A table's record batches, one in memory at a time.

    Args:
        table: a folder, or a Parquet file.
        columns: to read, if present.
        needed: columns that must be present, besides ``ALWAYS_THERE``.

    Raises:
        TableError: it is missing or damaged, or not an annotated table.
        MissingExtraError: pyarrow is not installed.
    """
    with needs_extra("a table", "batch"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    first: list[str] | None = None
    for path in part_files(table):
        try:
            with (
                path.open("rb") as raw,  # Arrow refuses paths that are not UTF-8
                pq.ParquetFile(raw, pre_buffer=False, page_checksum_verification=True) as file,
            ):
                names = file.schema_arrow.names
                if missing := [name for name in (*ALWAYS_THERE, *needed) if name not in names]:
                    raise TableError(
                        f"{path} lacks the columns {', '.join(missing)}: name a table as facewise "
                        "annotate wrote it, or a part of one with these columns"
                    )
                wanted = [name for name in columns if name in names]
                first = first or wanted
                if wanted != first:
                    raise TableError(
                        f"{path} has other columns than the parts before it: annotate them alike"
                    )
                yield from file.iter_batches(BATCH, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{path} is damaged ({error}): {_remedy(path)}") from error


def _remedy(damaged: Path) -> str:
    if damaged.match(OWN_PARTS) and (damaged.parent / MANIFEST).exists():
        return "run the same facewise annotate command again, which makes it anew"
    return "copy it again, or make it anew"


def read_manifest(table: Path) -> dict[str, Any] | None:
    """The manifest, with the settings of the run; None if there is none.

    Raises:
        TableError: it cannot be read.
    """
    path = table / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        manifest["settings"], manifest["plan"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(f"{path} is damaged ({error}): start a new table") from error
    return manifest


def table_name(table: Path) -> str:
    """A table's name for readers, also that of the working folder."""
    return Path(os.path.abspath(table)).name or str(table)  # noqa: PTH100  resolve follows links


def unfinished(table: Path) -> str | None:
    """A warning for readers if annotate has not finished the table; else None.

    Raises:
        TableError: its manifest cannot be read.
    """
    manifest = read_manifest(table)
    if manifest is None:  # parts copied without it, or a single file
        return None
    there, all_of_it = len(list(table.glob(OWN_PARTS))), manifest["plan"]["shards"]
    if there == 0 or (manifest["complete"] and there >= all_of_it):
        return None
    name = table_name(table)
    if there >= all_of_it:
        return (
            f"all parts of {name} are there, but its last run did not end: pictures with "
            "errors may not all have been tried again; run the same annotate command again"
        )
    return (
        f"{name} is not finished ({there:,} of {all_of_it:,} parts are there): shares are of "
        "a part of the pictures that need not be like the rest; run the same annotate command again"
    )


def has_temperatures_of(manifest: Mapping[str, Any], spec: ModelSpec) -> bool:
    """Whether the manifest shows that a table was calibrated with this model's temperatures.

    Gates and intervals may differ. Weights are not compared: every row has their hash.
    """
    return bool(manifest["temperatures"] == spec.calibration.get("temperatures", {}))
