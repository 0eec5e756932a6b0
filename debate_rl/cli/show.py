"""For the terminal: one debate, and the table of effects."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.game.transcript import Speech, shown_question, with_questions
from debate_rl.game.verdict import JudgedDebate

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


def show_leg(leg: JudgedDebate, console: Console | None = None) -> None:
    """Print a leg: question, passage, speeches, verdict or failure."""
    console = console or Console(highlight=False, markup=False, emoji=False)
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
    for speech, questions in with_questions(game.speeches, game.asked):
        console.rule(f"{speech.side}, turn {speech.turn + 1}", style="dim")
        console.print(_speech(speech))
        for asked in questions:
            console.rule(f"{asked.origin.player} asks", style="dim")
            console.print(shown_question(asked) or "(nothing)", markup=False)
    console.rule("verdict")
    if leg.failure is not None:
        console.print(f"failed at seat {leg.failure.seat}: {leg.failure.kind}: {leg.failure.message}", markup=False)
        return
    if leg.verdict is not None:
        chances = "  ".join(f"{a}: {p:.2f}" for a, p in zip(question.answers, leg.verdict.p, strict=True))
        console.print(f"{leg.verdict.judge}: {chances}", markup=False)
    if question.correct is not None:
        console.print(f"correct: {question.answers[question.correct]}", markup=False)


def show_effects(rows: Sequence[EffectRow], seeds: Sequence[int], console: Console | None = None) -> None:
    """Print the table of effects: value with interval, each seed's own value, and whether the claim is shown.

    Args:
        rows: the table.
        seeds: of the study; their values are printed where there are two or more.
        console: where to print.
    """
    if not rows:
        return
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)  # a file has no edge to break lines at
    several = seeds if len(seeds) > 1 else ()
    table = Table("effect", box=box.SIMPLE, pad_edge=False)
    table.add_column("value [95 % interval]", no_wrap=True)
    table.add_column("unit")
    for seed in several:
        table.add_column(f"seed {seed}", justify="right")
    table.add_column("shown")
    for at, row in enumerate(rows):
        if at == 0 or rows[at - 1].group != row.group:
            table.add_section()
            table.add_row(row.group, style="bold")
        name = f"{row.name} ({row.note})" if row.note else row.name
        table.add_row(*map(Text, (name, row.text, row.unit, *(row.by_seed if several else ()), row.shown)))
    console.print(table)
