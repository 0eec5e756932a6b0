import numpy as np
import pytest

from debate_rl.analysis.accuracy import accuracy_table, cross_play, paired_differences
from debate_rl.analysis.behaviour.behaviour import behaviour
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict


def legs(question, protocol, player, right, failed=0):
    """Self-play on questions in stories of two; `right` says how sure the judge was of the correct answer."""
    found = []
    for number, p in enumerate(right):
        asked = question.model_copy(update={"id": f"q{number}", "group": f"g{number // 2}", "correct": number % 2})
        game = open_transcript(asked, load_protocol(protocol), {"A": player, "B": player})
        speech = "<quote>the pipe was moved</quote>" if number % 2 else "<quote>never</quote> said so"
        for side in game.speakers(0) if game.protocol.turns else ():
            game = game.add([read_speech(speech, game, side, 0, Origin(player=player))])
        verdict = Verdict(judge="j", p=(p, 1 - p) if asked.correct == 0 else (1 - p, p))
        broken = Failure(seat="judge", kind="k", message="m")
        found.append(
            JudgedDebate(transcript=game, failure=broken)
            if number < failed
            else JudgedDebate(transcript=game, verdict=verdict)
        )
    return found


def test_failed_legs_are_counted_and_not_scored(question):
    (row,) = accuracy_table({("debate", "x"): legs(question, "debate", "x", [0.9] * 6, failed=2)})
    assert (row.failed, row.scores.n, row.scores.accuracy.value) == (2, 4, 1.0)
    with pytest.raises(UserError, match="protocol 'debate', player 'x': no leg with a verdict, of 2"):
        accuracy_table({("debate", "x"): legs(question, "debate", "x", [0.9] * 2, failed=2)})


def test_differences_are_paired_by_question(question):
    debate = legs(question, "debate", "x", [0.9] * 8 + [0.1] * 2)
    single = legs(question, "single", "x", [0.9] * 4 + [0.1] * 6)
    blind = legs(question, "blind", "-", [0.5] * 10)
    found = paired_differences({("debate", "x"): debate, ("single", "x"): single, ("blind", "-"): blind})
    assert [(d.first, d.second, d.player) for d in found] == [("debate", "single", "x"), ("debate", "blind", "x")]
    assert found[0].accuracy.value == pytest.approx(0.4) and found[0].accuracy.clusters == 5
    assert found[1].accuracy.value == pytest.approx(0.3)


def test_behaviour_counts_each_speech_once(question):
    found = legs(question, "debate", "x", [0.9] * 4)
    (row,) = behaviour(found + found)
    assert row.speeches == 8
    assert row.exact.value == row.valid.value == 0.5
    assert row.quotes.value == 1 and row.words.value == pytest.approx((4 + 3) / 2)


def test_differences_are_of_every_score_and_of_any_reference(question):
    debate, blind = legs(question, "debate", "x", [0.9] * 6), legs(question, "blind", "-", [0.6] * 6)
    (found,) = paired_differences({("debate", "x"): debate, ("blind", "-"): blind})
    assert found.accuracy.value == 0 and found.brier.value == pytest.approx(0.01 - 0.16)
    assert found.log_score.value == pytest.approx(np.log2(0.9 / 0.6))
    (turned,) = paired_differences({("debate", "x"): debate, ("blind", "-"): blind}, "blind")
    assert (turned.first, turned.second, turned.player) == ("blind", "debate", "x")
    assert turned.brier.value == pytest.approx(-found.brier.value)


def test_cross_play_stands_beside_self_play(question):
    alone = legs(question, "debate", "x", [0.9] * 6) + legs(question, "debate", "y", [0.9] * 6)
    met = [
        leg.model_copy(update={"transcript": leg.transcript.model_copy(update={"players": {"A": one, "B": two}})})
        for one, two in (("x", "y"), ("y", "x"), ("x", "z"))
        for leg in legs(question, "debate", one, [0.9] * 3 + [0.1] * 3)
    ]
    found = cross_play(alone + met)
    assert found.scores.n == 18 and found.scores.accuracy.value == 0.5 and found.minus_self.value == -0.5
    assert {(pair.first, pair.second): pair.accuracy.n for pair in found.pairs} == {("x", "y"): 12, ("x", "z"): 6}
    assert found.minus_self.n == 6 and cross_play(met).minus_self is None and cross_play(alone) is None
