"""Every way to load a photo, and every way it can fail."""

from __future__ import annotations

import base64
import gc
import gzip
import http.client
import io
import os
import struct
import subprocess
import sys
import traceback
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from facewise import errors, images, pixels
from facewise.images import DEFAULT_MAX_BYTES, load_photo
from facewise.types import ImageArray


def picture(width: int = 64, height: int = 40, seed: int = 0) -> ImageArray:
    """A smooth, asymmetric picture: all its rotations and reflections differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = encode(Image.fromarray(picture()), "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size but carries almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    rgb = load_photo(encode(Image.fromarray(picture()), kind, **options)).rgb
    difference = np.abs(rgb.astype(int) - picture()).mean()
    assert rgb.shape == (40, 64, 3)
    assert difference < (25 if kind == "GIF" else 6)


def heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file)
    return file.getvalue()


def test_heic() -> None:
    data = heic(Image.fromarray(picture()))
    assert np.abs(load_photo(data).rgb.astype(int) - picture()).mean() < 8
    with pytest.raises(errors.CorruptImageError):
        load_photo(data[: len(data) // 2])


def test_heic_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(errors.UnsupportedFormatError, match=r"facewise\[heif\]"):
        load_photo(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)


class Bytes:
    """A path-like that returns bytes, as ``os.scandir(b".")`` does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return os.fsencode(self._path)  # type: ignore[return-value]


class Trickle(io.BytesIO):
    """A stream that returns less than requested, as pipes and sockets do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 7) if size is not None and size > 0 else size)


def test_all_ways_in_agree(tmp_path: Path) -> None:
    path = tmp_path / "写真 été 😀.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        ways = [
            load_photo(path),
            load_photo(str(path)),
            load_photo(PNG),
            load_photo(Bytes(path)),
            load_photo(bytearray(PNG)),
            load_photo(memoryview(PNG)),
            load_photo(file),
            load_photo(Trickle(PNG)),
            load_photo(Image.open(io.BytesIO(PNG))),
            load_photo(picture()),
            load_photo(picture()[:, :, ::-1], color_order="bgr"),
            load_photo(Image.fromarray(picture())),
            load_photo(load_photo(picture())),
        ]
    for photo in ways:
        np.testing.assert_array_equal(photo.rgb, picture())
    assert ways[0].source == str(path)


UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""For each EXIF orientation, how to store a scene so that it loads upright."""


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_orientations_agree(kind: str) -> None:
    """The same scene stored in each of the eight EXIF orientations comes out the same."""
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    upright = Image.fromarray(picture(96, 64))
    for orientation, method in UNDO.items():
        stored = upright if method is None else upright.transpose(method)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(stored, kind, exif=exif, **options)
        for source in (data, Image.open(io.BytesIO(data))):
            rgb = load_photo(source).rgb
            assert rgb.shape == (64, 96, 3), (kind, orientation)
            difference = np.abs(rgb.astype(int) - picture(96, 64)).mean()
            limit = 6 if kind in ("JPEG", "AVIF") else 0
            assert difference <= limit, (kind, orientation, type(source))


def with_xmp(image: Image.Image, kind: str, orientation: int, tags: dict[int, object]) -> bytes:
    """A file with these EXIF tags and an orientation in its XMP."""
    xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'
    exif, text = Image.Exif(), PngInfo()
    exif.update(tags)
    if kind == "TIFF":
        exif[700] = xmp.encode()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    data = encode(image, kind, exif=exif, xmp=xmp.encode(), pnginfo=text)
    assert xmp.encode() in data
    return data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("tags", [{}, {0x0131: "a program"}])
def test_an_orientation_in_xmp_turns_nothing(kind: str, tags: dict[int, object]) -> None:
    """Browsers use EXIF alone, and XMP can be older than the pixels."""
    scene = Image.fromarray(picture(96, 64))
    data = with_xmp(scene, kind, 6, tags)
    opened = Image.open(io.BytesIO(data))
    info = dict(opened.info)
    for source in (data, opened):
        np.testing.assert_array_equal(load_photo(source).rgb, load_photo(encode(scene, kind)).rgb)
    assert info.items() <= opened.info.items()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_counts_whatever_xmp_says(kind: str, orientation: int) -> None:
    scene = Image.fromarray(picture(96, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = load_photo(encode(scene, kind, exif=exif)).rgb
    assert expected.shape == ((96, 64, 3) if orientation == 6 else (64, 96, 3))
    data = with_xmp(scene, kind, 3, {0x0112: orientation})
    for source in (data, Image.open(io.BytesIO(data))):
        np.testing.assert_array_equal(load_photo(source).rgb, expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "1", "P", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", UNDO)
def test_strips_of_a_large_picture_join_without_a_seam(
    mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture too large to turn in one piece comes out as if it had been."""
    rgba = np.dstack([picture(), picture(seed=1)[:, :, 0]])
    stored = Image.fromarray(rgba).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stored.getexif()[0x0112] = orientation
    if mode == "P":
        stored.info["transparency"] = 3
    whole = load_photo(stored).rgb
    monkeypatch.setattr(pixels, "_LARGE_PIXELS", 0)
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", 64 * 7)  # 40 rows: the last strip is shorter
    np.testing.assert_array_equal(load_photo(stored).rgb, whole)
    assert whole.std() > 5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts on Linux")
@pytest.mark.parametrize(
    ("mode", "kind", "most"),
    [("RGBA", "png", 10), ("F", "tiff", 19), ("RGB", "webp", 18)],  # as docs/library.md says
)
def test_memory_of_a_large_picture_is_bounded(
    tmp_path: Path, mode: str, kind: str, most: int
) -> None:
    """A turned PNG with transparency once took 17 bytes per pixel: a copy at every step."""
    side, exif = 4000, Image.Exif()
    exif[0x0112] = 6
    Image.new(mode, (side, side)).save(tmp_path / f"large.{kind}", exif=exif, method=0)
    # Not ru_maxrss, which a process inherits from its parent.
    script = (
        "import re, sys, facewise\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "facewise.load_photo(sys.argv[1])\n"
        "before = peak()\n"
        "facewise.load_photo(sys.argv[2], max_bytes=10**9)\n"
        "print((peak() - before) * 1024)"
    )
    (tmp_path / "small.png").write_bytes(PNG)
    names = [str(tmp_path / name) for name in ("small.png", f"large.{kind}")]
    said = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, text=True, check=True
    )
    assert 3 <= int(said.stdout) / side**2 < most


def test_a_clear_sample_of_16_bit_grey_is_white() -> None:
    samples = np.array([[0, 257], [514, 65535]], np.uint16).repeat(16, 0).repeat(16, 1)
    data = encode(Image.fromarray(samples), "PNG", transparency=514)
    rgb = load_photo(data).rgb
    assert rgb[20, 0].tolist() == [255, 255, 255]
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[0, 20].tolist() == [1, 1, 1]


def test_bytes_that_do_not_lie_in_one_piece() -> None:
    data = encode(Image.fromarray(picture(96, 64)), "PNG")
    apart = bytes(np.repeat(np.frombuffer(data, np.uint8), 2))
    np.testing.assert_array_equal(load_photo(memoryview(apart)[::2]).rgb, picture(96, 64))
    padded = np.frombuffer(data + b"\0" * (-len(data) % 2), np.uint8).reshape(-1, 2)
    by_columns = np.asfortranarray(padded).data  # read by rows all the same
    np.testing.assert_array_equal(load_photo(by_columns).rgb, picture(96, 64))
    with pytest.raises(errors.EmptyImageError):
        load_photo(np.empty((0, 3), np.uint8).data)


@pytest.mark.parametrize("strip_pixels", [1, 131, 10_000])
def test_large_photos_are_copied_in_strips(
    strip_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.fromarray(
        np.random.default_rng(3).integers(0, 256, (53, 41, 3), dtype=np.uint8)
    )
    picture.getexif()[0x0112] = 6
    expected = load_photo(picture).rgb
    monkeypatch.setattr(pixels, "_LARGE_PIXELS", 0)
    monkeypatch.setattr(pixels, "_STRIP_PIXELS", strip_pixels)
    np.testing.assert_array_equal(load_photo(picture).rgb, expected)
    assert load_photo(picture).rgb.flags.c_contiguous


def test_broken_exif_counts_as_none() -> None:
    data = encode(Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0MM\0*garbage")
    assert load_photo(data).rgb.shape == (40, 64, 3)


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[:10, :, 0], rgba[:10, :, 3] = 200, 255
    palette = Image.fromarray(rgba).quantize(4)
    for image in (Image.fromarray(rgba), palette):
        rgb = load_photo(encode(image, "PNG")).rgb
        assert abs(int(rgb[2, 2, 0]) - 200) < 3
        assert rgb[2, 2, 1] < 3
        assert tuple(rgb[15, 15]) == (255, 255, 255)
    np.testing.assert_array_equal(load_photo(rgba).rgb[15, 15], 255)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_array_and_png_agree_to_the_last_bit(mode: str) -> None:
    """The picture holds every combination of value and opacity."""
    value, opacity = np.mgrid[:256, :256].astype(np.uint8)
    image = Image.fromarray(np.stack([value, 255 - value, value // 2, opacity], -1)).convert(mode)
    png = load_photo(encode(image, "PNG")).rgb
    np.testing.assert_array_equal(load_photo(image).rgb, png)
    if mode != "LA":  # two-channel arrays are not accepted
        np.testing.assert_array_equal(load_photo(np.array(image)).rgb, png)
    if mode.endswith("A"):
        assert (png[:, 0] == 255).all()
        np.testing.assert_array_equal(png[:, 255], np.array(image.convert("RGB"))[:, 255])


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "RGBX", "HSV", "YCbCr", "LAB"])
def test_odd_modes_of_pil_images(mode: str) -> None:
    step = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    image = Image.fromarray(picture())
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
        assert converted is not None
        image = converted
    else:
        image = (image.convert(step) if step else image).convert(mode)
    grey = mode == "La"
    expected = np.array(Image.fromarray(picture()).convert("L" if grey else "RGB").convert("RGB"))
    tolerance = 16 if mode == "PA" else 3
    assert np.abs(load_photo(image).rgb.astype(int) - expected).mean() < tolerance


def test_cmyk_and_grey() -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 255
    rgb = load_photo(encode(Image.fromarray(red).convert("CMYK"), "JPEG", quality=100)).rgb
    assert rgb[..., 0].min() > 240
    assert rgb[..., 1].max() < 15
    grey = picture()[..., 0]
    np.testing.assert_array_equal(load_photo(grey).rgb[..., 2], grey)
    one_bit = Image.fromarray(np.eye(20, dtype=bool))
    assert set(np.unique(load_photo(encode(one_bit, "PNG")).rgb)) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    rgb = load_photo(encode(Image.fromarray(ramp), kind)).rgb
    np.testing.assert_allclose(rgb[..., 0], ramp / 257, atol=1)


def tiff(
    samples: np.ndarray[tuple[int, int], np.dtype[np.generic]],
    sample_format: int,
    white_is_zero: bool = False,
) -> bytes:
    """An uncompressed grey TIFF in the samples' byte order, which Pillow doesn't write."""
    height, width = samples.shape
    data = samples.tobytes()
    bits = samples.dtype.itemsize * 8
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, int(not white_is_zero)),
        (273, 8),
        (277, 1),
    ]
    tags += [(278, height), (279, len(data)), (339, sample_format)]
    order = samples.dtype.str[0]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    return (
        struct.pack(f"{order}2sHI", b"MM" if order == ">" else b"II", 42, 8 + len(data))
        + data
        + struct.pack(f"{order}H", len(tags))
        + entries
        + struct.pack(f"{order}I", 0)
    )


@pytest.mark.parametrize(
    ("kind", "sample_format", "white"),
    [(">u2", 1, 65535), (">i4", 2, 65535), (">f4", 3, 1.0), (">f4", 3, 255.0), (">f4", 3, 65535.0)],
)
def test_wide_samples_of_tiff(kind: str, sample_format: int, white: float) -> None:
    ramp = np.linspace(0, white, 64 * 32).reshape(32, 64)
    rgb = load_photo(tiff(ramp.astype(kind), sample_format)).rgb
    np.testing.assert_allclose(rgb[..., 1], ramp / white * 255, atol=1)


@pytest.mark.parametrize(
    ("kind", "sample_format", "top"), [("<u2", 1, 65535), ("<f4", 3, 1.0), (">f4", 3, 1.0)]
)
def test_a_wide_tiff_in_which_white_is_zero_is_no_negative(
    kind: str, sample_format: int, top: float
) -> None:
    """As it is none with samples of a byte, which Pillow turns round itself."""
    ramp = np.linspace(0, top, 64 * 32).reshape(32, 64)
    rgb = load_photo(tiff((top - ramp).astype(kind), sample_format, white_is_zero=True)).rgb
    np.testing.assert_allclose(rgb[..., 1], ramp / top * 255, atol=1)
    grey = np.linspace(0, 255, 64 * 32).reshape(32, 64).astype(np.uint8)
    narrow = encode(Image.fromarray(grey), "TIFF", tiffinfo={262: 0})  # written as 255 - grey
    assert bytes(255 - grey[0]) in narrow
    np.testing.assert_array_equal(load_photo(narrow).rgb[..., 0], grey)


def test_what_is_no_number_is_black() -> None:
    samples = np.full((32, 32), 0.5, ">f4")
    samples[0, :3] = np.nan, -1, -np.inf
    rgb = load_photo(tiff(samples, 3)).rgb
    assert rgb[0, :3].max() == 0
    assert rgb[1, 1, 0] == 128


def test_a_dark_wide_picture_stays_dark() -> None:
    """Scaling depends on the type, not on the brightest sample."""
    dark = np.full((20, 20), 2570, np.uint16)
    assert load_photo(encode(Image.fromarray(dark), "PNG")).rgb.max() == 10


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encode(
            frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options
        )
        assert tuple(load_photo(data).rgb[5, 5]) == (255, 0, 0), kind


@pytest.mark.parametrize(
    ("data", "error", "advice"),
    [
        (b"", errors.EmptyImageError, "no bytes"),
        (b"just text, whatever its name says", errors.NotAnImageError, "use a JPEG"),
        (b"BMW is what this text is about", errors.NotAnImageError, "use a JPEG"),
        (b"<!DOCTYPE html><title>404</title>", errors.NotAnImageError, "web page"),
        (base64.b64encode(PNG), errors.NotAnImageError, "base64 text.*decode it"),
        (base64.b64encode(b"\xff\xd8\xff\xe0\0\x10JFIF"), errors.NotAnImageError, "base64 text"),
        (b"data:image/png;base64,iVBO", errors.NotAnImageError, "base64 text.*decode it"),
        (b"%PDF-1.7 and so on", errors.UnsupportedFormatError, "PDF.*save it as"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", errors.UnsupportedFormatError, "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>", errors.UnsupportedFormatError, "SVG"),
        (
            b"\0\0\0\x14ftypisom\0\0\0\0mp42",
            errors.UnsupportedFormatError,
            "video.*save a frame of it as JPEG.*facewise annotate reads",
        ),
        (
            b"\x1a\x45\xdf\xa3 of Matroska",
            errors.NotAnImageError,
            "a frame of it as JPEG.*annotate reads",
        ),
        (b"RIFF\0\n\0\0AVI LIST", errors.NotAnImageError, "a frame of it as JPEG.*annotate reads"),
        (b"\0\0\1\xba of MPEG", errors.NotAnImageError, "a frame of it as JPEG.*annotate reads"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", errors.UnsupportedFormatError, "JPEG XL"),
        (PNG[: len(PNG) // 2], errors.CorruptImageError, "again"),
        (PNG[:20], errors.CorruptImageError, "again"),
        (png_header(1, 1), errors.ImageTooSmallError, "16 on its shorter side: use a larger one"),
        (png_header(100_000, 100_000), errors.ImageTooLargeError, "scale"),
        (png_header(10_000, 6_000), errors.ImageTooLargeError, "50,000,000"),
        (png_header(200, 200), errors.CorruptImageError, "again"),
    ],
)
def test_bad_bytes(data: bytes, error: type[errors.ImageError], advice: str) -> None:
    with pytest.raises(error, match=advice) as caught:
        load_photo(data)
    assert caught.value.code == error.code


def test_jpeg_cut_in_half() -> None:
    data = encode(Image.fromarray(picture(400, 300)), "JPEG")
    with pytest.raises(errors.CorruptImageError, match="ends too early"):
        load_photo(data[: len(data) // 2])


def test_sixty_megapixels_are_refused_before_decoding() -> None:
    data = encode(Image.new("L", (10_000, 6_000)), "JPEG", quality=10)
    with pytest.raises(errors.ImageTooLargeError, match="10,000 x 6,000"):
        load_photo(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM"])
def test_truncated_anywhere(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for share in (0.3, 0.5, 0.9):
        with pytest.raises(errors.CorruptImageError, match="ends too early or is damaged"):
            load_photo(data[: int(len(data) * share)])


def test_a_truncated_pil_image() -> None:
    """Pillow decodes lazily, so the damage surfaces only in ``load_photo``."""
    data = encode(Image.fromarray(picture(400, 300)), "JPEG")
    with pytest.raises(errors.CorruptImageError, match="ends too early"):
        load_photo(Image.open(io.BytesIO(data[: len(data) // 2])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "AVIF", "PPM"])
def test_pillows_own_limit_does_not_interfere(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would warn above one pixel and refuse above two; warnings are errors here."""
    data = encode(Image.fromarray(picture()), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert load_photo(data).rgb.shape == (40, 64, 3)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_pillows_own_limit_where_it_cannot_be_helped(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(Image.fromarray(picture()), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(errors.ImageTooLargeError, match="MAX_IMAGE_PIXELS"):
        load_photo(data)


def test_limits_are_arguments() -> None:
    assert load_photo(PNG, max_bytes=len(PNG), max_pixels=64 * 40, min_side_px=40)
    with pytest.raises(errors.ImageTooLargeError, match="bytes"):
        load_photo(PNG, max_bytes=len(PNG) - 1)
    with pytest.raises(errors.ImageTooLargeError):
        load_photo(picture(), max_pixels=64 * 40 - 1)
    with pytest.raises(errors.ImageTooSmallError):
        load_photo(Image.fromarray(picture()), min_side_px=41)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "min_side_px"])
@pytest.mark.parametrize("limit", [float("nan"), float("inf"), 0, -1, 10.5, "10", None])
def test_limits_are_whole_numbers(name: str, limit: object) -> None:
    """Especially NaN, which compares as neither more nor less and so would not limit."""
    for source in (PNG, picture(), Image.fromarray(picture())):
        with pytest.raises(errors.OptionError, match=name):
            load_photo(source, **{name: limit})  # type: ignore[arg-type]
    assert load_photo(PNG, max_pixels=1e6, max_bytes=np.int32(10**6))  # type: ignore[arg-type]


def test_file_objects_are_read_no_further_than_the_limit() -> None:
    file = io.BytesIO(b"\xff" * (DEFAULT_MAX_BYTES + 1000))
    with pytest.raises(errors.ImageTooLargeError):
        load_photo(file)
    assert file.tell() == DEFAULT_MAX_BYTES + 1


class Broken(io.BytesIO):
    """A connection that breaks off."""

    name = "photo.jpg"

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(10)


def test_file_objects_that_break_off() -> None:
    with pytest.raises(errors.ImageNotFoundError, match=r"photo.jpg: .*reset by peer") as caught:
        load_photo(Broken(PNG))
    assert caught.value.errno == 104

    class Bare:
        def read(self, size: int) -> bytes:
            raise OSError("out of paper")

    with pytest.raises(errors.ImageNotFoundError, match="out of paper"):
        load_photo(Bare())


def test_file_objects_that_are_damaged_in_their_own_way() -> None:
    """Archives and connections raise errors of their own, such as EOFError."""
    packed = gzip.compress(PNG)
    with (
        gzip.open(io.BytesIO(packed[: len(packed) // 2])) as file,
        pytest.raises(errors.ImageNotFoundError, match=r"cannot be read .*open it"),
    ):
        load_photo(file)

    class Cut:
        def read(self, size: int) -> bytes:
            raise http.client.IncompleteRead(b"", 100)

    with pytest.raises(errors.ImageNotFoundError, match="IncompleteRead"):
        load_photo(Cut())


def test_file_objects_that_give_no_bytes() -> None:
    """Web frameworks' files must be awaited; pytest turns warnings into errors."""

    class Upload:
        async def read(self, size: int = -1) -> bytes:
            return PNG

    class Numbers:
        def read(self, size: int = -1) -> int:
            return 7

    with pytest.raises(errors.InvalidArrayError, match="returned a coroutine: await it"):
        load_photo(Upload())  # type: ignore[arg-type]
    gc.collect()
    with pytest.raises(errors.InvalidArrayError, match="returned int"):
        load_photo(Numbers())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM"])
def test_closed_pil_images(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo"
    path.write_bytes(encode(Image.fromarray(picture()), kind))
    with Image.open(path) as left:
        pass
    closed = Image.open(path)
    closed.load()
    closed.close()
    with path.open("rb") as file:
        cut_off = Image.open(file)
    for image in (left, closed, cut_off):
        with pytest.raises(errors.InvalidArrayError, match="is closed"):
            load_photo(image)
    with Image.open(path) as loaded:
        loaded.load()
    assert load_photo(loaded).width_px == picture().shape[1]


def test_file_objects_that_cannot_be_read() -> None:
    closed = io.BytesIO(PNG)
    closed.close()
    with pytest.raises(errors.InvalidArrayError, match="closed"):
        load_photo(closed)
    with pytest.raises(errors.EmptyImageError):
        load_photo(io.BytesIO())


def test_file_objects_are_read_from_where_they_stand() -> None:
    file = io.BytesIO(b"preface" + PNG)
    file.seek(7)
    np.testing.assert_array_equal(load_photo(file).rgb, picture())
    assert not file.closed
    for _ in range(2):  # read to its end, or just written
        with pytest.raises(errors.EmptyImageError, match=r"is at its end: seek\(0\)"):
            load_photo(file)
    with pytest.raises(errors.EmptyImageError, match="no bytes"):
        load_photo(io.BytesIO())


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX's here")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(PNG)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:  # whom no file mode keeps out
        os.seteuid(65534)
    try:
        with pytest.raises(errors.ImageNotFoundError, match=r"Permission denied.*check the path"):
            load_photo(path)
    finally:
        if root:
            os.seteuid(0)


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotFoundError, match="check the path"):
        load_photo(tmp_path / "missing.jpg")
    with pytest.raises(errors.ImageNotFoundError, match="directory"):
        load_photo(tmp_path)
    with pytest.raises(errors.ImageNotFoundError):
        load_photo("null\0byte.jpg")
    with pytest.raises(errors.ImageNotFoundError, match="the path is empty"):
        load_photo("")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(errors.NotAnImageError) as caught:
        load_photo(tmp_path / "text.jpg")
    assert caught.value.source == str(tmp_path / "text.jpg")
    assert caught.value.index is None
    assert str(caught.value) == f"{tmp_path / 'text.jpg'}: {caught.value.reason}"
    assert caught.value.reason.startswith("not a picture")


def test_what_is_no_path_is_told_so() -> None:
    with pytest.raises(errors.ImageNotFoundError, match=r"download it first$"):
        load_photo("https://example.org/photo.jpg")
    with pytest.raises(errors.ImageNotFoundError, match=r"pass the path alone, /my photos/a\.jpg$"):
        load_photo("file:///my%20photos/a.jpg")
    photo = base64.b64encode(PNG * 9).decode()
    for text in (f"data:image/png;base64,{photo[:80]}", photo):
        with pytest.raises(errors.ImageNotFoundError, match="decode it") as caught:
            load_photo(text)
        # Logging the error with its chain must not log the photo.
        assert photo[40:60] not in "".join(traceback.format_exception(caught.value))
        assert len(f"{caught.value.source}{caught.value.filename}") < 80


@pytest.mark.parametrize(
    "one", ["a.png", Path("a.png"), PNG, picture(), io.BytesIO(PNG), load_photo(PNG)]
)
def test_several_pictures_are_a_list(one: object) -> None:
    with pytest.raises(errors.InvalidArrayError, match="pass a list of pictures, not one"):
        list(images.load_photos(one))  # type: ignore[arg-type]


def test_several_pictures_may_be_an_array() -> None:
    assert len(list(images.load_photos(np.stack([picture(), picture()])))) == 2


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_an_array() -> None:
    grey = picture()[..., 0]
    np.testing.assert_array_equal(load_photo(np.asmatrix(grey)).rgb, load_photo(grey).rgb)


def test_the_limits_name_is_for_those_who_can_raise_it() -> None:
    with pytest.raises(errors.ImageTooLargeError) as caught:
        load_photo(picture(), max_pixels=100)
    error = caught.value
    assert error.reason.endswith(", or raise max_pixels of Analyzer or load_photo")
    assert str(error) == error.reason
    assert error.with_option().endswith("scale the picture down, or raise --max-pixels")
    assert error.with_setting().endswith("ask the server's operator to raise FACEWISE_MAX_PIXELS")
    with pytest.raises(errors.ImageTooLargeError) as caught:
        load_photo(PNG, max_bytes=10)
    assert caught.value.reason.endswith(
        "use a smaller file, or raise max_bytes of Analyzer or load_photo"
    )


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (np.zeros((20, 20, 3), np.float32), r"\(array \* 255\).*astype"),
        (np.full((20, 20, 3), 200, np.float32), r": array\.round\(\)\.astype"),
        (np.full((20, 20, 3), 4096, np.uint16), r"\(array / 257\)"),
        (np.full((20, 20, 3), 4000.0, np.float32), r"\(array / 257\)"),
        (np.full((20, 20, 3), 4095, np.uint16), r"12 bits, \(array >> 4\)\.astype"),
        (np.full((20, 20, 3), -1, np.float32), "0 to 255$"),
        (np.full((20, 20, 3), np.nan), "0 to 255$"),
        (np.empty((0, 20, 3)), "0 to 255$"),
        (np.ones((20, 20), bool), r"\(array \* 255\)"),
        (np.zeros((20, 20, 3), np.int64), r": array\.round\(\)\.astype"),
        (np.zeros((3, 20, 20), np.uint8), "transpose"),
        (np.zeros((20, 20, 1), np.uint8), r"array\[:, :, 0\]$"),
        (np.zeros((2, 20, 20, 3), np.uint8), r"\(H, W\); .*analyze_many$"),
        (np.zeros((20, 20, 2), np.uint8), r"or \(H, W\)$"),
        (12, "int"),
        (None, "NoneType.*cv2.imread"),
        ([PNG], "list.*analyze_many"),
        (io.StringIO("text"), "binary"),
    ],
)
def test_wrong_arrays_and_objects(value: object, advice: str) -> None:
    with pytest.raises(errors.InvalidArrayError, match=advice):
        load_photo(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_file_opened_as_text(encoding: str, tmp_path: Path) -> None:
    """Read as UTF-8, a picture is an error of its own."""
    (tmp_path / "photo.png").write_bytes(PNG)
    with (
        (tmp_path / "photo.png").open(encoding=encoding) as file,
        pytest.raises(errors.InvalidArrayError, match=r'open it in binary mode, "rb"$'),
    ):
        load_photo(file)  # type: ignore[arg-type]


def test_wrong_color_order() -> None:
    with pytest.raises(errors.OptionError, match="bgr"):
        load_photo(PNG, color_order="gbr")  # type: ignore[arg-type]


def test_torch_tensors_are_told_what_to_do() -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    tensor = torch.from_numpy(picture()).permute(2, 0, 1)
    for given in (tensor, tensor / 255):  # times 255, bytes would wrap around
        with pytest.raises(errors.InvalidArrayError, match="permute") as caught:
            load_photo(given)
        advice = caught.value.reason.rpartition("torch tensor (3, H, W)")[2].partition(": ")[2]
        np.testing.assert_array_equal(eval(advice, {"tensor": given}), picture())


def test_photos_are_read_only_copies() -> None:
    array = picture()
    photo = load_photo(array)
    array[:] = 0
    np.testing.assert_array_equal(photo.rgb, picture())
    with pytest.raises(ValueError, match="read-only"):
        photo.rgb[0, 0] = 0
    image = Image.fromarray(picture())
    photo = load_photo(image)
    image.paste("black", (0, 0, 64, 40))
    np.testing.assert_array_equal(photo.rgb, picture())


def test_a_pil_image_keeps_its_frame_and_mode() -> None:
    frames = [Image.new("P", (20, 20), index) for index in (0, 1)]
    frames[0].putpalette([255, 0, 0, 0, 0, 255])
    frames[1].putpalette([255, 0, 0, 0, 0, 255])
    animation = Image.open(
        io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    )
    animation.seek(1)
    assert tuple(load_photo(animation).rgb[5, 5]) == (0, 0, 255)
    assert animation.tell() == 1
