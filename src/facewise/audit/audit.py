"""Compute an audit's figures from faces, naive and corrected; docs/audit.md describes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from facewise.audit.known import Known, choose_sources
from facewise.audit.prevalence import (
    METHODS,
    CombinedShares,
    Shares,
    classify_and_count,
    combine,
    estimate,
    rake,
)
from facewise.audit.table import Faces
from facewise.errors import OptionError
from facewise.labels import LABELS
from facewise.reporting.confusions import Confusions
from facewise.types import Float64Array, IntArray

FORMAT: Final = 2
CROSSING_ROUNDS: Final = 100

FEW_FACES: Final = 30
"""Fewer faces are not corrected: the most likely shares of a handful put all in one class."""

Estimates = dict[str, dict[str, CombinedShares]]
"""Attribute to "naive" and, if it is corrected, "corrected" shares."""


def estimate_all(faces: Faces, sources: Known, method: str = "em", *, sample: int = 0) -> Estimates:
    """Shares of every attribute in the table; for ``sample`` see ``estimate``."""
    if method not in METHODS:
        raise OptionError(f"no method {method!r}; there are {', '.join(METHODS)}")
    out: Estimates = {}
    for name in faces.probabilities:
        (p,), pictures = faces.kept([name])
        counts = faces.count([name])
        if counts.sum() == 0:
            continue
        naive = classify_and_count(p, pictures, counts=counts, sample=sample)
        out[name] = {"naive": CombinedShares(naive.value, {"": naive})}
        own = {source: c[name] for source, c in sources.items() if name in c}
        if own and len(p) >= FEW_FACES:
            parts = {
                source: estimate([p], [c], pictures, counts=counts, method=method, sample=sample)
                for source, c in own.items()
            }
            out[name]["corrected"] = combine(parts, naive.value)
    return out


def audit_faces(
    faces: Faces,
    known: Known,
    *,
    source: str | None = None,
    method: str = "em",
    crossings: bool = True,
) -> tuple[dict[str, Any], Estimates]:
    """Figures of one table.

    Args:
        faces: the table.
        known: confusions of the very model that made the table; see ``known_confusions``.
        source: the data set whose confusions to use; None for all.
        method: one of ``METHODS``.
        crossings: also cross-tabulate the attributes.

    Returns:
        The figures, ready for JSON, and the underlying shares with their draws.
    """
    sources = choose_sources(known, source)
    shares = estimate_all(faces, sources, method)
    corrected = {name: s["corrected"] for name, s in shares.items() if "corrected" in s}
    used = [name for name in sources if any(name in s.parts for s in corrected.values())]
    n = faces.faces
    known_of = {name: int(faces.count([name]).sum()) for name in faces.probabilities}
    figures: dict[str, Any] = {
        "format": FORMAT,
        "model": {"name": faces.model[0], "sha256": faces.model[1]},
        "confusions_from": used,
        "correction": _correction(used, None if source else faces.model[0]),
        "method": method,
        "images": faces.images,
        "images_named_again": faces.shared,
        "faces": n,
        "tracks": {"n": faces.tracks, "rows": faces.track_rows, "videos": faces.videos},
        "without_face": _part(faces.without_face, faces.images),
        "errors": _part(faces.errors.total(), faces.images),
        "error_codes": dict(sorted(faces.errors.items())),
        "known_of": known_of,
        "too_few_to_correct": [
            name
            for name, s in shares.items()
            if "corrected" not in s and any(name in own for own in sources.values())
        ],
        "abstained": {
            name: _part(faces.abstained[name], of) for name, of in known_of.items() if of
        },
        "faces_that_stand_for_all": len(faces.pictures),
        "their_pictures": {"n": faces.named, "distinct": len(np.unique(faces.pictures))},
        "attributes": {name: _attribute(name, s, known_of[name]) for name, s in shares.items()},
        "by_source": {
            each: {
                name: _corrected_values(faces, name, own[name], s, each, method)
                for name, s in corrected.items()
                if name in own
            }
            for each, own in known.items()
        },
        "crossings": {},
        "crossings_of": {},
    }
    if crossings:
        figures["crossings"] = _crossings(faces, sources, shares, method)
        figures["crossings_of"] = {
            " x ".join(chosen): int(faces.count(chosen).sum()) for chosen in _combined(shares)
        }
    return figures, shares


def _correction(sources: Sequence[str], model: str | None) -> str | None:
    """The assumption behind corrected shares, in a sentence; None if there are none.

    Args:
        sources: data sets whose confusions were used.
        model: name of the model, to say so if it has no others; None if the user chose a source.
    """
    if not sources:
        return None
    if len(sources) == 1:
        only = sources[0]
        said = (
            f"corrected as if the model errs on these faces as on {only}'s; intervals do not "
            "allow for it erring otherwise"
        )
        if model is None:
            return said
        return (
            f"the errors of {model} are known on one kind of photos, {only}: if yours are labelled "
            f"or collected otherwise, trust the counted shares; {said}"
        )
    every = " or as on ".join(f"{source}'s" for source in sources)
    return (
        f"corrected: intervals hold whether the model errs on these faces as on {every}, and "
        "counted shares are moved only as far as these corrections agree; --confusions "
        f"{' or '.join(sources)}, for the one that yours resemble, narrows the intervals"
    )


def _corrected_values(
    faces: Faces,
    name: str,
    confusions: Confusions,
    shares: CombinedShares,
    source: str,
    method: str,
) -> dict[str, float]:
    """Shares corrected by one source alone, whether or not the audit used it."""
    if source in shares.parts:
        value = shares.parts[source].value
    else:
        p, pictures = faces.kept([name])
        counts = faces.count([name])
        value = estimate(p, [confusions], pictures, counts=counts, method=method, rounds=2).value
    return dict(zip(LABELS[name], value.tolist(), strict=True))


def _part(count: int, n: int) -> dict[str, float]:
    return {"n": count, "share": count / n if n else 0.0}


def _attribute(name: str, shares: Mapping[str, CombinedShares], n: int) -> list[dict[str, Any]]:
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
    faces: Faces, sources: Known, shares: Estimates, method: str
) -> dict[str, list[dict[str, Any]]]:
    """Cells of every pair of attributes, and of all three, for the faces that have them all.

    Corrected cells add up to the attributes' corrected shares among the same faces.
    """
    out = {}
    for chosen in _combined(shares):
        p, pictures = faces.kept(chosen)
        counts = faces.count(chosen)
        known = {
            source: [own[name] for name in chosen]
            for source, own in sources.items()
            if all(name in own for name in chosen)
        }
        corrected = None
        if known and len(pictures) >= FEW_FACES:
            margins = [
                shares[name]["corrected"]
                if counts.sum() == faces.count([name]).sum()
                else _margin(faces, name, chosen, sources, method)
                for name in chosen
            ]
            parts = {}
            for source, confusions in known.items():
                free = estimate(p, confusions, pictures, counts=counts, rounds=CROSSING_ROUNDS)
                own = [margin.parts[source] for margin in margins]
                parts[source] = Shares(
                    _raked(free.value[None], [m.value[None] for m in own])[0],
                    # Matched by round: both used the same draws of calibration faces.
                    _raked(free.drawn, [m.drawn[:CROSSING_ROUNDS] for m in own]),
                    free.pictures,
                    free.drawn_from,
                )
            free_value = combine(parts, counts.ravel() / counts.sum()).value
            value = _raked(free_value[None], [m.value[None] for m in margins])[0]
            corrected = CombinedShares(value, parts)
        out[" x ".join(chosen)] = _cells(chosen, counts.ravel(), corrected)
    return out


def _combined(names: Iterable[str]) -> list[tuple[str, ...]]:
    every = list(names)
    return [chosen for size in (2, 3) for chosen in itertools.combinations(every, size)]


def _margin(
    faces: Faces, name: str, chosen: tuple[str, ...], sources: Known, method: str
) -> CombinedShares:
    """Corrected shares of one attribute among the faces that have all the chosen ones.

    These may differ from the rest: photos have an ethnicity, video tracks often have none.
    """
    axis = chosen.index(name)
    p, pictures = faces.kept(chosen)
    counts = faces.count(chosen).sum(tuple(a for a in range(len(chosen)) if a != axis))
    parts = {
        source: estimate(
            [p[axis]], [c[name]], pictures, counts=counts, method=method, rounds=CROSSING_ROUNDS
        )
        for source, c in sources.items()
        if name in c
    }
    return combine(parts, counts / counts.sum())


def _raked(cells: Float64Array, margins: list[Float64Array]) -> Float64Array:
    shape = [margin.shape[1] for margin in margins]
    return rake(cells.reshape(-1, *shape), margins).reshape(cells.shape)


def _cells(
    names: tuple[str, ...], counts: IntArray, corrected: CombinedShares | None
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

    Both use the same draws of calibration faces, so the model errors that they share partly cancel
    in the intervals, as they do in the change itself.
    """
    out: dict[str, list[dict[str, Any]]] = {}
    for name in before.keys() & after.keys():
        corrected = [s[name]["corrected"] for s in (before, after) if "corrected" in s[name]]
        alike = len(corrected) == 2 and corrected[0].parts.keys() == corrected[1].parts.keys()
        kind = "corrected" if alike else "naive"
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


def compare_with_reference(
    figures: Mapping[str, Any], reference: Mapping[str, Mapping[str, float]]
) -> dict[str, list[dict[str, Any]]]:
    """Shares minus a reference population's, whose uncertainty is unknown."""
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
