"""Judge accuracy by prior knowledge: the judge's verdict on the bare question splits the questions into groups.

A protocol that only helps where the judge already leaned right adds little. The groups come from the judge's own
guesses, which include luck: it will be right less often on a second look among questions that it guessed right by
chance, and more often among those that it guessed wrong. Compare protocols within a group, not groups with each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from debate_rl.analysis.accuracy import p_correct_of
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate
from debate_rl.judges.scores import accuracy, brier
from debate_rl.records import Record

Knowledge = Literal["right", "unsure", "wrong"]
UNSURE = 0.1
"""Largest distance from one half at which a blind verdict counts as unsure."""


class KnownRow(Record):
    """Scores of the judge under one protocol with one player, on the questions of one group.

    Example:
        KnownRow(known="wrong", protocol="debate", player="dpo", accuracy=Estimate(value=0.61, n=23, ...), brier=...)
    """

    known: Knowledge
    protocol: str
    player: str
    accuracy: Estimate
    brier: Estimate


class Known(Record):
    """Questions grouped by the judge's blind verdict, and its scores in each group.

    Example:
        Known(questions={"right": 31, "unsure": 26, "wrong": 23}, unsure=0.1, left_out=0, rows=(KnownRow(...), ...))
    """

    questions: dict[Knowledge, int]
    unsure: float
    """Largest distance from one half at which a blind verdict counts as unsure."""
    left_out: int
    """Questions without a blind verdict."""
    rows: tuple[KnownRow, ...]


def knowledge(blind: Sequence[JudgedDebate], unsure: float = UNSURE) -> dict[str, Knowledge]:
    """Group of each question that has a blind verdict, by question id; a verdict of one half is always unsure."""
    groups: dict[str, Knowledge] = {}
    for leg in blind:
        p = leg.p_correct
        if p is None:
            continue
        group: Knowledge = "right" if p > 0.5 else "wrong"
        # Rounded: .5 + .1 is more than .6 in floating point, .5 - .1 is not less than .4.
        if round(abs(p - 0.5), 9) <= unsure:
            group = "unsure"
        groups[leg.transcript.question.id] = group
    return groups


def by_knowledge(legs: Mapping[tuple[str, str], Sequence[JudgedDebate]], unsure: float = UNSURE) -> Known | None:
    """Score the judge in each group of questions, by (protocol, player).

    Returns:
        The scores; None where no bare question was judged.
    """
    # Blind verdicts make the groups, so as a row of a group they would be right always or never.
    blind: list[JudgedDebate] = []
    shown: dict[tuple[str, str], list[JudgedDebate]] = {}
    question_ids = set()
    for key, group_legs in legs.items():
        shown[key] = []
        for leg in group_legs:
            question_ids.add(leg.transcript.question.id)
            (blind if _is_blind(leg) else shown[key]).append(leg)
    groups = knowledge(blind, unsure)
    if not groups:
        return None
    rows = []
    for group in get_args(Knowledge):
        for (protocol, player), shown_legs in shown.items():
            members = [leg for leg in shown_legs if groups.get(leg.transcript.question.id) == group]
            row = _row(group, protocol, player, members)
            if row is not None:
                rows.append(row)
    counts = Counter(groups.values())
    return Known(
        questions={group: counts[group] for group in get_args(Knowledge)},
        unsure=unsure,
        left_out=len(question_ids - groups.keys()),
        rows=tuple(rows),
    )


def _row(group: Knowledge, protocol: str, player: str, legs: Sequence[JudgedDebate]) -> KnownRow | None:
    """Scores of one group under one protocol and player; None without a verdict."""
    p_correct, stories = p_correct_of(legs)
    if not p_correct:
        return None
    return KnownRow(
        known=group,
        protocol=protocol,
        player=player,
        accuracy=accuracy(p_correct, stories),
        brier=brier(p_correct, stories),
    )


def _is_blind(leg: JudgedDebate) -> bool:
    """Whether the judge saw the question alone."""
    rules = leg.transcript.protocol
    return rules.turns == 0 and not rules.judge_reads_passage
