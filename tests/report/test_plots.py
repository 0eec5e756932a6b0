import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.intervals import Estimate
from debate_rl.judges.scores import judge_scores
from debate_rl.report.plots import (
    POINTS,
    Row,
    axis,
    curves,
    fixed,
    percent,
    plain,
    points,
    reliability,
    rows,
    scatter,
    short_percent,
    short_points,
    shorten,
    whole,
)

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))


def estimate(value, low=None, high=None):
    return Estimate(value=value, low=low, high=high, n=40, clusters=20)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_axis_holds_its_values_between_round_ends(values):
    found = axis(values, 0, 100, plain)
    span = found.high - found.low
    assert found.low - 1e-6 * span <= min(values) and max(values) <= found.high + 1e-6 * span
    places = [tick.place for tick in found.ticks]
    assert places == sorted(places) and places[0] == 0 and places[-1] == 100
    assert 2 <= len(places) <= 9
    assert all(0 <= found.at(value) <= 100 for value in values)


@given(st.lists(numbers, min_size=2, max_size=2, unique=True))
def test_axis_keeps_order(pair):
    low, high = sorted(pair)
    found = axis(pair, 10, 300, plain)
    assert found.at(low) <= found.at(high)
    down = axis(pair, 300, 10, plain)
    assert down.at(low) >= down.at(high)


def test_axis_of_shares_has_round_ticks():
    assert [tick.text for tick in axis([0.52, 0.97], 0, 1, short_percent).ticks] == ["40 %", "60 %", "80 %", "100 %"]


def test_axis_without_finite_values_is_drawn():
    assert len(axis([math.nan, math.inf], 0, 1, plain).ticks) > 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (percent(0.75), "75.0 %"),
        (short_percent(0.75), "75 %"),
        (short_percent(0.025), "2.5 %"),
        (whole(-0.4), "0"),
        (fixed(-1.25, 1), "\u22121.2"),
        (plain(0.00002), "2e\u221205"),
        (plain(1234.5), "1234"),
    ],
)
def test_numbers_are_worded(text, wanted):
    assert text == wanted


def test_rows_lie_one_below_the_other_with_their_intervals():
    plot = rows(
        "r", "Elo", [Row("dpo", estimate(1092, 1060, 1121)), Row("base", estimate(915), soft=True)], whole, plain
    )
    first, second = plot.marks
    assert first.low < first.x < first.high and second.x < first.low
    assert second.low is None and second.soft
    assert first.y < second.y < plot.height
    assert plot.description == "dpo: 1092 [1060, 1121]; base: 915 (no interval)"


def test_reference_and_baseline_are_on_the_axis():
    plot = rows(
        "r",
        "accuracy",
        [Row("debate", estimate(0.9, 0.8, 1.0))],
        percent,
        short_percent,
        reference=(0.5, "chance"),
        within=(0, 1),
    )
    assert plot.axis.low <= 0.5 and plot.axis.high == 1.0
    assert plot.axis.start <= plot.reference.place < plot.marks[0].x
    bars = rows("b", "accuracy", [Row("hh", estimate(0.48, 0.4, 0.6))], percent, short_percent, baseline=0.5)
    assert bars.marks[0].x < bars.baseline


def test_differences_of_shares_are_in_points():
    assert (points(-0.1667), points(0.0), short_points(-0.5), short_points(0.025)) == ("−16.7", "0.0", "−50", "2.5")


def test_long_names_are_cut_in_the_plot_and_whole_in_its_title():
    name = "a player with a very long name"
    plot = rows("r", "Elo", [Row(name, estimate(1000, 900, 1100))], whole, plain)
    assert plot.marks[0].label == shorten(name, 26) and len(plot.marks[0].label) == 26
    assert plot.marks[0].title.startswith(name)
    short, fits = (
        rows("r", "Elo", [Row(name, estimate(1000))], whole, plain) for name in ("sft", "ensembled · sft@16")
    )
    assert fits.marks[0].label == "ensembled · sft@16" and fits.axis.start > short.axis.start
    assert len(shorten(name)) <= 17


def test_scatter_puts_higher_up_and_stronger_right():
    found = {"weak": (estimate(950, 900, 990), estimate(0.6, 0.5, 0.7)), "strong": (estimate(1050), estimate(0.8))}
    weak, strong = scatter("s", "t", ("Elo", "accuracy"), found).dots
    assert strong.x > weak.x and strong.y < weak.y
    assert weak.y_ends[0] > weak.y > weak.y_ends[1]
    assert strong.x_ends is None and strong.name.left and not weak.name.left


def test_reliability_of_a_sure_and_wrong_judge_lies_below_the_diagonal():
    plot = reliability("r", "before", judge_scores([0.05] * 30 + [0.95] * 10 + [0.6] * 5))
    sure = plot.bars[-1]
    on_diagonal = plot.y.at(0.95)
    assert sure.y > on_diagonal  # downwards in the view box
    assert [bar.n for bar in plot.bars] == [5, 40]
    assert plot.floor - sure.top == pytest.approx(30) and plot.bars[0].top > sure.top
    assert plot.x.low == 0.5


def test_curves_show_what_matters_first_and_name_what_is_left_out():
    history = [
        {"step": s, "loss": 1 / s, "epoch": s, "grad_norm": s, "zeta": 1.0, "eval_runtime": s} for s in (1, 2, 3)
    ]
    drawn, left_out = curves("c", history, most=2)
    assert [plot.title for plot in drawn] == ["loss", "grad_norm"]
    assert left_out == ["zeta"]
    assert drawn[0].description == "loss: 1 at step 1, 0.3333 at step 3, between 0.3333 and 1"


def test_curve_leaves_out_what_is_not_a_number():
    history = [
        {"step": 1, "loss": math.nan},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": "0.5"},
        {"step": 4, "loss": 0.5},
    ]
    drawn, _ = curves("c", history)
    assert len(drawn[0].points.split()) == 2
    assert "nan" not in drawn[0].points


def test_long_curves_are_means_of_stretches():
    history = [{"step": s, "loss": float(s % 2)} for s in range(1, 10 * POINTS + 1)]
    places = curves("c", history)[0][0].points.split()
    assert len(places) == POINTS
    assert len({place.split(",")[1] for place in places}) == 1


def test_curve_of_rows_out_of_order_or_at_one_step_is_drawn():
    drawn, _ = curves("c", [{"step": 3, "loss": 1.0}, {"step": 1, "loss": 2.0}])
    first, last = (float(place.split(",")[0]) for place in drawn[0].points.split())
    assert first < last
    assert curves("c", [{"step": 2, "loss": 1.0}, {"step": 2, "loss": 1.5}])[0]
    assert curves("c", []) == ([], [])
