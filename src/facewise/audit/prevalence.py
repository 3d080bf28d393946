"""Estimate class shares in a data set from a model's answers on its faces, with 95 % intervals.

The literature calls this quantification, and the shares class priors or prevalences. Naive shares
are those of the answers (classify and count; Forman, 2008). Two corrections assume that the model
sees faces of a class as it saw the calibration faces of that class, whatever the shares (label
shift, or prior probability shift):

- ``em``: the shares that maximise the likelihood of the calibrated probabilities, by expectation
  maximisation (SLD, or EMQ; Saerens, Latinne and Decaestecker, 2002);
- ``adjusted``: adjusted count, the shares that maximise the likelihood of the counted answers given
  the confusion matrix (Forman, 2008; maximum likelihood keeps shares from falling below 0).

Each bootstrap round redraws the data set's pictures and the calibration faces, and allows for
offsets that depend on the class priors of the calibration faces
(``facewise.reporting.confusions``). Here a video counts as a picture, and its tracks as faces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facewise.reporting.bootstrap import wilson
from facewise.reporting.confusions import Confusions
from facewise.types import (
    AnyIntArray,
    Array,
    BoolArray,
    Float64Array,
    FloatArray,
    IndexArray,
    IntArray,
)

ROUNDS: Final = 300
MOST_DRAWN: Final = 20_000
"""Faces per bootstrap round of a correction; a sample of pictures represents larger data sets."""

CELLS_DRAWN: Final = 2_000_000
"""Faces times cells per bootstrap round: crossings have many cells."""

CELLS_HELD: Final = 6_000_000
"""Faces times cells in the estimate itself; above it, a sample of pictures is used."""

NO_SHARE: Final = 0.002
"""Expectation maximisation approaches 0 but never reaches it: lower ends below this become 0."""

FEW_PICTURES: Final = 30
"""With fewer pictures or videos, draws vary too little; with a single one, not at all."""

METHODS: Final = ("em", "adjusted")
_STEPS: Final = 1000
_STILL: Final = 2e-6


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Shares of K cells, summing to 1.

    Attributes:
        value: ``(K,)``.
        drawn: shares in each bootstrap round, ``(rounds, K)``.
        pictures: number of pictures that the shares describe.
        drawn_from: number of pictures that the rounds drew from: fewer if a sample stands for all.
    """

    value: Float64Array
    drawn: Float64Array
    pictures: int
    drawn_from: int

    def interval(self) -> Float64Array:
        """Lower and upper ends of the 95 % intervals, ``(K, 2)``.

        Draws vary too little for a class that no face, or every face, belongs to, and if they are
        from few pictures. There, the interval is at least as wide as Wilson's, where each picture
        is one observation, however many faces it has.
        """
        ends = _quantiles(self.drawn)
        # A share must lie in its own interval, even if it is 0 in most rounds.
        ends[:, 0] = np.minimum(ends[:, 0], self.value)
        ends[:, 1] = np.maximum(ends[:, 1], self.value)
        ends[(ends[:, 0] > 0) & (ends[:, 0] < NO_SHARE), 0] = 0
        # Shares next to 0 or 1 count as 0 or 1.
        seen = np.where(self.value < NO_SHARE, 0, self.value)
        seen = np.where(seen > 1 - NO_SHARE, 1, seen)
        for k in np.flatnonzero(self.drawn_too_alike()):
            low, high = wilson(float(seen[k]) * self.pictures, self.pictures)
            ends[k] = min(ends[k, 0], low), max(ends[k, 1], high)
        return ends

    def drawn_too_alike(self) -> BoolArray:
        """Cells whose draws vary too little: those near 0 or 1, or all if from few pictures."""
        at_end = (self.value < NO_SHARE) | (self.value > 1 - NO_SHARE)
        return at_end | (self.drawn_from < FEW_PICTURES)

    def change_to(self, later: Shares) -> tuple[Float64Array, Float64Array]:
        """Later shares minus these, ``(K,)``, and their 95 % interval, ``(K, 2)``.

        Rounds are paired. If either share is near 0 or 1 or based on few pictures, its draws vary
        too little, and the interval covers at least both shares' own intervals combined (Newcombe,
        1998).
        """
        moved = later.value - self.value
        ends = _quantiles(later.drawn - self.drawn)
        mine, other = self.interval(), later.interval()
        down = np.hypot(later.value - other[:, 0], mine[:, 1] - self.value)
        up = np.hypot(other[:, 1] - later.value, self.value - mine[:, 0])
        alike = self.drawn_too_alike() | later.drawn_too_alike()
        ends[:, 0] = np.minimum(ends[:, 0], moved - np.where(alike, down, 0))
        ends[:, 1] = np.maximum(ends[:, 1], moved + np.where(alike, up, 0))
        return moved, ends


@dataclass(frozen=True, slots=True, eq=False)
class CombinedShares:
    """Shares by one correction, or by several of which any might be the right one.

    Attributes:
        value: ``(K,)``, summing to 1.
        parts: each correction's shares, by its source.
    """

    value: Float64Array
    parts: Mapping[str, Shares]

    def interval(self) -> Float64Array:
        """Lowest and highest ends of any correction's intervals, ``(K, 2)``."""
        return _hull([part.interval() for part in self.parts.values()], self.value)

    def change_to(self, later: CombinedShares) -> tuple[Float64Array, Float64Array]:
        """Later shares minus these, and an interval that contains every correction's.

        Each correction assumes that both tables' faces resemble the same calibration faces.
        """
        moved = later.value - self.value
        return moved, _hull(
            [part.change_to(later.parts[source])[1] for source, part in self.parts.items()], moved
        )


def combine(parts: Mapping[str, Shares], counted: Float64Array) -> CombinedShares:
    """Combine corrections: a single one is kept, several move shares only as far as they agree.

    Where corrections disagree, counted shares are often closer to the truth than their mean. So a
    counted share stands unless three quarters of every correction's draws lie on the same side of
    it; then the nearest of these quartiles replaces it.

    Args:
        parts: shares of the same cells, by source.
        counted: shares of the answers, ``(K,)``.
    """
    if len(parts) == 1:
        return CombinedShares(next(iter(parts.values())).value, parts)
    quartiles = [np.quantile(part.drawn, [0.25, 0.75], axis=0) for part in parts.values()]
    low, high = np.min(quartiles, axis=0)[0], np.max(quartiles, axis=0)[1]
    value = np.clip(counted, low, high)
    return CombinedShares(value / value.sum(), parts)


def _hull(ends: Sequence[Float64Array], value: Float64Array) -> Float64Array:
    return np.stack(
        [
            np.minimum(np.min(ends, axis=0)[:, 0], value),
            np.maximum(np.max(ends, axis=0)[:, 1], value),
        ],
        axis=1,
    )


def _quantiles(drawn: Float64Array) -> Float64Array:
    return np.quantile(drawn, [0.025, 0.975], axis=0).T


def em_shares(ratios: Array, weights: Float64Array, scales: Float64Array) -> Float64Array:
    """Maximum likelihood class priors by expectation maximisation, for many rounds at once.

    Each step is that of Saerens, Latinne and Decaestecker (2002): the mean of the posteriors under
    the previous step's priors.

    Args:
        ratios: P(face | class) up to one factor per face, ``(N, K)``, or ``(rounds, N, K)`` if they
            differ between rounds.
        weights: weight of each face in each round, ``(N, rounds)``.
        scales: factors on the classes' ratios in each round, ``(K, rounds)``.

    Returns:
        ``(K, rounds)``, each column summing to 1.
    """
    shares = np.full(scales.shape, 1 / len(scales))
    going = np.arange(scales.shape[1])  # rounds that have not converged
    total = weights.sum(0)
    # Plain steps are short where classes overlap. So we take two, then extrapolate along their
    # direction (SQUAREM; Varadhan and Roland, 2008), staying inside the simplex.
    for _ in range(_STEPS // 3):
        now = shares[:, going]
        first = _step(ratios, weights, scales, total, now)
        second = _step(ratios, weights, scales, total, first)
        moving = np.abs(second - first).max(0) >= _STILL
        r, v = first - now, second - 2 * first + now
        length = np.sqrt((r * r).sum(0) / np.maximum((v * v).sum(0), 1e-30))
        length = np.clip(length, 1.0, 64.0)
        leapt = np.maximum(now + 2 * length * r + length * length * v, 1e-12)
        third = _step(ratios, weights, scales, total, leapt / leapt.sum(0))
        shares[:, going] = np.where(moving, third, second)
        if not moving.any():
            break
        if moving.mean() < 0.7:  # a few rounds converge long after the rest
            going, weights = going[moving], weights[:, moving]
            scales, total = scales[:, moving], total[moving]
            ratios = ratios if ratios.ndim == 2 else ratios[moving]
    return shares


def _step(
    ratios: Array,
    weights: Float64Array,
    scales: Float64Array,
    total: Float64Array,
    shares: Float64Array,
) -> Float64Array:
    scaled = shares * scales  # (K, rounds)
    if ratios.ndim == 2:
        mixed = np.maximum(ratios @ scaled, 1e-30)  # (N, rounds)
        gained = ratios.T @ (weights / mixed)
    else:
        mixed = np.maximum((ratios @ scaled.T[..., None])[..., 0].T, 1e-30)
        gained = (ratios.swapaxes(1, 2) @ (weights / mixed).T[..., None])[..., 0].T
    out: Float64Array = scaled * gained / total
    out /= out.sum(0)
    return out


def whole_pictures(
    pictures: AnyIntArray, most: int, rng: np.random.Generator
) -> tuple[IndexArray, float]:
    """Sample whole pictures, with all their faces, until about ``most`` faces are drawn.

    Faces of a picture are alike, so single faces drawn at random would be nearly as informative as
    all of them.

    Args:
        pictures: number of each face's picture, or video, ``(N,)``.
        most: faces to draw; the last picture may exceed it, up to twice as many.
        rng: generator for the sample.

    Returns:
        Row indices in order, and the share of pictures sampled.
    """
    if len(pictures) <= most:
        return np.arange(len(pictures)), 1.0
    _, codes, sizes = np.unique(pictures, return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    count = int(np.searchsorted(np.cumsum(sizes[order]), most)) + 1
    rows = np.flatnonzero(np.isin(codes, order[:count]))
    if len(rows) > 2 * most:  # a video with very many tracks: sample its tracks, too
        rows = np.sort(rng.choice(rows, most, replace=False))
    return rows, count / len(sizes)


def draw_weights(
    pictures: AnyIntArray,
    rounds: int,
    rng: np.random.Generator,
    most: int = MOST_DRAWN,
) -> tuple[IndexArray, Float64Array]:
    """Rows that take part in the bootstrap, and their weights in each round.

    Faces of one picture are drawn together. If a sample of pictures represents them all, weights
    vary less about 1, so that shares vary as much as with all pictures.

    Args:
        pictures: number of each face's picture, ``(N,)``.
        rounds: R.
        rng: generator for the draws.
        most: faces per round.

    Returns:
        Row indices ``(M,)`` and weights ``(M, R)``.
    """
    rows, part = whole_pictures(pictures, most, rng)
    _, codes = np.unique(pictures[rows], return_inverse=True)
    count = int(codes.max()) + 1
    times = rng.multinomial(count, np.full(count, 1 / count), size=rounds).T  # (pictures, R)
    weights: Float64Array = 1 + np.sqrt(part) * (times[codes].astype(np.float64) - 1)
    return rows, weights


def classify_and_count(
    probabilities: Array,
    pictures: AnyIntArray,
    *,
    counts: AnyIntArray | None = None,
    rounds: int = ROUNDS,
    sample: int = 0,
) -> Shares:
    """Shares of the most probable labels, as if the model never erred (Forman, 2008).

    Args:
        probabilities: ``(N, K)``.
        pictures: number of each face's picture.
        counts: answers of all faces if the N are a sample of them, ``(K,)``.
        rounds: bootstrap rounds.
        sample: see ``estimate``.
    """
    hard = np.eye(probabilities.shape[1])[probabilities.argmax(1)]
    counts = hard.sum(0) if counts is None else counts
    value = counts / counts.sum()
    if len(hard) == 0:  # the sample has none of them, so nothing tells how much they vary
        return Shares(value, np.tile(value, (rounds, 1)), 1, 0)
    _, codes = np.unique(pictures, return_inverse=True)
    by_picture = np.zeros((int(codes.max()) + 1, hard.shape[1]))
    np.add.at(by_picture, codes, hard)
    # Round by round: how often each draws each picture would not fit into memory for many pictures.
    rng, n = np.random.default_rng((sample, 1)), len(by_picture)
    even = np.full(n, 1 / n)
    sums = np.stack([rng.multinomial(n, even) @ by_picture for _ in range(rounds)])
    drawn = sums / sums.sum(1, keepdims=True)
    part = len(hard) / counts.sum()  # share of faces, and so of pictures, which are kept whole
    drawn = np.clip(value + np.sqrt(part) * (drawn - hard.mean(0)), 0, 1)
    return Shares(value, drawn, round(n / part), n)


def estimate(
    probabilities: Sequence[Array],
    confusions: Sequence[Confusions],
    pictures: AnyIntArray,
    *,
    counts: AnyIntArray | None = None,
    method: str = "em",
    rounds: int = ROUNDS,
    sample: int = 0,
) -> Shares:
    """Corrected shares of one attribute, or of the crossing of several.

    In a crossing, the model's errors in different attributes are assumed independent given the
    face's true classes.

    Args:
        probabilities: calibrated, one ``(N, K_a)`` array per attribute.
        confusions: of the same attributes.
        pictures: number of each face's picture, ``(N,)``.
        counts: answers of all faces if the N are a sample of them, ``(K_1, K_2, ...)``. Sampled
            faces then weigh as much as all with their answers (post-stratification): a few large
            videos more or less in the sample would shift the shares.
        method: one of ``METHODS``; crossings support only ``em``.
        rounds: bootstrap rounds.
        sample: seed for drawing pictures. Tables to be compared need different seeds: with equally
            many pictures they would share draws, and the change would look too certain.

    Returns:
        Shares of the K_1 K_2 ... cells, the last attribute's classes varying fastest.
    """
    pictures_rng = np.random.default_rng((sample, 2))
    # One stream per attribute, seeded by its number of classes: every table, and a crossing as well
    # as its single attributes, draws the same calibration faces.
    streams = [np.random.default_rng((0, len(c.n))) for c in confusions]
    sizes = [len(c.n) for c in confusions]
    answers = np.ravel_multi_index([p.argmax(1) for p in probabilities], sizes)
    counts = _count(answers, sizes) if counts is None else counts.ravel()
    if method == "adjusted":
        return _adjusted_count(
            answers, counts, confusions[0], pictures, rounds, streams[0], pictures_rng
        )
    drawn = [
        c.draw_offsets(rounds, rng) - c.offsets for c, rng in zip(confusions, streams, strict=True)
    ]
    scales = np.exp(_crossed_sums(drawn)).T  # (K, R)
    cells = len(scales)
    if len(pictures) > (most := CELLS_HELD // cells):
        held, _ = whole_pictures(pictures, most, np.random.default_rng((sample, 3)))
        probabilities, pictures = [p[held] for p in probabilities], pictures[held]
        answers = answers[held]
    ratios = _crossed(
        [p * np.exp(c.offsets) for p, c in zip(probabilities, confusions, strict=True)]
    )
    weight, unseen = _stand_for(counts, answers)
    value = em_shares(ratios, weight, np.ones((cells, 1)))[:, 0]
    most = min(MOST_DRAWN, CELLS_DRAWN // cells)
    rows, weights = draw_weights(pictures, rounds, pictures_rng, most)
    weights *= weight[rows]
    part = ratios[rows]
    rounds_shares = em_shares(part, weights, scales).T
    if len(rows) < len(pictures):
        middle = em_shares(part, weight[rows], np.ones((cells, 1)))[:, 0]
        rounds_shares = np.clip(rounds_shares + value - middle, 0, 1)
    return _shares(value, rounds_shares, unseen, pictures, rows)


def _count(answers: IndexArray, sizes: Sequence[int]) -> IndexArray:
    return np.bincount(answers, minlength=math.prod(sizes))


def _stand_for(counts: AnyIntArray, answers: IndexArray) -> tuple[Float64Array, Float64Array]:
    """How many faces each face of a sample stands for, going by its answer.

    Args:
        counts: answers of all faces, ``(K,)``.
        answers: number of each sampled face's answer, ``(N,)``.

    Returns:
        Weights ``(N, 1)``, all 1 if the sample is all; and, for answers that no sampled face has,
        their shares among all, else 0, ``(K,)``.
    """
    sampled = np.bincount(answers, minlength=len(counts))
    weight = (counts / np.maximum(sampled, 1))[answers]
    return weight[:, None], np.where(sampled == 0, counts, 0) / counts.sum()


def _shares(
    value: Float64Array,
    drawn: Float64Array,
    unseen: Float64Array,
    pictures: AnyIntArray,
    rows: IndexArray,
) -> Shares:
    """Shares where answers that the sample lacks are counted: it cannot correct them."""
    seen = 1 - unseen.sum()
    return Shares(
        value * seen + unseen,
        drawn * seen + unseen,
        len(np.unique(pictures)),
        len(np.unique(pictures[rows])),
    )


def _crossed(parts: Sequence[Array]) -> FloatArray:
    """Row-wise outer products, ``(N, K_1), (N, K_2)`` to ``(N, K_1 K_2)``; row maxima are 1."""
    out = parts[0]
    for part in parts[1:]:
        out = (out[:, :, None] * part[:, None, :]).reshape(len(out), -1)
    return (out / out.max(1, keepdims=True)).astype(np.float32)


def _crossed_sums(parts: Sequence[Float64Array]) -> Float64Array:
    out = parts[0]
    for part in parts[1:]:
        out = (out[:, :, None] + part[:, None, :]).reshape(len(out), -1)
    return out


def _adjusted_count(
    answers: IndexArray,
    counts: AnyIntArray,
    confusions: Confusions,
    pictures: AnyIntArray,
    rounds: int,
    rng: np.random.Generator,
    pictures_rng: np.random.Generator,
) -> Shares:
    """Adjusted count (Forman, 2008) by maximum likelihood, on the K answers instead of N faces."""
    k = len(counts)
    one = np.ones((k, 1))
    matrix = confusions.shares().T
    weight, unseen = _stand_for(counts, answers)
    hard = np.eye(k)[answers] * weight
    value = em_shares(matrix, hard.sum(0)[:, None], one)[:, 0]
    rows, weights = draw_weights(pictures, rounds, pictures_rng)
    drawn_counts = hard[rows].T @ weights  # (K, R)
    matrices = confusions.draw_shares(rounds, rng).swapaxes(1, 2)
    drawn = em_shares(matrices, drawn_counts, np.ones((k, rounds))).T
    if len(rows) < len(pictures):
        middle = em_shares(matrix, hard[rows].sum(0)[:, None], one)[:, 0]
        drawn = np.clip(drawn + value - middle, 0, 1)
    return _shares(value, drawn, unseen, pictures, rows)


def rake(cells: Float64Array, margins: Sequence[Float64Array]) -> Float64Array:
    """Scale cells until they add up to the margins (iterative proportional fitting).

    Args:
        cells: shares of a crossing, ``(rounds, K_1, K_2, ...)``, one axis per attribute.
        margins: the single attributes' shares in the same rounds, ``(rounds, K_a)`` each.
    """
    out = np.maximum(cells, 1e-9)
    for _ in range(100):
        for axis, wanted in enumerate(margins, start=1):
            others = tuple(a for a in range(1, out.ndim) if a != axis)
            have = out.sum(others, keepdims=True)
            shape = [-1 if a in (0, axis) else 1 for a in range(out.ndim)]
            shape[0] = len(out)
            out = out * (wanted.reshape(shape) / np.maximum(have, 1e-12))
    return out


def same_picture(names: Array, probabilities: Array) -> IntArray:
    """Number of each face's picture; faces with identical answers count as copies of one picture.

    Args:
        names: picture of each face, ``(N,)``.
        probabilities: all answers, ``(N, K)``; different pictures do not match by chance.
    """
    if len(names) == 0 or probabilities.shape[1] == 0:
        return np.unique(names, return_inverse=True)[1].astype(np.int64)
    _, picture = np.unique(names, return_inverse=True)
    _, first, copy_of = np.unique(as_keys(probabilities), return_index=True, return_inverse=True)
    # A copy takes the picture of its first occurrence; all faces of a copied picture agree on it.
    return picture[first][copy_of].astype(np.int64)


def as_keys(rows: Array) -> NDArray[np.void]:
    """Each row's bytes as one value, ``(N, K)`` to ``(N,)``."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
