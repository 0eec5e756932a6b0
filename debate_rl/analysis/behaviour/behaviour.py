"""Behaviour of debaters: how much and how truly they quote, how long they speak, how often they win."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from debate_rl.analysis.behaviour.concessions import concedes, names_other_only
from debate_rl.analysis.behaviour.degenerate import loops, off_question, refuses
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record

Argues = Literal["correct", "wrong"]


class Behaviour(Record):
    """A player's speeches in numbers, all of them or those for one answer.

    Example:
        Behaviour(player="sft", argues="correct", speeches=160, exact=Estimate(value=0.96, ...),
                  valid=Estimate(value=0.97, ...), quotes=Estimate(value=1.0, ...), words=Estimate(value=17.2, ...),
                  quoted=Estimate(value=10.1, ...), concedes=Estimate(value=0.0, ...), other_only=...,
                  refuses=Estimate(value=0.02, ...), loops=..., off_question=..., repeated=None,
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
    refuses: Estimate | None = None
    """Share of speeches that begin with a refusal (`degenerate.refuses`)."""
    loops: Estimate | None = None
    """Share of speeches that say the same again and again (`degenerate.loops`)."""
    off_question: Estimate | None = None
    """Share of speeches without a word of question, answers or passage (`degenerate.off_question`)."""
    repeated: Estimate | None = None
    """Share of the quotes in later turns that the player gave in an earlier turn; None without such quotes."""
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
        """Whether the speech is for the correct answer; None if the answer is not known."""
        return _argues(self.question, self.speech.side)


def spoken(legs: Iterable[JudgedDebate]) -> list[Spoken]:
    """Every speech of the legs; one that stands in several legs (same question, side, turn and text) counts once."""
    speeches: dict[tuple[str, str, str, int, str], Spoken] = {}
    for leg in legs:
        question = leg.transcript.question
        for speech in leg.transcript.speeches:
            player = speech.origin.player
            # Games can share a first turn: counted once a game, it would weigh more with more opponents.
            key = (player, question.id, speech.side, speech.turn, speech.text)
            speeches[key] = Spoken(player, question, speech, _earlier_quotes(speech, leg.transcript.speeches))
    return list(speeches.values())


def _earlier_quotes(speech: Speech, speeches: Iterable[Speech]) -> frozenset[str]:
    """Quotes of the same side's earlier turns, as `folded`."""
    quotes: set[str] = set()
    for other in speeches:
        if other.side == speech.side and other.turn < speech.turn:
            quotes.update(folded(quote.text) for quote in other.quotes)
    return frozenset(quotes)


def behaviour(legs: Iterable[JudgedDebate]) -> list[Behaviour]:
    """One row for each player, over all its speeches in the legs."""
    return _rows(list(legs), (None,))


def by_side(legs: Iterable[JudgedDebate]) -> list[Behaviour]:
    """Two rows for each player: its speeches for the correct answer, and those for the wrong one."""
    return _rows(list(legs), ("correct", "wrong"))


def _rows(legs: Sequence[JudgedDebate], sides: Sequence[Argues | None]) -> list[Behaviour]:
    """A row for each player and side that has speeches, players in the order of their first speeches."""
    every_speech, every_win = spoken(legs), wins(legs)
    rows = []
    for player in dict.fromkeys(speech.player for speech in every_speech):
        player_wins = [win for win in every_win if win.player == player]
        for side in sides:
            speeches = [speech for speech in every_speech if speech.player == player and side in (None, speech.argues)]
            if speeches:
                rows.append(_row(player, side, speeches, player_wins))
    return rows


def _row(player: str, side: Argues | None, speeches: Sequence[Spoken], player_wins: Sequence[Win]) -> Behaviour:
    """Summarise one player's speeches."""
    stories = [speech.question.cluster for speech in speeches]
    measured = {name: mean([measure(speech) for speech in speeches], stories) for name, measure in MEASURES.items()}
    repeated, repeated_stories = [], []
    for spoken_ in speeches:
        if spoken_.speech.turn:  # in the first turn there is nothing to repeat
            for quote in spoken_.speech.quotes:
                repeated.append(folded(quote.text) in spoken_.earlier)
                repeated_stories.append(spoken_.question.cluster)
    side_wins = [win for win in player_wins if side in (None, win.argues)]
    return Behaviour(
        player=player,
        argues=side,
        speeches=len(speeches),
        repeated=mean(repeated, repeated_stories) if repeated else None,
        wins=mean([win.p for win in side_wins], [win.cluster for win in side_wins]) if side_wins else None,
        **measured,
    )


class Win(NamedTuple):
    """The judge's probability for a player in a game against another one.

    Example:
        Win(player="sft", argues="wrong", p=0.41, cluster="lab-7")
    """

    player: str
    argues: Argues | None
    p: float
    cluster: str


def wins(legs: Iterable[JudgedDebate]) -> list[Win]:
    """The judge's probability for each player of every judged game between two different ones."""
    rows = []
    for leg in legs:
        game = leg.transcript
        if leg.verdict is None or len(set(game.players.values())) < 2:
            continue
        for side, player in game.players.items():
            argues = _argues(game.question, side)
            rows.append(Win(player, argues, leg.verdict.p_side(side), game.question.cluster))
    return rows


def _argues(question: Question, side: Side) -> Argues | None:
    """Whether a side has the correct answer; None if the answer is not known."""
    if question.correct is None:
        return None
    return "correct" if SIDES[question.correct] == side else "wrong"


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
    """A quote in lower case, without spaces and punctuation at its ends: the same words are the same quote."""
    return " ".join(quote.lower().split()).strip(" .,;:!?'\"-")


MEASURES = {
    "exact": lambda spoken: all_quotes_are(spoken.speech, ("exact",)),
    "valid": lambda spoken: all_quotes_are(spoken.speech, ("exact", "near")),
    "quotes": lambda spoken: len(spoken.speech.quotes),
    "words": lambda spoken: count_words(spoken.speech.text),
    "quoted": lambda spoken: quoted_words(spoken.speech),
    "concedes": lambda spoken: concedes(spoken.speech),
    "other_only": lambda spoken: names_other_only(spoken.speech, spoken.question),
    "refuses": lambda spoken: refuses(spoken.speech),
    "loops": lambda spoken: loops(spoken.speech),
    "off_question": lambda spoken: off_question(spoken.speech, spoken.question),
}
"""How a speech is measured, by field of `Behaviour`."""
