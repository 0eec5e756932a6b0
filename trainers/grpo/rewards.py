"""Rewards of speeches: a term for winning, from the judge's probabilities, and penalties beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from debate_rl.game.transcript import Speech
from debate_rl.records import Record
from debate_rl.trainers.grpo.settings import Rewards

TERMS = ("win", "length", "invalid_quotes", "truncated")
"""Terms of a reward, which is their sum."""


class Earned(Record):
    """The reward of one speech by terms.

    Example:
        Earned(win=0.62, length=-0.1, invalid_quotes=0.0, truncated=0.0)
    """

    win: float
    length: float = 0.0
    invalid_quotes: float = 0.0
    truncated: float = 0.0

    @property
    def total(self) -> float:
        """The reward."""
        return self.win + self.length + self.invalid_quotes + self.truncated


def value(p: float, rewards: Rewards) -> float:
    """Value of a probability for the speaker's side.

    Example:
        >>> value(0.75, Rewards()), round(value(0.75, Rewards(win="log_score", zero_sum=True)), 3)
        (0.75, 0.549)
    """
    own_value = _one_sided(p, rewards)
    if not rewards.zero_sum:
        return own_value
    # With log_score both sides' values do not sum to a constant; half of the difference makes a zero-sum game of it.
    return (own_value - _one_sided(1 - p, rewards)) / 2


def _one_sided(p: float, rewards: Rewards) -> float:
    """Value of a probability, without regard to what the other side gets."""
    if rewards.win == "probability":
        return p
    # Without the clip one certain verdict would outweigh all others of the batch.
    p = min(max(p, rewards.least), 1 - rewards.least)
    if rewards.win == "log_score":
        return math.log(p)
    return math.log(p / (1 - p))


def win_term(row: Sequence[float | None], rewards: Rewards) -> float | None:
    """Mean value of a speech over its games.

    Args:
        row: probability of the speaker's side in each game; None and values that are not finite are left out, since
            a missing verdict is no loss.
        rewards: how a probability is valued.

    Returns:
        None if the judge gave no probability for any game.
    """
    values = [value(p, rewards) for p in row if p is not None and math.isfinite(p)]
    if not values:
        return None
    return sum(values) / len(values)


def earned(speech: Speech, win: float | None, rewards: Rewards) -> Earned | None:
    """The reward of a speech; None without a verdict, or if it was cut off and such speeches are masked."""
    truncated = speech.origin.finish == "length"
    if win is None or (truncated and rewards.truncated == "mask"):
        return None
    most_tokens = max(speech.origin.max_new_tokens or 1, 1)
    penalised = truncated and rewards.truncated == "penalise"
    reward = Earned(
        win=win,
        length=-rewards.length * speech.origin.new_tokens / most_tokens,
        invalid_quotes=-rewards.invalid_quotes * invalid_share(speech),
        truncated=-rewards.truncation if penalised else 0.0,
    )
    return reward if math.isfinite(reward.total) else None


def invalid_share(speech: Speech) -> float:
    """Share of a speech's quotes that are invalid; 1 if it has no quotes."""
    if not speech.quotes:
        return 1.0
    invalid = sum(quote.verdict == "invalid" for quote in speech.quotes)
    return invalid / len(speech.quotes)


class Reward(Protocol):
    """A reward that is the sum of its terms."""

    @property
    def total(self) -> float:
        """The sum."""


def all_equal(group: Sequence[Reward | None]) -> bool:
    """Whether a group teaches nothing: fewer than two of its texts have a reward, or all have the same one."""
    totals = [reward.total for reward in group if reward is not None]
    if len(totals) < 2:
        return True
    # GRPO divides by the group's spread, which would blow differences of rounding up to full size.
    return max(totals) - min(totals) < 1e-6
