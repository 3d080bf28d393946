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

from facewise.bombs import check_exif
from facewise.errors import (
    CorruptImageError,
    EmptyImageError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidArrayError,
    OptionError,
    check_count,
)
from facewise.formats import PILLOWS_LIMIT, open_picture, quiet_pillow
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

_ORIENTATION: Final = 0x0112
_XMP: Final = frozenset(("xmp", "XML:com.adobe.xmp"))
"""Keys under which Pillow keeps XMP; the second is for PNG."""
_LONGEST_PATH: Final = 4096
"""Linux opens no longer path; a longer string is more likely a picture's data than its name."""
_ROWS_AT_ONCE: Final = 256
_STRIP_PIXELS: Final = 500_000
_LARGE_PIXELS: Final = 4_000_000
"""Photos with more pixels are converted in strips; smaller ones fit into memory the process already
has."""

# EXIF orientation to the name of the PIL.Image.Transpose that undoes it.
_TURNS: Final = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ROWS_TO_COLUMNS: Final = frozenset(("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"))
_LAST_ROW_FIRST: Final = frozenset(("ROTATE_180", "FLIP_TOP_BOTTOM", "ROTATE_270", "TRANSVERSE"))


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
        _check_array(array)
        _check_size(array.shape[1], array.shape[0], max_pixels, min_side_px)
        return _from_array(array, color_order)
    if isinstance(source, Image.Image):
        _check_size(*source.size, max_pixels, min_side_px)
        return _decode(source, max_pixels)
    with open_picture(_read(source, max_bytes)) as picture:
        _check_size(*picture.size, max_pixels, min_side_px)
        return _decode(picture, max_pixels)


def _read(source: Any, max_bytes: int) -> bytes:
    """Read a path, file object or bytes-like object, at most one byte past the limit."""
    if isinstance(source, (str, os.PathLike)):
        data = _read_path(os.fsdecode(source), max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        # A view that is not contiguous cannot be cast; tobytes copies it.
        data = bytes((view.cast("B") if view.contiguous else view.tobytes())[: max_bytes + 1])
    elif hasattr(source, "read"):
        try:
            data = _read_stream(source, max_bytes)
        except ImageError:
            raise
        except Exception as error:  # disks, connections and archives each raise their own classes
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ImageNotFoundError(
                getattr(error, "errno", None) or errno.EIO,
                f"cannot be read ({reason}): open it again",
                str(getattr(source, "name", "the file object")),
            ) from error
    else:
        raise InvalidArrayError(
            f"cannot read a picture from {type(source).__name__}: pass a path, bytes, a binary "
            f"file, a PIL image or a uint8 array (H, W, 3){_hint(source)}"
        )
    if not data:
        if _stands_at_end(source):
            raise EmptyImageError("the file object is at its end: seek(0) before reading it")
        raise EmptyImageError("the input is empty: it has no bytes")
    if len(data) > max_bytes:
        raise _too_large(f"more than {max_bytes:,} bytes: pass a smaller file", "max_bytes")
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
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageNotFoundError(
            getattr(error, "errno", None) or errno.ENOENT,
            f"cannot be read ({reason}): {_path_advice(name)}",
            name,
        ) from error


def _path_advice(name: str) -> str:
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


def _hint(source: Any) -> str:
    if source is None:
        return "; cv2.imread returns None if it cannot read the file"
    if isinstance(source, (list, tuple)):
        return "; several pictures are for analyze_many"
    if type(source).__module__.startswith("torch"):
        return (
            "; for a torch tensor (3, H, W) from 0 to 1: "
            "(tensor * 255).round().byte().permute(1, 2, 0).cpu().numpy()"
        )
    return ""


def _check_array(array: Any) -> None:
    if array.dtype != np.uint8:
        raise InvalidArrayError(f"array is {array.dtype}: pass uint8, 0 to 255{_to_uint8(array)}")
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise InvalidArrayError(
            f"array has shape {array.shape}: pass (H, W, 3), (H, W, 4) or (H, W)"
            f"{_to_picture(array.shape)}"
        )


def _to_uint8(array: Any) -> str:
    """Suggest a conversion to uint8 based on the array's values; a wrong one would wrap around."""
    kind = array.dtype.kind
    if kind not in "biuf" or array.size == 0:
        return ""
    low, high = float(array.min()), float(array.max())  # NaN fails every comparison below
    if kind in "bf" and 0 <= low <= high <= 1:
        return ": (array * 255).round().astype(numpy.uint8)"
    if 0 <= low <= high <= 255:
        return ": array.round().astype(numpy.uint8)"
    if kind in "iu" and 0 <= low <= high < 4096:
        return ": if its samples have 12 bits, (array >> 4).astype(numpy.uint8)"
    if 0 <= low <= high <= 65535:
        return ": (array / 257).round().astype(numpy.uint8)"
    return ""


def _to_picture(shape: tuple[int, ...]) -> str:
    match shape:
        case (_, _, 1):
            return ": array[:, :, 0]"
        case (1 | 3 | 4, _, _):
            return "; for channels first: array.transpose(1, 2, 0)"
        case (_, _, _, _):
            return "; several pictures are for analyze_many"
    return ""


def _from_array(array: Any, color_order: ColorOrder) -> ImageArray:
    """A copy of an array as uint8 ``(H, W, 3)`` RGB."""
    from PIL import Image

    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if color_order == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if array.shape[2] == 3:
        return np.array(array, dtype=np.uint8, order="C")
    # Pillow handles transparency, so that an array and its PNG agree to the last bit.
    return np.asarray(_to_rgb(Image.fromarray(np.ascontiguousarray(array))))


def _check_size(width: int, height: int, max_pixels: int, min_side_px: int) -> None:
    if width * height > max_pixels:
        raise _too_large(
            f"{width:,} x {height:,} pixels is more than {max_pixels:,}: scale the picture down",
            "max_pixels",
        )
    if min(width, height) < min_side_px:
        raise ImageTooSmallError(
            f"{width} x {height} pixels: a picture needs {min_side_px} on its shorter side"
        )


def _too_large(message: str, limit: str) -> ImageTooLargeError:
    error = ImageTooLargeError(message)
    error.limit = limit
    return error


def _decode(picture: Image.Image, max_pixels: int) -> ImageArray:
    """Decode an opened picture into upright RGB pixels."""
    from PIL import Image

    closed = getattr(picture, "fp", picture) is None  # also None once loaded; see below
    try:
        with quiet_pillow():
            _load_pixels(picture)
            closed = False
            # HEIC can decode to more pixels than its header states: check before more is allocated.
            _check_size(*picture.size, max_pixels, 0)
            return _pixels(picture)
    except ImageTooLargeError:
        raise
    except MemoryError as error:
        raise ImageTooLargeError("too large for this machine's memory: scale it down") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(PILLOWS_LIMIT) from error
    except Exception as error:  # truncated data raises OSError, SyntaxError, struct.error, ...
        if closed or (isinstance(error, ValueError) and "closed" in str(error)):
            raise InvalidArrayError(
                "the PIL image is closed: load() it while its file is open, or pass the path"
            ) from error
        raise CorruptImageError(
            "the picture is truncated or damaged: copy, download or export it again"
        ) from error


def _load_pixels(picture: Image.Image) -> None:
    """Have Pillow decode the picture, with XMP hidden for TIFF.

    Pillow rotates a TIFF while decoding, and would follow XMP's orientation too.
    """
    info = picture.info
    if picture.format == "TIFF":
        picture.info = {name: info[name] for name in info if name not in _XMP}
    try:
        picture.load()
    finally:
        picture.info = info


def _pixels(picture: Image.Image) -> ImageArray:
    """A decoded picture as an upright RGB array.

    Pillow stores RGB in four bytes per pixel, copies the picture at every step, and exports its
    bytes in small pieces that it then joins. So large pictures are converted and turned strip by
    strip, each copied to its place in the one array: at most 7 bytes per pixel, plus what the
    format's decoder holds (see the table in docs/library.md).
    """
    turn = _turn(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _wide_to_rgb(picture)
    width, height = picture.size
    if width * height <= _LARGE_PIXELS:
        return np.asarray(_turned(_to_rgb(picture), turn), dtype=np.uint8)
    columns = turn in _ROWS_TO_COLUMNS
    rgb = np.empty((width, height, 3) if columns else (height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _turned(_to_rgb(picture.crop((0, top, width, bottom))), turn)
        back = turn in _LAST_ROW_FIRST
        place = slice(height - bottom, height - top) if back else slice(top, bottom)
        rgb[(slice(None), place) if columns else place] = np.asarray(strip)
    return rgb


def _turn(picture: Image.Image) -> str | None:
    """How to turn a picture upright; None if it already is, or if its EXIF block is broken.

    Without EXIF orientation, Pillow goes by XMP. Browsers do not, so boxes would be misplaced
    there. Also, software that rotates the pixels and drops EXIF may leave XMP unchanged.
    """
    from PIL import Image

    check_exif(picture.info)
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        if not _XMP.isdisjoint(picture.info):
            bare = Image.Image()
            bare.info = {name: picture.info[name] for name in picture.info if name not in _XMP}
            if _ORIENTATION not in bare.getexif():
                return None
    except Exception:  # the picture itself is sound
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _turned(picture: Image.Image, turn: str | None) -> Image.Image:
    from PIL import Image

    return picture if turn is None else picture.transpose(Image.Transpose[turn])


def _wide_to_rgb(picture: Image.Image) -> Image.Image:
    """Convert grey samples wider than a byte, all at once: their range may be the picture's."""
    from PIL import Image

    samples = np.asarray(picture)
    if picture.format == "PPM" and picture.mode == "I":  # a 16-bit PGM opens as int32
        samples = samples.astype(np.uint16)
    grey = _to_eight_bits(samples)
    clear = picture.info.get("transparency")  # in PNG, one sample value at the original bit depth
    if isinstance(clear, int):
        grey[samples == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to RGB, blending transparency onto white."""
    from PIL import Image

    if picture.mode == "La":  # the only mode it converts to
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _to_eight_bits(samples: Any) -> ImageArray:
    """Scale wide grey samples to 8 bits, over the type's range rather than the picture's.

    Pillow opens 16-bit grey as uint16, wider or signed integers as int32. Floats are 0 to 1 by
    convention, or 0 to 255 or 65,535 if their values exceed that.
    """
    if samples.dtype.itemsize == 2:
        table = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return table[samples]
    top = float(np.max(samples, initial=0, where=np.isfinite(samples)))
    limits = (1.0, 255.0, 65535.0) if samples.dtype.kind == "f" else (255.0, 65535.0)
    full = next((limit for limit in limits if top <= limit), top)
    out = np.empty(samples.shape, np.uint8)
    for first in range(
        0, len(samples), _ROWS_AT_ONCE
    ):  # float64 of all rows would be 8 times as large as out
        rows = np.nan_to_num(samples[first : first + _ROWS_AT_ONCE].astype(np.float64))
        out[first : first + _ROWS_AT_ONCE] = np.clip(rows / full, 0, 1) * 255 + 0.5
    return out
