"""A panel: several judges of any kind read the same transcript, and their probabilities become one."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.function import FunctionJudge
from debate_rl.judges.model import Judge
from debate_rl.judges.presentation import Combine, combined
from debate_rl.judges.probe import Probe
from debate_rl.judges.reasoning import ReasoningJudge
from debate_rl.judges.stated import StatedJudge
from debate_rl.records import Record, digest


class Panel(Record):
    """Judges that decide together; the verdict of each is kept on the panel's.

    Example:
        Panel(name="two judges", members=(Judge(name="a", model="lab-base"), Judge(name="b", model="lab-small")))
    """

    name: str = "panel"
    members: tuple[Judge | ReasoningJudge | StatedJudge | Probe | Panel | FunctionJudge, ...] = Field(min_length=1)
    combine: Combine = "mean"


def combine_members(panel: Panel, found: Sequence[Verdict | Failure]) -> Verdict | Failure:
    """The panel's verdict on one transcript from its members', in their order.

    A member without a verdict leaves the panel without one: a mean over fewer judges would be another judge.
    """
    members = []
    for member, one in zip(panel.members, found, strict=True):
        if isinstance(one, Failure):
            return one.model_copy(update={"message": f"member {member.name!r}: {one.message}"})
        members.append(one)
    between = [
        combined([p for p, _ in moment], panel.combine)
        for moment in zip(*(one.after_turn for one in members), strict=True)
    ]
    p = combined([one.p[0] for one in members], panel.combine)
    return Verdict(
        judge=panel.name,
        p=(p, 1 - p),
        members=tuple(members),
        after_turn=tuple((one, 1 - one) for one in between),
        revision=digest([one.revision for one in members]),
    )
