"""The pipeline: bytes -> Photo -> Faces -> aligned crops -> probabilities -> Predictions."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, Unpack, overload

import numpy as np

from facewise.align import align_face, check_faces, check_landmarks
from facewise.attributes import BATCH_SIZE, AttributeModel
from facewise.calibration import DEFAULT_COVERAGE, Calibration
from facewise.errors import ImageError, OptionError, check_count, check_options
from facewise.images import (
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_PIXELS,
    DEFAULT_MIN_SIDE_PX,
    ColorOrder,
    PhotoSource,
    load_photo,
    load_photos,
)
from facewise.labels import ATTRIBUTES, by_attribute, check_attributes
from facewise.models import PlainProvider, Provider, load_spec, plain_providers
from facewise.mtcnn import MTCNN, PHOTOS_AT_ONCE
from facewise.predictions import make_predictions
from facewise.quality import measure_quality
from facewise.types import Face, FloatArray, ImageArray, Photo, Prediction

STAGES: Final = ("decode", "detect", "align", "attributes", "calibrate")
"""The timed stages, in order."""

FaceCrop = tuple[Face, ImageArray]
"""A face and its aligned crop, uint8 ``(S, S, 3)``."""


class Timings(dict[str, float]):
    """Milliseconds by stage; add a stage with ``with timings("decode"): ...``."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + (time.perf_counter() - started) * 1e3


class Options(TypedDict, total=False):
    """Arguments of ``Analyzer`` that can change without opening new sessions."""

    attributes: Collection[str]
    coverage: float
    min_face_px: float | None
    max_faces: int | None
    max_bytes: int
    max_pixels: int
    min_side_px: int


class AnalyzeOptions(Options, total=False):
    """Keyword arguments of ``analyze``."""

    color_order: ColorOrder
    model: str | os.PathLike[str]
    threads: int | None
    providers: Sequence[Provider] | None


class Analyzer:
    """Finds faces and estimates their apparent attributes. Thread-safe.

    When unpickled, it opens its networks again.

    Args:
        model: "default", a name, ``name@version``, or the path of a spec.
        attributes: which of age, gender and ethnicity to report. The network computes all of them
            at once; those not listed are discarded.
        coverage: of intervals and label sets: 0.8, 0.9 or 0.95.
        min_face_px: smallest face to look for; see ``MTCNN``.
        max_faces: keep only this many, the largest ones.
        threads: per inference; all cores if None.
        providers: ONNX Runtime execution providers in order of preference, each a name or a pair
            of its name and its options.
        max_bytes: largest encoded picture accepted.
        max_pixels: most pixels accepted in a picture.
        min_side_px: shortest side accepted in a picture.

    Attributes:
        spec: of the model.
        detector: the ``MTCNN`` that finds its faces; ``detector.find_landmarks`` turns another
            detector's boxes into faces. It has the default limits: if others were given, pass it
            what ``load`` returns.
        attributes: those reported.
        coverage: of intervals and label sets.

    Raises:
        OptionError: an argument is out of range.
        ModelNotFoundError: there is no such model.
        ModelIntegrityError: its weights are missing or damaged.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "default",
        *,
        attributes: Collection[str] = ATTRIBUTES,
        coverage: float = DEFAULT_COVERAGE,
        min_face_px: float | None = None,
        max_faces: int | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        min_side_px: int = DEFAULT_MIN_SIDE_PX,
    ) -> None:
        self.attributes = check_attributes(attributes)
        self.spec = load_spec(model)
        self.calibration = Calibration.from_dict(self.spec.calibration)
        self.coverage = self.calibration.check_coverage(coverage)
        limits = {"max_bytes": max_bytes, "max_pixels": max_pixels, "min_side_px": min_side_px}
        self._limits = {name: check_count(name, limit) for name, limit in limits.items()}
        self.detector = MTCNN(
            min_face_px=min_face_px, max_faces=max_faces, threads=threads, providers=providers
        )
        self.attribute_model = AttributeModel(self.spec, threads=threads, providers=providers)

    def __repr__(self) -> str:
        model = f"{self.spec.name}@{self.spec.version}"
        return f"<Analyzer {model}, {', '.join(self.attributes)}, coverage {self.coverage}>"

    def replace(self, **options: Unpack[Options]) -> Analyzer:
        """Return a copy with other options; the networks are shared, not opened again.

        Args:
            **options: any argument of ``Analyzer`` except model, threads and providers.

        Raises:
            OptionError: an argument is out of range.
        """
        fixed = ("model", "threads", "providers")
        check_options("Analyzer.replace()", options, Options.__annotations__, fixed)
        given: dict[str, Any] = {**options}
        other = copy.copy(self)
        other.attributes = check_attributes(given.get("attributes", self.attributes))
        other.coverage = self.calibration.check_coverage(given.get("coverage", self.coverage))
        other._limits = {
            name: check_count(name, given.get(name, limit)) for name, limit in self._limits.items()
        }
        detector = {name: given[name] for name in ("min_face_px", "max_faces") if name in given}
        other.detector = self.detector.replace(**detector)
        return other

    def load(self, source: PhotoSource, *, color_order: ColorOrder = "rgb") -> Photo:
        """Decode one picture under this analyzer's limits; see ``facewise.images.load_photo``."""
        return load_photo(source, color_order=color_order, **self._limits)

    def analyze(
        self,
        photo: PhotoSource,
        *,
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> tuple[Prediction, ...]:
        """Analyse one photo.

        Args:
            photo: path, bytes, file object, uint8 array, PIL image or Photo.
            color_order: of arrays.
            timings: receives milliseconds by stage: decode, detect, align, attributes, calibrate.

        Returns:
            One prediction per face, the largest face first; empty if there is no face.

        Raises:
            ImageError: the picture cannot be read; its subclasses say why.
        """
        timings = Timings() if timings is None else timings
        with timings("decode"):
            loaded = self.load(photo, color_order=color_order)
        return self._analyze(iter([loaded]), timings)[0]

    @overload
    def analyze_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        on_error: Literal["raise"] = "raise",
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> list[tuple[Prediction, ...]]: ...

    @overload
    def analyze_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        on_error: Literal["raise", "return"],
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> list[tuple[Prediction, ...] | ImageError]: ...

    def analyze_many(
        self,
        photos: Iterable[PhotoSource],
        *,
        on_error: Literal["raise", "return"] = "raise",
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> Any:
        """Analyse any number of photos, batching faces across photos.

        Photos are read a few at a time, so they may come from a generator.

        Args:
            photos: pictures, in any form that ``analyze`` accepts.
            on_error: "return" puts the ``ImageError`` of an unreadable picture in the place of its
                predictions; "raise" stops at the first.
            color_order: of arrays.
            timings: receives milliseconds by stage; see ``analyze``.

        Returns:
            For each picture, in the same order, what ``analyze`` returns, or its error.

        Raises:
            ImageError: a picture cannot be read; ``index`` and ``source`` say which.
            OptionError: ``on_error`` is neither "raise" nor "return".
        """
        if on_error not in ("raise", "return"):
            raise OptionError(f'on_error must be "raise" or "return", not {on_error!r}')
        failed: dict[int, ImageError] = {}
        loaded = load_photos(
            photos,
            failed=failed if on_error == "return" else None,
            color_order=color_order,
            **self._limits,
        )
        found = self._analyze(loaded, Timings() if timings is None else timings)
        answers = iter(found)
        return [
            failed[index] if index in failed else next(answers)
            for index in range(len(found) + len(failed))
        ]

    def analyze_faces(
        self,
        photo: PhotoSource,
        faces: Iterable[Face | Prediction],
        *,
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> tuple[Prediction, ...]:
        """Analyse faces already found by any detector; nothing is detected.

        Faces are cropped by their landmarks, and all quality gates apply. The gate on detection
        scores was fitted to ``MTCNN``'s scores; a ``Face`` made without a score passes it.

        Args:
            photo: the picture they were found in; see ``analyze``.
            faces: with landmarks in pixels of the upright photo; ``quality`` is measured again. Of
                a prediction, its face is taken. If there are only boxes, make faces of them with
                ``detector.find_landmarks(photo, boxes)``.
            color_order: of arrays.
            timings: receives milliseconds by stage.

        Returns:
            One prediction per face, in the order of ``faces``.

        Raises:
            ImageError: the picture cannot be read; its subclasses say why.
            OptionError: an item is not a ``Face``, or its landmarks coincide, are mirrored, or lie
                far outside the photo.
        """
        checked = check_faces(faces)
        timings = Timings() if timings is None else timings
        with timings("decode"):
            loaded = self.load(photo, color_order=color_order)
        check_landmarks(checked, loaded)
        return tuple(self._predict(self._cut(loaded, checked, timings), timings))

    def _analyze(self, photos: Iterator[Photo], timings: Timings) -> list[tuple[Prediction, ...]]:
        found: list[tuple[Face, ...]] = []
        predictions = iter(self._predict(self._find(photos, found, timings), timings))
        return [tuple(itertools.islice(predictions, len(faces))) for faces in found]

    def analyze_crops(
        self,
        crops: Iterable[PhotoSource],
        *,
        color_order: ColorOrder = "rgb",
        timings: Timings | None = None,
    ) -> list[Prediction]:
        """Analyse upright faces that are already cropped, one per picture; nothing is detected.

        This is for tight crops: each is resized to the model's input as it is. The closer its
        framing is to the spec's template, in which the face fills three quarters of the width, the
        better the answer. Only a crop that holds the face and hardly anything else fits: with more
        around it, answers go wrong, often without abstaining. ``analyze`` finds faces in crops,
        too, so pass only those in which it finds nothing. ``bbox`` is the whole picture; the
        landmarks are the template's.

        What only the photo shows is lost, and so are the abstention gates that depend on it: yaw,
        the detection score, and the face's size in the photo, instead of which the crop's own
        counts. If you have the photo, ``analyze_faces`` keeps them all.

        Args:
            crops: pictures, in any form that ``analyze`` accepts.
            color_order: of arrays.
            timings: receives milliseconds by stage; resizing counts as "align".

        Returns:
            One prediction per picture, in the same order.

        Raises:
            ImageError: a picture cannot be read; the message says which.
        """
        photos = load_photos(crops, failed=None, color_order=color_order, **self._limits)
        timings = Timings() if timings is None else timings
        return self._predict(self._uncut(photos, timings), timings)

    def _find(
        self, photos: Iterator[Photo], found: list[tuple[Face, ...]], timings: Timings
    ) -> Iterator[FaceCrop]:
        """Detect and crop, a few photos at a time; appends the faces of each photo to ``found``."""
        while some := _take(photos, timings, PHOTOS_AT_ONCE):
            with timings("detect"):
                found += self.detector.detect_many(some)
            for photo, faces in zip(some, found[-len(some) :], strict=True):
                yield from self._cut(photo, faces, timings)
            del some, photo  # free them before the next are decoded

    def _cut(self, photo: Photo, faces: Iterable[Face], timings: Timings) -> Iterator[FaceCrop]:
        for face in faces:
            with timings("align"):
                crop = align_face(photo.rgb, face, self.spec.template, self.spec.size_px)
            yield face, crop

    def _uncut(self, photos: Iterator[Photo], timings: Timings) -> Iterator[FaceCrop]:
        while some := _take(photos, timings, 1):
            with timings("align"):
                whole = self._whole(some.pop())  # which lets it go before the next is decoded
            yield whole

    def _whole(self, photo: Photo) -> FaceCrop:
        """The face and crop of a picture that is already a crop."""
        size = self.spec.size_px
        scale = np.array([photo.width_px, photo.height_px], np.float32)
        box = np.array([0, 0, *scale], np.float32)
        face = Face(box, self.spec.template / np.float32(size) * scale, 1.0)
        return face, _resize(photo.rgb, size)

    def _predict(self, cut: Iterator[FaceCrop], timings: Timings) -> list[Prediction]:
        """Predict in batches: the crops of a crowd would fill gigabytes."""
        timings.update({stage: timings.get(stage, 0.0) for stage in STAGES})
        predictions: list[Prediction] = []
        while some := list(itertools.islice(cut, BATCH_SIZE)):
            faces = [face for face, _ in some]
            crops = np.stack([crop for _, crop in some])
            with timings("attributes"):
                ages, vectors = self.attribute_model.predict(crops)
            with timings("calibrate"):
                predictions += self._predictions(faces, crops, ages, vectors)
        return predictions

    def _predictions(
        self, faces: Sequence[Face], crops: ImageArray, ages: FloatArray, vectors: FloatArray
    ) -> list[Prediction]:
        """Calibrate ``(N, 120)`` and ``(N, 19)`` probabilities into N predictions.

        The network computes all attributes at once; those that are off are ignored.
        """
        measured = [
            dataclasses.replace(face, quality=measure_quality(crop, face.landmarks))
            for face, crop in zip(faces, crops, strict=True)
        ]
        p = by_attribute(ages, vectors)
        return make_predictions(
            measured,
            {name: self.calibration.temper(p[name], name) for name in self.attributes},
            calibration=self.calibration,
            coverage=self.coverage,
            model=self.spec.info,
        )


def _take(photos: Iterator[Photo], timings: Timings, most: int) -> list[Photo]:
    with timings("decode"):
        return list(itertools.islice(photos, most))


def _resize(rgb: ImageArray, size_px: int) -> ImageArray:
    import cv2

    shrinking = min(rgb.shape[:2]) > size_px
    mode = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (size_px, size_px), interpolation=mode), np.uint8)


@functools.lru_cache(maxsize=4)
def _kept(
    spec: Path, contents: bytes, threads: int | None, providers: tuple[PlainProvider, ...]
) -> Analyzer:
    """The analyzer for a spec's file while it has these contents."""
    return Analyzer(spec, threads=threads, providers=providers)


def analyze(photo: PhotoSource, **options: Unpack[AnalyzeOptions]) -> tuple[Prediction, ...]:
    """Analyse one photo with cached networks.

    Networks are cached for the last four combinations of model, threads and providers; changing
    other options costs nothing. A spec whose file has changed is another model.

    Args:
        photo: path, bytes, file object, uint8 array, PIL image or Photo.
        **options: ``color_order``, or any argument of ``Analyzer``.

    Returns:
        One prediction per face, the largest face first; empty if there is no face.

    Raises:
        ImageError: the picture cannot be read; its subclasses say why.
        OptionError: an option is out of range.
    """
    check_options("analyze()", options, AnalyzeOptions.__annotations__)
    given: dict[str, Any] = {**options}
    color_order = given.pop("color_order", "rgb")
    spec, threads = load_spec(given.pop("model", "default")).path, given.pop("threads", None)
    kept = _kept(
        spec,
        spec.read_bytes(),
        None if threads is None else check_count("threads", threads),
        plain_providers(given.pop("providers", None)),
    )
    return kept.replace(**given).analyze(photo, color_order=color_order)
