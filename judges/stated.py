"""The judge that states its probability in words: for endpoints that give no log-probabilities.

A statement that can not be read is a failure: counted, never scored, and no number is guessed from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from debate_rl.engines.request import Completion, Engine, EngineFailure, Request, Sampling
from debate_rl.game.prompts import stated_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.presentation import View, WritingJudge, as_messages, drawn_views, logprobs_of, verdict

_STATED = re.compile(
    r"P\(A\)\s*=\s*(\d+(?:\.\d+)?|\.\d+)"
    r"(\s*%|(?![\d.%]|[^\W_]))"  # a letter goes on with the number: 0.5e-3
    r"(?!\s*(?:[-\u2010-\u2015\u2212~\u00b1/*\u00d7^]|to\b)\s*\.?\d)",  # a range or a calculation: 0.6-0.7
    re.IGNORECASE,
)


class StatedJudge(WritingJudge):
    """A model that writes down how likely the first listed answer is.

    Example:
        StatedJudge(name="api judge", model="gpt-4o", votes=3, temperature=0.8)
    """

    name: str = "stated judge"
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=24, ge=1)


def read_statement(text: str) -> float | None:
    """Read the probability that a text states; None if it states none, or two that differ.

    Accepted are `P(A) = 65%` and `P(A) = 0.65`. Not read are a bare `65`, a bare `1` (all, or a hundredth?), anything
    above 100 %, a range (`0.6-0.7`) and an exponent (`0.5e-3`).

    Example:
        >>> read_statement("P(A) = 65%"), read_statement("P(A) = 65"), read_statement("about 65%")
        (0.65, None, None)
    """
    stated = set()
    for number, unit in _STATED.findall(text):
        if unit.strip() == "%":
            stated.add(float(number) / 100)
        elif "." in number:
            stated.add(float(number))
        else:
            return None
    if len(stated) != 1:
        return None
    p = stated.pop()
    return p if p <= 1 else None


def ask_stated(transcripts: Sequence[Transcript], judge: StatedJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge by what the model states, all transcripts in one call to the engine."""
    plans = [drawn_views(transcript, judge.both_orders, judge.votes) for transcript in transcripts]
    requests = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        for view, draw in plan:
            request = Request(
                messages=as_messages(stated_messages(transcript, view.sides, view.order, view.after_turn)),
                model=judge.model,
                adapter=judge.adapter,
                sampling=Sampling(max_new_tokens=judge.max_new_tokens, temperature=judge.temperature),
                seed=judge.seed + draw,
            )
            requests.append(request)
    answers = iter(engine.generate(requests))
    revision = engine.revision(judge.model, judge.adapter)
    verdicts = []
    for plan in plans:
        asks = [_ask(view, draw, next(answers)) for view, draw in plan]
        verdicts.append(verdict(judge.name, asks, judge.calibrator, revision, judge.combine))
    return verdicts


def _ask(view: View, draw: int, answer: Completion | EngineFailure) -> Ask | Failure:
    """Convert one statement to the judge's answer, or to a failure."""
    if isinstance(answer, EngineFailure):
        return Failure(seat="judge", kind=answer.kind, message=answer.message)
    p_first_listed = read_statement(answer.text)
    if p_first_listed is None:
        shown = " ".join(answer.text.split())[:80]
        return Failure(seat="judge", kind="unparsed", message=f"states no probability 'P(A) = ..%': {shown!r}")
    logprobs = logprobs_of(p_first_listed)
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
