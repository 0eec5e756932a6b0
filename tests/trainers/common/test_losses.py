"""Targets and losses against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.trainers.common.losses import (
    log_ratio_gap,
    preference_target,
    soft_cross_entropy,
    soft_dpo,
    soft_ipo,
    with_sft,
)

probability = st.floats(0.01, 0.99)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def sigma(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        ("prob", {}, sigma(5.75 * 0.4)),
        ("prob", {"gamma": 7}, sigma(7 * 0.4)),
        ("logprob", {}, 0.7**2.25 / (0.7**2.25 + 0.3**2.25)),
        ("logprob", {"gamma": 1}, 0.7),
        ("logit", {}, sigma(math.log(0.7 / 0.3) - math.log(0.3 / 0.7))),
        ("sigmoid", {}, sigma(5 / (1 + math.exp(-0.2 / 0.125)) - 5 / (1 + math.exp(0.2 / 0.125)))),
        ("sigmoid", {"m": 2, "t": 0.5}, sigma(2 / (1 + math.exp(-0.4)) - 2 / (1 + math.exp(0.4)))),
        ("binary", {}, 1.0),
    ],
)
def test_targets_by_hand(target, options, expected):
    assert preference_target(t(0.7), t(0.3), target, **options).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("target", ["prob", "logprob", "logit", "sigmoid"])
@given(a=probability, b=probability)
def test_targets_are_antisymmetric_and_follow_the_judge(target, a, b):
    p, q = preference_target(t(a), t(b), target).item(), preference_target(t(b), t(a), target).item()
    assert p + q == pytest.approx(1, abs=1e-9)
    assert (p >= 0.5) == (a >= b) or a == pytest.approx(b)


@pytest.mark.parametrize("target", ["prob", "logprob", "logit", "sigmoid", "binary"])
def test_targets_stay_finite_at_certainty(target):
    assert torch.isfinite(preference_target(t(1.0, 0.0, 1.0), t(0.0, 0.0, 1.0), target)).all()


def test_gap_summed_and_per_token():
    chosen, rejected, ref_chosen, ref_rejected = t(-10.0), t(-12.0), t(-11.0), t(-10.0)
    assert log_ratio_gap(chosen, rejected, ref_chosen, ref_rejected).item() == pytest.approx(1 - -2)
    divided = log_ratio_gap(chosen, rejected, ref_chosen, ref_rejected, (torch.tensor([5]), torch.tensor([4])))
    assert divided.item() == pytest.approx(1 / 5 - -2 / 4)


def test_losses_by_hand():
    h, p = t(0.8), t(0.75)
    expected = -0.75 * math.log(sigma(0.4)) - 0.25 * math.log(sigma(-0.4))
    assert soft_dpo(h, p, 0.5).item() == pytest.approx(expected)
    assert soft_ipo(h, p, 0.5).item() == pytest.approx((0.8 - 0.75) ** 2)
    assert with_sft(t(0.6), t(-20.0), 0.1).item() == pytest.approx(0.9 * 0.6 + 0.1 * 20)
    assert with_sft(t(0.6), t(-20.0), 0.1, torch.tensor([10])).item() == pytest.approx(0.9 * 0.6 + 0.1 * 2)
    assert with_sft(t(0.6), t(-20.0), 0.0) is not None
    assert soft_cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([0.25])).item() == pytest.approx(
        -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    )


@given(p=probability, beta=st.floats(0.05, 2))
def test_soft_dpo_is_least_where_the_model_agrees_with_the_judge(p, beta):
    best = math.log(p / (1 - p)) / beta
    around = soft_dpo(t(best - 0.1, best, best + 0.1), t(p, p, p), beta)
    assert around.argmin().item() == 1
