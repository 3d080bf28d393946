"""Faces on disk: what is not found, what cannot be read, and a cache that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from facewise.datasets import DataSet, read_csv
from facewise.errors import OptionError
from facewise.models import WEIGHTS_FOLDER
from facewise.training import cache as caches
from facewise.training.cache import build_cache, open_cache


def listing(folder: Path, pictures: Path, names: list[str]) -> DataSet:
    """Fixture faces by number; "plain" has no face, "broken" is no picture."""
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
    assert cache.found.tolist() == [True, True, True, False]  # what cannot be read is left out
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


def test_a_cache_of_another_detector_is_built_anew(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_set = listing(tmp_path / "d", pictures, ["0", "1"])
    index = tmp_path / "c" / "index.npz"

    def built_anew() -> bool:
        before = index.stat().st_mtime_ns if index.exists() else None
        build_cache(tmp_path / "c", [data_set], workers=1)
        return index.stat().st_mtime_ns != before

    assert built_anew()
    assert not built_anew()
    monkeypatch.setattr(caches, "DETECTION", -1)
    assert built_anew()
    spec = json.loads((WEIGHTS_FOLDER / "mtcnn.json").read_text())
    (tmp_path / "mtcnn.json").write_text(json.dumps(spec | {"thresholds": [0.6, 0.7, 0.8]}))
    monkeypatch.setattr(caches, "WEIGHTS_FOLDER", tmp_path)
    assert built_anew()
    assert not built_anew()
