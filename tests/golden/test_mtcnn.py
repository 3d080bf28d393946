"""The detector against facenet-pytorch's stored answers on a dozen scenes.

``docs/mtcnn.md`` says how to regenerate them; ``docs/results/mtcnn-parity.md`` has the comparison
on some 500 scenes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facewise import MTCNN, Photo

from .scenes import MIN_FACE_PX, Floats, count_matches, scenes

GOLDEN = Path(__file__).parent / "mtcnn.json"

Found = dict[str, tuple[Floats, Floats]]
"""Scene to boxes ``(N, 4)`` and landmarks ``(N, 5, 2)``."""


@pytest.fixture(scope="module")
def golden() -> Found:
    stored: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))["scenes"]
    return {
        name: (
            np.array([face["bbox"] for face in faces], np.float64).reshape(-1, 4),
            np.array([face["landmarks"] for face in faces], np.float64).reshape(-1, 5, 2),
        )
        for name, faces in stored.items()
    }


@pytest.fixture(scope="module")
def ours() -> Found:
    detector = MTCNN(threads=1, min_face_px=MIN_FACE_PX, second_look=False)
    names, pictures = zip(*scenes(), strict=True)
    found = detector.detect_many([Photo(np.asarray(picture)) for picture in pictures])
    return {
        name: (
            np.array([face.bbox for face in faces], np.float64).reshape(-1, 4),
            np.array([face.landmarks for face in faces], np.float64).reshape(-1, 5, 2),
        )
        for name, faces in zip(names, found, strict=True)
    }


def shares(golden: Found, ours: Found) -> tuple[float, float]:
    """The matched share of the reference's faces, and of ours."""
    matched = sum(count_matches(*golden[name], *ours[name]) for name in golden)
    theirs = sum(len(boxes) for boxes, _ in golden.values())
    return matched / theirs, matched / sum(len(boxes) for boxes, _ in ours.values())


def test_the_golden_covers_every_scene(golden: Found) -> None:
    names = [name for name, _ in scenes()]
    assert list(golden) == names
    assert len(golden["nobody"][0]) == 0
    assert sum(len(boxes) for boxes, _ in golden.values()) >= 20
    for name in names:
        assert name in ("nobody", "cut-off") or len(golden[name][0]), name


def test_every_face_of_the_reference_and_no_other(golden: Found, ours: Found) -> None:
    assert shares(golden, ours) == (1.0, 1.0)


def shifted(boxes: Floats, points: Floats) -> tuple[Floats, Floats]:
    step = 0.08 * (boxes[:, 2] - boxes[:, 0])
    return boxes + np.stack([step, step * 0, step, step * 0], axis=1), points


def swapped(boxes: Floats, points: Floats) -> tuple[Floats, Floats]:
    return boxes, points[:, [1, 0, 2, 4, 3]]


def nudged(boxes: Floats, points: Floats) -> tuple[Floats, Floats]:
    moved = points.copy()
    moved[:, 2, 0] += 0.05 * (boxes[:, 2] - boxes[:, 0])
    return boxes, moved


def grown(boxes: Floats, points: Floats) -> tuple[Floats, Floats]:
    margin = 0.04 * (boxes[:, 2:] - boxes[:, :2])
    return np.hstack([boxes[:, :2] - margin, boxes[:, 2:] + margin]), points


@pytest.mark.parametrize("damage", [shifted, swapped, nudged, grown])
def test_what_is_wrong_does_not_match(
    golden: Found, ours: Found, damage: Callable[[Floats, Floats], tuple[Floats, Floats]]
) -> None:
    """The negative control: none of the damaged faces passes for the reference's."""
    damaged = {name: damage(*found) for name, found in ours.items()}
    assert shares(golden, damaged) == (0.0, 0.0)


def test_a_missing_and_an_invented_face_are_noticed(golden: Found, ours: Found) -> None:
    boxes, points = ours["six"]
    recall, precision = shares(golden, {**ours, "six": (boxes[1:], points[1:])})
    assert recall < 1
    assert precision == 1
    twice = np.concatenate([boxes, boxes[:1]]), np.concatenate([points, points[:1]])
    recall, precision = shares(golden, {**ours, "six": twice})
    assert recall == 1
    assert precision < 1
