"""Judge accuracy by protocol and player, on the same questions, with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.significance import Condition, compare, slope
from debate_rl.arena.tournament import scores
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect
from debate_rl.judges.scores import JudgeScores, hits
from debate_rl.records import Record


class Row(Record):
    """The judge under one protocol with one player.

    Example:
        Row(protocol="debate", player="dpo", scores=JudgeScores(n=80, ...), failed=0)
    """

    protocol: str
    player: str
    scores: JudgeScores
    failed: int
    """Legs without a verdict."""


class Difference(Record):
    """How much more often the judge is right under one protocol than under another, question by question.

    Example:
        Difference(first="debate", second="single", player="dpo", accuracy=Effect(value=0.09, low=0.02, high=0.17, ...))
    """

    first: str
    second: str
    player: str
    accuracy: Effect


def accuracy_table(legs: Mapping[tuple[str, str], Sequence[Leg]]) -> list[Row]:
    """One row for each (protocol, player)."""
    return [
        Row(protocol=protocol, player=player, scores=scores(found), failed=sum(leg.verdict is None for leg in found))
        for (protocol, player), found in legs.items()
    ]


def paired_differences(legs: Mapping[tuple[str, str], Sequence[Leg]], reference: str = "debate") -> list[Difference]:
    """The reference protocol against each other one, over the questions that both have a verdict on.

    A protocol without players (blind, open-book) is compared with every player's reference.
    """
    found = []
    for (protocol, player), others in legs.items():
        for (name, debater), base in legs.items():
            if name != reference or protocol == reference or player not in (debater, "-"):
                continue
            first, second = _condition(reference, base), _condition(protocol, others)
            if set(first.questions) & set(second.questions):
                effect = compare(first, second).difference
                found.append(Difference(first=reference, second=protocol, player=debater, accuracy=effect))
    return found


def accuracy_over_rating(legs: Sequence[Leg], ratings: Mapping[str, float]) -> Effect | None:
    """Slope of judge accuracy in self-play over the player's rating, for 100 Elo points; None for one rating only.

    Args:
        legs: self-play.
        ratings: Elo of each player.
    """
    rows = [
        (ratings[leg.transcript.players["A"]], leg.p_correct, leg.transcript.question.cluster)
        for leg in legs
        if leg.p_correct is not None
    ]
    if len({rating for rating, _, _ in rows}) < 2:
        return None
    return slope([rating for rating, _, _ in rows], hits([p for _, p, _ in rows]), [label for _, _, label in rows])


def _condition(name: str, legs: Sequence[Leg]) -> Condition:
    """Whether the judge was right, by question."""
    judged = [(leg.transcript.question, leg.p_correct) for leg in legs if leg.p_correct is not None]
    right = hits([p for _, p in judged]) if judged else np.zeros(0)
    return Condition(name, [q.id for q, _ in judged], right, [q.cluster for q, _ in judged])
