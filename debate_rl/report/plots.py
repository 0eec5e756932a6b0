"""Plots as geometry: numbers in, places in a view box out; `plots.j2` draws them as SVG.

Drawn by hand instead of by matplotlib: a plot takes 2 kB, follows the page's light and dark colours, keeps its text as
text, and is the same to the byte on every machine. A view box is 400 units wide, about the width of a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from debate_rl.intervals import Estimate
from debate_rl.judges.scores import JudgeScores
from debate_rl.report.dot_names import Named, place_names

Write = Callable[[float], str]

WIDTH = 400.0
LETTER = 7.0
"""Width of a letter, about."""
VALUE = 56.0
"""Width of the values at its right."""
ROW = 24.0
LETTERS = 17
"""Letters of a name that have room at the left of any plot."""
MOST_LETTERS = 26
"""Letters of the longest name of a row plot, which makes room for it; the rest stands in its title."""
POINTS = 240
"""Points of a curve; longer ones are means of equal stretches."""


class Tick(NamedTuple):
    """A marked value of an axis and its place."""

    place: float
    text: str


class Axis(NamedTuple):
    """A linear axis from `low` at `start` to `high` at `end` (units of the view box)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Place of a value, rounded to a tenth; values beyond the axis stay at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


class Row(NamedTuple):
    """One row of a row plot.

    Example:
        Row("dpo@4", Estimate(value=1093.2, low=1061.0, high=1127.9, n=240, clusters=80), soft=False)
    """

    label: str
    estimate: Estimate
    soft: bool = False
    """Drawn in grey: what others are compared with."""


class Mark(NamedTuple):
    """A drawn row."""

    label: str
    title: str
    value: str
    x: float
    low: float | None
    high: float | None
    y: float
    soft: bool


class RowPlot(NamedTuple):
    """Values with intervals, one row each: dots, or bars from a baseline."""

    id: str
    title: str
    description: str
    axis: Axis
    marks: tuple[Mark, ...]
    height: float
    reference: Tick | None
    baseline: float | None


class Dot(NamedTuple):
    """A point with intervals both ways."""

    label: str
    title: str
    x: float
    y: float
    x_ends: tuple[float, float] | None
    y_ends: tuple[float, float] | None
    name: Named


class Scatter(NamedTuple):
    """Two values with intervals for each name."""

    id: str
    title: str
    description: str
    x: Axis
    y: Axis
    x_name: str
    y_name: str
    dots: tuple[Dot, ...]
    height: float
    line: str = ""
    """Through the dots, as an SVG polyline takes it; empty for none."""


class Bar(NamedTuple):
    """One bin of a reliability plot."""

    x: float
    y: float
    ends: tuple[float, float] | None
    left: float
    right: float
    top: float
    """Top of its bar in the strip of counts."""
    n: int
    title: str


class Reliability(NamedTuple):
    """How often a judge is right against how sure it is, with the number of verdicts below."""

    id: str
    title: str
    description: str
    x: Axis
    y: Axis
    bars: tuple[Bar, ...]
    floor: float
    """Foot of the strip of counts."""
    diagonal: tuple[float, float, float, float]
    height: float


class Curve(NamedTuple):
    """One number over training steps; narrower than the other plots."""

    id: str
    title: str
    description: str
    x: Axis
    y: Axis
    points: str
    """As an SVG polyline takes them."""
    last: tuple[float, float]
    height: float
    width: float


def percent(value: float) -> str:
    """0.75 as "75.0 %"."""
    return f"{fixed(100 * value, 1)} %"


def points(value: float) -> str:
    """-0.167 as "-16.7", with a true minus: a difference of shares in points."""
    return fixed(100 * value, 1)


def short_points(value: float) -> str:
    """-0.5 as "-50", for ticks."""
    return points(value).removesuffix(".0")


def short_percent(value: float) -> str:
    """0.75 as "75 %", 0.025 as "2.5 %": for ticks."""
    return f"{fixed(100 * value, 1).removesuffix('.0')} %"


def plain(value: float) -> str:
    """A number with as few digits as tell it."""
    return f"{value:.4g}".replace("-", "\u2212")


def whole(value: float) -> str:
    """A rounded number."""
    return fixed(value, 0)


def fixed(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\u2212")


def axis(values: Iterable[float], start: float, end: float, write: Write, wanted: int = 4) -> Axis:
    """An axis whose ends and ticks are round numbers.

    Args:
        values: what it must hold; those that are not finite are left out.
        start: place of its lower end.
        end: place of its upper end.
        write: words a tick.
        wanted: about how many intervals.
    """
    kept = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(kept), max(kept)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    rough = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    bare = Axis(first * step, last * step, start, end, ())
    ticks = tuple(Tick(bare.at(k * step), write(k * step)) for k in range(first, last + 1))
    return bare._replace(ticks=ticks)


def rows(
    id: str,
    title: str,
    found: Sequence[Row],
    write: Write,
    ticks: Write,
    *,
    reference: tuple[float, str] | None = None,
    baseline: float | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> RowPlot:
    """Lay out values with intervals, one row each.

    Args:
        id: unique in the page.
        title: what is shown.
        found: the rows, top first.
        write: words a value.
        ticks: words a tick.
        reference: a value to mark with a line, and its name.
        baseline: draw bars from here instead of dots.
        within: values that the axis never passes, such as 0 and 1 for a share.
    """
    needed = [value for row in found for value in _span(row.estimate)]
    needed += [value for value in (baseline, reference[0] if reference else None) if value is not None]
    letters = min(max([LETTERS, *(len(row.label) for row in found)]), MOST_LETTERS)
    inside = (min(max(value, within[0]), within[1]) for value in needed)
    scale = axis(inside, LETTER * letters, WIDTH - VALUE, ticks)
    marks = []
    for index, row in enumerate(found):
        ends = _ends(row.estimate, scale)
        low, high = ends or (None, None)
        said = f"{row.label}: {_said(row.estimate, write)}"
        marks.append(
            Mark(shorten(row.label, letters), said, write(row.estimate.value), scale.at(row.estimate.value), low, high,
                 32 + ROW * index, row.soft)
        )  # fmt: skip
    return RowPlot(
        id=id,
        title=title,
        description="; ".join(mark.title for mark in marks),
        axis=scale,
        marks=tuple(marks),
        height=32 + ROW * len(found) - 10 + (16 if reference else 0),
        reference=Tick(scale.at(reference[0]), reference[1]) if reference else None,
        baseline=None if baseline is None else scale.at(baseline),
    )


def scatter(id: str, title: str, names: tuple[str, str], found: Mapping[str, tuple[Estimate, Estimate]]) -> Scatter:
    """Lay out a share against a rating, one dot for each name, with both intervals."""
    height = 260.0
    x = axis((v for one, _ in found.values() for v in _span(one)), 52, WIDTH - 14, plain)
    y = axis((v for _, two in found.values() for v in _span(two)), height - 42, 28, short_percent)
    named = _names(found, [(x.at(one.value), y.at(two.value)) for one, two in found.values()], height)
    dots = []
    for beside, (name, (one, two)) in zip(named, found.items(), strict=True):
        said = f"{name}: {names[0]} {_said(one, whole)}, {names[1]} {_said(two, percent)}"
        place = x.at(one.value), y.at(two.value)
        dots.append(Dot(shorten(name), said, *place, _ends(one, x), _ends(two, y), beside))
    return Scatter(id, title, "; ".join(dot.title for dot in dots), x, y, *names, tuple(dots), height)


def _names(labels: Iterable[str], dots: Sequence[tuple[float, float]], height: float) -> list[Named]:
    """Places of names in a plot of some height, over its axis."""
    return place_names(dots, [LETTER * len(shorten(label)) for label in labels], (WIDTH, height - 42))


def climb(id: str, title: str, names: tuple[str, str], found: Mapping[str, Estimate], write: Write) -> Scatter:
    """Lay out a number after 0, 1, 2, ... steps, one dot for each, in order, with a line through them."""
    height = 240.0
    x = axis((0.0, float(max(len(found) - 1, 1))), 52, WIDTH - 40, whole)
    x = x._replace(ticks=tuple(Tick(x.at(step), whole(step)) for step in range(len(found))))
    y = axis((value for one in found.values() for value in _span(one)), height - 42, 28, write)
    places = [(x.at(step), y.at(one.value)) for step, one in enumerate(found.values())]
    dots = tuple(
        Dot(shorten(name), f"{name}: {names[1]} {_said(one, write)}", *place, None, _ends(one, y), beside)
        for place, beside, (name, one) in zip(places, _names(found, places, height), found.items(), strict=True)
    )
    line = " ".join(f"{dot.x:g},{dot.y:g}" for dot in dots)
    return Scatter(id, title, "; ".join(dot.title for dot in dots), x, y, *names, dots, height, line)


def reliability(id: str, title: str, scores: JudgeScores) -> Reliability:
    """Lay out a reliability table: accuracy by bin of confidence, with intervals and counts."""
    height, top, middle, foot = 310.0, 26.0, 222.0, 272.0
    bins = scores.reliability
    start = min([0.5, *(b.low for b in bins)])
    x = axis([start, 1.0], 52, WIDTH - 14, short_percent, wanted=5)
    y = axis([0.0, 1.0], middle, top, short_percent)
    most = max((b.n for b in bins), default=1)
    bars = []
    for b in bins:
        said = (
            f"confidence {short_percent(b.low)} to {short_percent(b.high)}: right {_said(b.accuracy, percent)}, n {b.n}"
        )
        bars.append(
            Bar(x.at(b.confidence), y.at(b.accuracy.value), _ends(b.accuracy, y), x.at(b.low), x.at(b.high),
                round(foot - 30 * b.n / most, 1), b.n, said)
        )  # fmt: skip
    diagonal = (x.at(start), y.at(start), x.at(1), y.at(1))
    return Reliability(id, title, "; ".join(bar.title for bar in bars), x, y, tuple(bars), foot, diagonal, height)


def curves(id: str, history: Sequence[Mapping[str, Any]], most: int = 6) -> tuple[list[Curve], list[str]]:
    """Lay out what a trainer logged, one small plot a number.

    Args:
        id: prefix of the plots' ids.
        history: the trainer's log; rows have "step".
        most: plots at most.

    Returns:
        The plots, those that matter most first, and the names of the numbers left out.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(history, key=lambda row: float(row["step"])):
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                series.setdefault(key, []).append((float(row["step"]), float(value)))
    names = [key for key, points in series.items() if len(points) > 1 and not _is_bookkeeping(key)]
    names.sort(key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key))
    return [_curve(f"{id}-{index}", key, series[key]) for index, key in enumerate(names[:most])], names[most:]


def shorten(label: str, letters: int = LETTERS) -> str:
    """A name of so many letters at most."""
    return label if len(label) <= letters else label[: letters - 1].rstrip() + "\u2026"


_FIRST = ("loss", "eval_loss", "rewards/accuracies", "rewards/margins", "eval_accuracy", "mean_token_accuracy",
          "eval_rewards/accuracies", "grad_norm", "learning_rate")  # fmt: skip


def _is_bookkeeping(key: str) -> bool:
    """Whether a logged number says nothing about learning: clocks, counters and the run's totals."""
    return key in ("step", "epoch", "total_flos", "num_tokens") or key.endswith(
        ("_runtime", "_per_second", "train_loss")
    )


def _curve(id: str, name: str, points: list[tuple[float, float]]) -> Curve:
    """One small plot."""
    size = math.ceil(len(points) / POINTS)
    if size > 1:
        chunks = [points[i : i + size] for i in range(0, len(points), size)]
        points = [(sum(p[0] for p in c) / len(c), sum(p[1] for p in c) / len(c)) for c in chunks]
    width, height = 180.0, 112.0
    x = axis([p[0] for p in points], 46, width - 6, whole, wanted=3)
    if points[-1][0] > points[0][0]:  # from the first step to the last, no further
        x = x._replace(low=points[0][0], high=points[-1][0])
        x = x._replace(ticks=tuple(Tick(x.at(v), whole(v)) for v in (x.low, x.high)))
    y = axis([p[1] for p in points], height - 24, 22, plain, wanted=2)
    places = [(x.at(a), y.at(b)) for a, b in points]
    values = [b for _, b in points]
    first, last = (f"{plain(value)} at step {whole(step)}" for step, value in (points[0], points[-1]))
    said = f"{name}: {first}, {last}, between {plain(min(values))} and {plain(max(values))}"
    drawn = " ".join(f"{a:g},{b:g}" for a, b in places)
    return Curve(id, name, said, x, y, drawn, places[-1], height, width)


def _span(estimate: Estimate) -> list[float]:
    """The values an axis must hold."""
    return [value for value in (estimate.value, estimate.low, estimate.high) if value is not None]


def _ends(estimate: Estimate, scale: Axis) -> tuple[float, float] | None:
    """Places of the interval's ends."""
    if estimate.low is None or estimate.high is None:
        return None
    return scale.at(estimate.low), scale.at(estimate.high)


def _said(estimate: Estimate, write: Write) -> str:
    """A value with its interval in words."""
    if estimate.low is None or estimate.high is None:
        return f"{write(estimate.value)} (no interval)"
    return f"{write(estimate.value)} [{write(estimate.low)}, {write(estimate.high)}]"
