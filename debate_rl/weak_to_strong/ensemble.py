"""Combines the labels of an ensemble of supervisors, and weighs rows for the next member of boosting.

Lang, Huang and Li 2025 average soft labels. Boosting is AdaBoost.M1 (Freund and Schapire 1997, figure 2; in the form of
Hastie, Tibshirani and Friedman 2009, algorithm 10.1) on D1's ground truth: a member's rows weigh more where the members
before it were wrong, and its vote is log((1 - e) / e) for its weighted error e.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import Floats

Combination = Literal["mean", "vote", "confidence", "boosting"]
MOST_MEMBERS = 8
LEAST_ERROR = 0.01
"""Smallest error in a vote: a member that is right on all of D1 learnt it by heart, and would get an infinite vote."""


def combine(members: ArrayLike, how: Combination, votes: ArrayLike | None = None) -> Floats:
    """Combine the members' probabilities into one an item, (n,).

    mean:       mean of the probabilities
    vote:       share of members above 1/2; a member at 1/2 counts half
    confidence: mean weighted by each member's confidence |2 p - 1| on the item; 1/2 where no member has any
    boosting:   sigma(sum of votes (2 h - 1)) with hard labels h; a member at 1/2 gives no vote

    Args:
        members: (k, n) P(answer 0), k from 1 to 8.
        how: one of the four.
        votes: (k,) votes of boosting, from `boost`.

    Raises:
        UserError: the number or lengths of members do not fit, values are no probabilities, or votes do not fit.
    """
    try:
        p = np.asarray(members, dtype=float)
    except ValueError as error:
        raise UserError("the members of an ensemble labelled different numbers of items; label the same D2") from error
    if p.ndim != 2 or not 1 <= len(p) <= MOST_MEMBERS:
        raise UserError(f"an ensemble has 1 to {MOST_MEMBERS} members, each with one probability an item")
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError("a member's label is not a probability between 0 and 1; train that member anew")
    if how == "mean":
        return p.mean(0)
    hard = np.where(p == 0.5, 0.5, p > 0.5)
    if how == "vote":
        return hard.mean(0)
    if how == "confidence":
        weights = np.abs(2 * p - 1)
        total = weights.sum(0)
        divisor = np.where(total > 0, total, 1.0)  # no division by 0: these items get 1/2 below
        return np.where(total > 0, (weights * p).sum(0) / divisor, 0.5)
    member_votes = np.asarray([] if votes is None else votes, dtype=float)
    if member_votes.shape != (len(p),):
        raise UserError(f"boosting needs one vote for each of its {len(p)} members, not {member_votes.size}")
    # AdaBoost gives the sign of this sum; the sigmoid keeps it and makes a soft label of it.
    return 1 / (1 + np.exp(-(member_votes[:, None] * (2 * hard - 1)).sum(0)))


def boost(weights: ArrayLike, p: ArrayLike, truth: ArrayLike) -> tuple[Floats, float]:
    """Weigh D1's rows for the next member of boosting, and give the vote of this one.

    A member that is no better than chance on its weighted rows gets no vote, and the next one starts from equal weights
    and its own seed (AdaBoost.M1 stops there, which would leave fewer members than were requested).

    Args:
        weights: (n,) weights of the rows that this member learnt.
        p: (n,) its P(answer 0) on these rows.
        truth: (n,) 1 where answer 0 is correct.

    Returns:
        (n,) weights with mean 1, and the vote.

    Raises:
        UserError: arguments of different lengths.
    """
    before = np.asarray(weights, dtype=float)
    labels = np.asarray(p, dtype=float)
    targets = np.asarray(truth, dtype=float)
    if not before.shape == labels.shape == targets.shape:
        raise UserError(f"{before.size} weights and {labels.size} labels for {targets.size} items; give one of each")
    wrong = np.where(labels == 0.5, 0.5, (labels > 0.5) != (targets > 0.5))
    error = float((before * wrong).sum() / before.sum())
    if error >= 0.5:
        return np.ones_like(before), 0.0
    bounded = max(error, LEAST_ERROR)
    vote = float(np.log((1 - bounded) / bounded))
    after = before * np.exp(vote * wrong)
    return after / after.mean(), vote
