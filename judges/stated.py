"""The judge that states its probability in words: for endpoints that give no log-probabilities, and for judges that
were trained to state it (`trainers.grpo.judge_trainer`).

A statement that can not be read is a failure: counted, never scored, and no number is guessed from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from debate_rl.engines.request import Completion, Engine, EngineFailure, Request, Sampling
from debate_rl.game.prompts import judge_candidates, stated_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.presentation import View, WritingJudge, as_messages, drawn_views, logprobs_of, verdict
from debate_rl.judges.statement import read_stated, read_statement

__all__ = ["StatedJudge", "ask_stated", "listed_answers", "read_statement", "stated_request"]


class StatedJudge(WritingJudge):
    """A model that writes down how likely the first listed answer is.

    Example:
        StatedJudge(name="api judge", model="gpt-4o", votes=3, temperature=0.8)
    """

    name: str = "stated judge"
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=24, ge=1)
    reasoning: bool = False
    """Ask for a short reasoning before the statement; set max_new_tokens to hold both."""


def ask_stated(transcripts: Sequence[Transcript], judge: StatedJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge by what the model states, all transcripts in one call to the engine."""
    plans = [drawn_views(transcript, judge.both_orders, judge.votes) for transcript in transcripts]
    requests = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        requests += [stated_request(transcript, view, judge, judge.seed + draw) for view, draw in plan]
    answers = iter(engine.generate(requests))
    revision = engine.revision(judge.model, judge.adapter)
    verdicts = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        asks = [_ask(transcript, view, draw, next(answers)) for view, draw in plan]
        verdicts.append(verdict(judge.name, asks, judge.calibrator, revision, judge.combine))
    return verdicts


def stated_request(transcript: Transcript, view: View, judge: StatedJudge, seed: int) -> Request:
    """The request for one statement."""
    messages = stated_messages(transcript, view.sides, view.order, view.after_turn, judge.reasoning)
    return Request(
        messages=as_messages(messages),
        model=judge.model,
        adapter=judge.adapter,
        sampling=Sampling(max_new_tokens=judge.max_new_tokens, temperature=judge.temperature),
        seed=seed,
    )


def listed_answers(transcript: Transcript, order: tuple[int, int]) -> tuple[str, str]:
    """How a judge names the two answers, in the order in which they are listed."""
    names = judge_candidates(transcript, order)
    return names[order[0]], names[order[1]]


def _ask(transcript: Transcript, view: View, draw: int, answer: Completion | EngineFailure) -> Ask | Failure:
    """Convert one statement to the judge's answer, or to a failure."""
    if isinstance(answer, EngineFailure):
        return Failure(seat="judge", kind=answer.kind, message=answer.message)
    stated = read_stated(answer.text, listed_answers(transcript, view.order))
    if stated is None:
        shown = " ".join(answer.text.split())[:80]
        return Failure(seat="judge", kind="unparsed", message=f"states no probability 'P(A) = ..%': {shown!r}")
    logprobs = logprobs_of(stated.p_first)
    if view.order == (1, 0):
        # "A" in the prompt is the answer listed first, which here is answer 1.
        logprobs = (logprobs[1], logprobs[0])
    return Ask(
        sides=view.sides,
        order=view.order,
        logprobs=logprobs,
        after_turn=view.after_turn,
        draw=draw,
        text=answer.text,
    )
