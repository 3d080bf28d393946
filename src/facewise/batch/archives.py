"""List members of tars and WebDataset shards as items, each of which can be read directly."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Final

from facewise.batch import storage
from facewise.batch.job import MISSING, PROBLEM, SPARSE, TAR, Item
from facewise.data import tars
from facewise.data.walk import Skipped, is_hidden
from facewise.errors import OptionError
from facewise.text import as_utf8

ENDINGS: Final = (".tar",)
COMPRESSED: Final = (
    *(".tar.gz", ".tgz", ".taz", ".tar.z", ".tar.bz2", ".tbz", ".tbz2", ".tz2"),
    *(".tar.xz", ".txz", ".tar.lzma", ".tlz", ".tar.lz", ".tar.zst", ".tzst", ".tar.lz4"),
)
_COMPRESSED: Final = re.compile(  # gzip and compress, bzip2, xz, Zstandard, LZ4
    rb"\x1f[\x8b\x9d]|BZh[1-9]1AY&SY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18"
)
"""First bytes of compressed files, however they are named; a tar begins with a member's name."""


def list_tar(source: str, skipped: Skipped, endings: Collection[str]) -> Iterator[Item]:
    """Pictures of a tar in its order, then its links; a damaged tar ends in a PROBLEM item.

    Args:
        source: path or URL.
        skipped: receives members that are not pictures.
        endings: file name endings of pictures.

    Raises:
        ImageNotFoundError: the tar cannot be read.
        OptionError: the tar is compressed.
    """
    path = storage.absolute(source)
    with storage.open_binary(source) as file:
        if _COMPRESSED.match(file.read(10)):
            raise compressed(source)
        try:
            for name, place, problem in tars.read_tar(file):
                image_id = as_utf8(f"{source}::{name}")
                if is_hidden(name):
                    continue
                if place is None and not problem:
                    skipped.add_special(name)
                elif PurePosixPath(name).suffix.lower() not in endings:
                    skipped.add(name)
                elif place is not None:
                    yield Item(image_id, TAR, path, *place)
                else:
                    kind = SPARSE if problem == tars.SPARSE else MISSING
                    yield Item(image_id, kind, as_utf8(problem))
        except tars.DAMAGE as error:
            yield Item(
                as_utf8(source),
                PROBLEM,
                f"the tar is damaged or was cut off ({error}); what comes after is lost: "
                "copy it again, or name tars that were joined one by one",
            )


def compressed(source: str) -> OptionError:
    """The error that refuses a compressed tar before anything is begun."""
    return OptionError(
        f"{source}: a compressed tar cannot be read from the middle, where a restart begins: "
        "unpack it, or decompress it to a plain .tar (pictures are compressed already)"
    )
