"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from facewise import Analyzer

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("FACEWISE_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Committed, licensed pictures."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data sets; tests that need them are marked ``data`` and skip without."""
    if not (DATA / "utkface.tar").exists():
        pytest.skip(f"no data sets at {DATA}: set FACEWISE_DATA")
    return DATA


@pytest.fixture(scope="session")
def analyzer() -> Analyzer:
    """One analyzer with the shipped weights, one thread."""
    return Analyzer(threads=1)
