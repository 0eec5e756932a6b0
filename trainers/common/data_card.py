"""Data cards: what a training set is made of, so that two years later a reader knows what was learnt from what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from debate_rl.data.sources.provenance import Source
from debate_rl.records import Record, write_text
from debate_rl.trainers.common.rows import JudgeRow, PreferenceRow, SftRow

CARD = "data_card.md"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Heads, and the cells of each row."""


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
    """Of these, the rows of the training set."""
    left_out: dict[str, int] = {}
    """Games, speeches or entries that gave no rows, by reason."""
    notes: dict[str, int] = {}
    """Games or rows that are in but not as they were, by what is different."""


class DataFacts(Record):
    """What rows do not say of themselves."""

    gathered: tuple[Gathered, ...] = ()
    quotes: dict[str, int] = {}
    """Quotes of the speeches to be learnt, by verdict: exact, near, invalid."""
    checks: dict[str, str] = {}
    """What was checked, and what was found."""


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
        counts: what the training job found of it: `tokens.json` of its folder (`trainers.build.prepare`); `seen` is
            added where it is known: its steps x the rows of a step.
        facts: sources, quotes and checks.

    Example:
        >>> print(data_card("sft of quickstart", rows, counts, facts))
        # Data of sft of quickstart
        ...
        | nyu-human | CC BY 4.0 | 400 | 2,300 | 564 | 22 % | Michael, Mahdi, ... |
    """
    sections: list[tuple[str, Table]] = [
        ("Rows", _rows(rows, counts)),
        ("Sources", _sources(facts.gathered)),
        ("Left out or changed", _left_out(facts.gathered, counts)),
        ("Speakers", _shares("speaker", (row.source for row in rows if isinstance(row, SftRow)))),
        (
            "Sides",
            _shares("side", (getattr(row, "side", None) or "-" for row in rows if not isinstance(row, JudgeRow))),
        ),
        ("Turns", _shares("turn", (_turn(row) for row in rows if not isinstance(row, JudgeRow)))),
        ("Splits of the questions", _shares("split", (row.split or "-" for row in rows if isinstance(row, SftRow)))),
        ("Tokens", _tokens(counts["tokens"])),
        ("Quotes in the speeches", _counted("verdict", facts.quotes)),
        ("Judge's probabilities", _gaps([row for row in rows if isinstance(row, PreferenceRow)])),
        ("Labels", _labels([row for row in rows if isinstance(row, JudgeRow)])),
        ("Checks", (("check", "result"), list(facts.checks.items()))),
    ]
    parts = [f"# Data of {_cell(title)}", "Made by debate-rl; the rows are in `rows.jsonl`."]
    parts += [f"## {name}\n\n{_table(*table)}" for name, table in sections if table[1]]
    return "\n\n".join(parts) + "\n"


def _rows(rows: Sequence[Any], counts: Mapping[str, Any]) -> Table:
    """Counts of rows, questions and stories."""
    over = counts["over_long"]
    found = [
        ("rows", len(rows)),
        ("rows ready to train on", counts["trained"]),
        *([("rows seen, at most", counts["seen"])] if "seen" in counts else []),
        ("rows longer than max_length", over["rows"]),
        ("share longer", f"{over['rows'] / len(rows):.1%}"),
        ("questions", len({getattr(row, "question", None) or getattr(row, "id", "") for row in rows} - {""})),
        ("stories", len({row.group for row in rows} - {""})),
    ]
    if over["rows"]:
        found.append(("their tokens", f"{over['shortest']:,} to {over['longest']:,}"))
    return ("what", "value"), [(name, _text(value)) for name, value in found]


def _sources(gathered: Sequence[Gathered]) -> Table:
    """One row a source."""
    whole = sum(one.used for one in gathered)
    heads = ("source", "licence", "games", "rows built", "rows used", "share", "by")
    cells = [
        (one.source.name, one.source.licence, "-" if one.games is None else _text(one.games), _text(one.built),
         _text(one.used), f"{one.used / whole:.0%}" if whole else "-", f"{one.source.by} {one.source.url}".strip())
        for one in gathered
    ]  # fmt: skip
    return heads, cells


def _left_out(gathered: Sequence[Gathered], counts: Mapping[str, Any]) -> Table:
    """What is not in the training set, or not as it was."""
    cells = [
        (one.source.name, f"{kind}: {reason}", _text(count))
        for one in gathered
        for kind, reasons in (("left out", one.left_out), ("kept", one.notes))
        for reason, count in reasons.items()
    ]
    cells += [("rows", f"left out: {reason}", _text(count)) for reason, count in counts["left_out"].items()]
    return ("where", "what", "how many"), cells


def _turn(row: Any) -> str:
    """A row's turn, counted from 1."""
    return "-" if getattr(row, "turn", None) is None else str(row.turn + 1)


def _shares(name: str, values: Iterable[str]) -> Table:
    """How many rows have which value."""
    return _counted(name, dict(sorted(Counter(values).items(), key=lambda item: (len(item[0]), item[0]))), "rows")


def _counted(name: str, counts: Mapping[str, int], unit: str = "count") -> Table:
    """Counts with their shares."""
    whole = sum(counts.values())
    cells = [(value or "-", _text(count), f"{count / whole:.1%}") for value, count in counts.items()] if whole else []
    return (name, unit, "share"), cells


def _tokens(tokens: Mapping[str, Mapping[str, int]]) -> Table:
    """Lengths of each part of the rows."""
    heads = next(iter(tokens.values()), {})
    return ("part", *heads), [(part, *map(_text, sizes.values())) for part, sizes in tokens.items()]


def _gaps(rows: Sequence[PreferenceRow]) -> Table:
    """Quantiles of what the judge gave chosen and rejected speeches, and of the difference."""
    if not rows:
        return (), []
    chosen, rejected = ([getattr(row, name) for row in rows] for name in ("p_chosen", "p_rejected"))
    gaps = np.subtract(chosen, rejected)
    cells = [
        (name, *(f"{value:.3f}" for value in (np.mean(values), *np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))))
        for name, values in (("chosen", chosen), ("rejected", rejected), ("gap", gaps))
    ]
    return ("speech", "mean", "min", "5 %", "median", "95 %", "max"), cells


def _labels(rows: Sequence[JudgeRow]) -> Table:
    """Which answer is wanted, by whose place in the prompt it stands."""
    if not rows:
        return (), []
    soft = sum(0 < row.target < 1 for row in rows)
    first = [row.target if row.candidates[0] <= row.candidates[1] else 1 - row.target for row in rows]
    return ("label", "value"), [
        ("answer 0 is right (mean)", f"{np.mean([row.target for row in rows]):.3f}"),
        ("the candidate that is first in the alphabet is right (mean)", f"{np.mean(first):.3f}"),
        ("labels between 0 and 1", f"{soft / len(rows):.1%}"),
    ]


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join(lines + [f"| {' | '.join(map(_cell, row))} |" for row in cells])


def _text(value: str | int) -> str:
    """Numbers with marks for thousands."""
    return f"{value:,}" if isinstance(value, int) else value


def _cell(text: str) -> str:
    """Text in one cell: no line ends, no column marks, no tags."""
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")
