"""What scripts store is bound to the faces that it is of: labels, landmarks and all."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from facewise.training.backbones import MobileNetV1  # noqa: E402
from facewise.training.cache import FaceCache, open_cache  # noqa: E402

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(SCRIPTS))  # scripts import each other
        return importlib.import_module(name)

    return load


@pytest.fixture
def copied(cache: FaceCache, tmp_path: Path) -> FaceCache:
    """The cache's first faces in a folder of the test's own, beside a pretrained network."""
    folder = tmp_path / "cache"
    folder.mkdir()
    with np.load(cache.folder / "index.npz") as stored:
        index = {n: v if n == "fingerprint" else v[:4] for n, v in stored.items()}
    np.savez(folder / "index.npz", **index)
    cache.pixels.tofile(folder / "pixels.bin")
    backbone = MobileNetV1().state_dict()

    def linear(inputs: int, outputs: int) -> dict[str, Any]:
        return {"weight": torch.zeros(outputs, inputs), "bias": torch.zeros(outputs)}

    heads = {"feats": linear(1024, 256), "age": linear(256, 100), "gender": linear(256, 1)}
    torch.save({"backbone": backbone, **heads}, tmp_path / "faceres.pt")
    return open_cache(folder)


def with_fingerprint(cache: FaceCache, fingerprint: str) -> FaceCache:
    with np.load(cache.folder / "index.npz") as stored:
        index = dict(stored)
    np.savez(cache.folder / "index.npz", **index | {"fingerprint": np.array(fingerprint)})
    return open_cache(cache.folder)


def test_features_across_data_sets_are_those_of_todays_landmarks(
    copied: FaceCache, tmp_path: Path, script: Any
) -> None:
    across = script("across_datasets")
    path, rows = tmp_path / "features.npz", copied.rows("train")
    found = across.known_features(copied, tmp_path)[rows]
    with np.load(path) as kept:
        stored = dict(kept)
    np.savez(path, **stored | {"features": np.zeros_like(found)})
    assert not across.known_features(copied, tmp_path).any(), "read, not computed"
    again = across.known_features(with_fingerprint(copied, "another"), tmp_path)
    assert torch.equal(again[rows], found)


def test_rows_of_an_ablation_are_all_of_the_same_faces(
    copied: FaceCache, tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that need not exist, or hours of training would have nowhere to go."""
    ablate = script("ablate")
    monkeypatch.setattr(ablate, "CHANGES", {})  # no variant to train
    out = tmp_path / "new/folder/ablation.json"
    monkeypatch.setattr(sys, "argv", ["x", "--cache", str(copied.folder), "--out", str(out)])
    ablate.main()
    ablate.main()
    assert json.loads(out.read_text())["rows"] == []
    with_fingerprint(copied, "another")
    with pytest.raises(SystemExit, match="of another recipe or other faces"):
        ablate.main()
