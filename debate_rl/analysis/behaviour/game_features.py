"""Judged games as the effects read them: the verdict, and what was said in numbers; texts are not kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from debate_rl.analysis.behaviour.behaviour import all_quotes_are, count_words
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg
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
    """It quotes, and all its quotes are exact or near."""
    words: int


class Played(NamedTuple):
    """A judged game.

    Example:
        Played(leg=Leg(...), said=(Said(player="sft", ...), Said(player="dpo", ...)))
    """

    leg: Leg
    """With its verdict, without passage and speeches."""
    said: tuple[Said, ...]

    @property
    def question(self) -> str:
        """The question's id."""
        return self.leg.transcript.question.id

    @property
    def cluster(self) -> str:
        """The story, else the question."""
        return self.leg.transcript.question.cluster

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return self.leg.transcript.protocol.name

    @property
    def players(self) -> tuple[str, ...]:
        """Who played, each once, side A's first; none in a reading."""
        sides = self.leg.transcript.players
        return tuple(dict.fromkeys(sides[side] for side in self.leg.transcript.present))


def read_played(path: Path) -> list[Played]:
    """The judged games of a file of legs, read one at a time; none where there is no file.

    Legs that failed or were not judged are left out: they count for no one.

    Raises:
        UserError: a line is malformed; names file and line.
    """
    found: list[Played] = []
    for number, value in lines(path) if path.is_file() else ():
        try:
            leg = Leg.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error
        if leg.verdict is not None and leg.failure is None and leg.p_correct is not None:
            found.append(_light(leg))
    return found


def listed(played: Iterable[Played], order: Sequence[str] = ()) -> list[str]:
    """Players in the order in which the stage lists them; those that `order` leaves out by their first games."""
    found = dict.fromkeys(name for game in played for name in game.players)
    return [*dict.fromkeys(name for name in order if name in found), *(name for name in found if name not in order)]


def _light(leg: Leg) -> Played:
    """A leg without its texts."""
    game = leg.transcript
    question = game.question.model_copy(update={"passage": None, "evidence": ()})
    light = game.model_copy(update={"question": question, "speeches": ()})
    return Played(leg.model_copy(update={"transcript": light}), _said(game))


def _said(game: Transcript) -> tuple[Said, ...]:
    """Every speech in numbers."""
    return tuple(
        Said(
            player=game.players[speech.side], side=speech.side, turn=speech.turn,
            valid=all_quotes_are(speech, ("exact", "near")), words=count_words(speech.text),
        )
        for speech in game.speeches
    )  # fmt: skip
