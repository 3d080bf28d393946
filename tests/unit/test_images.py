"""Every way in, every way it can go wrong."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facewise import errors
from facewise.images import DEFAULT_MAX_BYTES, load_photo
from facewise.types import ImageArray


def picture(width: int = 64, height: int = 40, seed: int = 0) -> ImageArray:
    """A smooth, asymmetric picture: no rotation or mirroring of it equals another."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PNG = encode(Image.fromarray(picture()), "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and carries next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    rgb = load_photo(encode(Image.fromarray(picture()), kind, **options)).rgb
    difference = np.abs(rgb.astype(int) - picture()).mean()
    assert rgb.shape == (40, 64, 3)
    assert difference < (25 if kind == "GIF" else 6)


def test_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(picture())).save(file)
    assert np.abs(load_photo(file.getvalue()).rgb.astype(int) - picture()).mean() < 8


def test_all_ways_in_agree(tmp_path: Path) -> None:
    path = tmp_path / "写真 été 😀.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        ways = [
            load_photo(path),
            load_photo(str(path)),
            load_photo(PNG),
            load_photo(bytearray(PNG)),  # type: ignore[arg-type]
            load_photo(memoryview(PNG)),  # type: ignore[arg-type]
            load_photo(file),
            load_photo(picture()),
            load_photo(picture()[:, :, ::-1], color_order="bgr"),
            load_photo(Image.fromarray(picture())),
            load_photo(load_photo(picture())),
        ]
    for photo in ways:
        np.testing.assert_array_equal(photo.rgb, picture())
    assert ways[0].source == str(path)


def test_orientations_agree() -> None:
    """The same scene stored in each of the eight EXIF orientations comes out the same."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(picture())
    for orientation, method in undo.items():
        stored = upright if method is None else upright.transpose(method)
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb = load_photo(encode(stored, "PNG", exif=exif)).rgb
        np.testing.assert_array_equal(rgb, picture(), err_msg=f"orientation {orientation}")


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    rgb = load_photo(encode(Image.fromarray(ramp), kind)).rgb
    np.testing.assert_allclose(rgb[..., 0], ramp / 257, atol=1)


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
        (b"just text, whatever its name says", errors.NotAnImageError, "pass a JPEG"),
        (b"%PDF-1.7 and so on", errors.UnsupportedFormatError, "save it as"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", errors.UnsupportedFormatError, "save it"),
        (PNG[: len(PNG) // 2], errors.CorruptImageError, "again"),
        (PNG[:20], errors.CorruptImageError, "again"),
        (png_header(1, 1), errors.ImageTooSmallError, "16"),
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
    with pytest.raises(errors.CorruptImageError, match="truncated"):
        load_photo(data[: len(data) // 2])


def test_sixty_megapixels_are_refused_before_decoding() -> None:
    data = encode(Image.new("L", (10_000, 6_000)), "JPEG", quality=10)
    with pytest.raises(errors.ImageTooLargeError, match="10,000 x 6,000"):
        load_photo(data)


def test_limits_are_arguments() -> None:
    assert load_photo(PNG, max_bytes=len(PNG), max_pixels=64 * 40, min_side_px=40)
    with pytest.raises(errors.ImageTooLargeError, match="bytes"):
        load_photo(PNG, max_bytes=len(PNG) - 1)
    with pytest.raises(errors.ImageTooLargeError):
        load_photo(picture(), max_pixels=64 * 40 - 1)
    with pytest.raises(errors.ImageTooSmallError):
        load_photo(Image.fromarray(picture()), min_side_px=41)


def test_file_objects_are_read_no_further_than_the_limit() -> None:
    file = io.BytesIO(b"\xff" * (DEFAULT_MAX_BYTES + 1000))
    with pytest.raises(errors.ImageTooLargeError):
        load_photo(file)
    assert file.tell() == DEFAULT_MAX_BYTES + 1


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(errors.ImageNotFoundError, match="check the path"):
        load_photo(tmp_path / "missing.jpg")
    with pytest.raises(errors.ImageNotFoundError, match="directory"):
        load_photo(tmp_path)
    with pytest.raises(errors.ImageNotFoundError):
        load_photo("null\0byte.jpg")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(errors.NotAnImageError):
        load_photo(tmp_path / "text.jpg")


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (np.zeros((20, 20, 3), np.float32), "astype"),
        (np.zeros((20, 20, 3), np.int64), "uint8"),
        (np.zeros((3, 20, 20), np.uint8), "transpose"),
        (np.zeros((2, 20, 20, 3), np.uint8), "shape"),
        (12, "int"),
        (None, "NoneType"),
        (io.StringIO("text"), "binary"),
    ],
)
def test_wrong_arrays_and_objects(value: object, advice: str) -> None:
    with pytest.raises(errors.InvalidArrayError, match=advice):
        load_photo(value)  # type: ignore[arg-type]


def test_wrong_color_order() -> None:
    with pytest.raises(errors.OptionError, match="bgr"):
        load_photo(PNG, color_order="gbr")  # type: ignore[arg-type]


def test_torch_tensors_are_told_what_to_do() -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    with pytest.raises(errors.InvalidArrayError, match="permute"):
        load_photo(torch.zeros(3, 20, 20))


def test_photos_are_read_only_copies() -> None:
    array = picture()
    photo = load_photo(array)
    array[:] = 0
    np.testing.assert_array_equal(photo.rgb, picture())
    with pytest.raises(ValueError, match="read-only"):
        photo.rgb[0, 0] = 0


SEEDS = [
    encode(Image.fromarray(picture()), kind)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_pictures_never_escape_the_error_tree(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutated)))
    for candidate in (bytes(mutated), bytes(mutated[:cut])):
        try:
            photo = load_photo(candidate, max_pixels=1_000_000)
        except errors.ImageError as error:
            assert str(error)  # noqa: PT017
        else:
            assert photo.rgb.dtype == np.uint8
