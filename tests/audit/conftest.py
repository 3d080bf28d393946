"""One annotated table for all audit tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from facewise.batch.annotate import annotate
from facewise.batch.job import Job


@pytest.fixture(scope="session")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the 24 committed pictures, most of them with a face."""
    out = tmp_path_factory.mktemp("audit") / "faces.table"
    annotate([str(pictures)], out, Job(), workers=1)
    return out


@pytest.fixture(scope="session")
def twice(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every picture and a copy of it, so that there are enough faces to correct."""
    out = tmp_path_factory.mktemp("twice") / "twice.table"
    shutil.copytree(table, out)
    rows = pq.read_table(table)
    names = pc.binary_join_element_wise("copy of", rows["image_id"], " ")
    place = rows.schema.get_field_index("image_id")
    copies = rows.set_column(place, rows.schema.field(place), names.cast(pa.string()))
    pq.write_table(pa.concat_tables([rows, copies]), out / "part-00000000.parquet")
    return out
