"""The only decoder: turns a path, bytes, file object, array or PIL image into an upright RGB photo.

Cheap checks come first: bytes are counted before anything is parsed, and the pixel count is read
from the header before anything is decoded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict, Unpack
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from facewise.arrays import check_array, from_array, hint
from facewise.errors import (
    EmptyImageError,
    ImageError,
    ImageNotFoundError,
    InvalidArrayError,
    OptionError,
    check_count,
)
from facewise.formats import open_picture
from facewise.pixels import check_size, decode, too_large
from facewise.text import reason_of
from facewise.types import Array, ImageArray, Photo

if TYPE_CHECKING:
    from PIL import Image

    PillowImage = Image.Image
else:
    PillowImage = Any  # Pillow is imported when there is a picture to read


class Readable(Protocol):
    """What is needed of a binary file object: archive members and mmaps are not BinaryIO."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end."""


PhotoSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Array | PillowImage | Photo
)
"""Anything that ``load_photo`` reads. Arrays may have any dtype here, as OpenCV's type hints state
none; the dtype is checked on reading."""

ColorOrder = Literal["rgb", "bgr"]


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of ``load_photo``."""

    color_order: ColorOrder
    max_bytes: int
    max_pixels: int
    min_side_px: int


DEFAULT_MAX_BYTES: Final = 20_000_000
DEFAULT_MAX_PIXELS: Final = 50_000_000
DEFAULT_MIN_SIDE_PX: Final = 16

BORDER: Final = 127
"""Grey that fills the area outside a photo."""

_LONGEST_PATH: Final = 4096
"""Linux opens no longer path; a longer string is more likely a picture's data than its name."""


def load_photo(
    source: PhotoSource,
    *,
    color_order: ColorOrder = "rgb",
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    min_side_px: int = DEFAULT_MIN_SIDE_PX,
) -> Photo:
    """Read one picture, upright and RGB.

    EXIF orientation is applied (XMP's is not), transparency is blended onto white, and 16-bit
    samples are scaled to 8 bits. Animations give their first frame. Colour profiles are ignored.

    Args:
        source: a path; the bytes of a file; a binary file object, read from its current position;
            a uint8 array ``(H, W, 3)``, ``(H, W, 4)`` or ``(H, W)``; a PIL image, at its current
            frame; or a Photo, which is returned as it is.
        color_order: of arrays: "rgb", or "bgr" as OpenCV reads them. Ignored for all else.
        max_bytes: most bytes of an encoded picture.
        max_pixels: most pixels, checked in the header before decoding. WebP and TIFF never exceed
            ``2 * PIL.Image.MAX_IMAGE_PIXELS``, 179 million.
        min_side_px: shortest side allowed.

    Raises:
        ImageNotFoundError: the path is missing, a directory, or cannot be read; or reading the
            file object failed.
        EmptyImageError: there are no bytes.
        NotAnImageError: the bytes are not an image.
        UnsupportedFormatError: the image format is not supported.
        CorruptImageError: the image is truncated or damaged.
        ImageTooLargeError: it has too many bytes or pixels, or is built to decode slowly.
        ImageTooSmallError: a side is below ``min_side_px``.
        InvalidArrayError: an array or object that is not a picture.
        OptionError: ``color_order`` is neither "rgb" nor "bgr", or a limit is not a whole number.
    """
    if color_order not in ("rgb", "bgr"):
        raise OptionError(f'color_order must be "rgb" or "bgr", not {color_order!r}')
    max_bytes = check_count("max_bytes", max_bytes)
    max_pixels = check_count("max_pixels", max_pixels)
    min_side_px = check_count("min_side_px", min_side_px)
    if isinstance(source, Photo):
        return source
    name = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else None
    try:
        return Photo(_load(source, color_order, max_bytes, max_pixels, min_side_px), name)
    except ImageError as error:
        error.source = error.source or name
        raise


def load_photos(
    sources: Iterable[PhotoSource],
    *,
    failed: dict[int, ImageError] | None = None,
    **options: Unpack[LoadOptions],
) -> Iterator[Photo]:
    """Read pictures lazily, one at a time; see ``load_photo``.

    Args:
        sources: the pictures.
        failed: receives the errors of unreadable pictures, by index; if None, the first is raised.
        **options: see ``load_photo``.
    """
    one = isinstance(sources, (str, bytes, bytearray, memoryview)) or hasattr(sources, "read")
    if one or not isinstance(sources, Iterable) or getattr(sources, "ndim", None) in (2, 3):
        raise InvalidArrayError(f"pass a list of pictures, not one {type(sources).__name__}")
    for index, source in enumerate(sources):
        try:
            yield load_photo(source, **options)
        except ImageError as error:
            error.index = index
            if failed is None:
                raise
            # Its traceback, and those of what caused it, hold the picture's bytes and pixels.
            error.__cause__ = error.__context__ = None
            failed[index] = error.with_traceback(None)


def _load(
    source: Any, color_order: ColorOrder, max_bytes: int, max_pixels: int, min_side_px: int
) -> ImageArray:
    from PIL import Image

    if isinstance(source, np.ndarray):
        array = np.asarray(source)  # np.matrix stays two-dimensional, which breaks np.repeat
        check_array(array)
        check_size(array.shape[1], array.shape[0], max_pixels, min_side_px)
        return from_array(array, bgr=color_order == "bgr")
    if isinstance(source, Image.Image):
        check_size(*source.size, max_pixels, min_side_px)
        return decode(source, max_pixels)
    with open_picture(_read(source, max_bytes)) as picture:
        check_size(*picture.size, max_pixels, min_side_px)
        return decode(picture, max_pixels)


def _read(source: Any, max_bytes: int) -> bytes:
    """Read a path, file object or bytes-like object, at most one byte past the limit."""
    if isinstance(source, (str, os.PathLike)):
        data = _read_path(os.fsdecode(source), max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        # Views in other orders and empty ones cannot be cast; tobytes copies them.
        plain = view.c_contiguous and view.nbytes > 0
        data = bytes((view.cast("B") if plain else view.tobytes())[: max_bytes + 1])
    elif hasattr(source, "read"):
        try:
            data = _read_stream(source, max_bytes)
        except ImageError:
            raise
        except Exception as error:  # disks, connections and archives each raise their own classes
            reason = reason_of(error)
            raise ImageNotFoundError(
                getattr(error, "errno", None) or errno.EIO,
                f"cannot be read ({reason}): open it again",
                str(getattr(source, "name", "the file object")),
            ) from error
    else:
        raise InvalidArrayError(
            f"cannot read a picture from {type(source).__name__}: pass a path, bytes, a binary "
            f"file, a PIL image or a uint8 array (H, W, 3){hint(source)}"
        )
    if not data:
        if _stands_at_end(source):
            raise EmptyImageError("the file object is at its end: seek(0) before reading it")
        raise EmptyImageError("the input is empty: it has no bytes")
    if len(data) > max_bytes:
        raise too_large(f"more than {max_bytes:,} bytes: use a smaller file", "max_bytes")
    return data


def _stands_at_end(source: Any) -> bool:
    """Whether a file object with nothing left had bytes before: it was just written or read."""
    try:
        return bool(source.tell() > 0)
    except Exception:  # not a file object, or it has no position
        return False


def _read_path(name: str, max_bytes: int) -> bytes:
    if not name:
        raise ImageNotFoundError(errno.ENOENT, "the path is empty: pass a picture's path", "''")
    if name.startswith("data:") or len(name) > _LONGEST_PATH:  # do not repeat its contents
        raise ImageNotFoundError(
            errno.ENAMETOOLONG,
            "is data, not a path: decode it, and pass the bytes",
            _shortened(name),
        )
    try:
        with Path(name).open("rb") as file:
            return _read_stream(file, max_bytes)
    except IsADirectoryError as error:
        raise ImageNotFoundError(
            errno.EISDIR, "is a directory: name the pictures in it", name
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = reason_of(error)
        raise ImageNotFoundError(
            getattr(error, "errno", None) or errno.ENOENT,
            f"cannot be read ({reason}): {path_advice(name)}",
            name,
        ) from error


def path_advice(name: str) -> str:
    """What to do about a name that cannot be opened as a path."""
    if name.startswith("file:"):
        return f"pass the path alone, {url2pathname(urlsplit(name).path)}"
    return "download it first" if "://" in name else "check the path"


def _shortened(name: str) -> str:
    return f"{name[:32]}..." if len(name) > 32 else name


def _read_stream(file: Any, max_bytes: int) -> bytes:
    """Read to the end or one byte past the limit; pipes and sockets may return short reads."""
    parts: list[bytes] = []
    missing = max_bytes + 1
    try:
        while missing > 0:
            part = file.read(missing)
            if part is not None and not isinstance(part, (bytes, bytearray, memoryview)):
                raise _no_bytes(part)
            if not part:  # the end; None if a non-blocking file has nothing yet
                break
            parts.append(bytes(part))
            missing -= len(part)
    except UnicodeDecodeError as error:  # opened as text, which a picture's bytes are not
        raise _no_bytes("") from error
    except ValueError as error:
        if isinstance(error, InvalidArrayError):
            raise
        raise InvalidArrayError(f"the file object cannot be read ({error}): open it") from error
    return b"".join(parts)


def _no_bytes(part: Any) -> InvalidArrayError:
    """The error for a file object whose ``read`` does not return bytes."""
    if isinstance(part, str):
        return InvalidArrayError('the file object returns text: open it in binary mode, "rb"')
    kind = type(part).__name__
    if isinstance(part, Coroutine):
        part.close()  # or Python warns that it was never awaited
    if isinstance(part, Awaitable):
        return InvalidArrayError(f"read() returned a {kind}: await it, and pass the bytes")
    return InvalidArrayError(f"read() returned {kind}: pass a file object that returns bytes")
