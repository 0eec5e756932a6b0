"""Games that are played one round at a time, while a person judges them and may ask between the rounds."""

from __future__ import annotations

from collections.abc import Mapping

from debate_rl.arena.turn_order import pick_sides
from debate_rl.engines.request import Engine
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure
from debate_rl.judges.human import planned_rounds, turns_played
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Seat, speak


def play_round(game: Transcript, players: Mapping[str, Debater], engine: Engine) -> Transcript | Failure:
    """Play a game on to the end of its next round; a finished game stays as it is.

    Args:
        game: of a protocol in which no judge calls the speakers.
        players: by the names used in the game, none of them Best-of-N: there is no judge to choose.
        engine: answers for their models.

    Returns:
        The game with the round's speeches, or the failure of one of them.
    """
    (opened,) = pick_sides([game], players, engine)
    if isinstance(opened, Failure):
        return opened
    game = opened
    played = turns_played(game)
    end = next((end for end in planned_rounds(game) if end > played), played)
    for turn in range(played, end):
        seats = [Seat(game, side, turn, players[game.players[side]]) for side in game.speakers(turn)]
        speeches = []
        for result in speak(seats, engine):
            if result.failure is not None:
                return result.failure
            if result.speech is not None:
                speeches.append(result.speech)
        game = game.add(speeches)
    return game
