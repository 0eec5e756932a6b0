"""What a judge stage measured. `judge`, `recorded_judge` and `attacks` each write a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field

from debate_rl.engines.request import Engine
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.intervals import Effect
from debate_rl.judges.agreement import Agreement
from debate_rl.judges.attacks.robustness import AttackTable
from debate_rl.judges.judge import AnyJudge, judge_transcripts
from debate_rl.judges.scores import Change, JudgeScores, OrderEffect, judge_change, judge_scores
from debate_rl.stages.base import StageResult, is_absent
from debate_rl.stages.training import TrainingResult


class JudgedTwice(NamedTuple):
    """Games with the verdicts of a judge before and after its training, those that both decided."""

    indices: list[int]
    """Of the games, among those that were to be judged."""
    before: list[Verdict]
    after: list[Verdict]
    failed: int
    """Verdicts that failed, of both judges."""


def judge_twice(games: Sequence[Transcript], before: AnyJudge, after: AnyJudge, engine: Engine) -> JudgedTwice:
    """Have games judged before and after a training.

    Only games that both judges decided are given: on other games for each judge, the change would hold the difference
    of the games.
    """
    old = judge_transcripts(games, before, engine)
    new = judge_transcripts(games, after, engine)
    both = JudgedTwice([], [], [], sum(isinstance(answer, Failure) for answer in (*old, *new)))
    for index, (first, second) in enumerate(zip(old, new, strict=True)):
        if isinstance(first, Verdict) and isinstance(second, Verdict):
            both.indices.append(index)
            both.before.append(first)
            both.after.append(second)
    return both


def before_and_after(twice: JudgedTwice, questions: Sequence[Question]) -> dict[str, Any]:
    """The fields `before`, `after` and `change` of a `JudgeResult`, from the questions of the games judged twice."""
    stories = [question.cluster for question in questions]
    p_before, p_after = [], []
    for question, old, new in zip(questions, twice.before, twice.after, strict=True):
        correct = question.correct or 0
        p_before.append(old.p[correct])
        p_after.append(new.p[correct])
    return {
        "before": judge_scores(p_before, stories),
        "after": judge_scores(p_after, stories),
        "change": judge_change(p_after, p_before, stories),
    }


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
