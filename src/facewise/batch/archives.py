"""Tars and WebDataset shards as items, any of which can be read at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Final

from facewise.batch import storage
from facewise.batch.job import MISSING, PROBLEM, TAR, Item
from facewise.folders import Skipped, is_hidden
from facewise.tars import DAMAGE, read_tar

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
    with storage.open_binary(source) as file:
        try:
            for name, place, target in read_tar(file):
                image_id = storage.readable(f"{source}::{name}")
                if is_hidden(name):
                    continue
                if PurePosixPath(name).suffix.lower() not in endings:
                    skipped.add(name)
                elif place is not None:
                    yield Item(image_id, TAR, path, *place)
                elif target:
                    message = f"a link to {target}, which is no file in the tar"
                    yield Item(image_id, MISSING, storage.readable(message))
                else:
                    skipped.add(name)
        except DAMAGE as error:
            yield Item(
                storage.readable(source),
                PROBLEM,
                f"the tar is damaged or was cut off ({error}); what comes after is lost: "
                "copy it again, or name tars that were joined one by one",
            )
