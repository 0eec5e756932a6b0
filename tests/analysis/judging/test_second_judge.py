import numpy as np
import pytest

from debate_rl.analysis.judging.second_judge import beside, finished, judge_again
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.verdict import Failure, JudgedDebate
from debate_rl.judges.judge import Judge
from tests.analysis.test_accuracy import legs

P = [0.9, 0.2, 0.6, 0.4, 0.8, 0.1, 0.7, 0.5]


def compared(question, first, second, failed=0):
    one = legs(question, "debate", "x", first)
    two = legs(question, "debate", "x", second, failed=failed)
    return beside({("debate", "x"): one}, {("debate", "x"): two}, ("one", "two"))


def test_a_judge_agrees_with_itself_and_not_with_its_opposite(question):
    same, opposite = compared(question, P, P), compared(question, P, [1 - p for p in P])
    assert same.same.value == pytest.approx((7 + 1) / 8) == 1 and same.correlation.value == pytest.approx(1)
    assert opposite.same.value == pytest.approx(1 / 8) and opposite.correlation.value == pytest.approx(-1)
    assert same.rows[0].difference.value == 0 and same.rows[0].correlation == same.correlation


def test_the_correlation_is_pearsons_over_probabilities_of_one_answer(question):
    other = [0.7, 0.4, 0.3, 0.6, 0.9, 0.2, 0.5, 0.1]
    found = compared(question, P, other)
    side = np.array([p if number % 2 == 0 else 1 - p for number, p in enumerate(P)])
    second = np.array([p if number % 2 == 0 else 1 - p for number, p in enumerate(other)])
    assert found.correlation.value == pytest.approx(np.corrcoef(side, second)[0, 1])
    assert found.correlation.low < found.correlation.value < found.correlation.high and found.correlation.clusters == 4
    assert found.rows[0].difference.value == pytest.approx(np.mean(np.sign(np.array(other) - 0.5) / 2) - np.mean(
        np.sign(np.array(P) - 0.5) / 2))  # fmt: skip


def test_a_constant_judge_has_no_correlation_and_agrees_by_half(question):
    found = compared(question, P, [0.5] * 8)
    assert found.correlation is None and "correlation -" in str(found)
    assert found.same.value == pytest.approx((7 / 2 + 1) / 8)  # the other judge is at one half once as well


def test_what_one_judge_failed_on_is_counted_and_compared_by_nobody(question):
    found = compared(question, P, P, failed=3)
    assert (found.rows[0].failed, found.same.n, found.rows[0].scores.n) == (3, 5, 5)
    nothing = compared(question, P, P, failed=8)
    assert nothing.rows[0].scores is None and nothing.same is None and "8" in str(nothing)


def test_only_finished_games_are_judged_again(question):
    whole = legs(question, "debate", "x", P[:3])
    unjudged = JudgedDebate(transcript=whole[1].transcript, failure=Failure(seat="judge", kind="k", message="m"))
    cut = JudgedDebate(
        transcript=whole[2].transcript.model_copy(update={"speeches": whole[2].transcript.speeches[:1]}),
        failure=Failure(seat="B", turn=0, kind="k", message="m"),
    )
    assert [finished(leg) for leg in (whole[0], unjudged, cut)] == [True, True, False]
    engine = ScriptedEngine(score=lambda choice: [0.0, 0.0])
    found = judge_again([whole[0], unjudged, cut], Judge(name="two", model="m"), engine)
    assert [leg.verdict and leg.verdict.judge for leg in found] == ["two", "two", None] and found[2] == cut
    assert engine.requests == [] and len(engine.choices) == 4
    rules = whole[0].transcript.protocol.model_copy(update={"calls": "rejected"})
    waiting = unjudged.model_copy(update={"transcript": whole[1].transcript.model_copy(update={"protocol": rules})})
    assert not finished(waiting)  # the judge was to call the next speaker
