"""Stored calibration, applied: temperatures, conformal intervals and label sets, abstention.

Everything is fitted by ``facewise.evaluation`` on the calibration and val splits; what ships is a
handful of numbers in the model's spec, in this form::

    {"temperatures": {"age": 1.1, "gender": 1.3, "ethnicity": 1.2},
     "age_intervals": {"band_starts_years": [1, 5, ...],
                       "thresholds": {"0.9": [t of each band], ...}},
     "label_sets": {"gender": {"0.9": t, ...}, "ethnicity": {"0.9": t, ...}},
     "gates": {"quality": {"eye_distance_px": {"min": 9}, "sharpness": {"min": 0.2}, ...},
               "certainty": {"age": {"max_interval_years": 50},
                             "gender": {"min_probability": 0.6}, ...}}}

An age interval is normalised split conformal prediction (Lei et al., 2018), Mondrian by predicted
age band (Vovk et al., 2003): expected age plus and minus t times the distribution's own standard
deviation, so it is wide where the face is hard. A label set holds every label whose probability is
at least 1 - t (Sadinle et al., 2019), and the most probable one always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.errors import OptionError
from facewise.labels import AGES, expected_age
from facewise.types import FloatArray, Quality

MIN_STD_YEARS: Final = 0.5
"""Floor of the standard deviation that scales intervals: no face is surer than half a year."""

DEFAULT_BANDS: Final = (1,)
_NORMAL_QUANTILES: Final = {0.8: 1.2816, 0.9: 1.6449, 0.95: 1.96}

_REASONS: Final = {
    "eye_distance_px": ("the face is too small", ""),
    "sharpness": ("the face is too blurred", ""),
    "yaw_degrees": ("", "the face is turned too far to the side"),
    "brightness": ("the face is too dark", "the face is too bright"),
    "contrast": ("the face has too little contrast", ""),
    "detection_score": ("it may not be a face", ""),
}


def apply_temperature(probabilities: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T) over the last axis (Guo et al., 2017)."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30)) / temperature
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exp / exp.sum(axis=-1, keepdims=True)).astype(np.float32)


def age_std(ages: FloatArray) -> NDArray[np.float64]:
    """Standard deviation of age distributions, ``(..., 120)`` to ``(...,)``, in years."""
    p = ages.astype(np.float64)
    mean = p @ AGES
    variance: NDArray[np.float64] = np.maximum(p @ (AGES.astype(np.float64) ** 2) - mean**2, 0)
    return np.maximum(np.sqrt(variance), MIN_STD_YEARS)


def age_band(age_years: NDArray[np.floating[Any]], starts: tuple[int, ...]) -> NDArray[np.intp]:
    """Index of the band that each expected age falls in, rounded to whole years."""
    rounded = np.floor(np.asarray(age_years) + 0.5)
    return np.clip(np.searchsorted(starts, rounded, side="right") - 1, 0, None)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Stored numbers of one model; with none stored, everything passes unchanged."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    band_starts_years: tuple[int, ...] = DEFAULT_BANDS
    interval_thresholds: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    set_thresholds: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    quality_gates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    certainty_gates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Calibration:
        """Read the ``calibration`` part of a spec; None or empty gives the identity."""
        stored = stored or {}
        intervals = stored.get("age_intervals", {})
        gates = stored.get("gates", {})
        return cls(
            temperatures=stored.get("temperatures", {}),
            band_starts_years=tuple(intervals.get("band_starts_years", DEFAULT_BANDS)),
            interval_thresholds={
                float(level): tuple(values)
                for level, values in intervals.get("thresholds", {}).items()
            },
            set_thresholds={
                name: {float(level): float(t) for level, t in values.items()}
                for name, values in stored.get("label_sets", {}).items()
            },
            quality_gates=gates.get("quality", {}),
            certainty_gates=gates.get("certainty", {}),
        )

    @property
    def coverages(self) -> tuple[float, ...]:
        """Levels that were fitted, ascending."""
        return tuple(sorted(self.interval_thresholds or _NORMAL_QUANTILES))

    def check_coverage(self, coverage: float) -> None:
        """Raise OptionError for a level that was not fitted: no level is made up in between."""
        if coverage not in self.coverages:
            levels = ", ".join(f"{level:g}" for level in self.coverages)
            raise OptionError(f"coverage must be one of {levels}, not {coverage:g}")

    def temper(self, probabilities: FloatArray, attribute: str) -> FloatArray:
        """Apply the temperature of "age", "gender" or "ethnicity"."""
        return apply_temperature(probabilities, float(self.temperatures.get(attribute, 1.0)))

    def age_intervals(self, ages: FloatArray, coverage: float) -> NDArray[np.int64]:
        """Conformal intervals.

        Args:
            ages: tempered distributions ``(N, 120)``.
            coverage: one of ``coverages``.

        Returns:
            int64 ``(N, 2)``: first and last year, inclusive, within 1 to 120; each holds the
            expected age rounded to a year.
        """
        self.check_coverage(coverage)
        mean, std = expected_age(ages), age_std(ages)
        if self.interval_thresholds:
            table = np.array(self.interval_thresholds[coverage])
            t = table[age_band(mean, self.band_starts_years)]
        else:
            t = np.full(len(mean), _NORMAL_QUANTILES[coverage])
        # A whole year y lies inside when |y - mean| <= t * std + 0.5: the fit uses the same rule.
        first = np.ceil(mean - t * std - 0.5)
        last = np.floor(mean + t * std + 0.5)
        return np.clip(np.stack([first, last], axis=1), 1, 120).astype(np.int64)

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
        self.check_coverage(coverage)
        thresholds = self.set_thresholds.get(attribute)
        if thresholds is None:
            return [_smallest_set(p, coverage) for p in probabilities]
        least = 1.0 - thresholds[coverage]
        sets = []
        for p in probabilities:
            order = np.argsort(-p, kind="stable")
            size = max(1, int((p[order] >= least).sum()))
            sets.append(tuple(int(i) for i in order[:size]))
        return sets

    def abstentions(
        self,
        quality: Quality,
        detection_score: float,
        interval_years: tuple[int, int] | None,
        top_probability: Mapping[str, float],
    ) -> dict[str, str]:
        """What not to stand by, and why.

        Args:
            quality: of the face.
            detection_score: of the face.
            interval_years: the 90 % age interval; None where age is off.
            top_probability: largest probability by attribute, for those that are on.

        Returns:
            Attribute to a reason in words; a face that is hard to see loses all of them.
        """
        on = (["age"] if interval_years is not None else []) + list(top_probability)
        reason = self._quality_reason(quality, detection_score)
        if reason:
            return dict.fromkeys(on, reason)
        out: dict[str, str] = {}
        if interval_years is not None:
            widest = self.certainty_gates.get("age", {}).get("max_interval_years")
            width = interval_years[1] - interval_years[0]
            if widest is not None and width > widest:
                out["age"] = f"the model is too unsure: its interval spans {width} years"
        for name, probability in top_probability.items():
            least = self.certainty_gates.get(name, {}).get("min_probability")
            if least is not None and probability < least:
                out[name] = f"the model is too unsure: no answer is above {probability:.0%}"
        return out

    def _quality_reason(self, quality: Quality, detection_score: float) -> str | None:
        for name, limits in self.quality_gates.items():
            value = detection_score if name == "detection_score" else abs(getattr(quality, name))
            low, high = _REASONS[name]
            if value < limits.get("min", -np.inf):
                return f"{low} ({name} {value:.3g}, at least {limits['min']:.3g} is needed)"
            if value > limits.get("max", np.inf):
                return f"{high} ({name} {value:.3g}, at most {limits['max']:.3g} is accepted)"
        return None


def _smallest_set(p: FloatArray, coverage: float) -> tuple[int, ...]:
    """Without a fit: the most probable labels that together reach the coverage."""
    order = np.argsort(-p, kind="stable")
    size = int(np.searchsorted(np.cumsum(p[order]), coverage - 1e-6)) + 1
    return tuple(int(i) for i in order[: min(size, len(p))])
