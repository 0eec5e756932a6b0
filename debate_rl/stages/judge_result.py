"""What a judge stage measured. `judge`, `recorded_judge` and `attacks` each write a part of it."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from debate_rl.intervals import Effect
from debate_rl.judges.agreement import Agreement
from debate_rl.judges.attacks.robustness import AttackTable
from debate_rl.judges.scores import Change, JudgeScores, OrderEffect
from debate_rl.stages.base import StageResult, is_absent
from debate_rl.stages.training import TrainingResult


class JudgeAttacks(StageResult):
    """The same attacks on a judge before and after finetuning."""

    before: AttackTable
    after: AttackTable
    taught: tuple[str, ...] = ()
    """Attacks that the finetuned judge has learnt from."""
    rounds: tuple[tuple[str, ...], ...] = ()
    """Suffixes that were found against it in each adversarial round, and that it has learnt from."""


class JudgeResult(TrainingResult):
    """A judge before and after finetuning, on held-out transcripts.

    A field that only one kind of games or only some settings have is missing from metrics.json for the others. Fields
    that are not listed here are the main numbers of the attacks, attack_NAME_before and attack_NAME_after, which stand
    at the top so that W&B shows them.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Effect]

    adversarial: tuple[TrainingResult, ...] = Field(default=(), exclude_if=is_absent)
    """The trainings of the adversarial rounds."""
    failed_games: int | None = Field(default=None, exclude_if=is_absent)
    """None for recorded games, which nobody plays."""
    failed_verdicts: int | None = Field(default=None, exclude_if=is_absent)
    """None for recorded games."""
    failed_calibration: int | None = Field(default=None, exclude_if=is_absent)
    """Verdicts on the recorded games that it is calibrated on, that failed."""
    before: JudgeScores
    after: JudgeScores
    change: Change
    """After minus before, paired by held-out transcript."""
    order_effect: OrderEffect | None = Field(default=None, exclude_if=is_absent)
    """None for recorded games."""
    humans: tuple[Agreement, ...] = Field(default=(), exclude_if=is_absent)
    """Human judges, the constant predictor and the models on the same recorded games."""
    failed: int | None = Field(default=None, exclude_if=is_absent)
    """Recorded test games on which one of the judges has no verdict."""
    attacks: JudgeAttacks | None = Field(default=None, exclude_if=is_absent)
