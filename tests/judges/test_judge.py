import math

import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import Judge, judge_transcripts, probability
from tests.judges.games import game


def first_shown(choice):
    """A judge that always favours whoever is listed first."""
    text = choice.messages[-1].content
    listed = text[text.index("answers : ") + 10 :].split(" or ")[0]
    return [math.log(0.8) if candidate == listed else math.log(0.2) for candidate in choice.candidates]


def test_both_orders_remove_a_position_bias(question):
    engine = ScriptedEngine(score=first_shown)
    both, one = (
        judge_transcripts([game(question)], Judge(model="m", both_orders=both), engine)[0] for both in (True, False)
    )
    assert both.p == pytest.approx((0.5, 0.5)) and len(both.asks) == 2
    assert one.p == pytest.approx((0.8, 0.2)) and len(one.asks) == 1
    assert both.asks[0].logprobs != both.asks[1].logprobs  # raw answers are kept


def test_an_ensembled_judge_reads_each_side_alone_and_averages(question):
    engine = ScriptedEngine(
        score=lambda c: (
            [math.log(0.9), math.log(0.1)] if "said A" in c.messages[-1].content else [math.log(0.4), math.log(0.6)]
        )
    )
    (verdict,) = judge_transcripts([game(question, "ensembled")], Judge(model="m", both_orders=False), engine)
    assert verdict.p[0] == pytest.approx((0.9 + 0.4) / 2)
    for choice in engine.choices:
        assert ("said A" in choice.messages[-1].content) != ("said B" in choice.messages[-1].content)


def test_many_transcripts_are_one_call(question):
    engine = ScriptedEngine()
    judge_transcripts([game(question), game(question, "single"), game(question, "blind")], Judge(model="m"), engine)
    assert engine.calls == 1 and len(engine.choices) == 6


def test_verdicts_between_turns(question):
    engine = ScriptedEngine(score=lambda c: [float(c.messages[-1].content.count("said")), 0.0])
    (verdict,) = judge_transcripts([game(question, turns=3, verdict_after_each_turn=True)], Judge(model="m"), engine)
    assert len(verdict.after_turn) == 2
    assert verdict.after_turn[0][0] < verdict.after_turn[1][0] < verdict.p[0]


def test_a_choice_that_fails_is_a_failure_and_not_a_half(question):
    def score(choice):
        if "said B" in choice.messages[-1].content:
            raise RuntimeError("gone")
        return [0.0, 0.0]

    found = judge_transcripts([game(question), game(question, "blind")], Judge(model="m"), ScriptedEngine(score=score))
    assert isinstance(found[0], Failure) and found[0].seat == "judge"
    assert isinstance(found[1], Verdict)
    (nan,) = judge_transcripts([game(question)], Judge(model="m"), ScriptedEngine(score=lambda c: [math.nan, 0.0]))
    assert isinstance(nan, Failure)


def test_probabilities_of_extreme_scores():
    assert probability((0.0, -1e9)) == 1.0 and probability((-1e9, 0.0)) == pytest.approx(0.0)
    assert probability((-1.0, -1.0)) == 0.5


def test_a_judge_that_answers_neither_name_is_a_failure_where_a_mass_is_wanted(question):
    engine = ScriptedEngine(score=lambda c: [math.log(0.03), math.log(0.01)])
    (taken,) = judge_transcripts([game(question)], Judge(model="m"), engine)
    (refused,) = judge_transcripts([game(question)], Judge(model="m", min_answer_mass=0.05), engine)
    assert taken.p[0] == pytest.approx(0.5, abs=0.3) and isinstance(refused, Failure) and refused.kind == "neither"
    assert isinstance(judge_transcripts([game(question)], Judge(model="m", min_answer_mass=0.04), engine)[0], Verdict)
