"""Five-point alignment: the single preprocessor, for training and serving alike.

A face is shifted, rotated and scaled (a similarity, which keeps its shape) so that its five
landmarks fall on a template. The template is defined once, in units of the distance between the
eyes; a model's spec states how large that distance is in its input and where the eyes lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from facewise.errors import OptionError, check_count
from facewise.images import BORDER, ColorOrder, PhotoSource, load_photo
from facewise.models import load_spec
from facewise.types import (
    AnyFloatArray,
    Face,
    Float64Array,
    FloatArray,
    ImageArray,
    Photo,
    Prediction,
    are_mirrored,
)

LONGEST_SIDE_PX: Final = 2**15 - 2
"""Longest side of a picture that OpenCV 4 can warp."""

MEAN_SHAPE: Final[FloatArray] = np.array(
    [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.57], [-0.41, 1.15], [0.41, 1.15]], dtype=np.float32
)
"""The mean frontal face as MTCNN sees it: left eye, right eye, nose, left and right mouth corner.
The origin is midway between the eyes, the unit is their distance, y points down; rounded."""


def make_template(size_px: int, eye_distance: float, eye_height: float) -> FloatArray:
    """Place the mean face in a square crop.

    Args:
        size_px: side of the crop.
        eye_distance: distance between the eyes as a share of the side.
        eye_height: height of the eyes below the crop's top edge as a share of the side.

    Returns:
        float32 ``(5, 2)``, pixels of the crop.
    """
    centre = np.array([0.5, eye_height], dtype=np.float32)
    return ((MEAN_SHAPE * np.float32(eye_distance) + centre) * np.float32(size_px)).astype(
        np.float32
    )


def similarity_transform(landmarks: AnyFloatArray, template: AnyFloatArray) -> Float64Array:
    """The similarity that best maps landmarks to a template, in the least-squares sense.

    Points are treated as complex numbers: rotation and scaling become one complex factor, and the
    best one has a closed form (Umeyama, 1991, for two dimensions and without reflections).

    Args:
        landmarks: ``(K, 2)`` points in pixels of the photo, not all the same.
        template: ``(K, 2)`` where they should fall, in pixels of the crop.

    Returns:
        float64 ``(2, 3)``: ``crop = M[:, :2] @ photo + M[:, 2]``.

    Raises:
        OptionError: the landmarks coincide, or are not finite.
    """
    if not np.isfinite(landmarks).all():
        raise OptionError("landmarks must be finite numbers: there is nothing to align")
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1].astype(np.float64)
    target = template[:, 0].astype(np.float64) + 1j * template[:, 1].astype(np.float64)
    centred = source - source.mean()
    spread = float(np.vdot(centred, centred).real)
    if spread < 1e-12:
        raise OptionError("landmarks fall on one point: there is nothing to align")
    factor = np.vdot(centred, target - target.mean()) / spread
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def check_faces(faces: Iterable[Face | Prediction]) -> tuple[Face, ...]:
    """Check faces from another detector; they are returned unchanged, as a tuple.

    Of a prediction, its face is taken.

    Raises:
        OptionError: an item is not a ``Face``, or its landmarks coincide or are mirrored, as when
            a detector's left is the subject's; alignment would turn such a face upside down.
    """
    if isinstance(faces, Face) or not isinstance(faces, Iterable):
        raise OptionError(f"faces must be a list of Face, not one {type(faces).__name__}")
    checked = tuple(face.face if isinstance(face, Prediction) else face for face in faces)
    for index, face in enumerate(checked):
        if not isinstance(face, Face):
            raise OptionError(
                f"faces[{index}] must be a Face, not {type(face).__name__}: make one of its box "
                "and its five landmarks, facewise.Face(bbox, landmarks)"
            )
        if (face.landmarks == face.landmarks[0]).all():
            raise OptionError(f"faces[{index}]: the landmarks fall on one point")
        if are_mirrored(face.landmarks):
            raise OptionError(
                f"faces[{index}]: the landmarks are mirrored: left eye and left mouth corner are "
                "those on the viewer's left"
            )
    return checked


def check_landmarks(faces: Iterable[Face], photo: Photo) -> None:
    """Check that landmarks are pixels of this photo, not of another photo or another size.

    All landmarks of a face cut off by the photo's edge may lie beyond it (``MTCNN`` finds such
    faces too), but not by more than the size of the face.

    Raises:
        OptionError: all of a face's landmarks lie farther outside, so its crop would be plain
            grey; or all lie in the first pixel, as coordinates given as shares would.
    """
    size = np.array([photo.width_px, photo.height_px])
    for index, face in enumerate(faces):
        if ((face.landmarks >= 0) & (face.landmarks <= 1)).all():
            raise OptionError(
                f"faces[{index}]: the landmarks lie between 0 and 1, but must be pixels of the "
                "upright photo: multiply x by its width, y by its height"
            )
        reach = (face.bbox[2:] - face.bbox[:2]).max()
        near = (face.landmarks >= -reach) & (face.landmarks <= size + reach)
        if not near.all(axis=1).any():
            raise OptionError(
                f"faces[{index}]: no landmark lies in the photo of {size[0]} x {size[1]}: "
                "landmarks are pixels of the upright photo"
            )


def warp(rgb: ImageArray, transform: Float64Array, size_px: int) -> ImageArray:
    """Cut a square crop out of a picture; grey where it reaches past the edge.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        transform: ``(2, 3)``, photo to crop, as from ``similarity_transform``.
        size_px: side of the crop.

    Returns:
        uint8 ``(size_px, size_px, 3)``.
    """
    import cv2

    rgb, transform = averaged(rgb, transform, size_px)
    return np.asarray(
        cv2.warpAffine(
            rgb,
            transform,
            (size_px, size_px),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(BORDER, BORDER, BORDER),
        ),
        dtype=np.uint8,
    )


def averaged(
    rgb: ImageArray, transform: Float64Array, size_px: int
) -> tuple[ImageArray, Float64Array]:
    """The source to warp a crop from: the picture, or the needed part of it averaged down.

    If the crop is much smaller than the face, bilinear sampling alone would skip most pixels, and
    a 12-megapixel portrait would look like noise. Training does the same, with other borders.

    Args:
        rgb: uint8 ``(H, W, 3)``.
        transform: ``(2, 3)``, picture to crop, a similarity or a mirrored one.
        size_px: side of the crop.

    Returns:
        The picture to warp, no side too long for OpenCV, and its own transform to the crop.
    """
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale < 0.5:
        return _shrink(rgb, transform, size_px, int(1.0 / scale))
    if max(rgb.shape) > LONGEST_SIDE_PX:
        return _shrink(rgb, transform, size_px, 1)
    return rgb, transform


def _shrink(
    rgb: ImageArray, transform: Float64Array, size_px: int, factor: int
) -> tuple[ImageArray, Float64Array]:
    """Average the part of the picture that the crop covers down by a whole factor."""
    import cv2

    inverse = np.linalg.inv(np.vstack([transform, [0.0, 0.0, 1.0]]))
    corners = np.array([[0, 0, 1], [size_px, 0, 1], [0, size_px, 1], [size_px, size_px, 1]])
    region = (inverse @ corners.T)[:2]  # (2, 4), pixels of the photo
    height, width = rgb.shape[:2]
    left = int(np.clip(np.floor(region[0].min()) - factor, 0, width - 1))
    top = int(np.clip(np.floor(region[1].min()) - factor, 0, height - 1))
    right = int(np.clip(np.ceil(region[0].max()) + factor, left + 1, width))
    bottom = int(np.clip(np.ceil(region[1].max()) + factor, top + 1, height))
    columns, rows = max(1, (right - left) // factor), max(1, (bottom - top) // factor)
    # Whole blocks only, which OpenCV averages much faster; the remainder is margin.
    right, bottom = min(right, left + columns * factor), min(bottom, top + rows * factor)
    part = rgb[top:bottom, left:right]
    small = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    across, down = (right - left) / columns, (bottom - top) / rows
    # Pixel centres correspond, not corners: small x is photo left + (x + 0.5) * across - 0.5.
    to_photo = np.array(
        [
            [across, 0.0, left + 0.5 * across - 0.5],
            [0.0, down, top + 0.5 * down - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    return small, (np.vstack([transform, [0.0, 0.0, 1.0]]) @ to_photo)[:2]


def align_face(rgb: ImageArray, face: Face, template: FloatArray, size_px: int) -> ImageArray:
    """The aligned crop of one face, uint8 ``(S, S, 3)``; for the arguments see ``crop_faces``."""
    return warp(rgb, similarity_transform(face.landmarks, template), size_px)


def crop_faces(
    photo: PhotoSource,
    faces: Iterable[Face | Prediction],
    template: FloatArray | None = None,
    size_px: int | None = None,
    *,
    color_order: ColorOrder = "rgb",
) -> ImageArray:
    """Aligned crops of all faces of a photo, by default as the default model sees them.

    Args:
        photo: where the faces were found: a Photo, or anything that ``facewise.load_photo`` reads.
        faces: N faces, with landmarks in pixels of the upright photo; or predictions.
        template: float32 ``(5, 2)``, pixels of the crop, whose ``size_px`` must be given too; if
            None, the default model's, scaled to ``size_px``.
        size_px: side S of the crop; if None, the default model's.
        color_order: of arrays.

    Returns:
        uint8 ``(N, S, S, 3)``, RGB.

    Raises:
        ImageError: the picture cannot be read; its subclasses say why.
        OptionError: an item is not a ``Face``, or its landmarks coincide, are mirrored, or lie far
            outside the photo; or a template was given without a size.
    """
    template, size_px = _framing(template, size_px)
    checked = check_faces(faces)
    loaded = load_photo(photo, color_order=color_order)
    check_landmarks(checked, loaded)
    crops = np.empty((len(checked), size_px, size_px, 3), dtype=np.uint8)
    for index, face in enumerate(checked):
        crops[index] = align_face(loaded.rgb, face, template, size_px)
    return crops


def _framing(template: FloatArray | None, size_px: int | None) -> tuple[FloatArray, int]:
    """The template and size of ``crop_faces``; what was not given is the default model's."""
    if template is not None:
        if size_px is None:
            raise OptionError("a template needs size_px, the side of the crop that it is for")
        return template, check_count("size_px", size_px)
    spec = load_spec()
    size_px = spec.size_px if size_px is None else check_count("size_px", size_px)
    return spec.template * np.float32(size_px / spec.size_px), size_px
