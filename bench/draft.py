"""Is decoding large JPEGs at reduced size first worthwhile? Writes docs/results/draft.json and .md.

    python bench/draft.py [--rounds 9]

A JPEG decodes faster at half, a quarter or an eighth of its size (Pillow's draft mode). The
detector could run on the reduced picture, and the full one be decoded, for the crops, only if a
face is found. This script times costs and savings at a half and a quarter, on a 12-megapixel photo
with sensor grain, with three faces and with none: median processor milliseconds, taking turns.
Faces found at reduced size are compared with those found at full size.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cost
import cv2
import numpy as np
import run
from PIL import Image

from facewise import MTCNN, Photo, load_photo
from facewise.boxes import box_overlap
from facewise.types import Face, ImageArray

SIZE = (4000, 3000)
SAME_IOU = 0.8
SCALES = (1, 2, 4)


def photo_bytes(faces: int) -> bytes:
    grain = np.random.default_rng(0).normal(0, 5, (SIZE[1], SIZE[0], 1))
    rgb = (cost.scene(*SIZE, faces) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=92)
    return file.getvalue()


def decode(data: bytes, scale: int) -> ImageArray:
    if scale == 1:
        return load_photo(data).rgb
    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (SIZE[0] // scale, SIZE[1] // scale))
    return np.asarray(picture)


def same(whole: tuple[Face, ...], small: tuple[Face, ...], scale: int) -> int:
    boxes = np.array([face.bbox * scale for face in small], np.float32).reshape(-1, 4)
    return sum(
        bool(len(boxes) and box_overlap(boxes, face.bbox).max() >= SAME_IOU) for face in whole
    )


def measure(rounds: int) -> dict[str, Any]:
    detectors = {s: MTCNN(threads=1, min_face_px=0.025 * SIZE[1] / s) for s in SCALES}
    result: dict[str, Any] = {}
    for count in (3, 0):
        data = photo_bytes(count)
        times: dict[str, list[float]] = defaultdict(list)
        found: dict[int, tuple[Face, ...]] = {}
        for _ in range(rounds + 1):
            for scale in SCALES:
                started = time.process_time()
                rgb = decode(data, scale)
                decoded = time.process_time()
                found[scale] = detectors[scale].detect(Photo(rgb))
                times[f"decode at 1/{scale}"].append((decoded - started) * 1e3)
                times[f"detect at 1/{scale}"].append((time.process_time() - decoded) * 1e3)
                del rgb
        row: dict[str, Any] = {
            key: round(statistics.median(values[1:]), 1) for key, values in times.items()
        }
        for scale in SCALES[1:]:
            first = row[f"decode at 1/{scale}"] + row[f"detect at 1/{scale}"]
            whole = row["decode at 1/1"] + row["detect at 1/1"]
            again = first + row["decode at 1/1"]
            row[f"1/{scale} first"] = {
                "ms where no face is found": round(first, 1),
                "ms where one is": round(again, 1),
                "ms at once": round(whole, 1),
                # Worthwhile if fewer photos than this have a face.
                "pays below a share of": round(max(0.0, whole - first) / row["decode at 1/1"], 2),
                "faces": len(found[scale]),
                "the same": same(found[1], found[scale], scale),
            }
        row["faces"] = len(found[1])
        result[f"{count} faces"] = row
    return result


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "Decoding a JPEG of 12 megapixels at a reduced scale first, and whole only where a face is "
        "found; decoding and detecting, milliseconds of the processor, one thread:",
        "",
        "| photo | first | decode | detect | if no face is found | if one is "
        "| whole at once | pays where fewer photos have a face than | faces, the same |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result.items():
        for scale in SCALES[1:]:
            own = row[f"1/{scale} first"]
            lines.append(
                f"| {name} | 1/{scale} | {row[f'decode at 1/{scale}']} of {row['decode at 1/1']} "
                f"| {row[f'detect at 1/{scale}']} of {row['detect at 1/1']} "
                f"| {own['ms where no face is found']} | {own['ms where one is']} "
                f"| {own['ms at once']} | {own['pays below a share of']:.0%} "
                f"| {own['the same']} of {row['faces']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="docs/results, or runs/bench for other rounds")
    args = parser.parse_args()
    out = run.out_of(parser, args, "rounds")
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    result = measure(args.rounds)
    (out / "draft.json").write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    (out / "draft.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
