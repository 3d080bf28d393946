"""A data set small enough to train on in seconds: the committed faces, cached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from facewise.training.cache import FaceCache


@pytest.fixture(scope="session")
def cache(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceCache:
    """23 faces with made-up labels of every kind: years, ranges, and unknown ones."""
    from facewise.data.sets import read_csv
    from facewise.training.cache import build_cache, open_cache

    folder = tmp_path_factory.mktemp("faces")
    lines = ["path,age,gender,ethnicity,split"]
    for index, path in enumerate(sorted((pictures / "faces").glob("*.webp"))):
        age = ("31", "20-29", "")[index % 3]
        gender = ("male", "female")[index % 2]
        split = "val" if index % 4 == 3 else "train"
        lines.append(f"{path},{age},{gender},{'white' if index % 5 else ''},{split}")
    listing = folder / "faces.csv"
    listing.write_text("\n".join(lines))
    build_cache(folder / "cache", [read_csv(listing)], workers=1)
    return open_cache(folder / "cache")
