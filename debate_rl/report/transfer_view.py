"""Weak-to-strong tables, ready to show: figures of accuracy and of the gap recovered, comparisons, grids of sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from debate_rl.intervals import Estimate
from debate_rl.report import figures
from debate_rl.report.chart import PGR, Figure, Labelled, StudentPoint
from debate_rl.report.wording import debates_link
from debate_rl.weak_to_strong.results.gap_grid import alarms, by_gap
from debate_rl.weak_to_strong.results.results import Comparison, MethodResult, Results
from debate_rl.weak_to_strong.results.tables import AXES, ENDS, Cell, Column, Table, cost_text, rows


class ColumnView(NamedTuple):
    """One study of a table."""

    label: str
    column: Column
    accuracy: Figure
    pgr: Figure | None
    """None where PGR is undefined for every method."""
    lines: Figure | None
    """Accuracy over the number in which the methods differ; None where the table has no such number."""
    first: list[Comparison]
    """Every method with the first, and the last with every other."""
    others: list[Comparison]


class GridView(NamedTuple):
    """One method over sizes of models."""

    method: str
    weak: tuple[str, ...]
    strong: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]


class TransferView(NamedTuple):
    """A table with its figures."""

    stage: str
    """Name of the table, as headings call it."""
    table: Table
    rows: dict[str, tuple[Cell | None, ...]]
    columns: list[ColumnView]
    grids: list[GridView]
    over_gap: Figure | None
    """PGR of each method over the gap in compute, in grids over sizes."""
    alarms: list[str]
    cost: str


def transfer_views(tables: Sequence[Table], stages: Collection[str] = ()) -> list[TransferView]:
    """What the page shows of each table.

    Args:
        tables: as `load_tables` gives them.
        stages: those whose debates the page holds; points of a column lead to its stage's.
    """
    views = []
    for table in tables:
        view = TransferView(
            stage=table.name,
            table=table,
            rows=rows(table),
            columns=[_column_view(column, table, stages) for column in table.columns],
            grids=[_grid_view(name, table) for name in table.methods] if table.grid else [],
            over_gap=_over_gap(table),
            alarms=alarms(table),
            cost="" if table.cost is None else cost_text(table.cost),
        )
        views.append(view)
    return views


def _over_gap(table: Table) -> Figure | None:
    """PGR of each method over the gap between supervisor and student; None where fewer than two gaps are known."""
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    for column in by_gap(table):
        for method in column.results.methods:
            if column.compute is not None and method.pgr.pgr is not None:
                lines.setdefault(method.name, []).append((column.compute.gap, method.pgr.pgr))
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    title = "Gap recovered (PGR) over the gap in compute"
    return figures.series_over_steps(title, PGR, lines, None, "orders of magnitude in 6ND", ".1f")


def _column_view(column: Column, table: Table, stages: Collection[str]) -> ColumnView:
    results = column.results
    label = column.label if len(table.columns) > 1 else ""
    suffix = f", {label}" if label else ""
    link = _stage_link(column, table, stages)
    pgr = []
    for method in results.methods:
        if method.pgr.pgr is not None:
            pgr.append(Labelled(method.name, method.pgr.pgr, link=link))
    leading, others = _split_comparisons(results)
    accuracies = _accuracies(results, link)
    return ColumnView(
        label=label,
        column=column,
        accuracy=figures.student_accuracy(f"Accuracy of students on the test items{suffix}", accuracies),
        pgr=figures.pgr_by_method(f"Gap recovered (PGR){suffix}", pgr) if pgr else None,
        lines=_lines(column, AXES[table.over], suffix, link) if table.over and column.points else None,
        first=leading,
        others=others,
    )


def _stage_link(column: Column, table: Table, stages: Collection[str]) -> str:
    """Debates of the stage of a column: "scaling-large" is the column "large" of the table "scaling"."""
    for name in (column.label, table.name, f"{table.name}-{column.label}"):
        if name in stages:
            return debates_link(name)
    return ""


def _accuracies(results: Results, link: str) -> list[Labelled]:
    """Students between the strong model's other ends and the ceiling, which comes last."""
    ends = []
    for model, name in ENDS.items():
        estimate = getattr(results, model)
        if estimate is not None:
            ends.append(Labelled(name, estimate, is_reference=True))
    students = [Labelled(method.name, method.student, link=link) for method in results.methods]
    # `ENDS` lists the ceiling last.
    return [*ends[:-1], *students, ends[-1]]


def _split_comparisons(results: Results) -> tuple[list[Comparison], list[Comparison]]:
    """Comparisons with the first method or of the last one, and all others."""
    first, last = results.methods[0].name, results.methods[-1].name
    leading, others = [], []
    for comparison in results.comparisons:
        if comparison.second == first or comparison.first == last:
            leading.append(comparison)
        else:
            others.append(comparison)
    return leading, others


def _lines(column: Column, over: str, suffix: str, link: str) -> Figure:
    """Students' accuracies over the number in which their methods differ."""
    students = []
    for method in column.results.methods:
        point = column.points.get(method.name)
        if point is not None:
            students.append(StudentPoint(point.line, point.x, method.name, method.student, link))
    weak, ceiling = column.results.weak.value, column.results.ceiling.value
    return figures.students_over(f"Accuracy of students over {over}{suffix}", over, students, weak, ceiling)


def _grid_view(method: str, table: Table) -> GridView:
    """Cells by weak and strong model."""
    cells = {}
    for column, cell in zip(table.columns, rows(table)[method], strict=True):
        if cell is not None:
            cells[column.weak, column.strong] = cell
    return GridView(
        method=method,
        weak=tuple(dict.fromkeys(column.weak for column in table.columns)),
        strong=tuple(dict.fromkeys(column.strong for column in table.columns)),
        cells=cells,
    )


def recovered(views: Sequence[TransferView]) -> dict[str, str]:
    """The gap that the first and the last method of the first table recover, for the top of the page."""
    gaps = {}
    for column in views[0].columns if views else ():
        for method in _first_and_last(column.column.results):
            name = f"{method.name}, {column.label}" if column.label else method.name
            gaps[name] = method.pgr_text
    return gaps


def _first_and_last(results: Results) -> tuple[MethodResult, ...]:
    methods = results.methods
    return methods if len(methods) < 3 else (methods[0], methods[-1])
