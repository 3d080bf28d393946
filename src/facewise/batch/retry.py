"""Retry pictures with errors; the others keep their rows, even if their files are gone by now."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple


def read_part(path: Path) -> Any:
    """A part as a ``pyarrow.Table``."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:  # Arrow rejects paths that are not UTF-8
        return pq.ParquetFile(file, pre_buffer=False).read()


def failed(part: Any) -> frozenset[str]:
    """Names of pictures and videos with an error, which is in a row of exactly that name."""
    names = part["image_id"].filter(part["error_code"].is_valid())
    return frozenset(names.to_pylist())


def spliced(part: Any, again: Any) -> Any:
    """Merge retried pictures into a part, keeping its order.

    Args:
        part: the old rows.
        again: new rows of some of its pictures. They replace the old ones unless they have fewer
            rows without errors, as when a video read in part before is gone by now.
    """
    import pyarrow as pa

    new = {span.name: span for span in _spans(again)}
    pieces = []
    for old in _spans(part):
        span = new.get(old.name)
        if span is not None and span.good >= old.good:
            pieces.append(again.slice(span.start, span.rows))
        else:
            pieces.append(part.slice(old.start, old.rows))
    return pa.concat_tables(pieces)


class _Span(NamedTuple):
    """Consecutive rows of one picture or video; ``good`` of them have no error."""

    name: str
    start: int
    rows: int
    good: int


def _spans(table: Any) -> Iterator[_Span]:
    start = 0
    for name, codes in groupby(_rows(table), key=lambda row: row[0]):
        errors = [code for _, code in codes]
        yield _Span(name, start, len(errors), errors.count(None))
        start += len(errors)


def _rows(table: Any) -> Iterator[tuple[str, str | None]]:
    """Picture or video name and error code of every row, unpacked in small batches."""
    columns = ["image_id", "frame_index", "error_code"]
    for batch in table.select(columns).to_batches(max_chunksize=4096):
        for name, frame, code in zip(*(c.to_pylist() for c in batch.columns), strict=True):
            yield name if frame is None else name.rpartition("::")[0], code
