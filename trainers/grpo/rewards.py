"""What speeches earn: the judge's matrix of probabilities becomes a term for winning, and penalties stand beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    """What a probability for the speaker's side is worth.

    Example:
        >>> value(0.75, Rewards()), round(value(0.75, Rewards(win="log_score", zero_sum=True)), 3)
        (0.75, 0.549)
    """
    own = _value(p, rewards)
    return (own - _value(1 - p, rewards)) / 2 if rewards.zero_sum else own


def _value(p: float, rewards: Rewards) -> float:
    if rewards.win == "probability":
        return p
    kept = min(max(p, rewards.least), 1 - rewards.least)
    return math.log(kept) if rewards.win == "log_score" else math.log(kept / (1 - kept))


def win_term(row: Sequence[float | None], rewards: Rewards) -> float | None:
    """Mean value over the games of a speech: those that the judge gave a finite probability; None without any."""
    seen = [value(p, rewards) for p in row if p is not None and math.isfinite(p)]
    return sum(seen) / len(seen) if seen else None


def earned(speech: Speech, win: float | None, rewards: Rewards) -> Earned | None:
    """The reward of a speech; None where the judge gave none, or it was cut off and is not to be learnt from."""
    cut = speech.origin.finish == "length"
    if win is None or (cut and rewards.truncated == "mask"):
        return None
    found = Earned(
        win=win,
        length=-rewards.length * speech.origin.new_tokens / max(speech.origin.max_new_tokens or 1, 1),
        invalid_quotes=-rewards.invalid_quotes * invalid_share(speech),
        truncated=-rewards.truncation if cut and rewards.truncated == "penalise" else 0.0,
    )
    return found if math.isfinite(found.total) else None


def invalid_share(speech: Speech) -> float:
    """Share of a speech's quotes that are invalid; 1 where it has none."""
    invalid = [quote.verdict == "invalid" for quote in speech.quotes]
    return sum(invalid) / len(invalid) if invalid else 1.0


def all_equal(group: Sequence[Earned | None]) -> bool:
    """Whether a group teaches nothing: fewer than two of its speeches have a reward, or all the same one."""
    totals = [one.total for one in group if one is not None]
    return len(totals) < 2 or max(totals) - min(totals) < 1e-6
