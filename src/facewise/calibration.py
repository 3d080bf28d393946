"""Applies a stored calibration: temperatures, conformal intervals and label sets, abstention.

``facewise.evaluation`` fits everything on the calibration and val splits; what ships is a handful
of numbers in the model's spec, in this form::

    {"temperatures": {"age": 1.1, "gender": 1.3, "ethnicity": 1.2},
     "age_intervals": {"band_starts_years": [1, 4, ...],
                       "age_starts_years": [1, 4, ...],
                       "thresholds": {"0.9": {"band": [t per band], "age": [...]}}},
     "label_sets": {"gender": {"0.9": [t per label]}, "ethnicity": {"0.9": [...]}},
     "gates": {"quality": {"age": {"eye_distance_px": {"min": 9}, "sharpness": {"min": 0.35}},
                           "gender": {...}},
               "certainty": {"age": {"max_interval_years": 50},
                             "gender": {"min_probability": 0.6}}}}

Age intervals use normalised split conformal prediction (Lei et al., 2018): a year y lies inside if
max(abs(y - expected age) - 0.5, 0) is at most t standard deviations of the face's own distribution,
so intervals are wide for hard faces. The threshold t is the sum of two: that of the band containing
the expected age (Mondrian; Vovk et al., 2003) and that of the band containing y itself. Summing
over overlapping groups (Gibbs, Cherian and Candes, 2023) gives children and the old their coverage
by actual age, not only by the age they were taken for. The interval is the hull of the years
inside.

A label set holds every label k whose probability is at least 1 - t_k (Sadinle et al., 2019, with
one threshold per label), and always the most probable label.

Every part may be missing, but age intervals need the level 0.9, which "max_interval_years" is
about, and attributes, measures and gates of other names are refused: they would have no effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from facewise.errors import ModelIntegrityError, OptionError
from facewise.labels import AGES, LABELS, expected_age
from facewise.types import Array, Float64Array, FloatArray, IndexArray, IntArray, Quality

MIN_STD_YEARS: Final = 0.5
"""Floor of the standard deviation that scales intervals, in years."""

DEFAULT_BANDS: Final = (1,)
LEVELS: Final = (0.8, 0.9, 0.95)
"""Coverages that are fitted, and those that a model without a fit accepts."""

DEFAULT_COVERAGE: Final = 0.9
GATE_COVERAGE: Final = 0.9
"""Coverage of the interval that decides whether an age is too uncertain, whatever was requested."""

Thresholds = tuple[float, ...]

UNSURE: Final = "the model is too unsure"
QUALITY_REASONS: Final = {
    "eye_distance_px": ("the face is too small", ""),
    "sharpness": ("the face is too blurred", "the picture is too noisy"),
    "yaw_degrees": ("", "the face is turned too far to the side"),
    "brightness": ("the face is too dark", "the face is too bright"),
    "contrast": ("the face has too little contrast", ""),
    "detection_score": ("it may not be a face", ""),
}
"""For each measure, the reasons given below and above its gate."""

GATE_SIDES: Final = {
    measure: tuple(side for side, reason in zip(("min", "max"), reasons, strict=True) if reason)
    for measure, reasons in QUALITY_REASONS.items()
}
"""For each measure, the sides that have a reason for abstention: no other side can be a gate."""

ABSTENTION_REASONS: Final = (
    *(reason for reasons in QUALITY_REASONS.values() for reason in reasons if reason),
    UNSURE,
)
"""Every reason for abstaining begins with one of these; figures follow in brackets."""


def apply_temperature(probabilities: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T) over the last axis (Guo et al., 2017)."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exp / exp.sum(axis=-1, keepdims=True)).astype(np.float32)


def age_std(ages: FloatArray) -> Float64Array:
    """Standard deviation of age distributions, ``(..., 120)`` to ``(...,)``, in years."""
    p = ages.astype(np.float64)
    mean = p @ AGES
    variance: Float64Array = np.maximum(p @ (AGES.astype(np.float64) ** 2) - mean**2, 0)
    return np.maximum(np.sqrt(variance), MIN_STD_YEARS)


def age_band(age_years: Array, starts: tuple[int, ...]) -> IndexArray:
    """Index of the band of each age; ages are first rounded to whole years."""
    rounded = np.floor(np.asarray(age_years) + 0.5)
    return np.clip(np.searchsorted(starts, rounded, side="right") - 1, 0, None)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The stored numbers of one model; without any, probabilities pass unchanged.

    Attributes:
        temperatures: by attribute.
        band_starts_years: first year of each band of the expected age.
        age_starts_years: first year of each band of the candidate age y.
        interval_thresholds: by coverage, the thresholds of both kinds of bands.
        set_thresholds: by attribute and coverage, one threshold per label.
        quality_gates: by attribute and measure, "min" and "max".
        certainty_gates: by attribute, "max_interval_years" or "min_probability".
    """

    temperatures: Mapping[str, float] = field(default_factory=dict)
    band_starts_years: tuple[int, ...] = DEFAULT_BANDS
    age_starts_years: tuple[int, ...] = DEFAULT_BANDS
    interval_thresholds: Mapping[float, tuple[Thresholds, Thresholds]] = field(default_factory=dict)
    set_thresholds: Mapping[str, Mapping[float, Thresholds]] = field(default_factory=dict)
    quality_gates: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    certainty_gates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    _reach: Mapping[float, Float64Array] = field(init=False)
    """By coverage, the threshold for each band of the expected age and each year: ``(B, 120)``."""

    def __post_init__(self) -> None:
        years = age_band(AGES, self.age_starts_years)
        reach: dict[float, Float64Array] = {}
        largest: Any = 0.0  # no interval is narrower than the expected age itself
        # Levels are fitted separately and may cross where faces are few: take the larger threshold.
        for level, (by_band, by_age) in sorted(self.interval_thresholds.items()):
            largest = np.maximum(largest, np.array(by_band)[:, None] + np.array(by_age)[years])
            reach[level] = largest
        object.__setattr__(self, "_reach", reach)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Calibration:
        """Read the ``calibration`` part of a spec; None or empty gives the identity.

        Raises:
            ModelIntegrityError: a part is missing or invalid.
        """
        try:
            calibration = cls._read(stored or {})
            calibration._check()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelIntegrityError(
                f"the model's calibration is damaged ({type(error).__name__}: {error}): "
                "reinstall facewise; mend a spec of your own, or calibrate the model again "
                "(facewise evaluate --fit)"
            ) from error
        return calibration

    @classmethod
    def _read(cls, stored: Mapping[str, Any]) -> Calibration:
        intervals = stored.get("age_intervals", {})
        gates = stored.get("gates", {})
        bands = _starts(intervals, "band_starts_years")
        ages = _starts(intervals, "age_starts_years")
        return cls(
            temperatures=stored.get("temperatures", {}),
            band_starts_years=bands,
            age_starts_years=ages,
            interval_thresholds={
                float(level): (_numbers(t["band"], len(bands)), _numbers(t["age"], len(ages)))
                for level, t in intervals.get("thresholds", {}).items()
            },
            set_thresholds={
                name: {float(level): _numbers(t, len(LABELS[name])) for level, t in levels.items()}
                for name, levels in stored.get("label_sets", {}).items()
            },
            quality_gates=gates.get("quality", {}),
            certainty_gates=gates.get("certainty", {}),
        )

    def _check(self) -> None:
        """Refuse what would fail, give nonsense or have no effect at the first face."""
        for name, temperature in _entries("temperatures", self.temperatures, LABELS):
            if not _number(f"temperatures.{name}", temperature) > 0:
                raise ValueError(f"temperatures.{name} is {temperature}, and must be above 0")
        if GATE_COVERAGE not in self.coverages:
            raise ValueError(
                f"age_intervals.thresholds has no {GATE_COVERAGE}, the level that decides whether "
                "an age is too unsure"
            )
        for name, levels in self.set_thresholds.items():
            if name == "age":
                raise ValueError("ages have intervals, no label sets")
            if missing := set(self.coverages).difference(levels):
                raise ValueError(f"no label sets of {name} at {sorted(missing)}")
        for name, measures in _entries("gates.quality", self.quality_gates, LABELS):
            for measure, limits in _entries(f"gates.quality.{name}", measures, QUALITY_REASONS):
                where = f"gates.quality.{name}.{measure}"
                for side, limit in _entries(where, limits, GATE_SIDES[measure]):
                    _number(f"{where}.{side}", limit)
        for name, gate in _entries("gates.certainty", self.certainty_gates, LABELS):
            where = f"gates.certainty.{name}"
            key = "max_interval_years" if name == "age" else "min_probability"
            for _, limit in _entries(where, gate, (key,)):
                _number(f"{where}.{key}", limit)

    @property
    def coverages(self) -> tuple[float, ...]:
        """Levels that were fitted (``LEVELS`` without a fit), ascending."""
        return tuple(sorted(self.interval_thresholds or LEVELS))

    def check_coverage(self, coverage: float) -> float:
        """Return the fitted level equal to ``coverage``; there is no interpolation.

        Raises:
            OptionError: it was not fitted.
        """
        try:  # a float32 of 0.9 means 0.9 too
            return next(level for level in self.coverages if abs(level - coverage) < 1e-6)
        except (StopIteration, TypeError, ValueError):  # not a number; an array
            levels = ", ".join(f"{level:g}" for level in self.coverages)
            raise OptionError(f"coverage must be one of {levels}, not {coverage!r}") from None

    def temper(self, probabilities: FloatArray, attribute: str) -> FloatArray:
        """Apply the temperature of "age", "gender" or "ethnicity"."""
        return apply_temperature(probabilities, float(self.temperatures.get(attribute, 1.0)))

    def age_intervals(self, ages: FloatArray, coverage: float) -> IntArray:
        """Conformal age intervals.

        Args:
            ages: tempered distributions ``(N, 120)``.
            coverage: one of ``coverages``.

        Returns:
            int64 ``(N, 2)``: first and last year, inclusive, within 1 to 120. With thresholds,
            each contains the expected age rounded to a year; without, it is the distribution's own
            central interval. An interval contains those of all lower coverages.
        """
        coverage = self.check_coverage(coverage)
        if not self.interval_thresholds:
            return _central_intervals(ages, coverage)
        mean, std = expected_age(ages), age_std(ages)
        bands = age_band(mean, self.band_starts_years)
        distance = np.maximum(np.abs(AGES - mean[:, None]) - 0.5, 0) / std[:, None]
        inside = distance <= self._reach[coverage][bands]  # (N, 120); the expected age is at 0
        first = inside.argmax(axis=1) + 1
        last = len(AGES) - inside[:, ::-1].argmax(axis=1)
        return np.stack([first, last], axis=1).astype(np.int64)

    def label_sets(
        self, probabilities: FloatArray, attribute: str, coverage: float
    ) -> list[tuple[int, ...]]:
        """Conformal label sets.

        Args:
            probabilities: tempered ``(N, K)``.
            attribute: "gender" or "ethnicity".
            coverage: one of ``coverages``.

        Returns:
            N tuples of indices, most probable first, never empty.
        """
        coverage = self.check_coverage(coverage)
        thresholds = self.set_thresholds.get(attribute)
        if thresholds is None:
            return [_smallest_set(p, coverage) for p in probabilities]
        least = 1.0 - np.array(thresholds[coverage])
        sets = []
        for p in probabilities:
            order = np.argsort(-p, kind="stable")
            sets.append(tuple(int(k) for i, k in enumerate(order) if i == 0 or p[k] >= least[k]))
        return sets

    def abstentions(
        self,
        quality: Quality,
        detection_score: float,
        interval_years: tuple[int, int] | None,
        top_probability: Mapping[str, float],
    ) -> dict[str, str]:
        """Which attributes to abstain from, and why.

        Args:
            quality: of the face.
            detection_score: of the face.
            interval_years: the age interval at ``GATE_COVERAGE``; None if age is off.
            top_probability: largest probability by attribute, for those that are on.

        Returns:
            Reasons by attribute: one of ``ABSTENTION_REASONS``, then figures in brackets.
        """
        on = (["age"] if interval_years is not None else []) + list(top_probability)
        out: dict[str, str] = {}
        for name in on:
            reason = self._quality_reason(name, quality, detection_score)
            gate = self.certainty_gates.get(name, {})
            if reason is None and name == "age" and interval_years is not None:
                width = interval_years[1] - interval_years[0]
                if width > gate.get("max_interval_years", np.inf):
                    reason = f"{UNSURE} (its {GATE_COVERAGE:.0%} interval spans {width} years)"
            elif reason is None and top_probability[name] < gate.get("min_probability", 0.0):
                reason = f"{UNSURE} (no answer is above {top_probability[name]:.0%})"
            if reason is not None:
                out[name] = reason
        return out

    def _quality_reason(
        self, attribute: str, quality: Quality, detection_score: float
    ) -> str | None:
        for name, limits in self.quality_gates.get(attribute, {}).items():
            value = detection_score if name == "detection_score" else abs(getattr(quality, name))
            low, high = QUALITY_REASONS[name]
            if value < limits.get("min", -np.inf):
                return f"{low} ({name} {value:.3g}, at least {limits['min']:.3g} is needed)"
            if value > limits.get("max", np.inf):
                return f"{high} ({name} {value:.3g}, at most {limits['max']:.3g} is accepted)"
        return None


def _entries(where: str, stored: Any, known: Collection[str]) -> Iterable[tuple[str, Any]]:
    """Names and values of a part of a spec; an unknown name would silently have no effect."""
    if not isinstance(stored, Mapping):
        raise ValueError(f"{where} must be names with values, not {stored!r}")
    if unknown := sorted(set(stored).difference(known)):
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"{where} has {names}; it may have {', '.join(known)}")
    return stored.items()


def _number(where: str, value: Any) -> float:
    """A number of a spec."""
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{where} is {value!r}, which is no number")
    return value


def _starts(intervals: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """First years of the bands that ages are divided into."""
    starts = tuple(intervals.get(name, DEFAULT_BANDS))
    if not starts or not all(isinstance(year, int) for year in starts):
        raise ValueError(
            f"age_intervals.{name} must be one or more whole years, not {list(starts)}"
        )
    if any(later <= year for year, later in itertools.pairwise(starts)):
        raise ValueError(f"age_intervals.{name} must ascend, not {list(starts)}")
    return starts


def _numbers(values: Any, count: int) -> Thresholds:
    """Stored thresholds; a single number stands for all ``count`` of them."""
    numbers = (values,) * count if isinstance(values, int | float) else tuple(values)
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} thresholds where {count} belong")
    return tuple(float(v) for v in numbers)


def _central_intervals(ages: FloatArray, coverage: float) -> IntArray:
    """Years between the two tails of (1 - coverage) / 2 each, both ends inclusive."""
    below = np.cumsum(ages.astype(np.float64), axis=1)
    # The probabilities of a face that was not found, when labelled faces are scored, are all 0.
    below /= np.maximum(below[:, -1:], np.finfo(np.float64).tiny)
    tail = (1 - coverage) / 2
    first = (below > tail).argmax(axis=1) + 1
    last = (below >= 1 - tail).argmax(axis=1) + 1
    return np.stack([first, last], axis=1).astype(np.int64)


def _smallest_set(p: FloatArray, coverage: float) -> tuple[int, ...]:
    """Label set without a fit: the most probable labels that together reach the coverage."""
    order = np.argsort(-p, kind="stable")
    size = int(np.searchsorted(np.cumsum(p[order]), coverage - 1e-6)) + 1
    return tuple(int(i) for i in order[: min(size, len(p))])
