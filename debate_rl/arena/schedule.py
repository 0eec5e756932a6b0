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
    def __getitem__(self, place: int) -> Transcript: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Transcript]: ...

    def __getitem__(self, place: int | slice) -> Transcript | Sequence[Transcript]:
        """The game in a place; of a slice all of its games."""
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        question, seating = divmod(range(len(self))[place], len(self.seatings))
        a, b = self.seatings[seating]
        return open_transcript(self.questions[question], self.protocol, {"A": a, "B": b}, self.seed)


def pairings(players: Sequence[str]) -> list[Seating]:
    """Every pair twice, sides swapped."""
    return [seating for a, b in combinations(players, 2) for seating in ((a, b), (b, a))]


def mirrors(players: Sequence[str]) -> list[Seating]:
    """Every player on both sides."""
    return [(player, player) for player in players]


def round_robin(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Every pair meets twice on every question, sides swapped; 2 x pairs x questions games, question by question."""
    return list(Schedule(pairings(players), questions, protocol, seed))


def self_play(
    players: Sequence[str], questions: Sequence[Question], protocol: Protocol, seed: int = 0
) -> list[Transcript]:
    """Every player meets itself once on every question: for judge accuracy, which ratings can not use."""
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
        player: who branches.
        questions: one or two trees each.
        protocol: a speaker who reads no one else's speeches (consultancies) has no opponent in its tree.
        kind: where trees branch.
        branches: speeches at a branching node.
        opponents: names of who may speak for the other side, one drawn for each tree; empty is the player itself.
        flip: a tree for each side of a question that the protocol lets speak; else for one side, drawn.
        seed: of the draws and of the games.

    Raises:
        UserError: nobody speaks under the protocol, or who speaks is not known beforehand.
    """
    if protocol.turns == 0:
        raise UserError(f"protocol {protocol.name!r} has no speeches to branch; choose one in which someone speaks")
    if protocol.open or protocol.calls == "rejected":
        raise UserError(f"protocol {protocol.name!r} does not say beforehand who speaks, so it can not branch")
    trees = []
    for question in questions:
        for side in SIDES if flip else (drawn_side(question.id, seed),):
            rival = _drawn(opponents or (player,), [question.id, side, seed])
            seats: dict[Side, str] = {side: player, other(side): rival}
            game = open_transcript(question, protocol, seats, seed)
            if side not in game.present:
                continue
            if protocol.speakers_see == "own":
                game = game.model_copy(update={"players": {side: player}})
            trees.append(Tree(game=game, target=side, widths=widths(game, side, kind, branches)))
    return trees


def _drawn(names: Sequence[str], place: Sequence[str | int]) -> str:
    """One of several names, each as likely as the others."""
    return names[int(digest(["opponent", *place]), 16) % len(names)]
