"""Debates laid out for reading: speeches cut at their quotes, the quoted spans of the passage, the verdict.

Everything here is plain text with labels; the template and the page's script escape it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.quotes import Quote, other_words
from debate_rl.game.transcript import JudgeQuestion, Origin, Speech, shown_question
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
from debate_rl.judges.judge import probability

Look = Literal["plain", "exact", "near", "invalid", "scratchpad"]

_SCRATCHPAD = re.compile(r"<scratchpad>.*?(?:</scratchpad>|\Z)", re.DOTALL)


class Piece(NamedTuple):
    """A stretch of text that is shown in one way.

    Example:
        Piece(text="the pipe was moved to the shed", look="exact", numbers=(2,), note="")
    """

    text: str
    look: Look = "plain"
    numbers: tuple[int, ...] = ()
    """Quotes that end here, numbered through the transcript."""
    note: str = ""


class Numbered(NamedTuple):
    """A quote and its number in the transcript."""

    number: int
    quote: Quote


class ShownSpeech(NamedTuple):
    """One speech, ready to show."""

    side: Side
    player: str
    turn: int
    pieces: tuple[Piece, ...]
    origin: str


class ShownQuestion(NamedTuple):
    """What the judge asked the debaters between two rounds."""

    turn: int
    judge: str
    text: str
    """As the debaters read it; empty where it asked nothing."""
    origin: str


class Marked(NamedTuple):
    """A stretch of the passage that quotes match.

    Example:
        Marked(start=120, end=151, look="exact", numbers=(2,))
    """

    start: int
    end: int
    look: Look
    numbers: tuple[int, ...]
    """Quotes that end here, numbered through the transcript."""


class ShownAsk(NamedTuple):
    """One question to the judge: how it was asked, and the probability of each answer."""

    how: str
    p: tuple[float, float]
    logprobs: tuple[float, float]
    after_turn: int | None
    text: str | None
    """What the judge wrote, if it did."""


class Seat(NamedTuple):
    """A side: who argued for which answer, and the probability that the judge gave it."""

    side: Side
    player: str | None
    """None where nobody argued for it."""
    answer: str
    correct: bool | None
    p: float | None


class Exhibit(NamedTuple):
    """A debate, ready to show."""

    id: str
    stage: str
    leg: JudgedDebate
    seats: tuple[Seat, ...]
    speeches: tuple[ShownSpeech, ...]
    marked: tuple[Marked, ...]
    """Stretches of the passage, in order."""
    asks: tuple[ShownAsk, ...]
    asked: tuple[ShownQuestion, ...]
    """The judge's questions to the debaters, in order."""
    right: bool | None
    """Whether the verdict is right; None without a verdict, for unknown answers and for a probability of .5."""


def exhibit(stage: str, leg: JudgedDebate) -> Exhibit:
    """Lay out one leg, judged or failed."""
    game, verdict = leg.transcript, leg.verdict
    passage = game.question.passage or ""
    speeches, quotes = _speeches(game.speeches, passage)
    p_correct = leg.p_correct
    return Exhibit(
        id=game.id,
        stage=stage,
        leg=leg,
        seats=_seats(leg, verdict),
        speeches=speeches,
        marked=mark_passage(quotes, len(passage)),
        asks=tuple(_shown_ask(ask) for ask in verdict.asks) if verdict else (),
        asked=tuple(shown_asked(question) for question in game.asked),
        # A probability of exactly one half is no decision.
        right=None if p_correct is None or p_correct == 0.5 else p_correct > 0.5,
    )


def _seats(leg: JudgedDebate, verdict: Verdict | None) -> tuple[Seat, ...]:
    """Both sides, argued for or not: the judge gives each answer a probability."""
    question, players = leg.transcript.question, leg.transcript.players
    seats = []
    for index, side in enumerate(SIDES):
        seat = Seat(
            side=side,
            player=players.get(side),
            answer=question.answers[index],
            correct=None if question.correct is None else question.correct == index,
            p=None if verdict is None else verdict.p[index],
        )
        seats.append(seat)
    return tuple(seats)


def cut_speech(speech: Speech, first: int = 1, passage: str = "") -> tuple[tuple[Piece, ...], tuple[Numbered, ...]]:
    """Cut a speech at its quotes and scratchpads; the quotes are numbered from `first`.

    Quote tags are left out, their text keeps its place; everything else is as written.
    """
    pieces: list[Piece] = []
    numbered: list[Numbered] = []
    position = 0
    spans: list[tuple[int, int, Quote | None]] = [(quote.start, quote.end, quote) for quote in speech.quotes]
    spans += [(*match.span(), None) for match in _SCRATCHPAD.finditer(speech.text)]
    # Sorted by place only: quotes and None do not compare.
    for start, end, quote in sorted(spans, key=lambda span: span[:2]):
        # A quote inside a scratchpad is part of it: it was not said to anyone.
        if start < position:
            continue
        pieces.append(Piece(speech.text[position:start]))
        if quote is None:
            pieces.append(Piece(speech.text[start:end], "scratchpad"))
        else:
            number = first + len(numbered)
            numbered.append(Numbered(number, quote))
            pieces.append(Piece(quote.text, quote.verdict, (number,), _quote_note(quote, passage)))
        position = end
    pieces.append(Piece(speech.text[position:]))
    return tuple(piece for piece in pieces if piece.text), tuple(numbered)


def mark_passage(quotes: Sequence[Numbered], length: int) -> tuple[Marked, ...]:
    """The stretches of a passage of some length that quotes match; where exact and near overlap, exact shows."""
    spans = []
    for numbered in quotes:
        start, end = numbered.quote.passage_start, numbered.quote.passage_end
        if start is not None and end is not None:
            spans.append((start, min(end, length), numbered))
    edges = {start for start, _, _ in spans} | {end for _, end, _ in spans}
    marked = []
    for low, high in pairwise(sorted(edges)):
        # Between two neighbouring edges nothing begins or ends, so a span covers the piece whole or not at all.
        covering = [span for span in spans if span[0] <= low and high <= span[1]]
        if not covering:
            continue
        is_exact = any(numbered.quote.verdict == "exact" for _, _, numbered in covering)
        ending = tuple(numbered.number for _, end, numbered in covering if end == high)
        marked.append(Marked(low, high, "exact" if is_exact else "near", ending))
    return tuple(marked)


def _speeches(speeches: Iterable[Speech], passage: str) -> tuple[tuple[ShownSpeech, ...], list[Numbered]]:
    """All speeches, with their quotes numbered through."""
    shown: list[ShownSpeech] = []
    quotes: list[Numbered] = []
    for speech in speeches:
        pieces, numbered = cut_speech(speech, len(quotes) + 1, passage)
        quotes += numbered
        origin = _origin_line(speech.origin)
        shown.append(ShownSpeech(speech.side, speech.origin.player, speech.turn, pieces, origin))
    return tuple(shown), quotes


def shown_asked(question: JudgeQuestion) -> ShownQuestion:
    """One question of the judge, with how it was made."""
    origin = _origin_line(question.origin)
    return ShownQuestion(question.turn, question.origin.player, shown_question(question), origin)


def _quote_note(quote: Quote, passage: str) -> str:
    """The result of checking the quote; for a near one, the words that differ."""
    if quote.verdict == "exact":
        return "exact quote"
    if quote.verdict == "invalid":
        return "invalid quote, not in the passage"
    original = passage[quote.passage_start or 0 : quote.passage_end or 0]
    differing = [f"says {quoted!r} for {written!r}" for quoted, written in other_words(quote.text, original)]
    note = f"near quote, {quote.score:.0f} % similar"
    return f"{note}: {'; '.join(differing)}" if differing else note


def _origin_line(origin: Origin) -> str:
    """How a speech was made, in one line."""
    facts = [" + ".join(part for part in (origin.model, origin.adapter) if part)]
    if origin.revision is not None:
        facts.append(f"weights {origin.revision}")
    if origin.temperature is not None:
        facts.append(f"temperature {origin.temperature:g}")
    if origin.seed is not None:
        facts.append(f"seed {origin.seed}")
    if origin.best_of > 1:
        facts.append(f"best of {origin.best_of}")
    if origin.new_tokens:
        facts.append(f"{origin.new_tokens} tokens")
    if origin.finish != "stop":
        facts.append(f"ended by {origin.finish}")
    return ", ".join(fact for fact in facts if fact)


def _shown_ask(ask: Ask) -> ShownAsk:
    """One question to the judge in words. The verdict is the mean of the asks, calibrated if the judge is."""
    how = "no speech read"
    if len(ask.sides) == 1:
        how = f"{ask.sides[0]} read alone"
    elif ask.sides:
        how = f"{ask.sides[0]} read first"
    p = probability(ask.logprobs)
    return ShownAsk(
        f"{how}, answer {'AB'[ask.order[0]]} listed first", (p, 1 - p), ask.logprobs, ask.after_turn, ask.text
    )
