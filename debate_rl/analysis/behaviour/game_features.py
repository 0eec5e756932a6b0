"""Judged games as the effects read them: verdicts, and speeches in numbers; texts are dropped to save memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from debate_rl.analysis.behaviour.behaviour import all_quotes_are, count_words
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import explain, lines


class Said(NamedTuple):
    """A speech in numbers.

    Example:
        Said(player="sft", side="A", turn=0, valid=True, words=17)
    """

    player: str
    side: str
    turn: int
    valid: bool
    """Whether it quotes, and all its quotes are exact or near."""
    words: int


class Played(NamedTuple):
    """A judged game.

    Example:
        Played(leg=JudgedDebate(...), said=(Said(player="sft", ...), Said(player="dpo", ...)))
    """

    leg: JudgedDebate
    """The leg with its verdict, without passage and speeches."""
    said: tuple[Said, ...]

    @property
    def question(self) -> str:
        """The question's id."""
        return self.leg.transcript.question.id

    @property
    def cluster(self) -> str:
        """The question's story, or the question itself if it has none."""
        return self.leg.transcript.question.cluster

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return self.leg.transcript.protocol.name

    @property
    def players(self) -> tuple[str, ...]:
        """The players, each once, side A's first; empty in a reading."""
        sides = self.leg.transcript.players
        return tuple(dict.fromkeys(sides[side] for side in self.leg.transcript.present))


def read_played(path: Path) -> list[Played]:
    """Read the judged games of a file of judged debates, one at a time; empty if there is no file.

    Legs that failed or were not judged are left out: they count for no one.

    Raises:
        UserError: a line is malformed; names file and line.
    """
    games: list[Played] = []
    if not path.is_file():
        return games
    for line_number, value in lines(path):
        try:
            leg = JudgedDebate.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{line_number}: {explain(error)}") from error
        if leg.verdict is not None and leg.failure is None and leg.p_correct is not None:
            games.append(_without_texts(leg))
    return games


def listed(played: Iterable[Played], order: Sequence[str] = ()) -> list[str]:
    """Players in the order in which the stage lists them, then all others in the order of their first games."""
    players: dict[str, None] = {}
    for game in played:
        players.update(dict.fromkeys(game.players))
    # Players of no game are dropped: a stage can list players whose games all failed.
    in_order = [name for name in dict.fromkeys(order) if name in players]
    return in_order + [name for name in players if name not in order]


def _without_texts(leg: JudgedDebate) -> Played:
    game = leg.transcript
    # A novel as the passage of every leg would fill the memory; ids and clusters stay.
    question = game.question.model_copy(update={"passage": None, "excerpt": None, "evidence": ()})
    light = game.model_copy(update={"question": question, "speeches": ()})
    return Played(leg.model_copy(update={"transcript": light}), _speeches(game))


def _speeches(game: Transcript) -> tuple[Said, ...]:
    """Every speech in numbers."""
    rows = []
    for speech in game.speeches:
        row = Said(
            player=game.players[speech.side],
            side=speech.side,
            turn=speech.turn,
            valid=all_quotes_are(speech, ("exact", "near")),
            words=count_words(speech.text),
        )
        rows.append(row)
    return tuple(rows)
