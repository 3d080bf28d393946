"""Abstention gates, chosen on val from curves of risk against the share answered.

Clean faces alone cannot show what a blurred face costs, so gates are chosen on clean and degraded
val faces. They are tightened until, on every kind of input, the error on faces still answered is at
most twice the clean error, while turning away as few faces as possible.

Data sets differ in how hard they are when clean, and in how much of them a gate lets through. So
each answer is compared with the clean error of its own data set (indirect standardisation); a
changed mix of data sets then neither looks like harm nor hides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.analyzer import GATE_COVERAGE
from facewise.calibration import QUALITY_REASONS, Calibration
from facewise.evaluation.degrade import NOT_FACES
from facewise.evaluation.outcomes import QUALITY_FIELDS
from facewise.evaluation.scoring import CLASSES, Mask, Scored
from facewise.labels import ATTRIBUTES
from facewise.protocol import AGE_IF_NOT_FOUND
from facewise.reporting.bootstrap import GroupBootstrap, figure

RISK_LIMIT: Final = 2.0
"""The error on answered faces may be at most this many times the clean error, on any input."""

SAFETY: Final = 0.75
"""Gates aim at this fraction of the limit, because val is a sample."""

CLEAN_BUDGET: Final = 0.04
"""Share of clean val faces that may lose at least one attribute: below the 5 % allowed on test, by
twice the standard error of such a share on val."""

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

SIDES: Final = tuple(
    (measure, side)
    for measure, reasons in QUALITY_REASONS.items()
    for side, reason in zip(("min", "max"), reasons, strict=True)
    if reason
)
"""Possible quality gates: the sides of measures that have a reason for abstention."""

CERTAINTY: Final = len(SIDES)
"""Column of the certainty, after the quality gates."""

CURVE_POINTS: Final = 60
MIN_ANSWERED: Final = 30
"""Fewest answered faces for their error to be compared."""


def known_ages(scored: Scored) -> tuple[NDArray[np.float64], Mask]:
    """Ages to compare answers with, and which rows have one.

    These are exact ages, and the middles of age groups unless open or wide.
    """
    first, last = scored.outcomes.age_ranges.T
    return (first + last) / 2, (first > 0) & (last - first <= WIDEST_GROUP_YEARS)


def errors(scored: Scored, name: str) -> NDArray[np.float64]:
    """Error of each row: years, or 1 for a wrong class; NaN if unknown or not found."""
    if name == "age":
        years, rows = known_ages(scored)
        error = np.abs(scored.age - years)
    else:
        error = (~scored.right(name)).astype(np.float64)
        rows = scored.known(name)
    return np.where(rows & scored.outcomes.found, error, np.nan)


def expected_errors(
    scored: Scored, clean: Scored, clean_errors: NDArray[np.float64]
) -> NDArray[np.float64]:
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


def certainty(scored: Scored, name: str) -> NDArray[np.float64]:
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


def risk_coverage(
    certainties: NDArray[np.float64], errors_: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Share answered and mean error on it, the most certain first; up to 60 points."""
    order = np.argsort(-certainties, kind="stable")
    risk = np.cumsum(errors_[order]) / np.arange(1, len(order) + 1)
    at = np.unique(np.linspace(len(order) * 0.05, len(order), CURVE_POINTS).astype(int)) - 1
    at = at[at >= 0]
    return [(float((i + 1) / len(order)), float(risk[i])) for i in at]


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
    spent = np.any([a.turned_away for a in attributes], axis=0)
    while True:
        best: tuple[float, _AttributeGates, int, int] | None = None
        for attribute in attributes:
            for gate, level, gain, turned in attribute.moves():
                both = float((spent | turned).sum() - spent.sum()) / len(clean)
                if float((spent | turned).mean()) > CLEAN_BUDGET:
                    continue
                worth = gain / (both + ANSWERED_WEIGHT * attribute.lost(gate, level) + 1e-6)
                if best is None or worth > best[0]:
                    best = worth, attribute, gate, level
        if best is None:
            break
        _, attribute, gate, level = best
        attribute.set(gate, level)
        spent = np.any([a.turned_away for a in attributes], axis=0)
    return {
        "quality": {a.name: a.quality() for a in attributes},
        "certainty": {a.name: a.certainty() for a in attributes},
    }


def _judgeable(clean: Scored, name: str) -> bool:
    return bool(np.isfinite(errors(clean, name)).any())


class _AttributeGates:
    """The gates of one attribute while they are being chosen.

    Every gate has the form "at least"; maxima are negated. Columns 0 to 7 are ``SIDES``, the last
    is the certainty. A level of 0 means no gate.
    """

    def __init__(self, clean: Scored, degraded: Mapping[str, Scored], name: str) -> None:
        self.name = name
        self._clean = _columns(clean, name)
        self._clean_found = clean.outcomes.found
        self._inputs = [_columns(s, name)[s.outcomes.found] for s in degraded.values()]
        self._errors, self._limits = [], []
        clean_errors = errors(clean, name)
        for n, s in degraded.items():
            error = errors(s, name)
            if n in NOT_FACES:
                error = np.full(len(s), ignorance(clean, name))
            limit = RISK_LIMIT * SAFETY * expected_errors(s, clean, clean_errors)
            self._errors.append(error[s.outcomes.found])
            self._limits.append(limit[s.outcomes.found])
        self._sizes = [len(s) for s in degraded.values()]
        pooled = np.concatenate([self._clean[self._clean_found], *self._inputs])
        shares = np.linspace(0, 1, GRID_POINTS + 1)[1:-1]
        # Half of the levels lie among the lowest clean values, where a gate costs clean faces.
        low = np.quantile(
            self._clean[self._clean_found], np.linspace(0.0005, 0.03, GRID_POINTS), axis=0
        )
        grid = np.concatenate([np.quantile(pooled, shares, axis=0), low])
        rounded = np.vectorize(_rounded)(np.sort(grid, axis=0))
        self._grid = np.concatenate([np.full((1, grid.shape[1]), -np.inf), rounded])
        self._level = [0] * grid.shape[1]
        self._answered = [np.ones(len(rows), bool) for rows in self._inputs]
        self._moves: list[tuple[int, int, float, Mask]] | None = None
        start = np.quantile(self._clean[self._clean_found, -1], CERTAINTY_START)
        self.set(CERTAINTY, int(np.searchsorted(self._grid[:, CERTAINTY], start, side="right")) - 1)

    @property
    def turned_away(self) -> Mask:
        """Clean faces that the current gates turn away."""
        return self._turned(self._values())

    def _values(self) -> NDArray[np.float64]:
        return self._grid[self._level, np.arange(self._grid.shape[1])]

    def _turned(self, least: NDArray[np.float64]) -> Mask:
        turned: Mask = (self._clean < least).any(axis=1) & self._clean_found
        return turned

    def _excess(self, answered: list[Mask]) -> float:
        """Risk above the limit, summed over the inputs and weighted by the share answered.

        Inputs of which less than ``NEGLIGIBLE`` is answered do not count, nor do those without any
        clean error, of which there is no multiple.
        """
        total = 0.0
        inputs = zip(answered, self._errors, self._limits, self._sizes, strict=True)
        for mask, error, limit, size in inputs:
            seen = mask & np.isfinite(error)
            count = int(seen.sum())
            if count > NEGLIGIBLE * size and limit[seen].any():
                over = float(error[seen].sum() / limit[seen].sum()) - 1
                total += max(0.0, over) * count / size
        return total

    def _after(self, gate: int, level: int) -> list[Mask]:
        value = self._grid[level, gate]
        return [
            mask & (rows[:, gate] >= value)
            for mask, rows in zip(self._answered, self._inputs, strict=True)
        ]

    def moves(self) -> list[tuple[int, int, float, Mask]]:
        """Possible moves: gate, level, risk removed, and the clean faces then turned away."""
        if self._moves is None:
            self._moves = []
            now = self._excess(self._answered)
            for gate, current in enumerate(self._level) if now > 0 else ():
                for level in range(current + 1, len(self._grid)):
                    gain = now - self._excess(self._after(gate, level))
                    if gain > 1e-9:
                        least = self._values()
                        least[gate] = self._grid[level, gate]
                        self._moves.append((gate, level, gain, self._turned(least)))
        return self._moves

    def lost(self, gate: int, level: int) -> float:
        """Mean share of the inputs that would no longer be answered."""
        after = self._after(gate, level)
        pairs = zip(self._answered, after, self._sizes, strict=True)
        return float(np.mean([(a.sum() - b.sum()) / size for a, b, size in pairs]))

    def set(self, gate: int, level: int) -> None:
        self._answered = self._after(gate, level)
        self._level[gate] = level
        self._moves = None

    def quality(self) -> dict[str, dict[str, float]]:
        """Quality gates as a spec holds them."""
        gates: dict[str, dict[str, float]] = {}
        for (field, side), value in zip(SIDES, self._values(), strict=False):
            if np.isfinite(value):
                gates.setdefault(field, {})[side] = float(-value if side == "max" else value)
        return gates

    def certainty(self) -> dict[str, float]:
        """The certainty gate as a spec holds it."""
        value = float(self._values()[-1])
        if not np.isfinite(value):
            return {}
        return {"max_interval_years": -value} if self.name == "age" else {"min_probability": value}


def _columns(scored: Scored, name: str) -> NDArray[np.float64]:
    """The measures that an attribute's gates use, ``(N, 9)``; larger is always better."""
    quality = np.abs(scored.outcomes.quality.astype(np.float64))
    columns = [
        quality[:, QUALITY_FIELDS.index(field)] * (1 if side == "min" else -1)
        for field, side in SIDES
    ]
    return np.stack([*columns, certainty(scored, name)], axis=1)


def gate_curves(clean: Scored, degraded: Mapping[str, Scored]) -> dict[str, Any]:
    """Curves of risk against share answered, for each attribute.

    By certainty, ``clean`` and ``with degraded`` are points (share answered, error), and ``chosen``
    is the point of the certainty gate on the clean curve. ``by measure`` has a curve for each
    quality measure, over clean and degraded faces together: ``points``, and ``chosen``, the point
    of that gate alone, or None if there is no gate. Gates are those of ``clean``'s calibration.
    """
    out: dict[str, Any] = {}
    gates = clean.calibration.certainty_gates
    for name in ATTRIBUTES:
        parts = [clean, *(s for n, s in degraded.items() if n not in NOT_FACES)]
        error = [errors(s, name) for s in parts]
        sure = [certainty(s, name) for s in parts]
        known = np.isfinite(error[0])
        if not known.any():
            continue
        every, everyone = np.concatenate(error), np.concatenate(sure)
        use = np.isfinite(every)
        out[name] = {
            "clean": risk_coverage(sure[0][known], error[0][known]),
            "with degraded": risk_coverage(everyone[use], every[use]),
        }
        measures = np.concatenate([_columns(s, name)[:, :CERTAINTY] for s in parts])
        limits = clean.calibration.quality_gates.get(name, {})
        out[name]["by measure"] = {
            f"{field}, {'low' if side == 'min' else 'high'} first out": _by_measure(
                measures[use, column], every[use], limits.get(field, {}).get(side), side
            )
            for column, (field, side) in enumerate(SIDES)
        }
        gate = gates.get(name, {})
        least = (
            -gate.get("max_interval_years", np.inf)
            if name == "age"
            else gate.get("min_probability", 0.0)
        )
        answered = known & (sure[0] >= least)
        if answered.any():
            out[name]["chosen"] = (
                float(answered.sum() / known.sum()),
                float(error[0][answered].mean()),
            )
    return out


def _by_measure(
    measure: NDArray[np.float64], errors_: NDArray[np.float64], limit: float | None, side: str
) -> dict[str, Any]:
    """The curve of one measure (larger is better), and the point of its limit."""
    chosen = None
    if limit is not None:
        answered = measure >= (limit if side == "min" else -limit)
        if answered.any():
            chosen = float(answered.mean()), float(errors_[answered].mean())
    return {"points": risk_coverage(measure, errors_), "chosen": chosen}


def degraded_table(clean: Scored, degraded: Mapping[str, Scored]) -> dict[str, Any]:
    """Share found, abstained from and answered, and the error, by input and attribute.

    ``clean`` comes first. ``judged`` counts the answers whose error is known. ``relative`` is the
    error on answered faces divided by that on answered clean faces of the same data sets, with its
    interval; ``within`` says whether it is at most 2. Both are None for ``clean``, for non-faces,
    and for fewer than 30 such answers. ``by_dataset`` has ``judged``, ``error``, ``relative`` and
    ``within`` for each data set.
    """
    clean_errors = {}
    for name in ATTRIBUTES:
        answered = clean.outcomes.found & ~clean.abstained[name]
        clean_errors[name] = np.where(answered, errors(clean, name), np.nan)
    table: dict[str, Any] = {}
    for row, scored in {"clean": clean, **degraded}.items():
        found = scored.outcomes.found
        table[row] = {"n": len(scored), "found": float(found.mean())}
        for name in ATTRIBUTES:
            abstained = scored.abstained[name]
            answered = found & ~abstained
            error = errors(scored, name)
            rows = answered & np.isfinite(error)
            cell: dict[str, Any] = {
                "abstained": float(abstained[found].mean()) if found.any() else None,
                "answered": float(answered.mean()),
                "judged": int(rows.sum()) if row not in NOT_FACES else 0,
                "error": None,
                "error_of_all_found": None,
                "relative": None,
                "within": None,
                "by_dataset": {},
            }
            if row not in NOT_FACES and rows.any():
                cell["error"] = float(error[rows].mean())
                cell["error_of_all_found"] = float(np.nanmean(error))
                if scored is not clean and np.nansum(clean_errors[name]):
                    expected = expected_errors(scored, clean, clean_errors[name])
                    cell |= _relative(scored, rows, error, expected)
                    for dataset in np.unique(scored.outcomes.datasets).tolist():
                        own = rows & (scored.outcomes.datasets == dataset)
                        if own.any():
                            cell["by_dataset"][dataset] = {
                                "judged": int(own.sum()),
                                "error": float(error[own].mean()),
                                **_relative(scored, own, error, expected),
                            }
            table[row][name] = cell
        some = np.any([scored.abstained[name] for name in ATTRIBUTES], axis=0)
        table[row]["abstained_from_any"] = float(some[found].mean()) if found.any() else None
        table[row]["abstained_from_any_by_dataset"] = {
            dataset: float(some[own].mean())
            for dataset in np.unique(scored.outcomes.datasets).tolist()
            if (own := found & (scored.outcomes.datasets == dataset)).any()
        }
    return table


def _relative(
    scored: Scored, rows: Mask, error: NDArray[np.float64], expected: NDArray[np.float64]
) -> dict[str, Any]:
    """Ratio of actual to expected error over some rows, if there are enough of them."""
    if rows.sum() < MIN_ANSWERED:
        return {"relative": None, "within": None}
    draws = GroupBootstrap(scored.outcomes.groups[rows])
    ratio = float(error[rows].sum() / expected[rows].sum())
    drawn = draws.sums(error[rows]) / draws.sums(expected[rows])
    relative = figure(ratio, drawn, int(rows.sum()), draws.groups)
    return {"relative": relative, "within": ratio <= RISK_LIMIT}


def with_gates(fitted: Mapping[str, Any], gates: Mapping[str, Any]) -> Calibration:
    """A calibration from fitted parts and gates."""
    return Calibration.from_dict({**fitted, "gates": gates})


def _rounded(value: float) -> float:
    """Round to three significant figures."""
    return float(f"{value:.3g}")
