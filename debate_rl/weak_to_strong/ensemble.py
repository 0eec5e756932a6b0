"""How the supervisors of an ensemble come to one label, and how boosting weighs what the next one learns.

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
"""A member that is right on all of D1 has learnt it by heart; its vote is that of this error, not infinite."""


def combine(members: ArrayLike, how: Combination, votes: ArrayLike | None = None) -> Floats:
    """One probability an item from those of the members, (n,).

    mean:       the mean of probabilities
    vote:       the share of members above 1/2; one at 1/2 counts half
    confidence: the mean, each member weighed by its confidence |2 p - 1| on the item; 1/2 where none has any
    boosting:   sigma(sum of votes (2 h - 1)) with hard labels h; one at 1/2 gives no vote

    Args:
        members: (k, n) P(answer 0), k from 1 to 8.
        how: which of the four.
        votes: (k,) of boosting, from `boost`.

    Raises:
        UserError: members of another number or of different lengths, values that are no probabilities, or votes that
            do not fit.
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
        return np.where(total > 0, (weights * p).sum(0) / np.where(total > 0, total, 1.0), 0.5)
    given = np.asarray([] if votes is None else votes, dtype=float)
    if given.shape != (len(p),):
        raise UserError(f"boosting needs one vote for each of its {len(p)} members, not {given.size}")
    return 1 / (1 + np.exp(-(given[:, None] * (2 * hard - 1)).sum(0)))


def boost(weights: ArrayLike, p: ArrayLike, truth: ArrayLike) -> tuple[Floats, float]:
    """The weights of D1's rows for the next member, and the vote of this one.

    A member that is no better than chance on its weighted rows gets no vote, and the next starts from equal weights
    and a seed of its own (AdaBoost.M1 stops there, which would leave fewer members than were asked for).

    Args:
        weights: (n,) of the rows that this member learnt.
        p: (n,) its P(answer 0) on them.
        truth: (n,) 1 where answer 0 is correct.

    Returns:
        (n,) weights with mean 1, and the vote.

    Raises:
        UserError: arguments of different lengths.
    """
    before, found, right = (np.asarray(values, dtype=float) for values in (weights, p, truth))
    if not before.shape == found.shape == right.shape:
        raise UserError(f"{before.size} weights and {found.size} labels for {right.size} items; give one of each")
    wrong = np.where(found == 0.5, 0.5, (found > 0.5) != (right > 0.5))
    error = float((before * wrong).sum() / before.sum())
    if error >= 0.5:
        return np.ones_like(before), 0.0
    vote = float(np.log((1 - max(error, LEAST_ERROR)) / max(error, LEAST_ERROR)))
    after = before * np.exp(vote * wrong)
    return after / after.mean(), vote
