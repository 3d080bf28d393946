"""Crops at the edges of pictures that are read in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.resample import AreaSource


@pytest.mark.parametrize("reduction", [1, 2, 3, 4])
def test_a_crop_may_reach_the_edge_whatever_is_left_over_there(reduction: int) -> None:
    for width, height in ((611, 403), (612, 402), (614, 406), (615, 407)):
        rgb = np.full((height, width, 3), 90, np.uint8)
        corners = np.array([[0, 0, width, height], [width - 200, height - 200, width, height]])
        crops = AreaSource(rgb, reduction).crops(corners, 24)
        assert crops == pytest.approx(90, abs=0.01)


@pytest.mark.parametrize("ahead", [0, 5_000, 10**9])
def test_levels_are_the_same_however_many_are_read_ahead(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (83, 97, 3), dtype=np.uint8)
    sizes = [(61, 52), (43, 37), (12, 10)]
    monkeypatch.setattr("facewise.resample.AHEAD", ahead)
    found = list(AreaSource(rgb).levels(sizes))
    assert len(found) == len(sizes)
    for level, size in zip(found, sizes, strict=True):
        np.testing.assert_array_equal(level, AreaSource(rgb).level(*size))
    assert list(AreaSource(rgb).levels([])) == []
