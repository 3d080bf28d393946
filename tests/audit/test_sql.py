"""The SQL of the documentation pages, run by DuckDB on a table that annotate wrote."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from facewise.audit.table import read_faces
from facewise.batch.annotate import annotate
from facewise.batch.job import FILE, Item, Job
from facewise.batch.sources import list_items
from facewise.data.walk import Skipped

from .test_table import part, videos

ROOT = Path(__file__).parents[2]


def queries(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    return [query.strip() for block in blocks for query in block.split(";") if query.strip()]


def run(query: str, table: Path) -> list[tuple[Any, ...]]:
    duckdb = pytest.importorskip("duckdb")
    assert "'faces.table/" in query
    answer: list[tuple[Any, ...]] = duckdb.execute(
        query.replace("'faces.table/", f"'{table}/")
    ).fetchall()
    return answer


@pytest.mark.parametrize("page", ["annotate.md", "audit.md"])
def test_every_query_runs_and_finds_something(
    page: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write a file
    Path("photos").mkdir()
    Path("photos/new.webp").touch()
    found = [run(query, table) for query in queries(page)]
    assert found
    assert all(found)


def test_counts_by_gender_are_the_tables(table: Path) -> None:
    query = next(query for query in queries("annotate.md") if "gender" in query)
    faces = pq.read_table(table).filter(pc.is_valid(pc.field("face_index")))
    counted = faces["gender"].value_counts().to_pylist()
    assert dict(run(query, table)) == {row["values"]: row["counts"] for row in counted}


def test_shares_of_pictures_add_up(table: Path) -> None:
    query = next(query for query in queries("audit.md") if "without_face" in query)
    ((pictures, with_face, without_face, errors),) = run(query, table)
    assert pictures == with_face + without_face + errors == 24


def test_the_rows_of_a_damaged_tar_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a table of the good copy, no picture counts twice and none is lost."""
    monkeypatch.chdir(tmp_path)
    rows = part(12, 0)
    damaged = [f"tars/b.tar::{name}" for name in rows["image_id"].to_pylist()[:6]]
    names = pa.array([*damaged, *rows["image_id"].to_pylist()[6:]])
    rows = rows.set_column(0, "image_id", names)
    (tmp_path / "faces.table").mkdir()
    pq.write_table(rows, "faces.table/part-00000000.parquet")
    pq.write_table(rows.slice(0, 6), "b.parquet")
    query = next(query for query in queries("annotate.md") if "b.tar" in query)
    run(query, Path("faces.table"))
    faces = read_faces(Path("rest.parquet"), Path("b.parquet"))
    assert (faces.images, faces.shared) == (8, 0)
    assert read_faces(Path("faces.table"), Path("b.parquet")).shared == 4


def test_files_that_arrived_later_are_listed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third = sorted((pictures / "faces").glob("*.webp"))[:3]
    Path("photos/sub").mkdir(parents=True)
    shutil.copy(first, "photos/a.webp")
    shutil.copy(second, "photos/sub/b.webp")
    annotate(["photos"], Path("faces.table"), Job(attributes=("age",)), workers=1)
    shutil.copy(third, 'photos/sub/new, "c".webp')
    run(next(query for query in queries("annotate.md") if "glob" in query), Path("faces.table"))
    assert list(list_items(["new.csv"], Job(), Skipped(), {})) == [
        Item(
            name := 'photos/sub/new, "c".webp',
            FILE,
            f"{tmp_path}/{name}",
            shown=f"{tmp_path}/{name}",
        )
    ]


def test_sql_counts_tracks_and_videos_as_an_audit_does(tmp_path: Path) -> None:
    """The videos stand beside photos with three faces and with one."""
    (tmp_path / "t").mkdir()
    videos(tmp_path / "t" / "part-00000000.parquet", [0, 1, 1], 20)
    pq.write_table(part(600, 3), tmp_path / "t" / "part-00000001.parquet")
    (query,) = (query for query in queries("audit.md") if "track_id" in query)
    faces = read_faces(tmp_path / "t")
    drawn = len(np.unique(faces.pictures))
    assert run(query, tmp_path / "t") == [(faces.faces, drawn)] == [(60 + 400, 3 + 200)]
