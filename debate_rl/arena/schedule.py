"""Schedules: which games a tournament or a comparison of protocols plays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import overload

from debate_rl.arena.game_tree import Kind, Tree, widths
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Protocol, Side, drawn_side, other
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.records import digest

Seating = tuple[str, str]
"""Players of side A and side B."""


class Schedule(Sequence[Transcript]):
    """The games of some seatings on every question, question by question, each opened when it is asked for.

    Args:
        seatings: who meets whom on each question.
        questions: what they debate.
        protocol: the rules.
        seed: of all games.
    """

    def __init__(
        self, seatings: Sequence[Seating], questions: Sequence[Question], protocol: Protocol, seed: int = 0
    ) -> None:
        self.seatings = seatings
        self.questions = questions
        self.protocol = protocol
        self.seed = seed

    def __len__(self) -> int:
        return len(self.questions) * len(self.seatings)

    @overload
    def __getitem__(self, index: int) -> Transcript: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Transcript]: ...

    def __getitem__(self, index: int | slice) -> Transcript | Sequence[Transcript]:
        """Open the game at an index, or all games of a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # as a list takes it: negative from the end, IndexError beyond
        question_index, seating_index = divmod(position, len(self.seatings))
        player_a, player_b = self.seatings[seating_index]
        players: dict[Side, str] = {"A": player_a, "B": player_b}
        return open_transcript(self.questions[question_index], self.protocol, players, self.seed)


def pairings(players: Sequence[str]) -> list[Seating]:
    """Every pair twice, sides swapped."""
    seatings = []
    for first, second in combinations(players, 2):
        seatings += [(first, second), (second, first)]
    return seatings


def mirrors(players: Sequence[str]) -> list[Seating]:
    """Every player on both sides."""
    return [(player, player) for player in players]


def round_robin(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Games in which every pair meets twice on every question, sides swapped; question by question."""
    return list(Schedule(pairings(players), questions, protocol, seed))


def self_play(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Games in which every player meets itself once on every question.

    They measure judge accuracy; ratings can not use them.
    """
    return list(Schedule(mirrors(players), questions, protocol, seed))


def branching(
    player: str,
    questions: Sequence[Question],
    protocol: Protocol,
    kind: Kind = "full",
    branches: int = 2,
    opponents: Sequence[str] = (),
    flip: bool = True,
    seed: int = 0,
) -> list[Tree]:
    """Trees in which a player branches, on every question.

    Args:
        player: the one who branches.
        questions: one or two trees each.
        protocol: a speaker who reads no one else's speeches (consultancies) has no opponent in its tree.
        kind: where trees branch.
        branches: speeches at a branching node.
        opponents: names of players who may speak for the other side, one drawn for each tree; empty is the player
            itself.
        flip: one tree for each side of a question that the protocol lets speak; else one tree, its side drawn.
        seed: of the draws and of the games.

    Raises:
        UserError: nobody speaks under the protocol, or who speaks is not known beforehand.
    """
    if protocol.turns == 0:
        raise UserError(f"protocol {protocol.name!r} has no speeches to branch; choose one in which someone speaks")
    if protocol.open or protocol.calls == "rejected":
        raise UserError(f"protocol {protocol.name!r} does not say beforehand who speaks, so it can not branch")
    pool = opponents or (player,)
    trees = []
    for question in questions:
        sides = SIDES if flip else (drawn_side(question.id, seed),)
        for side in sides:
            # Drawn by question, side and seed: the opponent does not change with the other questions of a run.
            draw = int(digest(["opponent", question.id, side, seed]), 16)
            seats: dict[Side, str] = {side: player, other(side): pool[draw % len(pool)]}
            game = open_transcript(question, protocol, seats, seed)
            if side not in game.present:  # in a single consultancy only the drawn side speaks
                continue
            # A consultant meets nobody: the second player is left out, so that no text of it is asked for.
            if protocol.speakers_see == "own":
                game = game.model_copy(update={"players": {side: player}})
            trees.append(Tree(game=game, target=side, widths=widths(game, side, kind, branches)))
    return trees
