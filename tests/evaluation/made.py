"""Outcomes made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facewise.calibration import Calibration
from facewise.evaluation.outcomes import Outcomes
from facewise.evaluation.scoring import Scored
from facewise.types import FloatArray

GOOD_QUALITY = (60.0, 1.0, 0.0, 0.5, 0.2, 1.0)


def years(*at: int) -> FloatArray:
    """A uniform distribution over some years."""
    p = np.zeros(120, np.float32)
    p[np.array(at) - 1] = 1 / len(at)
    return p


def made(
    n: int,
    *,
    age: Sequence[int | tuple[int, int]] | None = None,
    said_ages: Sequence[FloatArray] | None = None,
    gender: Sequence[int] | None = None,
    said_genders: Sequence[Sequence[float]] | None = None,
    ethnicity: Sequence[int] | None = None,
    said_ethnicities: Sequence[Sequence[float]] | None = None,
    found: Sequence[bool] | None = None,
    groups: Sequence[str] | None = None,
    quality: Any = None,
    dataset: str = "utkface",
) -> Outcomes:
    """N rows; labels not given are unknown, and classes not given are equally probable."""
    ranges = [(a, a) if isinstance(a, int) else a for a in age] if age else [(0, 0)] * n
    return Outcomes(
        keys=np.array([f"{i}.jpg" for i in range(n)]),
        datasets=np.array([dataset] * n),
        groups=np.array(groups if groups is not None else [f"{i}.jpg" for i in range(n)]),
        age_ranges=np.array(ranges, np.int64),
        true_genders=np.array(gender if gender is not None else [-1] * n, np.int64),
        true_ethnicities=np.array(ethnicity if ethnicity is not None else [-1] * n, np.int64),
        found=np.array(found if found is not None else [True] * n),
        ages=np.array(said_ages if said_ages is not None else [years(33)] * n, np.float32),
        genders=np.array(said_genders if said_genders is not None else [[0.5] * 2] * n, np.float32),
        ethnicities=np.array(
            said_ethnicities if said_ethnicities is not None else [[0.2] * 5] * n, np.float32
        ),
        quality=np.array(
            quality if quality is not None else np.tile(GOOD_QUALITY, (n, 1)), np.float32
        ),
    )


def scored(n: int, calibration: dict[str, Any] | None = None, **columns: Any) -> Scored:
    """``made`` outcomes under a calibration."""
    return Scored(made(n, **columns), Calibration.from_dict(calibration))
