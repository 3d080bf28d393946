"""Figures on val during training, to choose checkpoints by; ``facewise evaluate`` makes reports.

A face that was not found counts as in the scoring protocol: wrong in every classification, and as
age 33.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from facewise.data.tight_crops import AGE_IF_NOT_FOUND
from facewise.labels import ages_to_fairface_groups, expected_age, range_groups
from facewise.training.cache import FaceCache
from facewise.types import FloatArray, IndexArray

_WORDS: Final = {
    "mae": "mean age error {:.2f} years",
    "cs5": "within 5 years {:.1%}",
    "ages": "age groups {:.1%}",
    "ages_within_one": "within one group {:.1%}",
    "gender": "gender {:.1%}",
    "ethnicity": "ethnicity {:.1%}",
}
"""The figures of a data set, for people."""


def score(
    cache: FaceCache,
    rows: IndexArray,
    ages: FloatArray,
    genders: FloatArray,
    ethnicities: FloatArray,
) -> dict[str, float]:
    """Shares (0 to 1) and errors in years over some rows, by data set.

    Args:
        cache: holds the labels.
        rows: ``(N,)``.
        ages: probabilities ``(N, 120)``.
        genders: ``(N, 2)``.
        ethnicities: ``(N, 5)``.

    Returns:
        For each data set X: ``X_mae`` and ``X_cs5`` over exact ages; ``X_ages`` and
        ``X_ages_within_one`` over ranges within one of FairFace's nine groups; ``X_gender`` and
        ``X_ethnicity``. Figures for which a data set has no labels are left out.
    """
    out: dict[str, float] = {}
    found = cache.found[rows]
    for dataset in np.unique(cache.datasets[rows]):
        mine = cache.datasets[rows] == dataset
        ranges, hit = cache.age_ranges[rows[mine]], found[mine]
        exact = (ranges[:, 0] == ranges[:, 1]) & (ranges[:, 0] > 0)
        if exact.any():
            guess = np.where(hit, expected_age(ages[mine]), AGE_IF_NOT_FOUND)
            error = np.abs(guess - ranges[:, 0])[exact]
            out[f"{dataset}_mae"] = float(error.mean())
            out[f"{dataset}_cs5"] = float((error <= 5).mean())
        groups = range_groups(ranges)
        grouped = (groups >= 0) & ~exact
        if grouped.any():
            off = np.abs(ages_to_fairface_groups(ages[mine]).argmax(-1) - groups)
            out[f"{dataset}_ages"] = float(((off == 0) & hit)[grouped].mean())
            out[f"{dataset}_ages_within_one"] = float(((off <= 1) & hit)[grouped].mean())
        for name, labels, probabilities in (
            ("gender", cache.genders[rows[mine]], genders[mine]),
            ("ethnicity", cache.ethnicities[rows[mine]], ethnicities[mine]),
        ):
            known = labels >= 0
            if known.any():
                right = (probabilities.argmax(-1) == labels) & hit
                out[f"{dataset}_{name}"] = float(right[known].mean())
    return out


def headline(figures: dict[str, float]) -> float:
    """One number to choose checkpoints by, lower is better: MAEs plus error rates in % / 10."""
    value = sum(figure for name, figure in figures.items() if name.endswith("_mae"))
    for name, figure in figures.items():
        if name.endswith(("gender", "ethnicity", "_ages")):
            value += (1 - figure) * 100 / 5 / 2
    return value


def in_words(figures: Mapping[str, float]) -> str:
    """An epoch's row of ``log.csv`` for people: loss and speed, figures on val, the headline."""
    said: dict[str, list[str]] = {}
    for name, figure in figures.items():
        dataset, _, kind = name.partition("_")
        if kind in _WORDS:
            said.setdefault(dataset, []).append(_WORDS[kind].format(figure))
    on_val = "; ".join(f"{dataset}: {', '.join(words)}" for dataset, words in said.items())
    return (
        f"loss {figures['train_loss']:.3f}, {figures['images_per_second']:.0f} images/s; on val, "
        f"{on_val}; score {figures['headline']:.2f} (lower is better; the best epoch is kept)"
    )
