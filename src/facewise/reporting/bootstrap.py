"""Confidence intervals: a bootstrap that draws whole groups, and Wilson's for shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from facewise.types import Array, BoolArray, Float64Array, IndexArray, TextArray

ROUNDS: Final = 500
Z_95: Final = 1.959964

MIN_GROUPS: Final = 10
"""Fewest groups for which a bootstrap interval is given. Its 95 % interval contains the mean of age
errors in 93 % of cases with 30 groups, 87 % with 10, 81 % with 5, and 48 % with 2; with one group,
all draws are identical."""

Figure = dict[str, Any]
"""``value``, ``low`` and ``high`` (95 %; None if there are too few groups), and ``n``."""


class GroupBootstrap:
    """Draws of whole groups of rows, with replacement (Efron, 1979; the cluster bootstrap).

    Two pictures of one person are not two independent observations, so they are drawn together.

    Args:
        groups: name of each row's group, ``(N,)``.
    """

    def __init__(self, groups: TextArray) -> None:
        if len(groups) == 0:
            raise ValueError("a bootstrap needs at least one row")
        _, self._codes = np.unique(groups, return_inverse=True)
        self._count = int(self._codes.max()) + 1
        self._times: Float64Array | None = None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self._count

    @property
    def times(self) -> Float64Array:
        """How often each round draws each group, ``(rounds, groups)``; the seed is fixed."""
        if self._times is None:
            rng = np.random.default_rng(0)
            self._times = np.empty((ROUNDS, self._count))
            for row in self._times:  # one by one, since all draws at once take as much again
                drawn = rng.integers(0, self._count, self._count)
                row[:] = np.bincount(drawn, minlength=self._count)
        return self._times

    def sums(self, values: Array) -> Float64Array:
        """Sum of each column over the rows of each round: ``(N, ...)`` to ``(rounds, ...)``."""
        flat = np.asarray(values, np.float64).reshape(len(self._codes), -1)
        by_group = np.zeros((self._count, flat.shape[1]))
        np.add.at(by_group, self._codes, flat)
        return (self.times @ by_group).reshape(ROUNDS, *np.shape(values)[1:])

    def mean(self, values: Array) -> Figure:
        """Mean of a column; for booleans, a share."""
        is_share = np.asarray(values).dtype == bool
        values = np.asarray(values, np.float64)
        drawn = self.sums(values) / self.sums(np.ones(len(values)))
        return figure(float(values.mean()), drawn, len(values), self._count, is_share=is_share)

    def statistic(self, function: Callable[[IndexArray], float]) -> Figure:
        """Any function of row indices, called once per round: for statistics other than means."""
        order = np.argsort(self._codes, kind="stable")
        ends = np.cumsum(np.bincount(self._codes, minlength=self._count))
        members = np.split(order, ends[:-1])
        drawn = []
        for row in self.times:
            chosen = np.repeat(np.arange(self._count), row.astype(np.intp))
            drawn.append(function(np.concatenate([members[k] for k in chosen])))
        every = np.arange(len(self._codes))
        return figure(float(function(every)), np.array(drawn), len(every), self._count)


def figure(
    value: float, drawn: Float64Array, n: int, groups: int, *, is_share: bool = False
) -> Figure:
    """A value with the 2.5 and 97.5 % quantiles of its draws; draws without a value are left out.

    If all rows agree, so do all draws, and their spread says nothing about unseen rows: a share of
    0 or 1 gets Wilson's interval instead. Otherwise, fewer than 10 groups give no interval.

    Args:
        value: over all rows.
        drawn: one value per round; NaN if a round had nothing to measure.
        n: number of rows.
        groups: number of groups drawn from.
        is_share: whether the value is a share.
    """
    sound = drawn[np.isfinite(drawn)]
    low, high = np.quantile(sound, [0.025, 0.975]).tolist() if len(sound) else (None, None)
    if is_share and low == high == value and value in (0, 1):
        low, high = wilson(round(value * groups), groups)
    elif groups < MIN_GROUPS:
        low = high = None
    return {"value": value, "low": low, "high": high, "n": n}


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson, 1927).

    Hits need not be whole: among n pictures with several faces each, a hit can be a fraction.
    """
    if n == 0:
        return 0.0, 1.0
    p, z = hits / n, Z_95
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # With no hits, or only hits, rounding would miss the exact ends 0 and 1.
    return (
        0.0 if hits == 0 else float(middle - half),
        1.0 if hits == n else float(middle + half),
    )


def share(hits: BoolArray) -> Figure:
    """Share of rows that are true, with Wilson's interval."""
    low, high = wilson(int(hits.sum()), len(hits))
    value = float(hits.mean()) if len(hits) else float("nan")
    return {"value": value, "low": low, "high": high, "n": len(hits)}
