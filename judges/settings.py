"""Settings of a judge: how it comes to a verdict, and the judge that they ask for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from debate_rl.judges.judge import AnyJudge, Judge, Panel, ReasoningJudge, StatedJudge
from debate_rl.judges.probe import load_probe
from debate_rl.records import Record

_OF_KIND = {
    "least_mass": ("model",),
    "votes": ("reasoning", "stated"),
    "combine": ("reasoning", "stated", "panel"),
    "temperature": ("reasoning", "stated"),
    "max_new_tokens": ("reasoning", "stated"),
    "model": ("model", "reasoning", "stated", "probe"),
    "both_orders": ("model", "reasoning", "stated", "probe"),
}
"""Settings of a judge that only some kinds use."""


class JudgeSettings(Record):
    """How the judge comes to a verdict. Its model is that of the newest judge stage, else `models.judge`."""

    kind: Literal["model", "reasoning", "stated", "probe", "panel"] = "model"
    """model: by its probabilities of the answers; reasoning: the same after a scratchpad; stated: by the probability
    that it writes down; probe: a linear probe on hidden states; panel: several of these together."""
    name: str | None = None
    model: str | None = None
    """Another model than the run's judge, as it is."""
    adapter: str | None = None
    """Of that model."""
    both_orders: bool = True
    """Ask in both presentation orders and average."""
    least_mass: float = Field(default=0.0, ge=0, le=1)
    """Of model: least probability of both answers together; a judge below it says neither, which is a failure."""
    votes: int = Field(default=1, ge=1)
    """Of reasoning and stated: draws that are combined."""
    combine: Literal["mean", "majority", "weighted"] = "mean"
    """Of votes and panels."""
    temperature: float | None = Field(default=None, ge=0)
    """Of what reasoning (.8) and stated (0) write."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """The same: 200 and 24."""
    path: str | None = None
    """Of probe: the file that debate-rl judge probe wrote."""
    members: tuple[JudgeSettings, ...] = ()
    """Of panel."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> JudgeSettings:
        if (self.kind == "probe") != (self.path is not None):
            raise ValueError("kind: probe and path belong together; fit one with debate-rl judge probe")
        if (self.kind == "panel") != bool(self.members):
            raise ValueError("kind: panel and members belong together; list two or more judges")
        for key, kinds in _OF_KIND.items():
            default = type(self).model_fields[key].default  # a run's own config names every key
            if getattr(self, key) != default and self.kind not in kinds:
                raise ValueError(f"{key} is of kind {' and '.join(kinds)}, not of {self.kind}; leave it out")
        if self.adapter is not None and self.model is None:
            raise ValueError("adapter needs the model that it belongs to; set model as well")
        return self


def judge_of_kind(settings: JudgeSettings, run_judge: Judge) -> AnyJudge:
    """The judge that settings ask for; a calibrator holds for the kind of verdict that it was fitted on, and stays."""
    judge = run_judge
    if settings.model is not None:
        judge = Judge(name=settings.model, model=settings.model, adapter=settings.adapter)
    if settings.kind == "model":
        changed = {
            "name": settings.name or judge.name,
            "both_orders": settings.both_orders,
            "least_mass": settings.least_mass,
        }
        return judge.model_copy(update=changed)
    name = settings.name or f"{settings.kind} {judge.name}"
    if settings.kind == "panel":
        members = tuple(judge_of_kind(member, run_judge) for member in settings.members)
        return Panel(name=settings.name or "panel", members=members, combine=settings.combine)
    if settings.kind == "probe":
        return load_probe(settings.path or "").model_copy(
            update={"name": settings.name or "probe", "both_orders": settings.both_orders}
        )
    written = {key: getattr(settings, key) for key in ("temperature", "max_new_tokens")}
    fields = {
        "name": name, "model": judge.model, "adapter": judge.adapter, "both_orders": settings.both_orders,
        "votes": settings.votes, "combine": settings.combine, **{key: v for key, v in written.items() if v is not None},
    }  # fmt: skip
    return (ReasoningJudge if settings.kind == "reasoning" else StatedJudge).model_validate(fields)
