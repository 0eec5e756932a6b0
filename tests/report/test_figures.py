"""Figures: the numbers in their data, the labels in their SVG, and that hostile text stays text."""

import math
import re

import pytest

from debate_rl.intervals import Estimate
from debate_rl.judges.scores import judge_scores
from debate_rl.report import figures
from debate_rl.report.chart import (
    ACCURACY,
    ELO,
    Labelled,
    Measure,
    RatedAccuracy,
    StudentPoint,
    WinRate,
)
from debate_rl.report.render import to_svg
from tests.report.figure_data import described, drawn, rows, texts

HOSTILE = "</svg><script>alert(1)</script> \"' & {{ 7 * 7 }} \x1b[31m \x00 \ud800 \uffff datum.value"


def estimate(value, low=None, high=None):
    return Estimate(value=value, low=low, high=high, n=40, clusters=20)


def every_figure(name="dpo"):
    """One of each kind, with a name wherever one can stand."""
    some = [Labelled(name, estimate(0.84, 0.78, 0.9)), Labelled("base", estimate(0.6))]
    rated = [
        RatedAccuracy(protocol, player, estimate(elo, elo - 30, elo + 30), estimate(0.7, 0.6, 0.8))
        for protocol in (name, "single")
        for player, elo in ((name, 1040), ("base", 960))
    ]
    students = [StudentPoint(name, x, f"{name}-{x}", estimate(0.7 + x / 50, 0.6, 0.9)) for x in (1, 2, 4)]
    return {
        "ratings": figures.ratings([Labelled(name, estimate(1093.2, 1061, 1128)), Labelled("base", estimate(907))]),
        "judge_accuracy": figures.judge_accuracy(name, some),
        "attack_effects": figures.attack_effects([Labelled(name, estimate(-0.167, -0.3, 0)), *some]),
        "student_accuracy": figures.student_accuracy(name, some),
        "pgr_by_method": figures.pgr_by_method(name, some),
        "accuracy_over_rating": figures.accuracy_over_rating(name, rated),
        "over_iterations": figures.over_iterations(name, ELO, [Labelled(name, estimate(0)), *some]),
        "over_steps": figures.over_steps(name, ACCURACY, [(0, estimate(0.6, 0.5, 0.7)), (40, estimate(0.7))]),
        "students_over": figures.students_over(name, "supervisors", students, 0.6, 0.9),
        "calibration": figures.calibration(name, judge_scores([0.05] * 30 + [0.95] * 10 + [0.6] * 5)),
        "training_curve": figures.training_curve(name, [(1, 0.5), (2, 0.4)]),
        "win_matrix": figures.win_matrix([WinRate(name, "base", 0.63, 160), WinRate("base", name, 0.37, 160)]),
    }


@pytest.fixture(scope="module")
def one_of_each():
    return every_figure()


def test_every_figure_has_title_alternative_text_and_titled_axes(one_of_each):
    for kind, figure in one_of_each.items():
        root = drawn(figure)
        title = root.find("{http://www.w3.org/2000/svg}title").text
        assert title and root.get("role") == "img" and root.get("aria-label").startswith(title), kind
        assert len(root.get("aria-label")) > len(title) + 10, kind
        assert "width" not in root.attrib and root.get("viewBox"), kind
    shown = {kind: " ".join(texts(figure)) for kind, figure in one_of_each.items()}
    for kind, axis in {
        "ratings": "Elo points", "judge_accuracy": "judge accuracy, %", "attack_effects": "points",
        "student_accuracy": "accuracy on the test items, %", "pgr_by_method": "gap recovered (PGR)",
        "over_steps": "training step", "students_over": "supervisors", "calibration": "confidence of the judge, %",
        "training_curve": "step", "win_matrix": "against",
    }.items():  # fmt: skip
        assert axis in shown[kind], kind


def test_the_same_rows_give_the_same_bytes(one_of_each):
    for kind, figure in every_figure().items():
        assert to_svg(figure) == to_svg(one_of_each[kind]), kind


def test_figures_follow_the_pages_colours(one_of_each):
    for kind, figure in one_of_each.items():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', to_svg(figure)))
        assert all(colour in ("none", "transparent") or colour.startswith("var(--") for colour in colours), kind


def test_hostile_text_stays_text():
    for kind, figure in every_figure(HOSTILE).items():
        svg = to_svg(figure)
        assert "<script" not in svg and "\x1b" not in svg and "url(" not in svg, kind
        assert not any(element.tag.endswith("script") for element in drawn(figure).iter()), kind
        assert "<script>alert(1)</script>" in drawn(figure).get("aria-label"), kind


@pytest.mark.parametrize("name", ["x\U0001f600" * 60, "\u202e\u0301a\tb\nc" * 4, ""])
def test_names_of_any_characters_are_drawn(name):
    for figure in every_figure(name).values():
        drawn(figure)


def test_names_that_begin_alike_are_told_apart():
    names = [f"a player with a very long name, number {number}" for number in (1, 2)]
    rates = [WinRate(names[0], names[1], 0.6, 8), WinRate(names[1], names[0], 0.4, 8)]
    assert len({row["player"] for row in described(figures.win_matrix(rates))}) == 2
    labelled = [Labelled(name, estimate(1000)) for name in names]
    for figure in (figures.ratings(labelled), figures.over_iterations("Elo", ELO, labelled)):
        assert len({row["label"] for row in described(figure)}) == 2


def test_rows_hold_values_and_intervals_in_the_units_of_their_axis(one_of_each):
    first, second = described(one_of_each["judge_accuracy"])
    assert (first["value"], first["low"], first["high"], first["text"]) == (84, 78, 90, "84.0")
    assert second["low"] is None and second["description"] == "base: 60.0 (no interval)"
    assert rows(one_of_each["judge_accuracy"], label="chance") == [{"label": "chance", "value": 50.0}]
    elo, _ = described(one_of_each["ratings"])
    assert (elo["value"], elo["description"]) == (1093.2, "dpo: 1093 [1061, 1128]")
    assert described(one_of_each["attack_effects"])[0]["text"] == "\u221216.7"
    shown = texts(one_of_each["ratings"])
    assert shown.index("dpo") < shown.index("base") and "1093" in shown


def test_rows_of_one_name_are_all_drawn():
    shown = texts(figures.attack_effects([Labelled("finetuned", estimate(value)) for value in (-0.3, 0.1)]))
    assert len([text for text in shown if text.startswith("finetuned")]) == 2
    assert {"\u221230.0", "10.0"} <= set(shown)


def test_long_names_are_cut_in_the_figure_and_whole_in_its_alternative_text():
    name = "a player with a very long name that does not fit"
    figure = figures.ratings([Labelled(name, estimate(1000, 900, 1100))])
    assert name not in texts(figure) and any(text.endswith("\u2026") for text in texts(figure))
    assert name in drawn(figure).get("aria-label")


def test_an_axis_never_passes_the_limits_of_its_measure():
    wide = figures.pgr_by_method("PGR", [Labelled("debate", estimate(0.8, -7, 9))])
    domains = [
        layer["encoding"]["x"]["scale"]["domain"]
        for layer in wide.to_dict()["layer"]
        if "scale" in layer["encoding"]["x"]
    ]
    assert domains and all(domain == [-1, 2] for domain in domains)


@pytest.mark.parametrize("value", [0.0, 5.0, math.nan])
def test_figures_of_one_value_or_of_none_are_drawn(value):
    drawn(figures.over_steps("t", Measure("tokens"), [(0, estimate(value)), (1, estimate(value))]))


def test_accuracy_over_rating_has_a_line_for_each_protocol_and_each_name_once(one_of_each):
    data = described(one_of_each["accuracy_over_rating"])
    assert [(row["series"], row["label"], row["rating"], row["value"]) for row in data] == [
        ("dpo", "base", 960, 70), ("single", "base", 960, 70), ("dpo", "dpo", 1040, 70), ("single", "dpo", 1040, 70)
    ]  # fmt: skip
    shown = texts(one_of_each["accuracy_over_rating"])
    assert shown.count("base") == 1 and "single" in shown


def test_calibration_shows_every_bin_with_its_count(one_of_each):
    bins = described(one_of_each["calibration"])
    assert [row["n"] for row in bins] == [5, 40]
    assert bins[1]["value"] == 25 and bins[1]["confidence"] == pytest.approx(95)
    assert {"5", "40"} <= set(texts(one_of_each["calibration"]))
    drawn(figures.calibration("empty", judge_scores([0.7]).model_copy(update={"reliability": ()})))


def test_a_training_curve_says_where_it_begins_and_ends(one_of_each):
    drawn_rows = [(row["step"], row["value"]) for row in rows(one_of_each["training_curve"])]
    assert drawn_rows[:2] == [(1, 0.5), (2, 0.4)]
    assert "0.5 at step 1, 0.4 at step 2, between 0.4 and 0.5" in drawn(one_of_each["training_curve"]).get("aria-label")


def test_students_stand_between_weak_model_and_ceiling(one_of_each):
    figure = one_of_each["students_over"]
    assert [(row["x"], row["label"]) for row in described(figure)] == [(1, "dpo-1"), (2, "dpo-2"), (4, "dpo-4")]
    assert [row["value"] for name in ("weak", "ceiling") for row in rows(figure, label=name)] == [60, 90]
    assert {"1", "2", "4", "weak", "ceiling"} <= set(texts(figure))


def test_a_win_matrix_holds_both_directions(one_of_each):
    assert [(row["player"], row["opponent"], row["value"]) for row in described(one_of_each["win_matrix"])] == [
        ("dpo", "base", 63), ("base", "dpo", 37)
    ]  # fmt: skip
    assert {"63.0", "37.0"} <= set(texts(one_of_each["win_matrix"]))
