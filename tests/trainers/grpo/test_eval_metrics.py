"""The curve: ratings, sides, two judges, and when alarms sound."""

import pytest

from debate_rl.game.transcript import Origin, Speech, Transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict
from debate_rl.trainers.grpo.eval_metrics import START, Measured, Point, point, sounded
from debate_rl.trainers.grpo.groups import POLICY
from debate_rl.trainers.grpo.settings import Alarms
from tests.trainers.games import question, rules

ALARMS = Alarms(judges_part=0.1, one_side=0.9, accuracy_falls=0.1)


def measured(number, a, b, p, second=None, failed=False, protocol="debate"):
    """A game with the probabilities that two judges give answer 0."""
    seats = {side: name for side, name in (("A", a), ("B", b)) if name}
    speeches = tuple(
        Speech(side=side, turn=0, text="x", origin=Origin(player=name, new_tokens=7)) for side, name in seats.items()
    )
    game = Transcript(
        question=question(number, correct=number % 2), protocol=rules(protocol), players=seats, speeches=speeches
    )
    if failed:
        return Measured(leg=JudgedDebate(transcript=game, failure=Failure(seat="judge", kind="x", message="y")))
    other = (
        None if second is None else JudgedDebate(transcript=game, verdict=Verdict(judge="two", p=(second, 1 - second)))
    )
    return Measured(leg=JudgedDebate(transcript=game, verdict=Verdict(judge="one", p=(p, 1 - p))), second=other)


def games(policy=0.5, second=0.5, alone=None, count=12):
    """The policy meets the start on both sides, and itself; both judges' probabilities for it, or for side A.

    Without `alone` the judges are right about its games with itself, which each side wins in turn.
    """
    found = []
    for n in range(count):
        found.append(measured(n, POLICY, START, policy, second))
        found.append(measured(n, START, POLICY, 1 - policy, 1 - second))
        p = alone or (0.6 if n % 2 == 0 else 0.4)
        found.append(measured(n, POLICY, POLICY, p, p))
    return found


def test_a_policy_that_wins_is_rated_above_the_start():
    now = point(5, games(policy=0.8, second=0.8), games(), ALARMS)
    assert now.elo.value > 100 and now.wins.value == pytest.approx(0.8)
    then = point(0, games(), games(), ALARMS)
    assert then.elo.value == pytest.approx(0, abs=1e-3) and then.accuracy_change.value == 0
    assert point(5, games(policy=0.2), games(), ALARMS).elo.value < -100


def test_judges_that_part_are_heard():
    found = point(5, games(policy=0.9, second=0.55), games(), ALARMS)
    assert found.judges_part.value == pytest.approx(0.35)
    assert any("judges part" in alarm for alarm in found.alarms)
    assert not point(5, games(policy=0.9, second=0.85), games(), ALARMS).alarms


def test_what_parted_before_training_is_no_alarm():
    apart = games(policy=0.9, second=0.55)
    assert not point(5, apart, apart, ALARMS).alarms


@pytest.mark.parametrize(("p", "said"), [(0.9, "A wins 1.00"), (0.1, "B the others")])
def test_one_side_that_always_wins_is_heard(p, said):
    found = point(5, games(alone=p), games(alone=p), ALARMS)
    assert len(found.alarms) == 1 and said in found.alarms[0]
    assert found.side_a.value == float(p > 0.5)


def test_a_judge_that_is_right_less_often_is_heard():
    def by_answer(right):
        p = [right if n % 2 == 0 else 1 - right for n in range(12)]
        return [measured(n, POLICY, POLICY, p[n], 0.7 if n % 2 == 0 else 0.3) for n in range(12)]

    found = point(5, by_answer(0.2), by_answer(0.8), ALARMS)
    assert found.accuracy.value == 0 and found.second.value == 1
    assert found.accuracy_change.value == -1 and found.second_change.value == 0
    assert len(found.alarms) == 1 and "of the training judge" in found.alarms[0]


def test_an_alarm_waits_for_its_whole_interval():
    wide = point(5, games(policy=0.9, second=0.55, count=1), games(count=1), ALARMS)
    assert wide.judges_part.low is None and not wide.alarms  # one story: there is no interval
    assert sounded(Point(step=1), ALARMS) == ()


def test_games_without_a_verdict_are_counted_and_left_out():
    some = [*games(), measured(3, POLICY, START, 0.9, failed=True)]
    assert point(5, some, games(), ALARMS).failed == 1
    assert point(5, some, games(), ALARMS).elo.value == pytest.approx(0, abs=1e-3)
    nothing = point(5, [measured(n, POLICY, START, 0.9, failed=True) for n in range(4)], games(), ALARMS)
    assert nothing.elo is None and nothing.accuracy is None and nothing.failed == 4


def test_a_lone_consultant_has_no_rating_and_is_measured_by_how_far_the_judge_follows():
    alone = [measured(n, POLICY, None, 0.7, 0.5, protocol="single") for n in range(8)]
    found = point(5, alone, alone, ALARMS)
    assert found.elo is None and found.side_a is None
    assert found.wins.value == pytest.approx(0.7) and found.judges_part.value == 0
    assert found.tokens.value == 7 and found.valid.value == 0


def test_numbers_for_the_log():
    numbers = point(5, games(policy=0.8), games(), ALARMS).numbers
    assert numbers["accuracy"] == 1.0 and numbers["alarms"] == len(point(5, games(policy=0.8), games(), ALARMS).alarms)
    assert all(isinstance(value, float) for value in numbers.values())
