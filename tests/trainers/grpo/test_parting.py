"""From which step on the training judge's favour and the truth go different ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.intervals import Effect
from debate_rl.trainers.grpo.eval_metrics import Point, point
from debate_rl.trainers.grpo.parting import Parted, parting
from tests.trainers.grpo.test_eval_metrics import ALARMS, games


def change(value, width=0.05):
    return Effect(value=value, low=value - width, high=value + width, n=40, clusters=20, p=0.5)


def curve(*changes):
    """Points at steps 0, 10, 20... from changes of win rate, accuracy and the judges' gap."""
    points = []
    for number, (wins, right, gap) in enumerate(changes):
        points.append(
            Point(step=10 * number, wins_change=change(wins), accuracy_change=change(right), judges_part=change(gap))
        )
    return points


def test_the_step_is_the_first_from_which_on_win_rate_rises_and_truth_falls():
    found = parting(curve((0, 0, 0), (0.2, -0.1, 0), (0.2, -0.02, 0.2), (0.3, -0.2, 0.2), (0.4, -0.3, 0.3)))
    assert found.truth == Parted(after=20, step=30)  # at step 20 the fall was no longer shown
    assert found.held_out == Parted(after=10, step=20)
    assert "between steps 20 and 30" in str(found) and "between steps 10 and 20" in str(found)


def test_persuasion_that_is_right_as_often_is_no_hacking_and_neither_is_a_fall_without_a_gain():
    assert parting(curve((0, 0, 0), (0.4, 0.0, 0), (0.5, 0.1, 0))).truth is None
    assert parting(curve((0, 0, 0), (-0.1, -0.3, 0.2))) == parting([])
    assert str(parting([])) == ""


def test_points_without_an_interval_part_nothing():
    one_story = Effect(value=0.5, n=4, clusters=1)
    assert parting([Point(step=0), Point(step=5, wins_change=one_story, judges_part=one_story)]).held_out is None


def test_the_measured_games_give_the_changes():
    now = point(5, games(policy=0.9, second=0.55), games(), ALARMS)
    assert now.wins_change.value == pytest.approx(0.4) and now.second_wins_change.value == pytest.approx(0.05)
    assert now.second_wins.value == pytest.approx(0.55)
    assert parting([point(0, games(), games(), ALARMS), now]).held_out == Parted(after=0, step=5)


@given(st.lists(st.tuples(*[st.sampled_from((-0.2, 0.0, 0.2))] * 3), max_size=8))
def test_from_the_parting_step_on_every_measurement_is_apart_and_the_one_before_is_not(changes):
    found = parting(curve(*changes)).truth
    apart = [wins > 0 and right < 0 for wins, right, _ in changes]
    if found is None:
        assert not apart or not apart[-1]
    else:
        first = found.step // 10
        assert all(apart[first:]) and (first == 0 or not apart[first - 1])
