"""What corrections must recover from known confusions and known shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq

from facewise.audit.prevalence import (
    CombinedShares,
    Shares,
    classify_and_count,
    combine,
    estimate,
    rake,
    same_picture,
    whole_pictures,
)
from facewise.errors import ModelIntegrityError
from facewise.reporting.bootstrap import wilson
from facewise.reporting.confusions import (
    LEAST_PRIOR,
    MOST_PRIOR,
    PRIORS_DRAWN,
    Confusions,
    _across_priors,
    _covariance,
    _limited,
    class_masses,
    decade_masses,
    fit_confusions,
    fit_sources,
)

NAMES = ("a", "b", "c")
CENTRES = 1.1 * np.eye(3)


def faces(counts: list[int], rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw classes of three Gaussians, and probabilities exactly calibrated under even shares."""
    labels = np.repeat(np.arange(3), counts)
    seen = CENTRES[labels] + rng.standard_normal((len(labels), 3)) * 0.8
    density = np.exp(-((seen[:, None] - CENTRES) ** 2).sum(-1) / (2 * 0.8**2))
    return labels, (density / density.sum(1, keepdims=True)).astype(np.float32)


def fitted(n: int, rng: np.random.Generator) -> Confusions:
    labels, p = faces([n] * 3, rng)
    return Confusions.from_dict(fit_confusions(*class_masses(p, labels), NAMES))


@pytest.mark.parametrize("method", ["em", "adjusted"])
def test_known_shares_are_recovered(method: str) -> None:
    rng = np.random.default_rng(1)
    confusions = fitted(20_000, rng)
    _, p = faces([16_000, 3_600, 400], rng)
    pictures = np.arange(len(p))
    shares = estimate([p], [confusions], pictures, method=method, rounds=10)
    assert np.abs(shares.value - [0.8, 0.18, 0.02]).max() < 0.02
    assert np.abs(classify_and_count(p, pictures, rounds=10).value - [0.8, 0.18, 0.02]).max() > 0.06


def sure() -> Confusions:
    """Confusions of two classes that the model never mistakes for each other."""
    return Confusions(np.full(2, 9e6), 9e6 * np.eye(2), np.zeros(2), np.zeros((2, 2)))


def test_the_likeliest_shares_by_hand() -> None:
    """Half get 0.9, half 0.2: 0.8 / (0.1 + 0.8 s) equals 0.6 / (0.8 - 0.6 s) at s = 29 / 48."""
    p = np.tile(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), (50, 1))
    pictures = np.arange(100)
    shares = estimate([p], [sure()], pictures, rounds=5)
    assert shares.value == pytest.approx([29 / 48, 19 / 48], abs=1e-4)
    assert shares.pictures == 100
    counted = estimate([p], [sure()], pictures, method="adjusted", rounds=5)
    assert counted.value == pytest.approx([0.5, 0.5], abs=1e-4)
    # The same faces from a model fitted on three times as many faces of the second class.
    biased = Confusions(np.full(2, 9e6), 9e6 * np.eye(2), np.log([3, 1]), np.zeros((2, 2)))
    p /= [3, 1]
    p /= p.sum(1, keepdims=True)
    shares = estimate([p], [biased], pictures, rounds=5)
    assert shares.value == pytest.approx([29 / 48, 19 / 48], abs=1e-4)


def test_the_last_attribute_of_a_crossing_varies_fastest() -> None:
    first = np.repeat([[1, 0], [1, 0], [0, 1], [0, 1]], [10, 20, 30, 40], axis=0)
    last = np.repeat([[1, 0], [0, 1], [1, 0], [0, 1]], [10, 20, 30, 40], axis=0)
    crossed = [first.astype(np.float32), last.astype(np.float32)]
    shares = estimate(crossed, [sure(), sure()], np.arange(100), rounds=200)
    assert shares.value == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-4)
    # Pictures are resampled: the standard deviation of 0.4 is the root of 0.4 * 0.6 / 100.
    assert shares.drawn.std(0) == pytest.approx(np.sqrt([0.0009, 0.0016, 0.0021, 0.0024]), rel=0.2)


def test_sampled_faces_of_a_crossing_stand_for_all_with_their_answers() -> None:
    first = np.eye(2, dtype=np.float32)[np.repeat([0, 0, 1], 20)]
    last = np.eye(2, dtype=np.float32)[np.repeat([0, 1, 1], 20)]
    counts = np.array([[100, 200], [50, 150]])  # the sample has none of the fifty
    shares = estimate([first, last], [sure(), sure()], np.arange(60), counts=counts, rounds=20)
    assert shares.value == pytest.approx([0.2, 0.4, 0.1, 0.3], abs=1e-4)
    assert shares.drawn.sum(1) == pytest.approx(np.ones(20))
    assert shares.drawn.mean(0) == pytest.approx(shares.value, abs=0.05)


def test_what_other_calibration_faces_would_have_given_varies_as_it_is_stored() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[4, -1.5], [-1.5, 1]])
    confusions = Confusions(
        np.array([10, 2]), np.array([[8, 2], [0, 2]]), np.array([1, -1]), covariance
    )
    drawn = confusions.draw_offsets(20_000, rng)
    assert drawn.mean(0) == pytest.approx([1, -1], abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.15)
    # Half a face is added to the correct answers of each class.
    assert confusions.shares() == pytest.approx(np.array([[8.5 / 10.5, 2 / 10.5], [0, 1]]))
    shares = confusions.draw_shares(20_000, rng)
    assert shares.sum(-1) == pytest.approx(np.ones((20_000, 2)))
    assert shares.mean(0) == pytest.approx(confusions.shares(), abs=0.01)
    assert shares[:, 0, 1].var() == pytest.approx(8.5 * 2 / 10.5**2 / 11.5, rel=0.05)


def test_an_age_group_may_reach_into_two_decades() -> None:
    even = np.full((2, 120), 1 / 120, np.float32)
    decades, inside = decade_masses(even, np.array([[8, 12], [120, 120]]))
    assert decades == pytest.approx(np.full((2, 12), 1 / 12))
    assert inside[0] == pytest.approx(np.array([3, 2, *[0] * 10]) / 120)
    assert inside[1] == pytest.approx(np.array([*[0] * 11, 1]) / 120)


def test_confusions_by_hand() -> None:
    """All faces look alike."""

    def fit(p: list[float], of_a: int, of_b: int, of_either: int = 0) -> dict[str, Any]:
        said = np.tile(np.array(p, np.float32), (of_a + of_b + of_either, 1))
        inside = said * np.repeat([[1, 0], [0, 1], [1, 1]], [of_a, of_b, of_either], axis=0)
        return fit_confusions(said, inside, ("a", "b"))

    # Counts match the predictions: there is no bias, and an offset comes from the share alone.
    right = fit([0.75, 0.25], 30, 10)
    assert (right["n"], right["counts"]) == ([30, 10], [[30, 0], [10, 0]])
    assert right["offsets"] == pytest.approx(-np.log([0.75, 0.25]), abs=1e-4)
    # A bias b of either sign makes the share of "a" s = 1 / (1 + exp(-2 b)). Faces that may be
    # either are split by s, and with 60 and 20 others 60 - 80 s = b: s is 0.7434.
    either = fit([0.5, 0.5], 60, 20, 20)
    assert (either["n"], either["counts"]) == ([74.9, 25.1], [[74.9, 0], [25.1, 0]])
    # A class without a face is given half a one, and 10 - 10 s = b: b is 1.0640.
    none = fit([0.5, 0.5], 10, 0)
    assert none["n"] == [10, 0]
    expected = [1.064 - np.log(10 / 10.5), -1.064 - np.log(0.5 / 10.5)]
    assert none["offsets"] == pytest.approx(expected, abs=1e-3)


def test_a_face_of_several_classes_is_split_as_the_model_has_its_part_of_them() -> None:
    """The biases are 0 here: the members of each class add up to its predicted mass."""
    said = np.array([[0.75, 0.25]] * 80 + [[0.25, 0.75]] * 20, np.float32)
    of = {"a": [1.0, 0.0], "b": [0.0, 1.0], "either": [1.0, 1.0]}
    part = np.array([of["a"]] * 50 + [of["b"]] * 10 + [[1 / 3, 1.0]] * 20 + [of["either"]] * 20)
    fitted = fit_confusions(said, said * part.astype(np.float32), ("a", "b"))
    # The third kind has a quarter in each class, so half goes to each; the fourth is split as said.
    assert fitted["n"] == [50 + 10 + 5, 10 + 10 + 15]
    assert fitted["counts"] == [[60, 5], [20, 15]]
    assert fitted["offsets"] == pytest.approx(-np.log([0.65, 0.35]), abs=1e-4)


def test_a_class_with_one_face_by_hand() -> None:
    """Ten faces look alike, and one is of the other class."""
    said = np.tile(np.array([0.5, 0.5], np.float32), (10, 1))
    fitted = fit_confusions(*class_masses(said, np.array([0] * 9 + [1])), ("a", "b"))
    assert (fitted["n"], fitted["counts"]) == ([9, 1], [[9, 0], [1, 0]])
    # With s = 1 / (1 + exp(-2 b)), 9 - 10 s = b: b is 0.7689.
    expected = [0.7689 - np.log(0.9), -0.7689 - np.log(0.1)]
    assert fitted["offsets"] == pytest.approx(expected, abs=1e-3)
    # Redrawing faces within the classes changes nothing: only the ridge is uncertain. Its variance
    # is 1 over the squared curvature: 1 + 2 * 10 s (1 - s) between the classes, 1 in common.
    s = 1 / (1 + np.exp(-2 * 0.7689))
    member = np.repeat(np.eye(2), [9, 1], axis=0)
    covariance = _covariance(member, np.tile([s, 1 - s], (10, 1)), None)
    assert [1, -1] @ covariance @ [1, -1] / 2 == pytest.approx((1 + 20 * s * (1 - s)) ** -2)
    assert [1, 1] @ covariance @ [1, 1] / 2 == pytest.approx(1)


def test_shares_of_a_class_with_a_face_or_none_by_hand() -> None:
    """A face taken for another class leaves a share of 1/3 to the right one, which varies as a beta
    distribution of 1/2 and 1 does; a class without a face is entirely right in all draws.
    """
    counts = np.array([[0, 1, 0], [0, 7, 0], [0, 0, 0]])
    confusions = Confusions(counts.sum(1), counts, np.zeros(3), np.zeros((3, 3)))
    assert confusions.shares() == pytest.approx(np.array([[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 1]]))
    drawn = confusions.draw_shares(20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, 3, 3)
    assert drawn[:, 0, 0].mean() == pytest.approx(1 / 3, abs=0.01)
    assert drawn[:, 0, 0].var() == pytest.approx(1 / 3 * 2 / 3 / 2.5, rel=0.05)
    assert drawn[:, 1:] == pytest.approx(np.broadcast_to(np.eye(3)[1:], (20_000, 2, 3)), abs=1e-6)


def test_one_face_stands_for_no_more_than_eight() -> None:
    """Also under drawn priors that would make it stand for most of the faces.

    Both classes look alike: with weights w and 100 - w, the offset of the first is
    b - log((100 - w) / w) / 2, where 1 / (1 + exp(-2 b)) is (100 - w - b) / 100.
    """
    p, labels = np.full((100, 2), 0.5), np.array([0] * 99 + [1])
    mass = np.where(np.eye(2)[labels] > 0, p, 0)

    def offset(w: float) -> float:
        b = brentq(lambda b: 1 / (1 + np.exp(-2 * b)) - (100 - w - b) / 100, -10, 10)
        return float(b - np.log((100 - w) / w) / 2)

    rng = np.random.default_rng(0)
    moves = []
    for _ in range(PRIORS_DRAWN):
        first, second = np.exp(rng.uniform(np.log(LEAST_PRIOR), np.log(MOST_PRIOR), 2))
        moves.append(offset(min(100 * second / (first + second), 8)) - offset(1))
    covariance = _across_priors(p, mass, labels)
    # They move away from the stored offset, mostly to one side, and not about their own mean.
    assert covariance[0, 0] == pytest.approx(np.square(moves).mean(), rel=1e-3)
    assert covariance[0, 0] > 1.2 * np.var(moves)


@pytest.mark.parametrize(
    ("priors", "most", "expected"),
    [
        ([1, 1, 2], [0.9, 0.9, 6.2], [0.25, 0.25, 0.5]),
        ([6, 3, 1], [0.2, 7, 0.8], [0.2, 0.6, 0.2]),  # 0.4 to be shared as 3 and 1
        ([6, 3, 1], [0.2, 0.5, 7.3], [0.2, 0.5, 0.3]),  # what is too much for the second, too
        ([0, 1, 1], [0, 0.01, 7.99], [0, 0.01, 0.99]),
    ],
)
def test_what_one_class_cannot_take_the_others_share(
    priors: list[float], most: list[float], expected: list[float]
) -> None:
    limited = _limited(np.array(priors, float), np.array(most, float))
    assert limited == pytest.approx(np.array(expected))


def test_what_all_offsets_have_in_common_is_no_uncertainty() -> None:
    labels, p = faces([300, 200, 0], np.random.default_rng(2))
    mass = class_masses(p, labels)[1].astype(np.float64)
    covariance = _across_priors(p.astype(np.float64) ** 2, mass**2, labels)
    assert covariance.sum(1) == pytest.approx(np.zeros(3), abs=1e-9)
    assert covariance[0, 0] > 1e-3
    assert (covariance[2] == 0).all(), "nothing is known of a class without a face"


def test_near_duplicates_of_calibration_faces_add_no_certainty() -> None:
    """Each face appears four times."""
    labels, p = (np.repeat(part, 4, axis=0) for part in faces([90] * 3, np.random.default_rng(4)))

    def spread(groups: Any) -> float:
        fitted = fit_confusions(*class_masses(p, labels), NAMES, groups)
        return float([-1, 1, 0] @ np.array(fitted["covariance"]) @ [-1, 1, 0])

    told = np.repeat(np.arange(270), 4).astype(str)
    assert spread(None) == pytest.approx(spread(np.arange(1080).astype(str)))
    assert spread(told) > 1.5 * spread(None)


def test_a_face_that_is_said_not_to_be_what_it_is_counts_as_one() -> None:
    """Its probability was rounded to 0, and one such face made every offset NaN."""
    p = np.array([[1, 0]] * 30 + [[0.2, 0.8]] * 30, np.float32)
    fitted = fit_confusions(*class_masses(p, np.array([0] * 29 + [1] * 31)), ("a", "b"))
    assert (fitted["n"], fitted["counts"]) == ([29, 31], [[29, 0], [1, 30]])
    assert np.isfinite(fitted["offsets"]).all()
    assert np.isfinite(fitted["covariance"]).all()
    ages = np.repeat(np.eye(120, dtype=np.float32)[[4, 64]], 20, axis=0)  # 5 and 65
    ranges = np.array([[5, 5]] * 20 + [[65, 65]] * 19 + [[12, 18]])
    fitted = fit_confusions(*decade_masses(ages, ranges), [str(k) for k in range(12)])
    assert fitted["n"] == [20, 1, 0, 0, 0, 0, 19, *[0] * 5]
    assert np.isfinite(fitted["offsets"]).all()


def test_a_data_set_is_fitted_on_its_own_faces_that_were_found_and_have_a_label() -> None:
    datasets = np.repeat(["x", "y", "z"], [12, 8, 5])
    found = np.arange(25) != 0
    ages = np.tile(np.full(120, 1 / 120, np.float32), (25, 1))
    ranges = np.repeat([[20, 29], [1, 1], [0, 0]], [10, 1, 14], axis=0)
    genders = np.repeat([0, 1, -1, 1, -1], [6, 4, 2, 8, 5])
    said = np.tile(np.array([0.6, 0.4], np.float32), (25, 1))
    groups = np.arange(25).astype(str)
    fitted = fit_sources(datasets, found, groups, ages, ranges, {"gender": (said, genders)})
    assert {name: set(parts) for name, parts in fitted.items()} == {
        "x": {"age", "gender"},
        "y": {"gender"},
    }
    assert fitted["x"]["gender"]["n"] == [5, 4]
    assert fitted["x"]["gender"]["labels"] == ["male", "female"]
    assert fitted["y"]["gender"]["n"] == [0, 8]
    assert sum(fitted["x"]["age"]["n"]) == pytest.approx(10, abs=0.2)
    assert fitted["x"]["age"]["n"][0] == 1


def test_copies_in_a_data_set_add_no_certainty() -> None:
    """Each of 40 faces appears twice."""
    rng = np.random.default_rng(0)
    ages, said = (
        np.repeat(rng.dirichlet(np.ones(k), 40).astype(np.float32), 2, axis=0) for k in (120, 2)
    )
    face = np.arange(80) // 2
    ranges, genders = np.array([[20, 29], [40, 49]])[face % 2], face % 2

    def variance(groups: Any, name: str) -> float:
        every, x = np.ones(80, bool), np.full(80, "x")
        fitted = fit_sources(x, every, groups, ages, ranges, {"gender": (said, genders)})
        return float(np.trace(fitted["x"][name]["covariance"]))

    for name in ("age", "gender"):
        assert variance(face.astype(str), name) > variance(np.arange(80).astype(str), name)


def test_malformed_confusions_are_refused() -> None:
    stored = fit_confusions(
        *class_masses(*faces([30, 30, 30], np.random.default_rng(0))[::-1]), NAMES
    )
    Confusions.from_dict(stored)
    for damage in (
        {"labels": ["a", "b"]},
        {"offsets": [0, 0]},
        {"n": None},
        {"counts": [[1], [2, 3]]},
    ):
        with pytest.raises(ModelIntegrityError, match="malformed"):
            Confusions.from_dict(stored | damage)


def test_adjusted_counts_invert_a_matrix_exactly() -> None:
    counts = np.array([[9e6, 1e6], [2e6, 8e6]])
    confusions = Confusions(counts.sum(1), counts, np.zeros(2), np.zeros((2, 2)))
    said_a = round(1000 * (0.3 * 0.9 + 0.7 * 0.2))
    p = np.repeat(np.array([[1, 0], [0, 1]], np.float32), [said_a, 1000 - said_a], axis=0)
    shares = estimate([p], [confusions], np.arange(1000), method="adjusted", rounds=5)
    assert shares.value == pytest.approx([0.3, 0.7], abs=1e-3)


def test_intervals_hold_the_truth_and_count_the_calibration_faces() -> None:
    hits, widths = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, p = faces([420, 150, 30], rng)
        ends = estimate([p], [fitted(60, rng)], np.arange(600), rounds=100).interval()
        hits.append((ends[:, 0] <= [0.7, 0.25, 0.05]) & (ends[:, 1] >= [0.7, 0.25, 0.05]))
        widths.append(np.diff(ends).mean())
    assert np.mean(hits) >= 0.9
    rng = np.random.default_rng(0)
    _, p = faces([420, 150, 30], rng)
    sure = estimate([p], [fitted(20_000, rng)], np.arange(600), rounds=100).interval()
    assert np.diff(sure).mean() < np.mean(widths)


def test_what_calibration_faces_do_not_tell_is_not_known() -> None:
    rng = np.random.default_rng(3)
    labels, p = faces([400, 400, 400], rng)
    known = Confusions.from_dict(fit_confusions(*class_masses(p, labels), NAMES))
    # A class without calibration faces.
    mine = labels < 2
    two = Confusions.from_dict(fit_confusions(*class_masses(p[mine], labels[mine]), NAMES))
    spread = np.var(two.draw_offsets(500, rng) @ [-0.5, -0.5, 1])
    assert spread > 10 * np.var(known.draw_offsets(500, rng) @ [-0.5, -0.5, 1])
    # Probabilities that are wrong by more than a bias: the offsets depend on the make-up.
    sure = p**3 / (p**3).sum(1, keepdims=True)
    wrong = Confusions.from_dict(fit_confusions(*class_masses(sure, labels), NAMES))
    for contrast in ([2, -1, -1], [-1, 2, -1], [-1, -1, 2]):
        assert np.var(wrong.draw_offsets(500, rng) @ contrast) > 50 * np.var(
            known.draw_offsets(500, rng) @ contrast
        )


@pytest.mark.parametrize("method", ["naive", "em", "adjusted"])
def test_what_no_face_shows_is_not_known_to_be_absent(method: str) -> None:
    """Twenty faces, all of one class: Wilson's interval for 20 of 20 begins at 83.9 %."""
    p = np.tile(np.array([[1, 0]], np.float32), (20, 1))

    def of(pictures: Any) -> Any:
        if method == "naive":
            return classify_and_count(p, pictures)
        return estimate([p], [sure()], pictures, method=method, rounds=20)

    alone = of(np.arange(20))
    assert alone.interval() == pytest.approx(np.array([[0.8389, 1], [0, 0.1611]]), abs=1e-3)
    # Ten pictures of two faces each are ten observations: 10 of 10 begins at 72.2 %.
    assert of(np.arange(20) // 2).interval()[0, 0] == pytest.approx(0.7225, abs=1e-3)
    # The change between two such tables, by Newcombe, reaches as far as either end may lie.
    moved, ends = alone.change_to(alone)
    assert moved == pytest.approx([0, 0], abs=1e-6)
    assert ends == pytest.approx(np.array([[-0.1611, 0.1611]] * 2), abs=2e-3)


@pytest.mark.parametrize("method", ["naive", "em", "adjusted"])
def test_few_pictures_tell_little_however_many_faces_they_have(method: str) -> None:
    """Two of three faces, the same in one picture, in ten and in forty."""

    def of(count: int) -> Any:
        p = np.tile(np.array([[1, 0], [1, 0], [0, 1]], np.float32), (count, 1))
        pictures = np.repeat(np.arange(count), 3)
        if method == "naive":
            return classify_and_count(p, pictures)
        return estimate([p], [sure()], pictures, method=method, rounds=20)

    for count in (1, 10):
        low, high = wilson(2 / 3 * count, count)
        assert of(count).interval() == pytest.approx(
            np.array([[low, high], [1 - high, 1 - low]]), abs=1e-3
        )
    # By hand, for one: (2/3 + 1.92) / 4.84 -+ 1.96 / 4.84 * sqrt(2/9 + 0.96).
    assert of(1).interval()[0] == pytest.approx([0.094, 0.975], abs=2e-3)
    # With many pictures the draws are believed: here all of them are alike.
    assert np.diff(of(40).interval()).max() < 0.01
    # A change from few pictures is as uncertain as their share.
    _, ends = of(1).change_to(of(40))
    assert ends[0] == pytest.approx([0.667 - 0.975, 0.667 - 0.094], abs=5e-3)


@pytest.mark.parametrize("method", ["em", "adjusted"])
def test_either_holds_the_truth_whichever_faces_they_are_like(method: str) -> None:
    """On faces like the other source's, the model says "a" far more often."""
    rng = np.random.default_rng(5)

    def seen(counts: list[int], bias: float) -> tuple[Any, Any]:
        labels, p = faces(counts, rng)
        p = p * np.exp(np.array([bias, 0, 0], np.float32))
        return labels, p / p.sum(1, keepdims=True)

    sources = {}
    for name, bias in (("one", 0.0), ("other", 1.5)):
        labels, p = seen([3_000] * 3, bias)
        sources[name] = Confusions.from_dict(fit_confusions(*class_masses(p, labels), NAMES))
    true = np.array([0.2, 0.3, 0.5])

    def holds(shares: Shares | CombinedShares) -> float:
        low, high = shares.interval().T
        return float(((low <= true) & (true <= high)).mean())

    for name, bias in (("one", 0.0), ("other", 1.5)):
        held: dict[str, list[float]] = {"one": [], "other": [], "either": []}
        for _ in range(8):
            _, p = seen([100, 150, 250], bias)
            pictures = np.arange(len(p))
            parts = {
                source: estimate([p], [c], pictures, method=method, rounds=60)
                for source, c in sources.items()
            }
            both = combine(parts, classify_and_count(p, pictures, rounds=60).value)
            assert both.value.sum() == pytest.approx(1)
            held["either"].append(holds(both))
            for source, part in parts.items():
                held[source].append(holds(part))
        wrong = "other" if name == "one" else "one"
        assert np.mean(held["either"]) >= np.mean(held[name]) >= 0.85
        assert np.mean(held[wrong]) < 0.5


def test_counted_shares_move_as_far_as_corrections_agree() -> None:
    def of(share: float) -> Shares:
        a = share + 0.01 * np.linspace(-1, 1, 101)
        return Shares(np.array([share, 1 - share]), np.stack([a, 1 - a], 1), 1_000, 1_000)

    def value(counted: float, *shares: float) -> float:
        parts = {str(share): of(share) for share in shares}
        return float(combine(parts, np.array([counted, 1 - counted])).value[0])

    assert value(0.4, 0.3) == pytest.approx(0.3), "one correction is as it is"
    assert value(0.4, 0.3, 0.5) == pytest.approx(0.4)
    assert value(0.4, 0.5, 0.6) == pytest.approx(0.495), "the first quartile of the nearer one"
    assert value(0.4, 0.2, 0.3) == pytest.approx(0.305)


def test_a_change_holds_what_every_correction_says_of_it() -> None:
    def of(share: float) -> Shares:
        a = share + 0.01 * np.linspace(-1, 1, 101)
        return Shares(np.array([share, 1 - share]), np.stack([a, 1 - a], 1), 1_000, 1_000)

    before = combine({"x": of(0.3), "y": of(0.5)}, np.array([0.4, 0.6]))
    after = combine({"x": of(0.4), "y": of(0.8)}, np.array([0.6, 0.4]))
    moved, ends = before.change_to(after)
    assert moved == pytest.approx([0.2, -0.2])
    # It is 0.1 by x and 0.3 by y; rounds are paired, and drawn alike here.
    assert ends == pytest.approx(np.array([[0.1, 0.3], [-0.3, -0.1]]))


def test_copies_of_a_picture_are_drawn_together() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]], np.float32)
    first, other, copy = same_picture(np.array(["x", "y", "z"]), p)
    assert first == copy != other


def test_raked_cells_add_up_to_margins() -> None:
    cells = np.array([[0.2, 0.3], [0.4, 0.1]])
    rows, columns = np.array([[0.6, 0.4], [0.1, 0.9]]), np.array([[0.5, 0.5], [0.7, 0.3]])
    out = rake(np.array([cells, cells]), [rows, columns])
    assert out.sum(2) == pytest.approx(rows, abs=1e-6)
    assert out.sum(1) == pytest.approx(columns, abs=1e-6)


@pytest.mark.parametrize("method", ["naive", "em", "adjusted"])
def test_of_many_faces_pictures_are_drawn_whole_and_centred_on_all(method: str) -> None:
    """A hundred pictures of a thousand faces each, half with each class: 50 +- 9.8 %."""
    p = np.repeat(np.tile(np.array([[1, 0], [0, 1]], np.float32), (50, 1)), 1_000, axis=0)
    pictures = np.repeat(np.arange(100), 1_000)
    if method == "naive":
        shares = classify_and_count(p, pictures, sample=1)
    else:
        shares = estimate([p], [sure()], pictures, method=method, rounds=150, sample=1)
    assert shares.value == pytest.approx([0.5, 0.5], abs=1e-3)
    assert shares.drawn.mean(0) == pytest.approx(shares.value, abs=0.012)
    assert np.diff(shares.interval())[:, 0] / 2 == pytest.approx([0.098] * 2, rel=0.25)


@pytest.mark.parametrize("method", ["naive", "em", "adjusted"])
def test_few_drawn_of_many_videos_tell_as_little_as_few(method: str) -> None:
    """Each of 36 videos is half men, so all draws are alike; but few of them were drawn."""
    p = np.tile(np.array([[1, 0], [0, 1]], np.float32), (36 * 2_000, 1))
    videos = np.repeat(np.arange(36), 4_000)
    if method == "naive":  # the table kept a third of them
        third = videos < 12
        shares = classify_and_count(p[third], videos[third], counts=np.full(2, 36 * 2_000))
    else:
        shares = estimate([p], [sure()], videos, method=method, rounds=20)
    assert shares.drawn_from < 30 <= shares.pictures == 36
    assert shares.interval() == pytest.approx(np.array([wilson(18, 36)] * 2), abs=1e-3)


def test_counted_shares_are_drawn_from_all_videos_however_large() -> None:
    """Forty videos of a thousand tracks each; a correction draws only some of them."""
    share = np.linspace(0, 1, 40)
    men = np.concatenate([np.arange(1_000) < 1_000 * each for each in share])
    p = np.stack([men, ~men], axis=1).astype(np.float32)
    shares = classify_and_count(p, np.repeat(np.arange(40), 1_000))
    assert shares.drawn_from == shares.pictures == 40
    assert shares.drawn[:, 0].std() == pytest.approx(share.std() / np.sqrt(40), rel=0.12)


def test_of_a_video_with_more_tracks_than_a_round_holds_some_stand_for_all() -> None:
    """Two videos, of 90,000 and 30,000 tracks, are drawn together with a few photos."""
    videos = np.r_[np.repeat([7, 9], [90_000, 30_000]), 10:60]
    rows, part = whole_pictures(videos, 1_000, np.random.default_rng(4))
    assert len(rows) == len(np.unique(rows)) == 1_000
    assert part < 1, "of the pictures, those that were drawn"
    rows, part = whole_pictures(videos[:120_000], 50_000, np.random.default_rng(0))
    assert (len(rows), part) in ((90_000, 0.5), (120_000, 1)), "twice as many may stay"
    rows, part = whole_pictures(videos[:90_000], 1_000, np.random.default_rng(0))
    assert (len(rows), part) == (1_000, 1)
