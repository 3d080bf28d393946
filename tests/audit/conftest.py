"""One annotated table for all tests of audits."""

from __future__ import annotations

from pathlib import Path

import pytest

from facewise.batch.annotate import annotate
from facewise.batch.job import Job


@pytest.fixture(scope="session")
def table(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the committed pictures: 24, most of them with a face."""
    out = tmp_path_factory.mktemp("audit") / "faces.table"
    annotate([str(pictures)], out, Job(), workers=1)
    return out
