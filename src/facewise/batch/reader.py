"""Read the encoded pictures of a plan's items from files, tars and tables."""

from __future__ import annotations

from facewise.batch import storage
from facewise.batch.job import ROW, TAR, Item
from facewise.batch.picture_tables import RowReader


class ItemReader:
    """Reads FILE, TAR and ROW items.

    Keeps one table open at a time, since a plan lists them one after another. ROW items must be
    read from a single thread, the others from any.

    Args:
        column: picture column of tables; None detects it.
        max_bytes: see ``Job``.
    """

    def __init__(self, column: str | None, max_bytes: int) -> None:
        self._column = column
        self._limit = max_bytes + 1  # one more, so that the decoder reports oversized files
        self._table: tuple[str, RowReader] | None = None

    def read(self, item: Item) -> bytes:
        """Bytes of one picture, at most one more than ``max_bytes``.

        Raises:
            FacewiseError: the picture cannot be read, or its row is damaged or has no picture.
            pyarrow.ArrowException: its table cannot be opened.
        """
        if item.kind == ROW:
            return self._open(item.path).read(item.group, item.size, self._limit)
        size = min(item.size, self._limit) if item.kind == TAR else self._limit
        return storage.read_range(item.path, size, offset=item.offset)

    def _open(self, path: str) -> RowReader:
        if self._table is None or self._table[0] != path:
            self.close()
            self._table = path, RowReader(path, self._column)
        return self._table[1]

    def close(self) -> None:
        """Close the open table, if any."""
        table, self._table = self._table, None
        if table is not None:
            table[1].close()
