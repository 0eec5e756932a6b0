"""Losses as pure functions on tensors, for preferences and for students that learn from weak labels.

Preference targets and losses are those of Arnesen, Rein and Michael 2024 (arXiv 2409.16636).

C is the judge's probability for the speaker's side; w is the better speech, l the worse. A target P is the probability
that w is preferred. h is the difference of log-ratios:
    h = [log pi(y_w) - log pi(y_l)] - [log ref(y_w) - log ref(y_l)]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from debate_rl.trainers.common.settings import Target

DEFAULT_GAMMA = {"prob": 5.75, "logprob": 2.25}
"""The published defaults; the runs used 7 (debate) and 10 (consultancy) for `prob`."""


def preference_target(
    p_chosen: Tensor, p_rejected: Tensor, target: Target, gamma: float | None = None, m: float = 5.0, t: float = 0.125
) -> Tensor:
    """Probability that the chosen speech is the better one, from the judge's probabilities after each.

    prob:    sigma(gamma (C_w - C_l))
    logprob: C_w^gamma / (C_w^gamma + C_l^gamma)
    logit:   sigma(logit C_w - logit C_l)
    sigmoid: sigma(r_w - r_l) with r = m / (1 + exp(-(C - 1/2) / t))
    binary:  1

    Args:
        p_chosen: (n,) probabilities C_w.
        p_rejected: (n,) probabilities C_l.
        target: which of the five.
        gamma: sharpness of `prob` and `logprob`; None takes the published default of each.
        m: largest reward of `sigmoid`.
        t: width of `sigmoid`.

    Returns:
        (n,) probabilities.
    """
    if gamma is None:
        gamma = DEFAULT_GAMMA.get(target, 1.0)
    if target == "prob":
        return torch.sigmoid(gamma * (p_chosen - p_rejected))
    if target == "logprob":
        # The quotient of powers as a sigmoid of logs: C^gamma underflows where C is small.
        return torch.sigmoid(gamma * (_log(p_chosen) - _log(p_rejected)))
    if target == "logit":
        return torch.sigmoid(_logit(p_chosen) - _logit(p_rejected))
    if target == "sigmoid":
        reward_chosen = torch.sigmoid((p_chosen - 0.5) / t)
        reward_rejected = torch.sigmoid((p_rejected - 0.5) / t)
        return torch.sigmoid(m * (reward_chosen - reward_rejected))
    return torch.ones_like(p_chosen)


def log_ratio_gap(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    lengths: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The difference h of log-ratios.

    Args:
        chosen: (n,) log pi(y_w), summed over tokens.
        rejected: (n,) log pi(y_l).
        ref_chosen: (n,) log ref(y_w).
        ref_rejected: (n,) log ref(y_l).
        lengths: (n,) token counts of y_w and of y_l: each log-ratio is divided by its own; None leaves sums.

    Returns:
        (n,) values of h in nats, or in nats per token.
    """
    won = chosen - ref_chosen
    lost = rejected - ref_rejected
    if lengths is not None:
        # A speech that was cut to nothing has 0 tokens and log-ratio 0: dividing by 1 leaves it 0, not NaN.
        won = won / lengths[0].clamp(min=1)
        lost = lost / lengths[1].clamp(min=1)
    return won - lost


def soft_dpo(h: Tensor, target: Tensor, beta: float) -> Tensor:
    """-P log sigma(beta h) - (1 - P) log sigma(-beta h), (n,). With P = 1 this is DPO (Rafailov et al. 2023, eq. 7)."""
    return -target * F.logsigmoid(beta * h) - (1 - target) * F.logsigmoid(-beta * h)


def soft_ipo(h: Tensor, target: Tensor, beta: float) -> Tensor:
    """(h - P / (2 beta))^2, (n,). With P = 1 this is IPO (Azar et al. 2023, eq. 17)."""
    return (h - target / (2 * beta)) ** 2


def with_sft(preference: Tensor, chosen: Tensor, weight: float, lengths: Tensor | None = None) -> Tensor:
    """(1 - a) preference loss + a (-log pi(y_w)).

    Args:
        preference: (n,) losses of pairs.
        chosen: (n,) log pi(y_w), summed over tokens.
        weight: a, in [0, 1].
        lengths: (n,) token counts of y_w, to divide its log-probability by; None leaves the sum.
    """
    if weight == 0:
        return preference
    nll = -chosen if lengths is None else -chosen / lengths.clamp(min=1)
    return (1 - weight) * preference + weight * nll


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-P log p_0 - (1 - P) log p_1 with p = softmax(logits), (n,).

    Args:
        logits: (n, 2) logits of the two outcomes, or their log-probabilities up to a constant.
        target: (n,) target probability P of outcome 0.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -target * log_p[:, 0] - (1 - target) * log_p[:, 1]


def bradley_terry(gap: Tensor, target: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-P log sigma(d - m) - (1 - P) log sigma(-d - m), (n,), of two rewards (Bradley and Terry 1952).

    With P = 1 it is the loss of Touvron et al. 2023 (arXiv 2307.09288, eq. 2), TRL's with a margin.

    Args:
        gap: (n,) rewards d = r_first - r_second.
        target: (n,) target probability P that the first is better.
        margin: (n,) m, the reward difference by which the better one should win.
    """
    return -target * F.logsigmoid(gap - margin) - (1 - target) * F.logsigmoid(-gap - margin)


def confidence_ramp(progress: float, largest: float, warmup: float) -> float:
    """Weight c of a student's own label, largest min(1, progress / warmup) (Burns et al. 2023, appendix A.4).

    Args:
        progress: share of the training done, 0 to 1.
        largest: c after the warm-up.
        warmup: share of the training over which c rises from 0; 0 starts at the largest.
    """
    if progress >= warmup:
        return largest
    return largest * progress / warmup


def hardened(logits: Tensor, target: Tensor) -> Tensor:
    """The student's own hard labels, (n,), detached, with as many of outcome 0 as the weak labels have on average.

    The k rows with the highest probability of outcome 0 get 1, the others 0, where k is n mean(target), rounded. Rows
    that tie at the threshold share the rest, so that the class prior holds whatever the order of the rows.

    Args:
        logits: (n, 2) of a whole batch.
        target: (n,) weak labels, P(outcome 0).
    """
    gap = (logits[:, 0] - logits[:, 1]).detach()
    # Not round(): it takes halves to the even number.
    count = torch.floor(target.double().mean() * len(gap) + 0.5)
    above = (gap[None, :] > gap[:, None]).sum(1)
    # A gap that is NaN equals nothing, not even itself; without the clamp it would divide by 0.
    tied = (gap[None, :] == gap[:, None]).sum(1).clamp(min=1)
    return ((count - above) / tied).clamp(0, 1).to(target.dtype)


def auxiliary_confidence(logits: Tensor, target: Tensor, c: float) -> Tensor:
    """CE(p, (1 - c) w + c y), (n,), where y are the labels of `hardened` (Burns et al. 2023, eq. 1)."""
    return soft_cross_entropy(logits, (1 - c) * target + c * hardened(logits, target))


def product_target(logits: Tensor, target: Tensor, label_power: float = 1.0, own_power: float = 1.0) -> Tensor:
    """normalise(p^own_power w^label_power) for outcome 0, (n,), detached; a hard label stays as it is."""
    # In logits neither a power of 0 nor an underflow of p can make 0 / 0; logit(0) is -inf and gives 0.
    gap = (logits[:, 0] - logits[:, 1]).detach()
    return torch.sigmoid(own_power * gap + label_power * torch.logit(target))


def confident_entropy(logits: Tensor, target: Tensor, c: float) -> Tensor:
    """(1 - c) CE(p, w) + c H(p), (n,).

    The model's own soft label is not detached: the gradient of CE(p, p) with a detached label is 0, so nothing would be
    learnt from it.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return (1 - c) * soft_cross_entropy(logits, target) - c * (log_p.exp() * log_p).sum(-1)


def _log(p: Tensor) -> Tensor:
    """Log of a probability, kept finite at 0."""
    return torch.log(p.clamp(min=torch.finfo(p.dtype).tiny))


def _logit(p: Tensor) -> Tensor:
    """Logit of a probability, kept finite at 0 and 1."""
    return torch.logit(p, eps=1e-6)
