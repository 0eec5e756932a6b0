"""The language-model judge, prompted or finetuned: its probabilities of the two candidates are the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from debate_rl.engines.request import Choice, Engine, EngineFailure, Scores
from debate_rl.game.prompts import judge_candidates
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.presentation import View, prompt, verdict, views
from debate_rl.records import Record


class Judge(Record):
    """A model that judges by its probabilities for the two candidates; no text is sampled.

    Example:
        Judge(name="judge", model="lab-base", adapter="runs/quickstart/judge/adapter")
    """

    name: str = "judge"
    model: str
    adapter: str | None = None
    both_orders: bool = True
    """Ask in both orders: a judge may favour whoever is shown first, and the mean removes it."""
    min_answer_mass: float = Field(default=0.0, ge=0, le=1)
    """Least probability of both candidates together. A judge below it would answer neither, which is a failure: counted
    and never scored. 0 accepts any answer, normalised."""
    calibrator: Calibrator | None = None
    """Maps the averaged probability to a calibrated one; None leaves it unchanged."""


def ask_model(transcripts: Sequence[Transcript], judge: Judge, engine: Engine) -> list[Verdict | Failure]:
    """Judge by the candidates' probabilities, all transcripts in one call to the engine."""
    plans = [views(transcript, judge.both_orders) for transcript in transcripts]
    choices = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        for view in plan:
            choice = Choice(
                messages=prompt(transcript, view),
                model=judge.model,
                adapter=judge.adapter,
                candidates=judge_candidates(transcript, view.order),
            )
            choices.append(choice)
    scores = iter(engine.choose(choices))
    revision = engine.revision(judge.model, judge.adapter)
    verdicts = []
    for plan in plans:
        asks = [scored(view, next(scores), judge.min_answer_mass) for view in plan]
        verdicts.append(verdict(judge.name, asks, judge.calibrator, revision))
    return verdicts


def scored(
    view: View, score: Scores | EngineFailure, min_answer_mass: float = 0.0, draw: int = 0, text: str | None = None
) -> Ask | Failure:
    """Convert an engine's scores of the two candidates to the judge's answer, or to a failure.

    Args:
        view: the question that was asked.
        score: what the engine returned.
        min_answer_mass: least probability of both candidates together.
        draw: number of the draw, for judges that sample several.
        text: the judge's scratchpad, if it wrote one.
    """
    if isinstance(score, EngineFailure):
        return Failure(seat="judge", kind=score.kind, message=score.message)
    if not all(math.isfinite(logprob) for logprob in score.logprobs):
        return Failure(seat="judge", kind="not finite", message=f"log-probabilities {score.logprobs}")
    mass = sum(math.exp(logprob) for logprob in score.logprobs)
    if mass < min_answer_mass:
        message = (
            f"both answers together have probability {mass:.2g}, below {min_answer_mass:g}: the judge says neither"
        )
        return Failure(seat="judge", kind="neither", message=message)
    return Ask(
        sides=view.sides,
        order=view.order,
        logprobs=(score.logprobs[0], score.logprobs[1]),
        after_turn=view.after_turn,
        draw=draw,
        text=text,
    )
