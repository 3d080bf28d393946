"""The folder of the data sets, as the command line and the tests find it."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(os.environ.get("FACEWISE_DATA") or Path(__file__).parents[2] / "shared" / "data")
