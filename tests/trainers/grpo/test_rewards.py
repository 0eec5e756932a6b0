"""Rewards: what a probability is worth, penalties, and what earns nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.game.quotes import Quote
from debate_rl.game.transcript import Origin, Speech
from debate_rl.trainers.grpo.rewards import all_equal, earned, invalid_share, value, win_term
from debate_rl.trainers.grpo.settings import Rewards

P = st.floats(0.02, 0.98)


def speech(verdicts=(), finish="stop", new_tokens=10):
    quotes = tuple(Quote(text="x", start=0, end=1, verdict=verdict) for verdict in verdicts)
    origin = Origin(player="policy", finish=finish, new_tokens=new_tokens, max_new_tokens=40)
    return Speech(side="A", turn=0, text="x", quotes=quotes, origin=origin)


def test_values_of_a_probability():
    assert value(0.8, Rewards()) == 0.8
    assert value(0.8, Rewards(win="logit")) == pytest.approx(math.log(4))
    assert value(0.8, Rewards(win="log_score")) == pytest.approx(math.log(0.8))
    assert value(0.0, Rewards(win="log_score", least=0.01)) == pytest.approx(math.log(0.01))
    assert value(1.0, Rewards(win="logit", least=0.01)) == pytest.approx(math.log(99))


@given(P, st.sampled_from(["probability", "logit", "log_score"]))
def test_what_one_side_wins_the_other_loses_where_it_shall(p, win):
    rewards = Rewards(win=win, zero_sum=True)
    assert value(p, rewards) + value(1 - p, rewards) == pytest.approx(0, abs=1e-12)


def test_log_score_alone_is_not_zero_sum():
    assert value(0.8, Rewards(win="log_score")) + value(0.2, Rewards(win="log_score")) != pytest.approx(0, abs=0.1)


def test_missing_and_undefined_verdicts_are_left_out_and_never_zero():
    assert win_term([0.2, None, 0.6, math.nan], Rewards()) == pytest.approx(0.4)
    assert win_term([None, math.nan, math.inf], Rewards()) is None
    assert win_term([], Rewards()) is None
    assert earned(speech(), None, Rewards()) is None
    assert earned(speech(), math.nan, Rewards()) is None


def test_penalties_stand_beside_the_win():
    rewards = Rewards(length=0.4, invalid_quotes=0.5, truncated="penalise", truncation=0.3)
    found = earned(speech(["exact", "invalid"], "length", new_tokens=40), 0.7, rewards)
    assert (found.win, found.length, found.invalid_quotes, found.truncated) == (0.7, -0.4, -0.25, -0.3)
    assert found.total == pytest.approx(-0.25)
    assert earned(speech(["near"]), 0.7, rewards).total == pytest.approx(0.7 - 0.1)


def test_a_speech_without_quotes_counts_as_invalid():
    assert [invalid_share(speech(v)) for v in ([], ["invalid"], ["exact", "near"], ["exact", "invalid"])] == [
        1,
        1,
        0,
        0.5,
    ]


@pytest.mark.parametrize(("truncated", "total"), [("mask", None), ("penalise", 0.2), ("keep", 0.7)])
def test_speeches_that_were_cut_off(truncated, total):
    found = earned(speech(finish="length"), 0.7, Rewards(truncated=truncated))
    assert (found and found.total) == (total and pytest.approx(total))


def test_groups_without_differences_teach_nothing():
    one, other = (earned(speech(), p, Rewards()) for p in (0.5, 0.7))
    assert all_equal([one, one, None]) and all_equal([one]) and all_equal([None, None])
    assert not all_equal([one, other, None])
