"""Settings of a judge: how it comes to a verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
