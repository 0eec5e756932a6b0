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
    """Judges that decide together; the panel's verdict keeps the verdict of each.

    Example:
        Panel(name="two judges", members=(Judge(name="a", model="lab-base"), Judge(name="b", model="lab-small")))
    """

    name: str = "panel"
    members: tuple[Judge | ReasoningJudge | StatedJudge | Probe | Panel | FunctionJudge, ...] = Field(min_length=1)
    combine: Combine = "mean"


def combine_members(panel: Panel, found: Sequence[Verdict | Failure]) -> Verdict | Failure:
    """Combine the members' verdicts on one transcript, in the members' order, into the panel's.

    A member without a verdict leaves the panel without one: a mean over fewer judges would be another judge.
    """
    verdicts = []
    for member, verdict in zip(panel.members, found, strict=True):
        if isinstance(verdict, Failure):
            return verdict.model_copy(update={"message": f"member {member.name!r}: {verdict.message}"})
        verdicts.append(verdict)
    after_turn = []
    for moment in zip(*(verdict.after_turn for verdict in verdicts), strict=True):
        p = combined([first for first, _ in moment], panel.combine)
        after_turn.append((p, 1 - p))
    p = combined([verdict.p[0] for verdict in verdicts], panel.combine)
    return Verdict(
        judge=panel.name,
        p=(p, 1 - p),
        members=tuple(verdicts),
        after_turn=tuple(after_turn),
        revision=digest([verdict.revision for verdict in verdicts]),
    )
