"""Settings of a judge, and the judge that is built from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.judges.judge import AnyJudge, Judge, Panel, ReasoningJudge, StatedJudge
from debate_rl.judges.probe import load_probe
from debate_rl.judges.readout import Debias, Readout
from debate_rl.records import Record

_KINDS_OF_SETTING = {
    "min_answer_mass": ("model",),
    "readout": ("model",),
    "debias": ("model",),
    "check": ("model",),
    "votes": ("reasoning", "stated"),
    "combine": ("reasoning", "stated", "panel"),
    "temperature": ("reasoning", "stated"),
    "max_new_tokens": ("reasoning", "stated"),
    "reasoning": ("stated",),
    "model": ("model", "reasoning", "stated", "probe"),
    "both_orders": ("model", "reasoning", "stated", "probe"),
}
"""Settings that only some kinds of judge use."""


class JudgeSettings(Record):
    """How the judge comes to a verdict. Its model is that of the newest judge stage, else `models.judge`."""

    kind: Literal["model", "reasoning", "stated", "probe", "panel"] = "model"
    """How the judge decides. model: by its probabilities of the answers; reasoning: the same after a scratchpad;
    stated: by the probability that it writes down; probe: a linear probe on hidden states; panel: several of these."""
    name: str | None = None
    """Name of the verdicts; a name by kind and model without it."""
    model: str | None = None
    """Another model in place of the run's judge, without its finetuning."""
    adapter: str | None = None
    """LoRA adapter of that model."""
    both_orders: bool = True
    """Ask in both presentation orders and average."""
    min_answer_mass: float = Field(default=0.0, ge=0, le=1)
    """Kind model: least probability of both answers together; a judge below it says neither, which is a failure."""
    readout: Readout = "letters"
    """Kind model: what the verdict is read from. letters: the labels A and B (or the prompt set's own candidates);
    answers: the mean log-probability a token of each answer's own words, which tells more of small models; answers_pmi:
    the same minus what the judge says without the debate. The last two average both orders in log-odds."""
    debias: Debias = "none"
    """Kind model: prior subtracts the judge's preference for the answer listed first, asked with neutral content."""
    check: bool | None = None
    """Kind model: before a stage's games, ask the judge at most 16 training questions, blind and with short passages,
    and warn where it can not tell right answers from wrong ones. Empty does so where it is neither a lab model, whose
    card says how it judges, nor trained by the run, whose judge stage measures it on debates."""
    votes: int = Field(default=1, ge=1)
    """Kinds reasoning and stated: number of draws that are combined."""
    combine: Literal["mean", "majority", "weighted"] = "mean"
    """How votes, or the members of a panel, become one probability."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature for reasoning (.8 without it) and stated (0)."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest text for reasoning (200 without it) and stated (24)."""
    reasoning: bool = False
    """Kind stated: ask for a short reasoning before the statement; set max_new_tokens to hold both."""
    path: str | None = None
    """Kind probe: the file that debate-rl judge probe wrote."""
    members: tuple[JudgeSettings, ...] = ()
    """Kind panel: the judges that decide together."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> JudgeSettings:
        if (self.kind == "probe") != (self.path is not None):
            raise ValueError("kind: probe and path belong together; fit one with debate-rl judge probe")
        if (self.kind == "panel") != bool(self.members):
            raise ValueError("kind: panel and members belong together; list two or more judges")
        for key, kinds in _KINDS_OF_SETTING.items():
            # Compare with the default, not with what was set: the config that a run saves names every key.
            default = type(self).model_fields[key].default
            if getattr(self, key) != default and self.kind not in kinds:
                raise ValueError(f"{key} is of kind {' and '.join(kinds)}, not of {self.kind}; leave it out")
        if self.readout == "answers_pmi" and self.debias == "prior":
            raise ValueError(
                "debias prior: readout answers_pmi subtracts the preference for a label already; leave it out"
            )
        if self.adapter is not None and self.model is None:
            raise ValueError("adapter needs the model that it belongs to; set model as well")
        return self


def judge_of_kind(settings: JudgeSettings, run_judge: Judge) -> AnyJudge:
    """Build the judge that settings ask for.

    Args:
        settings: the kind of judge and its options.
        run_judge: the run's judge. Its calibrator is kept only by kind model: it does not fit other kinds' verdicts.
    """
    judge = run_judge
    if settings.model is not None:
        judge = Judge(name=settings.model, model=settings.model, adapter=settings.adapter)
    if settings.kind == "model":
        changes = {
            "name": settings.name or judge.name,
            "both_orders": settings.both_orders,
            "min_answer_mass": settings.min_answer_mass,
            "readout": settings.readout,
            "debias": settings.debias,
        }
        return judge.model_copy(update=changes)
    if settings.kind == "panel":
        members = tuple(judge_of_kind(member, run_judge) for member in settings.members)
        return Panel(name=settings.name or "panel", members=members, combine=settings.combine)
    if settings.kind == "probe":
        changes = {"name": settings.name or "probe", "both_orders": settings.both_orders}
        return load_probe(settings.path or "").model_copy(update=changes)
    fields: dict[str, Any] = {
        "name": settings.name or f"{settings.kind} {judge.name}",
        "model": judge.model,
        "adapter": judge.adapter,
        "both_orders": settings.both_orders,
        "votes": settings.votes,
        "combine": settings.combine,
    }
    # None stands for the kind's own default.
    if settings.temperature is not None:
        fields["temperature"] = settings.temperature
    if settings.max_new_tokens is not None:
        fields["max_new_tokens"] = settings.max_new_tokens
    if settings.kind == "reasoning":
        return ReasoningJudge.model_validate(fields)
    return StatedJudge.model_validate({**fields, "reasoning": settings.reasoning})
