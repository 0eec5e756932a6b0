"""Contexts: what a supervisor reads beside an item (debates, consultancies, market-making or explanations).

Lang, Huang and Li 2025 (arXiv 2501.13124): two instances of the strong model debate each item for three turns, sides
assigned at random; or one argues for an answer drawn at random (consultancy), or for the one that the naively finetuned
weak model did not pick (market-making). "Explanation, Debate, Align" (arXiv 2409.07335): a rationale for each answer by
the strong model (E_strong) or by the weak one (E_weak). All are protocols (`game/protocols.yaml`) played by `Rollout`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol
from debate_rl.records import Record

Kind = Literal["debate", "consultancy", "market_making", "explanations", "recorded"]
ROLES = ("strong", "weak", "student")
"""Players that no stage trained: the study's untrained models, and the student of the round before."""
PROTOCOLS: dict[Kind, tuple[str | None, str]] = {
    "debate": (None, "claim"),
    "consultancy": ("single", "claim_single"),
    "market_making": ("market_making", "claim_market"),
    "explanations": ("explanations", "explanations"),
}
"""Protocol for questions and protocol for claims, by kind; None is the run's own."""


class Context(Record):
    """Help for a supervisor.

    Examples:
        Context(protocol="claim", turns=4, debater="dpo@4")  # debates of Lang et al. with four turns, by Best-of-4
        Context(kind="explanations", debater="weak")  # rationales by the weak model
        Context(kind="recorded", path="sciq_weak_labels_naive.jsonl")  # labels of a file
    """

    kind: Kind = "debate"
    protocol: str | None = None
    """Shipped protocol or YAML file; empty is the kind's own."""
    debater: str | None = None
    """Speaker: base, a training stage (with @N for Best-of-N), strong, weak, or student (of the round before)."""
    opponent: str | None = None
    """Opponent of the debater, who sits on a side drawn for each item; empty is the debater itself."""
    turns: int | None = Field(default=None, ge=1, le=8)
    """Turns of a game; empty is 1 for consultancies, explanations and market-making, else the protocol's own."""
    temperature: float | None = Field(default=None, gt=0)
    """Sampling temperature of the speakers; empty is engine.temperature. At a higher one the members of an ensemble
    read more varied games."""
    worsened: float = Field(default=0.0, ge=0, le=1)
    """Share of the speeches that are exchanged for those of the same side about other stories, drawn by item: help of
    known lower quality (arXiv 2409.07335 asks for it; the way is ours). A speech that is exchanged at one share is so
    at every higher one, and the games are played once for all shares."""
    path: str | None = None
    """For recorded: file of the task's rows with the soft labels of a supervisor that is not trained here."""

    @model_validator(mode="after")
    def _has_labels(self) -> Context:
        if (self.kind == "recorded") != (self.path is not None):
            raise ValueError("kind: recorded and path belong together; path is a file with txt and soft_label")
        if self.path is not None and self.worsened:
            raise ValueError("a recorded context has labels and no speeches, so leave out worsened")
        return self

    @property
    def players(self) -> tuple[str, ...]:
        """Debater and opponent, as far as they are named."""
        return tuple(name for name in (self.debater, self.opponent) if name is not None)

    def rules(self, claims: bool, load: Callable[[str | None], Protocol]) -> Protocol:
        """Give the protocol that is played.

        Args:
            claims: whether items are claims, to be called correct or incorrect.
            load: loads the protocol of a name, and the run's own for None.

        Raises:
            UserError: nobody speaks under it.
        """
        protocol = load(self.protocol or PROTOCOLS[self.kind][claims])
        if protocol.turns == 0:
            raise UserError(f"context protocol {protocol.name!r} has no speeches; use the context none, or another one")
        changes: dict[str, object] = {}
        if protocol.judge_questions:
            changes["judge_questions"] = False  # help is written for a supervisor, and no judge listens to it
        if self._turns is not None:
            changes["turns"] = self._turns
        in_order = protocol.opens == protocol.calls == "order"
        if in_order and len(protocol.order) > 1:
            changes["opens"] = "drawn"  # a fixed opener would give one answer the last word in every game
        return protocol.model_copy(update=changes)

    @property
    def _turns(self) -> int | None:
        """Turns of a game; None leaves the protocol's own."""
        if self.turns is not None:
            return self.turns
        shipped = self.kind != "debate" and not self.protocol
        return 1 if shipped else None


SHIPPED: dict[str, Context] = {
    "debate": Context(),
    "consultancy": Context(kind="consultancy"),
    "market_making": Context(kind="market_making"),
    "explanations": Context(kind="explanations", debater="strong"),
    "explanations_weak": Context(kind="explanations", debater="weak"),
}
"""Contexts that need no settings, by name; a config may change them and add others."""
