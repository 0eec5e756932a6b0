"""Tables of weak-to-strong: methods by tasks or sizes of models, as in Lang, Huang and Li 2025, each with intervals.

A table has one column for each study (a task, or a pair of models) and one row for each model: the weak one, the strong
one as it is and trained on D1, the student of every method, the ceiling.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from debate_rl.intervals import Estimate
from debate_rl.records import Record
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.results import Results, Scores
from debate_rl.weak_to_strong.results.split_report import Account

Over = Literal["members", "turns", "errors"]
AXES: dict[Over, str] = {
    "members": "supervisors", "turns": "turns of the debate", "errors": "rate of errors in the labels"
}  # fmt: skip
"""Names of what a plot runs over."""
ENDS = {"weak": "weak", "untrained": "strong, untrained", "strong": "strong on D1", "ceiling": "ceiling"}
"""Rows that are no methods, by model."""
UNDEFINED = "undefined"


class Point(Record):
    """Place of a method in a plot over members, turns or errors.

    Example:
        Point(line="debate", x=4.0)
    """

    line: str
    x: float


class Column(Record):
    """One study of a table."""

    label: str
    """Task, family of stories, or pair of models."""
    weak: str
    strong: str
    results: Results
    points: dict[str, Point] = {}
    """By method; empty where the table runs over nothing."""
    account: Account | None = None
    """Of the study's data, where the stage took one."""


class Cost(Record):
    """What a table took: by its stages, which share what other tables had done, and by all trainings it rests on.

    Example:
        Cost(seconds=512.0, cpu_seconds=498.3, tokens=1204000, games=1440, trainings=31, shared=9,
             training_seconds=402.0)
    """

    seconds: float
    """Wall time of its stages, in the processes that finished them."""
    cpu_seconds: float | None = None
    tokens: int | None = None
    """Read and written by the models that were asked for speeches and verdicts."""
    games: int = 0
    """Debates and the like that supervisors read."""
    trainings: int = 0
    """All that it rests on, each once."""
    shared: int = 0
    """Those of them that another table had done before."""
    training_seconds: float = 0.0
    """Wall time of all of them."""


class Table(Record):
    """A table, in memory and in its JSON file."""

    name: str
    columns: tuple[Column, ...]
    over: Over | None = None
    """What its plot runs over."""
    cost: Cost | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of all columns, in their order."""
        return tuple(dict.fromkeys(method.name for column in self.columns for method in column.results.methods))

    @property
    def grid(self) -> bool:
        """Whether columns differ in their models: a grid over sizes."""
        return len({(column.weak, column.strong) for column in self.columns}) > 1


class Cell(Record):
    """A model in a column."""

    accuracy: Estimate
    pgr: Estimate | None = None
    """None of models that are no students, and where it is undefined."""
    pgr_text: str = ""
    """Why it is undefined, in a word or a line; empty of models that are no students."""


def rows(table: Table) -> dict[str, tuple[Cell | None, ...]]:
    """Cells by row, one for each column; None where a column lacks that model."""
    first, last = ("weak", "untrained", "strong"), ("ceiling",)
    found = {ENDS[end]: tuple(_end(column, end) for column in table.columns) for end in first}
    found |= {name: tuple(_student(column, name) for column in table.columns) for name in table.methods}
    found |= {ENDS[end]: tuple(_end(column, end) for column in table.columns) for end in last}
    return {name: cells for name, cells in found.items() if any(cells)}


def _end(column: Column, model: str) -> Cell | None:
    accuracy = getattr(column.results, model)
    return None if accuracy is None else Cell(accuracy=accuracy)


def _student(column: Column, name: str) -> Cell | None:
    for method in column.results.methods:
        if method.name == name:
            return Cell(accuracy=method.student, pgr=method.pgr.pgr, pgr_text=method.pgr_text)
    return None


def points(methods: Mapping[str, Method], contexts: Mapping[str, Context], over: Over) -> dict[str, Point]:
    """Where methods stand in a plot; those that differ in nothing but what it runs over are one line.

    A line has the name of its first method, without a number at its end.
    """
    lines: dict[str, str] = {}
    found = {}
    for name, method in methods.items():
        context = contexts.get(method.context, Context())
        what: dict[str, Any] = method.model_dump(mode="json")
        if over == "members":
            x: float | None = what.pop("members")
        elif over == "errors":
            x = what["labels"].pop("errors")
        else:
            help_ = context.model_dump(mode="json")
            what["context"], x = (method.context, None) if method.context == "none" else (help_, help_.pop("turns"))
        if x is not None:
            line = lines.setdefault(str(sorted(what.items())), re.sub(r"[-_.+]?\d+(\.\d+)?$", "", name) or name)
            found[name] = Point(line=line, x=float(x))
    return found


def markdown(table: Table) -> str:
    """The table as Markdown: accuracy in percent and PGR, each with its interval, and below it what to know."""
    several = len(table.columns) > 1
    heads = [
        f"{column.label}: {what}" if several else what for column in table.columns for what in ("accuracy, %", "PGR")
    ]
    lines = [f"## {table.name}", "", _line(["model", *heads]), _line(["---"] * (1 + len(heads)))]
    for name, cells in rows(table).items():
        lines.append(_line([name, *(text for cell in cells for text in _texts(cell))]))
    return "\n".join([*lines, "", *(f"- {line}" for line in footnotes(table)), ""])


def footnotes(table: Table) -> list[str]:
    """What the numbers rest on, why PGR is undefined where it is, and what the table cost."""
    lines = []
    for column in table.columns:
        found = column.results
        seeds = "1 seed, so intervals hold for this training run only" if found.seeds == 1 else f"{found.seeds} seeds"
        weak = found.weak
        lines.append(
            f"{column.label}: {column.weak} supervises {column.strong}; {weak.n} test items in {weak.clusters} "
            f"clusters, {seeds}"
        )
        notes = (*found.notes, *(column.account.notes if column.account else ()))
        lines += [f"{column.label}: {note}" for note in notes]
    return [*lines, *([cost_text(table.cost)] if table.cost else [])]


def cost_text(cost: Cost) -> str:
    """Cost in a line."""
    cpu = "" if cost.cpu_seconds is None else f", {cost.cpu_seconds:.0f} s of CPU"
    tokens = "" if cost.tokens is None else f", {cost.tokens:,} tokens read and written"
    return (
        f"cost: {cost.seconds:.0f} s{cpu}{tokens}, {cost.games:,} games; {cost.trainings} trainings "
        f"({cost.training_seconds:.0f} s), of which {cost.shared} were done for other tables before"
    )


def _texts(cell: Cell | None) -> tuple[str, str]:
    """Accuracy and PGR of a cell."""
    if cell is None:
        return "-", "-"
    accuracy = _scaled(cell.accuracy, 100, 1)
    if cell.pgr is None:
        return accuracy, UNDEFINED if cell.pgr_text else ""
    return accuracy, _scaled(cell.pgr, 1, 2)


def _scaled(one: Estimate, factor: float, digits: int) -> str:
    if one.low is None or one.high is None:
        return f"{one.value * factor:.{digits}f} [no interval]"
    return f"{one.value * factor:.{digits}f} [{one.low * factor:.{digits}f}, {one.high * factor:.{digits}f}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def csv_text(table: Table) -> str:
    """One line for each measure of each model in each column; an undefined value is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "column", "model", "measure", "value", "low", "high", "n", "clusters", "seeds"])
    for column in table.columns:
        for model, measure, one in measures(column.results):
            values = ["", "", "", "", ""] if one is None else [one.value, one.low, one.high, one.n, one.clusters]
            writer.writerow([table.name, column.label, model, measure, *values, column.results.seeds])
    return out.getvalue()


def measures(found: Results) -> list[tuple[str, str, Estimate | None]]:
    """Model, measure and estimate of all that a study measured; None where it is undefined."""
    lines: list[tuple[str, str, Estimate | None]] = []
    for model, scores in found.scores.items():
        lines += [(model, measure, getattr(scores, measure)) for measure in Scores.model_fields]
    for method in found.methods:
        lines += [
            (f"{method.name}/labels", "accuracy", method.labels),
            (f"{method.name}/student", "pgr", method.pgr.pgr),
        ]
        if method.agreement is not None:
            for when, share in (("right", method.agreement.right), ("wrong", method.agreement.wrong)):
                lines.append((f"{method.name}/student", f"agreement where the supervisor is {when}", share))
    return lines
