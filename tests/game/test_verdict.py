from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Match, Verdict


def leg(question, a, b, p=None):
    game = open_transcript(question, load_protocol("debate"), {"A": a, "B": b})
    if p is None:
        return JudgedDebate(transcript=game, failure=Failure(seat="A", turn=0, kind="context", message="too long"))
    return JudgedDebate(transcript=game, verdict=Verdict(judge="j", p=(p, 1 - p)))


def test_the_winner_has_the_higher_mean_probability(question):
    match = Match(legs=(leg(question, "x", "y", 0.9), leg(question, "y", "x", 0.6)))
    assert abs(match.probability("x") - 0.65) < 1e-12
    assert match.winner == "x"
    assert Match(legs=(leg(question, "x", "y", 0.7), leg(question, "y", "x", 0.7))).winner is None


def test_a_failed_leg_is_no_loss(question):
    match = Match(legs=(leg(question, "x", "y", 0.9), leg(question, "y", "x")))
    assert match.winner is None and match.probability("y") is None


def test_self_play_has_no_winner(question):
    assert Match(legs=(leg(question, "x", "x", 0.9), leg(question, "x", "x", 0.8))).winner is None


def test_records_survive_their_line_in_a_file(question):
    for one in (leg(question, "x", "y", 0.3), leg(question, "x", "y")):
        assert JudgedDebate.model_validate_json(one.model_dump_json()) == one
    assert leg(question, "x", "y", 0.3).p_correct == 0.3
