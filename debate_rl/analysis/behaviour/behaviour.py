"""What debaters do: how often they quote, how truly, at what length, and with what success; clustered by story."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from debate_rl.analysis.behaviour.concessions import concedes, names_other_only
from debate_rl.game.protocol import SIDES
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record

Argues = Literal["correct", "wrong"]


class Behaviour(Record):
    """A player's speeches in numbers, all of them or those for one answer.

    Example:
        Behaviour(player="sft", argues="correct", speeches=160, exact=Estimate(value=0.96, ...),
                  valid=Estimate(value=0.97, ...), quotes=Estimate(value=1.0, ...), words=Estimate(value=17.2, ...),
                  quoted=Estimate(value=10.1, ...), concedes=Estimate(value=0.0, ...), other_only=..., repeated=None,
                  wins=Estimate(value=0.71, ...))
    """

    player: str
    argues: Argues | None = None
    """Speeches for the correct answer or for the wrong one; None is all of them."""
    speeches: int
    exact: Estimate
    """Share of speeches with at least one quote, all of them exact."""
    valid: Estimate
    """Share of speeches with at least one quote, all of them exact or near."""
    quotes: Estimate
    """Quotes in a speech."""
    words: Estimate
    """Words in a speech, tags left out."""
    quoted: Estimate | None = None
    """Words inside the quotes of a speech; this and what follows is None in files of earlier versions."""
    concedes: Estimate | None = None
    """Share of speeches that say the other side is right (`concessions.concedes`)."""
    other_only: Estimate | None = None
    """Share of speeches that name the other answer and never their own."""
    repeated: Estimate | None = None
    """Of the quotes of later turns, those that the player gave in an earlier turn; None without later quotes."""
    wins: Estimate | None = None
    """The judge's mean probability for the player's side against other players; None without such games."""


class Spoken(NamedTuple):
    """A speech, who gave it, and what was given before it.

    Example:
        Spoken(player="sft", question=Question(...), speech=Speech(...), earlier=frozenset({"the pipe was moved"}))
    """

    player: str
    question: Question
    speech: Speech
    earlier: frozenset[str]
    """Quotes of the player's earlier turns in the game, as `folded`."""

    @property
    def argues(self) -> Argues | None:
        """Whether the speech is for the correct answer; None where that is unknown."""
        if self.question.correct is None:
            return None
        return "correct" if SIDES[self.question.correct] == self.speech.side else "wrong"


def spoken(legs: Iterable[Leg]) -> list[Spoken]:
    """Every speech of the legs; one that stands in several legs (same question, side, turn and text) counts once."""
    found: dict[tuple[str, str, str, int, str], Spoken] = {}
    for leg in legs:
        question = leg.transcript.question
        for speech in leg.transcript.speeches:
            player = speech.origin.player
            earlier = frozenset(
                folded(quote.text)
                for other in leg.transcript.speeches
                if other.side == speech.side and other.turn < speech.turn
                for quote in other.quotes
            )
            key = (player, question.id, speech.side, speech.turn, speech.text)
            found[key] = Spoken(player, question, speech, earlier)
    return list(found.values())


def behaviour(legs: Iterable[Leg]) -> list[Behaviour]:
    """One row for each player, over all its speeches in the legs."""
    return _rows(list(legs), (None,))


def by_side(legs: Iterable[Leg]) -> list[Behaviour]:
    """Two rows for each player: where it argues for the correct answer, and where for the wrong one."""
    return _rows(list(legs), ("correct", "wrong"))


def _rows(legs: Sequence[Leg], sides: Sequence[Argues | None]) -> list[Behaviour]:
    """A row for each player and side that has speeches, players by their first speeches."""
    every, won = spoken(legs), wins(legs)
    rows = []
    for player in dict.fromkeys(said.player for said in every):
        for side in sides:
            kept = [said for said in every if said.player == player and side in (None, said.argues)]
            if kept:
                rows.append(_row(player, side, kept, [win for win in won if win.player == player]))
    return rows


def _row(player: str, side: Argues | None, found: Sequence[Spoken], won: Sequence[Win]) -> Behaviour:
    """Summarise one player's speeches."""
    labels = [said.question.cluster for said in found]
    measured = {name: mean([measure(said) for said in found], labels) for name, measure in MEASURES.items()}
    again = [(folded(quote.text) in said.earlier, said.question.cluster) for said in found if said.speech.turn
             for quote in said.speech.quotes]  # fmt: skip
    kept = [win for win in won if side in (None, win.argues)]
    return Behaviour(
        player=player,
        argues=side,
        speeches=len(found),
        repeated=mean([one for one, _ in again], [label for _, label in again]) if again else None,
        wins=mean([win.p for win in kept], [win.cluster for win in kept]) if kept else None,
        **measured,
    )


class Win(NamedTuple):
    """What the judge gave a player against another one.

    Example:
        Win(player="sft", argues="wrong", p=0.41, cluster="lab-7")
    """

    player: str
    argues: Argues | None
    p: float
    cluster: str


def wins(legs: Iterable[Leg]) -> list[Win]:
    """The judge's probability for each player of every judged game between two different ones."""
    found = []
    for leg in legs:
        game = leg.transcript
        if leg.verdict is None or len(set(game.players.values())) < 2:
            continue
        for side, player in game.players.items():
            correct = game.question.correct
            argues: Argues | None = None if correct is None else "correct" if SIDES[correct] == side else "wrong"
            found.append(Win(player, argues, leg.verdict.p_side(side), game.question.cluster))
    return found


def all_quotes_are(speech: Speech, verdicts: tuple[str, ...]) -> bool:
    """Whether the speech quotes, and every quote has one of the verdicts."""
    return bool(speech.quotes) and all(quote.verdict in verdicts for quote in speech.quotes)


def count_words(text: str) -> int:
    """Number of words, quote tags left out."""
    return len(text.replace("<quote>", " ").replace("</quote>", " ").split())


def quoted_words(speech: Speech) -> int:
    """Number of words inside the quotes."""
    return sum(count_words(quote.text) for quote in speech.quotes)


def folded(quote: str) -> str:
    """A quote without case, spaces at its ends and punctuation there: the same words are the same quote."""
    return " ".join(quote.lower().split()).strip(" .,;:!?'\"-")


MEASURES = {
    "exact": lambda said: all_quotes_are(said.speech, ("exact",)),
    "valid": lambda said: all_quotes_are(said.speech, ("exact", "near")),
    "quotes": lambda said: len(said.speech.quotes),
    "words": lambda said: count_words(said.speech.text),
    "quoted": lambda said: quoted_words(said.speech),
    "concedes": lambda said: concedes(said.speech),
    "other_only": lambda said: names_other_only(said.speech, said.question),
}
"""What is measured of a speech, by field of `Behaviour`."""
