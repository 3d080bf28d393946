"""Compare facewise's MTCNN with facenet-pytorch's on the same pictures, thresholds and pyramid.

    python scripts/mtcnn_parity.py scenes --fairface fairface.tar --labels fairface_labels.csv DIR
    REFENV/bin/python scripts/mtcnn_reference.py DIR     # facenet-pytorch's own environment
    python scripts/mtcnn_parity.py compare DIR --out docs/results

    python scripts/mtcnn_parity.py golden-scenes DIR     # the same for tests/golden/mtcnn.json
    REFENV/bin/python scripts/mtcnn_reference.py DIR
    python scripts/mtcnn_parity.py golden DIR

Scenes are generated from seeds: FairFace test faces on larger canvases, montages of 4 to 30 faces,
faces rotated by up to 20 degrees, darkened, blurred; and 200 pictures without a face.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from marks import between
from PIL import Image

from facewise.boxes import box_overlap
from facewise.data.sets import read_fairface
from facewise.data.tight_crops import DETECTION
from facewise.images import load_photo
from facewise.mtcnn import MTCNN, read_detector_spec
from facewise.types import ImageArray, Photo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from golden.scenes import scenes as golden_scenes

SCENES_A_KIND = 64
FACELESS = 200
MIN_FACE_PX = 20
RECALL_SCENES = 30
REFERENCE = "facenet-pytorch 2.6.0, thresholds 0.6 0.7 0.7, factor 0.709, min_face 20"
ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "mtcnn.json"
PAGE = ROOT / "docs" / "mtcnn.md"
MARKS = ("<!-- parity -->", "<!-- end of parity -->")


def detector_version() -> str:
    """The detector that is measured: its spec's version, and that of the code around it."""
    spec = read_detector_spec()
    return f"{spec['name']}@{spec['version']}, detection {DETECTION}"


def background(rng: np.random.Generator, height: int, width: int) -> ImageArray:
    """A smooth random backdrop with a few shapes on it."""
    coarse = rng.integers(40, 215, (4, 6, 3), dtype=np.uint8)
    canvas = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(int(rng.integers(0, 12))):
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(5, max(6, width // 6)))
        if rng.random() < 0.5:
            cv2.circle(canvas, (x, y), size, color, -1)
        else:
            cv2.rectangle(canvas, (x, y), (x + size, y + size // 2), color, -1)
    return np.asarray(canvas, np.uint8)


def faceless(rng: np.random.Generator, index: int) -> ImageArray:
    """Noise, stripes, blobs, checks and scribbles, at five scales each."""
    height, width = int(rng.integers(200, 600)), int(rng.integers(200, 800))
    kind = index % 5
    if kind == 0:
        cell = int(rng.integers(1, 40))
        small = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), dtype=np.uint8)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    if kind == 1:
        y, x = np.mgrid[:height, :width]
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 80)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        tint = rng.uniform(0.3, 1, 3)
        return ((wave[..., None] * 0.5 + 0.5) * tint * 255).astype(np.uint8)
    if kind == 2:
        size = int(rng.integers(8, 60))
        y, x = np.mgrid[:height, :width] // size
        base = background(rng, height, width)
        base[(x + y) % 2 == 0] //= 2
        return base
    canvas = background(rng, height, width)
    for _ in range(int(rng.integers(20, 120))):
        p, q = (tuple(int(v) for v in rng.integers(0, (width, height))) for _ in range(2))
        color = tuple(int(v) for v in rng.integers(0, 256, 3))
        if kind == 3:
            cv2.line(canvas, p, q, color, int(rng.integers(1, 9)))
        else:
            axes = tuple(int(v) for v in rng.integers(3, 70, 2))
            cv2.ellipse(canvas, p, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
    return canvas


def paste(canvas: ImageArray, face: ImageArray, x: int, y: int, size: int) -> None:
    mode = cv2.INTER_AREA if size < face.shape[0] else cv2.INTER_LINEAR
    canvas[y : y + size, x : x + size] = cv2.resize(face, (size, size), interpolation=mode)


def scenes(faces: list[ImageArray]) -> Iterator[tuple[str, ImageArray]]:
    """Names and pictures, each from its own seed."""

    def pick(rng: np.random.Generator) -> ImageArray:
        return faces[int(rng.integers(len(faces)))]

    for index in range(SCENES_A_KIND):
        for kind in ("canvas", "montage", "turned", "dark", "blurred"):
            rng = np.random.default_rng([index, sum(kind.encode())])
            if kind == "montage":
                columns, rows = int(rng.integers(2, 7)), int(rng.integers(2, 6))
                size = int(rng.integers(60, 150))
                canvas = background(rng, rows * (size + 12) + 12, columns * (size + 12) + 12)
                for cell in range(columns * rows):
                    x, y = 12 + cell % columns * (size + 12), 12 + cell // columns * (size + 12)
                    paste(canvas, pick(rng), x, y, size)
            else:
                height, width = int(rng.integers(300, 700)), int(rng.integers(400, 1000))
                size = int(rng.integers(80, 280))
                canvas = background(rng, height, width)
                x, y = int(rng.integers(0, width - size)), int(rng.integers(0, height - size))
                paste(canvas, pick(rng), x, y, size)
                centre = (x + size / 2, y + size / 2)
            if kind == "turned":
                turn = cv2.getRotationMatrix2D(centre, float(rng.uniform(-20, 20)), 1.0)
                turned = cv2.warpAffine(canvas, turn, (width, height), borderValue=(90, 90, 90))
                canvas = np.asarray(turned, np.uint8)
            elif kind == "dark":
                canvas = (canvas * rng.uniform(0.12, 0.5)).astype(np.uint8)
            elif kind == "blurred":
                blurred = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(1, 4)))
                canvas = np.asarray(blurred, np.uint8)
            yield f"{kind}-{index:03d}", canvas
    for index in range(FACELESS):
        rng = np.random.default_rng([index, 99])
        yield f"faceless-{index:03d}", faceless(rng, index)


def make_scenes(fairface: Path, labels: Path, folder: Path) -> None:
    data = read_fairface(fairface, labels)
    samples = [s for s in data.samples if s.split == "test"][:400]
    faces = [load_photo(data.read(sample)).rgb for sample in samples]
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, image in scenes(faces):
        Image.fromarray(image).save(folder / f"{name}.png", compress_level=1)
        count += 1
    np.savez(folder / "recall.npz", faces=np.stack(faces[:200]))
    print(f"{count} scenes in {folder}")


def match(reference: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> tuple[int, int]:
    """How many reference faces we find with the same box and landmarks, and out of how many."""
    matched = 0
    for box, points in zip(reference["boxes"], reference["landmarks"], strict=True):
        if not len(ours["boxes"]):
            break
        overlaps = box_overlap(ours["boxes"], box)
        best = int(overlaps.argmax())
        distance = np.hypot(*(ours["landmarks"][best] - points).T).max()
        matched += bool(overlaps[best] >= 0.9 and distance <= 0.03 * (box[2] - box[0]))
    return matched, len(reference["boxes"])


def detect(detector: MTCNN, image: ImageArray) -> dict[str, np.ndarray]:
    found = detector.detect(Photo(image))
    return {
        "boxes": np.array([f.bbox for f in found], np.float32).reshape(-1, 4),
        "landmarks": np.array([f.landmarks for f in found], np.float32).reshape(-1, 5, 2),
    }


def small_faces(faces: np.ndarray) -> Iterator[tuple[ImageArray, list[tuple[float, float]]]]:
    """1080p pictures with faces 40 px wide, and the faces' centres.

    Only faces found at their original size are used; each is scaled until its box is 40 px wide.
    """
    detector = MTCNN(threads=1)
    scaled = []
    for face in faces:
        padded = cv2.copyMakeBorder(face, 64, 64, 64, 64, cv2.BORDER_CONSTANT, value=(127,) * 3)
        found = detector.detect(Photo(np.asarray(padded)))
        if found:
            width = found[0].bbox[2] - found[0].bbox[0]
            size = round(face.shape[0] * 40 / width)
            scaled.append(cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA))
    for index in range(RECALL_SCENES):
        rng = np.random.default_rng([index, 40])
        canvas = background(rng, 1080, 1920)
        centres = []
        for slot in range(12):
            face = scaled[int(rng.integers(len(scaled)))]
            x, y = 80 + slot % 6 * 300 + int(rng.integers(0, 120)), 100 + slot // 6 * 500
            y += int(rng.integers(0, 300))
            canvas[y : y + face.shape[0], x : x + face.shape[1]] = face
            centres.append((x + face.shape[1] / 2, y + face.shape[0] / 2))
        yield canvas, centres


def recall_at_40_px(faces: np.ndarray) -> tuple[int, int]:
    """How many of ``small_faces`` the default ``min_face_px`` finds, and out of how many."""
    detector = MTCNN(threads=1)
    hits = total = 0
    for canvas, centres in small_faces(faces):
        boxes = np.array([f.bbox for f in detector.detect(Photo(canvas))]).reshape(-1, 4)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        for centre in centres:
            total += 1
            hits += bool(len(middles) and np.hypot(*(middles - centre).T).min() < 14)
    return hits, total


def compare(folder: Path, out: Path) -> None:
    detector = MTCNN(threads=2, min_face_px=MIN_FACE_PX, second_look=False)
    reference = np.load(folder / "reference.npz")
    table: dict[str, dict[str, int]] = {}
    for path in sorted(folder.glob("*.png")):
        kind = path.stem.split("-")[0]
        theirs = {key: reference[f"{path.stem}/{key}"] for key in ("boxes", "landmarks")}
        ours = detect(detector, np.asarray(Image.open(path).convert("RGB")))
        row = table.setdefault(kind, {"pictures": 0, "theirs": 0, "ours": 0, "matched": 0})
        matched, total = match(theirs, ours)
        row["pictures"] += 1
        row["theirs"] += total
        row["ours"] += len(ours["boxes"])
        row["matched"] += matched
    with np.load(folder / "recall.npz") as stored:
        hits, total = recall_at_40_px(stored["faces"])
    faces = {k: row for k, row in table.items() if k != "faceless"}
    matched = sum(row["matched"] for row in faces.values())
    theirs_total = sum(row["theirs"] for row in faces.values())
    result = {
        "reference": REFERENCE,
        "detector": detector_version(),
        "kinds": table,
        "matched_share": matched / theirs_total,
        "false_faces": {"ours": table["faceless"]["ours"], "theirs": table["faceless"]["theirs"]},
        "recall_40_px_in_1080p": {"found": hits, "of": total, "share": hits / total},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "mtcnn-parity.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = ["| scenes | pictures | its faces | ours | matched |", "|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {row['pictures']} | {row['theirs']} | {row['ours']} | {row['matched']} |"
        for kind, row in table.items()
    ]
    lines += [
        "",
        f"Matched (IoU of 0.9 or more, every landmark within 3 % of the box's width): {matched} of "
        f"{theirs_total} faces, {matched / theirs_total:.2%}. Faces 40 px wide in 1080p pictures "
        f"found at the default smallest face: {hits} of {total}, {hits / total:.1%}.",
    ]
    (out / "mtcnn-parity.md").write_text("\n".join(lines) + "\n")
    write_table("\n".join(lines))
    print("\n".join(lines))


def write_table(table: str) -> None:
    """Put the results between the marks of ``docs/mtcnn.md``."""
    text = between(PAGE.read_text(encoding="utf-8"), MARKS, table)
    PAGE.write_text(text, encoding="utf-8")


def make_golden_scenes(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in golden_scenes():
        image.save(folder / f"{name}.png")


def make_golden(folder: Path) -> None:
    """Store the reference's answers on the golden scenes, rounded to a hundredth of a pixel."""
    found: dict[str, list[dict[str, object]]] = {}
    with np.load(folder / "reference.npz") as reference:
        for name, _ in golden_scenes():
            boxes, points = reference[f"{name}/boxes"], reference[f"{name}/landmarks"]
            found[name] = [
                {"bbox": np.round(box, 2).tolist(), "landmarks": np.round(five, 2).tolist()}
                for box, five in zip(boxes.astype(float), points.astype(float), strict=True)
            ]
    scenes_text = ",\n".join(
        f'  "{name}": [' + ",".join(f"\n   {json.dumps(face)}" for face in faces) + "]"
        for name, faces in found.items()
    )
    text = f'{{\n "reference": {json.dumps(REFERENCE)},\n "scenes": {{\n{scenes_text}\n }}\n}}\n'
    json.loads(text)
    GOLDEN.write_text(text, encoding="utf-8")
    print(f"{sum(map(len, found.values()))} faces in {GOLDEN}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("scenes")
    make.add_argument("folder", type=Path)
    make.add_argument("--fairface", type=Path, required=True)
    make.add_argument("--labels", type=Path, required=True)
    judge = commands.add_parser("compare")
    judge.add_argument("folder", type=Path)
    judge.add_argument("--out", type=Path, default=Path("docs/results"))
    for name in ("golden-scenes", "golden"):
        commands.add_parser(name).add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "scenes":
        make_scenes(args.fairface, args.labels, args.folder)
    elif args.command == "compare":
        compare(args.folder, args.out)
    elif args.command == "golden-scenes":
        make_golden_scenes(args.folder)
    else:
        make_golden(args.folder)


if __name__ == "__main__":
    main()
