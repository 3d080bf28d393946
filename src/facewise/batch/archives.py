"""Tars and WebDataset shards: where each member's bytes begin, so that any can be read at once."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from facewise.batch import storage
from facewise.batch.job import PROBLEM, TAR, Item

if TYPE_CHECKING:
    from facewise.batch.sources import Skipped

ENDINGS: Final = (".tar",)


def list_tar(source: str, skipped: Skipped, endings: Collection[str]) -> Iterator[Item]:
    """Pictures of a tar, in its order; a damaged tar ends in an item that says so.

    Args:
        source: path or URL.
        skipped: receives members that are no pictures.
        endings: of pictures' names.
    """
    path = storage.absolute(source)
    try:
        with storage.open_binary(source) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header it read
                name = member.name.removeprefix("./")
                hidden = PurePosixPath(name).name.startswith(".")
                if member.isdir() or hidden:
                    continue
                if member.isreg() and PurePosixPath(name).suffix.lower() in endings:
                    image_id = storage.readable(f"{source}::{name}")
                    yield Item(image_id, TAR, path, member.offset_data, member.size)
                else:
                    skipped.add(name)
    except (tarfile.TarError, EOFError) as error:
        yield Item(
            storage.readable(source),
            PROBLEM,
            f"the tar is damaged or was cut off ({error}); what comes after is lost: copy it again",
        )
