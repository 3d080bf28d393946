"""The frozen values that flow through facewise: Photo, Face, Distribution, Prediction.

Coordinates are always pixels of the upright photo (EXIF orientation applied), x to the right, y
down, with the origin at the top-left corner of the top-left pixel; boxes are ``xyxy``. "Left" and
"right" are the viewer's, not the subject's. Arrays handed out are read-only.

The ``bbox`` of a detected face instead follows the convention of MTCNN's weights: coordinates count
from 1, and the last pixel is included. Its left and top are up to one pixel larger than an index
into the photo's array; landmarks are not affected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facewise.errors import InvalidArrayError, OptionError

Array = NDArray[Any]
"""Values of any type."""

FloatArray = NDArray[np.float32]
"""Fractional numbers in single precision, as networks take and give them."""

Float64Array = NDArray[np.float64]
"""Fractional numbers in double precision, for statistics."""

AnyFloatArray = NDArray[np.floating[Any]]
"""Fractional numbers in any precision."""

IntArray = NDArray[np.int64]
"""Whole numbers: years, counts, coordinates."""

IndexArray = NDArray[np.intp]
"""Indices of rows or classes, as NumPy's searches give them."""

AnyIntArray = NDArray[np.integer[Any]]
"""Whole numbers of any width."""

BoolArray = NDArray[np.bool_]
"""A mask of rows, or bits."""

TextArray = NDArray[np.str_]
"""Names, one a row; those of the user's own columns are objects."""

ImageArray = NDArray[np.uint8]
"""Pixels, in RGB unless stated otherwise."""

Corners = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels, counted from 0; right and bottom are exclusive."""


def _frozen(array: Array) -> Array:
    """A read-only view, so that a frozen dataclass is frozen all the way down."""
    view = array.view()
    view.flags.writeable = False
    return view


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


class _ByFields:
    """Compares, pickles and copies by fields; a copy goes through the constructor, so it is
    read-only too.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._fields()

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, _ByFields)
        return all(map(_same, self._fields(), other._fields()))

    def __hash__(self) -> int:
        """Hash the scalars only: an array has no hash."""
        scalars = (int, float, str, tuple)
        return hash(tuple(value for value in self._fields() if isinstance(value, scalars)))


class _ReadOnly(dict[str, str]):
    """A dict that refuses changes.

    Unlike ``MappingProxyType`` it can be pickled and copied, and ``dataclasses.asdict`` and
    ``json.dumps`` accept it.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a prediction is read-only: change a copy, dict(prediction.abstained)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True, slots=True, eq=False)
class Photo(_ByFields):
    """An upright picture.

    Attributes:
        rgb: uint8 ``(H, W, 3)``, RGB.
        source: where it came from, for messages only; None for arrays and bytes.

    Raises:
        InvalidArrayError: the array has another dtype or shape.
    """

    rgb: ImageArray
    source: str | None = None

    def __post_init__(self) -> None:
        rgb = np.asarray(self.rgb)
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise InvalidArrayError(
                f"Photo.rgb must be uint8 (H, W, 3), not {rgb.dtype} {rgb.shape}"
            )
        object.__setattr__(self, "rgb", _frozen(rgb))

    def __repr__(self) -> str:
        source = "" if self.source is None else f", {self.source}"
        return f"<Photo {self.width_px} x {self.height_px}{source}>"

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.rgb.shape[0])


@dataclass(frozen=True, slots=True)
class Quality:
    """How much can be seen of a face.

    Attributes:
        eye_distance_px: pixels of the photo between the two eye centres.
        sharpness: focus of the aligned face, 0 and up; see ``facewise.quality``.
        yaw_degrees: rough turn of the head from the landmarks; 0 is frontal, positive when the
            nose points to the viewer's right.
        brightness: mean luma of the aligned face, 0 to 1.
        contrast: standard deviation of that luma, 0 to 0.5.
    """

    eye_distance_px: float
    sharpness: float
    yaw_degrees: float
    brightness: float
    contrast: float

    def to_dict(self) -> dict[str, float]:
        """Plain JSON-ready values."""
        return {
            "eye_distance_px": round(self.eye_distance_px, 2),
            "sharpness": round(self.sharpness, 3),
            "yaw_degrees": round(self.yaw_degrees, 1),
            "brightness": round(self.brightness, 3),
            "contrast": round(self.contrast, 3),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Face(_ByFields):
    """A detected face.

    Lists and arrays of other numbers become float32.

    Attributes:
        bbox: float32 ``(4,)``, xyxy in pixels of the upright photo, in the convention described in
            the module docstring; may reach past the photo's edges.
        landmarks: float32 ``(5, 2)``: left eye, right eye, nose, left and right mouth corner, as
            the viewer sees them.
        detection_score: 0 to 1, on ``MTCNN``'s scale. Leave it out if another detector found the
            face: its scores mean something else.
        quality: None until the face has been cut out.

    Raises:
        OptionError: landmarks are missing, a shape is wrong, a number is NaN or infinite, the box
            has no extent, or the score is out of range.
    """

    bbox: FloatArray
    landmarks: FloatArray
    detection_score: float = 1.0
    quality: Quality | None = None

    if TYPE_CHECKING:  # the constructor accepts more types than the fields hold

        def __init__(
            self,
            bbox: ArrayLike,
            landmarks: ArrayLike,
            detection_score: float | np.floating[Any] = 1.0,
            quality: Quality | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.landmarks is None:
            raise OptionError(
                "Face needs five landmarks: if there are only boxes, "
                "MTCNN().find_landmarks(photo, boxes) turns them into faces"
            )
        # Copies, so that callers may go on changing their arrays. Not np.array, which asks for a
        # copy in a way that torch tensors do not support.
        try:
            bbox = np.asarray(self.bbox, np.float32).copy()
            landmarks = np.asarray(self.landmarks, np.float32).copy()
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"Face needs numbers, bbox (4,) and landmarks (5, 2): {error}"
            ) from error
        if bbox.shape != (4,) or landmarks.shape != (5, 2):
            raise OptionError(
                f"Face needs bbox (4,) and landmarks (5, 2), not {bbox.shape} and {landmarks.shape}"
            )
        if not (np.isfinite(bbox).all() and np.isfinite(landmarks).all()):
            raise OptionError("Face needs finite numbers in bbox and landmarks")
        if (bbox[2:] <= bbox[:2]).any():
            raise OptionError(
                f"Face needs a box of left, top, right, bottom, not {bbox.tolist()}: convert x, y, "
                "width, height to x, y, x + width, y + height"
            )
        score: Any = self.detection_score
        if not (isinstance(score, (int, float, np.number)) and 0 <= score <= 1):
            raise OptionError(
                f"Face needs a detection_score of 0 to 1, not {score!r}: leave it out if it is on "
                "another scale than MTCNN's"
            )
        object.__setattr__(self, "bbox", _frozen(bbox))
        object.__setattr__(self, "landmarks", _frozen(landmarks))
        object.__setattr__(self, "detection_score", float(score))  # np.float32 is not JSON

    def __repr__(self) -> str:
        return f"<Face {_box(self)}, detection_score {self.detection_score:.2f}>"

    def corners(self, width_px: int, height_px: int) -> Corners:
        """The part of the box inside a picture, to cut it out of an array.

        ``left, top, right, bottom = face.corners(photo.width_px, photo.height_px)``, then
        ``photo.rgb[top:bottom, left:right]``.

        Args:
            width_px: width of the picture.
            height_px: its height.

        Returns:
            Left, top, right, bottom in whole pixels, counted from 0; right and bottom are
            exclusive. At least one pixel wide and high, also of a box outside the picture.
        """
        size = np.array([width_px, height_px])
        rounded = np.clip(np.round(self.bbox), 0, [*size, *size]).astype(int)
        first = np.minimum(rounded[:2], size - 1)
        last = np.maximum(rounded[2:], first + 1)
        return int(first[0]), int(first[1]), int(last[0]), int(last[1])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; ``quality`` is omitted if it is None."""
        out: dict[str, Any] = {
            "bbox": [round(float(v), 2) for v in self.bbox],
            "landmarks": [[round(float(x), 2), round(float(y), 2)] for x, y in self.landmarks],
            "detection_score": round(self.detection_score, 5),
        }
        if self.quality is not None:
            out["quality"] = self.quality.to_dict()
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Distribution(_ByFields, Mapping[str, float]):
    """Probabilities over named classes, as a mapping from label to probability, in label order.

    Attributes:
        labels: K names.
        probabilities: float32 ``(K,)``, calibrated, summing to 1 within 1e-5.
        label_set: the conformal set at the prediction's ``coverage``, most probable first; never
            empty. For ages and decades: the classes that the age interval touches.
    """

    labels: tuple[str, ...]
    probabilities: FloatArray
    label_set: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.labels),):
            raise ValueError("Distribution needs one probability per label")
        if abs(float(self.probabilities.sum(dtype=np.float64)) - 1.0) > 1e-5:
            raise ValueError("Distribution.probabilities must sum to 1")
        if not self.label_set:
            raise ValueError("Distribution.label_set must not be empty")
        object.__setattr__(self, "probabilities", _frozen(self.probabilities))

    def __repr__(self) -> str:
        likeliest = np.argsort(-self.probabilities, kind="stable")[:3]
        top = ", ".join(f"{self.labels[k]} {self.probabilities[k]:.0%}" for k in likeliest)
        rest = f", ... of {len(self.labels)}" if len(self.labels) > 3 else ""
        return f"<Distribution {top}{rest}>"

    @property
    def top(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]

    @property
    def top_probability(self) -> float:
        return float(self.probabilities.max())

    def __getitem__(self, label: str | int) -> float:
        """The probability of a label; ages may be given as numbers.

        Raises:
            KeyError: there is no such label.
        """
        try:
            return float(self.probabilities[self.labels.index(str(label))])
        except ValueError:
            few = len(self.labels) < 10
            names = ", ".join(self.labels if few else (*self.labels[:3], "...", self.labels[-1]))
            raise KeyError(f"no label {label!r}: there are {names}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def to_dict(self) -> dict[str, Any]:
        return {
            "label": self.top,
            "probabilities": {label: round(p, 5) for label, p in self.items()},
            "label_set": list(self.label_set),
        }


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Identifies the weights behind an answer."""

    name: str
    version: str
    sha256: str

    def __repr__(self) -> str:
        return f"<ModelInfo {self.name}@{self.version}>"

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


_NOTHING: Mapping[str, str] = _ReadOnly()


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(_ByFields):
    """The apparent attributes of one face. Attributes that are switched off are None.

    Attributes:
        face: the face they belong to.
        age_years: the expected apparent age.
        age_interval_years: lowest and highest age, inclusive; contains the labelled age with
            probability ``coverage`` on faces like those of the calibration set.
        coverage: nominal coverage of the interval and of the label sets.
        age: over the 120 single years.
        age_decades: over the 12 decades.
        gender: over male, female.
        ethnicity: over White, Black, Asian, Indian, Others.
        vector: float32 ``(19,)``, see ``facewise.labels``; NaN where an attribute is off.
        abstained: maps each attribute that facewise abstains from to the reason, in words; empty
            if it stands by all of them.
        model: identifies the weights.
    """

    face: Face
    age_years: float | None
    age_interval_years: tuple[int, int] | None
    coverage: float
    age: Distribution | None
    age_decades: Distribution | None
    gender: Distribution | None
    ethnicity: Distribution | None
    vector: FloatArray
    model: ModelInfo
    abstained: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        if self.vector.shape != (19,):
            raise ValueError(f"Prediction.vector must be (19,), not {self.vector.shape}")
        object.__setattr__(self, "vector", _frozen(self.vector))
        object.__setattr__(self, "abstained", _ReadOnly(self.abstained))

    def __repr__(self) -> str:
        return f"<Prediction {', '.join([*answers(self).values(), _box(self.face)])}>"

    def to_dict(self, *, vector: bool = False, years: bool = False) -> dict[str, Any]:
        """Plain JSON-ready values; attributes that are off are absent.

        Args:
            vector: add the 19 numbers (null where an attribute is off).
            years: add the distribution over the 120 single years.
        """
        out = self.face.to_dict()
        if self.age is not None and self.age_decades is not None:
            assert self.age_years is not None
            assert self.age_interval_years is not None
            out["age"] = {
                "years": round(self.age_years, 2),
                "interval_years": list(self.age_interval_years),
                "decades": self.age_decades.to_dict(),
            }
            if years:
                out["age"]["probabilities"] = [round(float(p), 6) for p in self.age.probabilities]
        if self.gender is not None:
            out["gender"] = self.gender.to_dict()
        if self.ethnicity is not None:
            out["ethnicity"] = self.ethnicity.to_dict()
        out["coverage"] = self.coverage
        out["abstained"] = dict(self.abstained)
        if vector:
            out["vector"] = [None if np.isnan(v) else round(float(v), 6) for v in self.vector]
        out["model"] = self.model.to_dict()
        return out

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        rows = [(f"apparent {name}", answer) for name, answer in answers(self).items()]
        rows += [(f"can't tell {name}", reason) for name, reason in self.abstained.items()]
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
        return f"<table>{body}</table>"


def _box(face: Face) -> str:
    left, top, right, bottom = (f"{v:.0f}" for v in face.bbox)
    return f"box {left},{top} to {right},{bottom}"


def are_mirrored(landmarks: FloatArray) -> bool:
    """Whether left and right of five landmarks, or x and y, are exchanged, however the face lies.

    Args:
        landmarks: float32 ``(5, 2)``, in the order of ``Face.landmarks``.
    """
    left, right, _, *mouth = landmarks.astype(np.float64)
    across, down = right - left, (mouth[0] + mouth[1] - left - right) / 2
    return bool(across[0] * down[1] < across[1] * down[0])


def whole_years(age_years: float) -> int:
    """An age as shown to people: that of ``to_dict``, halves rounded up, as on the page."""
    return math.floor(round(age_years, 2) + 0.5)


def answers(prediction: Prediction, *, percent: bool = True) -> dict[str, str]:
    """Short human-readable answers by attribute: "31 (24-39)", "female 88%", "Asian 52%?".

    A question mark follows answers that facewise abstains from; attributes that are off are absent.

    Args:
        prediction: of one face.
        percent: include the probability of the label.
    """
    out: dict[str, str] = {}
    marks = dict.fromkeys(prediction.abstained, "?")
    if prediction.age_years is not None and prediction.age_interval_years is not None:
        first, last = prediction.age_interval_years
        years = whole_years(prediction.age_years)
        out["age"] = f"{years}{marks.get('age', '')} ({first}-{last})"
    for name in ("gender", "ethnicity"):
        distribution: Distribution | None = getattr(prediction, name)
        if distribution is not None:
            share = f" {distribution.top_probability:.0%}" if percent else ""
            out[name] = f"{distribution.top}{share}{marks.get(name, '')}"
    return out
