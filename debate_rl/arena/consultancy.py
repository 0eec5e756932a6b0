"""Converts saved consultancies to another consultancy protocol: speeches stay, sides are combined anew.

A consultant reads nobody else's speeches, so it said the same whatever the rules around it: two single consultancies on
one question, one for each answer, are a double one, and a double one is an ensembled one that the judge reads
differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from debate_rl.errors import UserError
from debate_rl.game.protocol import Protocol, Side, load_protocol
from debate_rl.game.transcript import Transcript
from debate_rl.records import Record, digest


class Converted(Record):
    """Consultancies of two sides, and what they were made of.

    Example:
        Converted(games=(Transcript(...), ...), pairs=38, unpaired=4)
    """

    games: tuple[Transcript, ...]
    """Games that had two sides first, then the pairs."""
    pairs: int
    """Games combined from two single consultancies each."""
    unpaired: int
    """Single consultancies without one for the other side."""


def to_double(games: Sequence[Transcript], name: str = "double") -> Converted:
    """Make double or ensembled consultancies of finished ones; no new speeches are generated.

    Single consultancies are paired if they are on the same question, under the same rules and for opposite sides: of
    one player first, in the order of their seeds, then of any two. A pair takes the seed of its side A.

    Args:
        games: single, double or ensembled consultancies; open ones (the consultant picked its side) count as single.
        name: of a shipped protocol with consultants for both sides, or a YAML file with one.

    Raises:
        UserError: the protocol has no consultants on both sides, or a game is no consultancy or has questions
            of the judge.
    """
    rules = load_protocol(name)
    if rules.turns == 0 or rules.speakers_see != "own" or rules.sides != "both":
        raise UserError(f"protocol {name!r} has no consultants on both sides; convert to double or ensembled")
    converted: list[Transcript] = []
    singles_by_key: dict[str, list[Transcript]] = {}
    for game in games:
        if game.protocol.speakers_see != "own" or game.protocol.turns == 0:
            raise UserError(
                f"a game of protocol {game.protocol.name!r} is no consultancy; name the protocol whose games to "
                "convert, such as single"
            )
        if game.protocol.judge_questions:
            raise UserError(
                f"a game of protocol {game.protocol.name!r} holds the judge's questions to one side, which the other "
                "did not answer; convert games of a protocol without judge_questions"
            )
        if len(game.present) == 2:
            converted.append(game.model_copy(update={"protocol": _under(game.protocol, rules)}))
        else:
            # The question's text counts, not its id alone: files of different runs may be converted together.
            key = digest([game.question.model_dump(mode="json"), game.protocol.model_dump(mode="json")])
            singles_by_key.setdefault(key, []).append(game)
    pairs = 0
    unpaired = 0
    for singles in singles_by_key.values():
        doubles = [_double(a, b, rules) for a, b in _pair_up(singles)]
        converted += doubles
        pairs += len(doubles)
        unpaired += len(singles) - 2 * len(doubles)
    return Converted(games=tuple(converted), pairs=pairs, unpaired=unpaired)


def _under(source: Protocol, target: Protocol) -> Protocol:
    """The rules a game was played under, with the sides and the judge's view of another protocol."""
    return source.model_copy(update={"name": target.name, "sides": "both", "judge_sees": target.judge_sees})


def _pair_up(games: Sequence[Transcript]) -> list[tuple[Transcript, Transcript]]:
    """Pair consultancies for A and for B on one question: of the same player first, then of any two."""
    pairs: list[tuple[Transcript, Transcript]] = []
    # A pair of one player first: its two sides are then equally skilled, as in a double consultancy that was played.
    for player in sorted(set(map(_player, games))):
        same_player = [game for game in games if _player(game) == player]
        # Without strict: the side with more consultancies leaves some over for the second pass.
        pairs += zip(_of_side(same_player, "A"), _of_side(same_player, "B"), strict=False)
    paired = set(map(id, chain.from_iterable(pairs)))
    rest = [game for game in games if id(game) not in paired]
    pairs += zip(_of_side(rest, "A"), _of_side(rest, "B"), strict=False)
    return pairs


def _of_side(games: Iterable[Transcript], side: Side) -> list[Transcript]:
    """The games in which a side speaks, in a fixed order: pairs do not depend on the order of the file."""
    consultancies = [game for game in games if game.present[0] == side]
    return sorted(consultancies, key=lambda game: (_player(game), game.seed, game.id))


def _player(game: Transcript) -> str:
    """The player who speaks in a single consultancy."""
    return game.players[game.present[0]]


def _double(a: Transcript, b: Transcript, rules: Protocol) -> Transcript:
    """Combine both sides of a question in one game, turn by turn."""
    speeches = sorted((*a.speeches, *b.speeches), key=lambda speech: (speech.turn, speech.side))
    return Transcript(
        question=a.question,
        protocol=_under(a.protocol, rules),
        players={"A": _player(a), "B": _player(b)},
        seed=a.seed,
        speeches=tuple(speeches),
    )
