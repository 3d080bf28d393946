"""Present an audit: an HTML page with plots, and a few lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.reporting.plots import intervals
from facewise.reporting.report import Report, escaped
from facewise.text import counted

_BEGINNING: Final = "Apparent age, gender and ethnicity of the faces that were found: "
_KEYS: Final = frozenset(("format", "confusions_from", "faces_that_stand_for_all", "notes"))
"""Keys of every file of figures, and of hardly anything else."""

_NEAR_0: Final = 0.0005
_SMALL: Final = 0.05
"""A label with a share near 0 still has its line if its interval reaches this far."""


def is_report(path: Path) -> bool:
    """Whether a file is an audit's page or figures; False if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            return f"<p>{_BEGINNING}" in text
        figures = json.loads(text)
    except (OSError, ValueError):
        return False
    return isinstance(figures, dict) and figures.keys() >= _KEYS


def summary(figures: Mapping[str, Any], title: str) -> str:
    """Lines for the terminal, without labels whose share is near 0 and surely small."""
    lines = [f"{title}: {_counts(figures)}", *_abstained(figures)]
    if (second := figures.get("second")) is not None:
        lines += [f"second table: {_counts(second)}", *_abstained(second)]
    if figures["correction"]:
        lines.append(figures["correction"])
    for name, rows in figures["attributes"].items():
        lines.append(f"apparent {name} (share of faces, {_interval(rows)})")
        for row in rows:
            naive, best = row["naive"], row.get("corrected", row["naive"])
            if max(naive["share"], best["share"]) < _NEAR_0 and best["high"] < _SMALL:
                continue
            text = f"  {row['label']:<9} counted {naive['share']:6.1%}"
            if "corrected" in row:
                text += f"   corrected {best['share']:6.1%}"
            lines.append(f"{text} ({_ends(best)})")
    for name in figures.get("change", {}):
        lines.append(f"apparent {name}, first table, second table, change in percentage points")
        lines += [
            f"  {row['label']:<9} {one['share']:6.1%} {other['share']:6.1%}   {_points(row)}"
            for row, one, other in _beside(figures, name)
        ]
    for name, rows in figures.get("against_reference", {}).items():
        lines.append(f"apparent {name}, difference from the reference (percentage points)")
        lines += [f"  {row['label']:<9} {_points(row)}" for row in rows if _any(row)]
    lines += [f"note: {note}" for note in figures["notes"]]
    return "\n".join(lines)


def make_report(figures: Mapping[str, Any], title: str) -> Report:
    """The audit's page."""
    report = Report(f"Who is in {title}?")
    report.text(
        f"{_BEGINNING}how a model trained on people's labels sees them, not who they are. "
        + _counts(figures)
    )
    if figures["correction"]:
        report.text(figures["correction"])
    report.bullets(escaped(note) for note in figures["notes"])  # they name tables
    tables = [figures, *([figures["second"]] if "second" in figures else [])]
    columns = ["n", "share"]
    if len(tables) == 2:
        columns = ["n, first", "share, first", "n, second", "share, second"]
    report.table(
        ["images", *columns],
        [
            [said, *(cell for table in tables for cell in _cells(table[key]))]
            for said, key in (("no face found", "without_face"), ("error", "errors"))
        ],
    )
    report.table(
        ["faces abstained from", *columns],
        [
            [name, *(cell for table in tables for cell in _cells(table["abstained"].get(name)))]
            for name in figures["abstained"]
        ],
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
            f"{label} {c['value']:.1%}" for label, c in cells.items() if c["value"] > _NEAR_0
        )
        svg = intervals(cells, title=f"apparent {name}, {kind}", x_label="share of faces", line=0)
        report.plot(name, svg, f"Shares of apparent {name} with 95 % intervals: {said}.")
        report.table(_columns("label", found), [_row(row) for row in found])
        if beside := list(_beside(figures, name)):
            report.heading("Compared with the second table", 3)
            report.table(
                [
                    "label",
                    f"first, {beside[0][0]['kind']} share",
                    "95 % interval",
                    f"second, {beside[0][0]['kind']} share",
                    "95 % interval",
                    "change, percentage points (95 % interval)",
                ],
                [
                    [row["label"], *_share(one), *_share(other), _points(row)]
                    for row, one, other in beside
                ],
            )
        _differences(
            report, "Compared with the reference", figures.get("against_reference", {}).get(name)
        )
    for name, found in figures["crossings"].items():
        report.heading(f"Crossing: {name}")
        if (of := figures["crossings_of"][name]) < figures["faces"]:
            report.text(
                f"Only the {of:,} of {counted(figures['faces'], 'face', 'faces')} that have all of "
                "these attributes."
            )
        held = [
            row
            for row in found
            if row["naive"]["count"] or row.get("corrected", row["naive"])["share"] >= _NEAR_0
        ]
        report.table(
            _columns("cell", held),
            [_row({**row, "label": ", ".join(row["labels"])}) for row in held],
        )
    return report


def _counts(figures: Mapping[str, Any]) -> str:
    images = "image", "images"
    if figures["tracks"]["videos"]:
        images = "image or video frame", "images and video frames"
    without, errors = figures["without_face"], figures["errors"]
    return (
        f"{counted(figures['images'], *images)}, {counted(figures['faces'], 'face', 'faces')}; "
        f"{without['n']:,} without a face ({without['share']:.1%}), "
        f"{counted(errors['n'], 'error', 'errors')} ({errors['share']:.1%} of images)."
    )


def _abstained(figures: Mapping[str, Any]) -> list[str]:
    parts = [f"{name} {c['share']:.1%}" for name, c in figures["abstained"].items()]
    return [f"abstained from, share of faces: {', '.join(parts)}"] if parts else []


def _cells(count: Mapping[str, Any] | None) -> list[str]:
    """Cells of a count; empty for an attribute that a second table lacks."""
    return ["", ""] if count is None else [f"{count['n']:,}", f"{count['share']:.2%}"]


def _beside(
    figures: Mapping[str, Any], name: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """Rows of the change, each with both tables' shares of its kind, without empty classes."""
    changed = figures.get("change", {}).get(name, [])
    if not changed:
        return
    tables = figures["attributes"][name], figures["second"]["attributes"][name]
    for row, first, second in zip(changed, *tables, strict=True):
        one, other = first[row["kind"]], second[row["kind"]]
        if _any(row) or max(one["share"], other["share"]) >= _NEAR_0:
            yield row, one, other


def _share(cell: Mapping[str, Any]) -> list[str]:
    return [f"{cell['share']:.1%}", _ends(cell)]


def _ends(cell: Mapping[str, Any]) -> str:
    return f"{cell['low']:.1%} to {cell['high']:.1%}"


def _interval(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows' intervals cover; those of counted shares ignore the model's errors."""
    if "corrected" in rows[0]:
        return "95 % interval"
    return "95 % interval over pictures and videos, as if the model never erred"


def _columns(first: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Header of a table of ``_row`` rows; counted cells of a crossing have no interval."""
    columns = [first, "counted", "counted share"]
    if rows and "corrected" in rows[0]:
        columns.append("corrected share")
    elif rows and "low" not in rows[0]["naive"]:
        return columns
    return [*columns, _interval(rows)] if rows else columns


def _row(row: Mapping[str, Any]) -> list[str]:
    naive, best = row["naive"], row.get("corrected")
    cells = [row["label"], f"{naive['count']:,.0f}", f"{naive['share']:.1%}"]
    if best is not None:
        return [*cells, *_share(best)]
    return [*cells, _ends(naive)] if "low" in naive else cells


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
    # Adding 0.0 turns -0.0 into 0.0.
    change, low, high = (round(row[key] * 100, 1) + 0.0 for key in ("change", "low", "high"))
    return f"{change:+.1f} ({low:+.1f} to {high:+.1f})"
