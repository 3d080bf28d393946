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
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from facewise.boxes import apart, check_boxes, non_maximum_suppression, refine, scaled, to_squares
from facewise.errors import ModelIntegrityError, OptionError, check_count
from facewise.images import ColorOrder, PhotoSource, load_photo, load_photos
from facewise.models import WEIGHTS_FOLDER, Provider, Session, open_session
from facewise.portrait import Portrait, mirror_face, mirror_photo
from facewise.resample import AreaSource
from facewise.types import Face, FloatArray, Photo
from facewise.windows import CELL_PX, Candidates, Map, likely_windows, logit_of, pieces

BATCH_SIZE: Final = 32
"""Crops per run of R-net or O-net: few enough for the processor's cache."""

PHOTOS_AT_ONCE: Final = 8
"""Photos held in memory at once, with their even larger sums: enough to fill batches."""

MAPS_AT_ONCE: Final = 500_000
"""Windows collected before they are searched: all levels together unless the photo is huge."""

PIXELS_A_CELL: Final = 2
"""Block pixels, in either direction, that each pixel of the finest level averages at least. Finer
detail is first averaged into blocks, in photos where the smallest face sought is 48 px or more."""


BOX_SCALES: Final = (0.5, 0.625, 0.8, 1.0, 1.2)
"""Scales at which another detector's box is tried: detectors differ in how much of the head a box
includes, and most include more than MTCNN. The first scale still finds faces in boxes twice as
large, the last in boxes a fifth smaller (``scripts/given_boxes.py``)."""


class Options(TypedDict, total=False):
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
        self._spec = _read_spec()
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
            name: open_session(
                WEIGHTS_FOLDER / network["file"],
                network["sha256"],
                threads=threads,
                providers=providers,
            )
            for name, network in self._spec["networks"].items()
        }

    def _set(self, options: Options) -> None:
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
        self._nms: dict[str, float] = spec["nms"]
        self._min_face: dict[str, float] = spec["min_face"]

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

    def replace(self, **options: Unpack[Options]) -> MTCNN:
        """Return a copy with some options changed; the networks are shared, not opened again.

        Args:
            **options: any argument of ``MTCNN`` except threads and providers.

        Raises:
            OptionError: an argument is out of range.
        """
        if unknown := sorted(options.keys() - Options.__annotations__.keys()):
            raise TypeError(f"no option of a copy: {', '.join(unknown)}")
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
        images = [self._source(loaded)]
        one_based = given + np.array([1, 1, 0, 0], np.float32)
        tried = to_squares(np.concatenate([scaled(one_based, scale) for scale in BOX_SCALES]))
        (_,), (moves,) = self._run_crops("rnet", images, [tried], 24)
        squares = to_squares(refine(tried, moves))
        (logits,), _, (points,) = self._run_crops("onet", images, [squares], 48)
        surest = logits.reshape(len(BOX_SCALES), -1).argmax(axis=0)
        chosen = surest * len(given) + np.arange(len(given))
        landmarks = _landmarks(points[chosen], squares[chosen])
        return tuple(
            Face(box, own, _probability(logit))
            for box, own, logit in zip(given, landmarks, logits[chosen], strict=True)
        )

    def _detect(self, photos: Sequence[Photo]) -> list[tuple[Face, ...]]:
        if not photos:
            return []
        images = [self._source(photo) for photo in photos]
        proposed = [self._propose(image) for image in images]
        found = self._find(images, proposed, self.thresholds)
        if self.second_thresholds is not None:
            again = [i for i, faces in enumerate(found) if not faces and len(proposed[i].boxes)]
            picked = [images[i] for i in again], [proposed[i] for i in again]
            _put(found, again, self._find(*picked, self.second_thresholds))
        for portrait in self.portraits:
            again = [i for i, f in enumerate(found) if not f and portrait.may_be_in(photos[i])]
            last = [photos[i] for i in again], [images[i] for i in again]
            _put(found, again, self._find_portraits(*last, portrait))
        return [faces[: self.max_faces] for faces in found]

    def _source(self, photo: Photo) -> AreaSource:
        return AreaSource(photo.rgb, self._reduction(photo))

    def _find_portraits(
        self, photos: Sequence[Photo], images: Sequence[AreaSource], portrait: Portrait
    ) -> list[tuple[Face, ...]]:
        """Take a last look, at coarse levels only, so that it costs little."""
        views = [portrait.view(photo) for photo in photos]
        least = [
            max(self.smallest_px(photo.width_px, photo.height_px), portrait.least_px(photo))
            for photo in photos
        ]
        seen = self._both_ways(
            [view.photo for view in views],
            [
                image if view.photo is photo else AreaSource(view.photo.rgb)
                for photo, image, view in zip(photos, images, views, strict=True)
            ],
            [px / view.block for px, view in zip(least, views, strict=True)],
            portrait.thresholds,
        )
        return [
            portrait.best(map(view.back, faces), photo)
            for photo, view, faces in zip(photos, views, seen, strict=True)
        ]

    def _both_ways(
        self,
        photos: Sequence[Photo],
        images: Sequence[AreaSource],
        smallest_px: Sequence[float],
        thresholds: tuple[float, float, float],
    ) -> list[list[Face]]:
        """Find faces in photos and their mirror images, in the coordinates of the photos.

        The weights treat the two sides of a face differently, so many missed faces are found in
        the mirror image.
        """
        mirrored = [
            AreaSource(mirror_photo(photo).rgb, image.reduction)
            for photo, image in zip(photos, images, strict=True)
        ]
        seen = [*images, *mirrored]
        proposed = [
            self._propose(image, thresholds[0], smallest)
            for image, smallest in zip(seen, [*smallest_px] * 2, strict=True)
        ]
        found = self._find(seen, proposed, thresholds)
        return [
            [*faces, *(mirror_face(face, photo.width_px) for face in others)]
            for photo, faces, others in zip(
                photos, found[: len(photos)], found[len(photos) :], strict=True
            )
        ]

    def _find(
        self,
        images: Sequence[AreaSource],
        proposed: Sequence[Candidates],
        thresholds: tuple[float, float, float],
    ) -> list[tuple[Face, ...]]:
        """Run stages two and three."""
        if not images:
            return []
        refined = self._refine(images, proposed, thresholds[1])
        return self._output(images, refined, thresholds[2])

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
        """Stage one: P-net over the pyramid of one photo, or over its coarser levels."""
        threshold = threshold or self.thresholds[0]
        smallest_px = smallest_px or self.smallest_px(*image.size)
        width, height = image.size
        found: list[Candidates] = []
        regressions: list[FloatArray] = []
        maps: list[Map] = []
        scales = self.pyramid_scales(width, height, smallest_px)
        sizes = [(int(width * scale + 1), int(height * scale + 1)) for scale in scales]
        for scale, level_image in zip(scales, image.levels(sizes), strict=True):
            for left, top, piece in pieces(level_image):
                logit, regression = self._networks["pnet"].run(None, {"image": piece[None]})
                maps.append(Map(logit, regression, left, top, scale))
            if scale == scales[-1] or sum(m.logit.size for m in maps) > MAPS_AT_ONCE:
                for candidates, offsets, level in likely_windows(maps, threshold):
                    keep = non_maximum_suppression(
                        apart(candidates.boxes, level), candidates.logits, self._nms["level"]
                    )
                    keep = keep[np.argsort(level[keep], kind="stable")]
                    found.append(candidates.take(keep))
                    regressions.append(offsets[keep])
                maps.clear()
        if not found:
            return Candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32))
        boxes = np.concatenate([level.boxes for level in found])
        logits = np.concatenate([level.logits for level in found])
        keep = non_maximum_suppression(boxes, logits, self._nms["photo"])
        moved = refine(boxes[keep], np.concatenate(regressions)[keep], extent=0.0)
        return Candidates(to_squares(moved), logits[keep])

    def _refine(
        self, images: Sequence[AreaSource], proposed: Sequence[Candidates], threshold: float
    ) -> list[Candidates]:
        """Stage two: R-net over the candidates of all photos."""
        logit, regression = self._run_crops("rnet", images, [p.boxes for p in proposed], 24)
        results = []
        for candidates, z, offsets in zip(proposed, logit, regression, strict=True):
            passed = z > logit_of(threshold)
            boxes, z, offsets = candidates.boxes[passed], z[passed], offsets[passed]
            keep = non_maximum_suppression(boxes, z, self._nms["rnet"])
            results.append(Candidates(to_squares(refine(boxes[keep], offsets[keep])), z[keep]))
        return results

    def _output(
        self, images: Sequence[AreaSource], refined: Sequence[Candidates], threshold: float
    ) -> list[tuple[Face, ...]]:
        """Stage three: O-net over the remaining candidates."""
        outputs = self._run_crops("onet", images, [r.boxes for r in refined], 48)
        return [
            self._faces(candidates.boxes, z, offsets, points, threshold)
            for candidates, z, offsets, points in zip(refined, *outputs, strict=True)
        ]

    def _faces(
        self,
        boxes: FloatArray,
        z: FloatArray,
        offsets: FloatArray,
        points: FloatArray,
        threshold: float,
    ) -> tuple[Face, ...]:
        passed = z > logit_of(threshold)
        boxes, z, offsets, points = boxes[passed], z[passed], offsets[passed], points[passed]
        landmarks = _landmarks(points, boxes)
        boxes = refine(boxes, offsets)
        # The regression is unbounded: a box whose edges moved past each other is not a face.
        sound = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        boxes, z, landmarks = boxes[sound], z[sound], landmarks[sound]
        keep = non_maximum_suppression(boxes, z, self._nms["onet"], relative_to="smaller")
        areas = np.prod(boxes[keep, 2:] - boxes[keep, :2], axis=1)
        keep = keep[np.argsort(-areas, kind="stable")]
        return tuple(
            Face(
                bbox=boxes[i].astype(np.float32),
                landmarks=landmarks[i].astype(np.float32),
                detection_score=_probability(z[i]),
            )
            for i in keep
        )

    def _run_crops(
        self,
        name: str,
        images: Sequence[AreaSource],
        boxes: Sequence[FloatArray],
        size_px: int,
    ) -> list[list[FloatArray]]:
        """Run R-net or O-net on every box of every photo, in batches across photos.

        Returns:
            For each output of the network, one array per photo.
        """
        session = self._networks[name]
        parts = [
            session.run(None, {"image": crops})
            for crops in _crop_batches(images, boxes, size_px, fill_up=self.fill_up)
        ]
        ends = [0, *itertools.accumulate(len(own) for own in boxes)]
        return [
            [whole[first:last] for first, last in itertools.pairwise(ends)]
            for whole in map(np.concatenate, zip(*parts, strict=True))
        ]


def _landmarks(points: FloatArray, squares: FloatArray) -> FloatArray:
    """Landmarks in the photo, ``(N, 5, 2)``.

    O-net gives five x, then five y, as shares of its input square; the weights' origin is (1, 1).
    """
    sizes = squares[:, 2:] - squares[:, :2] + 1  # inclusive pixels
    shares = points.reshape(-1, 2, 5).transpose(0, 2, 1)
    landmarks: FloatArray = shares * sizes[:, None] + squares[:, None, :2] - 1
    return landmarks


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _crop_batches(
    images: Sequence[AreaSource], boxes: Sequence[FloatArray], size_px: int, *, fill_up: bool
) -> Iterator[FloatArray]:
    """Yield the crops of all photos, at most ``BATCH_SIZE`` at a time.

    A crowd has thousands, which together would take more memory than the photo. At least one batch
    is yielded, even if empty: it gives each output of a network its shape.
    """
    waiting = [np.empty((0, size_px, size_px, 3), np.float32)]
    room = BATCH_SIZE
    for image, own in zip(images, boxes, strict=True):
        start = 0
        while start < len(own):
            part = own[start : start + room]
            waiting.append(cut_squares(image, part, size_px, fill_up=fill_up))
            start, room = start + len(part), room - len(part)
            if room == 0:
                yield np.concatenate(waiting)
                del waiting[1:]
                room = BATCH_SIZE
    if len(waiting) > 1 or not any(map(len, boxes)):
        yield np.concatenate(waiting)


def _put(found: list[tuple[Face, ...]], places: list[int], faces: list[tuple[Face, ...]]) -> None:
    for place, some in zip(places, faces, strict=True):
        found[place] = some


def _holds(condition: Callable[[], bool]) -> bool:
    """Whether the condition holds; False if the values cannot be compared."""
    try:
        return bool(condition())
    except (TypeError, ValueError):
        return False


def _read_spec() -> dict[str, Any]:
    path = WEIGHTS_FOLDER / "mtcnn.json"
    try:
        spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelIntegrityError(f"{path} cannot be read ({error}); reinstall facewise") from error
    return spec


def cut_squares(image: AreaSource, boxes: FloatArray, size_px: int, *, fill_up: bool) -> FloatArray:
    """Cut boxes out of a picture and average them down to squares.

    Coordinates count from 1, and the last pixel is included.

    Args:
        image: the picture.
        boxes: ``(N, 4)``.
        size_px: side S of the squares.
        fill_up: fill with grey where a box reaches past the picture; otherwise the box is cut off
            at the edge and the rest stretched.

    Returns:
        float32 ``(N, S, S, 3)``, 0 to 255.
    """
    width, height = image.size
    corners = np.trunc(boxes).astype(np.int64)
    corners[:, :2] -= 1
    if not fill_up:
        corners = np.clip(corners, 0, [width, height, width, height])
    return image.crops(corners, size_px)
