"""Tables of weak-to-strong: methods by tasks or sizes of models, as in Lang, Huang and Li 2025, each with intervals.

A table has one column for each study (a task, or a pair of models) and one row for each model: the weak model, the
strong model untrained and trained on D1, the student of every method, and the ceiling.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from debate_rl.intervals import Estimate, in_clusters
from debate_rl.records import Record
from debate_rl.weak_to_strong.contexts import Context
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.results.gap_grid import Compute, alarms, by_gap
from debate_rl.weak_to_strong.results.results import Results, Scores
from debate_rl.weak_to_strong.results.split_report import Account

Over = Literal["members", "turns", "errors", "worsened"]
AXES: dict[Over, str] = {
    "members": "supervisors",
    "turns": "turns of the debate",
    "errors": "rate of errors in the labels",
    "worsened": "share of exchanged speeches",
}
"""Axis label of a plot over each variable."""
ENDS = {"weak": "weak", "untrained": "strong, untrained", "strong": "strong on D1", "ceiling": "ceiling"}
"""Names of the rows that are not methods, by model."""
UNDEFINED = "undefined"


class Point(Record):
    """Position of a method in a plot.

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
    """Position in the plot by method; empty where the table has no plot."""
    account: Account | None = None
    """Account of the study's data, where the stage wrote one."""
    compute: Compute | None = Field(default=None, exclude_if=lambda compute: compute is None)
    """Compute of weak model and ceiling, in grids over sizes; None where their sizes are not known."""


class Cost(Record):
    """Cost of a table: that of its stages, which reuse the work of other tables, and that of all trainings it needs.

    Example:
        Cost(seconds=512.0, cpu_seconds=498.3, tokens=1204000, games=1440, trainings=31, shared=9,
             training_seconds=402.0)
    """

    seconds: float
    """Wall time of its stages, in the processes that finished them, in seconds."""
    cpu_seconds: float | None = None
    tokens: int | None = None
    """Tokens read and written by the models that gave speeches and verdicts."""
    games: int = 0
    """Games that supervisors read."""
    trainings: int = 0
    """Trainings that the table needs, each counted once."""
    shared: int = 0
    """Trainings among them that another table had done before."""
    training_seconds: float = 0.0
    """Wall time of all its trainings, in seconds."""


class Table(Record):
    """A table, in memory and in its JSON file."""

    name: str
    columns: tuple[Column, ...]
    over: Over | None = None
    """Variable of its plot."""
    cost: Cost | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of all columns, in their order."""
        names: dict[str, None] = {}
        for column in self.columns:
            names.update(dict.fromkeys(method.name for method in column.results.methods))
        return tuple(names)

    @property
    def grid(self) -> bool:
        """Whether columns differ in their models: a grid over sizes."""
        return len({(column.weak, column.strong) for column in self.columns}) > 1


class Cell(Record):
    """Results of one model in one column."""

    accuracy: Estimate
    pgr: Estimate | None = None
    """None for models that are no students, and where PGR is undefined."""
    pgr_text: str = ""
    """PGR with its interval, or why it is undefined; empty for models that are no students."""


def rows(table: Table) -> dict[str, tuple[Cell | None, ...]]:
    """Cells by row, one for each column; None where a column lacks that model."""
    cells_by_name: dict[str, tuple[Cell | None, ...]] = {}
    for model in ("weak", "untrained", "strong"):
        cells_by_name[ENDS[model]] = _end_cells(table, model)
    for name in table.methods:
        cells_by_name[name] = tuple(_student_cell(column, name) for column in table.columns)
    cells_by_name[ENDS["ceiling"]] = _end_cells(table, "ceiling")
    # Studies by a trained head have no untrained model; a row that is empty in all columns is left out.
    return {name: cells for name, cells in cells_by_name.items() if any(cells)}


def _end_cells(table: Table, model: str) -> tuple[Cell | None, ...]:
    """Cells of a model that belongs to no method."""
    cells: list[Cell | None] = []
    for column in table.columns:
        accuracy = getattr(column.results, model)
        cells.append(None if accuracy is None else Cell(accuracy=accuracy))
    return tuple(cells)


def _student_cell(column: Column, name: str) -> Cell | None:
    """Cell of a method's student."""
    for method in column.results.methods:
        if method.name == name:
            return Cell(accuracy=method.student, pgr=method.pgr.pgr, pgr_text=method.pgr_text)
    return None


def points(methods: Mapping[str, Method], contexts: Mapping[str, Context], over: Over) -> dict[str, Point]:
    """Positions of methods in a plot; methods that differ only in its variable are points of one line.

    A line has the name of its first method, without a number at its end.
    """
    line_names: dict[str, str] = {}
    positions = {}
    for name, method in methods.items():
        # What remains of the settings without the plot's variable tells which line a method belongs to.
        settings: dict[str, Any] = method.model_dump(mode="json")
        x: float | None = None
        if over == "members":
            x = settings.pop("members")
        elif over == "errors":
            x = settings["labels"].pop("errors")
        elif method.context != "none":
            context = contexts.get(method.context, Context()).model_dump(mode="json")
            x = context.pop(over)
            # By content: contexts that differ in this alone have names of their own.
            settings["context"] = context
        if x is not None:
            # debate-2 and debate-4 are points of the line `debate`; a name of digits alone stays.
            base_name = re.sub(r"[-_.+]?\d+(\.\d+)?$", "", name) or name
            line = line_names.setdefault(str(sorted(settings.items())), base_name)
            positions[name] = Point(line=line, x=float(x))
    return positions


def markdown(table: Table) -> str:
    """The table as Markdown: accuracy in percent and PGR with intervals, and footnotes."""
    heads = ["model"]
    for column in table.columns:
        prefix = f"{column.label}: " if len(table.columns) > 1 else ""
        heads += [f"{prefix}accuracy, %", f"{prefix}PGR"]
    lines = [f"## {table.name}", "", _line(heads), _line(["---"] * len(heads))]
    for name, cells in rows(table).items():
        texts = [name]
        for cell in cells:
            texts += _texts(cell)
        lines.append(_line(texts))
    lines.append("")
    lines += [f"- {note}" for note in footnotes(table)]
    return "\n".join([*lines, ""])


def footnotes(table: Table) -> list[str]:
    """Models, test items and seeds behind the numbers, why a PGR is undefined, and the cost of the table."""
    lines = []
    for column in table.columns:
        study = column.results
        seeds = "1 seed, so intervals hold for this training run only" if study.seeds == 1 else f"{study.seeds} seeds"
        lines.append(
            f"{column.label}: {column.weak} supervises {column.strong}; {study.weak.n} test items in "
            f"{in_clusters(study.weak.clusters)}, {seeds}"
        )
        notes = [*(f"warning: {warning}" for warning in study.warnings), *study.notes]
        if column.account is not None:
            notes += column.account.notes
        lines += [f"{column.label}: {note}" for note in notes]
    for column in by_gap(table):
        if column.compute is not None:
            weak, strong, gap = column.compute.weak, column.compute.strong, column.compute.gap
            lines.append(f"{column.label}: 6ND {weak:.2g} and {strong:.2g}, a gap of {gap:.2f} orders of magnitude")
    lines += [f"alarm: {alarm}" for alarm in alarms(table)]
    if table.cost is not None:
        lines.append(cost_text(table.cost))
    return lines


def cost_text(cost: Cost) -> str:
    """Cost in one line."""
    cpu = "" if cost.cpu_seconds is None else f", {cost.cpu_seconds:.0f} s of CPU"
    tokens = "" if cost.tokens is None else f", {cost.tokens:,} tokens read and written"
    return (
        f"cost: {cost.seconds:.0f} s{cpu}{tokens}, {cost.games:,} games; {cost.trainings} trainings "
        f"({cost.training_seconds:.0f} s), of which {cost.shared} were done for other tables before"
    )


def _texts(cell: Cell | None) -> tuple[str, str]:
    """Accuracy in percent and PGR of a cell."""
    if cell is None:
        return "-", "-"
    accuracy = _scaled(cell.accuracy, 100, 1)
    if cell.pgr is not None:
        return accuracy, _scaled(cell.pgr, 1, 2)
    return accuracy, UNDEFINED if cell.pgr_text else ""


def _scaled(estimate: Estimate, factor: float, digits: int) -> str:
    """An estimate with its interval, times a factor."""
    value = f"{estimate.value * factor:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{value} [no interval]"
    return f"{value} [{estimate.low * factor:.{digits}f}, {estimate.high * factor:.{digits}f}]"


def _line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    # A bar inside a name would end its cell.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def csv_text(table: Table) -> str:
    """The table as CSV: one line for each measure of each model in each column; an undefined value is empty."""
    out = io.StringIO()
    # Line feeds on every system, so that tables of two machines can be compared byte for byte.
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "column", "model", "measure", "value", "low", "high", "n", "clusters", "seeds"])
    for column in table.columns:
        for model, measure, estimate in measures(column.results):
            values: list[Any] = [""] * 5
            if estimate is not None:
                values = [estimate.value, estimate.low, estimate.high, estimate.n, estimate.clusters]
            writer.writerow([table.name, column.label, model, measure, *values, column.results.seeds])
    return out.getvalue()


def measures(results: Results) -> list[tuple[str, str, Estimate | None]]:
    """Model, measure and estimate of everything that a study measured; None where a measure is undefined."""
    lines: list[tuple[str, str, Estimate | None]] = []
    for model, scores in results.scores.items():
        lines += [(model, measure, getattr(scores, measure)) for measure in Scores.model_fields]
    for method in results.methods:
        student = f"{method.name}/student"
        lines.append((f"{method.name}/labels", "accuracy", method.labels))
        lines.append((student, "pgr", method.pgr.pgr))
        if method.agreement is not None:
            lines.append((student, "agreement where the supervisor is right", method.agreement.right))
            lines.append((student, "agreement where the supervisor is wrong", method.agreement.wrong))
    return lines
