"""MTCNN: three cascaded networks that find faces and five landmarks (Zhang et al., 2016).

P-net scans every 12 x 12 window of an image pyramid, R-net checks its candidates at 24 x 24, and
O-net checks the survivors at 48 x 48. Each stage refines the boxes of the one before; O-net adds
landmarks. The weights' conventions (rounding of windows, inclusive pixels) are those of their
training; ``docs/mtcnn.md`` lists them.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from facewise.boxes import check_boxes
from facewise.cascade import Cascade, probability_of
from facewise.errors import ModelIntegrityError, OptionError, check_count, check_options
from facewise.images import ColorOrder, PhotoSource, load_photo, load_photos
from facewise.models import DETECTOR_SPEC, Provider, Session, open_session
from facewise.portrait import Portrait, mirror_face, mirror_photo
from facewise.resample import AreaSource
from facewise.types import Face, Photo
from facewise.windows import CELL_PX, Candidates

PHOTOS_AT_ONCE: Final = 8
"""Photos held in memory at once, with their even larger sums: enough to fill batches."""

PIXELS_A_CELL: Final = 2
"""Block pixels, in either direction, that each pixel of the finest level averages at least. Finer
detail is first averaged into blocks, in photos where the smallest face sought is 48 px or more."""


class DetectorOptions(TypedDict, total=False):
    """Arguments of ``MTCNN`` that can change without opening new sessions."""

    min_face_px: float | None
    thresholds: tuple[float, float, float] | None
    second_look: bool | None
    pyramid_factor: float | None
    max_faces: int | None


class MTCNN:
    """Face detector. Thread-safe.

    Args:
        min_face_px: smallest face to look for, in pixels of the photo; None for 2.5 % of the
            photo's shorter side, but at least 20.
        thresholds: least probability of a face after P-, R- and O-net; None for the spec's.
        second_look: if a photo shows no face, retry P-net's proposals with lower thresholds, for
            profiles, turned and covered faces. If that fails too, look for a portrait, one large
            face near the middle: with P-net's threshold lowered as well, in the photo and its
            mirror image, and finally with a grey border, which a face that fills the picture
            needs. None means True unless ``thresholds`` is given. False works as facenet-pytorch
            does: a single look, with boxes cut off at the photo's edges, where landmarks are then
            off by a tenth of the face or more.
        pyramid_factor: scale from one level of the pyramid to the next.
        max_faces: keep only this many, the largest ones.
        threads: per inference; all cores if None.
        providers: ONNX Runtime execution providers in order of preference, each a name or a pair
            of its name and its options; the CPU if None.

    Raises:
        OptionError: an argument is out of range.
        ModelIntegrityError: the weights are missing or damaged.
    """

    def __init__(
        self,
        *,
        min_face_px: float | None = None,
        thresholds: tuple[float, float, float] | None = None,
        second_look: bool | None = None,
        pyramid_factor: float | None = None,
        max_faces: int | None = None,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        self._spec = read_detector_spec()
        self._set(
            {
                "min_face_px": min_face_px,
                "thresholds": thresholds,
                "second_look": second_look,
                "pyramid_factor": pyramid_factor,
                "max_faces": max_faces,
            }
        )
        self._networks: dict[str, Session] = {
            name: open_session(path, sha256, threads=threads, providers=providers)
            for name, (path, sha256) in detector_weights(self._spec).items()
        }

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self._options.items() if value is not None]
        return f"<{' '.join(['MTCNN', ', '.join(given)]).strip()}>"

    def _set(self, options: DetectorOptions) -> None:
        """Check all options; those that are None take the spec's values."""
        spec, self._options = self._spec, options
        self.min_face_px, self.max_faces = options["min_face_px"], options["max_faces"]
        given, factor = options["thresholds"], options["pyramid_factor"]
        self.thresholds: tuple[float, float, float] = (
            tuple(spec["thresholds"]) if given is None else given
        )
        self.pyramid_factor: float = spec["pyramid_factor"] if factor is None else factor
        self._check_options()
        # P-net's proposals serve both looks, so it has one threshold.
        self.spec_second_look: list[float] = spec["second_look"]
        second = (self.thresholds[0], *self.spec_second_look)
        wanted = given is None if options["second_look"] is None else options["second_look"]
        self.second_thresholds: tuple[float, float, float] | None = second if wanted else None
        # Without filling, the rest of a box cut off at the edge would be stretched to a square,
        # and the networks would see a distorted face.
        self.fill_up = options["second_look"] is not False
        self.portraits: list[Portrait] = [
            Portrait(**{**stored, "thresholds": tuple(stored["thresholds"])})
            for stored in (spec["portraits"] if wanted else [])
        ]
        self._min_face: dict[str, float] = spec["min_face"]

    @property
    def _cascade(self) -> Cascade:
        return Cascade(self._networks, self._spec["nms"], self.fill_up)

    def _check_options(self) -> None:
        smallest, factor, thresholds = self.min_face_px, self.pyramid_factor, self.thresholds
        if smallest is not None and not _holds(lambda: CELL_PX <= smallest < np.inf):  # nor NaN
            raise OptionError(f"min_face_px must be {CELL_PX} or more, not {smallest!r}")
        if self.max_faces is not None:
            self.max_faces = check_count("max_faces", self.max_faces)
        if not _holds(lambda: 0.1 <= factor <= 0.95):
            raise OptionError(f"pyramid_factor must be 0.1 to 0.95, not {factor!r}")
        if not _holds(lambda: len(thresholds) == 3 and all(0 < t < 1 for t in thresholds)):
            raise OptionError(f"thresholds must be three numbers in (0, 1), not {thresholds!r}")

    def replace(self, **options: Unpack[DetectorOptions]) -> MTCNN:
        """Return a copy with some options changed; the networks are shared, not opened again.

        Args:
            **options: any argument of ``MTCNN`` except threads and providers.

        Raises:
            OptionError: an argument is out of range.
        """
        check_options(
            "MTCNN.replace()", options, DetectorOptions.__annotations__, ("threads", "providers")
        )
        other = copy.copy(self)
        other._set({**self._options, **options})
        return other

    def detect(self, photo: PhotoSource, *, color_order: ColorOrder = "rgb") -> tuple[Face, ...]:
        """Find faces, the largest first; an empty tuple if there are none.

        Args:
            photo: a Photo, or anything that ``facewise.load_photo`` reads.
            color_order: of arrays.

        Raises:
            ImageError: the picture cannot be read; its subclasses say why.
        """
        return self._detect([load_photo(photo, color_order=color_order)])[0]

    def detect_many(
        self, photos: Iterable[PhotoSource], *, color_order: ColorOrder = "rgb"
    ) -> list[tuple[Face, ...]]:
        """Find faces in photos of any sizes; R-net and O-net batch across photos.

        Photos are read a few at a time, so they may come from a generator; the first unreadable
        one raises.
        """
        loaded = load_photos(photos, color_order=color_order)
        found: list[tuple[Face, ...]] = []
        while some := self._detect(list(itertools.islice(loaded, PHOTOS_AT_ONCE))):
            found += some
        return found

    def find_landmarks(
        self, photo: PhotoSource, boxes: ArrayLike, *, color_order: ColorOrder = "rgb"
    ) -> tuple[Face, ...]:
        """Find landmarks for given face boxes, from another detector or a data set.

        Pass the resulting faces to ``Analyzer.analyze_faces``. R-net moves each box, at several
        sizes, to the face nearest its middle, and the landmarks that O-net is surest of are kept.
        Boxes may hold the whole head, or be off by a fifth of their size. No threshold applies:
        where there is no face, the landmarks are meaningless and the score is low.

        Args:
            photo: see ``detect``.
            boxes: ``(N, 4)``, left, top, right, bottom, pixels of the upright photo from its
                top-left corner.
            color_order: of arrays.

        Returns:
            One face per box, in the same order, with the box as given and O-net's probability of a
            face as ``detection_score``.

        Raises:
            ImageError: the picture cannot be read; its subclasses say why.
            OptionError: boxes have the wrong shape, are empty, or lie outside the photo.
        """
        loaded = load_photo(photo, color_order=color_order)
        given = check_boxes(boxes, loaded)
        if not len(given):
            return ()
        one_based = given + np.array([1, 1, 0, 0], np.float32)
        landmarks, logits = self._cascade.find_landmarks(self._source(loaded), one_based)
        return tuple(
            Face(box, own, probability_of(logit))
            for box, own, logit in zip(given, landmarks, logits, strict=True)
        )

    def _detect(self, photos: Sequence[Photo]) -> list[tuple[Face, ...]]:
        scenes = [self._scene(photo) for photo in photos]
        self._look(scenes, self.thresholds)
        if self.second_thresholds is not None:
            again = [s for s in scenes if not s.faces and len(s.proposed.boxes)]
            self._look(again, self.second_thresholds)
        for portrait in self.portraits:
            again = [s for s in scenes if not s.faces and portrait.may_be_in(s.photo)]
            self._look_for_portraits(again, portrait)
        return [scene.faces[: self.max_faces] for scene in scenes]

    def _scene(self, photo: Photo) -> _Scene:
        image = self._source(photo)
        return _Scene(photo, image, self._propose(image))

    def _look(self, scenes: Sequence[_Scene], thresholds: tuple[float, float, float]) -> None:
        """Look at what P-net proposed."""
        images, proposed = [s.image for s in scenes], [s.proposed for s in scenes]
        found = self._cascade.find(images, proposed, thresholds)
        for scene, faces in zip(scenes, found, strict=True):
            scene.faces = faces

    def _look_for_portraits(self, scenes: Sequence[_Scene], portrait: Portrait) -> None:
        """Look at coarse levels only, so that it costs little, but at mirror images, too.

        The weights treat the two sides of a face differently, so many missed faces are found in
        the mirror image.
        """
        views = [portrait.view(scene.photo) for scene in scenes]
        upright = [
            scene.image if view.photo is scene.photo else AreaSource(view.photo.rgb)
            for scene, view in zip(scenes, views, strict=True)
        ]
        mirrored = [
            AreaSource(mirror_photo(view.photo).rgb, image.reduction)
            for view, image in zip(views, upright, strict=True)
        ]
        smallest = [
            max(self.smallest_px(*s.image.size), portrait.least_px(s.photo)) / view.block
            for s, view in zip(scenes, views, strict=True)
        ]
        images = [*upright, *mirrored]
        proposed = [
            self._propose(image, portrait.thresholds[0], px)
            for image, px in zip(images, smallest * 2, strict=True)
        ]
        found = self._cascade.find(images, proposed, portrait.thresholds)
        both_ways = found[: len(scenes)], found[len(scenes) :]
        for scene, view, faces, others in zip(scenes, views, *both_ways, strict=True):
            turned_back = (mirror_face(face, view.photo.width_px) for face in others)
            scene.faces = portrait.best(map(view.back, [*faces, *turned_back]), scene.photo)

    def _source(self, photo: Photo) -> AreaSource:
        return AreaSource(photo.rgb, self._reduction(photo))

    def smallest_px(self, width_px: int, height_px: int) -> float:
        """Smallest face to look for in a photo of this size, in pixels."""
        share = self._min_face["share_of_short_side"] * min(width_px, height_px)
        return self.min_face_px or max(self._min_face["px"], share)

    def pyramid_scales(self, width_px: int, height_px: int, smallest_px: float) -> list[float]:
        """Scales of the pyramid levels of a photo of this size, the finest first."""
        short_side = min(width_px, height_px)
        scales = []
        scale = CELL_PX / smallest_px
        while short_side * scale >= CELL_PX:
            scales.append(scale)
            scale *= self.pyramid_factor
        return scales

    def _reduction(self, photo: Photo) -> int:
        """Side of the blocks of pixels within which P-net needs no detail."""
        size = photo.width_px, photo.height_px
        finest = self.pyramid_scales(*size, self.smallest_px(*size))[:1]
        return max(1, int(1 / (PIXELS_A_CELL * finest[0]))) if finest else 1

    def _propose(
        self, image: AreaSource, threshold: float | None = None, smallest_px: float | None = None
    ) -> Candidates:
        """Stage one over the whole pyramid of a photo, or over its coarser levels."""
        smallest_px = smallest_px or self.smallest_px(*image.size)
        scales = self.pyramid_scales(*image.size, smallest_px)
        return self._cascade.pnet(image, scales, threshold or self.thresholds[0])


@dataclass(slots=True, eq=False)
class _Scene:
    """A photo that is being searched: its pixels, P-net's proposals, and the faces found so far."""

    photo: Photo
    image: AreaSource
    proposed: Candidates
    faces: tuple[Face, ...] = ()


def _holds(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds; False if the values cannot be compared."""
    try:
        return bool(condition())
    except (TypeError, ValueError):
        return False


def read_detector_spec() -> dict[str, Any]:
    """Read the shipped detector's spec.

    Raises:
        ModelIntegrityError: it is not JSON, or lacks one of the three networks.
    """
    try:
        spec: dict[str, Any] = json.loads(DETECTOR_SPEC.read_text(encoding="utf-8"))
        detector_weights(spec)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelIntegrityError(
            f"{DETECTOR_SPEC} is damaged ({type(error).__name__}: {error}): reinstall facewise"
        ) from error
    return spec


def detector_weights(spec: dict[str, Any]) -> dict[str, tuple[Path, str]]:
    """Weight file and SHA-256 of each network in a detector's spec."""
    networks = {name: spec["networks"][name] for name in ("pnet", "rnet", "onet")}
    return {
        name: (DETECTOR_SPEC.parent / network["file"], network["sha256"])
        for name, network in networks.items()
    }
