"""The plan: every picture assigned to a shard, fixed once and kept with the table.

A restart reads the plan and lists nothing, so files added or removed meanwhile shift no shard.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from facewise.batch import storage
from facewise.batch.job import CHUNK, FILE, ROW, SPARSE, TAR, VIDEO, Item, Task
from facewise.batch.table import PLAN, UNFINISHED, TableFolder, sha256
from facewise.errors import OptionError, TableError


class Plan:
    """A plan on disk, read a shard at a time.

    Args:
        path: the Parquet file.
        shard_size: pictures per shard; the last may have fewer.
        chunk: pictures per task; a shard's last may have fewer.
    """

    def __init__(self, path: Path, shard_size: int, chunk: int = CHUNK) -> None:
        import pyarrow.parquet as pq

        # Opened here because Arrow rejects paths that are not UTF-8.
        self._raw = path.open("rb")
        try:
            self._file = pq.ParquetFile(self._raw, pre_buffer=False)
        except BaseException:
            self._raw.close()
            raise
        self.shard_size, self.chunk = shard_size, chunk
        self.images: int = self._file.metadata.num_rows
        self.shards: int = self._file.metadata.num_row_groups

    def size(self, shard: int) -> int:
        """Number of pictures in a shard."""
        return min(self.shard_size, self.images - shard * self.shard_size)

    def items(self, shard: int) -> list[Item]:
        columns = self._file.read_row_group(shard, use_threads=False).to_pydict()
        columns["path"] = [os.fsdecode(path) for path in columns["path"]]
        return [Item(*values) for values in zip(*columns.values(), strict=True)]

    def tasks(
        self,
        shards: Iterable[int],
        only: Callable[[int], Collection[str] | None] = lambda shard: None,
    ) -> Iterator[Task]:
        """Tasks of the given shards, read lazily.

        Args:
            shards: their numbers.
            only: maps a shard to the wanted names; None for all.
        """
        for shard in shards:
            items, names = self.items(shard), only(shard)
            if names is not None:
                items = [item for item in items if item.image_id in names]
            for chunk, start in enumerate(range(0, len(items), self.chunk)):
                yield Task(shard, chunk, tuple(items[start : start + self.chunk]))

    def close(self) -> None:
        self._file.close()
        self._raw.close()


def _schema() -> Any:
    import pyarrow as pa

    kinds = [pa.string(), pa.int8(), pa.binary(), pa.int64(), pa.int64(), pa.int32(), pa.bool_()]
    kinds.append(pa.string())
    return pa.schema(list(zip(Item._fields, kinds, strict=True)))


def write_plan(folder: TableFolder, items: Iterable[Item], shard_size: int) -> tuple[str, int]:
    """Write the plan, keeping the first item of each name and of each local file.

    Holds one shard in memory, plus 8 bytes per picture to detect repetitions (16 for a file whose
    name is not its absolute path).

    Args:
        folder: the table.
        items: streamed.
        shard_size: pictures per shard.

    Returns:
        SHA-256 of the plan, and the number of repetitions left out.

    Raises:
        OptionError: two different pictures would have the same ``image_id``.
    """
    path = folder.path / f"{UNFINISHED}-{PLAN.lstrip('_')}"
    hashes = array("q")

    def counted() -> Iterator[Item]:
        for item in items:
            hashes.append(hash(item.image_id))
            file = _file(item)
            if file is not None and file != item.image_id:
                hashes.append(hash(file))
            yield item

    _write(folder, path, counted(), shard_size)
    ordered = np.frombuffer(hashes, np.int64)
    ordered.sort()  # in place
    repeated = {int(h) for h in ordered[1:][ordered[1:] == ordered[:-1]]}
    dropped = 0
    if repeated:
        first = path.with_name(f"{path.name}-all")
        path.replace(first)
        once = _Once(repeated)
        _write(folder, path, once(read_plan(first)), shard_size)
        first.unlink()
        dropped = once.dropped
    digest = sha256(path)
    with folder.writing(), path.open("rb+") as file:
        os.fsync(file.fileno())
    with folder.writing():
        folder.rename(path, PLAN)
    return digest, dropped


def _file(item: Item) -> str | None:
    """The canonical path of a local picture or video file; None for other items.

    Links are not resolved: two links to one file may be two pictures of a data set.
    """
    # Rows with ids of their own are all kept, even if they name the same file.
    if item.kind not in (FILE, VIDEO) or item.own_id or storage.is_url(item.path):
        return None
    return item.path  # absolute


class _Once:
    """Drops repeated pictures; remembers only those whose hash occurs more than once."""

    def __init__(self, repeated: set[int]) -> None:
        self._repeated = repeated
        self._seen: dict[str, Item] = {}
        self._files: set[str] = set()
        self.dropped = 0

    def __call__(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            file = _file(item)
            if file is not None and hash(file) in self._repeated:
                if file in self._files:
                    self.dropped += 1
                    continue
                self._files.add(file)
            if hash(item.image_id) in self._repeated:
                before = self._seen.setdefault(item.image_id, item)
                if before is not item:
                    self._compare(before, item)
                    self.dropped += 1
                    continue
            yield item

    def _compare(self, before: Item, item: Item) -> None:
        if item.own_id and (item.path, item.offset) != (before.path, before.offset):
            rows = f" (rows {before.offset} and {item.offset})" if item.kind == ROW else ""
            raise OptionError(
                f"two pictures would be called {item.image_id!r}: {before.path} and {item.path}"
                f"{rows}; the values of the id_column (--id-column) must be unique: leave it out "
                "to use the paths, or the rows' numbers"
            )
        if {item.kind, before.kind} == {TAR, SPARSE}:  # members of one tar
            return
        if (item.kind, item.path) != (before.kind, before.path):
            raise OptionError(
                f"two pictures would be called {item.image_id!r}: {before.path} and {item.path}; "
                "annotate them into two tables, or name them by their full paths"
            )


def _write(folder: TableFolder, path: Path, items: Iterator[Item], shard_size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with (
        folder.writing(),
        path.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while part := list(islice(items, shard_size)):
            columns = [list(column) for column in zip(*part, strict=True)]
            columns[2] = [os.fsencode(text) for text in columns[2]]
            arrays = [
                pa.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            table = pa.Table.from_arrays(arrays, schema=schema)
            writer.write_table(table, row_group_size=shard_size)


def read_plan(path: Path) -> Generator[Item, None, None]:
    """Every item of a plan, with one shard in memory at a time."""
    with contextlib.closing(Plan(path, 1)) as plan:  # items() ignores the shard size
        for shard in range(plan.shards):
            yield from plan.items(shard)


def open_plan(folder: TableFolder, digest: str, shard_size: int, chunk: int = CHUNK) -> Plan:
    """Open the plan to which the manifest refers.

    Raises:
        TableError: it is missing, or its hash differs.
    """
    path = folder.path / PLAN
    if not path.exists() or sha256(path) != digest:
        raise TableError(f"{path} is missing or damaged: start a new table")
    return Plan(path, shard_size, chunk)
