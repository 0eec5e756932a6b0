import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.judges.presentation import (
    calibrated,
    combined,
    logprobs_of,
    mean_probability,
    probability,
    verdict,
    views,
)
from tests.judges.games import game, logs

SOME = st.lists(st.floats(0, 1), min_size=1, max_size=7)


def ask(p, order=(0, 1), draw=0, after=None):
    return Ask(sides=("A", "B"), order=order, logprobs=logprobs_of(p), draw=draw, after_turn=after)


def test_three_ways_to_combine():
    p = [0.9, 0.4, 0.45]
    assert combined(p, "mean") == pytest.approx(1.75 / 3)
    assert combined(p, "majority") == pytest.approx(1 / 3)
    assert combined(p, "weighted") == pytest.approx(0.8 / (0.8 + 0.2 + 0.1))
    assert combined([0.5, 0.9], "majority") == 0.75
    assert combined([0.5, 0.5], "weighted") == 0.5  # nobody knows anything


@given(SOME, st.sampled_from(["mean", "majority", "weighted"]))
def test_combining_is_a_probability_and_does_not_favour_an_answer(p, how):
    one, other = combined(p, how), combined([1 - x for x in p], how)
    assert -1e-9 <= one <= 1 + 1e-9 and one + other == pytest.approx(1, abs=1e-6)
    assert combined([p[0]] * 3, "mean") == pytest.approx(p[0])


def test_views_of_a_draw_are_averaged_before_draws_are_voted_on():
    asks = [ask(0.9, (0, 1), 0), ask(0.3, (1, 0), 0), ask(0.45, (0, 1), 1), ask(0.4, (1, 0), 1)]
    assert verdict("j", asks, combine="majority").p == (0.5, 0.5)  # .6 favours A, .425 does not
    assert verdict("j", asks).p[0] == pytest.approx(2.05 / 4)


def test_the_calibrator_comes_last_and_moments_stay_apart():
    asks = [ask(0.9, after=1), ask(0.8)]
    halved = Calibrator(kind="temperature", slope=0.5, n=1, clusters=1)
    found = verdict("j", asks, halved, "rev")
    assert found.p[0] == pytest.approx(2 / 3) and found.after_turn[0][0] == pytest.approx(0.75)
    assert found.revision == "rev" and sum(found.p) == 1


def test_a_failure_is_never_averaged_away():
    failure = Failure(seat="judge", kind="unparsed", message="what?")
    assert verdict("j", [ask(0.9), failure, ask(0.8)]) is failure


def test_probabilities_of_exactly_0_and_1_keep_finite_logs():
    for p in (0.0, 1.0):
        low, high = logprobs_of(p)
        assert math.isfinite(low) and math.isfinite(high)
        assert probability((low, high)) == pytest.approx(p, abs=2e-6)


def test_one_order_of_a_panel_is_its_members_mean():
    members = tuple(verdict("m", [ask(p), ask(p / 2, (1, 0))]) for p in (0.8, 0.4))
    panel = Verdict(judge="panel", p=(0.5, 0.5), members=members)
    assert mean_probability(panel, (0, 1)) == pytest.approx(0.6)
    assert mean_probability(panel, (1, 0)) == pytest.approx(0.3)


def test_what_is_asked(question):
    assert len(views(game(question))) == 2 and len(views(game(question), both_orders=False)) == 1
    assert {view.sides for view in views(game(question, "ensembled"))} == {("A",), ("B",)}
    turns = [view.after_turn for view in views(game(question, turns=3, verdict_after_each_turn=True), False)]
    assert turns == [1, 2, None]
    assert logs(0.5, 0.5) == list(logprobs_of(0.5))


LONE = Calibrator(kind="platt", slope=2.0, intercept=-1.0, n=1, clusters=1)
BOTH = Calibrator(kind="temperature", slope=0.5, n=1, clusters=1, lone=LONE)


def heard(side, p, order=(0, 1), draw=0):
    return ask(p, order, draw).model_copy(update={"sides": (side,)})


def test_a_lone_speaker_has_a_calibration_of_its_own():
    for p in (0.1, 0.5, 0.8):
        own = float(LONE.apply([p])[0])
        assert calibrated([heard("A", p)], calibrator=BOTH) == pytest.approx(own)
        assert calibrated([heard("B", 1 - p)], calibrator=BOTH) == pytest.approx(1 - own)
        without = BOTH.model_copy(update={"lone": None})
        assert calibrated([heard("A", p)], calibrator=without) == pytest.approx(float(BOTH.apply([p])[0]))
    assert calibrated([heard("A", 0.7)]) == pytest.approx(0.7)
    orders = [heard("B", 0.4), heard("B", 0.2, (1, 0)), heard("B", 0.7, draw=1), heard("B", 0.7, (1, 0), draw=1)]
    assert calibrated(orders, calibrator=BOTH) == pytest.approx(1 - float(LONE.apply([0.5])[0]))


def test_sides_that_are_read_alone_are_calibrated_alone_and_then_averaged(question):
    one, other = float(LONE.apply([0.9])[0]), float(LONE.apply([0.6])[0])
    asks = [heard("A", 0.9), heard("B", 0.4)]
    assert calibrated(asks, calibrator=BOTH) == pytest.approx((one + 1 - other) / 2)
    apart, together = (views(game(question, name)) for name in ("ensembled", "double"))
    assert {view.sides for view in apart} == {("A",), ("B",)}
    assert {view.sides for view in together} == {("A", "B"), ("B", "A")}  # no lone speaker in a double consultancy
    assert verdict("j", [ask(0.9)], BOTH).p[0] == pytest.approx(float(BOTH.apply([0.9])[0]))


@given(st.floats(0.01, 0.99))
def test_equal_sides_alone_leave_a_tie(p):
    asks = [heard("A", p), heard("B", 1 - p)]
    assert calibrated(asks, calibrator=BOTH) == pytest.approx(0.5)
