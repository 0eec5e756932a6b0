"""One interface for every kind of judge: transcripts go in, verdicts or failures come out, in order.

A judge is a frozen record; its type decides how it comes to a verdict. Verdicts of people are records of the same form
(`judges.human`, `judges.human_records`).
"""

from __future__ import annotations

from collections.abc import Sequence

from debate_rl.engines.request import Engine
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.function import FunctionJudge, ask_function
from debate_rl.judges.model import Judge, ask_model
from debate_rl.judges.panel import Panel, combine_members
from debate_rl.judges.presentation import Presentation, mean_probability, presentations, probability
from debate_rl.judges.probe import Probe, ask_probe
from debate_rl.judges.reasoning import ReasoningJudge, ask_reasoning
from debate_rl.judges.stated import StatedJudge, ask_stated

__all__ = [
    "AnyJudge",
    "FunctionJudge",
    "Judge",
    "Panel",
    "Presentation",
    "Probe",
    "ReasoningJudge",
    "StatedJudge",
    "judge_transcripts",
    "mean_probability",
    "models_of",
    "presentations",
    "probability",
]

AnyJudge = Judge | ReasoningJudge | StatedJudge | Probe | Panel | FunctionJudge


def judge_transcripts(transcripts: Sequence[Transcript], judge: AnyJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge many transcripts at once: one call to the engine, two for a judge that reasons.

    Returns:
        For each transcript its verdict, or the failure that took its place.

    Raises:
        UserError: a model, a probe or a prompt that the judge needs is missing.
    """
    if isinstance(judge, ReasoningJudge):
        return ask_reasoning(transcripts, judge, engine)
    if isinstance(judge, StatedJudge):
        return ask_stated(transcripts, judge, engine)
    if isinstance(judge, Probe):
        return ask_probe(transcripts, judge)
    if isinstance(judge, FunctionJudge):
        return ask_function(transcripts, judge)
    if isinstance(judge, Panel):
        members = [judge_transcripts(transcripts, member, engine) for member in judge.members]
        return [combine_members(judge, verdicts) for verdicts in zip(*members, strict=True)]
    return ask_model(transcripts, judge, engine)


def models_of(judge: AnyJudge) -> str:
    """Name the models behind a judge, with their adapters.

    Example:
        >>> models_of(Judge(model="lab-base", adapter="judge/adapter"))
        'lab-base + judge/adapter'
    """
    if isinstance(judge, Panel):
        return ", ".join(models_of(member) for member in judge.members)
    return judge.model if judge.adapter is None else f"{judge.model} + {judge.adapter}"
