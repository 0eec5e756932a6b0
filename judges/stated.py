"""The judge that states its probability in words: for endpoints that give no log-probabilities.

What can not be read is a failure: it is counted and never scored, and no number is guessed from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from debate_rl.engines.request import Completion, Engine, EngineFailure, Request, Sampling
from debate_rl.game.prompts import stated_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.presentation import Combine, View, as_messages, logprobs_of, verdict, views
from debate_rl.records import Record

_STATED = re.compile(
    r"P\(A\)\s*=\s*(\d+(?:\.\d+)?|\.\d+)"
    r"(\s*%|(?![\d.%]|[^\W_]))"  # a letter goes on with the number: 0.5e-3
    r"(?!\s*(?:[-\u2010-\u2015\u2212~\u00b1/*\u00d7^]|to\b)\s*\.?\d)",  # a range or a calculation: 0.6-0.7
    re.IGNORECASE,
)


class StatedJudge(Record):
    """A model that says how likely the first listed answer is.

    Example:
        StatedJudge(name="api judge", model="gpt-4o", votes=3, temperature=0.8)
    """

    name: str = "stated judge"
    model: str
    adapter: str | None = None
    both_orders: bool = True
    votes: int = Field(default=1, ge=1)
    """Statements drawn for each presentation; with several, set a temperature."""
    combine: Combine = "mean"
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=24, ge=1)
    seed: int = 0
    calibrator: Calibrator | None = None


def read_statement(text: str) -> float | None:
    """The probability that a text states, None where it states none, or two that differ.

    It stands as `P(A) = 65%` or `P(A) = 0.65`; a bare `65`, a bare `1` (all, or a hundredth?), anything above 100 %,
    a range (`0.6-0.7`) and an exponent (`0.5e-3`) are not read.

    Example:
        >>> read_statement("P(A) = 65%"), read_statement("P(A) = 65"), read_statement("about 65%")
        (0.65, None, None)
    """
    found = set()
    for number, unit in _STATED.findall(text):
        if unit.strip() == "%":
            p = float(number) / 100
        elif "." in number:
            p = float(number)
        else:
            return None
        found.add(p)
    if len(found) != 1:
        return None
    p = found.pop()
    return p if p <= 1 else None


def ask_stated(transcripts: Sequence[Transcript], judge: StatedJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge by what the model states, all transcripts in one call to the engine."""
    plans = [
        [(view, draw) for view in views(transcript, judge.both_orders) for draw in range(judge.votes)]
        for transcript in transcripts
    ]
    answers = iter(
        engine.generate(
            [
                Request(
                    messages=as_messages(stated_messages(transcript, view.sides, view.order, view.after_turn)),
                    model=judge.model,
                    adapter=judge.adapter,
                    sampling=Sampling(max_new_tokens=judge.max_new_tokens, temperature=judge.temperature),
                    seed=judge.seed + draw,
                )
                for transcript, plan in zip(transcripts, plans, strict=True)
                for view, draw in plan
            ]
        )
    )
    revision = engine.revision(judge.model, judge.adapter)
    asked = [[_ask(view, draw, next(answers)) for view, draw in plan] for plan in plans]
    return [verdict(judge.name, own, judge.calibrator, revision, judge.combine) for own in asked]


def _ask(view: View, draw: int, answer: Completion | EngineFailure) -> Ask | Failure:
    """One statement as an answer, or why it is none."""
    if isinstance(answer, EngineFailure):
        return Failure(seat="judge", kind=answer.kind, message=answer.message)
    p = read_statement(answer.text)
    if p is None:
        said = " ".join(answer.text.split())[:80]
        return Failure(seat="judge", kind="unparsed", message=f"states no probability 'P(A) = ..%': {said!r}")
    first = logprobs_of(p)  # of the answer listed first
    logprobs = first if view.order == (0, 1) else (first[1], first[0])
    return Ask(
        sides=view.sides, order=view.order, logprobs=logprobs, after_turn=view.after_turn, draw=draw, text=answer.text
    )  # fmt: skip
