"""Schedules: which games a tournament or a comparison of protocols plays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript


def round_robin(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Every pair meets twice on every question, sides swapped; 2 x pairs x questions games, question by question."""
    games = []
    for question in questions:
        for first, second in combinations(players, 2):
            games.append(open_transcript(question, protocol, {"A": first, "B": second}, seed))
            games.append(open_transcript(question, protocol, {"A": second, "B": first}, seed))
    return games


def self_play(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Every player meets itself once on every question: for judge accuracy, which ratings can not use."""
    return [
        open_transcript(question, protocol, {"A": player, "B": player}, seed)
        for question in questions
        for player in players
    ]
