"""Debates as rows of a table, each with a page of its own on which quotes are marked by their validity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest
from typing import Any

from jinja2 import Template

from debate_rl.game.transcript import with_questions
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import digest
from debate_rl.report.page import environment
from debate_rl.report.transcripts import cut_speech, shown_asked
from debate_rl.report.wording import printable

COLUMNS = (
    "question",
    "protocol",
    "player A",
    "player B",
    "speeches",
    "correct",
    "p(A)",
    "right",
    "exact quotes",
    "near quotes",
    "invalid quotes",
    "failure",
    "debate",
)
PAGE = "debate"
"""The column that holds HTML."""


def debate_rows(legs: Iterable[JudgedDebate], count: int) -> list[list[Any]]:
    """Rows of a sample of debates, in the order of `COLUMNS`.

    Args:
        legs: a stage's debates.
        count: at most so many, drawn by the hash of their ids: what was said or decided plays no part.
    """
    # One at a time: debates on long stories are larger than memory should hold.
    drawn = nsmallest(count, legs, key=lambda leg: digest(leg.transcript.id))
    template = environment().get_template("debate.j2")
    return [_row(leg, template) for leg in drawn]


def _row(leg: JudgedDebate, template: Template) -> list[Any]:
    """One debate."""
    game, p_correct = leg.transcript, leg.p_correct
    pieces = [cut_speech(speech, passage=game.question.passage or "")[0] for speech in game.speeches]
    questions = [list(map(shown_asked, behind)) for _, behind in with_questions(game.speeches, game.asked)]
    counts: Counter[str] = Counter()
    for speech_pieces in pieces:
        counts.update(piece.look for piece in speech_pieces)
    # The template escapes every text.
    html = template.render(
        question=game.question,
        verdict=leg.verdict,
        failure=leg.failure,
        speeches=list(zip(game.speeches, pieces, questions, strict=True)),
        counts=counts,
    )
    return [
        game.question.text,
        game.protocol.name,
        game.players.get("A", "-"),
        game.players.get("B", "-"),
        "\n\n".join(f"{speech.side}: {speech.text}" for speech in game.speeches),
        None if game.question.correct is None else "AB"[game.question.correct],
        None if leg.verdict is None else leg.verdict.p[0],
        # A probability of exactly one half is no decision.
        None if p_correct is None or p_correct == 0.5 else p_correct > 0.5,
        counts["exact"],
        counts["near"],
        counts["invalid"],
        None if leg.failure is None else leg.failure.message,
        printable(html),
    ]
