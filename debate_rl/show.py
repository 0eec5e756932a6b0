"""One debate for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from debate_rl.game.transcript import Speech
from debate_rl.game.verdict import Leg

COLOURS = {"exact": "green", "near": "yellow", "invalid": "red"}


def _speech(speech: Speech) -> Text:
    """A speech with its quotes marked and coloured by what checking them found."""
    text, position = Text(), 0
    for quote in speech.quotes:
        text.append(speech.text[position : quote.start])
        text.append(f"{speech.text[quote.start : quote.end]} [{quote.verdict}]", style=COLOURS[quote.verdict])
        position = quote.end
    text.append(speech.text[position:])
    return text


def show_leg(leg: Leg, console: Console | None = None) -> None:
    """Print a leg: question, passage, speeches, verdict or failure."""
    console = console or Console(highlight=False)
    game = leg.transcript
    question = game.question
    if question.passage:
        console.rule("passage (the judge does not see it)" if not game.protocol.judge_reads_passage else "passage")
        passage = question.passage if len(question.passage) < 3000 else f"{question.passage[:3000]} ..."
        console.print(passage, markup=False)
    console.rule(f"{game.protocol.name}: {question.text}")
    for side, answer in zip("AB", question.answers, strict=True):
        player = game.players.get(side)  # type: ignore[call-overload]
        console.print(f"{side}: {answer}" + (f"  (argued by {player})" if player else ""), markup=False)
    for speech in game.speeches:
        console.rule(f"{speech.side}, turn {speech.turn + 1}", style="dim")
        console.print(_speech(speech))
    console.rule("verdict")
    if leg.failure is not None:
        console.print(f"failed at seat {leg.failure.seat}: {leg.failure.kind}: {leg.failure.message}", markup=False)
        return
    if leg.verdict is not None:
        chances = "  ".join(f"{a}: {p:.2f}" for a, p in zip(question.answers, leg.verdict.p, strict=True))
        console.print(f"{leg.verdict.judge}: {chances}", markup=False)
    if question.correct is not None:
        console.print(f"correct: {question.answers[question.correct]}", markup=False)
