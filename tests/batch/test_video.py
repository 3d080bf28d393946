"""Video to rows: damage, unknown codecs, track averages, and how many rows wait for them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facewise import Analyzer
from facewise.batch.annotate import annotate
from facewise.batch.job import VIDEO, Item, Job, Task
from facewise.batch.rows import Row
from facewise.batch.video import sample_frames, video_rows
from facewise.batch.work import Annotator
from facewise.errors import CorruptImageError

av = pytest.importorskip("av")

AGE = Job(attributes=("age",), frames_per_second=2.0)


@pytest.fixture(scope="module")
def portrait(pictures: Path) -> Any:
    with Image.open(pictures / "astronaut.jpg") as image:
        return np.asarray(image.convert("RGB").resize((256, 256)))


def film(path: Path, frames: Iterable[Any], **options: str) -> Path:
    """Write a video at 10 frames per second, or 25 for .mpg, which does not support 10."""
    codec, rate = ("mpeg2video", 25) if path.suffix == ".mpg" else ("mpeg4", 10)
    pixel, start = options.pop("pixel", None), int(options.pop("start", 0))
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(pixel)
        for number, rgb in enumerate(frames, start * rate):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def look(analyzer: Analyzer) -> Callable[..., list[Row]]:
    def look(path: Path, frames_per_second: float = 2.0) -> list[Row]:
        item = Item(path.name, VIDEO, str(path))
        return list(video_rows(item, analyzer, frames_per_second))

    return look


def test_a_codec_that_nobody_knows_is_a_row(portrait: Any, tmp_path: Path) -> None:
    data = film(tmp_path / "a.mkv", [portrait] * 10).read_bytes()
    assert b"V_MPEG4/ISO/ASP" in data
    (tmp_path / "a.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_NOBODY/KNOWSX"))
    summary = annotate([str(tmp_path / "a.mkv")], tmp_path / "t", AGE, workers=1)
    assert summary.errors == {"unsupported_format": 1}
    (row,) = pq.read_table(tmp_path / "t").to_pylist()
    assert "codec" in row["error_message"]
    assert "memory" not in row["error_message"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_video_cut_in_half_keeps_what_could_be_read_and_says_so(
    name: str, portrait: Any, tmp_path: Path, look: Callable[..., list[Row]]
) -> None:
    path = film(tmp_path / name, [np.roll(portrait, k, axis=1) for k in range(60)],
                **({"movflags": "faststart"} if name == "a.mp4" else {}))  # fmt: skip
    whole = look(path)
    assert len(whole) == 12
    assert all("error_code" not in row for row in whole)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rows = look(path)
    assert rows[-1]["error_code"] == "video_corrupt"
    assert " of 6" in rows[-1]["error_message"]
    assert str(tmp_path) not in rows[-1]["error_message"]
    assert [row["frame_index"] for row in rows[:-1] if row.get("face_index", 0) == 0][:2] == [0, 5]
    assert all("p_male" in row for row in rows[:-1] if "face_index" in row)


def sampled(path: Path, frames_per_second: float) -> list[tuple[int, float]]:
    return [(index, seconds) for index, seconds, _ in sample_frames(str(path), frames_per_second)]


def test_an_edit_that_leaves_frames_out_is_no_damage_but_a_cut_is(
    portrait: Any, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mp4", [portrait] * 60, movflags="faststart")
    data = bytearray(path.read_bytes())
    edit = data.index(b"elst") + 12
    ticks = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">II", data, edit, 3000, 3 * ticks)  # the last three seconds of six
    path.write_bytes(data)
    assert sampled(path, 1.0) == [(0, 0.0), (10, 1.0), (20, 2.0)]
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(CorruptImageError, match="of 3 seconds could be read"):
        sampled(path, 1.0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_cut_is_noticed_where_times_do_not_begin_at_0(
    name: str, portrait: Any, tmp_path: Path
) -> None:
    """As of a piece of a longer recording: what comes before it is not read, and not missing."""
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = film(tmp_path / name, [portrait] * 60, start="60", **options)
    assert len(sampled(path, 1.0)) == 6
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorruptImageError, match="of 6 seconds could be read"):
        sampled(path, 1.0)


def test_fragments_from_the_middle_of_a_recording_are_no_damage(
    portrait: Any, tmp_path: Path
) -> None:
    """Of a live stream, say. FFmpeg takes the end of such a file for its duration."""
    path = film(
        tmp_path / "a.mp4",
        [portrait] * 60,
        movflags="frag_every_frame+empty_moov+default_base_moof",
    )
    data = path.read_bytes()
    fragments = [match.start() - 4 for match in re.finditer(b"moof", data)]
    path.write_bytes(data[: fragments[0]] + data[fragments[48] : data.index(b"mfra") - 4])
    assert len(sampled(path, 1.0)) == 2


def test_sound_that_goes_on_is_no_damage(portrait: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(portrait, format="rgb24")))
        container.mux(stream.encode())
        for second in range(12):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, second * 8000, Fraction(1, 8000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    assert len(sampled(path, 1.0)) == 2


def test_frames_that_stand_still_for_long_are_no_damage(portrait: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(portrait, format="rgb24")
            frame.pts, frame.time_base = number * 100, Fraction(1, 10)
            for packet in stream.encode(frame):
                packet.duration = 100
                container.mux(packet)
        for packet in stream.encode():
            packet.duration = 100
            container.mux(packet)
    assert [seconds for _, seconds in sampled(path, 1.0)] == [10.0 * k for k in range(8)]


def test_times_that_jump_back_do_not_end_the_sampling(portrait: Any, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mpg", [portrait] * 50)
    (tmp_path / "b.mpg").write_bytes(2 * path.read_bytes())
    once, twice = sampled(path, 2.0), sampled(tmp_path / "b.mpg", 2.0)
    assert len(once) == 4
    assert len(twice) == 8
    times = [seconds for _, seconds in twice]
    assert np.diff(times) == pytest.approx(0.5, abs=0.1)


def test_who_is_there_after_a_pause_is_another_track(
    portrait: Any, tmp_path: Path, look: Callable[..., list[Row]]
) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(portrait, format="rgb24")
            frame.pts = number + 36_000 * (number >= 10)
            frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    largest = [row for row in look(path) if row.get("face_index") == 0]
    assert [row["time_seconds"] for row in largest] == [0.0, 0.5, 3601.0, 3601.5]
    before, after = ({row["track_id"] for row in rows} for rows in (largest[:2], largest[2:]))
    assert len(before) == len(after) == 1
    assert before != after


def test_pixels_are_made_square(portrait: Any, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [portrait] * 3, pixel="3/2")
    (_, _, photo), *_ = sample_frames(str(path), 1.0)
    assert (photo.width_px, photo.height_px) == (384, 256)


TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    "as it is": ((1, 0, 0, 1), lambda rgb: rgb),
    "90 degrees clockwise": ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
    "180 degrees": ((-1, 0, 0, -1), lambda rgb: np.rot90(rgb, 2)),
    "270 degrees clockwise": ((0, -1, 1, 0), lambda rgb: np.rot90(rgb)),
    "left and right swapped": ((-1, 0, 0, 1), lambda rgb: rgb[:, ::-1]),
    "top and bottom swapped": ((1, 0, 0, -1), lambda rgb: rgb[::-1]),
    "x and y swapped": ((0, 1, 1, 0), lambda rgb: rgb.swapaxes(0, 1)),
    "x and y swapped, upside down": ((0, -1, -1, 0), lambda rgb: rgb[::-1, ::-1].swapaxes(0, 1)),
}
"""MP4's display matrix, a, b, c, d: the pixel at x, y is shown at ax + cy, bx + dy."""


@pytest.mark.parametrize("pixel", ["1", "3/2"])
@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_turned_and_mirrored_as_they_are_shown(
    turn: str, pixel: str, portrait: Any, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mp4", [portrait], pixel=pixel)
    (_, _, stored), *_ = sample_frames(str(path), 1.0)
    (a, b, c, d), shown = TURNS[turn]
    data = bytearray(path.read_bytes())
    matrix = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, *matrix)
    path.write_bytes(data)
    (_, _, photo), *_ = sample_frames(str(path), 1.0)
    assert np.array_equal(photo.rgb, shown(stored.rgb))


def test_frames_that_carry_what_pyav_has_no_name_for_are_read(tmp_path: Path) -> None:
    """Motion JPEG with EXIF, which some cameras write: newer FFmpegs hand it on with the frame."""
    jpeg, exif = io.BytesIO(), Image.Exif()
    exif[0x010F] = "a camera"
    Image.new("RGB", (96, 64), "red").save(jpeg, "jpeg", exif=exif)
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        packet = av.Packet(jpeg.getvalue())
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        packet.time_base = Fraction(1, 10)
        container.mux(packet)
    assert len(sampled(path, 1.0)) == 1


def test_noise_in_the_middle_and_noise_alone_are_rows(
    portrait: Any, tmp_path: Path, look: Callable[..., list[Row]]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    path = film(tmp_path / "a.mp4", [np.roll(portrait, k, axis=1) for k in range(60)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(noise)] = noise
    path.write_bytes(data)
    rows = look(path)
    assert rows[0]["frame_index"] == 0
    assert [row.get("error_code") for row in rows].count("video_corrupt") == 1
    path.write_bytes(noise)
    (row,) = look(path)
    assert row["error_code"] == "video_corrupt"
    path.write_bytes(b"")
    (row,) = look(path)
    assert row["error_code"] == "video_corrupt"
    path.unlink()
    (row,) = look(path)
    assert row["error_code"] == "image_not_found"


def test_answers_are_the_mean_over_the_track(
    portrait: Any, tmp_path: Path, analyzer: Analyzer, look: Callable[..., list[Row]]
) -> None:
    """The light fades, so that each frame has its own answer."""
    faded = [(portrait * (1 - 0.012 * k)).astype(np.uint8) for k in range(60)]
    path = film(tmp_path / "a.mp4", faded)
    rows = look(path, 1.0)
    mine = [row for row in rows if row.get("track_id") == 0]
    assert len(mine) == 6
    each = [analyzer.analyze(photo)[0] for _, _, photo in sample_frames(str(path), 1.0)]
    women = [prediction.vector[13] for prediction in each]
    ages = [float(prediction.age_years or 0) for prediction in each]
    assert max(ages) - min(ages) > 0.5
    assert np.ptp(women) > 0.0001
    for row in mine:
        assert row["p_female"] == pytest.approx(np.mean(women), abs=1e-5)
        assert row["age_years"] == pytest.approx(np.mean(ages), abs=1e-3)
        decades = [row[f"p_age_{10 * k + 1}_{10 * k + 10}"] for k in range(12)]
        assert decades == pytest.approx(np.mean([p.vector[:12] for p in each], axis=0), abs=1e-5)


def test_rows_leave_when_their_track_has_ended(
    portrait: Any, tmp_path: Path, analyzer: Analyzer
) -> None:
    """Memory is bounded by the longest track, not by the video: rows come before its end."""
    wall = np.full_like(portrait, 90)
    path = film(tmp_path / "a.mp4", [portrait] * 10 + [wall] * 90)
    read: list[float] = []
    first = next(video_rows(Item("a.mp4", VIDEO, str(path)), _Counting(analyzer, read), 2.0))  # type: ignore[arg-type]
    assert first["frame_index"] == 0
    assert first["age_years"] > 0
    assert len(read) == 5  # two with the face, three with the wall


class _Counting:
    """An analyzer that notes each frame it is given."""

    def __init__(self, analyzer: Analyzer, seen: list[float]) -> None:
        self._analyzer, self._seen = analyzer, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._analyzer, name)

    def analyze(self, photo: Any) -> Any:
        self._seen.append(float(photo.rgb.mean()))
        return self._analyzer.analyze(photo)


def test_rows_of_a_long_video_are_packed_as_they_come(
    portrait: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facewise.batch.work.ROWS_HELD", 4)
    path = film(tmp_path / "a.mp4", [np.full_like(portrait, 90)] * 10)
    worker = Annotator(Job(attributes=("age",), frames_per_second=10.0))
    result = worker(Task(0, 0, (Item("a.mp4", VIDEO, str(path)),)))
    assert len(result.batches) == 3
    assert result.images == 1
