"""The reasoning judge: it writes a scratchpad that nobody else reads, then its probabilities are the verdict.

Several draws of the scratchpad give several verdicts, which are averaged, voted or weighted. Khan et al. 2024 gain 4
points on debates from 3 or more votes at temperature .8; Kenton et al. 2024 find reasoning neutral or harmful.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Sampling
from debate_rl.game.prompts import judge_candidates, reasoning_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.model import scored
from debate_rl.judges.presentation import Combine, View, as_messages, verdict, views
from debate_rl.records import Record


class ReasoningJudge(Record):
    """A model that thinks in writing before it judges.

    Example:
        ReasoningJudge(name="reasoning x3", model="lab-base", votes=3, combine="majority")
    """

    name: str = "reasoning judge"
    model: str
    adapter: str | None = None
    both_orders: bool = True
    votes: int = Field(default=1, ge=1)
    """Scratchpads drawn for each presentation, with seeds of their own."""
    combine: Combine = "mean"
    """Of the votes, each the mean over both orders."""
    temperature: float = Field(default=0.8, ge=0)
    max_new_tokens: int = Field(default=200, ge=1)
    """Of a scratchpad."""
    seed: int = 0
    calibrator: Calibrator | None = None


def ask_reasoning(transcripts: Sequence[Transcript], judge: ReasoningJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge after thinking: one call to the engine for all scratchpads, one for all choices."""
    plans = [
        [(view, draw) for view in views(transcript, judge.both_orders) for draw in range(judge.votes)]
        for transcript in transcripts
    ]
    thoughts = engine.generate(
        [
            _request(transcript, view, draw, judge)
            for transcript, plan in zip(transcripts, plans, strict=True)
            for view, draw in plan
        ]
    )
    written = iter(thoughts)
    kept = [[next(written) for _ in plan] for plan in plans]
    choices = [
        Choice(
            messages=as_messages(reasoning_messages(game, view.sides, view.order, view.after_turn, thought.text)),
            model=judge.model,
            adapter=judge.adapter,
            candidates=judge_candidates(game, view.order),
        )
        for game, plan, own in zip(transcripts, plans, kept, strict=True)
        for (view, _), thought in zip(plan, own, strict=True)
        if isinstance(thought, Completion)
    ]
    scores = iter(engine.choose(choices))

    def asks(plan: Sequence[tuple[View, int]], own: Sequence[Completion | EngineFailure]) -> Iterator[Ask | Failure]:
        for (view, draw), thought in zip(plan, own, strict=True):
            if isinstance(thought, EngineFailure):
                yield Failure(seat="judge", kind=thought.kind, message=f"scratchpad: {thought.message}")
            else:
                yield scored(view, next(scores), draw=draw, text=thought.text)

    revision = engine.revision(judge.model, judge.adapter)
    # A list, not the iterator: every score must be taken, also those after a failure.
    asked = [list(asks(plan, own)) for plan, own in zip(plans, kept, strict=True)]
    return [verdict(judge.name, own, judge.calibrator, revision, judge.combine) for own in asked]


def _request(transcript: Transcript, view: View, draw: int, judge: ReasoningJudge) -> Request:
    """One scratchpad to be written."""
    return Request(
        messages=as_messages(reasoning_messages(transcript, view.sides, view.order, view.after_turn)),
        model=judge.model,
        adapter=judge.adapter,
        sampling=Sampling(max_new_tokens=judge.max_new_tokens, temperature=judge.temperature),
        seed=judge.seed + draw,
    )
