"""The reasoning judge: writes a scratchpad that nobody else reads, then judges by its probabilities.

Several draws of the scratchpad give several verdicts, which are averaged, voted or weighted. Khan et al. 2024 gain 4
points on debates from 3 or more votes at temperature .8; Kenton et al. 2024 find reasoning neutral or harmful.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from debate_rl.engines.request import Choice, Completion, Engine, EngineFailure, Request, Sampling, Scores
from debate_rl.game.prompts import judge_candidates, reasoning_messages
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.model import scored
from debate_rl.judges.presentation import View, WritingJudge, as_messages, drawn_views, verdict


class ReasoningJudge(WritingJudge):
    """A model that thinks in writing before it judges.

    Example:
        ReasoningJudge(name="reasoning x3", model="lab-base", votes=3, combine="majority")
    """

    name: str = "reasoning judge"
    temperature: float = Field(default=0.8, ge=0)
    max_new_tokens: int = Field(default=200, ge=1)


def ask_reasoning(transcripts: Sequence[Transcript], judge: ReasoningJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge after thinking: one call to the engine for all scratchpads, one for all choices."""
    plans = [drawn_views(transcript, judge.both_orders, judge.votes) for transcript in transcripts]
    requests = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        requests += [_request(transcript, view, draw, judge) for view, draw in plan]
    thoughts = engine.generate(requests)

    choices = []
    written = iter(thoughts)
    for transcript, plan in zip(transcripts, plans, strict=True):
        for view, _ in plan:
            thought = next(written)
            if isinstance(thought, Completion):
                choices.append(_choice(transcript, view, thought.text, judge))
    scores = iter(engine.choose(choices))

    revision = engine.revision(judge.model, judge.adapter)
    verdicts = []
    written = iter(thoughts)
    for plan in plans:
        # Read the whole plan, also after a failure: the scores of the next transcript come behind it.
        asks = [_ask(view, draw, next(written), scores) for view, draw in plan]
        verdicts.append(verdict(judge.name, asks, judge.calibrator, revision, judge.combine))
    return verdicts


def _request(transcript: Transcript, view: View, draw: int, judge: ReasoningJudge) -> Request:
    """The request for one scratchpad."""
    return Request(
        messages=as_messages(reasoning_messages(transcript, view.sides, view.order, view.after_turn)),
        model=judge.model,
        adapter=judge.adapter,
        sampling=Sampling(max_new_tokens=judge.max_new_tokens, temperature=judge.temperature),
        seed=judge.seed + draw,
    )


def _choice(transcript: Transcript, view: View, scratchpad: str, judge: ReasoningJudge) -> Choice:
    """The question that follows a scratchpad."""
    return Choice(
        messages=as_messages(reasoning_messages(transcript, view.sides, view.order, view.after_turn, scratchpad)),
        model=judge.model,
        adapter=judge.adapter,
        candidates=judge_candidates(transcript, view.order),
    )


def _ask(
    view: View, draw: int, thought: Completion | EngineFailure, scores: Iterator[Scores | EngineFailure]
) -> Ask | Failure:
    """The judge's answer after one scratchpad; takes its score, which a failed scratchpad has not."""
    if isinstance(thought, EngineFailure):
        return Failure(seat="judge", kind=thought.kind, message=f"scratchpad: {thought.message}")
    return scored(view, next(scores), draw=draw, text=thought.text)
