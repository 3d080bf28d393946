"""How a model confuses classes: fitted on calibration faces, stored in the spec, and resampled.

Stored for each attribute and data set of calibration faces::

    {"labels": ["male", "female"], "n": [1050, 977],
     "counts": [[946, 104], [127, 850]],          # rows are labels, columns answers
     "offsets": [0.02, -0.02],
     "covariance": [[...], [...]]}

``offsets`` turn calibrated probabilities into likelihood ratios: P(face | class k) is proportional
to p_k exp(offset_k). An offset is the bias that makes the probabilities right on average in each
class (bias-corrected calibration; Alexandari, Kundaje and Shrikumar, 2020), minus the log of the
class's share of the calibration faces. ``covariance``, of the offsets, sums three uncertainties:
over draws of the calibration faces, within each class and with near-duplicates together; what the
ridge leaves open for classes with hardly a face; and over class priors that the calibration faces
might have had. If a bias were the probabilities' only error, the offsets would not depend on the
priors; to the extent that they move away from the stored ones, no data set's offsets are known more
precisely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facewise.errors import ModelIntegrityError
from facewise.labels import (
    LABELS,
    ages_to_decades,
    years_within,
)
from facewise.types import AnyIntArray, BoolArray, Float64Array, FloatArray, IndexArray, TextArray

RIDGE: Final = 1.0
"""Pulls the biases of classes with hardly a face towards 0, with the weight of one face."""


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """The confusions of one attribute with K classes.

    Attributes:
        n: calibration faces of each class, ``(K,)``.
        counts: labels (rows) by answers (columns), ``(K, K)``.
        offsets: log likelihood ratio minus log probability, ``(K,)``.
        covariance: of the offsets, ``(K, K)``.
    """

    n: Float64Array
    counts: Float64Array
    offsets: Float64Array
    covariance: Float64Array

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Confusions:
        """Read what ``fit_confusions`` wrote.

        Raises:
            ModelIntegrityError: it is malformed.
        """
        try:
            k = len(stored["labels"])
            arrays = [np.array(stored[name], np.float64) for name in cls.__dataclass_fields__]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelIntegrityError(_MALFORMED.format(error)) from error
        if [a.shape for a in arrays] != [(k,), (k, k), (k,), (k, k)]:
            raise ModelIntegrityError(_MALFORMED.format("wrong shapes"))
        return cls(*arrays)

    def draw_offsets(self, rounds: int, rng: np.random.Generator) -> Float64Array:
        """Offsets that other calibration faces would have given, ``(rounds, K)``."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return self.offsets + rng.standard_normal((rounds, len(self.n))) @ root.T

    def shares(self) -> Float64Array:
        """P(answer | class), with half a face added to each class's right answer: ``(K, K)``."""
        padded = self.counts + 0.5 * np.eye(len(self.n))
        return padded / padded.sum(1, keepdims=True)

    def draw_shares(self, rounds: int, rng: np.random.Generator) -> Float64Array:
        """``shares`` that other calibration faces would have given, ``(rounds, K, K)``."""
        alpha = self.counts + 0.5 * np.eye(len(self.n))
        drawn = rng.gamma(np.maximum(alpha, 1e-9), size=(rounds, *alpha.shape))
        return drawn / np.maximum(drawn.sum(-1, keepdims=True), 1e-300)


PRIORS_DRAWN: Final = 40
"""Class priors drawn to measure how the offsets depend on those of the calibration faces."""

LEAST_PRIOR, MOST_PRIOR = 0.02, 0.8
MOST_WEIGHT: Final = 8.0
"""Limit for a calibration face under drawn priors: two or three faces must not dominate."""

_TINY: Final = np.finfo(np.float32).tiny

_MALFORMED: Final = (
    "the model's confusions are malformed ({}): reinstall facewise, or run facewise evaluate --fit"
)


def class_masses(probabilities: FloatArray, labels: AnyIntArray) -> tuple[FloatArray, FloatArray]:
    """Probabilities ``(N, K)``, and the part of each row that agrees with its label.

    That part is never quite 0, however sure the model is of another class.
    """
    mine = labels[:, None] == np.arange(probabilities.shape[1])
    return probabilities, np.where(mine, np.maximum(probabilities, _TINY), 0).astype(np.float32)


def decade_masses(ages: FloatArray, ranges: AnyIntArray) -> tuple[FloatArray, FloatArray]:
    """Probabilities of decades ``(N, 12)``, and the part of each row that agrees with its label.

    Args:
        ages: distributions over years ``(N, 120)``.
        ranges: first and last year of the label, ``(N, 2)``: equal, or an age group.
    """
    inside = np.where(years_within(ranges), np.maximum(ages, _TINY), 0).astype(np.float32)
    return ages_to_decades(ages), ages_to_decades(inside)


def fit_confusions(
    probabilities: FloatArray,
    inside: FloatArray,
    labels: Sequence[str],
    groups: TextArray | None = None,
) -> dict[str, Any]:
    """Fit one attribute on calibration faces; the module docstring describes the result.

    Args:
        probabilities: calibrated, ``(N, K)``.
        inside: the part of each that agrees with the face's label, ``(N, K)``: see
            ``class_masses`` and ``decade_masses``. An age group may span two decades.
        labels: names of the K classes.
        groups: shared by near-duplicates, ``(N,)``.
    """
    p = np.maximum(probabilities.astype(np.float64), 1e-9)
    mass = np.where(inside > 0, np.maximum(inside.astype(np.float64), 1e-9), 0)
    even = np.ones(len(p))
    bias = _fit_bias(p, mass, even)
    member, said = _normal(mass * np.exp(bias)), _normal(p * np.exp(bias))  # (N, K)
    n = member.sum(0)
    hard = np.eye(len(labels))[p.argmax(1)]
    covariance = _covariance(member, said, groups) + _across_priors(p, mass, member.argmax(1))
    return {
        "labels": list(labels),
        "n": [round(float(v), 1) for v in n],
        "counts": np.round(member.T @ hard, 1).tolist(),
        "offsets": np.round(_offsets(bias, mass, even), 4).tolist(),
        "covariance": np.round(covariance, 6).tolist(),
    }


def _offsets(bias: Float64Array, mass: Float64Array, weights: Float64Array) -> Float64Array:
    n = np.maximum(weights @ _normal(mass * np.exp(bias)), 0.5)
    return bias - np.log(n / n.sum())


def _across_priors(p: Float64Array, mass: Float64Array, labels: IndexArray) -> Float64Array:
    """How far the offsets move under log-uniformly drawn class priors of the calibration faces.

    Mean products of their distances from the offsets under the priors that the faces have: those
    are what is stored, so a move that most priors agree on counts too.

    Args:
        p: probabilities ``(N, K)``.
        mass: the part of each that agrees with the label.
        labels: classes to weight by, ``(N,)``.
    """
    rng = np.random.default_rng(0)
    faces = np.bincount(labels, minlength=p.shape[1])
    held = faces > 0

    def offsets(weights: Float64Array) -> Float64Array:
        return _offsets(_fit_bias(p, mass, weights), mass, weights)

    stored = offsets(np.ones(len(p)))
    moves = np.zeros((PRIORS_DRAWN, len(faces)))
    for move in moves:
        drawn = rng.uniform(np.log(LEAST_PRIOR), np.log(MOST_PRIOR), len(faces))
        priors = _limited(np.where(held, np.exp(drawn), 0), MOST_WEIGHT * faces / len(p))
        away = offsets((len(p) * priors / np.maximum(faces, 1))[labels]) - stored
        # What all offsets share changes no result; those of classes without a face are unknown.
        move[held] = away[held] - away[held].mean()
    return moves.T @ moves / PRIORS_DRAWN


def _limited(priors: Float64Array, most: Float64Array) -> Float64Array:
    """Priors that sum to 1, none above its limit: what one class cannot take, the others share.

    Args:
        priors: ``(K,)``, of any sum.
        most: limits ``(K,)``, which sum to more than 1.
    """
    limited: Float64Array = priors / priors.sum()
    full = np.zeros(len(priors), bool)
    while (limited > most).any():  # each round brings at least one more class to its limit
        full |= limited > most
        share = (1 - most[full].sum()) / priors[~full].sum()
        limited = np.where(full, most, priors * share)
    return limited


def _normal(weights: Float64Array) -> Float64Array:
    return weights / weights.sum(1, keepdims=True)


def _information(said: Float64Array, weights: Float64Array) -> Float64Array:
    """Curvature of the likelihood in the biases, including the ridge."""
    weighted = said * weights[:, None]
    return np.diag(weighted.sum(0)) - weighted.T @ said + RIDGE * np.eye(said.shape[1])


def _fit_bias(p: Float64Array, mass: Float64Array, weights: Float64Array) -> Float64Array:
    """Maximum-likelihood biases, summing to about 0, by Newton steps that each gain.

    The curvature of the labels' own part is left out, which only makes steps shorter.

    Args:
        p: probabilities ``(N, K)``.
        mass: the part of each that agrees with the label.
        weights: one per face, ``(N,)``.
    """
    bias = np.zeros(p.shape[1])
    for _ in range(200):
        said = _normal(p * np.exp(bias))
        gradient = weights @ (_normal(mass * np.exp(bias)) - said) - RIDGE * bias
        step = np.clip(np.linalg.solve(_information(said, weights), gradient), -1, 1)
        bias = bias + step
        if np.abs(step).max() < 1e-6:
            break
    return bias


def _covariance(member: Float64Array, said: Float64Array, groups: TextArray | None) -> Float64Array:
    """Sandwich estimate over draws of near-duplicate groups, within each class separately.

    Class shares among the calibration faces differ from those in a user's data, so they are held
    fixed; if they were drawn too, biases and shares would move together and cancel.
    """
    label = member.argmax(1)
    codes = np.arange(len(member)) if groups is None else np.unique(groups, return_inverse=True)[1]
    gradients = member - said
    for k in np.unique(label):
        gradients[label == k] -= gradients[label == k].mean(0)
    sums = np.zeros((codes.max() + 1, member.shape[1]))
    np.add.at(sums, codes, gradients)
    bread = np.linalg.inv(_information(said, np.ones(len(said))))
    # As a prior, the ridge contributes variance too: a class without calibration faces would
    # otherwise seem the best known of all.
    return bread @ (sums.T @ sums + RIDGE * np.eye(member.shape[1])) @ bread


def fit_sources(
    datasets: TextArray,
    found: BoolArray,
    groups: TextArray,
    ages: FloatArray,
    age_ranges: AnyIntArray,
    classes: Mapping[str, tuple[FloatArray, AnyIntArray]],
) -> dict[str, dict[str, Any]]:
    """The ``confusions`` of a spec's calibration: ``fit_confusions`` by data set and attribute.

    Args:
        datasets: name for each face, ``(N,)``.
        found: mask of the faces to use.
        groups: shared by near-duplicates.
        ages: calibrated distributions over years ``(N, 120)``.
        age_ranges: first and last year of each label; 0 if unknown.
        classes: for gender and ethnicity, calibrated probabilities and labels (-1 if unknown).
    """
    out: dict[str, dict[str, Any]] = {}
    for source in np.unique(datasets):
        mine = found & (datasets == source)
        rows = mine & (age_ranges[:, 0] > 0)
        fitted = {}
        if rows.any():
            p, inside = decade_masses(ages[rows], age_ranges[rows])
            fitted["age"] = fit_confusions(p, inside, LABELS["age"], groups[rows])
        for name, (probabilities, labels) in classes.items():
            rows = mine & (labels >= 0)
            if rows.any():
                p, inside = class_masses(probabilities[rows], labels[rows])
                fitted[name] = fit_confusions(p, inside, LABELS[name], groups[rows])
        if fitted:
            out[str(source)] = fitted
    return out
