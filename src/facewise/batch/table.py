"""The table's folder: its lock, plan, manifest and parts. Only one process writes to it.

- ``part-N.parquet``: shard N; written under a temporary name, flushed to disk, then renamed.
- ``_plan``: what to annotate, a Parquet file with one row group per shard, fixed before the first
  part. Only parts' names end in ``.parquet``, so ``*.parquet`` matches nothing but rows.
- ``_manifest.json``: settings, model and the plan's hash.
- ``_parts.jsonl``: one line per finished part, with its SHA-256. Written just before the part gets
  its name: while a retry replaces a part, the old and the new one both have a line. A part without
  a line is made again.
- ``_kept-N``: shard N before a retry, in case the new rows turn out not to count.
- ``_lock``: held while a run writes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from facewise.annotated import MANIFEST, PART_GLOB, read_manifest
from facewise.errors import TableError
from facewise.text import reason_of

PLAN: Final = "_plan"
PARTS: Final = "_parts.jsonl"
LOCK: Final = "_lock"
UNFINISHED: Final = "_unfinished"
KEPT: Final = "_kept"

VOUCHED: Final = frozenset(("shard", "sha256", "rows", "faces", "errors"))
"""Required keys of a part's line."""


class TableFolder:
    """A table locked by this process; use as a context manager.

    Args:
        path: the folder; created if missing, and removed again if no table was begun.

    Raises:
        TableError: another run holds it, it is not a table, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.writing():
            if path.exists() and not path.is_dir():
                raise TableError(f"{path} is a file: choose a new folder, or a table's")
            self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
        self._check_kind()
        self._lock = self._acquire()
        for left in path.glob(f"{UNFINISHED}*"):  # left by a killed run
            left.unlink()

    def __enter__(self) -> TableFolder:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._lock.truncate(0)
        with contextlib.suppress(OSError):
            if self._made and not (self.path / MANIFEST).exists():
                self._remove()
        self._lock.close()  # unlocks; if we are killed, the kernel does

    def _remove(self) -> None:
        """Remove the folders that we created, unless somebody else put files there.

        The lock is still held, so a process that opened it meanwhile is refused instead of locking
        a deleted file.
        """
        for path in (*self.path.glob(f"{UNFINISHED}*"), self.path / PLAN, self.path / LOCK):
            path.unlink(missing_ok=True)
        for folder in self._made:
            folder.rmdir()

    def _check_kind(self) -> None:
        if (self.path / MANIFEST).exists():
            return
        # Hidden files do not matter: macOS puts .DS_Store into every folder it shows.
        foreign = [p.name for p in self.path.iterdir() if not p.name.startswith(("_", "."))]
        if foreign:
            raise TableError(
                f"{self.path} holds {foreign[0]} and is not a facewise table: choose a new folder"
            )

    def _acquire(self) -> IO[str]:
        with self.writing():
            # Opened, never replaced: all processes must lock the same file.
            file = (self.path / LOCK).open("a+", encoding="utf-8")
        try:
            _lock_file(file)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise TableError(
                    f"{self.path} is being written by {holder}: wait until it ends, or stop it"
                ) from error
            raise TableError(
                f"{self.path} cannot be locked ({error.strerror}): put the table on a file system "
                "that supports locks"
            ) from error
        with self.writing():
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        return file

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError into a TableError with a reason and advice."""
        try:
            yield
        except OSError as error:
            reason = reason_of(error)
            advice = "nothing finished is lost: run the same command again once that is mended"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason, advice = (
                    "the disk is full",
                    ("nothing finished is lost: make room, then run the same command again"),
                )
            raise TableError(f"{self.path} cannot be written ({reason}); {advice}") from error

    def write(self, name: str, data: bytes, flushed: Callable[[], None] = lambda: None) -> None:
        """Write a file atomically and flush it to disk before returning.

        Args:
            name: of the file.
            data: its bytes.
            flushed: called when they are on disk, under another name.
        """
        temporary = self.path / f"{UNFINISHED}-{Path(name).stem.lstrip('_')}"
        with self.writing():
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                flushed()
                self.rename(temporary, name)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def rename(self, temporary: Path, name: str) -> None:
        """Give a flushed file its final name, and flush the folder entry too."""
        temporary.replace(self.path / name)
        if os.name == "posix":
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest of an earlier run; None if there is none.

        Raises:
            TableError: it cannot be read.
        """
        return read_manifest(self.path)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        self.write(MANIFEST, text.encode("utf-8", "backslashreplace"))

    def write_part(self, shard: int, data: bytes, about: Mapping[str, Any]) -> dict[str, Any]:
        """Write a part and its line in the parts list; returns the line."""
        line = {"shard": shard, "sha256": hashlib.sha256(data).hexdigest(), **about}
        self.write(part_name(shard), data, flushed=lambda: self._vouch(line))
        return line

    def _vouch(self, line: Mapping[str, Any]) -> None:
        with (self.path / PARTS).open("ab") as file:
            # A line truncated by a power cut must not spoil the next one.
            file.write(b"\n" * _is_torn(self.path / PARTS) + _line(line))
            file.flush()
            os.fsync(file.fileno())

    def keep_part(self, shard: int) -> None:
        """Keep a copy of a part that is to be replaced, for ``restore_part``."""
        with self.writing():
            data = (self.path / part_name(shard)).read_bytes()
        self.write(_kept(shard), data)

    def restore_part(self, shard: int) -> None:
        """Put back the part that was kept."""
        with self.writing():
            self.rename(self.path / _kept(shard), part_name(shard))

    def drop_part(self, shard: int) -> None:
        """Remove a part whose rows are not to be believed by any reader."""
        with self.writing():
            (self.path / part_name(shard)).unlink(missing_ok=True)

    def finished_parts(self) -> tuple[dict[int, dict[str, Any]], list[str]]:
        """Lines of intact parts by shard, and the names of missing or damaged parts.

        A part without a line is in neither: it is simply made again. Any line of a shard will do:
        the last one is of a part that is not there if the run was killed in between. A part that
        has no line any more is put back as it was kept.
        """
        whole, damaged = {}, []
        for shard, lines in _vouched(self.path).items():
            by_hash = {line["sha256"]: line for line in lines}
            for name in (part_name(shard), _kept(shard)):
                path = self.path / name
                if path.exists() and (digest := sha256(path)) in by_hash:
                    whole[shard] = by_hash[digest]
                    if name == _kept(shard):
                        self.restore_part(shard)
                    break
            else:
                damaged.append(part_name(shard))
        self.drop_kept()
        return whole, sorted(damaged)

    def settle(self, parts: Mapping[int, Mapping[str, Any]]) -> None:
        """Rewrite the parts list in order: it does not depend on how often a run was stopped."""
        lines = b"".join(_line(parts[shard]) for shard in sorted(parts))
        self.write(PARTS, lines)

    def drop_kept(self) -> None:
        """Remove the parts that were kept: those in their places are sound."""
        with self.writing():
            for path in self.path.glob(f"{KEPT}-*"):
                path.unlink()

    def drop_strangers(self, shards: int) -> None:
        """Remove parts past the plan's end; no run of this plan can have written them."""
        known = {part_name(shard) for shard in range(shards)}
        for path in self.path.glob(PART_GLOB):
            if path.name not in known:
                path.unlink()


def finished_images(path: Path) -> int:
    """How many images are in a table's finished parts; also while a run holds it."""
    return sum(
        lines[0].get("images", 0)
        for shard, lines in _vouched(path).items()
        if (path / part_name(shard)).exists()
    )


def _vouched(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Lines of the parts list, by shard."""
    vouched: dict[int, list[dict[str, Any]]] = {}
    with contextlib.suppress(FileNotFoundError), (path / PARTS).open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw)
                if line.keys() >= VOUCHED:
                    vouched.setdefault(int(line["shard"]), []).append(line)
            except (ValueError, AttributeError, TypeError):
                continue  # truncated; its part is made again
    return vouched


def part_name(shard: int) -> str:
    return f"part-{shard:08d}.parquet"


def _kept(shard: int) -> str:
    return f"{KEPT}-{shard:08d}"


def encode_part(table: Any) -> bytes:
    """A part's bytes, which depend only on its rows."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", row_group_size=1 << 20, write_page_checksum=True
    )
    return sink.getvalue()


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock_file(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(1 << 20)  # a byte that nobody reads: on Windows the lock bars reading too
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
