"""Video to rows: damage, unknown codecs, averages over tracks, and how many rows wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

av = pytest.importorskip("av")

AGE = Job(attributes=("age",), frames_per_second=2.0)


@pytest.fixture(scope="module")
def portrait(pictures: Path) -> Any:
    with Image.open(pictures / "astronaut.jpg") as image:
        return np.asarray(image.convert("RGB").resize((256, 256)))


def film(path: Path, frames: Iterable[Any], **options: str) -> Path:
    """Ten frames a second."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
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
    assert [row.get("error_code") for row in look(path)].count(None) == 12
    assert all("error_code" not in row for row in look(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rows = look(path)
    assert rows[-1]["error_code"] == "video_corrupt"
    assert " of 6" in rows[-1]["error_message"]
    assert str(tmp_path) not in rows[-1]["error_message"]
    assert [row["frame_index"] for row in rows[:-1] if row.get("face_index", 0) == 0][:2] == [0, 5]
    assert all("p_male" in row for row in rows[:-1] if "face_index" in row)


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
    """The light fades, so that each frame has an answer of its own."""
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
    """An analyzer that notes each frame that it is shown."""

    def __init__(self, analyzer: Analyzer, seen: list[float]) -> None:
        self._analyzer, self._seen = analyzer, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._analyzer, name)

    def analyze(self, photo: Any) -> Any:
        self._seen.append(float(photo.rgb.mean()))
        return self._analyzer.analyze(photo)


def test_rows_of_a_long_video_are_packed_as_they_come(portrait: Any, tmp_path: Path) -> None:
    wall = np.full_like(portrait, 90)
    path = film(tmp_path / "a.mp4", [wall] * 1100)
    worker = Annotator(Job(attributes=("age",), frames_per_second=10.0))
    result = worker(Task(0, 0, (Item("a.mp4", VIDEO, str(path)),)))
    assert len(result.batches) == 3
    assert result.images == 1
