"""Losses against cases worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from facewise.training.config import LossConfig  # noqa: E402
from facewise.training.losses import (  # noqa: E402
    Labels,
    age_distribution_loss,
    distillation_loss,
    total_loss,
)

Tensor = Any

UNIFORM = torch.zeros(1, 120)


def ages(first: int, last: int) -> Tensor:
    return torch.tensor([[first, last]])


def test_an_age_group_costs_the_probability_it_was_not_given() -> None:
    loss = age_distribution_loss(UNIFORM, ages(20, 29), sigma_years=2.0, l1=0.2)
    assert float(loss) == pytest.approx(-math.log(10 / 120), abs=1e-5)


def test_an_exact_age_costs_the_divergence_from_its_bell_and_the_distance_of_the_mean() -> None:
    years = torch.arange(1, 121).float()
    bell = torch.softmax(-0.5 * ((years - 40) / 2) ** 2, dim=0)
    divergence = float(torch.xlogy(bell, bell * 120).sum())
    without = age_distribution_loss(UNIFORM, ages(40, 40), sigma_years=2.0, l1=0.0)
    assert float(without) == pytest.approx(divergence, abs=1e-4)
    # The uniform mean is 60.5; beyond one year, smooth L1 is the distance less one half.
    with_distance = age_distribution_loss(UNIFORM, ages(40, 40), sigma_years=2.0, l1=0.2)
    assert float(with_distance - without) == pytest.approx(0.2 * (20.5 - 0.5), abs=1e-4)


def test_the_right_distribution_costs_nothing() -> None:
    years = torch.arange(1, 121).float()
    logits = (-0.5 * ((years - 40) / 2) ** 2)[None]
    loss = age_distribution_loss(logits, ages(40, 40), sigma_years=2.0, l1=1.0)
    assert float(loss) == pytest.approx(0.0, abs=1e-3)


def test_an_unknown_age_costs_nothing_and_does_not_dilute_the_known() -> None:
    both = torch.cat([ages(20, 29), ages(0, 0)])
    loss = age_distribution_loss(UNIFORM.repeat(2, 1), both, sigma_years=2.0, l1=0.2)
    assert float(loss) == pytest.approx(-math.log(10 / 120), abs=1e-5)


def test_unknown_labels_are_left_out() -> None:
    logits = torch.zeros(2, 127)
    logits[1, 120] = 9.0  # wrong, if its label were known
    known = Labels(torch.zeros(2, 2).long(), torch.tensor([1, -1]), torch.tensor([-1, -1]))
    loss = total_loss(logits, known, LossConfig(label_smoothing=0.0))
    assert float(loss) == pytest.approx(math.log(2), abs=1e-5)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    logits = torch.randn(4, 127, generator=torch.Generator().manual_seed(0))
    parts = logits.split([120, 2, 5], dim=-1)
    teacher = torch.cat([part.softmax(-1) for part in parts], dim=-1)
    assert float(distillation_loss(logits, teacher, LossConfig())) == pytest.approx(0.0, abs=1e-5)
    assert float(distillation_loss(logits + torch.randn(4, 127), teacher, LossConfig())) > 0.05


def test_the_binary_loss_is_nineteen_sigmoids() -> None:
    decades = torch.tensor([[2.0] + [-3.0] * 11, [0.0] * 12])
    rest = torch.tensor([[1.0, -1.0, 0.5, 0, 0, 0, 0], [0.0] * 7])
    logits = torch.cat([decades.repeat_interleave(10, dim=1), rest], dim=1)
    labels = Labels(torch.tensor([[10, 10], [11, 11]]), torch.tensor([0, -1]), torch.tensor([0, 4]))
    vector = torch.cat([decades, rest], dim=1).sigmoid()
    target = torch.zeros(2, 19)
    target[0, [0, 12, 14]] = 1  # 10 is in the first decade, 11 in the second
    target[1, [1, 18]] = 1
    expected = -(target * vector.log() + (1 - target) * (1 - vector).log()).mean()
    found = total_loss(logits, labels, LossConfig(kind="binary"))
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_the_binary_loss_leaves_out_ages_that_are_of_no_one_decade() -> None:
    logits = torch.randn(4, 19, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([logits[:, :12].repeat_interleave(10, dim=1), logits[:, 12:]], dim=1)
    ranges = torch.tensor([[25, 25], [22, 28], [0, 0], [18, 24]])
    labels = Labels(ranges, torch.tensor([0, 1, 0, 1]), torch.tensor([2, 3, 2, 3]))
    known = Labels(ranges[:2], labels.gender[:2], labels.ethnicity[:2])
    config = LossConfig(kind="binary")
    assert float(total_loss(logits, labels, config)) == pytest.approx(
        float(total_loss(logits[:2], known, config))
    )
    unknown = Labels(ranges[2:], labels.gender[2:], labels.ethnicity[2:])
    assert float(total_loss(logits[2:], unknown, config)) == 0
