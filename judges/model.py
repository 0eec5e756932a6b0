"""The language-model judge, prompted or finetuned: its probabilities of the two candidates are the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pydantic import Field

from debate_rl.engines.request import Choice, Engine, EngineFailure, Scores
from debate_rl.game.prompts import judge_candidates
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.presentation import View, prompt, verdict, views
from debate_rl.judges.readout import (
    Debias,
    Readout,
    preference_for_first,
    read_scores,
    without_content,
    without_debate,
    wording_of,
)
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
    readout: Readout = "letters"
    """What the verdict is read from (see `judges.readout`)."""
    debias: Debias = "none"
    """prior: subtract the judge's preference for the answer listed first, asked with neutral content."""


def ask_model(transcripts: Sequence[Transcript], judge: Judge, engine: Engine) -> list[Verdict | Failure]:
    """Judge by the candidates' probabilities, all transcripts in one call to the engine.

    Raises:
        UserError: the judge's readout needs whole answers, and the engine does not score them.
    """
    plans = [views(transcript, judge.both_orders) for transcript in transcripts]
    choices = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        for view in plan:
            choices.append(view_choice(transcript, view, judge))
            choices += _subtracted_choices(transcript, view, judge)
    scores = iter(engine.choose(choices))
    revision = engine.revision(judge.model, judge.adapter)
    verdicts = []
    for plan in plans:
        asks = [_read_view(view, scores, judge) for view in plan]
        in_logits = judge.readout != "letters"
        verdicts.append(verdict(judge.name, asks, judge.calibrator, revision, in_logits=in_logits))
    return verdicts


def view_choice(transcript: Transcript, view: View, judge: Judge) -> Choice:
    """What the engine is asked for one view of a transcript."""
    wording = wording_of(judge.readout)
    return Choice(
        messages=prompt(transcript, view, wording),
        model=judge.model,
        adapter=judge.adapter,
        candidates=judge_candidates(transcript, view.order, wording),
    )


def _subtracted_choices(transcript: Transcript, view: View, judge: Judge) -> list[Choice]:
    """What else is asked for a view, to be subtracted: the question alone, then neutral content in both orders.

    Equal choices cost nothing: an engine answers neutral content once for all games of one shape.
    """
    choices = []
    if judge.readout == "answers_pmi":
        choices.append(view_choice(without_debate(transcript), View((), view.order), judge))
    if judge.debias == "prior":
        empty = without_content(transcript)
        shown = view if view.order == (0, 1) else View(view.sides[::-1], (0, 1), view.after_turn)
        choices.append(view_choice(empty, shown, judge))
        choices.append(view_choice(empty, View(shown.sides[::-1], (1, 0), view.after_turn), judge))
    return choices


def _read_view(view: View, scores: Iterator[Scores | EngineFailure], judge: Judge) -> Ask | Failure:
    """The judge's answer to one view, from the scores of its choice and of those to subtract, in that order."""
    # As many as `view_choice` and `_subtracted_choices` have asked for this view.
    count = 1 + (judge.readout == "answers_pmi") + 2 * (judge.debias == "prior")
    first, *others = [next(scores) for _ in range(count)]
    ask = scored(view, first, judge.min_answer_mass)
    if isinstance(ask, Failure) or isinstance(first, EngineFailure):
        return ask
    readings = []
    for other in others:
        checked = scored(view, other)
        if isinstance(checked, Failure) or isinstance(other, EngineFailure):
            return checked
        readings.append(read_scores(other, judge.readout))
    score = list(read_scores(first, judge.readout))
    # In log-probabilities a subtraction divides by what the judge would say anyway.
    if judge.readout == "answers_pmi":
        blind = readings.pop(0)
        score = [score[0] - blind[0], score[1] - blind[1]]
    if judge.debias == "prior":
        listed_first = view.order[0]
        score[listed_first] -= preference_for_first((readings[0], readings[1]))
    return ask.model_copy(update={"logprobs": (score[0], score[1])})


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
