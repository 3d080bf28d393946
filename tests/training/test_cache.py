"""Faces on disk: faces not found, files that cannot be read, and an interrupted cache."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from facewise.align import MEAN_SHAPE, make_template, similarity_transform, warp
from facewise.data.sets import DataSet, read_csv
from facewise.errors import OptionError
from facewise.models import DETECTOR_SPEC
from facewise.training import cache as caches
from facewise.training.cache import FaceCache, build_cache, compact, open_cache
from facewise.types import ImageArray


def listing(folder: Path, pictures: Path, names: list[str]) -> DataSet:
    """Fixture faces by number; "plain" has no face, "broken" is not a picture."""
    folder.mkdir(exist_ok=True)
    faces = sorted((pictures / "faces").glob("*.webp"))
    Image.new("RGB", (100, 80), (90, 120, 100)).save(folder / "plain.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    paths = {"plain": folder / "plain.png", "broken": folder / "broken.jpg"}
    rows = [f"{paths.get(name) or faces[int(name)]},30,train" for name in names]
    path = folder / "faces.csv"
    path.write_text("\n".join(["path,age,split", *rows]))
    return read_csv(path)


def test_where_no_face_is_found_the_data_sets_median_frames_it(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_set = listing(tmp_path / "d", pictures, ["0", "1", "2", "plain", "broken"])
    with caplog.at_level("INFO", "facewise"):
        build_cache(tmp_path / "c", [data_set], workers=1)
    cache = open_cache(tmp_path / "c")
    assert cache.found.tolist() == [True, True, True, False]  # unreadable files are left out
    assert "csv: 4 faces, 1 not found" in caplog.text
    sizes = np.array([cache.image(row).shape[1::-1] for row in range(3)], np.float32)
    middle = np.median(cache.landmarks[:3] / sizes[:, None], axis=0)
    np.testing.assert_allclose(cache.landmarks[3], middle * [100, 80], rtol=1e-5)
    assert cache.image(3)[0, 0].tolist() == [90, 120, 100]


def test_a_file_that_is_gone_is_left_out_like_a_broken_one(pictures: Path, tmp_path: Path) -> None:
    data_set = listing(tmp_path / "d", pictures, ["0", "plain"])
    (tmp_path / "d/plain.png").unlink()
    build_cache(tmp_path / "c", [data_set], workers=1)
    assert open_cache(tmp_path / "c").found.tolist() == [True]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["broken", "broken"], "none of the pictures can be read"),
        (["plain", "plain"], "no face was found in any picture of csv"),
    ],
)
def test_pictures_of_which_none_serves_make_no_cache(
    pictures: Path, tmp_path: Path, names: list[str], words: str
) -> None:
    data_set = listing(tmp_path / "d", pictures, names)
    with pytest.raises(OptionError, match=words):
        build_cache(tmp_path / "c", [data_set], workers=1)
    assert not (tmp_path / "c/index.npz").exists()


def test_a_cache_that_was_interrupted_is_not_taken_for_the_one_before(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = listing(tmp_path / "a", pictures, ["0", "1"])
    build_cache(tmp_path / "c", [first], workers=1)
    expected = np.array(open_cache(tmp_path / "c").image(0))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(caches, "_write_index", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_cache(tmp_path / "c", [listing(tmp_path / "b", pictures, ["2"])], workers=1)
    build_cache(tmp_path / "c", [first], workers=1)
    np.testing.assert_array_equal(open_cache(tmp_path / "c").image(0), expected)


def test_a_cache_of_other_pictures_or_another_detector_is_built_anew(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = listing(tmp_path / "d", pictures, ["0", "1", "plain"])
    index = tmp_path / "c" / "index.npz"

    def built_anew() -> bool:
        before = index.stat().st_mtime_ns if index.exists() else None
        build_cache(tmp_path / "c", [data_set], workers=1)
        return index.stat().st_mtime_ns != before

    assert built_anew()
    assert not built_anew()
    os.utime(tmp_path / "d/plain.png", ns=(1, 1))  # perhaps another picture of that name
    assert built_anew()
    monkeypatch.setattr(caches, "DETECTION", -1)
    assert built_anew()
    spec = json.loads(DETECTOR_SPEC.read_text())
    (tmp_path / "mtcnn.json").write_text(json.dumps(spec | {"thresholds": [0.6, 0.7, 0.8]}))
    monkeypatch.setattr(caches, "DETECTOR_SPEC", tmp_path / "mtcnn.json")
    assert built_anew()
    assert not built_anew()


@pytest.mark.parametrize(("angle", "zoom"), [(0, 12), (40, 6), (0, 2)])
def test_a_crop_of_a_large_picture_is_the_one_that_serving_cuts(
    cache: FaceCache, angle: float, zoom: float
) -> None:
    """12 megapixels take 5 MB."""
    turn = cv2.getRotationMatrix2D((96, 96), angle, zoom)
    turn[:, 2] += (2000 - 96, 1500 - 96)
    large = cv2.warpAffine(cache.image(0), turn, (4000, 3000), borderMode=cv2.BORDER_REFLECT)
    photo: ImageArray = np.asarray(large, np.uint8)
    landmarks = (cache.landmarks[0] @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    small, moved = compact(photo, landmarks)
    assert small.nbytes <= 5_000_000
    for size, eyes in ((224, 0.36), (192, 0.31), (128, 0.2)):
        template = make_template(size, eyes, 0.4)
        served = warp(photo, similarity_transform(landmarks, template), size)
        stored = warp(small, similarity_transform(moved, template), size)
        assert np.abs(served.astype(int) - stored).mean() < 4
        assert np.abs(served.astype(int) - stored).max() < 100


@pytest.mark.parametrize("angle", [0, 20, 45, 200])
@pytest.mark.parametrize("height", [0.27, 0.4, 0.5])
def test_the_widest_framing_sees_no_edge_of_what_is_kept(angle: float, height: float) -> None:
    """In a photo of one colour, far from the grey beyond its edges."""
    red: ImageArray = np.full((3000, 4000, 3), (255, 0, 0), np.uint8)
    turn = cv2.getRotationMatrix2D((0, 0), angle, 200)[:, :2]
    landmarks = (MEAN_SHAPE @ turn.T + (2000, 1500)).astype(np.float32)
    small, moved = compact(red, landmarks)
    assert small.shape[0] < 1400
    template = make_template(128, 0.2, height)
    stored = warp(small, similarity_transform(moved, template), 128)
    assert (stored == red[:128, :128]).all()


def test_small_pictures_are_stored_as_they_are(cache: FaceCache) -> None:
    image, landmarks = cache.image(0), cache.landmarks[0]
    assert compact(image, landmarks)[0] is image
    nowhere = np.full((5, 2), np.nan, np.float32)
    whole, unfound = compact(np.zeros((3000, 4000, 3), np.uint8), nowhere)
    assert whole.shape == (866, 1155, 3)  # without a face, nothing is cut off
    assert np.isnan(unfound).all()


def test_a_large_photo_is_found_in_and_kept_small(pictures: Path, tmp_path: Path) -> None:
    face = Image.open(sorted((pictures / "faces").glob("*.webp"))[0]).convert("RGB")
    photo = Image.new("RGB", (2400, 1800), (120, 120, 120))
    photo.paste(face.resize((1200, 1200)), (1100, 500))
    photo.save(tmp_path / "large.png")
    (tmp_path / "faces.csv").write_text("path,age,split\nlarge.png,30,train\n")
    build_cache(tmp_path / "c", [read_csv(tmp_path / "faces.csv")], workers=1)
    stored = open_cache(tmp_path / "c")
    assert stored.found.tolist() == [True]
    assert (tmp_path / "c/pixels.bin").stat().st_size < 5_000_000
    eyes = stored.landmarks[0, 1] - stored.landmarks[0, 0]
    assert np.hypot(*eyes) == pytest.approx(caches.EYES_PX, rel=0.15)
    left, top = stored.landmarks[0].min(axis=0).astype(int)
    right, bottom = stored.landmarks[0].max(axis=0).astype(int)
    assert stored.image(0)[top:bottom, left:right].std() > 20  # the face, not the grey around it


def test_few_chunks_are_under_way_at_a_time() -> None:
    """A pool's own map submits all chunks at once, and holds what is read until it is written."""
    under_way, most = 0, 0

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **options: Any) -> Any:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            future: Future[Any] = Future()
            future.set_result([args[1]])
            return future

    chunks: list[Any] = [[(index, None)] for index in range(20)]
    seen = []
    for (result,) in caches._in_order(Counting(1), chunks, ahead=4):
        under_way -= 1
        seen.append(result)
    assert seen == chunks
    assert most == 4
