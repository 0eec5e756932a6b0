"""Methods of weak-to-strong: the supervisors and their help, the labels, and how the student learns from them."""

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
    """How the strong model learns from labels; the default finetunes it on them (naive). Settings can be combined.

    Examples:
        Transfer(through=("qwen-3b",))  # a chain through a model of middle size
        Transfer(rounds=2)  # the student speaks for the supervisors of a second round
        Transfer(refine="labels")  # the student is trained further on labels by debate
    """

    generative: bool = False
    """Finetune the strong model to write D2's texts first, without labels (Burns et al. 2023, section 5.2.2)."""
    through: tuple[str, ...] = ()
    """Models between weak and strong, weakest first: each learns the labels of the one before on a fresh part of D2
    and labels the next part (bootstrapping, Burns et al. 2023, section 4.3.1)."""
    rounds: int = Field(default=1, ge=1, le=4)
    """Rounds of supervisors and student. From the second on, the last round's student speaks where the context has a
    debater."""
    refine: Literal["labels", "dpo"] | None = None
    """Final refinement by D(E_strong, E_weak, J) (arXiv 2409.07335): the strong model explains the student's answer,
    the weak model the other one, and a judge, asked in both orders, says which wins. labels: finetune the student
    further on sigma(D); dpo: train it on the pair of answers with soft target sigma(D)."""
    train: dict[str, Any] = {}
    """Changes to the training settings of these additional trainings, such as learning_rate or beta."""


class Method(Record):
    """One row of a table of methods; supervisors that several methods share are trained once.

    Examples:
        Method(context="debate")  # debate ensemble
        Method(context="debate", same_sample=True)  # finetune ensemble
        Method(context="debate", members=1)  # single weak model with a debate
        Method(members=1, loss=StudentLoss(kind="confidence"))  # auxiliary confidence loss
    """

    context: str = "none"
    """Help that the supervisors read beside the item: none, or the name of a context (`contexts.Context`)."""
    members: int = Field(default=4, ge=1, le=MOST_MEMBERS)
    """Number of supervisors, each trained with its own seed."""
    same_sample: bool = False
    """Whether all members read the first game of an item (a finetune ensemble), or each its own (a debate ensemble)."""
    bootstrap: bool = False
    """Whether each member learns stories of D1 drawn with replacement by its seed, or all of D1 in its own order."""
    combine: Combination = "mean"
    """How the members' labels are combined: mean, vote, confidence or boosting."""
    labels: Labelling = Labelling()
    """How the combined probabilities become the student's labels."""
    loss: StudentLoss = StudentLoss()
    """Loss of the student; supervisors and ceiling are trained by cross entropy."""
    student_reads: Literal["item", "context"] = "item"
    """Text of the student. context: the first member's games as well, with the passage, in training and in the test."""
    transfer: Transfer = Transfer()
    """How labels reach the student; see below."""

    @model_validator(mode="after")
    def _agree(self) -> Method:
        helped = self.context != "none"
        if not helped and (self.student_reads == "context" or self.transfer.rounds > 1):
            raise ValueError("student_reads: context and transfer.rounds need a context; set context: debate")
        # Boosting weighs every row by the errors before it, for which each member has to see all rows.
        if self.bootstrap and self.combine == "boosting":
            raise ValueError("boosting weighs D1's rows itself; set bootstrap false, or combine mean")
        if self.bootstrap and self.members == 1:
            raise ValueError("bootstrap is for an ensemble; set members to 2 or more")
        return self

    def draw(self, member: int) -> int:
        """Number of the member whose games a member reads: its own, or the first one's."""
        return 0 if self.same_sample else member

    def supervisor(self, member: int) -> str:
        """Name of a member, the same in every method that trains it in the same way.

        Example:
            Method(context="debate", same_sample=True).supervisor(2) == "debate/supervisor-same2"
        """
        name = "supervisor"
        # The first member is the same in every ensemble: boosting starts from equal weights, and its games are the
        # first ones. Without a context all members read the same texts anyway.
        if self.combine == "boosting" and member > 0:
            name = "boosted"
        if self.same_sample and self.context != "none" and member > 0:
            name += "-same"
        if self.bootstrap:
            name += "-bootstrap"
        return f"{self.context}/{name}{member}"


def check_methods(methods: Mapping[str, Method], contexts: Mapping[str, Context]) -> None:
    """Check that the context of every method exists and supports the method's settings.

    Raises:
        UserError: a context is unknown, or holds recorded labels where games are needed.
    """
    for name, method in methods.items():
        context = contexts.get(method.context)
        if context is None and method.context != "none":
            known = nearest(method.context, ["none", *contexts])
            raise UserError(f"method {name!r}: no context {method.context!r}; {known}")
        if context is None or context.kind != "recorded":
            continue
        # Recorded labels are those of one supervisor: there is nothing to combine, to read or to play again.
        if method.members > 1 or method.student_reads == "context" or method.transfer.rounds > 1:
            raise UserError(
                f"method {name!r}: context {method.context!r} holds labels and no games; set members: 1, "
                "student_reads: item and transfer.rounds: 1"
            )
