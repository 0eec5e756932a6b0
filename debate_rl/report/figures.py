"""Figures of the page and of `debate-rl plot`: plain rows in, an Altair (Vega-Lite) chart out (see `render`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import altair as alt

from debate_rl.intervals import Estimate
from debate_rl.judges.scores import JudgeScores
from debate_rl.report.chart import (
    ACCENT,
    ACCURACY,
    ATTACK,
    ELO,
    HEIGHT,
    INK,
    NAME_LETTERS,
    PGR,
    QUIET,
    RIGHT,
    ROW_HEIGHT,
    SHORT_NAME_LETTERS,
    SOFT,
    STUDENT,
    VALUE_WIDTH,
    WIDTH,
    Datum,
    Figure,
    Labelled,
    Measure,
    ProtocolAccuracy,
    RatedAccuracy,
    StudentPoint,
    WinRate,
    axis_numbers,
    axis_scale,
    base_chart,
    finish,
    row_datum,
    series_colour,
    series_dash,
    series_shape,
    set_labels,
    short_names,
    value_y,
    y_whiskers,
)
from debate_rl.report.wording import fixed, significant


def ratings(rows: Sequence[Labelled]) -> Figure:
    """Elo ratings with intervals, one row a player."""
    return _row_figure("Elo with intervals", rows, ELO)


def judge_accuracy(title: str, rows: Sequence[Labelled]) -> Figure:
    """Judge accuracy with intervals beside chance, one row a protocol or a share of the surest verdicts."""
    return _row_figure(title, rows, ACCURACY, mark=(50.0, "chance"))


def valid_quotes(rows: Sequence[Labelled]) -> Figure:
    """Share of speeches that quote, and only what stands in the passage; one row a player."""
    measure = Measure("speeches with valid quotes only, %", 100, 1, (0, 100))
    return _row_figure("Truth of the quotes", rows, measure)


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
    series = short_names([row.protocol for row in rows])
    players = short_names([row.player for row in rows])
    data = []
    for row in by_rating:
        rating, accuracy = axis_numbers(row.rating, ELO), axis_numbers(row.accuracy, ACCURACY)
        data.append(
            {
                "series": series[row.protocol],
                "label": players[row.player],
                "rating": rating["value"],
                "rating_low": rating["low"],
                "rating_high": rating["high"],
                **accuracy,
                "description": f"{row.player}, {row.protocol}: Elo {rating['text']}, accuracy {accuracy['text']} %",
                "link": row.link,
            }
        )
    # The padding keeps names beside the outermost points inside the figure.
    x_scale = alt.Scale(zero=False, nice=True, padding=24)
    x = alt.X("rating:Q", title=ELO.title, scale=x_scale, axis=alt.Axis(tickCount=5))
    y = value_y(ACCURACY, [row.accuracy for row in rows])
    base = base_chart(data)
    x_whiskers = base.transform_filter("isValid(datum.rating_low)").mark_rule(color=SOFT, strokeWidth=1)
    layers = [
        x_whiskers.encode(x=alt.X("rating_low:Q", scale=x_scale), x2=alt.X2("rating_high:Q"), y=y),
        y_whiskers(base, x, 1).encode(color=series_colour(series)),
        base.mark_line().encode(x=x, y=y, color=series_colour(series), strokeDash=series_dash(series)),
        base.mark_point().encode(x=x, y=y, color=series_colour(series), description=alt.Description("description:N")),
        *_player_names(data, x),
    ]
    return finish(alt.LayerChart(layer=layers), title, data, HEIGHT)


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
        base_chart(names[0::2]).mark_text(align="left", dx=7, dy=-9),
        base_chart(names[1::2]).mark_text(align="left", dx=7, dy=12),
        base_chart([last]).mark_text(align="right", dx=-7, dy=-9),
    ]
    return [layer.encode(x=x, y=alt.Y("value:Q"), text=alt.Text("label:N")) for layer in layers]


def accuracy_by_protocol(title: str, rows: Sequence[ProtocolAccuracy]) -> Figure:
    """Judge accuracy with intervals, grouped by protocol; within a group one point a player."""
    protocols = short_names([row.protocol for row in rows])
    players = short_names(["no debater" if row.player == "-" else row.player for row in rows])
    in_group = Counter(row.protocol for row in rows)
    most = max(in_group.values())
    # Half steps, so that a group of few points stands in the middle of its place.
    slots = {protocol: iter(range(most - size, 2 * most, 2)) for protocol, size in in_group.items()}
    data = []
    for row in rows:
        series = players["no debater" if row.player == "-" else row.player]
        datum = row_datum(Labelled(f"{row.protocol}, {row.player}", row.accuracy, link=row.link), ACCURACY)
        data.append({**datum, "protocol": protocols[row.protocol], "series": series, "slot": next(slots[row.protocol])})
    scale = axis_scale(ACCURACY, [row.accuracy for row in rows], [50.0])
    x = alt.X("value:Q", title=ACCURACY.title, scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y(
        "protocol:N",
        title=None,
        scale=alt.Scale(domain=list(protocols.values()), paddingInner=0.3),
        axis=alt.Axis(labelPadding=10, labelColor=INK, domain=False, ticks=False),
    )
    offset = alt.YOffset("slot:O", scale=alt.Scale(domain=list(range(2 * most - 1))))
    base = base_chart(data).encode(y=y, yOffset=offset)
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.2)
    layers: list[alt.Chart] = [
        _vertical_rule(50.0, scale),
        _rule_name(50.0, "chance", scale),
        whiskers.encode(x=alt.X("low:Q", scale=scale), x2=alt.X2("high:Q"), color=series_colour(players)),
        base.mark_point().encode(
            x=x,
            color=series_colour(players),
            shape=series_shape(players),
            description=alt.Description("description:N"),
        ),
    ]
    height = 110 + len(protocols) * (14 + 11 * most)
    return finish(alt.LayerChart(layer=layers), title, data, height, name_above=True)


def over_iterations(title: str, measure: Measure, rows: Sequence[Labelled]) -> Figure:
    """A number of each iteration's debater, the start first, joined by a line."""
    data = [row_datum(row, measure) for row in rows]
    labels = set_labels(data, SHORT_NAME_LETTERS)
    axis = alt.Axis(labelAngle=-30)
    x = alt.X("label:N", title="debater", scale=alt.Scale(type="point", domain=labels, padding=0.3), axis=axis)
    return _curve_figure(title, measure, [row.estimate for row in rows], data, x)


def over_steps(title: str, measure: Measure, rows: Sequence[tuple[int, Estimate]]) -> Figure:
    """A number measured at some training steps, joined by a line."""
    data = []
    for step, estimate in rows:
        datum = row_datum(Labelled(f"step {step}", estimate), measure)
        data.append({**datum, "step": step})
    x = alt.X(
        "step:Q", title="training step", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(tickCount=5, format="d")
    )
    return _curve_figure(title, measure, [estimate for _, estimate in rows], data, x)


def series_over_steps(
    title: str,
    measure: Measure,
    rows: Mapping[str, Sequence[tuple[float, Estimate]]],
    marked: Mapping[int, str] | None = None,
    x_title: str = "training step",
    x_format: str = "d",
) -> Figure:
    """Several numbers measured at some training steps, one line each with its intervals.

    Args:
        title: of the figure.
        measure: of the vertical axis, the same for all.
        rows: by name, the steps with their estimates.
        marked: steps to mark with a line, and what they are called.
        x_title: what the steps are.
        x_format: of the numbers on their axis, as d3 writes it.
    """
    series = short_names(rows)
    x = alt.X(
        "step:Q", title=x_title, scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(tickCount=5, format=x_format)
    )
    every = []
    for points in rows.values():
        every += [estimate for _, estimate in points]
    y = value_y(measure, every)
    colour, data, layers = series_colour(series), [], []
    for marked_step, name in (marked or {}).items():
        mark = base_chart([{"step": marked_step, "label": name}])
        layers += [
            mark.mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(x=x),
            mark.mark_text(color=QUIET, baseline="bottom", dy=-3).encode(
                x=x, y=alt.YValue(0), text=alt.Text("label:N")
            ),
        ]
    for position, (name, points) in enumerate(rows.items()):
        of_series = []
        for step, estimate in points:
            datum = row_datum(Labelled(f"{name}, {x_title} {step:.4g}", estimate), measure)
            of_series.append({**datum, "step": step, "series": series[name]})
        base = base_chart(of_series)
        data += of_series
        # Each series stands a little to the right of the one before, so that intervals do not hide one another.
        shift = 4 * position
        layers += [
            base.transform_filter("isValid(datum.low)")
            .mark_rule(xOffset=shift)
            .encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), color=colour),
            base.mark_line(xOffset=shift).encode(x=x, y=y, color=colour, strokeDash=series_dash(series)),
            base.mark_point(xOffset=shift).encode(x=x, y=y, color=colour, description=alt.Description("description:N")),
        ]
    return finish(alt.LayerChart(layer=layers), title, data, HEIGHT + 20, name_above=bool(marked))


def _curve_figure(
    title: str, measure: Measure, estimates: Sequence[Estimate], data: Sequence[Datum], x: alt.X
) -> Figure:
    base, y = base_chart(data), value_y(measure, estimates)
    layers = [
        y_whiskers(base, x),
        base.mark_line().encode(x=x, y=y),
        base.mark_point().encode(x=x, y=y, description=alt.Description("description:N")),
    ]
    return finish(alt.LayerChart(layer=layers), title, data, HEIGHT)


def students_over(title: str, x_title: str, rows: Sequence[StudentPoint], weak: float, ceiling: float) -> Figure:
    """Accuracy of students over the number in which their methods differ, one line a series.

    Args:
        title: of the figure.
        x_title: what the number is.
        rows: the students.
        weak: accuracy of the weak model, marked with a line.
        ceiling: accuracy of the strong model trained on true labels, marked likewise.
    """
    series = short_names([row.series for row in rows])
    data = []
    for row in sorted(rows, key=lambda row: row.x):
        datum = row_datum(Labelled(row.method, row.accuracy, link=row.link), STUDENT)
        data.append({**datum, "series": series[row.series], "x": row.x})
    ticks = sorted({row.x for row in rows})
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(values=ticks, format="~g"))
    weak, ceiling = STUDENT.scale * weak, STUDENT.scale * ceiling
    y = value_y(STUDENT, [row.accuracy for row in rows], [weak, ceiling])
    at_levels = base_chart([{"value": weak, "label": "weak"}, {"value": ceiling, "label": "ceiling"}])
    layers: list[alt.Chart] = [
        at_levels.mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(y=y),
        at_levels.mark_text(align="left", dx=6, color=QUIET).encode(
            x=alt.XValue("width"), y=y, text=alt.Text("label:N")
        ),
    ]
    for position, name in enumerate(series.values()):
        base = base_chart([row for row in data if row["series"] == name])
        # Each series stands a little to the right of the one before, so that intervals do not hide one another.
        shift = 5 * position
        layers += [
            base.transform_filter("isValid(datum.low)")
            .mark_rule(xOffset=shift)
            .encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
            base.mark_line(xOffset=shift).encode(x=x, y=y, color=series_colour(series), strokeDash=series_dash(series)),
            base.mark_point(xOffset=shift).encode(
                x=x, y=y, color=series_colour(series), description=alt.Description("description:N")
            ),
        ]
    return finish(alt.LayerChart(layer=layers), title, data, HEIGHT + 20, right=VALUE_WIDTH)


def calibration_change(title: str, judges: Mapping[str, tuple[JudgeScores, str]]) -> Figure:
    """How often a judge is right against how sure it is, one line a judge, such as before and after finetuning.

    Args:
        title: of the figure.
        judges: by name, the scores and the address of the debates.
    """
    series = short_names(judges)
    data = []
    for name, (scores, link) in judges.items():
        for row in _reliability(scores, link):
            data.append({**row, "series": series[name], "description": f"{name}, {row['description']}"})
    start = min([50.0, *(row["from"] for row in data)])
    x = alt.X(
        "confidence:Q",
        title="confidence of the judge, %",
        scale=alt.Scale(domain=[start, 100]),
        axis=alt.Axis(tickCount=5),
    )
    y = alt.Y("value:Q", title=RIGHT.title, scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    diagonal = base_chart([{"confidence": start, "value": start}, {"confidence": 100, "value": 100}])
    base = base_chart(data)
    colour = series_colour(series)
    layers = [
        diagonal.mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=y),
        y_whiskers(base, x).encode(color=colour),
        base.mark_line().encode(x=x, y=y, color=colour, strokeDash=series_dash(series)),
        base.mark_point().encode(x=x, y=y, color=colour, description=alt.Description("description:N")),
    ]
    return finish(alt.LayerChart(layer=layers), title, data, HEIGHT + 40)


def _reliability(scores: JudgeScores, link: str = "") -> list[Datum]:
    """The bins of a judge's confidence, in per cent."""
    data = []
    for bin_ in scores.reliability:
        edges = f"confidence {100 * bin_.low:.4g} to {100 * bin_.high:.4g} %"
        address = f"{link}&sure={bin_.low:.4g}-{bin_.high:.4g}" if link else ""
        datum = row_datum(Labelled(edges, bin_.accuracy, link=address), RIGHT)
        datum["description"] += f", n {bin_.n}"
        low, high = 100 * bin_.low, 100 * bin_.high
        position = {"confidence": 100 * bin_.confidence, "from": low, "middle": (low + high) / 2, "to": high}
        data.append({**datum, **position, "n": bin_.n})
    return data


def calibration(title: str, scores: JudgeScores, link: str = "") -> Figure:
    """How often a judge is right against how sure it is, with the number of verdicts below."""
    data = _reliability(scores, link)
    start = min([50.0, *(datum["from"] for datum in data)])
    x_scale = alt.Scale(domain=[start, 100], nice=False)
    x = alt.X("confidence:Q", title=None, scale=x_scale, axis=alt.Axis(labels=False, tickCount=5))
    y_scale = alt.Scale(domain=[0, 100])
    y = alt.Y("value:Q", title=RIGHT.title, scale=y_scale, axis=alt.Axis(tickCount=5))
    diagonal = base_chart([{"confidence": start, "value": start}, {"confidence": 100, "value": 100}])
    base = base_chart(data)
    upper = alt.layer(
        diagonal.mark_line(color=QUIET, strokeDash=[4, 3], strokeWidth=1).encode(x=x, y=y),
        y_whiskers(base, x),
        base.mark_point().encode(x=x, y=y, description=alt.Description("description:N")),
    ).properties(width=WIDTH - 70, height=190)
    edge = alt.X("from:Q", title="confidence of the judge, %", scale=x_scale, axis=alt.Axis(tickCount=5, grid=False))
    counted = alt.Y(
        "n:Q", title="verdicts", scale=alt.Scale(zero=True), axis=alt.Axis(labels=False, grid=False, ticks=False)
    )
    lower = alt.layer(
        base.mark_rect(color=SOFT, opacity=0.55).encode(x=edge, x2=alt.X2("to:Q"), y=counted, y2=alt.Y2Datum(0)),
        base.mark_text(baseline="bottom", dy=-1).encode(x=alt.X("middle:Q"), y=counted, text=alt.Text("n:Q")),
    ).properties(width=WIDTH - 70, height=44)
    return finish(alt.vconcat(upper, lower, spacing=20), title, data)


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
    line = base_chart(data).mark_line().encode(x=x, y=y)
    # Invisible points along the line say its numbers on hover; one for every step would double the page.
    every = max(1, len(data) // 24)
    hover = []
    for row in data[::every]:
        words = f"{name} {significant(row['value'])} at step {fixed(row['step'], 0)}"
        hover.append({**row, "description": words})
    points_to_hover = base_chart(hover).mark_point(size=90, opacity=0)
    points_to_hover = points_to_hover.encode(x=x, y=y, description=alt.Description("description:N"))
    end = base_chart(data[-1:]).mark_point(size=25).encode(x=x, y=y)
    figure = finish(
        alt.LayerChart(layer=[line, end, points_to_hover]), name, [{"description": description}], 130, hover=hover
    )
    return figure.properties(width=190)


def win_matrix(rows: Sequence[WinRate]) -> Figure:
    """The judge's mean probability for each player (row) against each other one (column)."""
    players = short_names(list(chain.from_iterable((row.player, row.opponent) for row in rows)))
    data = []
    for row in rows:
        text = fixed(100 * row.p, 1)
        description = f"{row.player} against {row.opponent}: {text} %, n {row.games}"
        names = {"player": players[row.player], "opponent": players[row.opponent]}
        data.append({**names, "value": 100 * row.p, "text": text, "description": description, "link": row.link})
    scale = alt.Scale(domain=list(players.values()))
    axis = alt.Axis(orient="top", labelAngle=-30, grid=False)
    x = alt.X("opponent:N", title="against", scale=scale, axis=axis)
    y = alt.Y("player:N", title="player", scale=scale, axis=alt.Axis(grid=False))
    opacity = alt.Opacity("value:Q", scale=alt.Scale(domain=[0, 100], range=[0.04, 0.75]), legend=None)
    base = base_chart(data).encode(x=x, y=y)
    cells = base.mark_rect(color=ACCENT).encode(opacity=opacity, description=alt.Description("description:N"))
    numbers = base.mark_text().encode(text=alt.Text("text:N"))
    return finish(
        alt.LayerChart(layer=[cells, numbers]),
        "Games: judge's probability for the player of the row, %",
        data,
        110 + 26 * len(players),
    )


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
    data = [{**row_datum(row, measure), "colour": SOFT if row.is_reference else ACCENT} for row in rows]
    labels = set_labels(data, NAME_LETTERS)
    marked = [number for number in (mark[0] if mark else None, bars_from) if number is not None]
    scale = axis_scale(measure, [row.estimate for row in rows], marked)
    y = alt.Y(
        "label:N",
        title=None,
        scale=alt.Scale(domain=labels),
        axis=alt.Axis(labelPadding=10, labelColor=INK, domain=False, ticks=False),
    )
    x = alt.X("value:Q", title=measure.title, scale=scale, axis=alt.Axis(tickCount=5))
    base = base_chart(data).encode(y=y)
    colour = alt.Color("colour:N", scale=None, legend=None)
    layers: list[alt.Chart] = []
    if bars_from is not None:
        bars = base.mark_bar(size=14).encode(
            x=x, x2=alt.X2Datum(bars_from), color=colour, description=alt.Description("description:N")
        )
        layers += [bars, _vertical_rule(bars_from, scale)]
    if mark is not None:
        value, name = mark
        layers += [_vertical_rule(value, scale), _rule_name(value, name, scale)]
    whiskers = base.transform_filter("isValid(datum.low)").mark_rule()
    layers.append(whiskers.encode(x=alt.X("low:Q", title=measure.title, scale=scale), x2=alt.X2("high:Q")))
    if bars_from is None:
        layers.append(base.mark_point().encode(x=x, color=colour, description=alt.Description("description:N")))
    layers.append(base.mark_text(align="left", dx=8).encode(x=alt.XValue("width"), text=alt.Text("text:N")))
    height = ROW_HEIGHT * len(rows) + 64 + (12 if mark else 0)
    return finish(alt.LayerChart(layer=layers), title, data, height, right=VALUE_WIDTH, name_above=mark is not None)


def _vertical_rule(value: float, scale: alt.Scale) -> alt.Chart:
    rule = base_chart([{"value": value}]).mark_rule(color=QUIET, strokeDash=[4, 3], strokeWidth=1)
    return rule.encode(x=alt.X("value:Q", scale=scale))


def _rule_name(value: float, name: str, scale: alt.Scale) -> alt.Chart:
    text = base_chart([{"value": value, "label": name}]).mark_text(color=QUIET, baseline="bottom", dy=-3)
    return text.encode(x=alt.X("value:Q", scale=scale), y=alt.YValue(0), text=alt.Text("label:N"))
