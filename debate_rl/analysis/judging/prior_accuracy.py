"""Judge accuracy by what the judge knows beforehand: its verdict on the bare question splits the questions.

A protocol that only helps where the judge already leaned right adds little. The split is by the judge's own guess, so
it holds its luck as well: among questions that it guessed right by chance a second look will be right less often, and
more often among those that it guessed wrong. Compare protocols within a group; do not compare groups with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from debate_rl.game.verdict import Leg
from debate_rl.intervals import Estimate
from debate_rl.judges.scores import accuracy, brier
from debate_rl.records import Record

Knowledge = Literal["right", "unsure", "wrong"]
UNSURE = 0.1
"""A blind verdict so near to one half is neither right nor wrong."""


class KnownRow(Record):
    """The judge under one protocol with one player, on the questions of one group.

    Example:
        KnownRow(known="wrong", protocol="debate", player="dpo", accuracy=Estimate(value=0.61, n=23, ...), brier=...)
    """

    known: Knowledge
    protocol: str
    player: str
    accuracy: Estimate
    brier: Estimate


class Known(Record):
    """Questions by the judge's blind verdict, and its scores in each group.

    Example:
        Known(questions={"right": 31, "unsure": 26, "wrong": 23}, unsure=0.1, left_out=0, rows=(KnownRow(...), ...))
    """

    questions: dict[Knowledge, int]
    unsure: float
    """A blind verdict so near to one half is neither."""
    left_out: int
    """Questions without a blind verdict."""
    rows: tuple[KnownRow, ...]


def knowledge(blind: Sequence[Leg], unsure: float = UNSURE) -> dict[str, Knowledge]:
    """What the judge makes of each bare question that it has a verdict on; one half is always unsure."""
    found: dict[str, Knowledge] = {}
    for leg in blind:
        p = leg.p_correct
        if p is not None:
            # Rounded: .5 + .1 is more than .6 in floating point, .5 - .1 is not less than .4.
            near = round(abs(p - 0.5), 9) <= unsure
            found[leg.transcript.question.id] = "unsure" if near else "right" if p > 0.5 else "wrong"
    return found


def by_knowledge(legs: Mapping[tuple[str, str], Sequence[Leg]], unsure: float = UNSURE) -> Known | None:
    """Split (protocol, player) by what the judge knew; None where the judge was not asked any bare question."""
    blind = [leg for found in legs.values() for leg in found if _is_blind(leg)]
    known = knowledge(blind, unsure)
    if not known:
        return None
    rows = []
    for group in get_args(Knowledge):
        for (protocol, player), found in legs.items():
            inside = [leg for leg in found if known.get(leg.transcript.question.id) == group and not _is_blind(leg)]
            p = [(leg.p_correct, leg.transcript.question.cluster) for leg in inside if leg.p_correct is not None]
            if p:
                values, labels = zip(*p, strict=True)
                rows.append(
                    KnownRow(
                        known=group, protocol=protocol, player=player,
                        accuracy=accuracy(values, labels), brier=brier(values, labels),
                    )
                )  # fmt: skip
    every = {leg.transcript.question.id for found in legs.values() for leg in found}
    counts = Counter(known.values())
    return Known(
        questions={group: counts[group] for group in get_args(Knowledge)},
        unsure=unsure,
        left_out=len(every - known.keys()),
        rows=tuple(rows),
    )


def _is_blind(leg: Leg) -> bool:
    """Whether the judge was shown the question alone."""
    rules = leg.transcript.protocol
    return rules.turns == 0 and not rules.judge_reads_passage
