"""Lists the files in a tar and where their bytes lie; damage is never mistaken for its end."""

from __future__ import annotations

import contextlib
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple

DAMAGE: Final = (tarfile.TarError, EOFError)
"""What reading a damaged tar raises."""


SPARSE: Final = "stored sparse: make the tar again without -S"


class Entry(NamedTuple):
    """A file in a tar.

    Attributes:
        name: its path in the tar.
        place: first byte and size; None if it cannot be read as one piece.
        problem: why it has no place: it is a link to no file, or stored sparse; "" for a device.
    """

    name: str
    place: tuple[int, int] | None = None
    problem: str = ""


def read_tar(file: BinaryIO) -> Iterator[Entry]:
    """Yield the files of a tar in order, then its links, resolved.

    Raises:
        tarfile.TarError: it is damaged, cut off, or continues after its end; raised last, after
            everything readable.
        EOFError: the same.
    """
    links: dict[str, str] = {}
    damage: Exception | None = None
    try:
        for member in _members(file):
            name = member.name.removeprefix("./")
            if member.islnk() or member.issym():
                links.setdefault(name, _target(member))
            elif not member.isdir():
                yield _entry(name, member)
    except DAMAGE as error:
        damage = error
    if links:
        yield from _resolve(file, links)
    if damage is not None:
        raise damage


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar without keeping them.

    Raises:
        tarfile.TarError: it is damaged, ends within a member or header or without an end mark, or
            continues after its end.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header it read
            yield member
        # tarfile takes anything that is not a header for the end, and also the end of a file cut
        # off between two members. The real end is two blocks of zeros; some writers omit one.
        file.seek(tar.offset)
        mark = file.read(2 * tarfile.BLOCKSIZE)
        if not mark:
            raise tarfile.ReadError(f"no end mark at byte {tar.offset:,}: it may have been cut off")
        if any(mark):
            what = "it ends within the header" if len(mark) < tarfile.BLOCKSIZE else "no header"
            raise tarfile.ReadError(f"{what} at byte {tar.offset:,}")
        while zeros := file.read(1 << 20):  # a page lost by a disk, or tars joined by cat
            if after := zeros.lstrip(b"\0"):
                at = file.tell() - len(after)
                raise tarfile.ReadError(f"data after the end mark at byte {at:,}")


def _entry(name: str, member: tarfile.TarInfo) -> Entry:
    if not member.isreg():
        return Entry(name)
    if member.issparse():  # a map and pieces; size is that of the whole file
        return Entry(name, problem=SPARSE)
    return Entry(name, (member.offset_data, member.size))


def _target(link: tarfile.TarInfo) -> str:
    """Target of a link: relative to its folder if symbolic, to the tar's root if hard."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _resolve(file: BinaryIO, links: Mapping[str, str]) -> Iterator[Entry]:
    """Yield each link as the file that it leads to, possibly through other links.

    Of several files with the same name the first counts, as elsewhere. A file with the link's own
    name takes precedence. Headers are read a second time, keeping only those of the targets.
    """
    by_name = {posixpath.normpath(name): target for name, target in links.items()}
    wanted = {*by_name, *by_name.values()}
    found: dict[str, Entry] = {}
    with contextlib.suppress(*DAMAGE):  # already reported
        for member in _members(file):
            name = posixpath.normpath(member.name)
            if member.isreg() and name in wanted:
                found.setdefault(name, _entry(name, member))
    for name, target in links.items():
        end, passed = posixpath.normpath(name), set[str]()
        while end not in found and end in by_name and end not in passed:
            passed.add(end)
            end = by_name[end]
        nowhere = Entry(name, problem=f"a link to {target}, which is no file in the tar")
        yield found.get(end, nowhere)._replace(name=name)
