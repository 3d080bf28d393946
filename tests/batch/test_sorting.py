"""Sorting names that do not fit in memory."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from facewise.batch.sorting import sort_strings
from facewise.errors import OptionError


def test_names_are_sorted_whatever_fits_in_memory() -> None:
    names = [f"{number}/line\nbreak \udcff.jpg" for number in range(1000)] + ["", "a", "a"]
    random.Random(0).shuffle(names)
    for run in (7, 500, 1003, 5000):
        assert list(sort_strings(iter(names), run=run)) == sorted(names)


def test_a_temporary_folder_without_room_is_to_blame_and_not_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OptionError, match="TMPDIR"):
        list(sort_strings(["b", "a", "c"], run=2))
