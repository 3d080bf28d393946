"""Parquet and Arrow tables with a picture column: bytes, ``{bytes, path}`` or paths."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, Final

from facewise.batch import storage
from facewise.batch.job import PROBLEM, ROW, Item, Job, listed_item
from facewise.batch.watch import Opened
from facewise.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageNotFoundError,
    OptionError,
    needs_extra,
)
from facewise.text import as_utf8

log = logging.getLogger("facewise")

PARQUET: Final = (".parquet", ".pq")
ARROW: Final = (".arrow", ".feather", ".ipc")
ENDINGS: Final = PARQUET + ARROW
READ_ROWS: Final = 32
"""Rows read at a time when they hold picture bytes."""

LARGE_GROUP: Final = 256 << 20
"""Uncompressed bytes of a row group's pictures above which we warn about memory: Arrow, and so
every worker, reads a row group's column, or large parts of it, at once."""

PATH_NAMES: Final = ("image", "image_path", "path", "file", "file_name", "filename", "url")
"""String columns assumed to hold paths when no column is named."""


def _pyarrow() -> Any:
    with needs_extra("a table", "batch"):
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    return pyarrow


def list_rows(source: str, job: Job, opened: Opened) -> Iterator[Item]:
    """One item per row, in the table's order; a damaged table ends in a PROBLEM item.

    Args:
        source: path or URL.
        job: names the columns.
        opened: has the table; told if it is a list, which is never read again.

    Raises:
        OptionError: no picture column is found, or the id column is unusable or lacks a value.
        ImageNotFoundError: the table cannot be read.
    """
    pa = _pyarrow()
    path = storage.absolute(source)
    try:
        with storage.open_binary(source) as file:
            reader = _Parquet(pa, file) if _is_parquet(source) else _Ipc(pa, file)
            column, is_path = find_column(pa, source, reader.schema, job.image_column)
            if job.id_column is not None:
                _check_ids(pa, source, reader.schema, job.id_column)
            if is_path:
                opened.is_list(source)
            elif isinstance(reader, _Parquet):
                _warn_of_memory(source, *reader.largest_group(column))
            wanted = [column] if is_path else []
            wanted += [job.id_column] if job.id_column is not None else []
            for row, (group, within, values) in enumerate(reader.rows(wanted)):
                own_id = None
                if job.id_column is not None:
                    value = values[job.id_column]
                    if value is None or not (own_id := _name(value)):
                        raise OptionError(f"{source}: row {row} has no {job.id_column}")
                if is_path:
                    yield listed_item(source, row, values[column], own_id)
                else:
                    image_id = f"{source}::{row}" if own_id is None else own_id
                    named = own_id is not None
                    yield Item(as_utf8(image_id), ROW, path, row, within, group, own_id=named)
    except ImageNotFoundError:  # may be transient, unlike Arrow's errors below about the content
        raise
    except (pa.ArrowException, OSError, EOFError) as error:
        yield Item(as_utf8(source), PROBLEM, _damage(error))


def _warn_of_memory(source: str, size: int, rows: int) -> None:
    if size > LARGE_GROUP:
        log.warning(
            "%s: a row group holds %s MB of pictures, and each worker may hold as much at once: "
            "if memory is short, write the table again with row_group_size=%d, or use fewer "
            "workers",
            source,
            f"{size / 1e6:,.0f}",
            max(rows * (LARGE_GROUP // 4) // size, 1),
        )


def _damage(error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the table is damaged ({reason}): copy it again"


def find_column(pa: Any, source: str, schema: Any, wanted: str | None) -> tuple[str, bool]:
    """The picture column, and whether it holds paths rather than bytes."""
    if wanted is not None:
        _check_column(source, wanted, schema)
        kind = schema.field(wanted).type
        if _holds_bytes(pa, kind):
            return wanted, False
        if _holds_strings(pa, kind):
            return wanted, True
        raise OptionError(f"{source}: column {wanted} is {kind}: pictures must be binary or paths")
    held = [
        field.name
        for field in schema
        # Fixed-size columns usually hold hashes, hardly ever pictures: these must be named.
        if _holds_bytes(pa, field.type) and not pa.types.is_fixed_size_binary(field.type)
    ]
    if len(held) == 1:
        return held[0], False
    named = [
        field.name
        for field in schema
        if field.name.lower() in PATH_NAMES and _holds_strings(pa, field.type)
    ]
    if not held and len(named) == 1:
        return named[0], True
    raise OptionError(
        f"{source}: which column has the pictures? Name it as image_column (--image-column); "
        f"there are {', '.join(schema.names)}"
    )


def _check_ids(pa: Any, source: str, schema: Any, name: str) -> None:
    """Check that a column's values can serve as names.

    Raises:
        OptionError: the column is missing, there twice, or nested.
    """
    _check_column(source, name, schema)
    if pa.types.is_nested(kind := schema.field(name).type):
        raise OptionError(f"{source}: column {name} is {kind}: ids must be text, numbers or bytes")


def _name(value: Any) -> str:
    """An id as text; bytes are decoded as UTF-8, with invalid ones as escapes."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _check_column(source: str, name: str, schema: Any) -> None:
    times = schema.names.count(name)
    if times == 0:
        raise OptionError(f"{source}: no column {name}; there are {', '.join(schema.names)}")
    if times > 1:  # as joins leave it
        raise OptionError(f"{source}: column {name} is there {times} times: rename or drop one")


def _holds_bytes(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return "bytes" in names and _holds_bytes(pa, kind.field("bytes").type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(pa, kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)  # used by polars
        or pa.types.is_fixed_size_binary(kind)
    )


def _holds_strings(pa: Any, kind: Any) -> bool:
    if pa.types.is_dictionary(kind):  # from pandas' categories
        return _holds_strings(pa, kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)  # used by pandas
        or pa.types.is_string_view(kind)  # used by polars
    )


def _is_parquet(source: str) -> bool:
    return storage.path_part(source).lower().endswith(PARQUET)


class _Parquet:
    """Rows of a Parquet file, a few at a time."""

    def __init__(self, pa: Any, file: Any) -> None:
        self._file = pa.parquet.ParquetFile(file, pre_buffer=False)
        self.schema = self._file.schema_arrow

    def rows(self, columns: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Row group, row number within it, and the values of ``columns``."""
        for group in range(self._file.num_row_groups):
            if not columns:
                for within in range(self._file.metadata.row_group(group).num_rows):
                    yield group, within, {}
                continue
            within = 0
            for batch in self._file.iter_batches(4096, row_groups=[group], columns=columns):
                for values in batch.to_pylist():
                    yield group, within, values
                    within += 1

    def largest_group(self, column: str) -> tuple[int, int]:
        """Uncompressed bytes of a column in its largest row group, and that group's rows."""
        about = self._file.metadata
        sizes = [(0, 0)]
        for group in map(about.row_group, range(about.num_row_groups)):
            parts = map(group.column, range(group.num_columns))
            held = (part for part in parts if f"{part.path_in_schema}.".startswith(f"{column}."))
            sizes.append((sum(part.total_uncompressed_size for part in held), group.num_rows))
        return max(sizes)

    def batches(self, group: int, column: str) -> Iterator[Any]:
        yield from self._file.iter_batches(
            READ_ROWS, row_groups=[group], columns=[column], use_threads=False
        )


class _Ipc:
    """Rows of an Arrow file or stream; a group is a record batch."""

    def __init__(self, pa: Any, file: Any) -> None:
        self._pa, self._raw = pa, file
        self._reader = self._start()
        self.schema = self._reader.schema

    def _start(self) -> Any:
        self._raw.seek(0)
        if self._raw.read(6) == b"ARROW1":
            return self._pa.ipc.open_file(self._raw)
        self._raw.seek(0)
        self._position = 0
        return self._pa.ipc.open_stream(self._raw)

    def _groups(self, first: int) -> Iterator[tuple[int, Any]]:
        if hasattr(self._reader, "num_record_batches"):
            for group in range(first, self._reader.num_record_batches):
                yield group, self._reader.get_batch(group)
            return
        if first < self._position:
            self._reader = self._start()
        for group in count(self._position):
            self._position = sys.maxsize  # after an error or the end, the stream is reopened
            batch = next(self._reader, None)
            if batch is None:
                return
            self._position = group + 1
            if group >= first:
                yield group, batch

    def rows(self, columns: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Record batch, row number within it, and the values of ``columns``."""
        for group, batch in self._groups(0):
            taken = batch.select(columns).to_pylist() if columns else [{}] * batch.num_rows
            for within, values in enumerate(taken):
                yield group, within, values

    def batches(self, group: int, column: str) -> Iterator[Any]:
        for _, batch in islice(self._groups(group), 1):
            for start in range(0, batch.num_rows, READ_ROWS):
                yield batch.select([column]).slice(start, READ_ROWS)


class RowReader:
    """Pictures of one table by row; rows requested in order are read only once."""

    def __init__(self, path: str, wanted: str | None) -> None:
        pa = _pyarrow()
        self._path = path
        self._file = storage.open_binary(path)
        self._table = _Parquet(pa, self._file) if _is_parquet(path) else _Ipc(pa, self._file)
        self._column, _ = find_column(pa, path, self._table.schema, wanted)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._start = 0
        self._rows: Any = None
        self._damage: tuple[int, int, str] = (-1, 0, "")  # group, its first lost row, the reason

    def read(self, group: int, within: int, limit: int) -> bytes:
        """The picture of one row, at most ``limit`` bytes of it.

        Raises:
            CorruptImageError: the table is damaged at that row.
            EmptyImageError: the row has no picture.
            ImageNotFoundError: the table, or a file that the row names, cannot be read.
        """
        if group == self._damage[0] and within >= self._damage[1]:
            raise CorruptImageError(self._damage[2])  # do not reread the group for each row
        if group != self._group or within < self._start:
            self._group, self._start, self._rows = group, 0, None
            self._batches = self._table.batches(group, self._column)
        while self._rows is None or within >= self._start + self._rows.num_rows:
            start = self._start + (0 if self._rows is None else self._rows.num_rows)
            try:
                rows = next(self._batches, None)
            except ImageNotFoundError:  # may be transient: the next row restarts the group
                self._group = -1
                raise
            except Exception as error:
                self._group, self._damage = -1, (group, start, _damage(error))
                raise CorruptImageError(self._damage[2]) from error
            self._start, self._rows = start, rows
            if rows is None:
                self._group = -1
                raise ImageNotFoundError(
                    errno.ENOENT, "the table is shorter than it was: start a new --out", self._path
                )
        value = self._rows.column(0)[within - self._start].as_py()
        if isinstance(value, dict):
            if value["bytes"] is None and value.get("path"):
                return storage.read_range(storage.beside(self._path, value["path"]), limit)
            value = value["bytes"]
        if value is None:
            raise EmptyImageError("the table's row has no picture")
        data: bytes = value
        return data[:limit]

    def close(self) -> None:
        self._file.close()
