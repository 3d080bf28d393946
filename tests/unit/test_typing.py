"""Code that users may write under ``mypy --strict``: this file is type-checked and run.

No line here may need a "type: ignore"; strict mode reports one that is not needed.
"""

from __future__ import annotations

import io
import mmap
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

import facewise


def names(models: tuple[facewise.ModelSpec, ...]) -> list[str]:
    return [model.name for model in models]


def model_of(answer: tuple[facewise.Prediction, ...]) -> facewise.ModelInfo:
    return answer[0].model


def test_opencvs_arrays_and_all_kinds_of_files(pictures: Path, tmp_path: Path) -> None:
    path = pictures / "astronaut.jpg"
    frame = cv2.imread(str(path))
    assert frame is not None
    same = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(path, "photo.jpg")
    with (
        zipfile.ZipFile(tmp_path / "photos.zip") as archive,
        archive.open("photo.jpg") as member,
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        tempfile.SpooledTemporaryFile() as spooled,
    ):
        spooled.write(path.read_bytes())
        spooled.seek(0)
        sources: list[facewise.PhotoSource] = [
            member, mapped, spooled, io.BytesIO(path.read_bytes()), path, str(path), same
        ]  # fmt: skip
        photos = [facewise.load_photo(source) for source in sources]
    for photo in photos:
        assert np.abs(photo.rgb.astype(int) - photos[-2].rgb).mean() < 2
    answer = facewise.analyze(frame, color_order="bgr", threads=1)
    assert model_of(answer).name in names(facewise.list_models())


def ages_by_path(paths: list[str]) -> dict[str, float | None]:
    """Type-checked only."""
    answers = facewise.Analyzer().analyze_many(paths, on_error="return")
    ages: dict[str, float | None] = {}
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, facewise.ImageError):
            print(answer.index, answer.source, answer.code)
        elif answer:
            ages[path] = answer[0].age_years
    return ages


def frames_of_a_video(path: str) -> list[tuple[facewise.Prediction, ...]]:
    """Type-checked only: there is no video to read."""
    video = cv2.VideoCapture(path)
    return [facewise.analyze(video.read()[1], color_order="bgr")]


def faces_of_another_detector(boxes: np.ndarray, points: list[np.ndarray]) -> list[facewise.Face]:
    """Type-checked only: lists, and arrays of any numeric type, make a face."""
    own = facewise.Face([1, 2, 30, 40], [[8.0, 9.0]] * 5)
    return [own, *(facewise.Face(box, five, 0.9) for box, five in zip(boxes, points, strict=True))]
