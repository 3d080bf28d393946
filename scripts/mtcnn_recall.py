"""Which faces MTCNN misses, at which stage, and what lower thresholds on a second look bring.

    facewise train ... or build_cache first: reads FairFace's train split from a face cache
    python scripts/mtcnn_parity.py scenes --fairface fairface.tar --labels fairface_labels.csv DIR
    python scripts/mtcnn_recall.py cache/faces DIR --out docs/results

False faces are counted on the parity script's 200 drawn pictures without a face, and on 500
FairFace train pictures whose faces, all those found, were filled with the picture's mean colour:
hair, ears and clothes round an empty middle, harder than a landscape.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from facewise.mtcnn import MTCNN
from facewise.protocol import add_border, nearest_to_centre
from facewise.resample import AreaSource
from facewise.training.cache import FaceCache, open_cache
from facewise.types import Face, FloatArray, ImageArray, Photo

BLANKED = 500
SECOND_LOOKS = [
    (0.7, 0.5), (0.7, 0.4), (0.7, 0.3), (0.7, 0.2), (0.6, 0.5), (0.6, 0.4), (0.6, 0.3),
    (0.5, 0.5), (0.5, 0.3), (0.3, 0.5), (0.3, 0.3),
]  # fmt: skip


def is_right(face: Face, usual: FloatArray, border: int, width: int) -> bool:
    """Whether a face lies about where the data set's faces lie and is of about their size."""
    centre = face.landmarks.mean(axis=0) - border - usual.mean(axis=0)
    eyes = float(np.hypot(*(usual[1] - usual[0])))
    return bool(np.hypot(*centre) < 0.6 * eyes and face.bbox[2] - face.bbox[0] > 0.3 * width)


def lost_at(detector: MTCNN, rgb: ImageArray) -> str:
    """The stage that dropped the last box over the middle of a picture."""
    image, width = AreaSource(rgb), rgb.shape[1]

    def covers(boxes: FloatArray) -> np.ndarray:
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array(rgb.shape[1::-1]) / 2
        return (np.abs(centre) < 0.2 * width).all(axis=1) & (
            boxes[:, 2] - boxes[:, 0] > 0.25 * width
        )

    proposed = detector._propose(image)
    if not covers(proposed.boxes).any():
        return "pnet"
    (refined,) = detector._refine([image], [proposed], detector.thresholds[1])
    return "onet" if covers(refined.boxes).any() else "rnet"


def blanked(cache: FaceCache, detector: MTCNN) -> list[ImageArray]:
    """Pictures whose found faces are filled with the mean colour."""
    rows = cache.rows("train", "fairface")
    rows = np.random.default_rng(1).choice(rows[cache.found[rows]], BLANKED, replace=False)
    pictures = []
    for row in rows:
        rgb = np.array(cache.image(row))
        mean = rgb.reshape(-1, 3).mean(axis=0)
        for face in detector.detect(Photo(rgb.copy())):
            corner, opposite = face.bbox[:2], face.bbox[2:]
            margin = 0.15 * (opposite - corner)
            left, top = np.maximum(corner - margin, 0).astype(int)
            right, bottom = np.maximum(opposite + margin, 0).astype(int)
            rgb[top:bottom, left:right] = mean
        pictures.append(rgb)
    return pictures


def second_looks(detector: MTCNN, rgb: ImageArray) -> list[tuple[Face, ...]]:
    """What each of the second looks finds where the first finds nothing."""
    image = [AreaSource(rgb)]
    proposed = [detector._propose(image[0])]
    if detector._find(image, proposed, detector.thresholds)[0]:
        return [()] * len(SECOND_LOOKS)
    return [
        detector._find(image, proposed, (detector.thresholds[0], *look))[0] for look in SECOND_LOOKS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("scenes", type=Path, help="folder of the parity script")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cache = open_cache(args.cache)
    detector = MTCNN(threads=1, second_look=False)
    rows = cache.rows("train", "fairface")
    missed = []
    for row in rows[~cache.found[rows]]:  # the cache may have been made with a second look
        rgb, border = add_border(cache.image(row))
        if not detector.detect(Photo(rgb)):
            missed.append((row, rgb, border))
    stages = Counter(lost_at(detector, rgb) for _, rgb, _ in missed)
    right, wrong, drawn, natural = (Counter[int]() for _ in range(4))
    for row, rgb, border in missed:
        for index, faces in enumerate(second_looks(detector, rgb)):
            face = nearest_to_centre(faces, Photo(rgb))
            if face is not None:
                usual, width = cache.landmarks[row], int(cache.shapes[row][1])
                (right if is_right(face, usual, border, width) else wrong)[index] += 1
    faceless = [np.asarray(Image.open(p)) for p in sorted(args.scenes.glob("faceless-*.png"))]
    empty = blanked(cache, detector)
    first = {
        "drawn": sum(bool(detector.detect(Photo(p))) for p in faceless),
        "blanked": sum(bool(detector.detect(Photo(p))) for p in empty),
    }
    for pictures, count in ((faceless, drawn), (empty, natural)):
        for rgb in pictures:
            for index, faces in enumerate(second_looks(detector, rgb)):
                count[index] += bool(faces)
    result: dict[str, Any] = {
        "pictures": len(rows), "missed_by_the_first_look": len(missed), "lost_at": dict(stages),
        "pictures_with_false_faces": {**first, "of_drawn": len(faceless), "of_blanked": len(empty)},
        "second_looks": [
            {
                "rnet": look[0], "onet": look[1], "recovered": right[i], "elsewhere": wrong[i],
                "more_false_drawn": drawn[i], "more_false_blanked": natural[i],
            }
            for i, look in enumerate(SECOND_LOOKS)
        ],
        "chosen": detector.spec_second_look,
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "mtcnn-recall.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        f"Of {len(rows)} bordered FairFace train pictures, one look at the spec's thresholds finds "
        f"nothing in {len(missed)}, {len(missed) / len(rows):.2%}; lost at P-net {stages['pnet']}, "
        f"at R-net {stages['rnet']}, at O-net {stages['onet']}. Without a face, it finds "
        f"one in {first['drawn']} of {len(faceless)} drawn and {first['blanked']} of {len(empty)} "
        "blanked ones. A second look, only where nothing was found:",
        "",
        "| R-net | O-net | recovered | share | found elsewhere | more false, drawn "
        "| more false, blanked |\n|---|---|---|---|---|---|---|",
    ]
    for i, look in enumerate(SECOND_LOOKS):
        share = right[i] / max(1, len(missed))
        mark = "**" if list(look) == detector.spec_second_look else ""
        lines.append(
            f"| {mark}{look[0]}{mark} | {mark}{look[1]}{mark} | {right[i]} | {share:.0%} "
            f"| {wrong[i]} | {drawn[i]} | {natural[i]} |"
        )
    (args.out / "mtcnn-recall.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
