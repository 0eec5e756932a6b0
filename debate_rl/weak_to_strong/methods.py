"""A method of weak-to-strong: who supervises with what help, what becomes of the labels, how the student learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.errors import UserError, nearest
from debate_rl.records import Record
from debate_rl.trainers.common.settings import StudentLoss
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS, Combination
from debate_rl.weak_to_strong.labels import Labelling


class Transfer(Record):
    """How labels reach the strong model; without settings it is finetuned on them (naive). Settings may be joined.

    Example (a chain through a model of middle size; the student helps the next supervisors; labels by debate):
        Transfer(through=("qwen-3b",)); Transfer(rounds=2); Transfer(refine="labels")
    """

    generative: bool = False
    """First the strong model is finetuned to write D2's texts, without labels (Burns et al. 2023, section 5.2.2)."""
    through: tuple[str, ...] = ()
    """Models between weak and strong, weakest first: each learns the labels of the one before on a fresh part of D2
    and labels the next part (bootstrapping, Burns et al. 2023, section 4.3.1)."""
    rounds: int = Field(default=1, ge=1, le=4)
    """From the second on, the student of the round before speaks where the context has a debater."""
    refine: Literal["labels", "dpo"] | None = None
    """At the end strong and weak model explain opposite answers, the student's own and the other one, and a judge says
    by both orders which wins: D(E_strong, E_weak, J) (arXiv 2409.07335). labels: the student is finetuned further on
    sigma(D); dpo: on the pair of answers, soft by sigma(D)."""
    train: dict[str, Any] = {}
    """Changes to the settings of the trainings that this adds, such as learning_rate or beta."""


class Method(Record):
    """One row of a table of methods; methods with supervisors in common train them once.

    Example (debate ensemble, finetune ensemble, single weak model with a debate, auxiliary confidence):
        Method(context="debate"); Method(context="debate", same_sample=True); Method(context="debate", members=1);
        Method(members=1, loss=StudentLoss(kind="confidence"))
    """

    context: str = "none"
    """What the supervisors read beside the item: none, or a context by name (`contexts.Context`)."""
    members: int = Field(default=4, ge=1, le=MOST_MEMBERS)
    """Supervisors, by seeds of their own."""
    same_sample: bool = False
    """All members read the first game of an item (a finetune ensemble); else each its own (a debate ensemble)."""
    bootstrap: bool = False
    """Each member learns D1's stories as drawn with replacement by its seed; else all of D1 in an order of its own."""
    combine: Combination = "mean"
    """How members come to one label: mean, vote, confidence or boosting."""
    labels: Labelling = Labelling()
    """What becomes of that label."""
    loss: StudentLoss = StudentLoss()
    """What the student minimises; supervisors and ceiling learn by cross entropy."""
    student_reads: Literal["item", "context"] = "item"
    """context: the student reads the first member's games as well, with the passage, in training and in the test."""
    transfer: Transfer = Transfer()

    @model_validator(mode="after")
    def _agree(self) -> Method:
        helped = self.context != "none"
        if not helped and (self.student_reads == "context" or self.transfer.rounds > 1):
            raise ValueError("student_reads: context and transfer.rounds need a context; set context: debate")
        if self.bootstrap and self.combine == "boosting":
            raise ValueError("boosting weighs D1's rows itself; set bootstrap false, or combine mean")
        if self.bootstrap and self.members == 1:
            raise ValueError("bootstrap is for an ensemble; set members to 2 or more")
        return self

    def draw(self, member: int) -> int:
        """Whose games a member reads: its own, or the first member's."""
        return 0 if self.same_sample else member

    def supervisor(self, member: int) -> str:
        """Name of a member, the same in every method that trains it alike.

        Example:
            Method(context="debate", same_sample=True).supervisor(2) == "debate/supervisor-same2"
        """
        kind = "boosted" if self.combine == "boosting" and member > 0 else "supervisor"
        # Without debates all members read the same anyway, and the first member is the same in every ensemble.
        same = self.same_sample and self.context != "none" and member > 0
        return f"{self.context}/{kind}{'-same' if same else ''}{'-bootstrap' if self.bootstrap else ''}{member}"


def check_methods(methods: Mapping[str, Method], contexts: Mapping[str, Context]) -> None:
    """Make sure that every method has a context that there is and that can do what is asked of it.

    Raises:
        UserError: it has not.
    """
    for name, method in methods.items():
        context = contexts.get(method.context)
        if context is None and method.context != "none":
            known = nearest(method.context, ["none", *contexts])
            raise UserError(f"method {name!r}: no context {method.context!r}; {known}")
        alone = method.members == 1 and method.student_reads == "item" and method.transfer.rounds == 1
        if context is not None and context.kind == "recorded" and not alone:
            raise UserError(
                f"method {name!r}: context {method.context!r} holds labels and no games; set members: 1, "
                "student_reads: item and transfer.rounds: 1"
            )
