"""Encoded pictures of a plan's items, wherever they lie."""

from __future__ import annotations

from facewise.batch import storage
from facewise.batch.job import ROW, TAR, Item
from facewise.batch.picture_tables import RowReader


class ItemReader:
    """Reads FILE, TAR and ROW items.

    One table is open at a time, for a plan names them one after another: ROW items are for one
    thread, the others for any.

    Args:
        column: the pictures of tables; None finds it.
        max_bytes: see ``Job``.
    """

    def __init__(self, column: str | None, max_bytes: int) -> None:
        self._column = column
        self._limit = max_bytes + 1  # the decoder sees that it is too much, and says so
        self._table: tuple[str, RowReader] | None = None

    def read(self, item: Item) -> bytes:
        """Bytes of one picture, at most one more than ``max_bytes``.

        Raises:
            FacewiseError: it cannot be read, its row is damaged or has no picture.
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
        """Close the table that is open, if one is."""
        table, self._table = self._table, None
        if table is not None:
            table[1].close()
