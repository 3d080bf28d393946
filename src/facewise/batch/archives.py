"""Tars and WebDataset shards: where each member's bytes begin, so that any can be read at once."""

from __future__ import annotations

import contextlib
import posixpath
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

from facewise.batch import storage
from facewise.batch.job import MISSING, PROBLEM, TAR, Item

if TYPE_CHECKING:
    from facewise.batch.sources import Skipped

ENDINGS: Final = (".tar",)


def list_tar(source: str, skipped: Skipped, endings: Collection[str]) -> Iterator[Item]:
    """Pictures of a tar, in its order, then its links; a damaged tar ends in an item that says so.

    Args:
        source: path or URL.
        skipped: receives members that are no pictures.
        endings: of pictures' names.

    Raises:
        ImageNotFoundError: it cannot be read.
    """
    path = storage.absolute(source)
    links: dict[str, str] = {}
    damage: Exception | None = None
    with storage.open_binary(source) as file:
        try:
            for member in _members(file):
                name = member.name.removeprefix("./")
                picture = PurePosixPath(name).suffix.lower() in endings
                if member.islnk() or member.issym():
                    links[name] = _target(member)
                elif member.isdir() or _is_hidden(name):
                    continue
                elif member.isreg() and picture:
                    image_id = storage.readable(f"{source}::{name}")
                    yield Item(image_id, TAR, path, member.offset_data, member.size)
                else:
                    skipped.add(name)
        except (tarfile.TarError, EOFError) as error:
            damage = error
        targets = _resolve(file, links) if links else {}
    for name in links:
        image_id = storage.readable(f"{source}::{name}")
        if _is_hidden(name):
            continue
        if PurePosixPath(name).suffix.lower() not in endings:
            skipped.add(name)
        elif name in targets:
            yield Item(image_id, TAR, path, *targets[name])
        else:
            message = f"a link to {links[name]}, which is no file in the tar"
            yield Item(image_id, MISSING, storage.readable(message))
    if damage is not None:
        yield Item(
            storage.readable(source),
            PROBLEM,
            f"the tar is damaged or was cut off ({damage}); what comes after is lost: "
            "copy it again, or name tars that were joined one by one",
        )


def _is_hidden(name: str) -> bool:
    """Whether it, or a folder it is in, begins with a dot; ``..`` is no name."""
    return any(part.startswith(".") and part != ".." for part in PurePosixPath(name).parts)


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Headers of a tar, none of them kept.

    Raises:
        tarfile.TarError: it is damaged, ends within a member or header, or goes on after its end.
    """
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header it read
            yield member
        # tarfile takes whatever is no header for the end; that is two blocks of zeros, or, where
        # they were left out, the end of the file.
        file.seek(tar.offset)
        mark = file.read(2 * tarfile.BLOCKSIZE)
        if any(mark):
            what = "it ends within the header" if len(mark) < tarfile.BLOCKSIZE else "no header"
            raise tarfile.ReadError(f"{what} at byte {tar.offset:,}")
        while zeros := file.read(1 << 20):  # a page that a disk lost, or tars put together by cat
            if after := zeros.lstrip(b"\0"):
                at = file.tell() - len(after)
                raise tarfile.ReadError(f"data after the end mark at byte {at:,}")


def _target(link: tarfile.TarInfo) -> str:
    """A symbolic link counts from its own folder, a hard link from the tar's root."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _resolve(file: BinaryIO, links: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """First byte and size of what each link leads to, over other links too.

    Headers are read again, for those of links' targets only are kept.
    """
    wanted = set(links.values())
    found: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(tarfile.TarError, EOFError):  # which has been said
        for member in _members(file):
            name = posixpath.normpath(member.name)
            if member.isreg() and name in wanted:
                found[name] = member.offset_data, member.size
    by_name = {posixpath.normpath(name): target for name, target in links.items()}
    resolved = {}
    for name, first in links.items():
        target, passed = first, set[str]()
        while target not in found and target in by_name and target not in passed:
            passed.add(target)
            target = by_name[target]
        if target in found:
            resolved[name] = found[target]
    return resolved
