"""For scripts that measure something on faces: the faces, and the files of the result."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_folder import DATA

from facewise.data.folder import read_folder
from facewise.data.sets import Sample
from facewise.data.tight_crops import add_border
from facewise.images import load_photo
from facewise.types import ImageArray, Photo


def arguments(description: str, *, faces: int | None = None) -> argparse.Namespace:
    """Parse ``--data``, ``--out`` and ``--faces``; ``faces`` is the default, None for all."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument(
        "--faces",
        type=int,
        default=faces,
        help=f"of each data set, spread over it; default: {faces or 'all'}",
    )
    return parser.parse_args()


def val_photos(data: Path, faces: int | None) -> Iterator[tuple[int, Sample, Photo]]:
    """Val faces of UTKFace and FairFace in their border, each with its place in its data set."""
    for data_set in read_folder(data):
        val = [s for s in data_set.samples if s.split == "val"]
        val = val[:: max(1, len(val) // (faces or len(val)))]
        for place, sample in enumerate(val):
            yield place, sample, load_photo(add_border(load_photo(data_set.read(sample)).rgb)[0])


def fairface(data: Path, split: str) -> Iterator[ImageArray]:
    """FairFace's faces of a split, as they are."""
    for data_set in read_folder(data):
        for sample in data_set.samples:
            if sample.dataset == "fairface" and sample.split == split:
                yield load_photo(data_set.read(sample)).rgb


def write(out: Path, name: str, result: Mapping[str, object], page: str) -> None:
    """Write the result as JSON and Markdown, and print the latter."""
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / f"{name}.md").write_text(page)
    print(page)
