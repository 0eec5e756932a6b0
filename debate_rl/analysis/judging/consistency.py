"""Right in both orders, in one, in none: what a judge is worth when it is asked once.

The verdict of a game is the mean over both orders of presentation, in which a judge that goes by the order looks unsure
rather than wrong. Counted order by order it shows; `rule` counts as JudgeBench does (`decisions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.columns import cell, columns
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.intervals import Estimate, mean
from debate_rl.judges.presentation import mean_probability
from debate_rl.judges.scores import hits
from debate_rl.records import Record


class Consistency(Record):
    """A judge in both orders, under one protocol with one player.

    Example:
        Consistency(protocol="debate", player="dpo", both=Estimate(value=0.71, ...), one=Estimate(value=0.2, ...),
                    none=Estimate(value=0.09, ...), rule=Estimate(value=0.71, ...), same=Estimate(value=0.8, ...))
    """

    protocol: str
    player: str
    both: Estimate
    """Share of games in which the raw verdict is correct in both orders."""
    one: Estimate
    none: Estimate
    rule: Estimate
    """Accuracy by JudgeBench's rule: more orders correct than wrong; a tie of both is not right."""
    same: Estimate
    """Share of games with the same favoured answer in both orders."""


def consistency(legs: Mapping[tuple[str, str], Sequence[JudgedDebate]]) -> tuple[Consistency, ...]:
    """One row for each (protocol, player) that was judged in both orders.

    Args:
        legs: judged games by (protocol, player); those without a verdict, a known answer or a second order count
            nowhere.
    """
    rows = []
    for (protocol, player), group in legs.items():
        orders, clusters = [], []
        for leg in group:
            correct = leg.transcript.question.correct
            if leg.verdict is None or correct is None or not _has_both_orders(leg.verdict):
                continue
            p = [mean_probability(leg.verdict, order) for order in ((0, 1), (1, 0))]
            orders.append(p if correct == 0 else [1 - one for one in p])
            clusters.append(leg.transcript.question.cluster)
        if not orders:
            continue
        right = np.array([hits(both) for both in orders])
        count = (right == 1).sum(axis=1)
        row = Consistency(
            protocol=protocol,
            player=player,
            both=mean(count == 2, clusters),
            one=mean(count == 1, clusters),
            none=mean(count == 0, clusters),
            rule=mean(right.sum(axis=1) > 1, clusters),
            same=mean(right[:, 0] == right[:, 1], clusters),
        )
        rows.append(row)
    return tuple(rows)


def _has_both_orders(verdict: Verdict) -> bool:
    """Whether the judge, or every judge of a panel, was asked in both orders at the end."""
    if verdict.members:
        return all(_has_both_orders(member) for member in verdict.members)
    orders = {ask.order for ask in verdict.asks if ask.after_turn is None}
    return {(0, 1), (1, 0)} <= orders


def formatted(rows: Sequence[Consistency]) -> str:
    """The rows as a table."""
    head = ["protocol", "player", "right in both orders", "in one", "in none", "JudgeBench's rule", "same answer"]
    body = []
    for row in rows:
        shares = (row.both, row.one, row.none, row.rule, row.same)
        body.append([row.protocol, row.player, *(cell(share) for share in shares)])
    return columns(head, body)
