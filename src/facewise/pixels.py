"""Turns an opened picture into upright RGB pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facewise.bombs import check_exif
from facewise.errors import (
    CorruptImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidArrayError,
)
from facewise.formats import guarded_pillow
from facewise.types import ImageArray

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION: Final = 0x0112
_XMP: Final = frozenset(("xmp", "XML:com.adobe.xmp"))
"""Keys under which Pillow keeps XMP; the second is for PNG."""
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
_PHOTOMETRIC: Final = 262  # TIFF's tag of what a sample's value means
_WHITE_IS_ZERO: Final = 0
_ROWS_TO_COLUMNS: Final = frozenset(("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"))
_LAST_ROW_FIRST: Final = frozenset(("ROTATE_180", "FLIP_TOP_BOTTOM", "ROTATE_270", "TRANSVERSE"))


def check_size(width: int, height: int, max_pixels: int, min_side_px: int) -> None:
    """Check a picture's width and height in pixels.

    Raises:
        ImageTooLargeError: it has more than ``max_pixels``.
        ImageTooSmallError: a side is below ``min_side_px``.
    """
    if width * height > max_pixels:
        raise too_large(
            f"{width:,} x {height:,} pixels is more than {max_pixels:,}: scale the picture down",
            "max_pixels",
        )
    if min(width, height) < min_side_px:
        raise ImageTooSmallError(
            f"{width} x {height} pixels: a picture needs {min_side_px} on its shorter side: "
            "use a larger one"
        )


def too_large(message: str, limit: str) -> ImageTooLargeError:
    """The error for a picture above ``limit``, an argument of ``load_photo``."""
    error = ImageTooLargeError(message)
    error.limit = limit
    return error


def decode(picture: Image.Image, max_pixels: int) -> ImageArray:
    """Decode an opened picture into upright pixels: uint8 ``(H, W, 3)``, RGB.

    Raises:
        CorruptImageError: it is truncated or damaged.
        ImageTooLargeError: it decodes to more than ``max_pixels``, or to more than fits in memory.
        InvalidArrayError: it is closed.
    """
    closed = getattr(picture, "fp", picture) is None  # also None once loaded; see below
    try:
        with guarded_pillow():
            _load_pixels(picture)
            closed = False
            # HEIC can decode to more pixels than its header states: check before more is allocated.
            check_size(*picture.size, max_pixels, 0)
            return _pixels(picture)
    except ImageTooLargeError:
        raise
    except Exception as error:  # truncated data raises OSError, SyntaxError, struct.error, ...
        if closed or (isinstance(error, ValueError) and "closed" in str(error)):
            raise InvalidArrayError(
                "the PIL image is closed: load() it while its file is open, or pass the path"
            ) from error
        raise CorruptImageError(
            "the file ends too early or is damaged: copy, download or export it again"
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
        return np.asarray(_turned(to_rgb(picture), turn), dtype=np.uint8)
    columns = turn in _ROWS_TO_COLUMNS
    rgb = np.empty((width, height, 3) if columns else (height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _turned(to_rgb(picture.crop((0, top, width, bottom))), turn)
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
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # a TIFF
        grey = 255 - grey  # Pillow does so for samples of up to a byte
    clear = picture.info.get("transparency")  # in PNG, one sample value at the original bit depth
    if isinstance(clear, int):
        grey[samples == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def to_rgb(picture: Image.Image) -> Image.Image:
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
    # A few rows at once: float64 of all would be 8 times as large as out.
    for first in range(0, len(samples), _ROWS_AT_ONCE):
        rows = np.nan_to_num(samples[first : first + _ROWS_AT_ONCE].astype(np.float64))
        out[first : first + _ROWS_AT_ONCE] = np.clip(rows / full, 0, 1) * 255 + 0.5
    return out
