"""A CSV of a model's answers for each face, beside its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from facewise.annotated import ETHNICITY_COLUMNS, GENDER_COLUMNS
from facewise.data.lists import Row
from facewise.evaluation.scoring import Scored
from facewise.files import write_csv
from facewise.labels import ATTRIBUTES, CLASSES

COLUMNS: Final = (
    "file",
    "dataset",
    "split",
    "found",
    *ATTRIBUTES,
    "age_years",
    "age_low_years",
    "age_high_years",
    *GENDER_COLUMNS,
    *ETHNICITY_COLUMNS,
    "abstained",
)
"""Columns named after an attribute are labels; answers have the same names as in ``annotate``."""

COVERAGE: Final = 0.9
"""Coverage of the age interval."""


def write_faces(path: Path, scored: Scored, splits: Mapping[tuple[str, str], str]) -> None:
    """Write the CSV; a partial file is never left behind.

    Args:
        path: the file.
        scored: the faces under the model's calibration.
        splits: data set and file name to split.
    """
    write_csv(path, COLUMNS, face_rows(scored, splits))


def face_rows(scored: Scored, splits: Mapping[tuple[str, str], str]) -> list[Row]:
    """One row per face; unknown labels, and answers for faces not found, are empty.

    Args:
        scored: as for ``write_faces``.
        splits: as for ``write_faces``.
    """
    o, intervals = scored.outcomes, scored.intervals(COVERAGE).tolist()
    out = []
    for row, (file, dataset, found) in enumerate(zip(o.keys, o.datasets, o.found, strict=True)):
        first, last = o.age_ranges[row].tolist()
        cells = {
            "file": str(file),
            "dataset": str(dataset),
            "split": splits[str(dataset), str(file)],
            "found": "true" if found else "false",
            "age": ("" if first == 0 else str(first)) if first == last else f"{first}-{last}",
        }
        for name, labels in CLASSES.items():
            label = int(scored.truth[name][row])
            cells[name] = labels[label] if label >= 0 else ""
        if found:
            low, high = intervals[row]
            cells |= {
                "age_years": f"{scored.age[row]:.2f}",
                "age_low_years": str(low),
                "age_high_years": str(high),
                "abstained": ";".join(name for name in ATTRIBUTES if scored.abstained[name][row]),
            }
            for name, columns in (("gender", GENDER_COLUMNS), ("ethnicity", ETHNICITY_COLUMNS)):
                shares = scored.probabilities[name][row].tolist()
                cells |= {c: f"{p:.5f}" for c, p in zip(columns, shares, strict=True)}
        out.append(cells)
    return out
