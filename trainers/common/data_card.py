"""Data cards: what a training set is made of, for a reader who comes two years later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from debate_rl.data.sources.provenance import Source
from debate_rl.game.transcript import Transcript
from debate_rl.records import Record, write_text
from debate_rl.trainers.common.rows import JudgeRow, PreferenceRow, SftRow

CARD = "data_card.md"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Column names, and the cells of each row."""


class Gathered(Record):
    """What became of one source.

    Example:
        Gathered(source=Source(name="nyu-human", ...), games=400, built=2300, used=564, left_out={"nobody spoke": 2},
                 notes={"game was not finished": 26})
    """

    source: Source
    games: int | None = None
    """Games that were read; None where the source has none."""
    built: int
    """Rows that could be learnt from."""
    used: int
    """Rows of the training set, out of those built."""
    left_out: dict[str, int] = {}
    """Games, speeches or entries that gave no rows, by reason."""
    notes: dict[str, int] = {}
    """Games or rows that are in but were changed, by the change."""


class DataFacts(Record):
    """What a card says beyond its rows."""

    gathered: tuple[Gathered, ...] = ()
    quotes: dict[str, int] = {}
    """Quotes in the speeches to be learnt, by verdict: exact, near, invalid."""
    checks: dict[str, str] = {}
    """Names of checks, and their results."""


def write_data_card(
    folder: Path, title: str, rows: Sequence[BaseModel], counts: Mapping[str, Any], facts: DataFacts
) -> None:
    """Write `data_card.md` into a stage's folder (see `data_card`).

    Raises:
        UserError: the file can not be written.
    """
    write_text(Path(folder) / CARD, data_card(title, rows, counts, facts))


def data_card(title: str, rows: Sequence[BaseModel], counts: Mapping[str, Any], facts: DataFacts) -> str:
    """The card as Markdown.

    Args:
        title: one line.
        rows: the training set: SftRow, PreferenceRow or JudgeRow.
        counts: the training job's `tokens.json` (see `debate_rl.trainers.common.build_trainer.prepare`), with `seen`
            added where it is known: its steps x the rows of a step.
        facts: sources, quotes and checks.

    Example:
        >>> print(data_card("sft of quickstart", rows, counts, facts))
        # Data of sft of quickstart
        ...
        | nyu-human | CC BY 4.0 | 400 | 2,300 | 564 | 22 % | Michael, Mahdi, ... |
    """
    # A judge that learns online reads finished games, which the card counts by their questions.
    rows = [row.question if isinstance(row, Transcript) else row for row in rows]
    speeches = [row for row in rows if isinstance(row, SftRow)]
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    verdicts = [row for row in rows if isinstance(row, JudgeRow)]
    spoken = [row for row in rows if not isinstance(row, JudgeRow)]
    # Every section is made for every kind of rows; those that come out empty are not printed.
    sections: list[tuple[str, Table]] = [
        ("Rows", _rows(rows, counts)),
        ("Sources", _sources(facts.gathered)),
        ("Left out or changed", _left_out(facts.gathered, counts)),
        ("Speakers", _shares("speaker", [row.source for row in speeches])),
        ("Sides", _shares("side", [getattr(row, "side", None) or "-" for row in spoken])),
        ("Turns", _shares("turn", [_turn(row) for row in spoken])),
        ("Splits of the questions", _shares("split", [row.split or "-" for row in speeches])),
        ("Tokens", _tokens(counts["tokens"])),
        ("Quotes in the speeches", _counted("verdict", facts.quotes)),
        ("Judge's probabilities", _gaps(pairs)),
        ("Labels", _labels(verdicts)),
        ("Checks", (("check", "result"), list(facts.checks.items()))),
    ]
    parts = [f"# Data of {_cell(title)}", "Made by debate-rl; the rows are in `rows.jsonl`."]
    parts += [f"## {name}\n\n{_table(*table)}" for name, table in sections if table[1]]
    return "\n\n".join(parts) + "\n"


def _rows(rows: Sequence[Any], counts: Mapping[str, Any]) -> Table:
    """Counts of rows, questions and stories."""
    over = counts["over_long"]
    # Reward rows have an id of their own in place of a question.
    questions = {getattr(row, "question", None) or getattr(row, "id", "") for row in rows}
    stories = {row.group for row in rows}
    lines = [("rows", len(rows)), ("rows ready to train on", counts["trained"])]
    if "seen" in counts:
        lines.append(("rows seen, at most", counts["seen"]))
    lines += [
        ("rows longer than max_length", over["rows"]),
        ("share longer", f"{over['rows'] / len(rows):.1%}"),
        ("questions", len(questions - {""})),
        ("stories", len(stories - {""})),
    ]
    if over["rows"]:
        lines.append(("their tokens", f"{over['shortest']:,} to {over['longest']:,}"))
    return ("what", "value"), [(name, _text(value)) for name, value in lines]


def _sources(gathered: Sequence[Gathered]) -> Table:
    """One line for each source."""
    whole = sum(part.used for part in gathered)
    lines = []
    for part in gathered:
        source = part.source
        line = (
            source.name,
            source.licence,
            "-" if part.games is None else _text(part.games),
            _text(part.built),
            _text(part.used),
            f"{part.used / whole:.0%}" if whole else "-",
            f"{source.by} {source.url}".strip(),
        )
        lines.append(line)
    return ("source", "licence", "games", "rows built", "rows used", "share", "by"), lines


def _left_out(gathered: Sequence[Gathered], counts: Mapping[str, Any]) -> Table:
    """What is not in the training set, or was changed."""
    lines = []
    for part in gathered:
        name = part.source.name
        lines += [(name, f"left out: {reason}", _text(count)) for reason, count in part.left_out.items()]
        lines += [(name, f"kept: {reason}", _text(count)) for reason, count in part.notes.items()]
    lines += [("rows", f"left out: {reason}", _text(count)) for reason, count in counts["left_out"].items()]
    return ("where", "what", "how many"), lines


def _turn(row: Any) -> str:
    """A row's turn, counted from 1."""
    turn = getattr(row, "turn", None)
    return "-" if turn is None else str(turn + 1)


def _shares(name: str, values: Iterable[str]) -> Table:
    """How many rows have which value."""
    # Shorter values first, so that turn 10 comes after turn 9.
    counts = sorted(Counter(values).items(), key=lambda item: (len(item[0]), item[0]))
    return _counted(name, dict(counts), "rows")


def _counted(name: str, counts: Mapping[str, int], unit: str = "count") -> Table:
    """Counts with their shares; empty where all are zero."""
    whole = sum(counts.values())
    lines = []
    if whole:
        lines = [(value or "-", _text(count), f"{count / whole:.1%}") for value, count in counts.items()]
    return (name, unit, "share"), lines


def _tokens(tokens: Mapping[str, Mapping[str, int]]) -> Table:
    """Lengths of each part of the rows."""
    names = next(iter(tokens.values()), {})
    return ("part", *names), [(part, *map(_text, sizes.values())) for part, sizes in tokens.items()]


def _gaps(rows: Sequence[PreferenceRow]) -> Table:
    """Quantiles of the judge's probabilities of chosen and rejected speeches, and of their difference."""
    if not rows:
        return (), []
    chosen = [row.p_chosen for row in rows]
    rejected = [row.p_rejected for row in rows]
    lines = [
        ("chosen", *_quantiles(chosen)),
        ("rejected", *_quantiles(rejected)),
        ("gap", *_quantiles(np.subtract(chosen, rejected))),
    ]
    return ("speech", "mean", "min", "5 %", "median", "95 %", "max"), lines


def _quantiles(values: Sequence[float] | np.ndarray) -> list[str]:
    """Mean, smallest, quantiles and largest, as text."""
    numbers = [np.mean(values), *np.quantile(values, [0, 0.05, 0.5, 0.95, 1])]
    return [f"{number:.3f}" for number in numbers]


def _labels(rows: Sequence[JudgeRow]) -> Table:
    """How often each answer is the target: a judge can learn such a bias instead of the games."""
    if not rows:
        return (), []
    soft = sum(0 < row.target < 1 for row in rows)
    # Where the candidates are A and B the alphabet is the order of presentation: far from 0.5, a position is learnt.
    targets = [row.target for row in rows]
    first_in_alphabet = [row.target if row.candidates[0] <= row.candidates[1] else 1 - row.target for row in rows]
    return ("label", "value"), [
        ("answer 0 is right (mean)", f"{np.mean(targets):.3f}"),
        ("the candidate that is first in the alphabet is right (mean)", f"{np.mean(first_in_alphabet):.3f}"),
        ("labels between 0 and 1", f"{soft / len(rows):.1%}"),
    ]


def _table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in cells]
    return "\n".join(lines)


def _text(value: str | int) -> str:
    """A value as text, numbers with marks for thousands."""
    return f"{value:,}" if isinstance(value, int) else value


def _cell(text: str) -> str:
    """Text in one cell: no line ends, no column marks, no tags."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
