"""Plots as SVG text. Each takes plain numbers, as found in a results file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from facewise.reporting.bootstrap import Figure

INK: Final = ("#1b5e9e", "#c4541a", "#3c7d3c", "#7a4fa0", "#8a6d1d", "#444444")
FEW: Final = 4
"""Most curves whose legend fits inside the plot."""

LONGEST: Final = 60
"""Most characters of a label beside a plot."""

Point = Sequence[float]
"""x and y; further values are ignored."""


def _axes(width: float = 6.0, height: float = 4.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def _curve(axes: Any, number: int, name: str, points: Sequence[Point], **style: Any) -> None:
    """Plot a curve in its own colour; when colours run out, the dash pattern changes."""
    ink, dash = INK[number % len(INK)], ("-", "--", ":")[number // len(INK) % 3]
    x, y = [p[0] for p in points], [p[1] for p in points]
    axes.plot(x, y, dash, color=ink, label=name, **style)


def _legend(axes: Any, count: int) -> None:
    """Add a legend inside the plot, or beside it if it would cover the curves."""
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if count > FEW else {}
    axes.legend(frameon=False, fontsize=8, **beside)


def _label(name: str) -> str:
    """Shorten a name to leave room for the plot, and escape dollars, which begin formulas."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"
    return short.replace("$", r"\$")


def _svg(canvas: Any) -> str:
    """Render reproducible SVG: no date, no random ids, text kept as text."""
    import matplotlib as mpl

    out = io.StringIO()
    with (
        warnings.catch_warnings(),
        mpl.rc_context({"svg.hashsalt": "facewise", "svg.fonttype": "none"}),
    ):
        # The reader's fonts draw the text, and have glyphs that Matplotlib's font lacks.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing")
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def reliability(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Reliability diagram: stated probability against share right.

    Args:
        curves: points ``(mean probability, share right, n)`` by name.
        title: above the plot.
    """
    canvas, axes = _axes(4.6 if len(curves) <= FEW else 6.4, 4.2)
    axes.plot([0, 1], [0, 1], color="#999", lw=1, ls="--")
    for number, (name, points) in enumerate(curves.items()):
        _curve(axes, number, name, points, marker="o", ms=4)
    axes.set(xlabel="stated probability", ylabel="share right", title=title)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    _legend(axes, len(curves))
    return _svg(canvas)


def lines(
    curves: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Mapping[str, Point] | None = None,
) -> str:
    """Curves over a common axis, with a dot for a chosen point of each.

    Args:
        curves: points ``(x, y)`` by name.
        title: above the plot.
        x_label: below the plot.
        y_label: beside the plot.
        marks: the chosen point by name of the curve.
    """
    canvas, axes = _axes(6.0 if len(curves) <= FEW else 8.4)
    for number, (name, points) in enumerate(curves.items()):
        _curve(axes, number, name, points)
        if marks and name in marks:
            axes.plot(*marks[name][:2], "o", color=INK[number % len(INK)])
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    _legend(axes, len(curves))
    return _svg(canvas)


def intervals(figures: Mapping[str, Figure], *, title: str, x_label: str, line: float) -> str:
    """One dot with its 95 % interval per row, the first on top, and a line to compare with.

    A figure without an interval is just a dot.
    """
    canvas, axes = _axes(6.4, 1.2 + 0.26 * len(figures))
    for row, f in enumerate(figures.values()):
        if f["low"] is not None:
            axes.plot([f["low"], f["high"]], [row, row], color=INK[0], lw=1.5)
        axes.plot(f["value"], row, "o", color=INK[0], ms=5)
    axes.axvline(line, color="#999", lw=1, ls="--")
    names = [f"{_label(name)} ({f['n']:.0f})" for name, f in figures.items()]
    axes.set_yticks(range(len(figures)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=x_label, title=title)
    return _svg(canvas)


def confusion(matrix: Sequence[Sequence[int]], truth: Sequence[str], said: Sequence[str]) -> str:
    """Share of each labelled class (rows) that received each answer (columns), with counts."""
    canvas, axes = _axes(1.8 + 0.75 * len(said), 1.4 + 0.55 * len(truth))
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            ink = "white" if shares[i][j] > 0.55 else "black"
            axes.text(
                j, i, f"{shares[i][j]:.0%}\n{count}", ha="center", va="center", color=ink, size=7
            )
    axes.set_xticks(range(len(said)), said, fontsize=8)
    axes.set_yticks(range(len(truth)), truth, fontsize=8)
    axes.set(xlabel="answer", ylabel="label")
    return _svg(canvas)
