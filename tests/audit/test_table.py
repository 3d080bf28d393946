"""Made-up tables: what is counted, what is kept, and how much memory that takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from facewise.audit.audit import audit_faces
from facewise.audit.notes import notes_on
from facewise.audit.report import make_report
from facewise.audit.table import COLUMNS, read_faces
from facewise.batch.schema import arrow_schema
from facewise.errors import TableError
from facewise.labels import LABELS
from facewise.reporting.confusions import Confusions

GROUP = 18_000  # a multiple of the cycle of 6 below, and more than a batch

SAID = pa.array([["age"], [], [], [], None, None], pa.list_(pa.string()))


def part(rows: int, seed: int, *, ethnicity: bool = True) -> pa.Table:
    """In turn, pictures with three faces, one, none, and an error; probabilities are random."""
    schema = arrow_schema()
    rng = np.random.default_rng(seed)
    turn = np.arange(rows) % 6
    face = turn < 4
    index = pa.array(np.where(turn < 3, turn, 0).astype(np.int32), mask=~face)
    names = np.char.add(
        f"s3://bucket/{seed}/", (np.arange(rows) // 6 * 6 + turn.clip(2)).astype(str)
    )
    columns: dict[str, Any] = {
        "image_id": pa.array(names),
        "face_index": index,
        "error_code": pa.array(np.full(rows, "image_corrupt"), mask=turn != 5),
        "abstained": SAID.take(pa.array(turn)),
        "model": pa.array(["made-up@1"] * rows),
        "model_sha256": pa.array(["0" * 64] * rows),
    }
    for name, parts in COLUMNS.items():
        p = rng.dirichlet(np.full(len(parts), 0.3), rows).astype(np.float32)
        absent = ~face | (name == "ethnicity" and not ethnicity)
        columns |= {c: pa.array(p[:, k], mask=absent) for k, c in enumerate(parts)}
    arrays = [columns.get(f.name, pa.nulls(rows, f.type)).cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def write(folder: Path, rows: int, **options: Any) -> Path:
    folder.mkdir()
    for number, start in enumerate(range(0, rows, GROUP)):
        table = part(min(GROUP, rows - start), number, **options)
        pq.write_table(table, folder / f"part-{number:08d}.parquet", compression="none")
    return folder


@contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """Yield a list that receives the sum of Arrow's and NumPy's peak memory."""
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    out: list[int] = []
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        yield out
        out.append(pool.max_memory() + tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def test_rows_are_counted_as_they_are(tmp_path: Path) -> None:
    table = write(tmp_path / "t", 6_000)
    faces = read_faces(table)
    assert faces.images == 4_000
    assert faces.faces == len(faces.pictures) == 4_000
    assert faces.without_face == 1_000
    assert faces.errors == {"image_corrupt": 1_000}
    assert faces.abstained == {"age": 1_000, "gender": 0, "ethnicity": 0}
    assert len(np.unique(faces.pictures)) == 2_000
    assert (faces.pictures[:3] == faces.pictures[0]).all()
    rows = pq.read_table(table, filters=[("face_index", ">=", 0)])
    p = np.stack([rows[c].to_numpy() for c in COLUMNS["ethnicity"]], axis=1)
    assert faces.probabilities["ethnicity"] == pytest.approx(p)
    assert (faces.count(["ethnicity"]) == np.bincount(p.argmax(1), minlength=5)).all()
    assert faces.count(["age", "gender"]).shape == (12, 2)
    assert faces.count(["age", "gender"]).sum() == 4_000


def test_images_are_counted_where_their_first_faces_were_filtered_out(tmp_path: Path) -> None:
    """An SQL filter may do so; also where a batch ends between a picture's faces."""
    rows = part(6 * 5_000, 0)
    kept = rows.filter(pc.field("face_index") > 0)
    assert len(kept) == 10_000
    (tmp_path / "t").mkdir()
    pq.write_table(kept.slice(0, 4_999), tmp_path / "t" / "part-00000000.parquet")
    pq.write_table(kept.slice(4_999), tmp_path / "t" / "part-00000001.parquet")
    faces = read_faces(tmp_path / "t")
    assert (faces.images, faces.faces, len(np.unique(faces.pictures))) == (5_000, 10_000, 5_000)
    pq.write_table(rows, tmp_path / "whole.parquet")
    assert read_faces(tmp_path / "whole.parquet").images == 20_000
    pq.write_table(kept.slice(0, 0), tmp_path / "none.parquet")
    assert read_faces(tmp_path / "none.parquet").images == 0


@pytest.mark.parametrize("lists", [pa.list_, pa.large_list])
def test_texts_may_be_views_as_other_engines_write_them(
    lists: Callable[[pa.DataType], pa.DataType], tmp_path: Path
) -> None:
    rows, path = part(60, 0), tmp_path / "t.parquet"
    pq.write_table(rows, path)
    plain, _ = audit_faces(read_faces(path), {}, crossings=False)
    view = pa.string_view()
    views = {pa.string(): view, pa.list_(pa.string()): lists(view)}
    schema = pa.schema([(field.name, views.get(field.type, field.type)) for field in rows.schema])
    try:
        pq.write_table(rows.cast(schema), path)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"this pyarrow is too old to write views: {error}")
    assert pq.read_schema(path).field("model").type == view
    assert audit_faces(read_faces(path), {}, crossings=False)[0] == plain


def test_rows_of_a_picture_or_video_that_are_apart_are_refused(tmp_path: Path) -> None:
    """As SQL leaves them; also where they are in different batches."""
    rows, path = part(6 * 5_000, 0), tmp_path / "t.parquet"
    for apart in (rows.sort_by("p_male"), pa.concat_tables([rows.slice(1), rows.slice(0, 1)])):
        pq.write_table(apart, path)
        with pytest.raises(TableError, match="not together: write it with ORDER BY image_id"):
            read_faces(path)
    pq.write_table(apart.sort_by([("image_id", "ascending"), ("face_index", "ascending")]), path)
    assert read_faces(path).images == read_faces(write(tmp_path / "t", len(rows))).images
    rows = pq.read_table(videos(path, [0, 1], 2))
    pq.write_table(pa.concat_tables([rows.slice(1), rows.slice(0, 1)]), path)
    with pytest.raises(TableError, match="rows of one picture are not together"):
        read_faces(path)


def test_names_that_are_in_several_tables_are_counted(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", 600), tmp_path / "two.parquet"
    pq.write_table(pa.concat_tables([part(60, 0), part(60, 1)]), two)
    figures, _ = audit_faces(read_faces(one, two), {}, crossings=False)
    assert figures["images_named_again"] == 40
    (note,) = (note for note in notes_on(figures) if "more than one table" in note)
    assert note.startswith("40 image_ids are in more than one table: if these are the same")
    three = tmp_path / "three.parquet"  # a name counts once, in however many tables it is
    pq.write_table(part(60, 0), three)
    assert read_faces(one, two, three).shared == 40
    assert read_faces(two).shared == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["error_code"], r"lacks the columns error_code: name a table as"),
        (["abstained"], r"lacks the columns abstained: name a table as"),
        (["model", "model_sha256"], r"lacks the columns model, model_sha256: name a table as"),
        (["p_male"], r"lacks p_male: keep all columns of gender, or none"),
    ],
)
def test_columns_that_an_audit_needs_are_named(
    columns: list[str], message: str, tmp_path: Path
) -> None:
    pq.write_table(part(60, 0).drop_columns(columns), tmp_path / "part.parquet")
    with pytest.raises(TableError, match=message):
        read_faces(tmp_path / "part.parquet")


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    peaks, kept = [], []
    for name, rows in (("small", 2 * GROUP), ("large", 8 * GROUP)):
        table = write(tmp_path / name, rows)
        with peak_bytes() as peak:
            faces = read_faces(table, most_kept=5_000)
        peaks += peak
        kept.append(len(faces.pictures))
        assert faces.faces == faces.answers.sum() == rows * 4 // 6
    assert 5_000 <= min(kept) <= max(kept) <= 5_002, "the last picture may go over it"
    assert peaks[1] < 1.2 * peaks[0]


def test_a_sample_stands_for_all_and_counts_stay_whole(tmp_path: Path) -> None:
    table = write(tmp_path / "t", 30_000)
    whole, some = read_faces(table), read_faces(table, most_kept=2_000)
    assert (some.answers == whole.answers).all()
    assert (some.images, some.errors, some.abstained) == (
        whole.images, whole.errors, whole.abstained
    )  # fmt: skip
    # Pictures are kept whole: those with three faces stay three.
    sizes = np.bincount(np.unique(some.pictures, return_inverse=True)[1])
    assert set(sizes) == {1, 3}
    assert np.bincount(sizes)[3] / len(sizes) == pytest.approx(0.5, abs=0.06)
    means = [faces.probabilities["age"].mean(0) for faces in (some, whole)]
    assert np.abs(means[0] - means[1]).max() < 0.02


def test_faces_that_lack_an_attribute_are_left_out_of_it_alone(tmp_path: Path) -> None:
    table = write(tmp_path / "t", 3_000)
    more = part(3_000, 7, ethnicity=False)
    pq.write_table(more, table / "part-00000001.parquet")
    faces = read_faces(table)
    assert faces.count(["gender"]).sum() == 4_000
    assert faces.count(["ethnicity"]).sum() == 2_000
    assert len(faces.kept(["gender", "ethnicity"])[1]) == 2_000
    figures, _ = audit_faces(faces, {})
    assert sum(r["naive"]["share"] for r in figures["attributes"]["ethnicity"]) == pytest.approx(1)


def made_up(bias: float = 0.0) -> dict[str, Confusions]:
    """Confusions of every attribute; the bias raises the first half of the classes."""
    out = {}
    for name, labels in LABELS.items():
        k = len(labels)
        counts = np.eye(k) * 80 + 5
        offsets = np.where(np.arange(k) < k // 2, bias, 0)
        out[name] = Confusions(counts.sum(1), counts, offsets, np.eye(k) * 0.02)
    return out


@pytest.mark.parametrize("sources", [("a",), ("a", "b")])
def test_crossings_add_up_to_the_attributes_with_intervals(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    known = {source: made_up(bias) for source, bias in zip(sources, (0, 0.7), strict=False)}
    faces = read_faces(write(tmp_path / "t", 600))
    figures, shares = audit_faces(faces, known)
    cells = figures["crossings"]["gender x ethnicity"]
    women = [cell for cell in cells if cell["labels"][0] == "female"]
    total = shares["gender"]["corrected"].value[1]
    assert sum(cell["corrected"]["share"] for cell in women) == pytest.approx(total, abs=1e-6)
    for cell in cells:
        own = cell["corrected"]
        assert own["low"] <= own["share"] <= own["high"]
        assert own["low"] < own["high"]


def sure() -> dict[str, Confusions]:
    """Confusions of every attribute, for a model that takes no class for another."""
    out = {}
    for name, labels in LABELS.items():
        k = len(labels)
        out[name] = Confusions(np.full(k, 9e6), 9e6 * np.eye(k), np.zeros(k), np.zeros((k, k)))
    return out


@pytest.mark.parametrize("sources", [("a",), ("a", "b")])
def test_a_crossing_is_of_the_faces_that_have_its_attributes(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    """The 600 faces of known ethnicity are all young; the other 232 are all old."""
    turns = np.arange(830 // 4 * 6 + 6)
    young = turns // 6 < 150
    table = part(len(turns), 0)
    p = {name: np.eye(len(names))[np.zeros(len(turns), int)] for name, names in COLUMNS.items()}
    p["age"] = np.eye(12)[np.where(young, 2, 6)]
    p["gender"] = np.eye(2)[turns % 2]
    for name, names in COLUMNS.items():
        for k, column in enumerate(names):
            known = table["face_index"].is_valid().to_numpy()
            known &= young | (name != "ethnicity")
            values = pa.array(p[name][:, k].astype(np.float32), mask=~known)
            table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, tmp_path / "part.parquet")
    faces = read_faces(tmp_path / "part.parquet")
    figures, _ = audit_faces(faces, dict.fromkeys(sources, sure()))
    assert figures["crossings_of"] == {
        "age x gender": faces.faces,
        "age x ethnicity": 600,
        "gender x ethnicity": 600,
        "age x gender x ethnicity": 600,
    }
    page = make_report(figures | {"notes": []}, "t").html()
    of = f"Only the 600 of {faces.faces} faces that have all of these attributes."
    assert page.count(of) == 3
    old = figures["attributes"]["age"][6]["corrected"]["share"]
    assert old == pytest.approx((faces.faces - 600) / faces.faces, abs=1e-3)
    for name, cells in figures["crossings"].items():
        shares: dict[str, float] = {}
        for cell in cells:
            own = cell["corrected"]
            assert own["low"] <= cell["naive"]["share"] + 1e-3
            assert cell["naive"]["share"] - 1e-3 <= own["high"]
            age = cell["labels"][0]
            shares[age] = shares.get(age, 0.0) + own["share"]
        if name.startswith("age"):
            assert shares["61-70"] == pytest.approx(0 if "ethnicity" in name else old, abs=1e-3)


def test_intervals_hold_every_source_unless_one_is_named(tmp_path: Path) -> None:
    known = {"a": made_up(), "b": made_up(0.7)}
    faces = read_faces(write(tmp_path / "t", 600))
    both, _ = audit_faces(faces, known)
    named = {source: audit_faces(faces, known, source=source)[0] for source in known}
    assert both["confusions_from"] == ["a", "b"]
    assert both["correction"].count("a's or as on b's") == 1
    for source, figures in named.items():
        assert figures["confusions_from"] == [source]
        assert f"as on {source}'s" in figures["correction"]
    parts = [(f["attributes"], both["attributes"]) for f in named.values()]
    parts += [(f["crossings"], both["crossings"]) for f in named.values()]
    for own, hull in parts:
        for name, rows in hull.items():
            for row, other in zip(rows, own[name], strict=True):
                wide, narrow = row["corrected"], other["corrected"]
                assert wide["low"] <= narrow["low"] <= narrow["high"] <= wide["high"]
    for name, rows in both["attributes"].items():
        assert sum(row["corrected"]["share"] for row in rows) == pytest.approx(1)
        for source, figures in named.items():
            assert both["by_source"][source][name] == pytest.approx(
                {row["label"]: row["corrected"]["share"] for row in figures["attributes"][name]}
            )


def test_a_handful_of_faces_is_counted_and_not_corrected(tmp_path: Path) -> None:
    for rows, corrected in ((42, False), (48, True)):  # four of six rows have a face
        figures, shares = audit_faces(
            read_faces(write(tmp_path / str(rows), rows)), {"a": made_up(), "b": made_up(0.7)}
        )
        assert (figures["faces"] >= 30) == corrected
        for name in LABELS:
            assert ("corrected" in shares[name]) == corrected
            assert (name in figures["too_few_to_correct"]) != corrected
        assert bool(figures["confusions_from"]) == bool(figures["correction"]) == corrected
        assert ("corrected" in figures["crossings"]["age x gender"][0]) == corrected


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_track_on_video_counts_once(kind: pa.DataType, tmp_path: Path) -> None:
    """Two videos whose tracks come and go, the second across a batch's end; and photos.

    Names may be pandas categories, as in a part that pandas wrote.
    """
    rows = 2 * GROUP
    table = part(rows, 3)
    face = table["face_index"].is_valid().to_numpy()
    video = np.where(np.arange(rows) < 1_000, "a.mp4", "b.mp4")
    frames = (np.arange(rows) // 6 * 6 + (np.arange(rows) % 6).clip(2)).astype(str)
    photo = np.arange(rows) >= rows - 600
    names = np.char.add(np.where(photo, "c/", np.char.add(video, "::")), frames)
    tracks = pa.array(np.arange(rows) // 6 % 50, pa.int32(), mask=~face | photo)
    for name, column in (("image_id", pa.array(names).cast(kind)), ("track_id", tracks)):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    (tmp_path / "t").mkdir()
    pq.write_table(table, tmp_path / "t" / "part-00000000.parquet")
    faces = read_faces(tmp_path / "t")
    assert (faces.tracks, faces.track_rows) == (100, (rows - 600) * 4 // 6)
    assert faces.faces == faces.answers.sum() == len(faces.pictures) == 100 + 400
    assert faces.images == rows * 4 // 6, "frames are images"
    assert faces.videos == 2
    assert len(np.unique(faces.pictures)) == 2 + 200, "a video is drawn as one picture"
    assert faces.abstained["age"] <= 500


def genders(
    path: Path, faces: int, *, copies: int = 0, digits: int | None = None
) -> dict[str, Any]:
    """Audit a table of one-face pictures and copies of the first of them; return the figures."""
    p_male = np.random.default_rng(0).random(faces).astype(np.float32)
    p_male = np.concatenate([p_male, p_male[:copies]])
    if digits is not None:
        p_male = p_male.round(digits)
    rows = {
        "image_id": [f"{number}.jpg" for number in range(len(p_male))],
        "face_index": np.zeros(len(p_male), np.int32),
        "error_code": pa.nulls(len(p_male), pa.string()),
        "abstained": pa.array([[]] * len(p_male), pa.list_(pa.string())),
        "model": ["made-up@1"] * len(p_male),
        "model_sha256": ["0" * 64] * len(p_male),
        "p_male": p_male,
        "p_female": 1 - p_male,
    }
    pq.write_table(pa.table(rows), path)
    figures, _ = audit_faces(read_faces(path), {}, crossings=False)
    return figures


def test_a_note_says_that_many_pictures_count_as_copies(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def told(figures: dict[str, Any]) -> list[str]:
        return [note for note in notes_on(figures) if "copies" in note]

    rounded = genders(path, 1000, digits=1)
    assert rounded["their_pictures"] == {"n": 1000, "distinct": 11}
    (note,) = told(rounded)
    assert note.startswith("989 of 1,000 pictures have the very same probabilities as others")
    assert "there more than once, and shares count each of them (facewise dedupe finds" in note
    assert note.endswith("or probabilities were rounded")
    (second,) = told({**genders(path, 1000), "second": rounded})
    assert second == f"second table: {note}"
    for faces, copies, notes in ((20, 9, 0), (20, 10, 1), (180, 20, 0), (180, 21, 1)):
        figures = genders(path, faces, copies=copies)
        assert figures["their_pictures"] == {"n": faces + copies, "distinct": faces}
        assert len(told(figures)) == notes


@pytest.mark.parametrize("times", [2, 10])
def test_copies_are_in_a_sample_together_or_not_at_all(times: int, tmp_path: Path) -> None:
    """Else a sample has few copies, and says more than the table can."""
    path, distinct = tmp_path / "t.parquet", 8_000 // times
    genders(path, distinct, copies=0)
    once = pq.read_table(path)
    copies = [pa.array([f"{time}/{n}.jpg" for n in range(distinct)]) for time in range(times)]
    pq.write_table(pa.concat_tables([once.set_column(0, "image_id", ids) for ids in copies]), path)
    widths = []
    for most_kept in (8_000, 1_000):
        faces = read_faces(path, most_kept=most_kept)
        figures, shares = audit_faces(faces, {}, crossings=False)
        assert most_kept <= len(faces.pictures) < most_kept + times
        assert len(np.unique(faces.pictures)) == most_kept // times
        assert any("copies" in note for note in notes_on(figures | {"confusions_from": []}))
        widths.append(np.diff(shares["gender"]["naive"].interval()[0])[0])
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def videos(path: Path, men: list[int], tracks: int) -> Path:
    """Write a table of videos, each with ``tracks`` tracks of one person, each on two frames.

    Tracks differ in age and ethnicity, or they would count as copies of one.
    """
    rows = len(men) * tracks * 2
    table = part(rows * 6 // 4, 0).filter(pc.field("face_index").is_valid())
    video = np.arange(rows) // (tracks * 2)
    names = [f"{v}.mp4::{frame}" for frame, v in enumerate(video)]
    p_male = np.array(men, np.float32)[video]
    columns = {
        "image_id": names,
        "face_index": np.zeros(rows),
        "track_id": np.arange(rows) // 2 % tracks,
        "p_male": p_male,
        "p_female": 1 - p_male,
    }
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(column).cast(table.schema.field(name).type))
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("known", [{}, {"a": sure()}])
def test_a_video_is_one_observation_however_many_tracks_it_has(
    tmp_path: Path, known: dict[str, dict[str, Confusions]]
) -> None:
    """One woman: Wilson's ends for 0 of 1. 6 men of 10: Wilson's ends, or those of draws of ten."""
    for men, share, low, high in (
        ([0], 0, 0, 0.7935),
        ([1] * 6 + [0] * 4, 0.6, 0.3, 0.865),
    ):
        faces = read_faces(videos(tmp_path / f"{len(men)}.parquet", men, 50))
        assert (faces.tracks, faces.videos) == (50 * len(men), len(men))
        figures, shares = audit_faces(faces, known)
        assert shares["gender"]["naive"].parts[""].pictures == len(men)
        for what in ("without_face", "errors"):  # no interval that takes tracks for independent
            assert figures[what].keys() == figures["abstained"]["age"].keys() == {"n", "share"}
        for kind in shares["gender"]:
            male = figures["attributes"]["gender"][0][kind]
            assert male["share"] == pytest.approx(share, abs=0.02)
            assert (male["low"], male["high"]) == pytest.approx((low, high), abs=0.04)
        assert ("corrected" in shares["gender"]) == bool(known)


def test_videos_are_drawn_anew_as_pictures_are(tmp_path: Path) -> None:
    """With fifty people, thirty of them men, shares are off by the root of 0.6 * 0.4 / 50."""
    faces = read_faces(videos(tmp_path / "t.parquet", [1] * 30 + [0] * 20, 40))
    for kind in audit_faces(faces, {"a": sure()}, crossings=False)[1]["gender"].values():
        (shares,) = kind.parts.values()
        assert shares.drawn[:, 0].std() == pytest.approx(np.sqrt(0.6 * 0.4 / 50), rel=0.2)


def test_a_video_of_more_tracks_than_are_kept_is_kept(tmp_path: Path) -> None:
    faces = read_faces(videos(tmp_path / "t.parquet", [0], 6_000), most_kept=500)
    assert (faces.faces, len(faces.pictures)) == (6_000, 6_000)
    faces = read_faces(videos(tmp_path / "t.parquet", [0, 1] * 10, 600), most_kept=1_000)
    assert (faces.faces, len(faces.pictures)) == (12_000, 1_200), "whole videos"


def videos_and_photos(path: Path, men: list[int], tracks: int, photos: int) -> Path:
    """Write a table of videos without ethnicity, and of photos of one woman each with it."""
    rows = pq.read_table(videos(path, men, tracks))
    for column in COLUMNS["ethnicity"]:
        place = rows.schema.get_field_index(column)
        rows = rows.set_column(place, column, pa.nulls(len(rows), pa.float32()))
    more = part(photos * 2, 1).filter(pc.field("face_index").is_valid()).slice(0, photos)
    columns: dict[str, Any] = {
        "image_id": [f"{number}.jpg" for number in range(photos)],
        "p_male": np.zeros(photos, np.float32),
        "p_female": np.ones(photos, np.float32),
    }
    for name, column in columns.items():
        more = more.set_column(more.schema.get_field_index(name), name, pa.array(column))
    pq.write_table(pa.concat_tables([rows, more]), path)
    return path


@pytest.mark.parametrize("method", ["em", "adjusted"])
@pytest.mark.parametrize("longest", [900, 20])
def test_corrected_shares_of_a_sample_are_brought_to_the_counts_of_all(
    tmp_path: Path, method: str, longest: int
) -> None:
    """Whether the one video with all the men is in the sample or not, and whichever its size."""
    path = videos_and_photos(tmp_path / "t.parquet", [1], longest, 1_000)
    for most_kept in (40, 600, 1_000):
        faces = read_faces(path, most_kept=most_kept)
        assert len(faces.pictures) < faces.faces
        _, shares = audit_faces(faces, {"a": sure()}, method=method, crossings=False)
        for kind, own in shares["gender"].items():
            assert own.value[0] == pytest.approx(longest / (1_000 + longest), abs=1e-4), kind


def test_an_attribute_that_few_sampled_faces_have_is_counted_and_said_so(tmp_path: Path) -> None:
    known = {"a": sure()}
    path = videos_and_photos(tmp_path / "t.parquet", [0, 1] * 50, 30, 40)
    faces = read_faces(path, most_kept=1_000)
    assert 0 < len(faces.kept(["ethnicity"])[1]) < 30 <= faces.count(["ethnicity"]).sum()
    figures, shares = audit_faces(faces, known, crossings=False)
    assert figures["too_few_to_correct"] == ["ethnicity"]
    sampled = f"the sample of {len(faces.pictures):,}"
    few = f"ethnicity: counted but not corrected (under 30 faces in {sampled})"
    assert few in notes_on(figures)
    _, whole = audit_faces(read_faces(path), known, crossings=False)
    width, of_all = (
        np.diff(each["ethnicity"]["naive"].interval()).ravel() for each in (shares, whole)
    )
    assert (width > 0.8 * of_all).all()


def test_an_attribute_that_no_sampled_face_has_is_counted(tmp_path: Path) -> None:
    path = videos_and_photos(tmp_path / "t.parquet", [0, 1] * 20, 300, 3)
    faces = read_faces(path, most_kept=1_000)
    assert len(faces.kept(["ethnicity"])[1]) == 0
    figures, _ = audit_faces(faces, {"a": sure()})
    rows = figures["attributes"]["ethnicity"]
    assert [row["naive"]["count"] for row in rows] == faces.count(["ethnicity"]).tolist()
    assert all(row["naive"]["low"] < 0.1 and row["naive"]["high"] > 0.79 for row in rows)
    assert figures["too_few_to_correct"] == ["ethnicity"]
    assert sum(row["naive"]["count"] for row in figures["crossings"]["gender x ethnicity"]) == 3


@pytest.mark.parametrize("method", ["em", "adjusted"])
def test_other_calibration_faces_are_compared_by_the_same_method(
    tmp_path: Path, method: str
) -> None:
    known = {}
    for name, labels in LABELS.items():
        k = len(labels)
        counts = np.eye(k) * 80 + np.arange(k)
        known[name] = Confusions(counts.sum(1), counts, np.linspace(0, 1, k), np.zeros((k, k)))
    faces = read_faces(write(tmp_path / "t", 600))
    figures, _ = audit_faces(
        faces, {"a": known, "b": known}, source="a", method=method, crossings=False
    )
    for name, values in figures["by_source"]["b"].items():
        own = {r["label"]: r["corrected"]["share"] for r in figures["attributes"][name]}
        assert values == pytest.approx(own)


def test_rows_of_two_models_are_refused(tmp_path: Path) -> None:
    table = write(tmp_path / "t", 60)
    pq.write_table(made_by(part(60, 1), "another@1", "1"), table / "part-00000001.parquet")
    with pytest.raises(TableError, match=r"another@1, made-up@1"):
        read_faces(table)


def made_by(rows: pa.Table, model: str, weights: str) -> pa.Table:
    for name, value in (("model", model), ("model_sha256", weights * 64)):
        column = pa.array([value] * len(rows))
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def test_several_tables_are_read_as_one(tmp_path: Path) -> None:
    """Also where one ends and the next begins with a video of the same name."""
    one = part(6, 0).filter(pa.array(np.arange(6) < 3))
    for name, column in (("image_id", ["a.mp4::0"] * 3), ("track_id", [0, 1, 2])):
        position = one.schema.get_field_index(name)
        one = one.set_column(position, name, pa.array(column).cast(one.schema.field(name).type))
    pq.write_table(one, tmp_path / "one.parquet")
    pq.write_table(made_by(one, "made-up@1.1", "0"), tmp_path / "other.parquet")
    whole = write(tmp_path / "t", 600)
    tables = [tmp_path / "one.parquet", tmp_path / "other.parquet", whole]
    faces = read_faces(*tables)
    assert (faces.images, faces.tracks, faces.faces) == (1 + 1 + 400, 6, 6 + 400)
    assert (faces.answers == sum(read_faces(table).answers for table in tables)).all()
    assert faces.model == ("made-up@1, made-up@1.1", "0" * 64)


def test_tables_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    table, other = write(tmp_path / "t", 60), tmp_path / "other.parquet"
    pq.write_table(made_by(part(60, 1), "another@1", "1"), other)
    with pytest.raises(TableError, match=r"other\.parquet has rows of .*another@1, made-up@1"):
        read_faces(table, other)
    pq.write_table(part(60, 1).drop_columns(["p_male"]), other)
    with pytest.raises(TableError, match=r"other\.parquet has other columns than .*t:"):
        read_faces(table, other)
