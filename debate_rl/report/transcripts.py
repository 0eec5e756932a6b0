"""Transcripts laid out for reading: speeches cut at their quotes, the passage cut at what they quote, the verdict.

Everything here is plain text with labels; the template escapes it. Joined, the pieces of a passage are the passage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.quotes import Quote, other_words
from debate_rl.game.transcript import Origin, Speech
from debate_rl.game.verdict import Ask, Leg, Verdict
from debate_rl.judges.judge import probability

Look = Literal["plain", "exact", "near", "invalid", "scratchpad"]

WHOLE = 900
"""Characters up to which a passage is shown whole."""
AROUND = 220
"""Characters shown on each side of a quoted span of a longer passage."""
_SCRATCHPAD = re.compile(r"<scratchpad>.*?(?:</scratchpad>|\Z)", re.DOTALL)


class Piece(NamedTuple):
    """Text with one look.

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


class Said(NamedTuple):
    """One speech, ready to show."""

    side: Side
    player: str
    turn: int
    pieces: tuple[Piece, ...]
    origin: str


class Excerpt(NamedTuple):
    """A stretch of the passage."""

    pieces: tuple[Piece, ...]
    cut_before: bool
    cut_after: bool


class Asked(NamedTuple):
    """One question to the judge, in words, with its probability of each answer."""

    how: str
    p: tuple[float, float]
    logprobs: tuple[float, float]


class Seat(NamedTuple):
    """A side: who argued for which answer, and what the judge made of it."""

    side: Side
    player: str | None
    """None where nobody argued for it."""
    answer: str
    correct: bool | None
    p: float


class Exhibit(NamedTuple):
    """A judged transcript, ready to show."""

    id: str
    stage: str
    leg: Leg
    seats: tuple[Seat, ...]
    speeches: tuple[Said, ...]
    excerpts: tuple[Excerpt, ...]
    passage: tuple[Piece, ...]
    """The whole passage; empty where the question has none or the excerpts show all of it."""
    passage_length: int
    asks: tuple[Asked, ...]
    between: tuple[tuple[int, float], ...]
    """(after turn, probability of answer A) where the judge was asked between turns."""
    right: bool | None
    """Whether the verdict is right; None for unknown answers and for a probability of .5."""


def exhibit(stage: str, leg: Leg) -> Exhibit:
    """Lay out one judged leg; it must have a verdict."""
    game, verdict = leg.transcript, leg.verdict
    assert verdict is not None, "legs.sample gives judged legs only"
    passage = game.question.passage or ""
    speeches, quotes = _speeches(game.speeches, passage)
    spans = [q for q in quotes if q.quote.passage_start is not None]
    whole = len(passage) <= WHOLE
    windows = [(0, len(passage))] if whole else _windows(passage, spans)
    p_correct = leg.p_correct
    return Exhibit(
        id=game.id,
        stage=stage,
        leg=leg,
        seats=_seats(leg, verdict),
        speeches=speeches,
        excerpts=tuple(
            Excerpt(cut_passage(passage, spans, start, end), start > 0, end < len(passage))
            for start, end in windows
            if end > start
        ),
        passage=() if whole else cut_passage(passage, spans, 0, len(passage)),
        passage_length=len(passage),
        asks=tuple(_asked(ask) for ask in verdict.asks if ask.after_turn is None),
        between=tuple((turn, p[0]) for turn, p in enumerate(verdict.after_turn, start=1)),
        right=None if p_correct is None or p_correct == 0.5 else p_correct > 0.5,
    )


def _seats(leg: Leg, verdict: Verdict) -> tuple[Seat, ...]:
    """Both sides, present or not: the judge gives each answer a probability."""
    question, players = leg.transcript.question, leg.transcript.players
    return tuple(
        Seat(
            side=side,
            player=players.get(side),
            answer=question.answers[index],
            correct=None if question.correct is None else question.correct == index,
            p=verdict.p[index],
        )
        for index, side in enumerate(SIDES)
    )


def cut_speech(speech: Speech, first: int = 1, passage: str = "") -> tuple[tuple[Piece, ...], tuple[Numbered, ...]]:
    """Cut a speech at its quotes and scratchpads; the quotes are numbered from `first`.

    Quote tags are left out, their text keeps its place; everything else is as written.
    """
    pieces, numbered = [], list[Numbered]()
    position = 0
    spans: list[tuple[int, int, Quote | None]] = [(q.start, q.end, q) for q in speech.quotes]
    spans += [(*match.span(), None) for match in _SCRATCHPAD.finditer(speech.text)]
    for start, end, quote in sorted(spans, key=lambda span: span[:2]):
        if start < position:
            continue
        pieces.append(Piece(speech.text[position:start]))
        if quote is None:
            pieces.append(Piece(speech.text[start:end], "scratchpad"))
        else:
            number = first + len(numbered)
            numbered.append(Numbered(number, quote))
            pieces.append(Piece(quote.text, quote.verdict, (number,), _found(quote, passage)))
        position = end
    pieces.append(Piece(speech.text[position:]))
    return tuple(piece for piece in pieces if piece.text), tuple(numbered)


def cut_passage(passage: str, quotes: Sequence[Numbered], start: int, end: int) -> tuple[Piece, ...]:
    """Cut passage[start:end] at the spans that quotes match; where exact and near overlap, exact shows."""
    spans = [(q.quote.passage_start or 0, q.quote.passage_end or 0, q) for q in quotes]
    edges = {edge for a, b, _ in spans for edge in (a, b) if start < edge < end}
    cuts = [start, *sorted(edges), end]
    pieces = []
    for low, high in pairwise(cuts):
        covering = [q for a, b, q in spans if a <= low and high <= b]
        look: Look = "plain"
        if covering:
            look = "exact" if any(q.quote.verdict == "exact" for q in covering) else "near"
        ended = tuple(q.number for _, b, q in spans if b == high and q in covering)
        pieces.append(Piece(passage[low:high], look, ended))
    return tuple(piece for piece in pieces if piece.text)


def _speeches(speeches: Iterable[Speech], passage: str) -> tuple[tuple[Said, ...], list[Numbered]]:
    """All speeches, with their quotes numbered through."""
    said, quotes = [], list[Numbered]()
    for speech in speeches:
        pieces, found = cut_speech(speech, len(quotes) + 1, passage)
        quotes += found
        said.append(Said(speech.side, speech.origin.player, speech.turn, pieces, _made(speech.origin)))
    return tuple(said), quotes


def _windows(passage: str, quotes: Sequence[Numbered]) -> list[tuple[int, int]]:
    """Stretches round the quoted spans, widened to whole words; those that touch are one."""
    spans = sorted((q.quote.passage_start or 0, q.quote.passage_end or 0) for q in quotes)
    windows: list[tuple[int, int]] = []
    for start, end in spans:
        low, high = _to_space(passage, start - AROUND, -1), _to_space(passage, end + AROUND, 1)
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(high, windows[-1][1]))
        else:
            windows.append((low, high))
    return windows


def _to_space(passage: str, place: int, step: Literal[-1, 1]) -> int:
    """The nearest space from here outwards, at most 40 characters away."""
    place = max(0, min(len(passage), place))
    for _ in range(40):
        if place in (0, len(passage)) or passage[place - (step < 0)].isspace():
            break
        place += step
    return place


def _found(quote: Quote, passage: str) -> str:
    """What checking the quote found; of a near one the words that differ."""
    if quote.verdict == "exact":
        return "exact quote"
    if quote.verdict == "near":
        there = passage[quote.passage_start or 0 : quote.passage_end or 0]
        differing = "; ".join(f"says {said!r} for {stands!r}" for said, stands in other_words(quote.text, there))
        return f"near quote, {quote.score:.0f} % similar" + (f": {differing}" if differing else "")
    return "invalid quote, not in the passage"


def _made(origin: Origin) -> str:
    """How a speech was made, in one line."""
    model = " + ".join(part for part in (origin.model, origin.adapter) if part)
    facts = [
        model,
        "" if origin.revision is None else f"weights {origin.revision}",
        "" if origin.temperature is None else f"temperature {origin.temperature:g}",
        "" if origin.seed is None else f"seed {origin.seed}",
        f"best of {origin.best_of}" if origin.best_of > 1 else "",
        f"{origin.new_tokens} tokens" if origin.new_tokens else "",
        "" if origin.finish == "stop" else f"ended by {origin.finish}",
    ]
    return ", ".join(fact for fact in facts if fact)


def _asked(ask: Ask) -> Asked:
    """One question to the judge in words. The verdict is the mean of the asks, calibrated if the judge is."""
    who = "no speech read"
    if len(ask.sides) == 1:
        who = f"{ask.sides[0]} read alone"
    elif ask.sides:
        who = f"{ask.sides[0]} read first"
    p = probability(ask.logprobs)
    return Asked(f"{who}, answer {'AB'[ask.order[0]]} listed first", (p, 1 - p), ask.logprobs)
