"""Does any packaged detector beat MTCNN in speed and recall? Writes docs/results/detectors.*

    python bench/detectors.py [--data ../shared/data]

Candidates whose licences allow shipping: libfacedetection (3-clause BSD, PyPI yuface; YuNet's
networks), at full, half and a third of the size; OpenCV's Haar cascade (Apache-2.0, PyPI
opencv-python); MediaPipe's BlazeFace (Apache-2.0) in npm @vladmandic/human; face-api's tiny
detector (MIT). Each runs with one thread in a separate process and environment (.venv-bench/,
web/bench).

Recall is measured as this project is judged: on FairFace's first ``--faces`` val faces in a grey
border. A face is found if a box lies over the middle and is neither tiny nor the whole picture.
Also measured, as in scripts/mtcnn_parity.py: faces 40 px wide in 1080p pictures, and false faces in
200 pictures without any.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import cost
import numpy as np
import run

from facewise.data.tight_crops import add_border
from facewise.types import ImageArray

sys.path.insert(0, str(run.ROOT / "scripts"))
from data_folder import DATA
from mtcnn_parity import FACELESS, detector_version, faceless, small_faces
from val_photos import fairface

Boxes = list[list[float]]
PACKAGES = ["yuface==2023.5.1", "opencv-python==4.14.0.*", "numpy"]
FINDERS = {
    "facewise": ["facewise"],
    "libfacedetection": ["libfacedetection"],
    "libfacedetection, half size": ["libfacedetection", "2"],
    "libfacedetection, a third": ["libfacedetection", "3"],
    "Haar cascade": ["haar"],
}
FINDER = Path(__file__).parent / "finder.py"
SCENES = {"640 x 480, 1 face": (640, 480, 1), "1080p, 5 faces": (1920, 1080, 5)}
SMALL_FACES_OF = 60


def commands(envs: Path) -> dict[str, run.Command]:
    python = run.install(envs, "detectors", PACKAGES)
    if python is None:
        sys.exit(f"{', '.join(PACKAGES)} could not be installed")
    found: dict[str, run.Command] = {
        name: [sys.executable if name == "facewise" else python, FINDER, *arguments]
        for name, arguments in FINDERS.items()
    }
    for name in run.NODE_PEERS:
        command = run.command_of(envs, name)
        if command is not None:
            found[name] = command
    return found


class Pictures:
    """Shows pictures to every detector, as files of RGB bytes."""

    def __init__(self, workers: dict[str, run.Worker], folder: Path) -> None:
        self._workers, self._file = workers, folder / "picture.rgb"

    def show(self, rgb: ImageArray) -> dict[str, dict[str, Any]]:
        np.ascontiguousarray(rgb).tofile(self._file)
        height, width = rgb.shape[:2]
        request = {"job": "detect", "pixels": str(self._file), "width": width, "height": height}
        return {name: worker.run(**request) for name, worker in self._workers.items()}


def over_the_middle(boxes: Boxes, width: int, crop: int) -> bool:
    """Whether a box lies over the middle of a square picture: a crop inside a border."""
    return any(
        max(abs((x0 + x1) / 2 - width / 2), abs((y0 + y1) / 2 - width / 2)) < 0.25 * crop
        and 0.25 * crop < x1 - x0 < 1.3 * crop
        for x0, y0, x1, y1 in boxes
    )


def measure(
    pictures: Pictures, names: list[str], faces: list[ImageArray], scenes: int, rounds: int
) -> dict[str, Any]:
    result: dict[str, Any] = {name: {"found": 0, "small": 0, "false": 0} for name in names}
    for rgb in faces:
        bordered, _ = add_border(rgb)
        for name, answer in pictures.show(bordered).items():
            found = over_the_middle(answer["boxes"], bordered.shape[1], rgb.shape[1])
            result[name]["found"] += found
    total = 0
    for canvas, centres in islice(small_faces(np.stack(faces[:SMALL_FACES_OF])), scenes):
        total += len(centres)
        for name, answer in pictures.show(canvas).items():
            boxes = np.array(answer["boxes"], float).reshape(-1, 4)
            middles = (boxes[:, :2] + boxes[:, 2:]) / 2
            result[name]["small"] += sum(
                bool(len(middles) and np.hypot(*(middles - centre).T).min() < 14)
                for centre in centres
            )
    for index in range(FACELESS):
        rgb = faceless(np.random.default_rng([index, 99]), index)
        for name, answer in pictures.show(rgb).items():
            result[name]["false"] += bool(answer["boxes"])
    for title, size in SCENES.items():
        rgb = cost.scene(*size)
        runs = [pictures.show(rgb) for _ in range(rounds + 2)][2:]  # two warm-up runs
        for name in names:
            result[name][title] = {
                "ms": round(statistics.median(row[name]["cpu_ms"] for row in runs), 1),
                "faces": len(runs[-1][name]["boxes"]),
            }
    return {
        "facewise": detector_version(),
        "of": {"found": len(faces), "small": total, "false": FACELESS},
        "detectors": result,
    }


def markdown(result: dict[str, Any]) -> str:
    of = result["of"]
    heads = [f"{title}: ms, faces" for title in SCENES]
    lines = [
        "Detectors that come inside a package, one thread, milliseconds of the processor:",
        "",
        f"| detector | FairFace val found, of {of['found']} | 40 px in 1080p found, of "
        f"{of['small']} | pictures with false faces, of {of['false']} | {' | '.join(heads)} |",
        "|---" * (4 + len(heads)) + "|",
    ]
    for name, row in result["detectors"].items():
        cells = [f"{row[title]['ms']}, {row[title]['faces']}" for title in SCENES]
        shares = (f"{row[key]} ({row[key] / of[key]:.1%})" for key in ("found", "small"))
        lines.append(f"| {name} | {' | '.join(shares)} | {row['false']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--envs", type=Path, default=run.ROOT / ".venv-bench")
    parser.add_argument("--faces", type=int, default=300, help="the first so many of val")
    parser.add_argument("--scenes", type=int, default=30, help="1080p pictures, at most 30")
    parser.add_argument(
        "--only", default="", help="regular expression: facewise and those so named"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="docs/results, or runs/bench for a part")
    args = parser.parse_args()
    out = run.out_of(parser, args, "faces", "scenes", "only", "rounds")
    os.environ |= run.ONE_THREAD
    with tempfile.TemporaryDirectory() as folder:
        workers = {
            name: run.Worker(name, line)
            for name, line in commands(args.envs).items()
            if name == "facewise" or re.search(args.only, name)
        }
        try:
            pictures = Pictures(workers, Path(folder))
            faces = list(islice(fairface(args.data, "val"), args.faces))
            result = measure(pictures, list(workers), faces, args.scenes, args.rounds)
        finally:
            for worker in workers.values():
                worker.close()
    (out / "detectors.json").write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    (out / "detectors.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
