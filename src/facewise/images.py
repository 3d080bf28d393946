"""The only decoder: path, bytes, file object, array or PIL image to one upright RGB photo.

Cheap checks come first: bytes are counted before anything is parsed, pixels are read from the
header before anything is decoded. Nothing global in Pillow is changed.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

import numpy as np

from facewise.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidArrayError,
    NotAnImageError,
    OptionError,
    UnsupportedFormatError,
)
from facewise.types import ImageArray, Photo

if TYPE_CHECKING:
    from PIL import Image

    PhotoSource = str | os.PathLike[str] | bytes | BinaryIO | ImageArray | Image.Image | Photo

ColorOrder = Literal["rgb", "bgr"]

DEFAULT_MAX_BYTES: Final = 20_000_000
DEFAULT_MAX_PIXELS: Final = 50_000_000
DEFAULT_MIN_SIDE_PX: Final = 16

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""What is read without extras (MPO, which phones write as .jpg, is JPEG to Pillow); HEIF comes with
``heif``."""

_NAMES: Final = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION: Final = 0x0112


def load_photo(
    source: PhotoSource,
    *,
    color_order: ColorOrder = "rgb",
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    min_side_px: int = DEFAULT_MIN_SIDE_PX,
) -> Photo:
    """Read one picture, upright and RGB.

    EXIF orientation is applied, transparency laid on white, 16-bit samples scaled to 8 bits; of an
    animation the first frame counts.

    Args:
        source: a path; the bytes of a file; a binary file object, read from where it stands; a
            uint8 array ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``; a PIL image; or a Photo.
        color_order: of arrays: "rgb", or "bgr" as OpenCV reads them.
        max_bytes: most bytes of an encoded picture.
        max_pixels: most pixels, checked in the header before decoding.
        min_side_px: shortest side allowed.

    Raises:
        ImageNotFoundError: the path is missing, a directory, or cannot be read.
        EmptyImageError: no bytes.
        NotAnImageError: the bytes are no image.
        UnsupportedFormatError: an image format that is not read here.
        CorruptImageError: truncated or damaged.
        ImageTooLargeError: too many bytes or pixels.
        ImageTooSmallError: a side below ``min_side_px``.
        InvalidArrayError: an array or object that is no picture.
        OptionError: ``color_order`` is neither "rgb" nor "bgr".
    """
    from PIL import Image

    if color_order not in ("rgb", "bgr"):
        raise OptionError(f'color_order must be "rgb" or "bgr", not {color_order!r}')
    if isinstance(source, Photo):
        return source
    if isinstance(source, np.ndarray):
        photo = Photo(_from_array(source, color_order))
        _check_size(photo.width_px, photo.height_px, max_pixels, min_side_px)
        return photo
    if isinstance(source, Image.Image):
        _check_size(*source.size, max_pixels, min_side_px)
        return Photo(_decode(source.copy()))
    data, name = _read(source, max_bytes)
    with _open(data) as image:
        _check_size(*image.size, max_pixels, min_side_px)
        return Photo(_decode(image), name)


def _read(source: Any, max_bytes: int) -> tuple[bytes, str | None]:
    """Bytes of a path, file object or bytes-like, never more than one past the limit."""
    name: str | None = None
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        data = _read_path(name, max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif hasattr(source, "read"):
        data = source.read(max_bytes + 1)
        if not isinstance(data, bytes):
            raise InvalidArrayError('the file object gives text: open it in binary mode, "rb"')
    else:
        raise InvalidArrayError(
            f"cannot read a picture from {type(source).__name__}: pass a path, bytes, a binary "
            f"file, a PIL image or a uint8 array (H, W, 3){_hint(source)}"
        )
    if not data:
        raise EmptyImageError(f"{name or 'the input'} is empty: it has no bytes")
    if len(data) > max_bytes:
        raise ImageTooLargeError(
            f"more than {max_bytes:,} bytes: pass a smaller file, or raise max_bytes"
        )
    return data, name


def _read_path(name: str, max_bytes: int) -> bytes:
    try:
        with Path(name).open("rb") as file:
            return file.read(max_bytes + 1)
    except IsADirectoryError as error:
        raise ImageNotFoundError(
            errno.EISDIR, "is a directory: name the pictures in it", name
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageNotFoundError(
            getattr(error, "errno", None) or errno.ENOENT,
            f"cannot be read ({reason}): check the path",
            name,
        ) from error


def _hint(source: Any) -> str:
    if type(source).__module__.startswith("torch"):
        return "; for a torch tensor: tensor.permute(1, 2, 0).byte().cpu().numpy(), 0 to 255"
    return ""


def _from_array(array: Any, color_order: ColorOrder) -> ImageArray:
    """A copy of an array as uint8 ``(H, W, 3)`` RGB."""
    if array.dtype != np.uint8:
        raise InvalidArrayError(
            f"array is {array.dtype}: pass uint8, 0 to 255 (for floats from 0 to 1: "
            "(array * 255).round().astype(numpy.uint8))"
        )
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InvalidArrayError(
            f"array has shape {array.shape}: pass (H, W, 3), (H, W, 4) or (H, W); for channels "
            "first: array.transpose(1, 2, 0)"
        )
    color = array[:, :, 2::-1] if color_order == "bgr" else array[:, :, :3]
    if array.shape[2] == 4:
        alpha = array[:, :, 3:].astype(np.uint16)
        color = (color * alpha + 255 * (255 - alpha) + 127) // 255
    return np.ascontiguousarray(color, dtype=np.uint8).copy()


def _check_size(width: int, height: int, max_pixels: int, min_side_px: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{width:,} x {height:,} pixels is more than {max_pixels:,}: scale the picture down, "
            "or raise max_pixels"
        )
    if min(width, height) < min_side_px:
        raise ImageTooSmallError(
            f"{width} x {height} pixels: a picture needs {min_side_px} on its shorter side"
        )


def _open(data: bytes) -> Image.Image:
    """Parse the header only."""
    from PIL import Image, UnidentifiedImageError

    formats = list(FORMATS)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        formats += _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        # Pillow's own limit, far above the default one here.
        raise ImageTooLargeError(
            "more pixels than can safely be decoded: scale the picture down"
        ) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:  # parsers raise what they like on hostile headers
        raise CorruptImageError(
            f"the picture's header is damaged ({type(error).__name__}): save or export it again"
        ) from error


def _register_heif() -> list[str]:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UnsupportedFormatError(
            "HEIC needs an extra: pip install 'facewise[heif]', or save the picture as JPEG"
        ) from error
    register_heif_opener()
    return ["HEIF"]


def _unidentified(data: bytes) -> UnsupportedFormatError | NotAnImageError | CorruptImageError:
    """Say more exactly what the bytes are."""
    signatures = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    for signature, name in signatures.items():
        if data.startswith(signature):
            return CorruptImageError(f"the {name} is damaged: save or export it again")
    others = {
        b"%PDF": "a PDF",
        b"8BPS": "a Photoshop file",
        b"\0\0\1\0": "an icon",
        b"\0\0\0\x0cjP": "JPEG 2000",
        b"<svg": "SVG",
        b"\xff\x0a": "JPEG XL",
    }
    for signature, name in others.items():
        if data.lstrip().startswith(signature):
            return UnsupportedFormatError(f"{name} is not read here: save it as {_NAMES}")
    return NotAnImageError(f"not a picture: pass a {_NAMES} file")


def _decode(image: Image.Image) -> ImageArray:
    """Pixels of an opened picture: decoded, upright, RGB."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.seek(0) if getattr(image, "n_frames", 1) > 1 else None
            image.load()
            rgb = _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError("more pixels than can safely be decoded") from error
    except MemoryError as error:
        raise ImageTooLargeError("too large for this machine's memory: scale it down") from error
    except Exception as error:  # truncated data shows as OSError, SyntaxError, struct.error, ...
        raise CorruptImageError(
            "the picture is truncated or damaged: copy, download or export it again"
        ) from error
    return np.array(rgb, dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF orientation; a broken EXIF block counts as none."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the picture itself is sound
        return image
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: wide samples scaled, transparency on white."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(samples: Any, mode: str) -> ImageArray:
    """Grey samples wider than a byte to a byte, over the type's range rather than the picture's.

    Pillow opens 16-bit grey as ``I;16`` or ``I``; float pictures are 0 to 1 by convention, or 0 to
    255 or 65,535 where their values say so.
    """
    values = np.nan_to_num(samples.astype(np.float64))
    top = float(values.max(initial=0.0))
    if mode == "F":
        full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    else:
        full = 65535.0 if mode.startswith("I;16") or top > 255 else 255.0
        full = max(full, top)
    scaled: ImageArray = np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8)
    return scaled
