"""Weak-to-strong tables, ready to show: plots of accuracy and of the gap recovered, lines, comparisons, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from debate_rl.intervals import Estimate
from debate_rl.report import plots
from debate_rl.report.plots import WIDTH, Axis, Row, RowPlot, Tick
from debate_rl.weak_to_strong.results.results import Comparison, MethodResult, Results
from debate_rl.weak_to_strong.results.tables import AXES, ENDS, Cell, Column, Table, cost_text, rows

STYLES = 4
"""Lines that the style sheet tells apart."""
WIDEST = (-1.0, 2.0)
"""PGR axes never pass this: one interval of a small gap would flatten all others."""


class LineDot(NamedTuple):
    """A method in a plot of lines."""

    title: str
    x: float
    y: float
    ends: tuple[float, float] | None


class Line(NamedTuple):
    """Methods that differ in one number."""

    name: str
    style: int
    dots: tuple[LineDot, ...]
    path: str
    """As an SVG polyline takes it."""
    label: float
    """Height of the name, right of the last dot."""


class LinePlot(NamedTuple):
    """Accuracy of students over members, turns or errors, between that of weak model and ceiling."""

    id: str
    title: str
    description: str
    x: Axis
    y: Axis
    x_name: str
    lines: tuple[Line, ...]
    levels: tuple[Tick, ...]
    """Weak model and ceiling."""
    height: float


class ColumnView(NamedTuple):
    """One study of a table."""

    label: str
    column: Column
    accuracy: RowPlot
    pgr: RowPlot | None
    """None where no method has one."""
    lines: LinePlot | None
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
    """A table with its plots."""

    stage: str
    """Name of the table, as headings call it."""
    table: Table
    rows: dict[str, tuple[Cell | None, ...]]
    columns: list[ColumnView]
    grids: list[GridView]
    cost: str


def transfer_views(tables: Sequence[Table]) -> list[TransferView]:
    """What the page shows of each table."""
    return [
        TransferView(
            stage=table.name,
            table=table,
            rows=rows(table),
            columns=[_column(f"{at}-{place}", column, table) for place, column in enumerate(table.columns)],
            grids=[_grid(name, table) for name in table.methods] if table.grid else [],
            cost="" if table.cost is None else cost_text(table.cost),
        )
        for at, table in enumerate(tables)
    ]


def _column(id: str, column: Column, table: Table) -> ColumnView:
    found = column.results
    several = len(table.columns) > 1
    ends = {name: getattr(found, model) for model, name in ENDS.items()}
    bars = [Row(name, one, soft=True) for name, one in ends.items() if one is not None]
    bars[-1:-1] = [Row(method.name, method.student) for method in found.methods]
    defined = [Row(method.name, method.pgr.pgr) for method in found.methods if method.pgr.pgr is not None]
    names = [method.name for method in found.methods]
    leading = [one for one in found.comparisons if one.second == names[0] or one.first == names[-1]]
    return ColumnView(
        label=column.label if several else "",
        column=column,
        accuracy=plots.rows(
            f"transfer-{id}", f"Accuracy of students on the test items{f', {column.label}' if several else ''}", bars,
            plots.percent, plots.short_percent, baseline=0.5, within=(0, 1),
        ),
        pgr=plots.rows(
            f"pgr-{id}", f"Gap recovered (PGR){f', {column.label}' if several else ''}", defined,
            lambda value: plots.fixed(value, 2), plots.plain, reference=(1.0, "ceiling"), baseline=0.0, within=WIDEST,
        ) if defined else None,
        lines=_lines(f"lines-{id}", column, AXES[table.over]) if table.over and column.points else None,
        first=leading,
        others=[one for one in found.comparisons if one not in leading],
    )  # fmt: skip


def _grid(method: str, table: Table) -> GridView:
    """Cells by weak and strong model."""
    return GridView(
        method=method,
        weak=tuple(dict.fromkeys(column.weak for column in table.columns)),
        strong=tuple(dict.fromkeys(column.strong for column in table.columns)),
        cells={
            (column.weak, column.strong): cell
            for column, cell in zip(table.columns, rows(table)[method], strict=True)
            if cell is not None
        },
    )


def _lines(id: str, column: Column, over: str) -> LinePlot:
    """Lay out students' accuracies over what their methods differ in."""
    found, height = column.results, 260.0
    students = {method.name: method for method in found.methods if method.name in column.points}
    x = _steps(sorted({column.points[name].x for name in students}))
    levels = (found.weak.value, found.ceiling.value)
    y = plots.axis([*levels, *_spans(students)], height - 42, 28, plots.short_percent)
    lines: dict[str, list[tuple[float, MethodResult]]] = {}
    for name, method in students.items():
        lines.setdefault(column.points[name].line, []).append((column.points[name].x, method))
    drawn, labels = [], [y.at(level) + 4 for level in levels]
    for style, (name, dots) in enumerate(lines.items()):
        line = _line(name, style, sorted(dots, key=lambda one: one[0]), (x, y), labels)
        labels.append(line.label)
        drawn.append(line)
    said = "; ".join(dot.title for line in drawn for dot in line.dots)
    ends = tuple(Tick(y.at(level), name) for level, name in zip(levels, ("weak", "ceiling"), strict=True))
    return LinePlot(id, f"Accuracy of students over {over}", said, x, y, over, tuple(drawn), ends, height)


def _steps(values: Sequence[float]) -> Axis:
    """An axis with a tick for each value."""
    low, high = (values[0], values[-1]) if values[-1] > values[0] else (values[0] - 1, values[0] + 1)
    axis = Axis(low, high, 56, WIDTH - 96, ())
    return axis._replace(ticks=tuple(Tick(axis.at(value), plots.plain(value)) for value in values))


def _spans(students: Mapping[str, MethodResult]) -> list[float]:
    """All that the axis must hold."""
    ends = [(one.student.low, one.student.value, one.student.high) for one in students.values()]
    return [value for end in ends for value in end if value is not None]


def _line(
    name: str, style: int, dots: Sequence[tuple[float, MethodResult]], axes: tuple[Axis, Axis], taken: Sequence[float]
) -> Line:
    """One line; each stands a little to the right of the one before, so that intervals do not hide one another."""
    x, y = axes
    placed = []
    for value, method in dots:
        said = f"{method.name}: {_said(method.student)}"
        placed.append(LineDot(said, x.at(value) + 5 * style, y.at(method.student.value), _ends(method.student, y)))
    label = placed[-1].y + 4
    while any(abs(label - other) < 13 for other in taken):
        label += 13
    path = " ".join(f"{dot.x:g},{dot.y:g}" for dot in placed)
    return Line(plots.shorten(name), style % STYLES, tuple(placed), path, label)


def _said(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return f"{plots.percent(one.value)} (no interval)"
    return f"{plots.percent(one.value)} [{plots.percent(one.low)}, {plots.percent(one.high)}]"


def _ends(one: Estimate, scale: Axis) -> tuple[float, float] | None:
    if one.low is None or one.high is None:
        return None
    return scale.at(one.low), scale.at(one.high)


def findings(views: Sequence[TransferView]) -> dict[str, str]:
    """The gap that each method of the first table recovers, for the top of the page."""
    return {
        _named(method, column, views[0]): method.pgr_text
        for column in (views[0].columns if views else ())
        for method in _shown(column.column.results)
    }


def _shown(found: Results) -> tuple[MethodResult, ...]:
    """The first method and the last."""
    return found.methods if len(found.methods) < 3 else (found.methods[0], found.methods[-1])


def _named(method: MethodResult, column: ColumnView, view: TransferView) -> str:
    return f"{method.name}, {column.label}" if len(view.columns) > 1 else method.name
