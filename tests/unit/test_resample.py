"""Levels and crops of pictures that are read in blocks or strips."""

from __future__ import annotations

import numpy as np
import pytest

from facewise.resample import MOST_KEPT, AreaSource, _kept_windows, block_means


@pytest.mark.parametrize("reduction", [1, 2, 3, 4])
def test_a_crop_may_reach_the_edge_whatever_is_left_over_there(reduction: int) -> None:
    for width, height in ((611, 403), (612, 402), (614, 406), (615, 407)):
        rgb = np.full((height, width, 3), 90, np.uint8)
        corners = np.array([[0, 0, width, height], [width - 200, height - 200, width, height]])
        crops = AreaSource(rgb, reduction).crops(corners, 24)
        assert crops == pytest.approx(90, abs=0.01)


@pytest.mark.parametrize("strip_px", [1, 97 * 9, 97 * 40])
@pytest.mark.parametrize("reduction", [1, 2])
def test_strips_give_the_very_levels_and_crops(
    reduction: int, strip_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some windows share rows with the next; some are larger than the intended strip."""
    rgb = np.random.default_rng(3).integers(0, 256, (83, 97, 3), dtype=np.uint8)
    sizes = [(47, 41), (33, 28), (12, 10), (5, 2), (1, 1)]
    corners = np.array([[0, 0, 97, 83], [10, 5, 40, 61], [90, 70, 97, 83], [3, 3, 3, 9]])
    whole = AreaSource(rgb, reduction)
    monkeypatch.setattr("facewise.resample.SUMMED_PX", 0)
    monkeypatch.setattr("facewise.resample.STRIP_PX", strip_px)
    strips = AreaSource(rgb, reduction)
    for size, level in zip(sizes, strips.levels(sizes), strict=True):
        np.testing.assert_array_equal(level, next(whole.levels([size])))
        np.testing.assert_array_equal(level, next(strips.levels([size])))
    np.testing.assert_array_equal(strips.crops(corners, 24), whole.crops(corners, 24))


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
        np.testing.assert_array_equal(level, next(AreaSource(rgb).levels([size])))
    assert list(AreaSource(rgb).levels([])) == []


@pytest.mark.parametrize("window", [(1, 257), (6, 43), (18, 18)])
def test_windows_of_white_are_white_however_many_pixels_they_have(window: tuple[int, int]) -> None:
    """The sum of 257 pixels of 255 just fits 16 bits; those of 258 and 324 do not."""
    width, height = window
    white = np.full((3 * height, 4 * width, 3), 255, np.uint8)
    (level,) = AreaSource(white).levels([(4, 3)])
    assert level == pytest.approx(255, abs=0.01)


@pytest.mark.parametrize("side", [2, 4, 6, 8])
def test_halves_of_blocks_are_rounded_to_even_but_in_blocks_of_four(side: int) -> None:
    """As OpenCV does, which the page's engine mirrors (web/test/pipeline.test.ts)."""
    rgb = np.zeros((side, side * 2, 3), np.uint8)
    rgb[0, 0], rgb[0, side] = side * side // 2, side * side * 3 // 2
    half = 1 if side == 2 else 0
    assert block_means(rgb, side)[0, :, 0].tolist() == [half, 2]


def test_large_crops_are_of_the_nearest_blocks_and_small_ones_of_the_picture() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    blocks = AreaSource(block_means(rgb, 3))
    # A 24 x 24 crop needs 48 blocks of 3 per side: 144 px. Blocks 1 and 49 are nearest 2 and 146.
    large = AreaSource(rgb, 3).crops(np.array([[2, 2, 146, 146]]), 24)
    np.testing.assert_array_equal(large, blocks.crops(np.array([[1, 1, 49, 49]]), 24))
    for right, bottom in ((145, 299), (299, 145)):
        small = np.array([[2, 2, right, bottom]])
        np.testing.assert_array_equal(
            AreaSource(rgb, 3).crops(small, 24), AreaSource(rgb).crops(small, 24)
        )


def test_windows_of_a_panorama_are_not_kept() -> None:
    """Each would stay for the life of the process, with megabytes of its own."""
    rgb = np.zeros((40, MOST_KEPT + 2, 3), np.uint8)
    _kept_windows.cache_clear()
    sizes = [(MOST_KEPT + 1, 30), (MOST_KEPT, 20)]
    assert [level.shape[1] for level in AreaSource(rgb).levels(sizes)] == [MOST_KEPT + 1, MOST_KEPT]
    assert _kept_windows.cache_info().currsize == 3, "those of two heights and of one width"
