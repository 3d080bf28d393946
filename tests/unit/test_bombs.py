"""Small files that decode to far more pixels than they show, and honest ones like them."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from facewise.bombs import EXCESS, SPARE_PIXELS, av1, items
from facewise.bombs.isobmff import MAX_FRAMES, decoded_first_frame
from facewise.errors import CorruptImageError, ImageTooLargeError
from facewise.images import load_photo
from facewise.types import ImageArray

Tags = dict[int, tuple[int, int, bytes]]

FAR_MORE = "far more pixels than the picture"


def ramp(width: int, height: int) -> ImageArray:
    """A picture in which every place has a colour of its own, smooth enough for any codec."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = across, down[:, None], 128
    return rgb


def difference(data: bytes, rgb: ImageArray) -> float:
    decoded = load_photo(data).rgb
    assert decoded.shape == rgb.shape
    return float(np.abs(decoded.astype(int) - rgb).mean())


def number(value: int, *, kind: int = 4, count: int = 1) -> tuple[int, int, bytes]:
    return kind, count, struct.pack("<I", value)


def tiff(tags: Tags, blocks: Sequence[bytes], where: int) -> bytes:
    """A little-endian TIFF.

    Args:
        tags: type, count and value, which is stored elsewhere if it has more than four bytes.
        blocks: compressed strips or tiles; one that comes twice is stored once.
        where: the tag with the offsets of ``blocks``.
    """
    sizes = {273: 279, 324: 325}[where]
    places = dict.fromkeys(blocks, 0)
    at = 8
    for block in places:
        places[block] = at
        at += len(block)
    entries = {
        **tags,
        where: (4, len(blocks), b"".join(struct.pack("<I", places[block]) for block in blocks)),
        sizes: (4, len(blocks), b"".join(struct.pack("<I", len(block)) for block in blocks)),
    }
    directory, values = b"", b""
    start = at + 2 + 12 * len(entries) + 4
    for tag, (kind, count, value) in sorted(entries.items()):
        if len(value) > 4:
            value, values = struct.pack("<I", start + len(values)), values + value
        directory += struct.pack("<HHI4s", tag, kind, count, value)
    header = struct.pack("<2sHI", b"II", 42, at) + b"".join(places)
    return header + struct.pack("<H", len(entries)) + directory + bytes(4) + values


def tags(width: int, height: int, *, samples: int = 1, compression: int = 8) -> Tags:
    return {
        256: number(width),
        257: number(height),
        258: (3, samples, struct.pack(f"<{samples}H", *[8] * samples)),
        259: number(compression),
        262: number(2 if samples == 3 else 1),
        277: number(samples),
    }


def tiled(rgb: ImageArray, side: int, *, compression: int = 8, planar: bool = False) -> bytes:
    """A TIFF in square tiles, the last ones of which reach past the picture."""
    height, width, _ = rgb.shape
    across, down = -(-width // side), -(-height // side)
    whole = np.pad(rgb, ((0, down * side - height), (0, across * side - width), (0, 0)))
    planes = [whole[..., [k]] for k in range(3)] if planar else [whole]
    blocks = [
        np.ascontiguousarray(plane[y : y + side, x : x + side]).tobytes()
        for plane in planes
        for y in range(0, down * side, side)
        for x in range(0, across * side, side)
    ]
    if compression == 8:
        blocks = [zlib.compress(block) for block in blocks]
    entries = tags(width, height, samples=3, compression=compression)
    entries |= {284: number(2 if planar else 1), 322: number(side), 323: number(side)}
    return tiff(entries, blocks, 324)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("width", "height", "side"), [(300, 200, 256), (16, 16, 1024)])
def test_tiffs_in_tiles_are_read(
    width: int, height: int, side: int, planar: bool, compression: int
) -> None:
    rgb = ramp(width, height)
    assert difference(tiled(rgb, side, planar=planar, compression=compression), rgb) == 0


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_a_tiff_in_strips_the_last_of_which_is_short_is_read(compression: str | None) -> None:
    file = io.BytesIO()
    rgb = ramp(300, 200)
    Image.fromarray(rgb).save(file, "TIFF", compression=compression, strip_size=900 * 48)
    assert difference(file.getvalue(), rgb) < (2 if compression == "jpeg" else 0.001)


STRIP = zlib.compress(bytes(1600), 9)


@pytest.mark.parametrize(
    "sides",
    [
        {322: number(16), 323: number(10_000_000)},  # took a second, and 160 MB
        {322: number(16_000), 323: number(16_000)},
        {322: number(65_520, kind=3), 323: number(65_520, kind=3)},
        {322: number(16), 323: (16, 1, struct.pack("<Q", 10_000_000))},
    ],
)
def test_a_tiff_of_far_larger_tiles_is_refused(sides: Tags) -> None:
    """libtiff decodes a tile whole: 2 MB of them kept a thread busy, without an end in sight."""
    for width in (16, 320):
        data = tiff(tags(width, 16) | sides, [STRIP] * (width // 16), 324)
        with pytest.raises(ImageTooLargeError, match=FAR_MORE):
            load_photo(data)


def test_of_equal_tags_in_a_tiff_the_larger_one_counts() -> None:
    """libtiff goes by the first, Pillow by the last."""
    data = tiff(tags(16, 16) | {321: number(0), 322: number(16), 323: number(16)}, [STRIP], 324)
    assert load_photo(data).width_px == 16
    spare, short, long = (
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((321, 0), (323, 16), (323, 10**8))
    )
    for hostile in (
        data.replace(spare, long),
        data.replace(short, long).replace(spare, short),
    ):
        with pytest.raises(ImageTooLargeError, match=FAR_MORE):
            load_photo(hostile)


def test_an_uncompressed_tiff_of_more_strips_than_it_needs_is_refused() -> None:
    """Pillow begins again at the top: 60,000 strips that are all the same took seven minutes."""
    rows = bytes(1600 * 1599)
    for count, is_read in ((3, True), (1000, False)):
        data = tiff(tags(1600, 1600, compression=1) | {278: number(1599)}, [rows] * count, 273)
        if is_read:
            assert load_photo(data).height_px == 1600
        else:
            with pytest.raises(ImageTooLargeError, match=FAR_MORE):
                load_photo(data)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


@dataclass
class Item:
    """An item of an AVIF or HEIC; items are numbered from 1, in order."""

    kind: bytes
    pieces: Sequence[bytes]
    properties: Sequence[bytes] = ()
    dimg: Sequence[int] = ()
    auxl: Sequence[int] = ()
    thmb: Sequence[int] = ()


def isobmff(brand: bytes, parts: Sequence[Item], *, is_large: bool = False) -> bytes:
    """An AVIF or HEIC whose first item is the picture.

    Args:
        brand: avif or heic.
        parts: the items. Pieces that are equal are stored once.
        is_large: whether lists have the versions for large numbers, and lie in ``idat``.
    """
    ids, version = (">I", 2) if is_large else (">H", 0)
    properties = list(dict.fromkeys(one for item in parts for one in item.properties))
    associations, entries, references = b"", b"", b""
    for index, item in enumerate(parts, 1):
        places = bytes(128 | 1 + properties.index(one) for one in item.properties)
        associations += struct.pack(ids, index) + bytes([len(places)]) + places
        infe = struct.pack(ids, index) + bytes(2) + item.kind + b"\0"
        entries += full(b"infe", infe, version=3 if is_large else 2)
        for kind, others in ((b"dimg", item.dimg), (b"auxl", item.auxl), (b"thmb", item.thmb)):
            if others:
                numbers = b"".join(struct.pack(ids, other) for other in others)
                count = struct.pack(">H", len(others))
                references += box(kind, struct.pack(ids, index) + count + numbers)
    pieces = list(dict.fromkeys(piece for item in parts for piece in item.pieces))
    stored = b"".join(pieces)
    begins = dict(zip(pieces, itertools.accumulate(map(len, pieces), initial=0), strict=False))

    def meta(begin: int) -> bytes:
        where = b""
        for index, item in enumerate(parts, 1):
            where += struct.pack(ids, index) + (b"\0\1" if is_large else b"")
            where += struct.pack(">HH", 0, len(item.pieces))
            for piece in item.pieces:
                where += struct.pack(">II", begin + begins[piece], len(piece))
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(ids, 1), version=int(is_large)),
            full(b"iloc", b"\x44\0", struct.pack(ids, len(parts)), where, version=version),
            full(b"iinf", struct.pack(ids, len(parts)), entries, version=int(is_large)),
            full(b"iref", references, version=int(is_large)) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *properties),
                full(b"ipma", struct.pack(">I", len(parts)), associations, version=int(is_large)),
            ),
            box(b"idat", stored) if is_large else b"",
        )

    start = box(b"ftyp", brand, bytes(4), brand, b"mif1miaf")
    begin = 0 if is_large else len(start) + len(meta(0)) + 8
    return start + meta(begin) + (b"" if is_large else box(b"mdat", stored))


def grid(across: int, down: int, width: int, height: int) -> bytes:
    return struct.pack(">BBBBHH", 0, 0, down - 1, across - 1, width, height)


def found(data: bytes, kind: bytes) -> bytes:
    """The first box of a kind, found by its name."""
    at = data.index(kind) - 4
    return data[at : at + int.from_bytes(data[at : at + 4], "big")]


@dataclass
class Still:
    """What an encoder made of a picture."""

    data: bytes
    properties: Sequence[bytes]


def avif_still(rgb: ImageArray) -> Still:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "AVIF", quality=90, speed=10)
    file_bytes = file.getvalue()
    properties = [found(file_bytes, kind) for kind in (b"ispe", b"av1C", b"pixi", b"colr")]
    return Still(found(file_bytes, b"mdat")[8:], properties)


def heic_still(rgb: ImageArray) -> Still:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(file, quality=90)
    file_bytes = file.getvalue()
    properties = [found(file_bytes, kind) for kind in (b"ispe", b"hvcC", b"pixi")]
    return Still(found(file_bytes, b"mdat")[8:], properties)


def in_tiles(encode: Callable[[ImageArray], Still], rgb: ImageArray, side: int) -> list[Item]:
    """A grid as phones write it: whole tiles, of which the picture shows the upper left part."""
    kind = b"av01" if encode is avif_still else b"hvc1"
    height, width, _ = rgb.shape
    across, down = -(-width // side), -(-height // side)
    edges = ((0, down * side - height), (0, across * side - width), (0, 0))
    whole = np.pad(rgb, edges, mode="edge")
    tiles = []
    for y, x in itertools.product(range(0, down * side, side), range(0, across * side, side)):
        still = encode(np.ascontiguousarray(whole[y : y + side, x : x + side]))
        tiles.append(Item(kind, [still.data], still.properties))
    properties = [ispe(width, height), *tiles[0].properties[2:]]
    numbers = range(2, 2 + len(tiles))
    return [Item(b"grid", [grid(across, down, width, height)], properties, numbers), *tiles]


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(("encode", "brand"), [(avif_still, b"avif"), (heic_still, b"heic")])
def test_grids_are_read(
    encode: Callable[[ImageArray], Still], brand: bytes, is_large: bool
) -> None:
    rgb = ramp(200, 150)
    assert difference(isobmff(brand, in_tiles(encode, rgb, 128), is_large=is_large), rgb) < 3


def alpha(name: bytes = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha") -> bytes:
    return full(b"auxC", name, b"\0")


def test_a_phone_s_heic_is_read() -> None:
    """Tiles of 512 x 512, a thumbnail, a depth map and a gain map."""
    rgb = ramp(600, 500)
    parts = in_tiles(heic_still, rgb, 512)
    small = heic_still(ramp(320, 240))
    for kind in (b"urn:mpeg:hevc:2015:auxid:2", b"urn:com:apple:photo:2020:aux:hdrgainmap"):
        parts.append(Item(b"hvc1", [small.data], [*small.properties, alpha(kind)], auxl=[1]))
    parts.append(Item(b"hvc1", [small.data], small.properties, thmb=[1]))
    assert difference(isobmff(b"heic", parts), rgb) < 3


def test_a_phone_s_heic_of_48_megapixels_is_within_the_limit() -> None:
    """As a portrait of an iPhone: a gain map, depth, and mattes of half the sides."""
    whole = Item(b"grid", [grid(16, 12, 8064, 6048)], [ispe(8064, 6048)], range(2, 194))
    tiles = [Item(b"hvc1", [b"tile"], [ispe(512, 512)])] * 192
    maps = [Item(b"hvc1", [b"map"], [ispe(4032, 3024), alpha()], auxl=[1])] * 6
    thumbnail = Item(b"hvc1", [b"small"], [ispe(416, 312)], thmb=[1])
    burst = [Item(b"hvc1", [b"another"], [ispe(8064, 6048)])] * 20  # are not decoded
    data = isobmff(b"heic", [whole, *tiles, *maps, thumbnail, *burst])
    decoded = items.decoded_items(data, is_avif=False)
    assert decoded == (192 * 512 * 512 + 6 * 4032 * 3024, 8064 * 6048)
    assert decoded.pixels < EXCESS * 8064 * 6048 + SPARE_PIXELS


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_with_transparency_are_read(kind: str) -> None:
    rgba = np.dstack([ramp(120, 80), np.full((80, 120), 255, np.uint8)])
    rgba[:40, :, 3] = 0
    file = io.BytesIO()
    if kind == "AVIF":
        Image.fromarray(rgba).save(file, kind, quality=90)
    else:
        heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
        heif.from_pillow(Image.fromarray(rgba)).save(file, quality=90)
    shown = ramp(120, 80)
    shown[:40] = 255
    assert difference(file.getvalue(), shown) < 3
    decoded = items.decoded_items(file.getvalue(), is_avif=kind == "AVIF")
    assert decoded.pixels in (2 * 120 * 80, 2 * 128 * 80)


def animation(count: int, mode: str = "RGB") -> bytes:
    frames = [Image.fromarray(ramp(64, 40)).convert(mode).rotate(9 * k) for k in range(count)]
    file = io.BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:], quality=90, speed=10)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_animated_avifs_are_read(mode: str) -> None:
    data = animation(4, mode)
    assert data[8:12] == b"avis"
    assert difference(data, ramp(64, 40)) < 4
    pixels = 64 * 40 * (2 if mode == "RGBA" else 1)
    of_items, of_frame = items.decoded_items(data, is_avif=True), decoded_first_frame(data)
    assert of_items == of_frame == (pixels, 64 * 40)


def obu(kind: int, body: bytes = b"", *, extension: bool = False) -> bytes:
    """A part of AV1 data, of less than 128 bytes."""
    return bytes([kind << 3 | extension << 2 | 2, *[8] * extension, len(body)]) + body


def from_bits(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def sequence_header(
    width: int, height: int, *, is_reduced: bool = True, is_regular: bool = True
) -> bytes:
    """An AV1 sequence header as far as it matters; unless reduced, with all that it may have."""
    size = f"{14:04b}{15:04b}{width - 1:015b}{height - 1:016b}"
    if is_reduced:
        return obu(1, from_bits("000" + "11" + "00000" + size))
    interval = "1" + "00101" if is_regular else "0"
    model = "1" + f"{9:05b}" + "1" * 32 + "0" * 5 + f"{6:05b}"
    points = 2 * ("0" * 12 + f"{8:05b}" + "1" + "1" + "10" * 10 + "1" + "1" + "1111")
    frame_id, tools, order, choices = "1" + "0101" + "011", "1" * 7, "1" + "11", "1" + "1"
    start = "000" + "00" + "1" + "01" * 32 + interval + model + "1" + "00001" + points
    return obu(1, from_bits(start + size + frame_id + tools + order + choices))


def frame_header(*, is_shown: bool, has_size: bool, is_regular: bool = True) -> bytes:
    """The beginning of a key frame in a sequence that is not reduced."""
    time = "" if is_regular else "1" * 7
    start = "0" + "00" + ("1" + time if is_shown else "0" + "1" + "1")
    choices, frame_id = "0" + "1" + "0", "10" * 5 + "1"
    return obu(6, from_bits(start + choices + frame_id + str(int(has_size)) + "0" * 80))


FRAME = obu(6, bytes(20))


@pytest.mark.parametrize(
    "pieces",
    [
        [obu(2) + sequence_header(8000, 3000) + FRAME],
        [
            sequence_header(8000, 3000, is_reduced=False)
            + frame_header(is_shown=True, has_size=False)
        ],
        [sequence_header(64, 64) + sequence_header(8000, 3000) + obu(3) + obu(4)],
        [obu(5, bytes(100), extension=True) + sequence_header(8000, 3000) + b"\x30" + bytes(20)],
        [(whole := sequence_header(8000, 3000) + FRAME)[:5], whole[5:9], whole[9:]],
        [sequence_header(1000, 600) + 30 * FRAME],
        [sequence_header(1000, 600) + FRAME + 300 * obu(5)],
        [sequence_header(64, 64, is_reduced=False) + frame_header(is_shown=True, has_size=True)],
    ],
)
@pytest.mark.parametrize("is_large", [False, True])
def test_an_avif_of_larger_frames_is_refused(pieces: list[bytes], is_large: bool) -> None:
    """A frame of 144 megapixels takes 2 kB, and libavif scales it down to the size it should be."""
    properties = avif_still(ramp(64, 64)).properties
    picture = Item(b"av01", pieces, properties)
    honest = Item(b"av01", [avif_still(ramp(64, 64)).data], properties)
    transparency = Item(b"av01", pieces, [*properties[:3], alpha()], auxl=[1])
    tiles = [Item(b"grid", [grid(2, 1, 128, 64)], [ispe(128, 64)], [2, 3]), honest, picture]
    for parts in ([picture], [honest, transparency], tiles):
        with pytest.raises(ImageTooLargeError, match=FAR_MORE):
            load_photo(isobmff(b"avif", parts, is_large=is_large))


@pytest.mark.parametrize("is_regular", [False, True])
@pytest.mark.parametrize("is_shown", [False, True])
def test_a_frame_may_state_a_size_of_its_own(is_shown: bool, is_regular: bool) -> None:
    """dav1d decodes it, even if the sequence header said that all frames are smaller."""
    start = sequence_header(640, 480, is_reduced=False, is_regular=is_regular)
    for has_size, pixels in ((False, 640 * 480), (True, 2 ** (15 + 16))):
        frame = frame_header(is_shown=is_shown, has_size=has_size, is_regular=is_regular)
        data = start + frame + obu(3, b"\x80")  # the last shows a frame again
        assert av1.decoded(data, ((0, len(data)),)) == (pixels, pixels)


def test_an_avif_of_many_large_tiles_is_refused() -> None:
    """1,600 of them, all the same one, took 74 kB and half an hour."""
    tile = Item(b"av01", [sequence_header(1000, 1000) + FRAME], avif_still(ramp(64, 64)).properties)
    whole = Item(b"grid", [grid(5, 4, 320, 256)], [ispe(320, 256)], range(2, 22))
    with pytest.raises(ImageTooLargeError, match=FAR_MORE):
        load_photo(isobmff(b"avif", [whole, *[tile] * 20]))


def patched(data: bytes, kind: bytes, at: int, value: int) -> bytes:
    """An ISO media file in all of whose boxes of a kind a number is another."""
    out = bytearray(data)
    place = out.find(kind)
    while place >= 0:
        struct.pack_into(">I", out, place + 4 + at, value)
        place = out.find(kind, place + 4)
    return bytes(out)


def test_an_animated_avif_of_a_larger_frame_is_refused() -> None:
    data = animation(2)
    frame = sequence_header(8000, 3000, is_reduced=False) + frame_header(
        is_shown=True, has_size=False
    )
    with pytest.raises(ImageTooLargeError, match=FAR_MORE):
        load_photo(patched(data, b"stco", 8, len(data)) + frame + bytes(10_000))


def test_an_animated_avif_of_countless_frames_is_refused() -> None:
    """Tables of a few bytes stated 2.5 million, which took 370 MB."""
    data = patched(animation(2), b"stsz", 4, 1)
    with pytest.raises(ImageTooLargeError, match="100,000 frames"):
        load_photo(patched(data, b"stsc", 12, MAX_FRAMES + 1) + bytes(4_000_000))


def coded(width: int, height: int, still: Still) -> Item:
    return Item(b"hvc1", [still.data], [ispe(width, height), *still.properties[1:]])


def overlay(width: int, height: int, count: int) -> bytes:
    return b"\0\1" + b"\xff" * 8 + struct.pack(">II", width, height) + bytes(8 * count)


@pytest.mark.parametrize("is_large", [False, True])
def test_a_heic_of_larger_parts_is_refused(is_large: bool) -> None:
    """64 tiles took 7 kB and 16 seconds; an overlay of 600 bytes took 1.2 GB."""
    small = heic_still(ramp(64, 64))
    tile, shown = coded(64, 64, small), [ispe(64, 64), *small.properties[2:]]
    huge = coded(8000, 8000, small)
    assert load_photo(isobmff(b"heic", [Item(b"iovl", [overlay(64, 64, 1)], shown, [2]), tile]))
    for parts in (
        [Item(b"grid", [grid(1, 1, 64, 64)], shown, [2]), huge],
        [Item(b"grid", [grid(25, 25, 64, 64)], shown, [2] * 625), coded(200, 200, small)],
        [Item(b"grid", [grid(1, 1, 9000, 9000)], shown, [2]), tile],
        [Item(b"iovl", [overlay(20_000, 20_000, 1)], shown, [2]), tile],
        [Item(b"iovl", [overlay(64, 64, 20)], shown, [2] * 20), coded(1500, 1500, small)],
        [
            Item(b"iden", [], shown, [2]),
            *(Item(b"iden", [], shown, [k]) for k in range(3, 20)),
            tile,
        ],
    ):
        with pytest.raises(ImageTooLargeError, match=r"export it again"):
            load_photo(isobmff(b"heic", parts, is_large=is_large))


def test_a_heic_of_countless_items_is_refused() -> None:
    still = heic_still(ramp(64, 64))
    data = isobmff(b"heic", [coded(64, 64, still)] * 4000)
    with pytest.raises(ImageTooLargeError, match="too many items"):
        load_photo(data)


@pytest.mark.parametrize("brand", [b"avif", b"heic"])
def test_boxes_in_boxes_are_no_end_of_recursion(brand: bytes) -> None:
    pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    start = box(b"ftyp", brand, bytes(4), brand, b"mif1miaf")
    with pytest.raises(CorruptImageError):
        load_photo(start + b"\0\0\0\0moov" * 5000)
    with pytest.raises(ImageTooLargeError, match="too many items"):
        load_photo(start + b"\0\0\0\0moov" * 50_000)
