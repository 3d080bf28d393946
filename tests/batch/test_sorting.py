"""Names that do not fit in memory."""

from __future__ import annotations

import random

from facewise.batch.sorting import sort_strings


def test_names_are_sorted_whatever_fits_in_memory() -> None:
    names = [f"{number}/line\nbreak \udcff.jpg" for number in range(1000)] + ["", "a", "a"]
    random.Random(0).shuffle(names)
    for run in (7, 500, 1003, 5000):
        assert list(sort_strings(iter(names), run=run)) == sorted(names)
