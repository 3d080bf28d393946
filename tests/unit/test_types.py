"""Results travel between processes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from facewise import Analyzer


def test_predictions_survive_pickling_and_copying(analyzer: Analyzer, pictures: Path) -> None:
    (prediction,) = analyzer.analyze(pictures / "astronaut.jpg")
    others: list[Any] = [pickle.loads(pickle.dumps(prediction)), copy.deepcopy(prediction)]
    for other in others:
        assert other.to_dict(vector=True, years=True) == prediction.to_dict(vector=True, years=True)
        assert other.face.quality == prediction.face.quality
        with pytest.raises(ValueError, match="read-only"):
            other.vector[0] = 0
        with pytest.raises(TypeError):
            other.abstained["age"] = "changed"
