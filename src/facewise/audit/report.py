"""An audit for people: one HTML page with plots, and a few lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facewise.reporting.plots import intervals
from facewise.reporting.report import Report


def summary(figures: Mapping[str, Any], title: str) -> str:
    """Lines for the terminal: labels that hold nothing are left out."""
    lines = [f"{title}: {_counts(figures)}"]
    for name, rows in figures["attributes"].items():
        lines.append(f"{name} (share of faces, 95 % interval)")
        for row in rows:
            naive, best = row["naive"], row.get("corrected")
            if naive["share"] < 0.0005 and (best is None or best["share"] < 0.0005):
                continue
            text = f"  {row['label']:<9} counted {naive['share']:6.1%}"
            if best is not None:
                text += (
                    f"   corrected {best['share']:6.1%} ({best['low']:.1%} to {best['high']:.1%})"
                )
            lines.append(text)
    for heading in ("change", "against_reference"):
        for name, rows in figures.get(heading, {}).items():
            lines.append(f"{name}, {heading.replace('_', ' ')} (percentage points)")
            lines += [f"  {row['label']:<9} {_points(row)}" for row in rows if _any(row)]
    lines += [f"note: {note}" for note in figures["notes"]]
    return "\n".join(lines)


def make_report(figures: Mapping[str, Any], title: str) -> Report:
    """The page."""
    report = Report(f"Who is in {title}?")
    report.text(
        "Apparent age, gender and ethnicity of the faces that were found: how a model that was "
        "taught by people's labels sees them, not who they are. " + _counts(figures)
    )
    report.bullets(figures["notes"])
    rows = [("no face found", figures["without_face"]), ("error", figures["errors"])]
    report.table(
        ["pictures", "n", "share"], [[name, f"{c['n']:,}", f"{c['share']:.2%}"] for name, c in rows]
    )
    report.table(
        ["faces abstained from", "n", "share"],
        [[name, f"{c['n']:,}", f"{c['share']:.2%}"] for name, c in figures["abstained"].items()],
    )
    for name, found in figures["attributes"].items():
        report.heading(name.capitalize())
        kind = "corrected" if "corrected" in found[0] else "naive"
        cells = {
            row["label"]: {
                "value": row[kind]["share"],
                "low": row[kind]["low"],
                "high": row[kind]["high"],
                "n": row[kind]["count"],
            }
            for row in found
        }
        said = ", ".join(
            f"{label} {c['value']:.1%}" for label, c in cells.items() if c["value"] > 0.0005
        )
        svg = intervals(cells, title=f"apparent {name}, {kind}", x_label="share of faces", line=0)
        report.figure(name, svg, f"Shares of apparent {name} with 95 % intervals: {said}.")
        report.table(
            ["label", "counted", "counted share", "corrected share", "95 % interval"],
            [_row(row) for row in found],
        )
        _differences(report, "Change from the first table", figures.get("change", {}).get(name))
        _differences(
            report, "Against the reference", figures.get("against_reference", {}).get(name)
        )
    for name, found in figures["crossings"].items():
        report.heading(f"Crossing: {name}")
        held = [r for r in found if r.get("corrected", r["naive"])["share"] >= 0.0005]
        report.table(
            ["cell", "counted", "counted share", "corrected share", "95 % interval"],
            [_row({**row, "label": ", ".join(row["labels"])}) for row in held],
        )
    return report


def _counts(figures: Mapping[str, Any]) -> str:
    return (
        f"{figures['images']:,} images, {figures['faces']:,} faces; "
        f"{figures['without_face']['n']:,} images without a face "
        f"({figures['without_face']['share']:.1%}), {figures['errors']['n']:,} errors."
    )


def _row(row: Mapping[str, Any]) -> list[str]:
    naive, best = row["naive"], row.get("corrected")
    ends = ["", ""]
    if best is not None:
        ends = [f"{best['share']:.1%}", f"{best['low']:.1%} to {best['high']:.1%}"]
    return [row["label"], f"{naive['count']:,.0f}", f"{naive['share']:.1%}", *ends]


def _differences(report: Report, title: str, rows: Sequence[Mapping[str, Any]] | None) -> None:
    if rows:
        report.heading(title, 3)
        report.table(
            ["label", "percentage points (95 % interval)"],
            [[row["label"], _points(row)] for row in rows if _any(row)],
        )


def _any(row: Mapping[str, Any]) -> bool:
    return abs(row["change"]) >= 0.0005 or row["high"] - row["low"] >= 0.001


def _points(row: Mapping[str, Any]) -> str:
    return f"{row['change'] * 100:+.1f} ({row['low'] * 100:+.1f} to {row['high'] * 100:+.1f})"
