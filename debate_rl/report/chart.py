"""Parts of which figures are made: rows, axes, colours, names that fit, and the finished chart with its style.

Colours are the page's own CSS variables, so a figure follows the light and dark schemes; the literal colour after each
variable is for a figure that is saved on its own. Text that people or models wrote enters a chart as data or as a
literal title, never as a field name or in a Vega expression.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import altair as alt

from debate_rl.intervals import Estimate
from debate_rl.report.wording import fixed

Figure = alt.LayerChart | alt.VConcatChart
Datum = dict[str, Any]

INK, QUIET, LINE = "var(--ink, #1c1e21)", "var(--quiet, #5b6168)", "var(--line, #dcdcd5)"
ACCENT, SOFT = "var(--accent, #0b5d8f)", "var(--soft, #8c949c)"
SERIES_COLOURS = (
    ACCENT,
    "var(--near-line, #946200)",
    "var(--exact-line, #0f7a55)",
    "var(--invalid-line, #b01e57)",
    "var(--fifth, #6a4bb0)",
    "var(--sixth, #4d5966)",
)
SERIES_DASHES = ([1, 0], [6, 3], [2, 3], [8, 2, 2, 2], [10, 4], [1, 2])
SERIES_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
"""Series differ in dash or shape as well as in colour, for readers who do not tell the colours apart."""

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
RIGHT = Measure("verdicts that are right, %", 100, 1)
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
    link: str = ""
    """Where the point leads: its debates."""


class RatedAccuracy(NamedTuple):
    """Judge accuracy in one player's debates with itself, and the player's rating.

    Example:
        RatedAccuracy("debate", "dpo", rating=Estimate(value=1093.2, ...), accuracy=Estimate(value=0.81, ...))
    """

    protocol: str
    player: str
    rating: Estimate
    accuracy: Estimate
    link: str = ""


class ProtocolAccuracy(NamedTuple):
    """Judge accuracy in one player's debates under one protocol.

    Example:
        ProtocolAccuracy("single", "dpo", Estimate(value=0.53, low=0.41, high=0.66, n=60, clusters=30))
    """

    protocol: str
    player: str
    accuracy: Estimate
    link: str = ""


class StudentPoint(NamedTuple):
    """A weak-to-strong student and the number in which its method differs from others of the same series.

    Example:
        StudentPoint(series="debate", x=4, method="debate-4", accuracy=Estimate(value=0.84, ...))
    """

    series: str
    x: float
    method: str
    accuracy: Estimate
    link: str = ""


class WinRate(NamedTuple):
    """The judge's mean probability for a player in its games against another.

    Example:
        WinRate(player="dpo", opponent="sft", p=0.63, games=160)
    """

    player: str
    opponent: str
    p: float
    games: int
    link: str = ""


def set_labels(data: Iterable[Datum], letters: int) -> list[str]:
    """Cut the labels of rows, and keep rows of one label apart: they would be drawn over each other."""
    labels: list[str] = []
    for row in data:
        row["label"] = _unlike(cut_name(row["label"], letters), labels)
        labels.append(row["label"])
    return labels


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Cut names by name; different names stay different."""
    short: dict[str, str] = {}
    for name in names:
        if name not in short:
            short[name] = _unlike(cut_name(name, SHORT_NAME_LETTERS), short.values())
    return short


def cut_name(text: str, letters: int) -> str:
    """Cut a long name and mark the cut."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "\u2026"


def _unlike(label: str, others: Collection[str]) -> str:
    """A label that is none of the others: invisible spaces are added until it differs."""
    while label in others:
        label += "\u200b"
    return label


class _Rows(alt.Data):
    """Rows that the layers of a figure share: Altair copies a chart at every step, and with it all that it holds."""

    def __deepcopy__(self, memo: object) -> _Rows:
        return self


def base_chart(data: Sequence[Datum]) -> alt.Chart:
    """A chart of some rows, without marks yet."""
    return alt.Chart(_Rows(values=list(data)))


def row_datum(row: Labelled, measure: Measure) -> Datum:
    """One row of a figure, with the words that describe it."""
    numbers = axis_numbers(row.estimate, measure)
    interval = "(no interval)"
    if numbers["low"] is not None:
        interval = f"[{fixed(numbers['low'], measure.digits)}, {fixed(numbers['high'], measure.digits)}]"
    description = f"{row.label}: {numbers['text']} {interval}"
    return {"label": row.label, **numbers, "description": description, "link": row.link}


def axis_numbers(estimate: Estimate, measure: Measure) -> Datum:
    """An estimate in the units of an axis; None for ends that are not there."""
    numbers: Datum = {"value": measure.scale * estimate.value, "low": None, "high": None}
    if estimate.low is not None and estimate.high is not None:
        numbers.update(low=measure.scale * estimate.low, high=measure.scale * estimate.high)
    return {**numbers, "text": fixed(numbers["value"], measure.digits)}


def axis_scale(measure: Measure, estimates: Iterable[Estimate], others: Iterable[float] = ()) -> alt.Scale:
    """An axis from the lowest to the highest end of all intervals, within the limits of the measure."""
    numbers = list(others)
    for estimate in estimates:
        ends = (estimate.value, estimate.low, estimate.high)
        numbers += [measure.scale * end for end in ends if end is not None]
    return alt.Scale(domain=_domain(numbers, measure.limits), nice=5, zero=False, clamp=True)


def _domain(numbers: Iterable[float], limits: tuple[float, float]) -> list[float]:
    """From the lowest to the highest of some numbers, within limits, and never without length."""
    least, most = limits
    inside = [min(max(number, least), most) for number in numbers if math.isfinite(number)] or [0.0, 1.0]
    low, high = min(inside), max(inside)
    if high - low >= 1e-9 * max(1.0, abs(high)):
        return [low, high]
    return [low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10]


def value_y(measure: Measure, estimates: Sequence[Estimate], others: Iterable[float] = ()) -> alt.Y:
    """The vertical axis of a measure."""
    return alt.Y(
        "value:Q", title=measure.title, scale=axis_scale(measure, estimates, others), axis=alt.Axis(tickCount=5)
    )


def y_whiskers(base: alt.Chart, x: alt.X, width: float = 1.5) -> alt.Chart:
    """Intervals along the vertical axis."""
    return (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=width)
        .encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
    )


def series_colour(series: Mapping[str, str]) -> alt.Color:
    """A colour for each series."""
    colours = [SERIES_COLOURS[position % len(SERIES_COLOURS)] for position in range(len(series))]
    scale = alt.Scale(domain=list(series.values()), range=colours)
    return alt.Color("series:N", scale=scale, legend=_legend(series))


def series_shape(series: Mapping[str, str]) -> alt.Shape:
    """A shape for each series."""
    shapes = [SERIES_SHAPES[position % len(SERIES_SHAPES)] for position in range(len(series))]
    return alt.Shape("series:N", scale=alt.Scale(domain=list(series.values()), range=shapes), legend=_legend(series))


def series_dash(series: Mapping[str, str]) -> alt.StrokeDash:
    """A dash for each series."""
    dashes = [SERIES_DASHES[position % len(SERIES_DASHES)] for position in range(len(series))]
    scale = alt.Scale(domain=list(series.values()), range=dashes)
    return alt.StrokeDash("series:N", scale=scale, legend=_legend(series))


def _legend(series: Mapping[str, str]) -> alt.Legend | None:
    """A legend where there is something to tell apart."""
    return alt.Legend(title=None, columns=3) if len(series) > 1 else None


def finish(
    chart: Figure,
    title: str,
    data: Sequence[Datum],
    height: float | None = None,
    *,
    right: float = 8,
    name_above: bool = False,
    hover: Sequence[Datum] = (),
) -> Figure:
    """Give a chart its title, its alternative text, its size and the page's style.

    Args:
        chart: the layers; it is changed.
        title: shown above it.
        data: rows whose "description" makes the alternative text.
        height: of the whole figure in pixels; None where the parts have heights of their own.
        right: room at the right for text beyond the axis.
        name_above: leave room between title and axis for the name of a marked number.
        hover: rows of invisible marks, which are described on hover only.
    """
    # Set, and not passed to `properties`: that would copy all layers each time.
    chart.title = alt.TitleParams(cut_name(title, TITLE_LETTERS), offset=20 if name_above else 10)
    chart.description = "; ".join([title, *(row["description"] for row in data)])
    chart.background = "transparent"
    # For `render`: what hovering over a mark says, and where a click on it leads.
    chart.usermeta = {"marks": [(row["description"], row.get("link", "")) for row in [*data, *hover]]}
    chart.padding = {"left": 2, "right": right, "top": 2, "bottom": 2}
    if height is not None:
        chart.width, chart.height = WIDTH, height
        chart.autosize = alt.AutoSizeParams(type="fit", contains="padding")
    chart.config = _config()
    return chart


@cache
def _config() -> alt.Config:
    return alt.Config(**_STYLE)
