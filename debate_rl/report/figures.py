"""Figures of the page: plain rows in, an Altair (Vega-Lite) chart out; `to_svg` renders a chart as static SVG.

The SVG stands in the page itself, without a script. Colours are the page's own CSS variables, so a figure follows the
light and dark schemes; the literal colour after each variable is for an SVG that is saved on its own. Text that people
or models wrote enters a chart as data or as a literal title, never as a field name or in a Vega expression.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from itertools import chain
from typing import Any, NamedTuple

import altair as alt
import vl_convert

from debate_rl.intervals import Estimate
from debate_rl.judges.scores import JudgeScores
from debate_rl.report.wording import fixed, printable, significant

Figure = alt.LayerChart | alt.VConcatChart
Datum = dict[str, Any]

INK, QUIET, LINE = "var(--ink, #1c1e21)", "var(--quiet, #5b6168)", "var(--line, #dcdcd5)"
ACCENT, SOFT = "var(--accent, #0b5d8f)", "var(--soft, #8c949c)"
SERIES_COLOURS = (ACCENT, "var(--near-line, #946200)", "var(--exact-line, #0f7a55)", "var(--invalid-line, #b01e57)")
SERIES_DASHES = ([1, 0], [6, 3], [2, 3], [8, 2, 2, 2])
"""Series differ in dash as well as in colour, for readers who do not tell the colours apart."""

WIDTH = 400
"""Width of a figure in pixels, about that of a phone; the page scales it."""
HEIGHT = 250
ROW_HEIGHT = 24
NAME_LETTERS = 26
"""Letters of a name beside its row; longer ones are cut, and stand in full in the alternative text."""
SHORT_NAME_LETTERS = 17
"""Letters of a name at any other place."""
TITLE_LETTERS = 60
VALUE_WIDTH = 58
"""Room for the numbers at the right of a row figure."""

# The renderer knows minor versions: "6.4" for Altair's "v6.4.1".
_VEGA_LITE = alt.SCHEMA_VERSION.lstrip("v").rpartition(".")[0]
_STYLE: dict[str, Any] = {
    # Arial and Liberation Sans have the same widths, so text takes the room that was measured when it was drawn.
    "font": "Arial, Liberation Sans, Helvetica, sans-serif",
    "view": {"stroke": None},
    "title": {"color": INK, "fontSize": 13, "fontWeight": 600, "anchor": "start", "frame": "bounds"},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": INK, "strokeWidth": 1.5},
    "line": {"color": ACCENT, "strokeWidth": 1.6},
    "point": {"size": 60, "filled": True, "opacity": 1, "color": ACCENT},
    "bar": {"color": ACCENT, "opacity": 0.85},
    "legend": {
        "labelColor": INK,
        "labelFontSize": 12,
        "titleColor": QUIET,
        "titleFontSize": 12,
        "orient": "bottom",
        "labelLimit": 0,
        "symbolType": "stroke",
        "symbolStrokeWidth": 2,
        "symbolSize": 200,
    },
    "axis": {
        "labelColor": QUIET,
        "labelFontSize": 12,
        "titleColor": QUIET,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        # Names are cut here (`_short_names`): the renderer would cut an emoji in half, and fail at it.
        "labelLimit": 0,
        "labelSeparation": 6,
        "titlePadding": 10,
    },
}


class Measure(NamedTuple):
    """What an axis shows.

    Example:
        Measure("judge accuracy, %", scale=100, digits=1, limits=(0, 100)) shows 0.844 as 84.4
    """

    title: str
    """Title of the axis with its unit."""
    scale: float = 1.0
    """Factor from a value to its number on the axis."""
    digits: int = 0
    """Digits after the point where the value is written out."""
    limits: tuple[float, float] = (-math.inf, math.inf)
    """Numbers that the axis never passes; intervals beyond them are cut."""


ELO = Measure("Elo points")
ACCURACY = Measure("judge accuracy, %", 100, 1, (0, 100))
STUDENT = Measure("accuracy on the test items, %", 100, 1, (0, 100))
# One interval of a small gap would flatten all others.
PGR = Measure("gap recovered (PGR)", 1, 2, (-1, 2))
ATTACK = Measure("change of accuracy, points", 100, 1, (-100, 100))


class Labelled(NamedTuple):
    """One row of a row figure.

    Example:
        Labelled("dpo@4", Estimate(value=1093.2, low=1061.0, high=1127.9, n=240, clusters=80))
    """

    label: str
    estimate: Estimate
    is_reference: bool = False
    """Drawn in grey: what the other rows are compared with."""


class RatedAccuracy(NamedTuple):
    """Judge accuracy in one player's debates with itself, and the player's rating.

    Example:
        RatedAccuracy("debate", "dpo", rating=Estimate(value=1093.2, ...), accuracy=Estimate(value=0.81, ...))
    """

    protocol: str
    player: str
    rating: Estimate
    accuracy: Estimate


class StudentPoint(NamedTuple):
    """A weak-to-strong student and the number in which its method differs from others of the same series.

    Example:
        StudentPoint(series="debate", x=4, method="debate-4", accuracy=Estimate(value=0.84, ...))
    """

    series: str
    x: float
    method: str
    accuracy: Estimate


class WinRate(NamedTuple):
    """The judge's mean probability for a player in its games against another.

    Example:
        WinRate(player="dpo", opponent="sft", p=0.63, games=160)
    """

    player: str
    opponent: str
    p: float
    games: int


def ratings(rows: Sequence[Labelled]) -> Figure:
    """Elo ratings with intervals, one row a player."""
    return _row_figure("Elo with intervals", rows, ELO)


def judge_accuracy(title: str, rows: Sequence[Labelled]) -> Figure:
    """Judge accuracy with intervals beside chance, one row a protocol or a share of the surest verdicts."""
    return _row_figure(title, rows, ACCURACY, mark=(50.0, "chance"))


def attack_effects(rows: Sequence[Labelled]) -> Figure:
    """How much judge accuracy changes when the side with the wrong answer attacks."""
    return _row_figure("Change of accuracy when the wrong side attacks", rows, ATTACK, mark=(0.0, "none"))


def student_accuracy(title: str, rows: Sequence[Labelled]) -> Figure:
    """Accuracy of weak-to-strong students between weak model and ceiling, as bars from chance."""
    return _row_figure(title, rows, STUDENT, bars_from=50.0)


def pgr_by_method(title: str, rows: Sequence[Labelled]) -> Figure:
    """Performance gap recovered by each method: 0 is the weak model, 1 the ceiling (Burns et al. 2023, section 3)."""
    return _row_figure(title, rows, PGR, mark=(1.0, "ceiling"), bars_from=0.0)


def accuracy_over_rating(title: str, rows: Sequence[RatedAccuracy]) -> Figure:
    """Judge accuracy over the debaters' rating, one line a protocol, with intervals both ways."""
    by_rating = sorted(rows, key=lambda row: row.rating.value)
    series = _short_names([row.protocol for row in rows])
    players = _short_names([row.player for row in rows])
    data = []
    for row in by_rating:
        rating, accuracy = _numbers(row.rating, ELO), _numbers(row.accuracy, ACCURACY)
        data.append(
            {
                "series": series[row.protocol],
                "label": players[row.player],
                "rating": rating["value"],
                "rating_low": rating["low"],
                "rating_high": rating["high"],
                **accuracy,
                "description": f"{row.player}, {row.protocol}: Elo {rating['text']}, accuracy {accuracy['text']} %",
            }
        )
    # The padding keeps names beside the outermost points inside the figure.
    x_scale = alt.Scale(zero=False, nice=True, padding=24)
    x = alt.X("rating:Q", title=ELO.title, scale=x_scale, axis=alt.Axis(tickCount=5))
    y = _value_y(ACCURACY, [row.accuracy for row in rows])
    base = _chart(data)
    x_whiskers = base.transform_filter("isValid(datum.rating_low)").mark_rule(color=SOFT)
    layers = [
        x_whiskers.encode(x=alt.X("rating_low:Q", scale=x_scale), x2=alt.X2("rating_high:Q"), y=y),
        _y_whiskers(base, x),
        base.mark_line().encode(x=x, y=y, color=_colour(series), strokeDash=_dash(series)),
        base.mark_point().encode(x=x, y=y, color=_colour(series), description=alt.Description("description:N")),
        *_player_names(data, x),
    ]
    return _finish(alt.LayerChart(layer=layers), title, data, HEIGHT)


def _player_names(data: Sequence[Datum], x: alt.X) -> list[alt.Chart]:
    """Each player's name once, beside its highest point."""
    highest: dict[str, Datum] = {}
    for row in data:
        if row["label"] not in highest or row["value"] > highest[row["label"]]["value"]:
            highest[row["label"]] = row
    # In order of rating, names stand above and below their points in turn, so that neighbours do not write over each
    # other; the last one turns to the left, as there is no room at the right of it.
    *names, last = highest.values()
    layers = [
        _chart(names[0::2]).mark_text(align="left", dx=7, dy=-9),
        _chart(names[1::2]).mark_text(align="left", dx=7, dy=12),
        _chart([last]).mark_text(align="right", dx=-7, dy=-9),
    ]
    return [layer.encode(x=x, y=alt.Y("value:Q"), text=alt.Text("label:N")) for layer in layers]


def over_iterations(title: str, measure: Measure, rows: Sequence[Labelled]) -> Figure:
    """A number of each iteration's debater, the start first, joined by a line."""
    data = [_row_datum(row, measure) for row in rows]
    labels = _set_labels(data, SHORT_NAME_LETTERS)
    axis = alt.Axis(labelAngle=-30)
    x = alt.X("label:N", title="debater", scale=alt.Scale(type="point", domain=labels, padding=0.3), axis=axis)
    return _curve_figure(title, measure, [row.estimate for row in rows], data, x)


def over_steps(title: str, measure: Measure, rows: Sequence[tuple[int, Estimate]]) -> Figure:
    """A number measured at some training steps, joined by a line."""
    data = []
    for step, estimate in rows:
        datum = _row_datum(Labelled(f"step {step}", estimate), measure)
        data.append({**datum, "step": step})
    x = alt.X(
        "step:Q", title="training step", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(tickCount=5, format="d")
    )
    return _curve_figure(title, measure, [estimate for _, estimate in rows], data, x)


def _curve_figure(
    title: str, measure: Measure, estimates: Sequence[Estimate], data: Sequence[Datum], x: alt.X
) -> Figure:
    base, y = _chart(data), _value_y(measure, estimates)
    layers = [
        _y_whiskers(base, x),
        base.mark_line().encode(x=x, y=y),
        base.mark_point().encode(x=x, y=y, description=alt.Description("description:N")),
    ]
    return _finish(alt.LayerChart(layer=layers), title, data, HEIGHT)


def students_over(title: str, x_title: str, rows: Sequence[StudentPoint], weak: float, ceiling: float) -> Figure:
    """Accuracy of students over the number in which their methods differ, one line a series.

    Args:
        title: of the figure.
        x_title: what the number is.
        rows: the students.
        weak: accuracy of the weak model, marked with a line.
        ceiling: accuracy of the strong model trained on true labels, marked likewise.
    """
    series = _short_names([row.series for row in rows])
    data = []
    for row in sorted(rows, key=lambda row: row.x):
        datum = _row_datum(Labelled(row.method, row.accuracy), STUDENT)
        data.append({**datum, "series": series[row.series], "x": row.x})
    ticks = sorted({row.x for row in rows})
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(values=ticks, format="~g"))
    weak, ceiling = STUDENT.scale * weak, STUDENT.scale * ceiling
    y = _value_y(STUDENT, [row.accuracy for row in rows], [weak, ceiling])
    at_levels = _chart([{"value": weak, "label": "weak"}, {"value": ceiling, "label": "ceiling"}])
    layers: list[alt.Chart] = [
        at_levels.mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(y=y),
        at_levels.mark_text(align="left", dx=6, color=QUIET).encode(
            x=alt.value("width"), y=y, text=alt.Text("label:N")
        ),
    ]
    for position, name in enumerate(series.values()):
        base = _chart([row for row in data if row["series"] == name])
        # Each series stands a little to the right of the one before, so that intervals do not hide one another.
        shift = 5 * position
        layers += [
            base.transform_filter("isValid(datum.low)")
            .mark_rule(xOffset=shift)
            .encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
            base.mark_line(xOffset=shift).encode(x=x, y=y, color=_colour(series), strokeDash=_dash(series)),
            base.mark_point(xOffset=shift).encode(
                x=x, y=y, color=_colour(series), description=alt.Description("description:N")
            ),
        ]
    return _finish(alt.LayerChart(layer=layers), title, data, HEIGHT + 20, right=VALUE_WIDTH)


def calibration(title: str, scores: JudgeScores) -> Figure:
    """How often a judge is right against how sure it is, with the number of verdicts below."""
    data = []
    for bin_ in scores.reliability:
        edges = f"confidence {100 * bin_.low:.4g} to {100 * bin_.high:.4g} %"
        datum = _row_datum(Labelled(edges, bin_.accuracy), Measure("verdicts that are right, %", 100, 1))
        datum["description"] += f", n {bin_.n}"
        low, high = 100 * bin_.low, 100 * bin_.high
        position = {"confidence": 100 * bin_.confidence, "from": low, "middle": (low + high) / 2, "to": high}
        data.append({**datum, **position, "n": bin_.n})
    start = min([50.0, *(datum["from"] for datum in data)])
    x_scale = alt.Scale(domain=[start, 100], nice=False)
    x = alt.X("confidence:Q", title=None, scale=x_scale, axis=alt.Axis(labels=False, tickCount=5))
    y_scale = alt.Scale(domain=[0, 100])
    y = alt.Y("value:Q", title="verdicts that are right, %", scale=y_scale, axis=alt.Axis(tickCount=5))
    diagonal = _chart([{"confidence": start, "value": start}, {"confidence": 100, "value": 100}])
    base = _chart(data)
    upper = alt.layer(
        diagonal.mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=y),
        _y_whiskers(base, x),
        base.mark_point().encode(x=x, y=y, description=alt.Description("description:N")),
    ).properties(width=WIDTH - 70, height=190)
    edge = alt.X("from:Q", title="confidence of the judge, %", scale=x_scale, axis=alt.Axis(tickCount=5, grid=False))
    counted = alt.Y(
        "n:Q", title="verdicts", scale=alt.Scale(zero=True), axis=alt.Axis(labels=False, grid=False, ticks=False)
    )
    lower = alt.layer(
        base.mark_rect(color=SOFT, opacity=0.55).encode(x=edge, x2=alt.X2("to:Q"), y=counted, y2=alt.datum(0)),
        base.mark_text(baseline="bottom", dy=-1).encode(x=alt.X("middle:Q"), y=counted, text=alt.Text("n:Q")),
    ).properties(width=WIDTH - 70, height=44)
    return _finish(alt.vconcat(upper, lower, spacing=20), title, data)


def training_curve(name: str, points: Sequence[tuple[float, float]]) -> Figure:
    """One logged number over training steps; a small figure."""
    data = [{"step": step, "value": value} for step, value in points]
    values = [value for _, value in points]
    (first_step, first), (last_step, last) = points[0], points[-1]
    description = (
        f"{significant(first)} at step {fixed(first_step, 0)}, {significant(last)} at step {fixed(last_step, 0)}, "
        f"between {significant(min(values))} and {significant(max(values))}"
    )
    x = alt.X("step:Q", title="step", scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=3, grid=False))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=3, format="~g"))
    line = _chart(data).mark_line().encode(x=x, y=y)
    end = _chart(data[-1:]).mark_point(size=25).encode(x=x, y=y)
    figure = _finish(alt.LayerChart(layer=[line, end]), name, [{"description": description}], 130)
    return figure.properties(width=190)


def win_matrix(rows: Sequence[WinRate]) -> Figure:
    """The judge's mean probability for each player (row) against each other one (column)."""
    players = _short_names(list(chain.from_iterable((row.player, row.opponent) for row in rows)))
    data = []
    for row in rows:
        text = fixed(100 * row.p, 1)
        description = f"{row.player} against {row.opponent}: {text} %, n {row.games}"
        names = {"player": players[row.player], "opponent": players[row.opponent]}
        data.append({**names, "value": 100 * row.p, "text": text, "description": description})
    scale = alt.Scale(domain=list(players.values()))
    axis = alt.Axis(orient="top", labelAngle=-30, grid=False)
    x = alt.X("opponent:N", title="against", scale=scale, axis=axis)
    y = alt.Y("player:N", title="player", scale=scale, axis=alt.Axis(grid=False))
    opacity = alt.Opacity("value:Q", scale=alt.Scale(domain=[0, 100], range=[0.04, 0.75]), legend=None)
    base = _chart(data).encode(x=x, y=y)
    cells = base.mark_rect(color=ACCENT).encode(opacity=opacity, description=alt.Description("description:N"))
    numbers = base.mark_text().encode(text=alt.Text("text:N"))
    return _finish(
        alt.LayerChart(layer=[cells, numbers]),
        "Games: judge's probability for the player of the row, %",
        data,
        110 + 26 * len(players),
    )


def to_svg(figure: Figure) -> str:
    """Render a figure as one `<svg>` element to stand in an HTML page.

    The same figure gives the same bytes: fonts and renderer come with the library, and nothing is fetched.

    Args:
        figure: as the functions of this module make it.

    Returns:
        The element, without a size of its own (the style sheet gives it), with a title and an alternative text.
    """
    # The schema has been checked where the figure was made; once more would take half of the time.
    spec = _printable(figure.to_dict(validate=False))
    svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE)
    opening, content = svg.split(">", 1)
    box = opening.split('viewBox="')[1].split('"')[0]
    title, description = escape(spec["title"]["text"]), escape(spec["description"])
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="{box}" role="img" aria-label="{description}">'
    )
    return f"{root}<title>{title}</title>{content}"


def _printable(value: Any) -> Any:
    """A specification with only characters that XML allows: one other ends the process of the renderer."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _printable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    return value


def _row_figure(
    title: str,
    rows: Sequence[Labelled],
    measure: Measure,
    *,
    mark: tuple[float, str] | None = None,
    bars_from: float | None = None,
) -> Figure:
    """Values with intervals, one row each.

    Args:
        title: of the figure.
        rows: top first.
        measure: the axis.
        mark: a number on the axis to mark with a line, and its name.
        bars_from: draw bars from this number of the axis instead of dots.
    """
    data = [{**_row_datum(row, measure), "is_reference": row.is_reference} for row in rows]
    labels = _set_labels(data, NAME_LETTERS)
    marked = [number for number in (mark[0] if mark else None, bars_from) if number is not None]
    scale = _scale(measure, [row.estimate for row in rows], marked)
    y = alt.Y(
        "label:N",
        title=None,
        scale=alt.Scale(domain=labels),
        axis=alt.Axis(labelPadding=10, labelColor=INK, domain=False, ticks=False),
    )
    x = alt.X("value:Q", title=measure.title, scale=scale, axis=alt.Axis(tickCount=5))
    base = _chart(data).encode(y=y)
    colour = alt.condition("datum.is_reference", alt.value(SOFT), alt.value(ACCENT))
    layers: list[alt.Chart] = []
    if bars_from is not None:
        bars = base.mark_bar(size=14).encode(
            x=x, x2=alt.datum(bars_from), color=colour, description=alt.Description("description:N")
        )
        layers += [bars, _vertical_rule(bars_from, scale)]
    if mark is not None:
        value, name = mark
        layers += [_vertical_rule(value, scale), _rule_name(value, name, scale)]
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule()
    layers.append(whiskers.encode(x=alt.X("low:Q", title=measure.title, scale=scale), x2=alt.X2("high:Q")))
    if bars_from is None:
        layers.append(base.mark_point().encode(x=x, color=colour, description=alt.Description("description:N")))
    layers.append(base.mark_text(align="left", dx=8).encode(x=alt.value("width"), text=alt.Text("text:N")))
    height = ROW_HEIGHT * len(rows) + 64 + (12 if mark else 0)
    return _finish(alt.LayerChart(layer=layers), title, data, height, right=VALUE_WIDTH, name_above=mark is not None)


def _vertical_rule(value: float, scale: alt.Scale) -> alt.Chart:
    rule = _chart([{"value": value}]).mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1)
    return rule.encode(x=alt.X("value:Q", scale=scale))


def _rule_name(value: float, name: str, scale: alt.Scale) -> alt.Chart:
    text = _chart([{"value": value, "label": name}]).mark_text(color=QUIET, baseline="bottom", dy=-3)
    return text.encode(x=alt.X("value:Q", scale=scale), y=alt.value(0), text=alt.Text("label:N"))


def _set_labels(data: Iterable[Datum], letters: int) -> list[str]:
    """Cut the labels of rows, and keep rows of one label apart: they would be drawn over each other."""
    labels: list[str] = []
    for row in data:
        row["label"] = _unlike(_cut(row["label"], letters), labels)
        labels.append(row["label"])
    return labels


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Cut names by name; different names stay different."""
    short: dict[str, str] = {}
    for name in names:
        if name not in short:
            short[name] = _unlike(_cut(name, SHORT_NAME_LETTERS), short.values())
    return short


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "\u2026"


def _unlike(label: str, others: Collection[str]) -> str:
    """A label that is none of the others: invisible spaces are added until it differs."""
    while label in others:
        label += "\u200b"
    return label


def _chart(data: Sequence[Datum]) -> alt.Chart:
    return alt.Chart(alt.Data(values=list(data)))


def _row_datum(row: Labelled, measure: Measure) -> Datum:
    numbers = _numbers(row.estimate, measure)
    interval = "(no interval)"
    if numbers["low"] is not None:
        interval = f"[{fixed(numbers['low'], measure.digits)}, {fixed(numbers['high'], measure.digits)}]"
    return {"label": row.label, **numbers, "description": f"{row.label}: {numbers['text']} {interval}"}


def _numbers(estimate: Estimate, measure: Measure) -> Datum:
    """An estimate in the units of an axis; None for ends that are not there."""
    numbers: Datum = {"value": measure.scale * estimate.value, "low": None, "high": None}
    if estimate.low is not None and estimate.high is not None:
        numbers.update(low=measure.scale * estimate.low, high=measure.scale * estimate.high)
    return {**numbers, "text": fixed(numbers["value"], measure.digits)}


def _scale(measure: Measure, estimates: Iterable[Estimate], others: Iterable[float] = ()) -> alt.Scale:
    """An axis from the lowest to the highest end of all intervals, within the limits of the measure."""
    numbers = list(others)
    for estimate in estimates:
        ends = (estimate.value, estimate.low, estimate.high)
        numbers += [measure.scale * end for end in ends if end is not None]
    least, most = measure.limits
    inside = [min(max(number, least), most) for number in numbers if math.isfinite(number)] or [0.0, 1.0]
    # One value alone would make an axis without length.
    low, high = min(inside), max(inside)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    return alt.Scale(domain=[low, high], nice=5, zero=False, clamp=True)


def _value_y(measure: Measure, estimates: Sequence[Estimate], others: Iterable[float] = ()) -> alt.Y:
    return alt.Y("value:Q", title=measure.title, scale=_scale(measure, estimates, others), axis=alt.Axis(tickCount=5))


def _y_whiskers(base: alt.Chart, x: alt.X) -> alt.Chart:
    return base.transform_filter("isValid(datum.low)").mark_rule().encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))


def _colour(series: Mapping[str, str]) -> alt.Color:
    colours = [SERIES_COLOURS[position % len(SERIES_COLOURS)] for position in range(len(series))]
    scale = alt.Scale(domain=list(series.values()), range=colours)
    return alt.Color("series:N", scale=scale, legend=_legend(series))


def _dash(series: Mapping[str, str]) -> alt.StrokeDash:
    dashes = [SERIES_DASHES[position % len(SERIES_DASHES)] for position in range(len(series))]
    scale = alt.Scale(domain=list(series.values()), range=dashes)
    return alt.StrokeDash("series:N", scale=scale, legend=_legend(series))


def _legend(series: Mapping[str, str]) -> alt.Legend | None:
    """A legend where there is something to tell apart."""
    return alt.Legend(title=None, columns=3) if len(series) > 1 else None


def _finish(
    chart: Figure,
    title: str,
    data: Sequence[Datum],
    height: float | None = None,
    *,
    right: float = 8,
    name_above: bool = False,
) -> Figure:
    """Give a chart its title, its alternative text, its size and the page's style.

    Args:
        chart: the layers.
        title: shown above it.
        data: rows whose "description" makes the alternative text.
        height: of the whole figure in pixels; None where the parts have heights of their own.
        right: room at the right for text beyond the axis.
        name_above: leave room between title and axis for the name of a marked number.
    """
    described = chart.properties(
        title=alt.TitleParams(_cut(title, TITLE_LETTERS), offset=20 if name_above else 10),
        description="; ".join([title, *(row["description"] for row in data)]),
        background="transparent",
        padding={"left": 2, "right": right, "top": 2, "bottom": 2},
    )
    if height is not None:
        fit = alt.AutoSizeParams(type="fit", contains="padding")
        described = described.properties(width=WIDTH, height=height, autosize=fit)
    return described.configure(**_STYLE)
