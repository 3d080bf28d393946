"""Figures with their intervals, as cells of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NONE: Final = "-"
SHARE: Final = "share"
YEARS: Final = "_years"
RATIO: Final = "ratio"
"""Stand for a metric of that unit where a figure has none: names of metrics end in their unit."""


def number(metric: str, value: float | None) -> str:
    """A value in the unit of its metric: years, a ratio, or per cent."""
    if value is None:
        return NONE
    return f"{value:.2f}" if metric.endswith((YEARS, RATIO)) else f"{value:.1%}"


def cell(metric: str, figure: Mapping[str, Any] | None, *, counted: bool = False) -> str:
    """A value with its 95 % interval, or why it has none; with its n if ``counted``."""
    if figure is None or figure.get("value") is None:
        return NONE
    said = "too few for an interval"
    if figure.get("low") is not None and figure.get("high") is not None:
        said = f"{number(metric, figure['low'])} to {number(metric, figure['high'])}"
    n = f", n {figure['n']}" if counted else ""
    return f"{number(metric, figure['value'])} ({said}{n})"
