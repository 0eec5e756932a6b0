"""The page's section on iterated training, and the numbers of its curve."""

import pytest

from debate_rl.analysis.effects.table import effects
from debate_rl.analysis.iterations import curve
from debate_rl.arena.ratings import rate
from debate_rl.arena.tournament import outcomes
from debate_rl.report import load_run
from debate_rl.report.page import render
from debate_rl.report.stage_views import iterations_view
from tests.report.figure_data import described

SKILL = {"base": 0.0, "sft": 0.6, "it.1": 1.0, "it.2": 1.3}


@pytest.fixture
def run(made, tmp_path):
    """A run with a finished stage of two iterations."""
    folder = made.open_run(tmp_path / "run", stages=("it",))
    cross, alone = (
        [leg for leg in legs if leg.verdict] for legs in _legs(made, [made.question(number) for number in range(12)])
    )
    ratings = rate(outcomes(cross), resamples=50)
    points = curve(cross + alone, ["sft", "it.1", "it.2"], ratings)
    rounds = [
        {"iteration": k, "player": f"it.{k}", "learning_rate": 1e-4 / k, "reference": "sft", "opponent": "sft",
         "questions": 40, "met_before": k - 1, "preferences": {"pairs": 80, "mean_gap": 0.2},
         "training": {"train_loss": 0.6, "objective": {"target": "prob"}}}
        for k in (1, 2)
    ]  # fmt: skip
    metrics = {"points": [point.model_dump(mode="json") for point in points], "iterations": rounds, "legs": 312}
    made.put(folder, "it", metrics, kind="iterations", legs=cross + alone)
    return folder, points


def _legs(made, questions):
    names = list(SKILL)
    pairs = [(one, two) for one in names for two in names if one != two]
    cross = [made.leg(about, pair, skills=SKILL) for about in questions for pair in pairs]
    return cross, [made.leg(about, (name, name), skills=SKILL) for about in questions for name in names]


def test_the_curve_stands_in_the_page(run):
    folder, points = run
    html = render(load_run(folder), table=effects([folder]))
    section = html[html.index('<section id="iterations"') :]
    assert f"+{points[2].over_start.value:.0f}" in section and "Elo over sft" in section
    assert section.count("<svg") == 1 and "5e-05" in section
    summary = html[html.index('<section id="summary"') : html.index('<section id="iterations"')]
    assert "it.2 is stronger than sft" in summary


def test_the_curve_begins_at_the_start(run):
    folder, points = run
    (stage,) = load_run(folder).of("iterations")
    shown = described(iterations_view(stage, None).elo)
    assert [row["label"] for row in shown] == ["sft", "it.1", "it.2"]
    assert [row["value"] for row in shown] == [0.0, *(point.over_start.value for point in points[1:])]


def test_points_are_the_players_own_games(run):
    _, points = run
    assert [point.iteration for point in points] == [0, 1, 2] and points[0].over_start is None
    assert points[2].over_start.value == pytest.approx(points[2].rating.value - points[0].rating.value)
    assert points[2].over_start.low < points[2].over_start.value < points[2].over_start.high
    assert {point.judge.n for point in points} == {12} and points[1].persuaded is None
    assert "Elo" in str(points[2]) and "over the start" not in str(points[0])


def test_consultants_have_a_curve_without_ratings(made, tmp_path):
    questions = [made.question(number) for number in range(8)]
    legs = [made.leg(about, (name, name), "single", SKILL) for about in questions for name in ("sft", "it.1")]
    points = curve(legs, ["sft", "it.1"], None)
    assert points[1].rating is None and 0 < points[1].persuaded.value < 1
    folder = made.open_run(tmp_path / "run", stages=("it",))
    made.put(folder, "it", {"points": [p.model_dump(mode="json") for p in points], "legs": 16}, kind="iterations",
             legs=legs)  # fmt: skip
    html = render(load_run(folder), table=effects([folder]))
    section = html[html.index('<section id="iterations"') :]
    assert "consultant" in section and "Elo over" not in section.partition("</section>")[0]
