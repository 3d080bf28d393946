"""Gates are chosen where the errors are, and cost few clean faces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from facewise.calibration import Calibration
from facewise.data.tight_crops import add_border
from facewise.errors import OptionError
from facewise.evaluation.degrade import NOT_FACES, degradations, degrade
from facewise.evaluation.gate_figures import degraded_table, gate_curves, risk_coverage
from facewise.evaluation.gates import (
    CLEAN_BUDGET,
    SIDES,
    _Input,
    errors,
    expected_errors,
    fit_gates,
    ignorance,
    with_gates,
)
from facewise.evaluation.outcomes import Outcomes
from facewise.evaluation.scoring import Scored
from facewise.reporting.bootstrap import wilson
from facewise.types import ImageArray

from .made import GOOD_QUALITY, made, years

SHARP, YAW = 1, 2


def faces(n: int, *, sharpness: float, error_years: int, seed: int, yaw: float = 0) -> Scored:
    rng = np.random.default_rng(seed)
    quality = np.tile(GOOD_QUALITY, (n, 1))
    quality[:, SHARP] = sharpness * rng.uniform(0.8, 1.2, n)
    quality[:, YAW] = yaw * rng.uniform(0.8, 1.2, n) * rng.choice([-1, 1], n)
    off = rng.integers(0, 2 * error_years + 1, n)
    return Scored(
        made(n, age=[40] * n, said_ages=[years(40 + d) for d in off], quality=quality),
        Calibration(),
    )


def joined(one: Scored, other: Scored) -> Scored:
    columns = {
        field.name: np.concatenate(
            [getattr(one.outcomes, field.name), getattr(other.outcomes, field.name)]
        )
        for field in dataclasses.fields(Outcomes)
    }
    return Scored(Outcomes(**columns), Calibration())


def test_the_middles_of_age_groups_stand_for_ages_where_none_is_exact() -> None:
    said = [years(30), years(30), years(80), years(30)]
    ages: list[int | tuple[int, int]] = [33, (30, 39), (70, 120), (18, 40)]
    error = errors(Scored(made(4, age=ages, said_ages=said), Calibration()), "age")
    np.testing.assert_allclose(error[:2], [3, 4.5])
    assert np.isnan(error[2:]).all(), "an open group and a wide one have no middle worth the name"


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.9, 0.5, 0.7, 0.6]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert curve == [(0.25, 0.0), (0.5, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5)]


def test_a_curve_does_not_depend_on_the_order_of_equally_certain_rows() -> None:
    """No gate lets through one of them and not the other, so neither comes first."""
    for errors_ in ([0.0, 10.0, 2.0], [10.0, 0.0, 2.0]):
        curve = risk_coverage(np.array([5.0, 5.0, 9.0]), np.array(errors_))
        assert [risk for _, risk in curve] == pytest.approx([2, 7 / 2, 4])


def test_a_curve_has_sixty_points_from_a_twentieth_on() -> None:
    curve = risk_coverage(np.arange(1000.0), np.zeros(1000))
    assert (len(curve), curve[0], curve[-1]) == (60, (0.05, 0), (1, 0))


def test_the_gate_falls_between_sharp_and_blurred() -> None:
    clean = faces(400, sharpness=1.0, error_years=3, seed=1)
    blurred = faces(200, sharpness=0.2, error_years=20, seed=2)
    soft = faces(200, sharpness=0.6, error_years=4, seed=3)  # within the limit
    gates = fit_gates(clean, {"blurred": blurred, "soft": soft})
    assert set(gates["quality"]) == {"age"}, "there are no other labels"
    assert 0.24 <= gates["quality"]["age"]["sharpness"]["min"] <= 0.6
    calibration = with_gates({}, gates)
    table = degraded_table(
        Scored(clean.outcomes, calibration),
        {
            "blurred": Scored(blurred.outcomes, calibration),
            "soft": Scored(soft.outcomes, calibration),
        },
    )
    assert table["clean"]["abstained_from_any"] <= CLEAN_BUDGET
    assert table["blurred"]["age"]["abstained"] > 0.99
    assert table["soft"]["age"]["abstained"] < 0.1
    assert table["soft"]["age"]["within"] is True


def test_nothing_is_turned_away_without_need_but_the_least_certain() -> None:
    clean = faces(400, sharpness=1.0, error_years=3, seed=1)
    gates = fit_gates(clean, {"same": faces(200, sharpness=1.0, error_years=3, seed=4)})
    assert gates["quality"]["age"] == {}


def test_gates_keep_a_distance_from_the_limit() -> None:
    """An error of 1.75 times the clean one is allowed, but too close to twice."""
    clean = faces(400, sharpness=1.0, error_years=4, seed=1)
    soft = faces(400, sharpness=0.5, error_years=7, seed=2)
    assert set(fit_gates(clean, {"soft": soft})["quality"]["age"]) == {"sharpness"}
    near = faces(400, sharpness=0.5, error_years=5, seed=2)
    assert fit_gates(clean, {"near": near})["quality"]["age"] == {}


def test_of_gates_that_do_the_same_good_the_one_that_leaves_more_answers_is_chosen() -> None:
    """All of these are blurred, but only those that are turned, too, are much in error."""
    clean = faces(400, sharpness=1.0, error_years=3, seed=1, yaw=10)
    fair = faces(200, sharpness=0.2, error_years=3, seed=2, yaw=10)
    poor = faces(200, sharpness=0.2, error_years=20, seed=3, yaw=70)
    gates = fit_gates(clean, {"blurred": joined(fair, poor)})
    assert set(gates["quality"]["age"]) == {"yaw_degrees"}


def test_the_budget_is_of_all_attributes_together() -> None:
    """Ages can only be helped by turning away blurred faces, genders by turning away turned ones,
    and each of them would take as many clean faces as it may.
    """
    n = 2000
    clean, soft, turned = (
        faces(n, sharpness=sharpness, error_years=3, seed=seed, yaw=yaw).outcomes
        for seed, sharpness, yaw in ((1, 1, 10), (2, 0.9, 10), (3, 1, 11))
    )
    rng = np.random.default_rng(0)
    for part, wrong in ((clean, 0.05), (soft, 0.05), (turned, 0.5)):
        part.true_genders[:] = 0
        part.genders[:] = np.where(rng.random((n, 1)) < wrong, [0.1, 0.9], [0.9, 0.1])
    soft.ages[:] = years(70)
    rows = Scored(clean, Calibration())
    gates = fit_gates(
        rows, {"soft": Scored(soft, rows.calibration), "turned": Scored(turned, rows.calibration)}
    )
    scored = Scored(clean, with_gates({}, gates))
    assert min(scored.abstained[name].mean() for name in ("age", "gender")) > 0.005
    assert degraded_table(scored, {})["clean"]["abstained_from_any"] <= CLEAN_BUDGET


def test_risk_above_the_limit_counts_by_the_share_answered() -> None:
    """Twice the limit on half of the faces; an unknown error is neither risk nor answer."""
    one = _Input(
        measures=np.zeros((5, 9)),
        errors=np.array([6.0, 6.0, 2.0, 2.0, np.nan]),
        limits=np.full(5, 3.0),
        size=8,
        answered=np.ones(5, bool),
    )
    assert one.excess(one.answered) == pytest.approx((16 / 12 - 1) * 4 / 8)
    assert one.excess(np.array([True, True, False, False, True])) == pytest.approx(1 * 2 / 8)
    assert one.excess(np.array([False, False, True, True, True])) == 0


def test_a_measure_that_must_not_be_large_has_a_most() -> None:
    clean = faces(400, sharpness=1, error_years=3, seed=1, yaw=10)
    aside = faces(200, sharpness=1, error_years=20, seed=2, yaw=70)
    gates = fit_gates(clean, {"turned": aside})
    assert set(gates["quality"]["age"]) == {"yaw_degrees"}
    assert 11 <= gates["quality"]["age"]["yaw_degrees"].pop("max") <= 56
    assert gates["quality"]["age"]["yaw_degrees"] == {}


def test_what_no_gate_can_tell_costs_no_more_clean_faces_than_may_be() -> None:
    clean = faces(400, sharpness=1, error_years=3, seed=1)
    gates = fit_gates(clean, {"bad": faces(200, sharpness=0.9, error_years=20, seed=2)})
    table = degraded_table(Scored(clean.outcomes, with_gates({}, gates)), {})
    assert 0.02 < table["clean"]["abstained_from_any"] <= CLEAN_BUDGET


@pytest.mark.parametrize("found", [1.0, 0.25])
def test_the_budget_is_of_the_faces_found(found: float) -> None:
    """As in the report: what is not found cannot be turned away."""
    n = 1600
    clean = faces(n, sharpness=1, error_years=3, seed=1)
    seen = np.arange(n) < found * n
    clean = Scored(dataclasses.replace(clean.outcomes, found=seen), Calibration())
    gates = fit_gates(clean, {"bad": faces(200, sharpness=0.9, error_years=20, seed=2)})
    table = degraded_table(Scored(clean.outcomes, with_gates({}, gates)), {})
    assert 0.02 < table["clean"]["abstained_from_any"] <= CLEAN_BUDGET


def test_the_least_certain_are_turned_away_first() -> None:
    """For ages, one in a hundred of which has a wide interval, and for genders."""
    n = 2000
    top = np.linspace(0.5, 1, n)
    rows = made(
        n,
        age=[40] * n,
        # Nine tenths of 21 to 70 are 23 to 68: two of the fifty years are less than a twentieth.
        said_ages=[years(*range(21, 71))] * (n // 100) + [years(39, 41)] * (n - n // 100),
        gender=[0] * n,
        said_genders=np.stack([top, 1 - top], axis=1).tolist(),
    )
    clean = Scored(rows, Calibration())
    gates = fit_gates(clean, {"same": clean})
    assert gates["quality"] == {"age": {}, "gender": {}}
    assert gates["certainty"]["age"] == {"max_interval_years": 45}
    least = gates["certainty"]["gender"]
    assert set(least) == {"min_probability"}
    assert least["min_probability"] == pytest.approx(np.quantile(top, 0.005), abs=6e-4)


def test_what_is_no_face_is_turned_away() -> None:
    """A non-face has no label to be wrong about, so an answer counts as a guess."""
    clean = faces(400, sharpness=1, error_years=3, seed=1)
    quality = np.tile(GOOD_QUALITY, (200, 1))
    quality[:, SHARP] = 0.3
    nobody = Scored(made(200, quality=quality), Calibration())
    gates = fit_gates(clean, {NOT_FACES[0]: nobody})
    assert 0.3 < gates["quality"]["age"]["sharpness"]["min"] <= 0.85
    assert fit_gates(clean, {"of no known age": nobody})["quality"]["age"] == {}


@pytest.mark.parametrize(("known", "steers"), [(2, False), (20, True)])
def test_a_handful_of_faces_steers_no_gate(known: int, steers: bool) -> None:
    clean = faces(400, sharpness=1, error_years=3, seed=1)
    blurred = faces(200, sharpness=0.2, error_years=20, seed=2)
    blurred.outcomes.age_ranges[known:] = 0
    gates = fit_gates(clean, {"blurred": Scored(blurred.outcomes, Calibration())})
    assert (gates["quality"]["age"] != {}) == steers


def test_what_is_never_wrong_in_clean_faces_has_no_limit_to_hold() -> None:
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    clean = Scored(made(100, gender=[0] * 100, said_genders=[right] * 100), Calibration())
    bad = Scored(made(100, gender=[0] * 100, said_genders=[right, wrong] * 50), Calibration())
    assert fit_gates(clean, {"same": clean, "bad": bad})["quality"] == {"gender": {}}


def test_a_guess_by_hand() -> None:
    # A face not found counts as 33: off by 3, 7, 0.5, and an unknown age.
    rows = Scored(made(4, age=[30, 40, (30, 37), (0, 0)]), Calibration())
    assert ignorance(rows, "age") == pytest.approx((3 + 7 + 0.5) / 3)
    assert ignorance(rows, "gender") == 1 / 2
    assert ignorance(rows, "ethnicity") == pytest.approx(4 / 5)


def test_the_clean_error_of_a_data_set_that_is_not_there_is_that_of_all() -> None:
    def of(*datasets: str) -> Scored:
        rows = made(len(datasets))
        return Scored(dataclasses.replace(rows, datasets=np.array(datasets)), Calibration())

    clean_errors = np.array([1, 2, 6, np.nan, np.nan])
    expected = expected_errors(of("b", "a", "c", "d"), of("a", "a", "b", "b", "d"), clean_errors)
    assert expected.tolist() == [6, 1.5, 3, 3]


def test_a_harder_data_set_is_not_turned_away_for_being_hard() -> None:
    easy = faces(300, sharpness=1.0, error_years=2, seed=1)
    hard = faces(100, sharpness=0.5, error_years=8, seed=2)
    clean = joined(easy, hard)
    clean.outcomes.datasets[:] = ["easy"] * 300 + ["hard"] * 100
    gates = fit_gates(clean, {"hard alone": clean.take(clean.outcomes.datasets == "hard")})
    assert gates["quality"]["age"] == {}


def test_degraded_table_by_hand() -> None:
    calibration = Calibration.from_dict(
        {"gates": {"quality": {"gender": {"sharpness": {"min": 0.5}}}}}
    )
    n = 80
    quality = np.tile(GOOD_QUALITY, (n, 1))
    quality[:40, SHARP] = 0.1
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    clean = Scored(made(n, gender=[0] * n, said_genders=([right] * 9 + [wrong]) * 8), calibration)
    # Half are blurred; of the others 12 are wrong, 8 were not found.
    said = [wrong] * 40 + [wrong] * 12 + [right] * 28
    bad = Scored(
        made(
            n, gender=[0] * n, said_genders=said, quality=quality, found=[i < 72 for i in range(n)]
        ),
        calibration,
    )
    table = degraded_table(clean, {"bad": bad, NOT_FACES[0]: bad})
    assert table["clean"]["gender"]["error"] == pytest.approx(0.1)
    assert table["clean"]["gender"]["abstained"] == 0
    row = table["bad"]
    assert row["found"] == pytest.approx(72 / 80)
    assert row["gender"]["abstained"] == pytest.approx(40 / 72)
    assert row["gender"]["answered"] == pytest.approx(32 / 80)
    assert row["gender"]["error"] == pytest.approx(12 / 32)
    assert row["gender"]["error_of_all_found"] == pytest.approx(52 / 72)
    assert row["gender"]["relative"]["value"] == pytest.approx(3.75)
    assert row["gender"]["relative"]["low"] > 2
    assert row["gender"]["judged"] == 32
    assert row["gender"]["within"] is False
    assert row["age"]["error"] is None
    assert row["abstained_from_any"] == pytest.approx(40 / 72)
    assert row["abstained_from_any_by_dataset"] == {"utkface": pytest.approx(40 / 72)}
    assert table[NOT_FACES[0]]["gender"]["error"] is None, "there is nothing to be right about"
    assert table[NOT_FACES[0]]["gender"]["judged"] == 0


def test_thirty_answers_are_judged_and_may_err_twice_as_often_as_clean_ones() -> None:
    right, wrong = [0.9, 0.1], [0.2, 0.8]

    def rows(n: int, wrongs: int) -> Scored:
        said = [wrong] * wrongs + [right] * (n - wrongs)
        nine_photos = [str(i % 9) for i in range(n)]
        outcomes = made(n, gender=[0] * n, said_genders=said, groups=nine_photos)
        return Scored(outcomes, Calibration())

    bad = {"twice": rows(30, 15), "more": rows(30, 16), "few": rows(29, 29)}
    table = degraded_table(rows(40, 10), bad)
    assert {name: table[name]["gender"]["within"] for name in bad} == {
        "twice": True,
        "more": False,
        "few": None,
    }
    no_interval = {"value": 2, "low": None, "high": None, "n": 30}
    assert table["twice"]["gender"]["relative"] == no_interval, "of nine photos"


def test_no_error_among_few_answers_does_not_prove_that_errors_are_rare() -> None:
    """Of 40 answers none is wrong: up to 8.8 % may be (Wilson), more than four times 2 %."""
    right, wrong = [0.9, 0.1], [0.2, 0.8]

    def rows(n: int, wrongs: int) -> Scored:
        said = [wrong] * wrongs + [right] * (n - wrongs)
        return Scored(made(n, gender=[0] * n, said_genders=said), Calibration())

    table = degraded_table(rows(400, 8), {"bad": rows(40, 0)})
    relative = table["bad"]["gender"]["relative"]
    assert (relative["value"], relative["low"]) == (0, 0)
    assert relative["high"] == pytest.approx(wilson(0, 40)[1] / 0.02)
    assert relative["high"] > 4


def test_without_a_clean_error_there_is_no_ratio_and_no_verdict() -> None:
    """Neither where nothing is wrong in one data set, nor where nothing is in any."""

    def rows(wrongs: int) -> Scored:
        said = [[0.2, 0.8]] * wrongs + [[0.9, 0.1]] * (80 - wrongs)
        own = made(80, gender=[0] * 80, said_genders=said)
        datasets = np.array(["hard"] * 40 + ["easy"] * 40)
        return Scored(dataclasses.replace(own, datasets=datasets), Calibration())

    apart = degraded_table(rows(8), {"bad": rows(8)})["bad"]["gender"]
    assert apart["by_dataset"]["easy"]["relative"] is None
    assert apart["by_dataset"]["easy"]["within"] is None
    assert apart["within"] is True
    cell = degraded_table(rows(0), {"bad": rows(8)})["bad"]["gender"]
    assert (cell["judged"], cell["relative"], cell["within"]) == (80, None, None)


def test_an_answer_is_held_against_the_clean_error_of_its_own_data_set() -> None:
    """Gates that let through less of the easier data set do no harm."""
    right, wrong = [0.9, 0.1], [0.2, 0.8]

    def rows(easy: int, hard: int, easy_wrong: int, hard_wrong: int) -> Scored:
        n = easy + hard
        said = [wrong] * easy_wrong + [right] * (easy - easy_wrong)
        said += [wrong] * hard_wrong + [right] * (hard - hard_wrong)
        own = made(n, gender=[0] * n, said_genders=said)
        datasets = np.array(["easy"] * easy + ["hard"] * hard)
        return Scored(dataclasses.replace(own, datasets=datasets), Calibration())

    clean = rows(100, 100, 2, 20)
    table = degraded_table(clean, {"bad": rows(10, 100, 1, 20), "worse": rows(100, 10, 30, 2)})
    cell = table["bad"]["gender"]
    assert cell["error"] == pytest.approx(21 / 110)
    assert cell["relative"]["value"] == pytest.approx(21 / (10 * 0.02 + 100 * 0.2))
    assert cell["within"] is True
    assert table["bad"]["abstained_from_any_by_dataset"] == {"easy": 0, "hard": 0}
    assert cell["by_dataset"]["hard"]["relative"]["value"] == pytest.approx(1)
    assert cell["by_dataset"]["easy"] == {
        "judged": 10,
        "error": pytest.approx(0.1),
        "relative": None,
        "within": None,
    }
    assert table["worse"]["gender"]["by_dataset"]["easy"]["relative"]["value"] == pytest.approx(15)
    assert table["worse"]["gender"]["within"] is False


def test_curves_hold_the_chosen_point() -> None:
    n = 100
    calibration = Calibration.from_dict(
        {"gates": {"certainty": {"gender": {"min_probability": 0.7}}}}
    )
    said = [[0.6, 0.4]] * 20 + [[0.9, 0.1]] * 80
    rows = Scored(made(n, gender=[1] * 20 + [0] * 80, said_genders=said), calibration)
    curves = gate_curves(rows, {})
    assert curves["gender"]["chosen"] == (0.8, 0.0)
    assert curves["gender"]["clean"][-1] == (1.0, pytest.approx(0.2))
    assert curves["gender"]["with degraded"][-1] == (1.0, pytest.approx(0.2))
    assert "age" not in curves
    assert "chosen" not in gate_curves(Scored(rows.outcomes, Calibration()), {})["gender"], (
        "without a gate, none is chosen"
    )
    # Degraded faces are included, non-faces are not.
    bad = Scored(made(100, gender=[1] * 100, said_genders=[[0.9, 0.1]] * 100), calibration)
    for name, error in (("bad", 0.6), (NOT_FACES[0], 0.2)):
        both = gate_curves(rows, {name: bad})["gender"]
        assert both["with degraded"][-1] == (1.0, pytest.approx(error))
        assert both["clean"] == curves["gender"]["clean"]


def test_each_measure_has_its_curve_and_its_gate_by_hand() -> None:
    quality = np.tile(GOOD_QUALITY, (100, 1))
    quality[:20, SHARP] = 0.1
    calibration = Calibration.from_dict(
        {"gates": {"quality": {"gender": {"sharpness": {"min": 0.5}}}}}
    )
    # All twenty blurred faces are wrong, and five of the eighty sharp ones.
    said = [[0.9, 0.1]] * 100
    rows = Scored(
        made(100, gender=[1] * 25 + [0] * 75, said_genders=said, quality=quality), calibration
    )
    measures = gate_curves(rows, {})["gender"]["by measure"]
    row = measures["sharpness, low first out"]
    assert row["chosen"] == (0.8, pytest.approx(5 / 80))
    assert row["points"][-1] == (1.0, pytest.approx(25 / 100))
    assert measures["yaw_degrees, high first out"]["chosen"] is None, "it has no gate"
    assert len(measures) == len(SIDES)


def test_what_lies_just_on_a_limit_is_answered() -> None:
    """Three of the four faces with a label; the fourth is too unsure and turned too far."""
    quality = np.tile(GOOD_QUALITY, (5, 1))
    quality[:, YAW] = [0, 30, -30, -40, 0]
    calibration = Calibration.from_dict(
        {
            "gates": {
                "quality": {"gender": {"yaw_degrees": {"max": 30}}},
                "certainty": {
                    "age": {"max_interval_years": 20},
                    "gender": {"min_probability": 0.75},
                },
            }
        }
    )
    rows = made(
        5,
        age=[41, 43, 43, 90, (0, 0)],
        said_ages=[years(40), years(30, 50), years(30, 50), years(20, 60), years(40)],
        gender=[0, 0, 1, 0, -1],
        said_genders=[[0.75, 0.25], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.9, 0.1]],
        quality=quality,
    )
    curves = gate_curves(Scored(rows, calibration), {})
    assert curves["age"]["chosen"] == (0.75, pytest.approx((1 + 3 + 3) / 3))
    assert curves["gender"]["chosen"] == (0.75, pytest.approx(1 / 3))
    by_yaw = curves["gender"]["by measure"]["yaw_degrees, high first out"]
    assert by_yaw["chosen"] == (0.75, pytest.approx(1 / 3))


@pytest.mark.parametrize("name", sorted(degradations()))
def test_degradations_change_the_picture_always_alike(name: str) -> None:
    rng = np.random.default_rng(0)
    picture: ImageArray = rng.integers(40, 200, (170, 170, 3), dtype=np.uint8)
    before = picture.copy()
    worse = degrade(picture, name, seed=3)
    assert worse.dtype == np.uint8
    assert worse.ndim == 3
    np.testing.assert_array_equal(picture, before, "the picture given stays as it was")
    np.testing.assert_array_equal(degrade(picture, name, seed=3), worse)
    assert worse.shape != picture.shape or (worse != picture).any()
    assert 5 < worse.mean() < 250


@pytest.mark.parametrize("border", [0.35, 0.1, 0.003, 1.0])
@pytest.mark.parametrize("side", [192, 200, 57])
def test_a_tight_picture_is_the_one_that_got_the_border(side: int, border: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (side + 3, side, 3), dtype=np.uint8)
    framed, _ = add_border(picture, border)
    np.testing.assert_array_equal(degrade(framed, "tight", seed=0, border=border), picture)


def test_without_a_border_none_is_removed() -> None:
    assert degradations().keys() - degradations(0).keys() == {"tight"}
    assert list(degradations(0.1)) == list(degradations())
    with pytest.raises(OptionError, match="no degradation 'tight'"):
        degrade(np.zeros((20, 20, 3), np.uint8), "tight", seed=0, border=0)


@pytest.mark.parametrize("name", sorted(degradations(0)))
@pytest.mark.parametrize("size", [(170, 120), (120, 170), (17, 17), (400, 30)])
def test_pictures_of_any_shape_keep_it(name: str, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(40, 200, (*size, 3), dtype=np.uint8)
    for border in (0.35, 0):
        framed, _ = add_border(picture, border)
        worse = degrade(framed, name, seed=3, border=border)
        cut = 5 if name == "not-a-face-tiles" else 0
        assert all(0 <= a - b <= cut for a, b in zip(framed.shape, worse.shape, strict=True))


@pytest.mark.parametrize("border", [0.35, 0.1, 0])
def test_sizes_are_of_the_crop_inside_the_border(border: float) -> None:
    framed, _ = add_border(np.full((100, 200, 3), 255, np.uint8), border)
    inside = (degrade(framed, "small-32px", seed=0, border=border) == 255).all(axis=2)
    rows, columns = inside.any(1).sum(), inside.any(0).sum()
    assert columns == pytest.approx(32, abs=2)
    assert rows == pytest.approx(16, abs=2), "in proportion"


def test_no_degradation_and_no_such_degradation() -> None:
    picture = np.zeros((20, 20, 3), np.uint8)
    assert degrade(picture, None, seed=0) is picture
    with pytest.raises(OptionError, match="no degradation 'fog'"):
        degrade(picture, "fog", seed=0)
