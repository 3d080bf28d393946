"""Hostile files: scan bombs, brands that lie, warnings across threads, and fuzzing."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facewise import bombs, errors
from facewise.bombs import (
    MAX_JPEG_SCANS,
    MAX_PARSED_BYTES,
    MAX_PARTS,
    MAX_READS,
    count_jpeg_scans,
)
from facewise.bombs.tiff import MAX_TIFF_VALUES
from facewise.formats import guarded_pillow
from facewise.images import load_photo


def encode(kind: str, width: int = 64, height: int = 40, **options: object) -> bytes:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_scans(extra: int) -> bytes:
    """A progressive JPEG whose last scan is repeated ``extra`` times."""
    data = encode("JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * extra + data[-2:]


def test_progressive_jpegs_are_read_and_scan_bombs_are_not() -> None:
    usual = count_jpeg_scans(encode("JPEG", progressive=True))
    assert 5 < usual < 15
    assert load_photo(with_scans(MAX_JPEG_SCANS - usual)).width_px == 64
    with pytest.raises(errors.ImageTooLargeError, match="scans"):
        load_photo(with_scans(MAX_JPEG_SCANS - usual + 1))


def test_a_scan_bomb_costs_no_time() -> None:
    """20 MB of scans would take hours to decode."""
    data = with_scans(200_000)[:19_000_000]
    started = time.process_time()
    with pytest.raises(errors.ImageTooLargeError):
        load_photo(data)
    assert time.process_time() - started < 2


def test_filler_among_scans_costs_no_time() -> None:
    """0xFF bytes not followed by a marker; searching 100 kB of them took minutes."""
    data = encode("JPEG")
    scans = b"\xff\xe2\x00\xd0" + b"\xff\xda" * 103  # a segment, so that scans are counted
    started = time.process_time()
    assert count_jpeg_scans(data[:2] + scans + b"\xff" * 20_000 + b"\0" + data[2:]) == 1
    assert count_jpeg_scans(data[:2] + b"\xff" * 20_000 + data[2:]) == 1  # filler is allowed
    assert time.process_time() - started < 1


def with_segments(*parts: tuple[int, bytes]) -> bytes:
    data = encode("JPEG")
    segments = (
        bytes([0xFF, kind]) + (2 + len(body)).to_bytes(2, "big") + body for kind, body in parts
    )
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ((0xE1, b"Exif\0\0" + b"M" * 10), 200_000),  # 4 MB of them took 7 seconds, 20 MB 377
        ((0xE5, b""), 1_000_000),  # 5 million took 752 MB
        ((0xFE, b""), MAX_PARTS),
        ((0xE1, b"Exif\0\0" + b"M" * 60_000), 20),
        ((0xC0, b"\x08\0\x40\0\x40\3" + b"\1\x11\0" * 21_000), 20),  # 30 times as much memory
        ((0xDB, (b"\0" + b"\1" * 64) * 1000), 20),
    ],
)
def test_a_jpeg_of_countless_segments_is_refused(part: tuple[int, bytes], count: int) -> None:
    data = with_segments(*[part] * count)
    started = time.process_time()
    with pytest.raises(errors.ImageTooLargeError, match=r"1,000 segments.*without metadata"):
        load_photo(data)
    assert time.process_time() - started < 1


def test_segments_do_not_hide_behind_markers_without_length() -> None:
    """Pillow skips these two bytes; reading a length there would skip what follows."""
    data = with_segments(*[(0xE5, b"")] * MAX_PARTS)
    for marker in (b"\xff\xf0", b"\xff\xc8", b"\xff\xd9", b"\xff\xd8", b"\xff\xd0"):
        with pytest.raises(errors.ImageTooLargeError):
            load_photo(data[:2] + marker + data[2:])


def test_jpegs_with_much_metadata_are_read() -> None:
    """A profile in 255 pieces, 6 MB of extended XMP, resources, a picture index, comments."""
    parts = [
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(60_000)),
        *[(0xE2, b"ICC_PROFILE\0" + bytes([k + 1, 255]) + bytes(60_000)) for k in range(255)],
        *[(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))] * 90,
        *[(0xED, b"Photoshop 3.0\0" + bytes(60_000))] * 20,
        *[(0xEB, b"JP" + bytes(1000))] * 200,
        *[(0xFE, b"a comment")] * 300,
    ]
    assert load_photo(with_segments(*parts), max_bytes=40_000_000).width_px == 64
    assert load_photo(encode("JPEG") + b"\xff\xe5\0\2" * 2000).width_px == 64  # after the picture


def test_what_trails_or_precedes_a_jpeg_is_not_counted() -> None:
    """Motion photos carry a video after the picture; EXIF carries a thumbnail before it."""
    data = encode("JPEG")
    assert count_jpeg_scans(data + b"\xff\xda" * 200) == 1
    assert load_photo(data + b"\xff\xda" * 200).width_px == 64
    thumbnail = b"\xff\xe2" + (2 + 400).to_bytes(2, "big") + b"\xff\xda" * 200
    assert count_jpeg_scans(data[:2] + thumbnail + data[2:]) == 1
    assert load_photo(data[:2] + thumbnail + data[2:]).width_px == 64


def test_brands_beyond_the_first_decide_between_avif_and_heic() -> None:
    data = encode("AVIF")
    assert data[8:12] == b"avif"
    assert load_photo(data[:8] + b"mif1" + data[12:]).width_px == 64


BROKEN_EXIF = encode("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # switch as often as possible
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                load_photo(BROKEN_EXIF)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    assert list(warnings.filters) == before


def test_a_filter_that_another_thread_sets_meanwhile_stays() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with guarded_pillow():
            warnings.filterwarnings("ignore", message="set meanwhile")
        assert list(warnings.filters[1:]) == before
        assert warnings.filters[0][0] == "ignore"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")
def test_a_fork_while_a_thread_decodes_leaves_the_child_its_warnings() -> None:
    code = """
import os, threading, warnings
from facewise.formats import guarded_pillow
before = list(warnings.filters)
inside, leave = threading.Event(), threading.Event()
def decode():
    with guarded_pillow():
        inside.set()
        leave.wait()
thread = threading.Thread(target=decode)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    said = [list(warnings.filters) == before]
    with guarded_pillow():
        said.append(list(warnings.filters) != before)
    said.append(list(warnings.filters) == before)
    print(said, flush=True)
    os._exit(0)
os.waitpid(child, 0)
leave.set()
thread.join()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "[True, True, True]\n"


def test_overlapping_contexts_restore_the_filters_in_any_order() -> None:
    before = list(warnings.filters)
    first, second = guarded_pillow(), guarded_pillow()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert list(warnings.filters) != before
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
SEEDS = [encode(kind) for kind in KINDS] + [encode("JPEG", progressive=True), BROKEN_EXIF]
SEEDS += [b"P3 24 16 99\n" + b"7 80 99 " * 384, b"P5 24 16 4095\n" + bytes(range(256)) * 3]


def check(data: bytes) -> None:
    """Check the fuzzing invariant: a photo, or an ImageError with a message."""
    try:
        photo = load_photo(data, max_pixels=1_000_000)
    except errors.ImageError as error:
        assert str(error)  # noqa: PT017
    else:
        assert photo.rgb.dtype == np.uint8
        assert photo.rgb.ndim == 3
        assert photo.rgb.shape[0] * photo.rgb.shape[1] <= 1_000_000


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_pictures_never_escape_the_error_tree(seed: bytes, data: st.DataObject) -> None:
    mutated = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(mutated))
    check(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(2, 40), st.binary(max_size=200))
def test_a_signature_with_anything_behind_it(seed: bytes, kept: int, rest: bytes) -> None:
    check(seed[:kept] + rest)


def test_spliced_and_scrambled_pictures() -> None:
    """A bounded fuzz from a fixed seed, harder on headers than the ones above."""
    rng = np.random.default_rng(7)
    for _ in range(600):
        one, other = (SEEDS[k] for k in rng.integers(0, len(SEEDS), 2))
        at, to = int(rng.integers(0, len(one))), int(rng.integers(0, len(other)))
        spliced = bytearray(one[:at] + other[to:])
        for position in rng.integers(0, min(len(spliced), 80), 3) if spliced else ():
            spliced[position] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        check(bytes(spliced))


def tiff(bits: int, sample_format: int, *extra: tuple[int, int, int, int]) -> bytes:
    """A TIFF of 32 x 32 black pixels in three channels.

    Args:
        bits: per sample.
        sample_format: 1 for unsigned integers, 3 for floats.
        extra: tag, type, count and value of further entries.
    """
    side, channels = 32, 3
    pixels = bytes(side * side * channels * bits // 8)
    entries = 10 + len(extra)
    end = 8 + 2 + 12 * entries + 4
    table = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, channels, end),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, end + 12),
        (277, 3, 1, channels),
        (278, 4, 1, side),
        (279, 4, 1, len(pixels)),
        (339, 3, channels, end + 6),
        *extra,
    ]
    return (
        struct.pack("<2sHIH", b"II", 42, 8, entries)
        + b"".join(struct.pack("<HHII", *entry) for entry in sorted(table))
        + struct.pack("<I3H3H", 0, *[bits] * channels, *[sample_format] * channels)
        + pixels
    )


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    crc = zlib.crc32(kind + body)
    return len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big")


PROFILE = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))


@pytest.mark.parametrize(
    ("one", "count"),
    [
        (chunk(b"prVt"), MAX_PARTS),
        (PROFILE, MAX_PARTS),
        (chunk(b"tEXt", b"key\0"), MAX_PARTS),
        (chunk(b"IDAT"), 100 * MAX_PARTS),
    ],
)
def test_a_png_of_countless_chunks_is_refused(one: bytes, count: int) -> None:
    """4 MB of profiles, before or after the pixels, took 10 seconds to unpack."""
    data = encode("PNG")
    started = time.process_time()
    for place in (33, len(data) - 12):
        with pytest.raises(errors.ImageTooLargeError, match="chunks besides its pixels"):
            load_photo(data[:place] + one * count + data[place:])
    assert time.process_time() - started < 1


def test_a_png_of_many_chunks_is_read() -> None:
    """Pixels in one-byte chunks, hundreds of texts, and chunks after the end."""
    data = encode("PNG")
    start, end = data.index(b"IDAT") - 4, len(data) - 12
    pixels = b"".join(chunk(b"IDAT", bytes([byte])) for byte in data[start + 8 : end - 4])
    assert len(pixels) > 12 * MAX_PARTS
    texts = b"".join(chunk(b"tEXt", b"key%d\0text" % k) for k in range(500))
    many = data[:start] + texts + pixels + data[end:] + chunk(b"prVt") * 2 * MAX_PARTS
    assert np.array_equal(load_photo(many).rgb, load_photo(data).rgb)


def test_a_png_that_ends_in_zeros_is_damaged_not_too_large() -> None:
    """An interrupted download into a preallocated file looks like this."""
    data = encode("PNG")
    with pytest.raises(errors.CorruptImageError):
        load_photo(data[:33] + bytes(100_000))


def with_extension(extension: bytes) -> bytes:
    data = encode("GIF")
    place = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:place] + extension + data[place:]


def test_headers_of_countless_pieces_are_refused() -> None:
    """20 MB of comments took 813 MB of memory; 20 MB of filler took 16 seconds."""
    jpeg, entries = encode("JPEG"), struct.pack("<HHQQ", 60_000, 99, 1, 1) * MAX_READS
    data = (
        with_extension(b"!\xfe\2AA\0" * 200_000),
        with_extension(b"!\xfe" + b"\2AA" * 400_000 + b"\0"),
        with_extension(b"!\xf9\0," + b"\1A" * 400_000 + b"\0"),
        with_extension(b"\1" * 1_000_000),
        jpeg[:2] + b"\xff" * 1_000_000 + jpeg[2:],
        jpeg[:2] + b"\xff\xd0" * 500_000 + jpeg[2:],
        struct.pack("<2s3HQQ", b"II", 43, 8, 0, 16, MAX_READS) + entries,
    )
    for one in data:
        started = time.process_time()
        with pytest.raises(errors.ImageTooLargeError, match="too many pieces"):
            load_photo(one)
        assert time.process_time() - started < 5  # half a second; minutes if it is quadratic


def test_a_gif_with_a_long_comment_is_read() -> None:
    """10 MB in full blocks; also XMP, each byte of which counts as a block length."""
    blocks = (b"\xff" + b"c" * 255) * 40_000
    xmp = b"!\xff\x0bXMP DataXMP" + b"<x:xmpmeta>" * 3000 + bytes(range(255, -1, -1)) + b"\0"
    for extension in (b"!\xfe" + blocks + b"\0", xmp):
        assert load_photo(with_extension(extension)).width_px == 64


def with_orientation(length: int) -> bytes:
    """EXIF of ``length`` bytes that turns a picture by 90 degrees."""
    entry = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    return entry + bytes(length - len(entry))


def test_exif_of_a_megabyte_is_refused() -> None:
    """From 4 MB, Pillow made 77 MB of fractions in 1.7 seconds."""
    data = encode("PNG")
    for place in (33, len(data) - 12):
        fits = chunk(b"eXIf", with_orientation(MAX_PARSED_BYTES - 6))
        assert load_photo(data[:place] + fits + data[place:]).rgb.shape == (64, 40, 3)
        exif = chunk(b"eXIf", with_orientation(MAX_PARSED_BYTES))
        with pytest.raises(errors.ImageTooLargeError, match="EXIF of more than"):
            load_photo(data[:place] + exif + data[place:])
    with pytest.raises(errors.ImageTooLargeError, match="EXIF of more than"):
        load_photo(encode("WEBP", exif=with_orientation(MAX_PARSED_BYTES + 1)))
    image = Image.open(io.BytesIO(data))
    image.info["exif"] = 5  # callers may keep anything there
    assert load_photo(image).width_px == 64


def box(kind: bytes, body: bytes, *, is_long: bool = False) -> bytes:
    if is_long:
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
    return struct.pack(">I4s", 8 + len(body), kind) + body


@pytest.mark.parametrize("is_long", [False, True])
def test_an_avif_of_countless_items_is_refused(is_long: bool) -> None:
    """800 kB of items took 15 seconds."""
    data = encode("AVIF")
    end = int.from_bytes(data[:4], "big")
    locations = b"".join(struct.pack(">IHHH", k, 0, 0, 0) for k in range(80_000))
    lists = box(b"iloc", struct.pack(">BxxxHI", 2, 0, 80_000) + locations, is_long=is_long)
    meta = box(b"meta", bytes(4) + lists, is_long=is_long)
    started = time.process_time()
    to_the_end = b"\0\0\0\0meta" + bytes(4) + lists
    for boxes in (meta, box(b"moov", box(b"trak", meta)), to_the_end):
        with pytest.raises(errors.ImageTooLargeError, match="too many items"):
            load_photo(data[:end] + boxes)
    with pytest.raises(errors.ImageTooLargeError, match="too many items"):
        load_photo(data[:end] + box(b"free", b"") * 1_000_000 + data[end:])
    assert time.process_time() - started < 1


def test_an_avif_with_a_large_profile_is_read() -> None:
    assert load_photo(encode("AVIF", icc_profile=bytes(1_000_000))).width_px == 64


def in_runs(width: int, height: int, code: bytes) -> bytes:
    """An 8-bit run-length encoded BMP."""
    size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + 1024) + size + bytes(range(256)) * 4 + code


def test_a_bmp_of_too_many_runs_is_refused() -> None:
    """Lines that end early are filled pixel by pixel: 49 million pixels took 11 seconds."""
    assert load_photo(in_runs(64, 32, b"\x40\x07\0\0" * 32 + b"\0\1")).height_px == 32
    started = time.process_time()
    for width, height, code in (
        (49_000, 1000, b"\1\0\0\0" * 1000 + b"\0\1"),
        (64, 64, b"\0\0" * 2_000_000),
    ):
        with pytest.raises(errors.ImageTooLargeError, match="save it as PNG"):
            load_photo(in_runs(width, height, code))
    assert time.process_time() - started < 1


def netpbm(kind: str, samples: object, white: int, *, comment: str = "") -> bytes:
    """A PBM, PGM or PPM of 40 x 30 pixels as text."""
    rows = np.asarray(samples).reshape(30, -1).tolist()
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    return f"{kind}\n{comment}40 30\n{white if kind != 'P1' else ''}\n{text}\n".encode()


def test_a_pgm_or_ppm_as_text_is_the_same_picture() -> None:
    colours = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    as_text = netpbm("P3", colours, 255, comment="# of a camera\n")
    assert np.array_equal(load_photo(as_text).rgb, colours)
    grey = load_photo(netpbm("P2", colours[..., 0], 255)).rgb
    assert np.array_equal(grey, colours[..., :1].repeat(3, 2))
    black = load_photo(netpbm("P1", colours[..., 0] & 1, 1)).rgb[..., 0]
    assert np.array_equal(black == 0, colours[..., 0] & 1)


@pytest.mark.parametrize("white", [15, 4095, 65535])
def test_a_pgm_or_ppm_of_another_white_is_scaled(white: int) -> None:
    """The header's white counts, not the brightest sample: a dark picture stays dark."""
    ramp = np.linspace(0, white / 300, 1200).astype(">u2" if white > 255 else "u1")
    for kind, samples in (("P5", ramp), ("P6", ramp.repeat(3))):
        data = f"{kind} 40 30 {white}\n".encode() + samples.tobytes()
        rgb = load_photo(data).rgb
        np.testing.assert_allclose(rgb[..., 1].ravel(), ramp * (255 / white), atol=0.51)
    opened = Image.open(io.BytesIO(f"P5 40 30 {white}\n".encode() + ramp.tobytes()))
    assert load_photo(opened).rgb.max() <= 1


@pytest.mark.parametrize(
    ("data", "error", "advice"),
    [
        (b"P6 100000 100000 255\n", errors.ImageTooLargeError, "scale"),
        (b"P5 9999999999 9999999999 255\n", errors.ImageTooLargeError, "scale"),
        (b"P5 99999999999 64 255\n", errors.CorruptImageError, "PPM ends too early or is damaged"),
        (b"P5 64 -64 255\n" + bytes(5000), errors.CorruptImageError, "damaged"),
        (b"P5 64 64 65536\n" + bytes(5000), errors.CorruptImageError, "damaged"),
        (b"P5 64", errors.CorruptImageError, "damaged"),
        (b"P5 64 64 255\n" + bytes(4000), errors.CorruptImageError, "ends too early"),
        (b"P5 64 64 15\n" + bytes(4000), errors.CorruptImageError, "ends too early"),
        (b"P2 64 64 255\n" + b"9 " * 4000, errors.CorruptImageError, "ends too early"),
        (b"P2 64 64 255\n" + b"999 " * 4096, errors.CorruptImageError, "ends too early"),
        (b"P5 8 64 255\n" + bytes(5000), errors.ImageTooSmallError, "16"),
        (b"P2P is what this text is about", errors.NotAnImageError, "use a JPEG"),
        (b"Python, \xc3\xb6 or not", errors.NotAnImageError, "use a JPEG"),
        (b"P5\n#" + b"c" * MAX_READS, errors.ImageTooLargeError, "too many pieces"),
        (b"P2 64 64 255\n" + b"#\n" * 5_000_000, errors.ImageTooLargeError, "1,000 comments"),
        (b"P3 700 700 255\n" + b"9 " * 1_470_000, errors.ImageTooLargeError, "1,000,000 samp"),
        (b"P6 700 700 254\n" + bytes(1_470_000), errors.ImageTooLargeError, "save it as PNG"),
    ],
)
def test_a_bad_pgm_or_ppm(data: bytes, error: type[errors.ImageError], advice: str) -> None:
    """16-bit colour took five seconds per megapixel, 20 MB of comments eight minutes."""
    started = time.process_time()
    with pytest.raises(error, match=advice):
        load_photo(data)
    assert time.process_time() - started < 1


def test_a_large_pgm_of_the_usual_white_is_read() -> None:
    assert load_photo(b"P5 3000 2000 255\n" + bytes(6_000_000)).width_px == 3000
    assert load_photo(b"P5 3000 2000 65535\n" + bytes(12_000_000)).width_px == 3000


def header(tag: int, count: int, order: str, big: bool) -> bytes:
    """A 1,000 x 1,000 TIFF up to its only directory, followed by ``count`` bytes of values."""
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    entry, number, end = ("HHQQ", "Q", 16 + 8 + 20 * 8) if big else ("HHII", "H", 8 + 2 + 12 * 8)
    table = [(256, 3, 1, 1000), (257, 3, 1, 1000), (258, 3, 1, 8), (262, 3, 1, 1)]
    table += [(277, 3, 1, 1), (322, 3, 1, 1), (323, 3, 1, 1), (tag, 1, count, end)]
    if order == ">":  # short values are left-aligned in their fields
        left = 2**48 if big else 2**16
        table = [(t, kind, n, value * left if kind == 3 else value) for t, kind, n, value in table]
    return (
        (b"II" if order == "<" else b"MM")
        + start
        + struct.pack(order + number, len(table))
        + b"".join(struct.pack(order + entry, *line) for line in sorted(table))
        + b"\1" * count
    )


@pytest.mark.parametrize("tag", [273, 324])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
def test_a_tiff_of_countless_strips_or_tiles_is_refused(tag: int, order: str, big: bool) -> None:
    """4 MB of one-byte offsets took 51 seconds and 1.2 GB."""
    started = time.process_time()
    with pytest.raises(errors.ImageTooLargeError, match="65,536 strips, tiles"):
        load_photo(header(tag, MAX_TIFF_VALUES, order, big) + bytes(4_000_000))
    assert time.process_time() - started < 1


def test_tiffs_of_many_strips_are_read() -> None:
    samples = np.arange(65_000 * 16, dtype=np.uint32).astype(np.uint8)
    image = Image.fromarray(samples.reshape(65_000, 16))
    for big in (True, False):
        file = io.BytesIO()
        image.save(file, "TIFF", tiffinfo={278: 1}, strip_size=1, big_tiff=big)
        assert len(file.getvalue()) > 65_000 * (16 + 4)  # pixels, plus one offset per row
        bombs.check("TIFF", file.getvalue())
    assert np.array_equal(load_photo(file.getvalue()).rgb[..., 0], np.asarray(image))


def test_a_tiled_tiff_is_read() -> None:
    tiles = [(322, 3, 1, 16), (323, 3, 1, 16), (324, 4, 4, 8 + 2 + 12 * 10 + 4)]
    table = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    table += [(259, 3, 1, 1), (284, 3, 1, 1), *tiles]
    data = (
        struct.pack("<2sHIH", b"II", 42, 8, 10)
        + b"".join(struct.pack("<HHII", *entry) for entry in sorted(table))
        + struct.pack("<5I", 0, *(150 + 256 * k for k in range(4)))
        + b"".join(bytes([60 * k]) * 256 for k in range(4))
    )
    assert load_photo(data).rgb[8::16, 8::16, 0].tolist() == [[0, 60], [120, 180]]


def test_a_damaged_tiff_is_not_called_too_large() -> None:
    offsets = header(324, MAX_TIFF_VALUES + 1, "<", False)
    beyond = struct.pack("<HHI", 324, 1, 2**32 - 1)
    for data in (
        offsets[:8] + offsets[-100:],  # no directory
        offsets[:40],  # part of one
        offsets.replace(struct.pack("<HHI", 324, 1, MAX_TIFF_VALUES + 1), beyond),
        offsets[:4] + b"\xff" * 4 + offsets[8:],
        b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(100),
    ):
        with pytest.raises(errors.CorruptImageError):
            load_photo(data)


def test_a_tiff_s_exif_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 4 MB of it, Pillow would make half a million fractions."""
    monkeypatch.setattr(Image.Exif, "get_ifd", lambda *_: pytest.fail("Pillow reads EXIF"))
    assert load_photo(tiff(8, 1, (34665, 4, 1, 8))).width_px == 32


def test_a_tiff_that_is_sound_but_not_read_is_not_called_damaged() -> None:
    assert load_photo(tiff(8, 1)).width_px == 32
    with pytest.raises(errors.UnsupportedFormatError, match="8 or 16 bits"):
        load_photo(tiff(32, 3))
    with pytest.raises(errors.CorruptImageError):
        load_photo(tiff(8, 1)[:60])


@pytest.mark.parametrize("entry", [(254, 4, 1, 1), (50706, 1, 4, 0x0401)])
def test_a_raw_file_is_not_answered_from_its_preview(entry: tuple[int, int, int, int]) -> None:
    with pytest.raises(errors.UnsupportedFormatError, match=r"raw file.*save it as JPEG"):
        load_photo(tiff(8, 1, entry))
