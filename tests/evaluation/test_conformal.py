"""Coverage, on data that is exchangeable by construction."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from facewise.calibration import LEVELS, Calibration, apply_temperature
from facewise.errors import OptionError
from facewise.evaluation.coverage import (
    Baseline,
    coverage_table,
    fit_baseline,
    predicted_bands,
    thresholds,
)
from facewise.evaluation.fit import (
    certainty_parts,
    check_faces,
    class_mask,
    conformal_quantiles,
    fit_calibration,
    fit_temperature,
    mondrian_thresholds,
    set_thresholds,
)
from facewise.evaluation.intervals import (
    MARGIN,
    FitFaces,
    Recipe,
    fit_intervals,
    fit_thresholds,
    interval_scores,
    joined_bands,
)
from facewise.evaluation.outcomes import Outcomes
from facewise.evaluation.scoring import Scored
from facewise.labels import years_within
from facewise.types import FloatArray

from .made import made, scored, years


def bells(centres: np.ndarray, widths: np.ndarray) -> FloatArray:
    """Bell-shaped age distributions ``(N, 120)``."""
    z = (np.arange(1, 121) - centres[:, None]) / widths[:, None]
    p = np.exp(-0.5 * z**2)
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def population(n: int, seed: int) -> Outcomes:
    """Faces that get harder with age, which the network partly knows.

    The old also look younger than they are. Gender and ethnicity are noisy.
    """
    rng = np.random.default_rng(seed)
    age = rng.integers(1, 91, n)
    hardness = 1 + age / 12
    guess = age + rng.normal(0, hardness) - 0.1 * np.maximum(age - 50, 0)
    said = bells(np.clip(guess, 1, 100), np.sqrt(hardness) + rng.uniform(0, 2, n))
    gender, ethnicity = rng.integers(0, 2, n), rng.choice(5, n, p=[0.4, 0.2, 0.2, 0.15, 0.05])

    def noisy(truth: np.ndarray, count: int) -> FloatArray:
        logits = rng.normal(0, 1.5, (n, count)) + 2.0 * np.eye(count)[truth]
        return apply_temperature(np.exp(logits).astype(np.float32), 0.5)  # overconfident

    return made(
        n,
        age=age.tolist(),
        said_ages=list(said),
        gender=gender.tolist(),
        said_genders=noisy(gender, 2).tolist(),
        ethnicity=ethnicity.tolist(),
        said_ethnicities=noisy(ethnicity, 5).tolist(),
    )


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return Calibration.from_dict(fit_calibration(population(1500, seed=1)))


@pytest.fixture(scope="module")
def unseen(fitted: Calibration) -> Scored:
    return Scored(population(2400, seed=2), fitted)


def test_intervals_cover_unseen_faces_by_predicted_and_by_true_age(
    fitted: Calibration, unseen: Scored
) -> None:
    table = coverage_table(unseen, fit_baseline(Scored(population(1500, seed=1), fitted)))
    judged, missed, plain = 0, 0, 0
    for level in LEVELS:
        row = table[str(level)]
        assert level - 0.01 < row["intervals"]["value"] < level + 0.035
        cells = row["interval_groups"]
        assert {c.split(":")[0] for c in cells} >= {"predicted age", "age", "gender", "ethnicity"}
        judged += len(cells)
        missed += sum(not cell["reaches"] for cell in cells.values())
        plain += len(row["baseline"]["groups_missed"])
        # None lies far below the level: the faces of the fit are only a sample.
        assert min(cell["value"] for cell in cells.values()) > level - 0.1
    assert missed < 0.15 * judged
    assert plain > missed, "one width for all covers the old too seldom"


def test_intervals_are_wide_where_the_face_is_hard(unseen: Scored) -> None:
    width = np.diff(unseen.intervals(0.9), axis=1)[:, 0]
    young, old = unseen.true_age < 10, unseen.true_age > 70
    assert width[old].mean() > 3 * width[young].mean()


def test_label_sets_cover_every_label_and_are_never_empty(unseen: Scored) -> None:
    for level in LEVELS:
        for name in ("gender", "ethnicity"):
            hit = unseen.set_hit(name, level)
            assert hit.mean() > level - 0.02
            for label in range(2 if name == "gender" else 5):
                mine = unseen.truth[name] == label
                assert hit[mine].mean() > level - 0.08
            assert unseen.set_members(name, level).sum(1).min() >= 1


def test_a_fit_on_too_sure_a_network_warms_it(fitted: Calibration) -> None:
    assert fitted.temperatures["gender"] == pytest.approx(2 * 1.5**2 / 2 / 1, rel=0.3)


@pytest.mark.parametrize(
    ("n", "column", "value", "message"),
    [
        (90, None, 0, "split calibration has 90 with an age, .* needs 100 with an age"),
        (1500, "age_ranges", 0, "has 0 with an age, and"),
        (1500, "true_genders", 0, "has 0 female, and"),
        (1500, "true_ethnicities", -1, "has 0 White, 0 Black, 0 Asian, 0 Indian, 0 Others, and"),
        (1500, "found", False, "has 0 with an age, 0 male"),
    ],
)
def test_a_fit_on_too_few_faces_is_refused(
    n: int, column: str | None, value: int, message: str
) -> None:
    outcomes = population(n, seed=1)
    if column is not None:
        getattr(outcomes, column)[:] = value
    with pytest.raises(OptionError, match=message):
        fit_calibration(outcomes)


@pytest.mark.parametrize("attribute", ["age", "gender"])
def test_a_temperature_at_its_bound_is_refused(attribute: str) -> None:
    outcomes = population(600, seed=1)
    if attribute == "gender":  # always right, as if labels were the model's own answers
        outcomes.genders[:] = 0.2 + 0.6 * class_mask(outcomes.true_genders, 2)
    else:  # labels unrelated to the answers
        outcomes.age_ranges[:] = outcomes.age_ranges[::-1].copy()
    with pytest.raises(OptionError, match=f"temperature of {attribute} ends at its bound"):
        fit_calibration(outcomes)


@pytest.mark.parametrize("exact", [0, 99, 100])
def test_a_fit_on_few_exact_ages_has_no_intervals_and_says_so(
    exact: int, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = population(600, seed=1)
    ranges = outcomes.age_ranges[exact:]
    ranges[:] = ranges // 10 * 10 + np.array([1, 10])
    fitted = fit_calibration(outcomes)
    assert set(fitted["temperatures"]) == {"age", "gender", "ethnicity"}
    assert ("age_intervals" in fitted) == (exact == 100)
    assert (f"{exact} faces of the split calibration have an exact age" in caplog.text) == (
        exact < 100
    )


def test_intervals_do_not_explode_where_many_faces_are_not_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def width(not_found: int) -> tuple[float, str]:
        caplog.clear()
        outcomes = population(1500, seed=1)
        outcomes.found[:not_found] = False
        calibration = Calibration.from_dict(fit_calibration(outcomes))
        unseen = Scored(population(1500, seed=2), calibration)
        return float(np.diff(unseen.intervals(0.95), axis=1).mean()), caplog.text

    all_found, said = width(0)
    assert not said
    many_missed, said = width(150)
    assert "10.0 % of the calibration faces of utkface were not found" in said
    assert "make up for 2 %" in said
    assert many_missed < 1.4 * all_found


def test_temperature_by_hand() -> None:
    # States 0.9 and is right 3 times out of 4: log 9 / T = log 3.
    p = np.tile(np.array([0.9, 0.1], np.float32), (400, 1))
    truth = np.array([0, 0, 0, 1] * 100)
    assert fit_temperature(p, class_mask(truth, 2)) == pytest.approx(2, abs=1e-3)
    np.testing.assert_array_equal(
        years_within(np.array([[3, 5]]))[0].nonzero()[0] + 1, [3, 4, 5], "years of an age group"
    )


def test_mondrian_thresholds_by_hand() -> None:
    # 80 % of 10 scores: the 9th smallest, as (10 + 1) * 0.8 = 8.8; an empty bin admits everything.
    scores = np.array([0.95, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    t = mondrian_thresholds(scores, np.zeros(10, np.intp), 2, 0.8)
    np.testing.assert_allclose(t, [0.9, 1.0])


@pytest.mark.parametrize(
    ("level", "n", "rank"),
    [(0.8, 4, 4), (0.8, 99, 80), (0.9, 9, 9), (0.9, 19, 18), (0.9, 99, 90), (0.95, 19, 19)],
)
def test_a_quantile_whose_rank_is_whole_is_that_score(level: float, n: int, rank: int) -> None:
    """Of n scores, (n + 1) * level are needed; 1 - 0.9 is a little less than 0.1."""
    scores = np.random.default_rng(0).permutation(n) + 1.0
    assert conformal_quantiles(scores, level).tolist() == [rank]


def test_parts_by_certainty_by_hand() -> None:
    """At most ten parts, of at least a hundred faces each; ties keep their order."""
    p = np.linspace(0.5, 1, 299, dtype=np.float32)
    shuffled = np.random.default_rng(0).permutation(299)
    least, most = certainty_parts(np.stack([1 - p, p], 1)[shuffled])
    assert [sorted(shuffled[part].tolist()) for part in (least, most)] == [
        list(range(150)),
        list(range(150, 299)),
    ]
    sizes = {n: [len(part) for part in certainty_parts(np.full((n, 2), 0.5))] for n in (99, 1500)}
    assert sizes == {99: [99], 1500: [150] * 10}
    alike = certainty_parts(np.full((300, 2), 0.5, np.float32))
    assert np.concatenate(alike).tolist() == list(range(300))


def test_a_label_of_a_hundred_faces_of_a_data_set_has_a_threshold_of_its_own() -> None:
    """Certain on "b", not on "a": at 80 %, the 81st of 100 scores is 0.8; 99 have no say alone."""
    sure, unsure = np.full(300, 0.999), 1 - np.arange(100) / 100

    def threshold(count: int) -> float:
        said = np.r_[sure, unsure[:count]].astype(np.float32)
        sources = np.repeat(["b", "a"], [300, count])
        thresholds = set_thresholds(
            np.stack([said, 1 - said], 1), np.zeros(len(said), np.intp), sources, {"a": 1, "b": 1}
        )
        return thresholds["0.8"][0]

    assert threshold(100) == pytest.approx(0.8, abs=1e-6)
    assert threshold(99) < 0.8


def test_a_handful_of_faces_of_a_data_set_does_not_widen_everybodys_sets() -> None:
    """One of three can only be covered at 80 % by covering all three."""
    said = np.r_[1 - np.arange(300) / 300, 0.01, 0.9, 0.9].astype(np.float32)
    p, labels = np.stack([said, 1 - said], 1), np.zeros(303, np.intp)
    few, all_alike = (np.repeat(["a", name], [300, 3]) for name in ("b", "a"))
    found = {"a": 1.0, "b": 1.0}
    assert set_thresholds(p, labels, few, found) == set_thresholds(p, labels, all_alike, found)


def test_a_data_set_is_covered_though_none_of_its_labels_has_a_hundred_faces() -> None:
    """Each of its five labels has thirty, and its answers are no less sure for being worse."""
    rng = np.random.default_rng(0)
    labels, sources = rng.integers(0, 5, 2150), np.repeat(["large", "small"], [2000, 150])
    labels[2000:] = np.arange(150) % 5
    away = rng.random(2150) < np.where(sources == "small", 0.4, 0.05)
    top = (labels + away * rng.integers(1, 5, 2150)) % 5
    p = np.full((2150, 5), 0.05) + 0.75 * np.eye(5)[top]
    p = (p * rng.uniform(0.8, 1.2, p.shape)).astype(np.float32)
    p /= p.sum(1, keepdims=True)
    found = set_thresholds(p, labels, sources, {"large": 1, "small": 1})
    for level in LEVELS:
        own, top_label = 1 - p[np.arange(2150), labels], p.argmax(1) == labels
        hit = (own <= np.array(found[str(level)])[labels]) | top_label
        assert hit[sources == "small"].mean() >= level - 1e-4


def test_small_data_sets_are_covered_together() -> None:
    """Of three with 66 faces, none has a say alone: 160 of 198 would do, times 0.987 161 do."""
    said = (1 - np.arange(198) / 198).astype(np.float32)
    p, labels = np.stack([said, 1 - said], 1), np.zeros(198, np.intp)

    def threshold(found: float) -> float:
        shares = {"a": found, "b": found, "c": 1.0}
        return set_thresholds(p, labels, np.array([*"abc"] * 66), shares)["0.8"][0]

    assert threshold(1.0) == pytest.approx(159 / 198, abs=1e-5)
    assert threshold(0.98) == pytest.approx(160 / 198, abs=1e-5)


def test_a_label_that_is_in_every_set_is_named(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with caplog.at_level("WARNING", logger="facewise"):
        thresholds = fit_calibration(population(700, seed=1))["label_sets"]["ethnicity"]
    every = [level for level, t in thresholds.items() if t[4] >= 1]
    assert every, "of 34 faces"
    messages = [record.getMessage() for record in caplog.records]
    for level in every:
        assert any(
            f"every {100 * float(level):.0f} % set of ethnicity will include Others: " in message
            for message in messages
        )
    assert not [w for w in recwarn if "calibration examples" in str(w.message)], "of crepes"


@pytest.mark.parametrize(("found", "threshold"), [(1.0, 0.8), (0.98, 0.81), (0.5, 0.81)])
def test_sets_make_up_for_two_faces_of_a_hundred_not_found(found: float, threshold: float) -> None:
    """Of scores of 0 to 0.99, 81 are at most 0.8; 82, times 0.98, are the first to reach 80 %."""
    said = (1 - np.arange(100) / 100).astype(np.float32)
    p, labels = np.stack([said, 1 - said], 1), np.zeros(100, np.intp)
    fitted = set_thresholds(p, labels, np.full(100, "a"), {"a": found})
    assert fitted["0.8"][0] == pytest.approx(threshold, abs=1e-6)


def test_faces_enough_to_fit_on_are_just_enough() -> None:
    """A hundred with an age; twenty of each ethnicity and far more of each gender."""

    def check(n: int, aged: int) -> None:
        age = [1] * aged + [(0, 0)] * (n - aged)
        gender, ethnicity = [i % 2 for i in range(n)], [i % 5 for i in range(n)]
        check_faces(made(n, age=age, gender=gender, ethnicity=ethnicity), "calibration")

    check(100, 100)
    with pytest.raises(OptionError, match="has 99 with an age, and"):
        check(100, 99)
    with pytest.raises(OptionError, match="has 99 with an age, 19 Others, and"):
        check(99, 99)


def test_sets_of_gender_hold_for_the_unsure_too() -> None:
    """If nine in ten are certain and right, sets of one label reach the level overall."""

    def people(n: int, seed: int) -> tuple[FloatArray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        sure = np.where(rng.random(n) < 0.1, rng.uniform(0.5, 0.6, n), rng.uniform(0.97, 1, n))
        top, right = rng.integers(0, 2, n), rng.random(n) < sure
        p = np.where(np.arange(2) == top[:, None], sure[:, None], 1 - sure[:, None])
        return p.astype(np.float32), np.where(right, top, 1 - top), sure < 0.7

    p, truth, _ = people(3000, seed=1)
    new, labels, unsure = people(9000, seed=2)
    thresholds = set_thresholds(p, truth, np.full(len(p), "a"), {"a": 1.0})
    calibration = Calibration.from_dict({"label_sets": {"gender": thresholds}})
    sets = calibration.label_sets(new, "gender", 0.9)
    hit = np.array([label in s for label, s in zip(labels, sets, strict=True)])
    size = np.array([len(s) for s in sets])
    assert hit.mean() >= 0.89
    assert hit[unsure].mean() > 0.8, "near 0.55 where each has one"
    assert size[~unsure].mean() < 1.02, "the sure are not told two"


def two_data_sets(n: int, seed: int) -> Outcomes:
    """A population with a quarter from another data set, most of whose "Others" look White.

    That data set draws the line between the two elsewhere.
    """
    outcomes = population(n, seed)
    other = np.arange(n) % 4 == 0
    outcomes.datasets[other] = "b"
    turned = other & (outcomes.true_ethnicities == 0) & (np.arange(n) % 8 == 0)
    outcomes.true_ethnicities[turned] = 4
    return outcomes


def test_sets_hold_for_each_label_of_each_data_set() -> None:
    calibration = Calibration.from_dict(fit_calibration(two_data_sets(6000, seed=1)))
    unseen = Scored(two_data_sets(6000, seed=2), calibration)
    groups = coverage_table(unseen)["0.9"]["ethnicity_sets"]["groups"]
    cells = {g: cell for g, cell in groups.items() if g.startswith("data set x ethnicity: ")}
    assert "data set x ethnicity: b / Others" in cells
    assert len(cells) == 10
    for cell in cells.values():
        assert cell["value"] > 0.87
    # A single threshold per label for both is too low for the smaller data set.
    o = two_data_sets(6000, seed=1)
    p = apply_temperature(o.ethnicities, calibration.temperatures["ethnicity"])
    score = 1 - p[np.arange(len(o)), o.true_ethnicities].astype(np.float64)
    t = mondrian_thresholds(score, o.true_ethnicities.astype(np.intp), 5, 0.9)
    elsewhere = (o.datasets == "b") & (o.true_ethnicities == 4)
    assert (score <= t[o.true_ethnicities])[elsewhere].mean() < 0.87


def test_each_part_is_fitted_on_its_own_faces() -> None:
    """Against the same calls made by hand, on a data set with ranges and one of exact ages.

    Each photo is there twice, and near-duplicates stay together. Faces of the second data set are
    not always found.
    """
    n = 1600
    o = two_data_sets(n, seed=3)
    other = o.datasets == "b"
    decade = (o.age_ranges[:, 0] - 1) // 10 * 10 + 1
    ranges = np.stack([decade, decade + 9], axis=1)
    rng = np.random.default_rng(0)
    twice = np.arange(n) // 2
    o = dataclasses.replace(
        o,
        age_ranges=np.where(other[:, None], ranges, o.age_ranges).astype(o.age_ranges.dtype),
        groups=twice.astype(str),
        found=~other | (rng.random(n) < 0.97),
    )
    fitted = fit_calibration(o)

    seen = o.take(o.found)
    t = fitted["temperatures"]["age"]
    assert t == round(fit_temperature(seen.ages, years_within(seen.age_ranges)), 4)
    exact = seen.take(seen.exact)
    assert t != round(fit_temperature(exact.ages, years_within(exact.age_ranges)), 4)
    faces = FitFaces(apply_temperature(exact.ages, t), exact.age_ranges[:, 0], exact.groups)
    assert fitted["age_intervals"] == fit_intervals(faces, 1.0), "all with an exact age are found"
    alone = dataclasses.replace(faces, groups=np.arange(len(exact)).astype(str))
    assert fitted["age_intervals"] != fit_intervals(alone, 1.0), "copies lie in one fold"
    shares = {"utkface": 1.0, "b": float(o.found[other].mean())}
    for name, p, labels in (
        ("gender", seen.genders, seen.true_genders),
        ("ethnicity", seen.ethnicities, seen.true_ethnicities),
    ):
        t = fitted["temperatures"][name]
        assert t != 1
        tempered = apply_temperature(p, t)
        sets = set_thresholds(tempered, labels, seen.datasets, shares)
        assert fitted["label_sets"][name] == sets


def test_the_least_sure_tenth_is_a_group_of_its_own() -> None:
    outcomes = population(2000, seed=1)
    calibration = Calibration.from_dict(fit_calibration(outcomes))
    table = coverage_table(Scored(population(2000, seed=2), calibration))
    for name in ("gender", "ethnicity"):
        groups = table["0.9"][f"{name}_sets"]["groups"]
        least, rest = groups["certainty: the least sure tenth"], groups["certainty: the rest"]
        assert least["n"] == pytest.approx(200, abs=2)
        assert least["n"] + rest["n"] == 2000
        assert least["mean_size"] > rest["mean_size"]
    assert table["0.9"]["gender_sets"]["groups"]["certainty: the least sure tenth"]["reaches"]


def test_bands_with_few_faces_are_joined() -> None:
    values = np.array([2] * 70 + [8] * 10 + [15] * 20 + [40] * 90)
    assert joined_bands(values, (1, 4, 13, 20), least=60) == (1, 20)
    assert joined_bands(values, (1, 4, 13, 20), least=30) == (1, 4, 20)
    assert joined_bands(values[:5], (1, 4, 13, 20), least=60) == (1,)
    # Exactly ``least`` is enough; of two equal neighbours, the right one is joined.
    assert joined_bands(values, (1, 4, 13, 20), least=20) == (1, 4, 20)
    alike = np.array([2] * 30 + [8] * 10 + [15] * 30)
    assert joined_bands(alike, (1, 4, 13), least=20) == (1, 4)
    assert joined_bands(alike, (1, 4, 13), least=10) == (1, 4, 13)


def uneven(n: int, seed: int) -> FitFaces:
    """Faces aged 25 to 34, a sixth of whom look older than they are."""
    rng = np.random.default_rng(seed)
    age, older = rng.integers(25, 35, n), rng.random(n) < 1 / 6
    centres = age + np.where(older, 3.0, -0.5) + rng.normal(0, 2.5, n)
    names = np.array([f"{i}.jpg" for i in range(n)])
    return FitFaces(bells(centres, np.full(n, 2.5)), age, names)


def test_the_old_are_covered_by_their_own_age_and_not_by_the_age_they_are_taken_for() -> None:
    def people(n: int, seed: int) -> FitFaces:
        # A tenth are old, and look like the others.
        rng = np.random.default_rng(seed)
        old = rng.random(n) < 0.1
        age = np.where(old, rng.integers(60, 70, n), rng.integers(40, 60, n))
        centres = np.where(old, age - 14, age) + rng.normal(0, 3, n)
        return FitFaces(
            bells(centres, np.full(n, 6.0)), age, np.array([f"{i}.jpg" for i in range(n)])
        )

    most, rest = people(1500, seed=1), people(6000, seed=2)

    def coverage(recipe: Recipe) -> tuple[float, float]:
        calibration = Calibration.from_dict({"age_intervals": fit_intervals(most, 1.0, recipe)})
        first, last = calibration.age_intervals(rest.ages, 0.8).T
        inside = (rest.truth >= first) & (rest.truth <= last)
        return float(inside[rest.truth >= 60].mean()), float(inside.mean())

    old, everybody = coverage(Recipe(margin=0, age_starts_years=(1,)))
    assert old < 0.6
    assert everybody == pytest.approx(0.8, abs=0.03)
    old, everybody = coverage(Recipe(margin=0, age_starts_years=(1, 60)))
    assert old == pytest.approx(0.8, abs=0.06)
    assert everybody == pytest.approx(0.8, abs=0.03), "and nobody pays for it in coverage"


def test_the_margin_is_aimed_at_on_faces_that_a_fit_has_not_seen() -> None:
    most, rest = uneven(900, seed=3), uneven(6000, seed=4)
    calibration = Calibration.from_dict({"age_intervals": fit_intervals(most, 1.0)})
    first, last = calibration.age_intervals(rest.ages, 0.8).T
    inside = (rest.truth >= first) & (rest.truth <= last)
    assert inside.mean() == pytest.approx(0.8 + MARGIN, abs=0.025)
    # Faces that the detector misses lie outside, so the others need more coverage.
    wider = Calibration.from_dict({"age_intervals": fit_intervals(most, 0.95)})
    more = np.diff(wider.age_intervals(rest.ages, 0.8), axis=1).mean()
    assert more > (last - first).mean()


def test_many_thresholds_are_raised_for_faces_that_no_fit_has_seen() -> None:
    """More thresholds better cover the faces that they were fitted on, but no others."""
    o = population(500, seed=6)
    faces = FitFaces(o.ages, o.age_ranges[:, 0], o.groups)
    recipe = Recipe(margin=0)
    bands = joined_bands(o.ages @ np.arange(1, 121), recipe.band_starts_years)
    own = joined_bands(faces.truth, recipe.age_starts_years)
    assert (len(bands), len(own)) == (4, 5)
    plain = fit_thresholds(faces, bands, own, 0.8)
    raised = fit_intervals(faces, 1.0, recipe)["thresholds"]["0.8"]
    assert np.mean(raised["band"]) > np.mean(plain[0]) + 0.02


def test_where_faces_are_of_few_photos_none_are_kept_from_the_fit() -> None:
    """Nine photos, whose copies stay together, would give five folds of one or two each."""
    faces = uneven(120, seed=9)
    few, enough = (
        FitFaces(faces.ages, faces.truth, (np.arange(120) % n).astype(str)) for n in (9, 10)
    )
    band, age = fit_thresholds(few, (1,), (1,), 0.8 + MARGIN)
    one = Recipe((1,), (1,))
    fitted = [fit_intervals(f, 1.0, one)["thresholds"]["0.8"] for f in (few, enough)]
    assert fitted[0] == {"band": np.round(band, 4).tolist(), "age": np.round(age, 4).tolist()}
    assert fitted[1] != fitted[0]


def test_thresholds_are_those_of_a_quantile_regression() -> None:
    from sklearn.linear_model import QuantileRegressor

    faces = uneven(300, seed=5)
    scores = interval_scores(faces.ages, faces.truth)
    old = (faces.truth >= 30).astype(np.float64)
    band, age = fit_thresholds(faces, (1,), (1, 30), 0.8)
    known = QuantileRegressor(quantile=0.8, alpha=0, solver="highs").fit(old[:, None], scores)

    def loss(t: np.ndarray) -> float:
        return float(np.maximum(0.8 * (scores - t), 0.2 * (t - scores)).sum())

    assert loss(band[0] + age[old.astype(int)]) == pytest.approx(
        loss(known.predict(old[:, None])), rel=1e-6
    )
    assert loss(band[0] + age[old.astype(int)] + 0.1) > loss(band[0] + age[old.astype(int)])


def test_coverage_table_by_hand() -> None:
    reach = {"0.8": 0, "0.9": 1, "0.95": 2}
    calibration = {
        "age_intervals": {"thresholds": {k: {"band": [v], "age": 0} for k, v in reach.items()}},
        "label_sets": {"gender": {"0.8": 0.3, "0.9": 0.7, "0.95": 0.9}},
    }
    # 22 +- (2 + 0.5) at 90 %: 20 to 24. Right, right, wrong, not found.
    rows = scored(
        4,
        calibration,
        age=[20, 24, 25, 22],
        said_ages=[years(20, 24)] * 3 + [years(10, 60)],
        gender=[0, 1, 1, 0],
        said_genders=[[0.6, 0.4], [0.6, 0.4], [0.8, 0.2], [0.9, 0.1]],
        found=[True, True, True, False],
    )
    table = coverage_table(rows)
    row = table["0.9"]
    assert (row["intervals"]["value"], row["intervals"]["n"]) == (0.5, 4)
    assert row["intervals"]["mean_width_years"] == 4
    assert row["gender_sets"]["value"] == 0.5  # {0, 1}, {0, 1}, {0} without the label, not found
    assert row["gender_sets"]["mean_size"] == pytest.approx(5 / 3)
    assert row["gender_sets"]["empty"] == 0
    assert "ethnicity_sets" not in row
    # Only 22, and sets of one label; 18 to 26, and sets of both.
    for level, hit, width, in_set, size in (("0.8", 0, 0, 1 / 4, 1), ("0.95", 3 / 4, 8, 3 / 4, 2)):
        intervals, sets = table[level]["intervals"], table[level]["gender_sets"]
        assert (intervals["value"], intervals["mean_width_years"]) == (hit, width)
        assert (sets["value"], sets["mean_size"]) == (in_set, size)


def test_widths_of_groups_are_of_the_faces_that_were_found() -> None:
    calibration = {
        "age_intervals": {"thresholds": {str(v): {"band": [1], "age": 0} for v in LEVELS}}
    }
    rows = scored(
        200,
        calibration,
        age=[22] * 200,
        said_ages=[years(20, 24)] * 160 + [years(10, 60)] * 40,
        found=[True] * 160 + [False] * 40,
    )
    cell = coverage_table(rows)["0.9"]["interval_groups"]["age: 20-29"]
    assert (cell["n"], cell["value"], cell["mean_size"]) == (200, 0.8, 4)


def test_age_groups_count_as_touched_not_as_covered() -> None:
    calibration = {
        "age_intervals": {"thresholds": {str(v): {"band": [1], "age": 0} for v in LEVELS}}
    }
    rows = scored(
        6,
        calibration,
        age=[(20, 29), (30, 39), (1, 2), (24, 24), (24, 39), (0, 0)],
        said_ages=[years(20, 24)] * 4 + [years(10, 60)] * 2,
        found=[True, True, True, True, False, True],
    )
    row = coverage_table(rows)["0.9"]
    touching = row["intervals_touching_age_groups"]
    assert (touching["value"], touching["n"]) == (1 / 4, 4)
    assert touching["mean_width_years"] == 4
    assert row["intervals"]["n"] == 1
    assert "intervals" not in coverage_table(rows.take(np.arange(2)))["0.9"]


def test_the_baseline_by_hand() -> None:
    """Intervals of 2.5 years either side, in whole years from 1 to 120, and sets of labels with a
    probability of at least 0.5; nothing for the face that was not found.
    """
    half, even = {0.8: 2.5, 0.9: 2.5, 0.95: 0.0}, {0.8: 0.5, 0.9: 0.5, 0.95: 0.2}
    rows = scored(
        6,
        age=[20, 25, 120, 1, 22, 24],
        said_ages=[years(a) for a in (22, 22, 119, 2, 22)] + [years(21, 22)],
        gender=[0, 1, 0, 1, 0, -1],
        said_genders=[[0.5, 0.5], [0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [1, 0], [1, 0]],
        found=[True, True, True, True, False, True],
    )
    table = coverage_table(rows, Baseline(half, {"gender": even, "ethnicity": even}))
    row, narrow = table["0.8"], table["0.95"]["baseline"]
    # 20-24, 20-24, 117-120, 1-4, none and 19-24: all right except the second and the fifth.
    assert row["baseline"]["intervals"]["value"] == pytest.approx(4 / 6)
    assert row["baseline"]["intervals"]["mean_width_years"] == pytest.approx(
        (4 + 4 + 3 + 3 + 5) / 5
    )
    # Both, the wrong one, one, one, none; the last has no label.
    assert row["baseline"]["gender_sets"] | {"low": 0, "high": 0} == {
        "value": 0.6,
        "n": 5,
        "low": 0,
        "high": 0,
        "mean_size": 5 / 4,
        "empty": 0,
    }
    assert "ethnicity_sets" not in row["baseline"]
    assert row["gender_sets"]["n"] == 5
    # Of no width, and of labels of at least 0.8: nothing is held.
    assert (narrow["intervals"]["value"], narrow["gender_sets"]["empty"]) == (0, 4)
    none = Baseline(half, {"gender": dict.fromkeys(LEVELS, 0.2), "ethnicity": even})
    assert coverage_table(rows, none)["0.8"]["baseline"]["gender_sets"]["empty"] == 4
    ageless = coverage_table(scored(2, gender=[0, 1]), none)["0.8"]
    assert set(ageless["baseline"]) == {"gender_sets"}
    unseen = coverage_table(scored(2, age=[20, 30], gender=[0, 1], found=[False] * 2), none)["0.8"]
    for part in (unseen, unseen["baseline"]):
        assert part["intervals"]["value"] == part["gender_sets"]["value"] == 0
        assert np.isnan(
            [part["intervals"]["mean_width_years"], part["gender_sets"]["mean_size"]]
        ).all()


def test_groups_that_one_width_for_all_misses_are_named() -> None:
    """Within one year either side lie 22 of 150 men, and all 130 found of 150 women."""
    rows = scored(
        300,
        age=[22] * 22 + [24] * 128 + [22] * 150,
        said_ages=[years(22)] * 300,
        gender=[0] * 150 + [1] * 150,
        said_genders=[[1, 0]] * 20 + [[0.6, 0.4]] * 280,
        found=[True] * 280 + [False] * 20,
    )
    even = dict.fromkeys(LEVELS, 0.5)
    table = coverage_table(
        rows, Baseline(dict.fromkeys(LEVELS, 1.0), {"gender": even, "ethnicity": even})
    )["0.8"]
    assert table["baseline"]["groups_judged"] == 6
    assert set(table["baseline"]["groups_missed"]) == {
        "predicted age: 1-120",
        "age: 20-29",
        "gender: male",
        "age x gender: 20-29 / male",
    }
    certainty = {
        name: cell["n"]
        for name, cell in table["gender_sets"]["groups"].items()
        if name.startswith("certainty")
    }
    assert certainty == {"certainty: the least sure tenth": 260}, "of those that were found"


def test_the_baseline_is_fitted_on_faces_that_were_found_and_have_a_label() -> None:
    """Errors of 1 to 20 years: the 17th at 80 %, as 21 * 0.8 is 16.8; the last at 95 %."""
    n = 24
    rows = scored(
        n,
        age=[*range(41, 61), 90, 90, (90, 99), (90, 99)],
        said_ages=[years(40)] * n,
        gender=[*[0] * 20, 0, 0, -1, -1],
        said_genders=[[1 - k / 40, k / 40] for k in range(1, 21)] + [[0, 1]] * 4,
        ethnicity=[0] * n,
        found=[*[True] * 20, False, False, True, True],
    )
    fitted = fit_baseline(rows)
    assert fitted.half_widths == pytest.approx({0.8: 17, 0.9: 19, 0.95: 20})
    assert fitted.set_thresholds["gender"][0.8] == pytest.approx(17 / 40)
    assert thresholds(np.arange(1.0, 21)) == pytest.approx(fitted.half_widths)


def test_groups_of_a_hundred_and_fifty_are_judged() -> None:
    """By Wilson's interval, 134 of 150 is compatible with 90 %, but 125 is not."""
    calibration = {
        "age_intervals": {
            "band_starts_years": [1, 20],
            "thresholds": {str(v): {"band": [1, 1], "age": 0} for v in LEVELS},
        }
    }

    def cells(n: int, wrong: int, level: str = "0.9") -> dict[str, Any]:
        age = [40] * wrong + [22] * (n - wrong)
        rows = scored(n, calibration, age=age, said_ages=[years(20, 24)] * n, gender=[0] * n)
        table = coverage_table(rows)[level]["interval_groups"]
        assert isinstance(table, dict)
        return table

    assert cells(149, 0) == {}
    few, many = (cells(150, wrong)["predicted age: 20-120"] for wrong in (16, 25))
    assert (few["reaches"], many["reaches"]) == (True, False)
    assert few["value"] == pytest.approx(134 / 150)
    assert cells(150, 25, "0.8")["predicted age: 20-120"]["reaches"]
    assert set(cells(150, 0)) == {
        "predicted age: 20-120",
        "age: 20-29",
        "gender: male",
        "age x gender: 20-29 / male",
    }, "none of those whose ethnicity is unknown"
    rows = scored(
        4,
        calibration,
        said_ages=[years(19), years(19, 20), years(90), years(33)],
        found=[True, True, True, False],
    )
    # Of a face that is not found, no age was predicted, so no band answers for it.
    assert predicted_bands(rows).tolist() == ["1-19", "20-120", "20-120", "unknown"]


def test_faces_without_the_label_count_in_no_group_of_its_sets() -> None:
    """Of 160 men and 160 women, 150 and 149 have a label."""
    ethnicity = [0] * 150 + [-1] * 10 + [0] * 149 + [-1] * 11
    table = coverage_table(scored(320, gender=[0] * 160 + [1] * 160, ethnicity=ethnicity))["0.9"]
    groups = table["ethnicity_sets"]["groups"]
    judged = {name: cell["n"] for name, cell in groups.items() if name.startswith("gender")}
    assert judged == {"gender: male": 150}
