"""Video to rows: one per face and sampled frame, with answers averaged over the face's track."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facewise.batch import storage
from facewise.batch.job import Item
from facewise.batch.rows import (
    Row,
    answer_columns,
    error_row,
    face_columns,
    model_columns,
    problem_row,
)
from facewise.batch.tracks import Tracker
from facewise.errors import CorruptImageError, ImageError, UnsupportedFormatError, needs_extra
from facewise.labels import by_attribute
from facewise.predictions import make_predictions
from facewise.types import Photo, Prediction

if TYPE_CHECKING:
    from facewise.analyzer import Analyzer

WHOLE = 0.9
"""Share of the stated frames or seconds from which a video counts as complete. FFmpeg takes the end
of a truncated file for the end of the video; not 1, because edits drop a few frames."""

WIDEST_PIXEL: Final = 4.0
"""Largest plausible pixel aspect ratio, in either direction; more extreme ones are ignored."""


@dataclass(slots=True)
class _Mean:
    """Running sums of one track."""

    ages: Any = field(default_factory=lambda: np.zeros(120))
    vector: Any = field(default_factory=lambda: np.zeros(19))
    faces: int = 0
    largest: Prediction | None = None
    ended: bool = False
    answer: Row | None = None

    def add(self, prediction: Prediction) -> None:
        if prediction.age is not None:
            self.ages += prediction.age.probabilities
        self.vector += np.nan_to_num(prediction.vector)
        self.faces += 1
        if self.largest is None or _eyes_px(prediction) > _eyes_px(self.largest):
            self.largest = prediction


def video_rows(item: Item, analyzer: Analyzer, frames_per_second: float) -> Iterator[Row]:
    """Rows of one video, frame by frame; damage ends them with a row that reports it.

    A face's row waits until its track has ended, since its answers are the track's. So the rows
    since the start of the oldest live track are held in memory.

    Args:
        item: the video.
        analyzer: with the attributes wanted for video.
        frames_per_second: sampling rate; all frames are used if the video has fewer.
    """
    model = analyzer.spec.info
    tracker = Tracker(1 / frames_per_second)
    means: dict[int, _Mean] = {}
    waiting: deque[tuple[Row, _Mean | None]] = deque()
    problem: Row | None = None
    frames = 0
    try:
        for index, seconds, photo in sample_frames(item.path, frames_per_second):
            frames += 1
            found = analyzer.analyze(photo)
            about: Row = {
                "image_id": f"{item.image_id}::{index}",
                "width_px": photo.width_px,
                "height_px": photo.height_px,
                "frame_index": index,
                "time_seconds": seconds,
                **model_columns(model),
            }
            tracks = tracker.update([prediction.face.bbox for prediction in found], seconds)
            if not found:
                waiting.append((about, None))
            for number, (track, prediction) in enumerate(zip(tracks, found, strict=True)):
                mean = means.setdefault(track, _Mean())
                mean.add(prediction)
                face = {"face_index": number, "track_id": track, **face_columns(prediction)}
                waiting.append((about | face, mean))
            for track in means.keys() - tracker.live:
                means.pop(track).ended = True
            while waiting and (waiting[0][1] is None or waiting[0][1].ended):
                yield _answered(*waiting.popleft(), analyzer)
        if not frames:
            raise CorruptImageError("the video has no frame: is it whole?")
    except _ffmpeg_errors() as error:
        reason = f"the video is damaged or of an unknown codec ({error}): copy or export it again"
        problem = problem_row(item.image_id, "video_corrupt", _without(reason, item), model)
    except CorruptImageError as error:
        problem = problem_row(item.image_id, "video_corrupt", str(error), model)
    except Exception as error:  # any failure concerns this video only
        problem = error_row(item, error, model)
    for row, mean_of in waiting:
        yield _answered(row, mean_of, analyzer)
    if problem is not None:
        yield problem


def sample_frames(
    path: str, frames_per_second: float
) -> Generator[tuple[int, float, Photo], None, None]:
    """Sample upright frames with square pixels.

    Takes the first frame at or after each multiple of ``1 / frames_per_second``. Where times jump
    back, as in joined recordings, they continue from the previous frame.

    Yields:
        The frame's number in the video, its time in seconds since the first, and the picture.

    Raises:
        MissingExtraError: PyAV is not installed.
        ImageNotFoundError: the file is gone or cannot be read.
        UnsupportedFormatError: PyAV does not know the codec.
        CorruptImageError: after the last frame, if the file states that there are more.
        ImageError: the file has no video stream.
    """
    with needs_extra("video", "video"):
        import av
    storage.read_range(path, 1)  # raises a clear error if it cannot be read
    with ExitStack() as stack:
        source = stack.enter_context(storage.open_binary(path)) if storage.is_url(path) else path
        container = stack.enter_context(av.open(source))
        if not container.streams.video:
            raise ImageError("the video has only sound")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnsupportedFormatError(
                "the video's codec is unknown to PyAV: export it again, for example as H.264"
            )
        stream.codec_context.thread_count = 1  # one core per worker
        read = _Read()
        start: float | None = None
        following = 0
        seconds = 0.0
        for index, frame in enumerate(_decode(container, stream, read)):
            time = _time(frame, index, stream)
            start = time if start is None else start
            if time - start < seconds:
                start = time - seconds - 1 / float(stream.average_rate or 25)
            seconds = time - start
            if seconds * frames_per_second + 1e-6 < following:
                continue
            following = math.floor(seconds * frames_per_second + 1e-6) + 1
            yield index, round(seconds, 6), Photo(_upright(frame, stream))
        if read.frames:
            _check_whole(container, stream, read)


@dataclass(slots=True)
class _Read:
    """What was read of a video: packets, packets to be shown, frames, and from when to when."""

    packets: int = 0
    shown: int = 0
    frames: int = 0
    start: float = 0.0  # seconds; a piece of a longer recording may keep its times
    last: float = 0.0
    end: float = 0.0

    def add(self, packet: Any) -> None:
        time = packet.dts if packet.pts is None else packet.pts
        if time is None:  # the flush packet, which requests the last frames
            return
        seconds = float(time * packet.time_base)
        if not self.packets:  # edits skip what is before 0
            self.start = self.last = max(seconds, 0.0)
        self.packets += 1
        self.shown += not packet.is_discard
        still = max(float((packet.duration or 0) * packet.time_base), seconds - self.last)
        self.end = max(self.end, seconds + (still or 1.0))
        self.last = max(self.last, seconds)


def _decode(container: Any, stream: Any, read: _Read) -> Iterator[Any]:
    for packet in container.demux(stream):
        read.add(packet)
        for frame in packet.decode():
            read.frames += 1
            yield frame


def _check_whole(container: Any, stream: Any, read: _Read) -> None:
    """Compare what was read with what the video stream states; a file's length may be its sound's.

    MP4's frame count includes frames that its edits skip, but its duration does not. Other formats
    are checked by their frame count if they state one, else by Matroska's duration tag, if any.
    That tag, and the duration of an MP4 in fragments, which counts no frames, are the time of the
    end, wherever times begin.
    """
    length = read.end - read.start
    found: tuple[float, float, str]
    if "mp4" in container.format.name and stream.duration:
        duration = float(stream.duration * stream.time_base)
        found = length, duration - (0.0 if stream.frames else read.start), "seconds"
    elif stream.frames:
        found = read.packets, stream.frames, "frames"
    else:
        found = length, _seconds(stream.metadata.get("DURATION", "")) - read.start, "seconds"
    if stream.frames and found[0] >= WHOLE * found[1]:
        found = read.frames, read.shown, "frames"  # corrupt data may stop the decoder
    if found[0] < WHOLE * found[1]:
        raise CorruptImageError(
            "the video is damaged or was cut: {:.0f} of {:.0f} {} could be read; "
            "copy it again".format(*found)
        )


def _seconds(text: str) -> float:
    """Parse seconds from ``01:02:03.4``; anything else gives 0."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    if match is None:
        return 0.0
    hours, minutes, seconds = map(float, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _time(frame: Any, index: int, stream: Any) -> float:
    if frame.time is not None:
        return float(frame.time)
    return index / float(stream.average_rate or 25)


def _upright(frame: Any, stream: Any) -> Any:
    """The frame as uint8 ``(H, W, 3)``, RGB, turned and mirrored as its display matrix says.

    DV and DVD have non-square pixels: the picture is resized to the width at which it is shown.
    """
    shape = float(stream.sample_aspect_ratio or 1)
    if shape != 1 and 1 / WIDEST_PIXEL <= shape <= WIDEST_PIXEL:
        frame = frame.reformat(width=max(round(frame.width * shape), 1), format="rgb24")
    rgb = frame.to_ndarray(format="rgb24")
    if _is_mirrored(frame):  # first top to bottom; the rotation is that of the x axis
        rgb = rgb[::-1]
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


def _is_mirrored(frame: Any) -> bool:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # the frame also has data of a type that is too new for PyAV
        return False
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return bool(a * d < b * c)


def _answered(row: Row, mean: _Mean | None, analyzer: Analyzer) -> Row:
    """A row with its track's answers; all faces of the track must have been added."""
    if mean is None:
        return row
    if mean.answer is None:
        mean.answer = _answer(mean, analyzer)
    return row | mean.answer


def _answer(mean: _Mean, analyzer: Analyzer) -> Row:
    """The answers of a track: mean probabilities and everything derived from them."""
    assert mean.largest is not None
    ages, vectors = (
        (total / mean.faces).astype(np.float32)[None] for total in (mean.ages, mean.vector)
    )
    p = by_attribute(ages, vectors)
    (answer,) = make_predictions(
        [mean.largest.face],
        {name: p[name] for name in analyzer.attributes},
        calibration=analyzer.calibration,
        coverage=analyzer.coverage,
        model=analyzer.spec.info,
    )
    return answer_columns(answer)


def _eyes_px(prediction: Prediction) -> float:
    quality = prediction.face.quality
    return quality.eye_distance_px if quality is not None else 0.0


def _ffmpeg_errors() -> tuple[type[Exception], ...]:
    try:
        import av
    except ImportError:
        return ()
    return (av.FFmpegError,)


def _without(text: str, item: Item) -> str:
    """Replace the path quoted in FFmpeg's messages, which is specific to this machine."""
    return text.replace(item.path, item.image_id)
