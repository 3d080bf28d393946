"""Which faces MTCNN misses, at which stage, and what further looks recover.

    facewise train ... or build_cache first: the train split is read from a face cache
    python scripts/mtcnn_parity.py scenes --fairface fairface.tar --labels fairface_labels.csv DIR
    python scripts/mtcnn_recall.py second cache/faces DIR --out docs/results
    python scripts/mtcnn_recall.py portrait cache/faces DIR --out docs/results
    python scripts/mtcnn_recall.py tight cache/faces DIR --out docs/results

Each command writes its part of mtcnn-recall.json, and mtcnn-recall.md from all parts. ``second``
and ``portrait`` use FairFace's pictures in a border, ``tight`` FairFace's and UTKFace's without.

False faces are counted on three kinds of pictures: the parity script's 200 drawn ones; FairFace
train pictures with eyes, nose and mouth filled with the picture's mean colour, which leaves hair,
ears and clothes round an empty middle; and patchworks of corners of FairFace train pictures: skin,
hair and cloth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from facewise.data.tight_crops import DETECTION_BORDER, add_border, nearest_to_centre
from facewise.models import load_spec
from facewise.mtcnn import MTCNN
from facewise.portrait import Portrait, mirror_face, mirror_photo
from facewise.reporting.report import markdown_table
from facewise.resample import AreaSource
from facewise.training.cache import FaceCache, open_cache
from facewise.types import Face, FloatArray, ImageArray, Photo

COMMANDS = ["second", "portrait", "tight"]
FACELESS = 200
CORNER_PX, PATCHWORK_PX = 48, 240
SECOND_LOOKS = [
    (0.7, 0.5), (0.7, 0.4), (0.7, 0.3), (0.7, 0.2), (0.6, 0.5), (0.6, 0.4), (0.6, 0.3),
    (0.5, 0.5), (0.5, 0.3), (0.3, 0.5), (0.3, 0.3),
]  # fmt: skip
PROPOSED_AND_REFINED = [(0.6, 0.5), (0.4, 0.7), (0.4, 0.5), (0.4, 0.3)]
"""Thresholds of P- and R-net to try when looking for a portrait."""
LAST = [0.7, 0.5, 0.3]
"""Thresholds of O-net to try."""
TURN_DEGREES = 30
TIMED = 40
SHIFTS = 1000

View = tuple[Photo, Callable[[Face], Face]]
"""A transformed photo, and the function that maps its faces back."""


def is_right(face: Face, usual: FloatArray, border: int, width: int) -> bool:
    """Whether a face has about the position and size of the data set's faces."""
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
    (refined,) = detector._cascade.rnet([image], [proposed], detector.thresholds[1])
    return "onet" if covers(refined.boxes).any() else "rnet"


def blanked(cache: FaceCache, share: float) -> list[ImageArray]:
    """Pictures in a border with eyes, nose and mouth painted over."""
    rows = cache.rows("train", "fairface")
    rows = np.random.default_rng(1).choice(rows[cache.found[rows]], FACELESS, replace=False)
    pictures = []
    for row in rows:
        rgb, border = add_border(cache.image(row), share)
        points = cache.landmarks[row] + border
        margin = 0.35 * np.ptp(points, axis=0).max()
        left, top = np.maximum(points.min(axis=0) - margin, 0).astype(int)
        right, bottom = (points.max(axis=0) + margin).astype(int)
        rgb[top:bottom, left:right] = cache.image(row).mean(axis=(0, 1))
        pictures.append(rgb)
    return pictures


def patchworks(cache: FaceCache) -> list[ImageArray]:
    """One, four, nine or sixteen corners of pictures, side by side."""
    rows, rng = cache.rows("train", "fairface"), np.random.default_rng(2)

    def corner(row: int, side_px: int) -> ImageArray:
        rgb = cache.image(row)
        top, left = (int(rng.integers(2)) * (side - CORNER_PX) for side in rgb.shape[:2])
        part = rgb[top : top + CORNER_PX, left : left + CORNER_PX]
        return np.asarray(cv2.resize(part, (side_px, side_px), interpolation=cv2.INTER_CUBIC))

    pictures = []
    for index in range(FACELESS):
        count = index % 4 + 1
        chosen = rng.choice(rows, (count, count), replace=False)
        side_px = PATCHWORK_PX // count
        pictures.append(np.vstack([np.hstack([corner(row, side_px) for row in r]) for r in chosen]))
    return pictures


def as_it_is(photo: Photo) -> View:
    return photo, lambda face: face


def mirrored(photo: Photo) -> View:
    return mirror_photo(photo), lambda face: mirror_face(face, photo.width_px)


def stretched(photo: Photo) -> View:
    """The photo with its local contrast equalised."""
    lab = cv2.cvtColor(photo.rgb, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (4, 4)).apply(lab[..., 0])
    return Photo(np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)), lambda face: face


def stretched_and_mirrored(photo: Photo) -> View:
    other, back = mirrored(photo)
    return stretched(other)[0], back


def turned(degrees: float) -> Callable[[Photo], View]:
    def view(photo: Photo) -> View:
        size = photo.width_px, photo.height_px
        there = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), degrees, 1.0)
        picture = cv2.warpAffine(photo.rgb, there, size, borderMode=cv2.BORDER_REPLICATE)
        inverse = cv2.invertAffineTransform(there)

        def back(face: Face) -> Face:
            landmarks = face.landmarks @ inverse[:, :2].T + inverse[:, 2]
            middle = (face.bbox[:2] + face.bbox[2:]) / 2
            half = (face.bbox[2:] - face.bbox[:2]) / 2
            middle = inverse[:, :2] @ middle + inverse[:, 2]
            bbox = np.hstack([middle - half, middle + half])
            return replace(
                face, bbox=bbox.astype(np.float32), landmarks=landmarks.astype(np.float32)
            )

        return Photo(np.asarray(picture, np.uint8)), back

    return view


def in_a_border(share: float) -> Callable[[Photo], View]:
    def view(photo: Photo) -> View:
        bordered = Portrait((0, 0, 0), 0, 0, share).view(photo)
        return bordered.photo, bordered.back

    return view


def in_a_border_mirrored(share: float) -> Callable[[Photo], View]:
    def view(photo: Photo) -> View:
        bordered, back = in_a_border(share)(photo)
        other, forth = mirrored(bordered)
        return other, lambda face: back(forth(face))

    return view


def in_a_border_both(share: float) -> list[Callable[[Photo], View]]:
    return [in_a_border(share), in_a_border_mirrored(share)]


PORTRAIT_VIEWS: dict[str, Sequence[Callable[[Photo], View]]] = {
    "as it is": [as_it_is],
    "mirrored": [mirrored],
    "both": [as_it_is, mirrored],
    f"turned by -{TURN_DEGREES} and {TURN_DEGREES} degrees": [
        turned(-TURN_DEGREES), turned(TURN_DEGREES),
    ],
    "contrast stretched": [stretched],
    "both, and both stretched": [as_it_is, mirrored, stretched, stretched_and_mirrored],
}  # fmt: skip
TIGHT_VIEWS: dict[str, Sequence[Callable[[Photo], View]]] = {
    "35 %": [in_a_border(0.35)],
    "35 %, mirrored too": in_a_border_both(0.35),
    "20 %, mirrored too": in_a_border_both(0.2),
    "50 %, mirrored too": in_a_border_both(0.5),
}

Looks = dict[str, tuple[Face, ...]]


def second_looks(detector: MTCNN, rgb: ImageArray) -> Looks:
    """What each of the second looks finds; empty if the first look finds a face."""
    image = [AreaSource(rgb)]
    proposed = [detector._propose(image[0])]
    if detector._cascade.find(image, proposed, detector.thresholds)[0]:
        return {}
    return {
        str(look): detector._cascade.find(image, proposed, (detector.thresholds[0], *look))[0]
        for look in SECOND_LOOKS
    }


def portrait_looks(number: int, detector: MTCNN, chosen: Portrait, rgb: ImageArray) -> Looks:
    """What each look for a portrait finds; empty if an earlier look finds a face."""
    photo = Photo(rgb)
    if detector.detect(photo):
        return {}

    def look(view: Callable[[Photo], View], pnet: float, rnet: float) -> list[Face]:
        picture, back = view(photo)
        image, thresholds = [AreaSource(picture.rgb)], (pnet, rnet, min(LAST))
        proposed = [detector._propose(image[0], pnet, chosen.least_px(photo))]
        return [back(face) for face in detector._cascade.find(image, proposed, thresholds)[0]]

    looks: Looks = {}
    for pnet, rnet in PROPOSED_AND_REFINED:
        usual = (pnet, rnet) == chosen.thresholds[:2]
        names = VIEWS[number] if usual else [CHOSEN[number]]
        views = {view for name in names for view in VIEWS[number][name]}
        seen = {view: look(view, pnet, rnet) for view in views}
        for name in names:
            faces = [face for view in VIEWS[number][name] for face in seen[view]]
            for onet in LAST:  # valid after suppression, which starts with the best face
                sure = [face for face in faces if face.detection_score > onet]
                looks[label(name, (pnet, rnet, onet))] = chosen.best(sure, photo)
    return looks


VIEWS = [PORTRAIT_VIEWS, TIGHT_VIEWS]
"""Views for the first and second of the spec's looks for a portrait."""
CHOSEN = ["both", "35 %, mirrored too"]


def label(view: str, thresholds: tuple[float, float, float]) -> str:
    return f"{view} | " + " | ".join(map(str, thresholds))


Missed = tuple[ImageArray, int, FloatArray, int]
"""Bordered picture, its border, the usual landmark positions, width without border."""


def count(
    looks: Iterable[Looks], missed: Sequence[Missed], false: dict[str, list[Looks]], gate: float
) -> dict[str, dict[str, int]]:
    """One row per look: faces recovered, found elsewhere, and false ones by kind."""
    rows: dict[str, Counter[str]] = {}
    for (rgb, border, usual, width), found in zip(missed, looks, strict=True):
        for name, faces in found.items():
            row = rows.setdefault(name, Counter())
            face = nearest_to_centre(faces, Photo(rgb))
            if face is not None:
                right = is_right(face, usual, border, width)
                row["recovered" if right else "elsewhere"] += 1
    for kind, some in false.items():
        for found in some:
            for name, faces in found.items():
                rows[name][f"more_false_{kind}"] += bool(faces)
                rows[name]["false_above_gate"] += any(f.detection_score >= gate for f in faces)
    columns = ["recovered", "elsewhere", *(f"more_false_{kind}" for kind in false)]
    return {n: {c: row[c] for c in [*columns, "false_above_gate"]} for n, row in rows.items()}


_state: dict[str, Any] = {}


def one_look() -> MTCNN:
    detector = MTCNN(threads=1)
    detector.second_thresholds, detector.portraits = None, []
    return detector


def _start(folder: Path, number: int) -> None:
    cv2.setNumThreads(1)
    before = MTCNN(threads=1)
    chosen, before.portraits = before.portraits[number], before.portraits[:number]
    _state.update(
        cache=open_cache(folder), once=one_look(), before=before, number=number, chosen=chosen,
        filled=MTCNN(threads=1), cut_off=MTCNN(threads=1, second_look=False),
    )  # fmt: skip


def _is_found(row: int, share: float, detector: str) -> bool:
    return bool(_state[detector].detect(Photo(add_border(_state["cache"].image(row), share)[0])))


def _off(row: int) -> tuple[float, float] | None:
    """Largest shift of a landmark when a picture has no border, as a share of the face's width.

    For boxes filled up at the picture's edges, and for boxes cut off; None if a face is not found.
    """
    rgb = _state["cache"].image(row)
    bordered, border = add_border(rgb)
    usual = nearest_to_centre(_state["filled"].detect(bordered), Photo(bordered))
    off = []
    for name in ("filled", "cut_off"):
        face = nearest_to_centre(_state[name].detect(rgb), Photo(rgb))
        if face is None or usual is None:
            return None
        distance = np.abs(face.landmarks - (usual.landmarks - border)).max()
        off.append(float(distance / (usual.bbox[2] - usual.bbox[0])))
    return off[0], off[1]


def landmarks_off(cache: FaceCache, pool: ProcessPoolExecutor) -> dict[str, dict[str, float]]:
    """Medians of ``_off`` by data set, over a thousand pictures each."""
    medians = {}
    for name in ("fairface", "utkface"):
        rows = cache.rows("train", name)[:SHIFTS]
        off = [both for both in pool.map(_off, rows.tolist(), chunksize=32) if both]
        filled, cut_off = np.median(off, axis=0).round(4).tolist()
        medians[name] = {"pictures": len(off), "filled": filled, "cut_off": cut_off}
    return medians


def _second(rgb: ImageArray) -> Looks:
    return second_looks(_state["once"], rgb)


def _portrait(rgb: ImageArray) -> Looks:
    return portrait_looks(_state["number"], _state["before"], _state["chosen"], rgb)


def bordered(cache: FaceCache, rows: Iterable[int], share: float) -> list[Missed]:
    usual = {
        name: np.median(cache.landmarks[(cache.datasets == name) & cache.found], axis=0)
        for name in ("fairface", "utkface")
    }
    return [
        (
            *add_border(cache.image(row), share),
            usual[cache.datasets[row]],
            int(cache.shapes[row][1]),
        )
        for row in rows
    ]


def part_of(
    command: str, cache: FaceCache, drawn: list[ImageArray], pool: ProcessPoolExecutor
) -> dict[str, Any]:
    """Run the measurements of one command."""
    once = one_look()
    tight = command == "tight"
    share = 0.0 if tight else DETECTION_BORDER
    rows = cache.rows("train", "fairface", *(["utkface"] if tight else []))
    detector = "once" if command == "second" else "before"
    is_found = partial(_is_found, share=share, detector=detector)
    seen = np.array(list(pool.map(is_found, rows.tolist(), chunksize=64)))
    missed = bordered(cache, rows[~seen], share)
    faceless = {"drawn": drawn, "blanked": blanked(cache, share), "patchworks": patchworks(cache)}
    spec = load_spec()
    gates = spec.calibration["gates"]["quality"].values()
    gate = min(limits["detection_score"]["min"] for limits in gates)
    looks = _second if command == "second" else _portrait
    found = pool.map(looks, [rgb for rgb, *_ in missed], chunksize=8)
    false = {kind: list(pool.map(looks, p, chunksize=8)) for kind, p in faceless.items()}
    part: dict[str, Any] = {
        "pictures": len(rows),
        "missed": len(missed),
        "faceless_pictures": {kind: len(pictures) for kind, pictures in faceless.items()},
        "with_a_false_face_before": {
            kind: sum(not found for found in some) for kind, some in false.items()
        },
        "model": f"{spec.name}@{spec.version}",
        "gate": gate,
        "looks": count(found, missed, false, gate),
    }
    if command == "second":
        part["lost_at"] = Counter(lost_at(once, rgb) for rgb, *_ in missed)
        part["chosen"] = str(tuple(once.spec_second_look))
    else:
        number = COMMANDS.index(command) - 1
        thresholds = MTCNN(threads=1).portraits[number].thresholds
        part["chosen"] = label(CHOSEN[number], thresholds)
        part["processor_time_without_a_face"] = round(time_ratio(drawn[:TIMED], number), 3)
        if tight:
            part["landmarks_off"] = landmarks_off(cache, pool)
        part["missed_by_data_set"] = Counter(cache.datasets[rows[~seen]].tolist())
        part["pictures_by_data_set"] = Counter(cache.datasets[rows].tolist())
    return part


def time_ratio(pictures: Sequence[ImageArray], number: int) -> float:
    """Processor time with a look relative to without it, where nothing is found."""
    before, after = MTCNN(threads=1), MTCNN(threads=1)
    before.portraits, after.portraits = before.portraits[:number], after.portraits[: number + 1]
    times: dict[MTCNN, list[float]] = {before: [], after: []}
    for rgb in pictures:
        for detector, some in times.items():
            started = time.thread_time()
            faces = detector.detect(Photo(rgb))
            if not faces:
                some.append(time.thread_time() - started)
    return float(np.median(times[after]) / np.median(times[before]))


def page(parts: dict[str, Any]) -> str:
    """The parts that have been measured, as Markdown."""
    lines: list[str] = []
    if second := parts.get("second"):
        share, lost = second["missed"] / second["pictures"], second["lost_at"]
        lines += [
            f"Of {second['pictures']} bordered FairFace train pictures, one look at the spec's "
            f"thresholds finds nothing in {second['missed']}, {share:.2%}; lost at P-net "
            f"{lost['pnet']}, at R-net {lost['rnet']}, at O-net {lost['onet']}. A second look at "
            "the same proposals, only where nothing was found:",
            "",
            *rows_of(second, "R-net, O-net"),
            "",
        ]
    if portrait := parts.get("portrait"):
        lines += [
            "A look for a portrait, where the second finds nothing either: in "
            f"{shares_of(portrait)}. One large face near the middle is looked for in views of the "
            "photo:",
            "",
            *rows_of(portrait, "views | P-net | R-net | O-net"),
            "",
            timed(portrait),
            "",
        ]
    if tight := parts.get("tight"):
        lines += [
            "A last look, in a grey border, for pictures that a face fills: of the pictures as "
            f"they are, without one, all looks before find nothing in {shares_of(tight)}.",
            "",
            *rows_of(tight, "border | P-net | R-net | O-net"),
            "",
            timed(tight),
            "",
            *(
                f"On {off['pictures']} of {name}'s pictures as they are, the farthest landmark "
                f"lies {off['filled']:.1%} of the face's width from where it lies in a border "
                "(median); with boxes cut off at the edges in place of filled up, "
                f"{off['cut_off']:.1%}."
                for name, off in tight["landmarks_off"].items()
            ),
        ]
    return "\n".join(lines).rstrip() + "\n"


def shares_of(part: dict[str, Any]) -> str:
    missed, all_of = part["missed_by_data_set"], part["pictures_by_data_set"]
    return " and ".join(
        f"{missed[name]} of {count} of {name}'s, {missed[name] / count:.2%}"
        for name, count in all_of.items()
    )


def timed(part: dict[str, Any]) -> str:
    return (
        "With it, a drawn picture in which no look finds a face takes "
        f"{part['processor_time_without_a_face']:.2f} times the processor time."
    )


def rows_of(part: dict[str, Any], head: str) -> list[str]:
    kinds = part["faceless_pictures"]
    header = [*head.split(" | "), "recovered", "share", "found elsewhere"]
    header += [f"more false, {kind}" for kind in kinds]
    header += ["of these not held back"] if "gate" in part else []
    rows = []
    for name, row in part["looks"].items():
        bold = name == part["chosen"]
        cells = [f"**{cell}**" if bold else cell for cell in name.split(" | ")]
        recovered, *others = row.values()
        rows.append([*cells, recovered, f"{recovered / part['missed']:.0%}", *others])
    before = ", ".join(
        f"{part['with_a_false_face_before'][k]} of {n} {k}" for k, n in kinds.items()
    )
    return [
        markdown_table(header, rows),
        "",
        f"The looks before find a face in {before} pictures without one."
        + (
            f" Not held back: with a detection score of {part['gate']} or more, at which "
            f"{part.get('model', 'the default model')} answers."
            if "gate" in part
            else ""
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=COMMANDS)
    parser.add_argument("cache", type=Path)
    parser.add_argument("scenes", type=Path, help="folder of the parity script")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    cv2.setNumThreads(1)
    drawn = [np.asarray(Image.open(p)) for p in sorted(args.scenes.glob("faceless-*.png"))]
    if len(drawn) != FACELESS:
        sys.exit(
            f"{args.scenes} holds {len(drawn)} of the {FACELESS} drawn pictures: make them with "
            "scripts/mtcnn_parity.py scenes"
        )
    cache = open_cache(args.cache)
    stored = args.out / "mtcnn-recall.json"
    parts = json.loads(stored.read_text()) if stored.exists() else {}
    started = args.cache, max(0, COMMANDS.index(args.part) - 1)
    with ProcessPoolExecutor(os.cpu_count(), initializer=_start, initargs=started) as pool:
        parts[args.part] = part_of(args.part, cache, drawn, pool)
    args.out.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(parts, indent=1) + "\n")
    (args.out / "mtcnn-recall.md").write_text(page(parts))
    print(page(parts))


if __name__ == "__main__":
    main()
