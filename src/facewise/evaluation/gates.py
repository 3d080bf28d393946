"""Abstention gates, chosen on val from curves of risk against the share answered.

Clean faces alone cannot show what a blurred face costs, so gates are chosen on clean and degraded
val faces. They are tightened until, on every kind of input, the error on faces still answered is at
most twice the clean error, while turning away as few faces as possible.

Data sets differ in how hard they are when clean, and in how much of them a gate lets through. So
each answer is compared with the clean error of its own data set (indirect standardisation); a
changed mix of data sets then neither looks like harm nor hides it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facewise.calibration import GATE_COVERAGE, GATE_SIDES, Calibration
from facewise.data.tight_crops import AGE_IF_NOT_FOUND
from facewise.evaluation.degrade import NOT_FACES
from facewise.evaluation.outcomes import QUALITY_FIELDS
from facewise.evaluation.scoring import Scored
from facewise.labels import ATTRIBUTES, CLASSES
from facewise.types import BoolArray, Float64Array

RISK_LIMIT: Final = 2.0
"""The error on answered faces may be at most this many times the clean error, on any input."""

SAFETY: Final = 0.75
"""Gates aim at this fraction of the limit, because val is a sample, and because their limits are of
the clean error on all faces found: on those answered, as reports have it, it is 2 to 3 % less."""

CLEAN_BUDGET: Final = 0.04
"""Share of the clean val faces found that may lose at least one attribute: below the 5 % allowed on
test, by twice the standard error of such a share on val."""

GATE_FACES: Final = 450
"""Val faces of each data set that are degraded, to choose gates on."""

WIDEST_GROUP_YEARS: Final = 15
"""Largest difference of last and first year for an age group's middle to stand for an age."""

CERTAINTY_START: Final = 0.005
"""Share of clean faces, the least certain, that an attribute's certainty gate turns away from the
start: at that end of the curve, the risk is that of a guess."""

NEGLIGIBLE: Final = 0.015
"""If less than this share of an input is still answered, its error no longer affects the gates."""

GRID_POINTS: Final = 40
"""Values tried for each gate: quantiles over clean and degraded val faces, and about as many more
of the lowest clean ones."""

ANSWERED_WEIGHT: Final = 0.1
"""Cost of no longer answering a degraded face, in clean faces."""

SIDES: Final = tuple((measure, side) for measure, sides in GATE_SIDES.items() for side in sides)
"""Possible quality gates."""

CERTAINTY: Final = len(SIDES)
"""Column of the certainty, after the quality gates."""


def known_ages(scored: Scored) -> tuple[Float64Array, BoolArray]:
    """Ages to compare answers with, and which rows have one.

    These are exact ages, and the middles of age groups unless open or wide.
    """
    first, last = scored.outcomes.age_ranges.T
    return (first + last) / 2, (first > 0) & (last - first <= WIDEST_GROUP_YEARS)


def errors(scored: Scored, name: str) -> Float64Array:
    """Error of each row: years, or 1 for a wrong class; NaN if unknown or not found."""
    if name == "age":
        years, rows = known_ages(scored)
        error = np.abs(scored.age - years)
    else:
        error = (~scored.right(name)).astype(np.float64)
        rows = scored.known(name)
    return np.where(rows & scored.outcomes.found, error, np.nan)


def expected_errors(scored: Scored, clean: Scored, clean_errors: Float64Array) -> Float64Array:
    """Expected error of each row in a clean picture: the mean clean error of its data set.

    Args:
        scored: N rows.
        clean: M rows.
        clean_errors: ``(M,)``, NaN for those that do not count.

    Returns:
        ``(N,)``; the mean over all for a data set without clean errors.
    """
    out = np.full(len(scored), float(np.nanmean(clean_errors)))
    for dataset in np.unique(clean.outcomes.datasets):
        own = clean_errors[clean.outcomes.datasets == dataset]
        if np.isfinite(own).any():
            out[scored.outcomes.datasets == dataset] = np.nanmean(own)
    return out


def certainty(scored: Scored, name: str) -> Float64Array:
    """The certainty gate's measure: minus the interval's width, or the largest probability."""
    if name == "age":
        intervals = scored.intervals(GATE_COVERAGE)
        return -(intervals[:, 1] - intervals[:, 0]).astype(np.float64)
    return scored.probabilities[name].max(-1).astype(np.float64)


def ignorance(clean: Scored, name: str) -> float:
    """Expected error of a blind guess, which is what an answer about a non-face is."""
    if name == "age":
        years, rows = known_ages(clean)
        return float(np.abs(AGE_IF_NOT_FOUND - years[rows]).mean())
    return 1 - 1 / len(CLASSES[name])


def fit_gates(clean: Scored, degraded: Mapping[str, Scored]) -> dict[str, Any]:
    """The ``gates`` part of a calibration.

    Greedy along the risk-coverage curves: repeatedly choose the gate and value that remove the most
    risk above the limit per clean face lost, until no input is above the limit or the budget of
    clean faces is spent.

    Args:
        clean: val under a calibration without gates.
        degraded: degraded faces of val, by name of the degradation.
    """
    attributes = [
        _AttributeGates(clean, degraded, name) for name in ATTRIBUTES if _judgeable(clean, name)
    ]
    found = int(clean.outcomes.found.sum())
    while True:
        spent = np.any([a.turned_away for a in attributes], axis=0)
        affordable = [
            move
            for attribute in attributes
            for move in attribute.moves()
            if (spent | move.turned_away).sum() <= CLEAN_BUDGET * found
        ]
        if not affordable:
            break
        best = max(affordable, key=lambda move: move.worth(spent))
        best.attribute.set(best.gate, best.least)
    return {
        "quality": {a.name: a.quality() for a in attributes},
        "certainty": {a.name: a.certainty() for a in attributes},
    }


def _judgeable(clean: Scored, name: str) -> bool:
    return bool(np.isfinite(errors(clean, name)).any())


@dataclass(slots=True, eq=False)
class _Input:
    """The faces found in one kind of degraded input, for one attribute.

    Attributes:
        measures: ``(N, 9)``, see ``_measures``.
        errors: ``(N,)``, NaN if unknown.
        limits: ``(N,)``, the errors allowed.
        size: all faces, found or not.
        answered: ``(N,)``, those that pass the current gates.
    """

    measures: Float64Array
    errors: Float64Array
    limits: Float64Array
    size: int
    answered: BoolArray

    def after(self, gate: int, least: float) -> BoolArray:
        """Faces still answered if a gate is set to ``least``."""
        return self.answered & (self.measures[:, gate] >= least)

    def excess(self, answered: BoolArray) -> float:
        """Risk above the limit, weighted by the share answered.

        It is 0 if less than ``NEGLIGIBLE`` is answered, or if there is no clean error, of which
        there is no multiple.
        """
        seen = answered & np.isfinite(self.errors)
        count = int(seen.sum())
        if count <= NEGLIGIBLE * self.size or not self.limits[seen].any():
            return 0.0
        over = float(self.errors[seen].sum() / self.limits[seen].sum()) - 1
        return max(0.0, over) * count / self.size


@dataclass(frozen=True, slots=True, eq=False)
class _Move:
    """One gate set to a higher value.

    Attributes:
        attribute: whose gate it is.
        gate: its column in ``_measures``.
        least: its new value.
        gain: risk above the limit that it removes, summed over the inputs.
        lost: mean share of the inputs that is no longer answered.
        turned_away: clean faces that the attribute's gates then turn away.
    """

    attribute: _AttributeGates
    gate: int
    least: float
    gain: float
    lost: float
    turned_away: BoolArray

    def worth(self, spent: BoolArray) -> float:
        """Risk removed per face lost, given the clean faces that are already turned away."""
        clean_lost = float((spent | self.turned_away).sum() - spent.sum()) / len(spent)
        return self.gain / (clean_lost + ANSWERED_WEIGHT * self.lost + 1e-6)


class _AttributeGates:
    """The gates of one attribute while they are being chosen.

    Each is the least value of one column of ``_measures`` for a face to be answered; -inf is none.
    """

    def __init__(self, clean: Scored, degraded: Mapping[str, Scored], name: str) -> None:
        self.name = name
        self._clean, self._found = _measures(clean, name), clean.outcomes.found
        self._inputs = list(_inputs(clean, degraded, name))
        clean_found = self._clean[self._found]
        self._grid = _grid(clean_found, [each.measures for each in self._inputs])
        self._least = np.full(self._grid.shape[1], -np.inf)
        self._moves: list[_Move] | None = None
        start = np.quantile(clean_found[:, CERTAINTY], CERTAINTY_START)
        values = self._grid[:, CERTAINTY]
        self.set(CERTAINTY, float(values[values <= start].max(initial=-np.inf)))

    @property
    def turned_away(self) -> BoolArray:
        """Clean faces that the current gates turn away."""
        return self._turned_away(self._least)

    def _turned_away(self, least: Float64Array) -> BoolArray:
        return (self._clean < least).any(axis=1) & self._found

    def moves(self) -> list[_Move]:
        """Moves that remove risk; found again only after ``set``."""
        if self._moves is None:
            self._moves = list(self._find_moves())
        return self._moves

    def _find_moves(self) -> Iterator[_Move]:
        now = sum(each.excess(each.answered) for each in self._inputs)
        if now == 0:
            return
        for gate, values in enumerate(self._grid.T):
            for value in values[values > self._least[gate]].tolist():
                after = [each.after(gate, value) for each in self._inputs]
                inputs = list(zip(self._inputs, after, strict=True))
                gain = now - sum(each.excess(answered) for each, answered in inputs)
                if gain > 1e-9:
                    shares = [(i.answered.sum() - left.sum()) / i.size for i, left in inputs]
                    least = self._least.copy()
                    least[gate] = value
                    turned = self._turned_away(least)
                    yield _Move(self, gate, value, gain, float(np.mean(shares)), turned)

    def set(self, gate: int, least: float) -> None:
        for each in self._inputs:
            each.answered = each.after(gate, least)
        self._least[gate] = least
        self._moves = None

    def quality(self) -> dict[str, dict[str, float]]:
        """Quality gates as a spec holds them."""
        gates: dict[str, dict[str, float]] = {}
        for (field, side), value in zip(SIDES, self._least, strict=False):
            if np.isfinite(value):
                gates.setdefault(field, {})[side] = float(-value if side == "max" else value)
        return gates

    def certainty(self) -> dict[str, float]:
        """The certainty gate as a spec holds it."""
        value = float(self._least[CERTAINTY])
        if not np.isfinite(value):
            return {}
        return {"max_interval_years": -value} if self.name == "age" else {"min_probability": value}


def _inputs(clean: Scored, degraded: Mapping[str, Scored], name: str) -> Iterator[_Input]:
    clean_errors = errors(clean, name)
    for kind, scored in degraded.items():
        found = scored.outcomes.found
        error = errors(scored, name)
        if kind in NOT_FACES:
            error = np.full(len(scored), ignorance(clean, name))
        limit = RISK_LIMIT * SAFETY * expected_errors(scored, clean, clean_errors)
        measures, answered = _measures(scored, name)[found], np.ones(int(found.sum()), bool)
        yield _Input(measures, error[found], limit[found], len(scored), answered)


def _grid(clean: Float64Array, degraded: Sequence[Float64Array]) -> Float64Array:
    """Values to try for each gate, ``(M, 9)``, in ascending order."""
    shares = np.linspace(0, 1, GRID_POINTS + 1)[1:-1]
    pooled = np.quantile(np.concatenate([clean, *degraded]), shares, axis=0)
    # Half of the values lie among the lowest clean ones, where a gate costs clean faces.
    low = np.quantile(clean, np.linspace(0.0005, 0.03, GRID_POINTS), axis=0)
    return np.vectorize(_rounded)(np.sort(np.concatenate([pooled, low]), axis=0))


def _rounded(value: float) -> float:
    """Round to three significant figures."""
    return float(f"{value:.3g}")


def quality_measures(scored: Scored) -> Float64Array:
    """Quality measures in the order of ``SIDES``, ``(N, 8)``.

    Larger is always better: measures that have a maximum are negated.
    """
    quality = np.abs(scored.outcomes.quality.astype(np.float64))
    columns = [
        quality[:, QUALITY_FIELDS.index(field)] * (1 if side == "min" else -1)
        for field, side in SIDES
    ]
    return np.stack(columns, axis=1)


def _measures(scored: Scored, name: str) -> Float64Array:
    """What an attribute's gates are set on, ``(N, 9)``: quality, then certainty."""
    return np.column_stack([quality_measures(scored), certainty(scored, name)])


def with_gates(fitted: Mapping[str, Any], gates: Mapping[str, Any]) -> Calibration:
    """A calibration from fitted parts and gates."""
    return Calibration.from_dict({**fitted, "gates": gates})
