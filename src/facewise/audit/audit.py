"""A table to one dictionary of figures, naive and corrected; docs/audit.md describes it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facewise.audit.confusions import DEFAULT_SOURCE, LABELS, Confusions, Floats
from facewise.audit.prevalence import (
    METHODS,
    Shares,
    estimate,
    naive_shares,
    rake,
)
from facewise.audit.table import Faces
from facewise.errors import OptionError
from facewise.models import ModelSpec
from facewise.reporting.bootstrap import wilson

FORMAT: Final = 1
CROSSING_ROUNDS: Final = 100
Estimates = dict[str, dict[str, Shares]]
"""Attribute to "naive" and, where confusions are known, "corrected"."""


def read_confusions(spec: ModelSpec) -> dict[str, dict[str, Confusions]]:
    """Data set of calibration faces to attribute to confusions; empty where none were fitted."""
    stored: Mapping[str, Any] = spec.calibration.get("confusions", {})
    return {
        source: {name: Confusions.from_dict(c) for name, c in attributes.items()}
        for source, attributes in stored.items()
    }


def choose_source(known: Mapping[str, Any], wanted: str | None) -> str | None:
    """Which calibration faces the data are taken to be like.

    Raises:
        OptionError: the model has none of that name.
    """
    if wanted is not None and wanted not in known:
        have = ", ".join(known) or "none: run facewise evaluate --fit"
        raise OptionError(f"the model knows no confusions of {wanted!r}; it has {have}")
    return wanted or (DEFAULT_SOURCE if DEFAULT_SOURCE in known else next(iter(known), None))


def estimate_all(
    faces: Faces, confusions: Mapping[str, Confusions], method: str = "em", *, sample: int = 0
) -> Estimates:
    """Shares of every attribute that the table holds; ``sample`` as in ``estimate``."""
    if method not in METHODS:
        raise OptionError(f"no method {method!r}; there are {', '.join(METHODS)}")
    out: Estimates = {}
    for name in faces.probabilities:
        (p,), pictures = faces.kept([name])
        if len(p) == 0:
            continue
        counts = faces.count([name])
        out[name] = {"naive": naive_shares(p, pictures, counts=counts, sample=sample)}
        if name in confusions:
            out[name]["corrected"] = estimate(
                [p], [confusions[name]], pictures, method=method, sample=sample
            )
    return out


def audit(
    faces: Faces,
    known: Mapping[str, Mapping[str, Confusions]],
    *,
    source: str | None = None,
    method: str = "em",
    crossings: bool = True,
) -> tuple[dict[str, Any], Estimates]:
    """Figures of one table.

    Args:
        faces: the table.
        known: confusions by data set; see ``read_confusions``.
        source: the data set whose confusions to use; ``choose_source``'s choice if None.
        method: one of ``METHODS``.
        crossings: also count attributes against each other.

    Returns:
        The figures, ready for JSON, and the shares behind them with their draws.
    """
    chosen = choose_source(known, source)
    confusions = known[chosen] if chosen is not None else {}
    shares = estimate_all(faces, confusions, method)
    n = faces.faces
    known_of = {name: int(faces.count([name]).sum()) for name in faces.probabilities}
    figures: dict[str, Any] = {
        "format": FORMAT,
        "model": {"name": faces.model[0], "sha256": faces.model[1]},
        "confusions_from": chosen,
        "method": method,
        "images": faces.images,
        "faces": n,
        "tracks": {"n": faces.tracks, "rows": faces.track_rows},
        "without_face": _part(faces.without_face, faces.images),
        "errors": _part(faces.errors.total(), faces.images),
        "error_codes": dict(sorted(faces.errors.items())),
        "known_of": known_of,
        "abstained": {
            name: _part(faces.abstained[name], of) for name, of in known_of.items() if of
        },
        "faces_that_stand_for_all": len(faces.pictures),
        "attributes": {name: _attribute(name, s, known_of[name]) for name, s in shares.items()},
        "other_sources": {
            other: {
                name: corrected_values(faces, name, own[name], method)
                for name in shares
                if name in own
            }
            for other, own in known.items()
            if other != chosen and n
        },
        "crossings": _crossings(faces, confusions, shares) if crossings and n else {},
    }
    return figures, shares


def corrected_values(
    faces: Faces, name: str, confusions: Confusions, method: str
) -> dict[str, float]:
    """Corrected shares alone, for the comparison of calibration faces."""
    p, pictures = faces.kept([name])
    value = estimate(p, [confusions], pictures, method=method, rounds=2).value
    return dict(zip(LABELS[name], value.tolist(), strict=True))


def _part(count: int, n: int) -> dict[str, float]:
    low, high = wilson(count, n)
    return {"n": count, "share": count / n if n else 0.0, "low": low, "high": high}


def _attribute(name: str, shares: Mapping[str, Shares], n: int) -> list[dict[str, Any]]:
    rows = []
    for k, label in enumerate(LABELS[name]):
        row: dict[str, Any] = {"label": label}
        for kind, s in shares.items():
            low, high = s.interval()[k]
            row[kind] = {
                "share": float(s.value[k]),
                "low": float(low),
                "high": float(high),
                "count": float(s.value[k] * n),
            }
        rows.append(row)
    return rows


def _crossings(
    faces: Faces, confusions: Mapping[str, Confusions], shares: Estimates
) -> dict[str, list[dict[str, Any]]]:
    """Every pair of attributes, and all three; corrected cells add up to the corrected margins."""
    out = {}
    sets = [c for size in (2, 3) for c in itertools.combinations(shares, size)]
    for chosen in sets:
        p, pictures = faces.kept(chosen)
        counts = faces.count(chosen)
        corrected = None
        if set(chosen) <= set(confusions) and len(p[0]):
            known = [confusions[name] for name in chosen]
            free = estimate(p, known, pictures, rounds=CROSSING_ROUNDS)
            margins = [shares[name]["corrected"] for name in chosen]
            corrected = Shares(
                _raked(free.value[None], [m.value[None] for m in margins])[0],
                # Round for round: the same draws of calibration faces made both.
                _raked(free.drawn, [m.drawn[:CROSSING_ROUNDS] for m in margins]),
                free.pictures,
            )
        out[" x ".join(chosen)] = _cells(chosen, counts.ravel(), corrected)
    return out


def _raked(cells: Floats, margins: list[Floats]) -> Floats:
    shape = [margin.shape[1] for margin in margins]
    out: Floats = rake(cells.reshape(-1, *shape), margins).reshape(cells.shape)
    return out


def _cells(
    names: tuple[str, ...], counts: NDArray[np.int64], corrected: Shares | None
) -> list[dict[str, Any]]:
    n = max(int(counts.sum()), 1)
    ends = None if corrected is None else corrected.interval()
    rows = []
    for k, labels in enumerate(itertools.product(*(LABELS[name] for name in names))):
        row: dict[str, Any] = {
            "labels": list(labels),
            "naive": {"share": float(counts[k]) / n, "count": int(counts[k])},
        }
        if corrected is not None and ends is not None:
            row["corrected"] = {
                "share": float(corrected.value[k]),
                "low": float(ends[k, 0]),
                "high": float(ends[k, 1]),
                "count": float(corrected.value[k] * n),
            }
        rows.append(row)
    return rows


def changes(before: Estimates, after: Estimates) -> dict[str, list[dict[str, Any]]]:
    """Second table minus first, by attribute and label, with 95 % intervals.

    Both used the same draws of the calibration faces, so that the model's errors, which both
    share, cancel in part as they do in the change itself.
    """
    out: dict[str, list[dict[str, Any]]] = {}
    for name in before.keys() & after.keys():
        kind = "corrected" if "corrected" in before[name].keys() & after[name].keys() else "naive"
        moved, ends = before[name][kind].change_to(after[name][kind])
        out[name] = [
            {
                "label": label,
                "kind": kind,
                "change": float(value),
                "low": float(a),
                "high": float(b),
            }
            for label, value, (a, b) in zip(LABELS[name], moved, ends, strict=True)
        ]
    return {name: out[name] for name in LABELS if name in out}


def against(
    figures: Mapping[str, Any], reference: Mapping[str, Mapping[str, float]]
) -> dict[str, list[dict[str, Any]]]:
    """Shares minus a reference population's, whose own uncertainty is not known."""
    out: dict[str, list[dict[str, Any]]] = {}
    for name, wanted in reference.items():
        for row in figures["attributes"].get(name, []):
            kind = "corrected" if "corrected" in row else "naive"
            share, own = wanted[row["label"]], row[kind]
            out.setdefault(name, []).append(
                {
                    "label": row["label"],
                    "kind": kind,
                    "reference": share,
                    "change": own["share"] - share,
                    "low": own["low"] - share,
                    "high": own["high"] - share,
                }
            )
    return out
