import math

import pytest

from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
from debate_rl.judges.calibration import Calibrator
from debate_rl.weak_to_strong.debate_function import debate_scores, summary


def leg(question, number, *gaps, correct=0):
    """A game whose judge favours answer 0 by a gap in log-odds in each order."""
    asked = question.model_copy(update={"id": f"q{number}", "group": f"g{number}", "correct": correct})
    asks = []
    for order, gap in zip(((0, 1), (1, 0)), gaps, strict=True):
        p = 1 / (1 + math.exp(-gap))
        asks.append(Ask(sides=("A", "B"), order=order, logprobs=(math.log(p), math.log(1 - p))))
    game = open_transcript(asked, load_protocol("explanations"), {"A": "strong", "B": "weak"})
    return JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(0.6, 0.4), asks=tuple(asks)))


def test_orders_are_averaged_in_log_odds_so_a_preference_for_a_place_cancels(question):
    for favour in (0.0, 1.0, 6.0):
        (score,) = debate_scores([leg(question, 0, 0.5 + favour, 0.5 - favour)], {"q0": "A"})
        assert score.d == pytest.approx(0.5) and score.p_first == pytest.approx(1 / (1 + math.exp(-0.5)))
    (turned,) = debate_scores([leg(question, 0, 0.5, 0.5)], {"q0": "B"})
    assert turned.d == pytest.approx(-0.5) and turned.p_first == pytest.approx(score.p_first)
    assert turned.strong_is_right is False
    (mapped,) = debate_scores(
        [leg(question, 0, 0.5, 0.5)], {"q0": "A"}, Calibrator(kind="temperature", slope=2.0, n=1, clusters=1)
    )
    assert mapped.d == pytest.approx(1.0)


def test_the_debate_function_is_set_against_the_truth(question):
    right = [leg(question, at, 2.0, 2.0) for at in range(6)]
    wrong = [leg(question, at, 1.0, 1.0, correct=1) for at in range(6, 8)]
    scores = debate_scores([*right, *wrong], dict.fromkeys([f"q{at}" for at in range(8)], "A"))
    found = summary("m", scores)
    assert (found.wins.value, found.right.value, found.strong_right.value) == (1, 0.75, 0.75)
    assert found.truth_gap.value == pytest.approx(1.0) and "D for truth" in str(found)
    assert summary("m", scores[:3]).truth_gap is None
