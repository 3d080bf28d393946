"""Run one face detector on pictures as they are requested; see ``detectors.py``.

    python bench/finder.py facewise|libfacedetection|haar [SCALE]

Reads one line of JSON per picture, ``{"pixels": file of RGB bytes, "width": n, "height": n}``, and
answers each with one: processor milliseconds and the boxes found, xyxy.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # keep library output out of the answers

import cv2  # noqa: E402
import numpy as np  # noqa: E402

Picture = np.ndarray[Any, np.dtype[np.uint8]]
Find = Callable[[Picture], list[list[float]]]


def facewise() -> Find:
    from facewise import MTCNN, Photo

    detector = MTCNN(threads=1)
    return lambda rgb: [face.bbox.tolist() for face in detector.detect(Photo(rgb))]


def libfacedetection(scale: int = 1) -> Find:
    from yuface import detect

    warnings.simplefilter("ignore")  # it warns about large pictures

    def find(rgb: Picture) -> list[list[float]]:
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        if scale > 1:
            bgr = cv2.resize(bgr, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        _, boxes, _ = detect(bgr, conf=0.6)
        corners = boxes.astype(np.int16).astype(float) * scale
        corners[:, 2:] += corners[:, :2]
        return corners.tolist()

    return find


def haar() -> Find:
    # Missing from some OpenCV builds, but present in the one installed for this bench.
    from cv2 import CascadeClassifier, data  # type: ignore[attr-defined, unused-ignore]

    cascade = CascadeClassifier(data.haarcascades + "haarcascade_frontalface_default.xml")

    def find(rgb: Picture) -> list[list[float]]:
        smallest = max(20, round(0.025 * min(rgb.shape[:2])))  # as in facewise
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        boxes = cascade.detectMultiScale(grey, 1.1, 5, minSize=(smallest, smallest))
        return [[float(v) for v in (x, y, x + w, y + h)] for x, y, w, h in boxes]

    return find


FINDERS: dict[str, Callable[..., Find]] = {
    "facewise": facewise,
    "libfacedetection": libfacedetection,
    "haar": haar,
}


def main() -> None:
    cv2.setNumThreads(1)
    find = FINDERS[sys.argv[1]](*map(int, sys.argv[2:]))
    for line in sys.stdin:
        request = json.loads(line)
        shape = request["height"], request["width"], 3
        rgb = np.frombuffer(Path(request["pixels"]).read_bytes(), np.uint8).reshape(shape)
        started = time.process_time()
        boxes = find(rgb)
        answer = {"cpu_ms": (time.process_time() - started) * 1e3, "boxes": boxes}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
