"""An annotated table for those who read it: its Parquet files, and what its manifest says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.errors import MissingExtraError, TableError
from facewise.labels import DECADE_LABELS, ETHNICITY_LABELS, GENDER_LABELS
from facewise.models import ModelSpec

PART_GLOB: Final = "part-*.parquet"
MANIFEST: Final = "_manifest.json"

ALWAYS_THERE: Final = ("image_id", "face_index", "error_code")
"""Columns that every table of facewise has."""

DECADE_COLUMNS: Final = tuple(f"p_age_{name.replace('-', '_')}" for name in DECADE_LABELS)
GENDER_COLUMNS: Final = tuple(f"p_{name}" for name in GENDER_LABELS)
ETHNICITY_COLUMNS: Final = tuple(f"p_{name.lower()}" for name in ETHNICITY_LABELS)
"""Columns of probabilities, in the order of ``facewise.labels``."""

BATCH: Final = 16_384
"""Rows read at a time."""


def part_files(table: Path) -> list[Path]:
    """The table's Parquet files: a folder's parts, or the one file that is named.

    Raises:
        TableError: there is none, or the one file is of another kind.
    """
    if table.is_file() and table.suffix != ".parquet" and not _is_parquet(table):
        raise TableError(
            f"{table} is not an annotated table: name the folder that facewise annotate "
            "wrote, or one of its Parquet files"
        )
    files = [table] if table.is_file() else sorted(table.glob(PART_GLOB))
    if not files:
        raise TableError(f"{table} is not an annotated table: make one with facewise annotate")
    return files


def _is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet's do; what cannot be read is for its reader to report."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return True


def read_batches(
    table: Path, columns: Sequence[str], *, needed: Sequence[str] = ()
) -> Iterator[Any]:
    """A table's record batches with those of some columns that it has, one in memory at a time.

    Args:
        table: a folder, or a Parquet file.
        columns: read where they are there.
        needed: those of them that must be there, beside ``ALWAYS_THERE``.

    Raises:
        TableError: it is not there, is damaged, or is no table of facewise.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("reading a table", "batch") from error
    first: list[str] | None = None
    for path in part_files(table):
        try:
            with (
                path.open("rb") as raw,  # Arrow takes no path whose bytes are no UTF-8
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
            raise TableError(
                f"{path} is damaged ({error}): run the same facewise annotate command again, which "
                "makes it anew"
            ) from error


def read_manifest(table: Path) -> dict[str, Any] | None:
    """What a run left of its settings; None where there is no manifest.

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


def unfinished(table: Path) -> str | None:
    """What a reader of the table must know where annotate has not finished it; else None.

    Raises:
        TableError: its manifest cannot be read.
    """
    manifest = read_manifest(table)
    if manifest is None:  # parts that were copied without it, or one file
        return None
    there, all_of_it = len(list(table.glob(PART_GLOB))), manifest["plan"].get("shards", 0)
    if manifest.get("complete") and there >= all_of_it:
        return None
    return (
        f"{table.name} is not finished ({there:,} of {all_of_it:,} parts are there): shares are of "
        "a part of the pictures that need not be like the rest; run the same annotate command again"
    )


def has_temperatures_of(manifest: Mapping[str, Any], spec: ModelSpec) -> bool:
    """Whether a table's probabilities are shown to be calibrated as this model's are.

    Gates and intervals may differ. The weights are not looked at: every row has their hash.
    """
    return bool(manifest.get("temperatures") == spec.calibration.get("temperatures", {}))
