"""Run facenet-pytorch's MTCNN over a folder of scenes; see ``mtcnn_parity.py``.

Runs in its own environment (facenet-pytorch pins old versions and needs torchvision), imports
nothing from facewise, and passes its boxes on in a file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image

folder = Path(sys.argv[1])
torch.set_num_threads(2)
detector = MTCNN(
    min_face_size=20, thresholds=[0.6, 0.7, 0.7], factor=0.709, keep_all=True, device="cpu"
)
arrays: dict[str, np.ndarray] = {}
started = time.perf_counter()
paths = sorted(folder.glob("*.png"))
for path in paths:
    boxes, _, points = detector.detect(Image.open(path).convert("RGB"), landmarks=True)
    arrays[f"{path.stem}/boxes"] = (
        np.zeros((0, 4), np.float32) if boxes is None else np.asarray(boxes, np.float32)
    )
    arrays[f"{path.stem}/landmarks"] = (
        np.zeros((0, 5, 2), np.float32) if points is None else np.asarray(points, np.float32)
    )
np.savez(folder / "reference.npz", **arrays)  # type: ignore[arg-type]
print(f"{len(paths)} scenes in {time.perf_counter() - started:.0f} s")
