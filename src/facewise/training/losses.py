"""Losses: an age distribution, from exact ages and from age groups, and two classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from facewise.training.config import LossConfig
from facewise.training.network import AGES, DECADES, split_logits


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a batch.

    Attributes:
        age_ranges: int64 ``(N, 2)``, first and last year; equal for an exact age, 0 for unknown.
        gender: int64 ``(N,)``, -1 for unknown.
        ethnicity: int64 ``(N,)``, -1 for unknown.
        teacher: float32 ``(N, 127)`` probabilities of a teacher, or None.
    """

    age_ranges: Tensor
    gender: Tensor
    ethnicity: Tensor
    teacher: Tensor | None = None


def age_distribution_loss(
    logits: Tensor, age_ranges: Tensor, *, sigma_years: float, l1: float
) -> Tensor:
    """Mean loss of ``(N, 120)`` age logits.

    An exact age is widened to a normal distribution over years (label distribution learning; Gao
    et al., 2017) and compared by cross-entropy, and the absolute error of the expected age is
    added. An age group contributes its likelihood, the probability summed over its years, so
    nothing is assumed about where in the group the age lies.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    first, last = age_ranges[:, 0], age_ranges[:, 1]
    years = torch.arange(1, AGES + 1, device=logits.device)
    exact = ((first == last) & (first > 0)).float()
    grouped = (first < last).float()
    offsets = (years[None] - first[:, None]).float()
    target = torch.softmax(-0.5 * (offsets / sigma_years) ** 2, dim=-1)  # (N, 120)
    cross_entropy = -(target * log_p).sum(-1) + (target * (target + 1e-12).log()).sum(-1)
    expected = log_p.exp() @ years.float()
    absolute = functional.smooth_l1_loss(expected, first.float(), reduction="none", beta=1.0)
    inside = (years[None] >= first[:, None]) & (years[None] <= last[:, None])
    likelihood = torch.logsumexp(log_p.masked_fill(~inside, -1e4), dim=-1)
    per_face = exact * (cross_entropy + l1 * absolute) - grouped * likelihood
    return per_face.sum() / (exact + grouped).sum().clamp(min=1)


def distillation_loss(logits: Tensor, teacher: Tensor, config: LossConfig) -> Tensor:
    """Cross-entropy with the teacher's three distributions, minus the teacher's own entropy.

    Each has the same weight as the labels of its kind.
    """
    parts = split_logits(logits)
    target = split_logits(teacher)
    total = logits.new_zeros(())
    for weight, ours, theirs in (
        (config.age, parts.ages, target.ages),
        (config.gender, parts.gender, target.gender),
        (config.ethnicity, parts.ethnicity, target.ethnicity),
    ):
        total = total + weight * functional.kl_div(
            torch.log_softmax(ours, dim=-1), theirs, reduction="batchmean"
        )
    return total


def binary_loss(logits: Tensor, labels: Labels) -> Tensor:
    """The original app's loss: binary cross-entropy of 19 sigmoids.

    Args:
        logits: ``(N, 127)`` of a head that predicts decades, so that a decade's ten are equal.
        labels: faces whose age is unknown, or a range across decades, are left out; a missing
            gender or ethnicity counts as all zeros.
    """
    years = AGES // DECADES
    first, last = ((labels.age_ranges - 1) // years).T
    known = (first == last) & (labels.age_ranges[:, 0] > 0)
    if not bool(known.any()):
        return logits.sum() * 0
    logits, decade = logits[known], first[known]
    parts = split_logits(logits)
    vector = torch.cat([parts.ages[:, ::years], parts.gender, parts.ethnicity], dim=1)  # (N, 19)
    target = torch.cat(
        [
            functional.one_hot(decade, DECADES),
            *(
                functional.one_hot(label.clamp(min=0), part.shape[1]) * (label >= 0)[:, None]
                for label, part in (
                    (labels.gender[known], parts.gender),
                    (labels.ethnicity[known], parts.ethnicity),
                )
            ),
        ],
        dim=1,
    )
    return functional.binary_cross_entropy_with_logits(vector, target.to(vector.dtype))


def total_loss(logits: Tensor, labels: Labels, config: LossConfig) -> Tensor:
    """Weighted sum of all parts over a batch, ``(N, 127)`` logits to a scalar."""
    if config.kind == "binary":
        return binary_loss(logits, labels)
    parts = split_logits(logits)
    loss = config.age * age_distribution_loss(
        parts.ages, labels.age_ranges, sigma_years=config.age_sigma_years, l1=config.age_l1
    )
    for weight, part, target in (
        (config.gender, parts.gender, labels.gender),
        (config.ethnicity, parts.ethnicity, labels.ethnicity),
    ):
        known = target >= 0
        if bool(known.any()):
            loss = loss + weight * functional.cross_entropy(
                part[known], target[known], label_smoothing=config.label_smoothing
            )
    if labels.teacher is not None and config.distill > 0:
        loss = (1 - config.distill) * loss + config.distill * distillation_loss(
            logits, labels.teacher, config
        )
    return loss
