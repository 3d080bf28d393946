"""Turns bytes into an opened picture: detects the format and parses the header; decodes no pixels.

Pillow's plugins are called directly rather than through ``Image.open``, whose size limit is global
to the process: it would warn or refuse where a caller of facewise allows more. Nothing in Pillow
is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from facewise import bombs
from facewise.errors import (
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
    UnsupportedFormatError,
)

if TYPE_CHECKING:
    from PIL import Image, ImageFile

FORMATS: Final = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "PPM": "PIL.PpmImagePlugin",
}
"""Formats read without extras, and their modules, which are imported on demand. Pillow treats MPO,
which phones write as .jpg, as JPEG, and PBM and PGM as PPM. HEIC needs the extra ``heif``."""

SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif",
     ".tiff", ".avif", ".pgm", ".ppm", ".pnm", ".heic", ".heif")
)  # fmt: skip
"""Suffixes, in lower case, that distinguish pictures from other files in a folder."""

NAMES: Final = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "AVIF", "PGM", "PPM", "HEIC")
"""Formats that are read, by their usual names."""

CODECS: Final = {"JPEG": "jpg", "PNG": "zlib", "WebP": "webp", "TIFF": "libtiff", "AVIF": "avif"}
"""Formats that a build of Pillow may lack, mapped to Pillow's names for the codecs they need."""

_ANY: Final = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"

_PILLOWS_LIMIT: Final = (
    "more pixels than Pillow decodes in this format (twice PIL.Image.MAX_IMAGE_PIXELS): scale the "
    "picture down, or save it as PNG"
)
"""The WebP and TIFF plugins, which allocate memory as they go, check that limit themselves."""

_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEIF_BRANDS: Final = frozenset(
    (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
)
_NETPBM: Final = re.compile(rb"P[1-6]\s+[\d#]")
"""PBM, PGM and PPM, text or binary. Pillow itself accepts anything beginning with "Py" or "P2"."""
_NEW_SUBFILE_TYPE: Final = 254
_DNG_VERSION: Final = 50706
_TEXT: Final = bytes(range(0x20, 0x7F)) + b"\t\n\r"
_FOREIGN: Final = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop's own format",
    b"\0\0\1\0": "the icon format",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"gimp xcf": "GIMP's own format",
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "OpenEXR",
}
_BASE64: Final = re.compile(rb"data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR")
"""Pictures as text: a data URL, or base64 of JPEG, PNG, GIF or WebP."""
_VIDEO: Final = re.compile(rb"\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01\xba", re.DOTALL)
"""Matroska and WebM, AVI, MPEG; MP4 and most MOV files are ISO media."""
_FRAMES: Final = f"save a frame of it as {_ANY}; facewise annotate reads whole videos"


def readable() -> tuple[str, ...]:
    """Names of the formats that can be read with what is installed."""
    from PIL import features

    missing = {name for name, codec in CODECS.items() if not features.check(codec)}
    if not importlib.util.find_spec("pillow_heif"):
        missing.add("HEIC")
    return tuple(name for name in NAMES if name not in missing)


def open_picture(data: bytes) -> Image.Image:
    """Parse the header of an encoded picture; ``load`` decodes the pixels.

    Args:
        data: the whole file.

    Raises:
        NotAnImageError: the bytes are not an image.
        UnsupportedFormatError: the image format is not supported.
        CorruptImageError: the header is damaged.
        ImageTooLargeError: decoding would take far too long, or more memory than there is.
    """
    brands = _brands(data)
    if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS:
        plugin = _heif_plugin()
        bombs.check("HEIC", data)
        return _parse("HEIC", plugin, data)
    from PIL import Image

    for name, module in FORMATS.items():
        importlib.import_module(module)
        plugin, accept = Image.OPEN[name]
        assert accept is not None
        accepted = _NETPBM.match(data) is not None if name == "PPM" else accept(data[:16])
        if isinstance(accepted, str):  # the plugin is there, but its library is not
            raise UnsupportedFormatError(
                f"this Pillow was built without {name}: pip install --upgrade pillow"
            )
        if accepted:
            bombs.check(name, data)
            return _parse(name, plugin, data)
    raise _unknown(data, brands)


def _parse(name: str, plugin: object, data: bytes) -> Image.Image:
    assert callable(plugin)
    try:
        with guarded_pillow():
            file = bombs.HeaderFile(data)
            picture: ImageFile.ImageFile = plugin(file, "")
            is_raw = name == "TIFF" and _is_raw(picture, data)
            if name == "TIFF":  # or load would parse all its EXIF, needlessly
                picture.is_animated = True  # type: ignore[attr-defined]
            file.is_parsed = True
            bombs.check_opened(name, picture, data)
    except ImageTooLargeError:
        raise
    except Exception as error:  # parsers raise anything on hostile headers
        if name != "PPM" and _is_text(data):  # text, too, may begin with "BM", a bitmap's signature
            raise _unknown(data, frozenset()) from error
        if name == "TIFF" and "unknown pixel mode" in str(error):
            raise UnsupportedFormatError(
                "a TIFF with samples of an unsupported kind, such as floats in colour: save it "
                "with 8 or 16 bits"
            ) from error
        raise CorruptImageError(
            f"the {name} ends too early or is damaged: copy, download or export it again"
        ) from error
    if is_raw:
        raise UnsupportedFormatError(
            "a camera's raw file, of which only the small preview could be read: develop it, and "
            "save it as JPEG"
        )
    return picture


def _is_raw(picture: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file: a DNG, a CR2, or a file that begins with a preview."""
    tags = getattr(picture, "tag_v2", {})
    kind = tags.get(_NEW_SUBFILE_TYPE, 0)
    is_preview = isinstance(kind, int) and bool(kind & 1)
    return _DNG_VERSION in tags or data[8:10] == b"CR" or is_preview


def _heif_plugin() -> object:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise UnsupportedFormatError(
            "HEIC needs an extra: pip install 'facewise[heif]', or save the picture as JPEG"
        ) from error
    return HeifImageFile


def _brands(data: bytes) -> frozenset[bytes]:
    """Major and compatible brands of an ISO media file (ISO/IEC 14496-12, 4.3); empty for others.

    The major brand alone does not distinguish HEIC from AVIF: ``mif1`` may be either.
    """
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), 256)
    compatible = {data[at : at + 4] for at in range(16, end - 3, 4)}
    return frozenset({data[8:12], *compatible})


def _is_text(data: bytes) -> bool:
    return not data[:64].translate(None, _TEXT)


def _unknown(data: bytes, brands: frozenset[bytes]) -> ImageError:
    """The error that names this data as exactly as its first bytes allow."""
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    name = next((name for sign, name in _FOREIGN.items() if start.startswith(sign)), None)
    advice = f"save it as {_ANY}"
    if brands:
        name, advice = "video, or this kind of ISO media,", _FRAMES
    elif b"<svg" in start and start.startswith(b"<"):
        name = "SVG"
    if name is not None:
        return UnsupportedFormatError(f"{name} is not supported: {advice}")
    if start.lower().startswith((b"<!doctype html", b"<html")):
        return NotAnImageError("a web page, not a picture: download the picture itself")
    if _BASE64.match(start):
        return NotAnImageError("base64 text, not a picture: decode it, and pass the bytes")
    if _VIDEO.match(data):
        return NotAnImageError(f"a video, not a picture: {_FRAMES}")
    return NotAnImageError(f"not a picture: use a {_ANY} file")


_IGNORED: Final = ("ignore", None, Warning, re.compile(r"PIL\.|pillow_heif"), 0)
"""In the form that ``warnings.filters`` uses."""


class _QuietPillow:
    """Silences Pillow's warnings, such as those about broken EXIF, while any thread decodes.

    ``warnings.catch_warnings`` swaps a list of the whole process: overlapping threads can leave the
    wrong list behind, and filters set meanwhile are lost. Here the first thread to enter adds a
    filter, and the last to leave removes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: Any = warnings.filters

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.filters
                self._filters.insert(0, _IGNORED)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(ValueError):  # other code removed all filters
            self._filters.remove(_IGNORED)

    def begin_child(self) -> None:
        """Reset after a fork: threads that were inside, or held the lock, are not in the child."""
        self._lock = threading.Lock()
        self._inside = 0
        self._remove()


_quiet: Final = _QuietPillow()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_quiet.begin_child)


@contextlib.contextmanager
def guarded_pillow() -> Iterator[None]:
    """A context in which Pillow doesn't warn.

    Raises:
        ImageTooLargeError: the machine lacks the memory, or Pillow has its own, lower limit.
    """
    from PIL import Image

    try:
        with _quiet:
            yield
    except MemoryError as error:
        raise ImageTooLargeError("too large for this machine's memory: scale it down") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(_PILLOWS_LIMIT) from error
