"""Settings of a judge's online training: what its statements earn, and how it is watched. Records only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.engines.number_formats import Format
from debate_rl.judges.callables import NamedFunction
from debate_rl.records import Record
from debate_rl.trainers.grpo.settings import Alarms

RULES = ("correctness", "brier", "log", "correctness+brier")


class JudgeRewards(Record):
    """What a statement earns.

    Example:
        JudgeRewards(rule="correctness+brier", format=0.2)
    """

    rule: Literal["correctness", "brier", "log", "correctness+brier"] = "correctness+brier"
    """correctness: 1 if the chosen answer is right, else 0 (J1, 2505.10320). brier: -(c - right)^2, c being the stated
    probability of the chosen answer. log: log of the stated probability of the right answer. correctness+brier: the sum
    of the first two (RLCR, 2507.16806)."""
    function: NamedFunction = None
    """Takes a `Judgement` and returns a number, in place of `rule`."""
    least: float = Field(default=0.01, gt=0, lt=0.5)
    """Least distance of a probability from 0 and 1 before the logarithm is taken."""
    length: float = Field(default=0.0, ge=0)
    """Penalty of an answer that uses all of its tokens; shorter ones pay in proportion."""
    format: float = Field(default=0.0, ge=0)
    """Penalty of an answer that states no probability, or that was cut off at its limit."""


class JudgeWatch(Record):
    """Measurements of a judge while it learns, on games that it does not learn from.

    Example:
        JudgeWatch(every=20, alarms=Alarms(stop=True))
    """

    every: int = Field(default=20, ge=1)
    """Steps between two measurements. There is also one before the first step and one after the last."""
    alarms: Alarms = Alarms()
    """Of `alarms`, a judge has accuracy_falls, one_side (the answer listed first is chosen) and stop; besides, it is an
    alarm if it states a probability less often than before."""


class Judging(Record):
    """Settings of a judge's online training, in addition to those of every training job.

    Example:
        Judging(rewards=JudgeRewards(rule="brier"), max_new_tokens=200, reasoning=True)
    """

    rewards: JudgeRewards = JudgeRewards()
    reasoning: bool = False
    """Ask for a short reasoning before the statement."""
    both_orders: bool = True
    """Show every game in both orders; each order is a group of its own."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature. Log-probabilities are computed at this temperature too."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest answer, in tokens: reasoning and statement."""
    watch: JudgeWatch | None = None
    watch_games: str | None = None
    """JSON-lines file with the transcripts that `watch` measures on."""
    device: str | None = None
    """Device of the measurements: cpu, cuda, cuda:1...; None uses a GPU if there is one."""
    dtype: Format | None = None
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at once; lower it if memory runs out."""

    @model_validator(mode="after")
    def _watch_has_games(self) -> Judging:
        if (self.watch is None) != (self.watch_games is None):
            raise ValueError("watch and watch_games belong together")
        return self


def judging_content(judging: Judging) -> Any:
    """The settings with the games of `watch` by content: two trainings with equal content are the same training."""
    settings = judging.model_dump(mode="json")
    if judging.watch_games is not None:
        settings["watch_games"] = hashlib.sha256(Path(judging.watch_games).read_bytes()).hexdigest()[:16]
    return settings
