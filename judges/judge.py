"""The language-model judge: a transcript goes in, the probability of each answer comes out, no text is sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

from debate_rl.engines.request import Choice, Engine, EngineFailure, Message, Scores
from debate_rl.game.prompts import judge_candidates, judge_messages
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.records import Record


class Judge(Record):
    """A model that judges, by its probabilities for the two candidates.

    Example:
        Judge(name="judge", model="lab-base", adapter="runs/quickstart/judge/adapter")
    """

    name: str = "judge"
    model: str
    adapter: str | None = None
    both_orders: bool = True
    """Ask in both orders: a judge may favour whoever is shown first, and the mean removes it."""
    calibrator: Calibrator | None = None
    """Maps the averaged probability to a calibrated one; None leaves it as it is."""


Presentation = tuple[tuple[Side, ...], tuple[int, int]]
"""What the judge is shown: sides, first shown first, and the order in which the answers are listed."""

_Plan = tuple[tuple[Side, ...], tuple[int, int], "int | None"]
"""One question to the judge: a presentation, and after how many turns."""


def presentations(transcript: Transcript, both_orders: bool = True) -> list[Presentation]:
    """Everything a judge is shown of a game: together or each side alone, in one presentation order or both."""
    present = transcript.present
    views: list[tuple[Side, ...]] = [(side,) for side in present]
    if transcript.protocol.judge_sees == "together" or len(present) < 2:
        views = [present]
    orders: list[tuple[int, int]] = [(0, 1), (1, 0)] if both_orders else [(0, 1)]
    return [(view if order == (0, 1) else view[::-1], order) for view in views for order in orders]


def _plan(transcript: Transcript, both_orders: bool) -> list[_Plan]:
    """Every question the protocol and the judge want asked about a transcript."""
    moments: list[int | None] = [None]
    if transcript.protocol.verdict_after_each_turn:
        moments = [*range(1, transcript.protocol.turns), None]
    shown = presentations(transcript, both_orders)
    return [(sides, order, moment) for moment in moments for sides, order in shown]


def probability(logprobs: tuple[float, float]) -> float:
    """Probability of answer 0 from the two raw log-probabilities."""
    gap = max(min(logprobs[1] - logprobs[0], 700.0), -700.0)
    return 1 / (1 + math.exp(gap))


def mean_probability(verdict: Verdict, order: tuple[int, int]) -> float:
    """Mean probability of answer 0 over what the judge was asked at the end in one presentation order."""
    asked = [ask for ask in verdict.asks if ask.after_turn is None and ask.order == order]
    return sum(probability(ask.logprobs) for ask in asked) / len(asked)


def _mean(asks: Sequence[Ask], calibrator: Calibrator | None) -> tuple[float, float]:
    """Mean probability of both answers over some asks, calibrated if the judge is."""
    p = sum(probability(ask.logprobs) for ask in asks) / len(asks)
    if calibrator is not None:
        p = float(calibrator.apply([p])[0])
    return p, 1 - p


def judge_transcripts(transcripts: Sequence[Transcript], judge: Judge, engine: Engine) -> list[Verdict | Failure]:
    """Judge many transcripts in one call to the engine.

    Returns:
        For each transcript its verdict, or why there is none.
    """
    plans = [_plan(transcript, judge.both_orders) for transcript in transcripts]
    choices = [
        Choice(
            messages=tuple(Message(**m) for m in judge_messages(transcript, sides, order, after)),  # type: ignore[arg-type]
            model=judge.model,
            adapter=judge.adapter,
            candidates=judge_candidates(transcript, order),
        )
        for transcript, plan in zip(transcripts, plans, strict=True)
        for sides, order, after in plan
    ]
    scores = iter(engine.choose(choices))
    return [_verdict(plan, [next(scores) for _ in plan], judge) for plan in plans]


def _verdict(plan: Sequence[_Plan], scores: Sequence[Scores | EngineFailure], judge: Judge) -> Verdict | Failure:
    """Put the answers to one transcript's questions together."""
    asks = []
    revision = None
    for (sides, order, after), score in zip(plan, scores, strict=True):
        if isinstance(score, EngineFailure):
            return Failure(seat="judge", kind=score.kind, message=score.message)
        if not all(math.isfinite(x) for x in score.logprobs):
            return Failure(seat="judge", kind="not finite", message=f"log-probabilities {score.logprobs}")
        logprobs = (score.logprobs[0], score.logprobs[1])
        asks.append(Ask(sides=sides, order=order, logprobs=logprobs, after_turn=after))
        revision = score.revision
    final = [ask for ask in asks if ask.after_turn is None]
    moments = sorted({ask.after_turn for ask in asks if ask.after_turn is not None})
    between = tuple(_mean([a for a in asks if a.after_turn == moment], judge.calibrator) for moment in moments)
    return Verdict(
        judge=judge.name, p=_mean(final, judge.calibrator), asks=tuple(asks), after_turn=between, revision=revision
    )
