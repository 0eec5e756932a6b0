import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from debate_rl.analysis.honesty import formatted, honesty
from debate_rl.analysis.judging.consistency import consistency
from debate_rl.analysis.judging.consistency import formatted as consistency_table
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict


def leg(number, p_correct, protocol="debate", orders=None):
    correct = number % 2
    asked = Question(id=f"q{number}", text="?", answers=("x", "y"), correct=correct, passage="x .", group=f"g{number}")
    rules = load_protocol(protocol)
    game = open_transcript(asked, rules, {"A": "p", "B": "p"} if rules.turns else {})
    for turn in range(rules.turns):
        game = game.add([read_speech("so", game, s, turn, Origin(player="p")) for s in game.speakers(turn)])
    asks = []
    for order, p in zip(((0, 1), (1, 0)), orders or (), strict=False):
        first = p if correct == 0 else 1 - p
        asks.append(Ask(sides=("A", "B"), order=order, logprobs=(math.log(first), math.log(1 - first))))
    p_first = p_correct if correct == 0 else 1 - p_correct
    verdict = Verdict(judge="j", p=(p_first, 1 - p_first), asks=tuple(asks))
    return JudgedDebate(transcript=game, verdict=verdict)


def test_the_agent_score_difference_of_a_debate_is_the_mean_log_odds_of_the_truth():
    p = [0.9, 0.6, 0.3, 0.8]
    (row,) = honesty({("debate", "p"): [leg(at, one) for at, one in enumerate(p)]})
    expected = sum(math.log2(one / (1 - one)) for one in p) / len(p)
    assert row.difference.value == pytest.approx(expected) and row.difference.n == 8
    assert "selective gap" in formatted([row])


def test_a_consultancy_compares_games_of_honest_and_of_dishonest_speakers():
    legs = [leg(at, 0.8, "single") for at in range(40)]
    honest = sum(one.transcript.present == ("AB"[one.transcript.question.correct],) for one in legs)
    assert 0 < honest < 40
    (row,) = honesty({("single", "p"): legs, ("blind", "-"): [leg(0, 0.8, "blind")]})
    assert row.difference.value == pytest.approx(math.log2(0.8) - math.log2(0.2)) and row.difference.n == 40


def test_the_selective_gap_runs_from_deceived_to_certain():
    gaps = []
    for p in (0.9, 0.5, 0.1):
        (row,) = honesty({("debate", "p"): [leg(at, p) for at in range(12)]})
        gaps.append(row.selective.value)
    assert gaps == pytest.approx([1, 0, -1])


@settings(max_examples=20)
@example([0.01, 0.99])
@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=20))
def test_lies_told_as_truths_turn_both_numbers_round(p):
    (true,) = honesty({("debate", "p"): [leg(at, one) for at, one in enumerate(p)]})
    (false,) = honesty({("debate", "p"): [leg(at, 1 - one) for at, one in enumerate(p)]})
    assert false.difference.value == pytest.approx(-true.difference.value, abs=1e-9)
    assert false.selective.value == pytest.approx(-true.selective.value, abs=1e-6)


def test_a_judge_is_counted_order_by_order():
    orders = [(0.9, 0.8), (0.9, 0.2), (0.3, 0.4), (0.9, 0.5)]
    (row,) = consistency({("debate", "p"): [leg(at, 0.6, orders=two) for at, two in enumerate(orders)]})
    assert (row.both.value, row.one.value, row.none.value) == (0.25, 0.5, 0.25)
    assert row.rule.value == 0.5 and row.same.value == 0.5
    assert "JudgeBench's rule" in consistency_table([row])
    assert consistency({("debate", "p"): [leg(0, 0.6), leg(1, 0.6, orders=(0.9,))]}) == ()
