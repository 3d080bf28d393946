"""Overall figures: scikit-learn's metrics, with bootstrap intervals over duplicate groups.

The bootstrap computes the same values, but we report scikit-learn's, so that nobody has to trust a
metric implemented here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from facewise.evaluation.scoring import NOT_FOUND, Scored
from facewise.labels import CLASSES, DECADE_LABELS, FAIRFACE_AGE_GROUPS
from facewise.reporting.bootstrap import Figure, GroupBootstrap, figure
from facewise.types import BoolArray, Float64Array

CS_YEARS: Final = (3, 5, 10)
"""Cumulative scores: the share of ages that are off by at most this many years."""


def age_figures(scored: Scored, boot: GroupBootstrap) -> dict[str, Figure]:
    """Errors of exact ages; every row of ``scored`` must have one."""
    from sklearn.metrics import mean_absolute_error

    error = scored.age - scored.true_age
    mae = float(mean_absolute_error(scored.true_age, scored.age))
    out = {
        "age_mae_years": boot.mean(np.abs(error)) | {"value": mae},
        "age_median_error_years": median_error(scored, boot),
        "age_bias_years": boot.mean(error),
    }
    for years in CS_YEARS:
        out[f"age_cs{years}"] = boot.mean(np.abs(error) <= years)
    return out


def median_error(scored: Scored, boot: GroupBootstrap | None = None) -> Figure:
    """Median absolute error in years; every row must have an exact age."""
    from sklearn.metrics import median_absolute_error

    boot = boot or GroupBootstrap(scored.outcomes.groups)
    error = np.abs(scored.age - scored.true_age)
    # Not scikit-learn for the draws: its input checks take longer than the medians.
    drawn = boot.statistic(lambda rows: float(np.median(error[rows])))
    return drawn | {"value": float(median_absolute_error(scored.true_age, scored.age))}


def class_figures(scored: Scored, name: str, boot: GroupBootstrap) -> dict[str, Figure]:
    """Accuracy, balanced accuracy and macro F1; every row must have a label.

    A face that was not found counts as a separate answer that is always wrong: it lowers recall but
    no class's precision. Values are scikit-learn's; intervals come from the same figures on
    redrawn confusion matrices.
    """
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    truth, answer = scored.truth[name], scored.answers[name]
    present = np.unique(truth)
    count = len(CLASSES[name])
    cells = np.zeros((len(truth), count, count + 1))
    cells[np.arange(len(truth)), truth, answer] = 1  # -1, not found, is the last column
    drawn = boot.sums(cells)
    n = len(truth)
    options: dict[str, Any] = {"labels": present, "average": "macro"}
    accuracy = float(accuracy_score(truth, answer))
    out = {f"{name}_accuracy": boot.mean(scored.right(name)) | {"value": accuracy}}
    # With a single class, these two would only repeat the accuracy under another name.
    if len(present) > 1:
        out[f"{name}_balanced_accuracy"] = figure(
            float(recall_score(truth, answer, **options)),
            _balanced_accuracy(drawn),
            n,
            boot.groups,
            is_share=True,
        )
        out[f"{name}_macro_f1"] = figure(
            float(f1_score(truth, answer, **options)),
            _macro_f1(drawn),
            n,
            boot.groups,
            is_share=True,
        )
    return out


def _balanced_accuracy(confusion: Float64Array) -> Float64Array:
    """Mean recall of the classes present, ``(R, K, K + 1)`` to ``(R,)``."""
    totals = confusion.sum(-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(totals > 0, hits / totals, np.nan), axis=-1)


def _macro_f1(confusion: Float64Array) -> Float64Array:
    """Mean F1 of the classes present, ``(R, K, K + 1)`` to ``(R,)``."""
    totals, hits = confusion.sum(-1), np.diagonal(confusion, axis1=-2, axis2=-1)
    called = confusion[..., :-1].sum(-2)
    with np.errstate(invalid="ignore"):
        f1 = np.where(totals > 0, 2 * hits / (totals + called), np.nan)
    return np.nanmean(f1, axis=-1)


def figures(scored: Scored) -> dict[str, Any]:
    """All figures of one set of rows; those without any labelled row are absent."""
    out: dict[str, Any] = {
        "n": len(scored),
        "not_found": int((~scored.outcomes.found).sum()),
    }

    def add(mask: BoolArray, make: Callable[[Scored, GroupBootstrap], dict[str, Figure]]) -> None:
        if mask.any():
            part = scored.take(mask)
            out.update(make(part, GroupBootstrap(part.outcomes.groups)))

    add(scored.exact, age_figures)
    add(scored.known("age_group"), _age_group_figures)
    for name in CLASSES:
        add(scored.known(name), lambda s, b, name=name: class_figures(s, name, b))  # type: ignore[misc]
    return out


def _age_group_figures(scored: Scored, boot: GroupBootstrap) -> dict[str, Figure]:
    return {
        "age_groups_exact": boot.mean(scored.right("age_group")),
        "age_groups_within_one": boot.mean(scored.within_one_group()),
    }


def confusions(scored: Scored) -> dict[str, list[list[int]]]:
    """Counts by label (row) and answer (column); the last column is for faces not found."""
    from sklearn.metrics import confusion_matrix

    out = {}
    sizes = {name: len(labels) for name, labels in CLASSES.items()}
    for name, size in (sizes | {"age_group": len(FAIRFACE_AGE_GROUPS)}).items():
        known = scored.known(name)
        if known.any():
            matrix = confusion_matrix(
                scored.truth[name][known],
                scored.answers[name][known],
                labels=[*range(size), NOT_FOUND],
            )
            out[name] = matrix[:-1].tolist()
    return out


def mae_by_decade(scored: Scored) -> dict[str, Figure]:
    """Age MAE by the label's decade, for exact ages."""
    out = {}
    for decade, label in enumerate(DECADE_LABELS):
        mask = scored.exact & ((scored.true_age - 1) // 10 == decade)
        if mask.any():
            error = np.abs(scored.age - scored.true_age)[mask]
            out[label] = GroupBootstrap(scored.outcomes.groups[mask]).mean(error)
    return out
