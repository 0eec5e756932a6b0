import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.arena.match_record import match_record
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict

QUESTION = Question(id="q", text="?", answers=("x", "y"), correct=0, passage="x .", source="test")


def leg(a, b, p, question="q"):
    asked = QUESTION.model_copy(update={"id": question, "group": f"story of {question}"})
    game = open_transcript(asked, load_protocol("debate"), {"A": a, "B": b})
    if p is None:
        return JudgedDebate(transcript=game, failure=Failure(seat="judge", kind="context", message="too long"))
    return JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p)))


def test_a_match_goes_to_the_higher_mean_confidence_over_both_flips():
    legs = [leg("x", "y", 0.9), leg("y", "x", 0.6)]  # x: .9 and .4, y: .1 and .6
    legs += [leg("x", "y", 0.6, "q2"), leg("y", "x", 0.9, "q2")]  # x: .6 and .1
    legs += [leg("x", "y", 0.7, "q3"), leg("y", "x", 0.7, "q3")]
    record = match_record(legs)
    best = record.cell("x", "y")
    assert (best.won, best.tied, best.lost) == (1, 1, 1) and best.share.value == 0.5 and best.share.clusters == 3
    assert record.cell("x", "x") is None


def test_a_failed_leg_is_no_loss_and_self_play_no_match():
    record = match_record([leg("x", "y", 0.9), leg("y", "x", None), leg("x", "x", 0.9), leg("x", "y", 0.8, "q2")])
    assert record is None
    whole = [leg("x", "y", 0.9, "q3"), leg("y", "x", 0.2, "q3")]
    record = match_record([leg("x", "y", 0.9), leg("y", "x", None), leg("x", "y", 0.8, "q2"), *whole])
    assert record.unfinished == 2 and record.players[0].player == "x" and record.players[0].won == 1
    assert "2 matches have no winner" in str(record)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_what_one_wins_the_other_loses(confidences):
    legs = []
    for at, (first, second) in enumerate(confidences):
        legs += [leg("x", "y", first, f"q{at}"), leg("y", "x", second, f"q{at}")]
    record = match_record(legs)
    x, y = record.cell("x", "y"), record.cell("y", "x")
    assert (x.won, x.tied, x.lost) == (y.lost, y.tied, y.won) and x.won + x.tied + x.lost == len(confidences)
    assert x.share.value + y.share.value == pytest.approx(1)
    assert "matches won against, %" in str(record)
