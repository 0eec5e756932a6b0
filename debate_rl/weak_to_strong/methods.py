"""A method of weak-to-strong: who supervises, what becomes of the labels, what the student minimises."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from debate_rl.records import Record
from debate_rl.trainers.settings import StudentLoss
from debate_rl.weak_to_strong.ensemble import MOST_MEMBERS, Combination
from debate_rl.weak_to_strong.labels import Labelling

Context = Literal["none", "debate"]


class Method(Record):
    """One row of a table of methods; methods with supervisors in common train them once.

    Example (debate ensemble, finetune ensemble, single weak model with a debate, auxiliary confidence):
        Method(context="debate"); Method(context="debate", same_sample=True); Method(context="debate", members=1);
        Method(members=1, loss=StudentLoss(kind="confidence"))
    """

    context: Context = "none"
    """What the supervisors read beside the item."""
    members: int = Field(default=4, ge=1, le=MOST_MEMBERS)
    """Supervisors, by seeds of their own."""
    same_sample: bool = False
    """All members read the first debate of an item (a finetune ensemble); else each its own (a debate ensemble)."""
    combine: Combination = "mean"
    """How members come to one label: mean, vote, confidence or boosting."""
    labels: Labelling = Labelling()
    """What becomes of that label."""
    loss: StudentLoss = StudentLoss()
    """What the student minimises; supervisors and ceiling learn by cross entropy."""

    def supervisor(self, member: int) -> str:
        """Name of a member, the same in every method that trains it alike.

        Example:
            Method(context="debate", same_sample=True).supervisor(2) == "debate/supervisor-same2"
        """
        kind = "boosted" if self.combine == "boosting" and member > 0 else "supervisor"
        # Without debates all members read the same anyway, and the first member is the same in every ensemble.
        same = self.same_sample and self.context != "none" and member > 0
        return f"{self.context}/{kind}{'-same' if same else ''}{member}"
