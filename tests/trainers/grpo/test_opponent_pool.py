"""The pool of past checkpoints: who is drawn how often, and what a resumed training finds."""

from collections import Counter

import pytest

from debate_rl.players.debater import Debater
from debate_rl.trainers.grpo.opponent_pool import League, draw_by_rating, draw_player

START = Debater(name="start", model="base", adapter="sft")


def test_members_are_drawn_by_rating():
    drawn = Counter(draw_by_rating([0.0, 200.0], 200.0, [step]) for step in range(4000))
    assert drawn[1] / drawn[0] == pytest.approx(2.718, rel=0.15)
    even = Counter(draw_by_rating([7.0, 7.0, 7.0], 1.0, [step]) for step in range(3000))
    assert min(even.values()) > 850


def test_the_same_place_draws_the_same_member():
    assert len({draw_by_rating([0.0, 10.0, 20.0], 50.0, [3, "q1"]) for _ in range(5)}) == 1


def test_an_empty_pool_is_the_start(tmp_path):
    assert League(tmp_path, START, 200, 0).draw("q", 5) == START


def test_a_resumed_league_draws_as_the_first_one_and_not_who_came_later(tmp_path):
    league = League(tmp_path, START, 1e9, 0)
    for step, elo in ((2, 10.0), (4, 30.0)):
        league.join(step, elo, write=True)
    names = {league.draw(f"q{n}", 9).name for n in range(40)}
    assert names == {"start", "step 2", "step 4"}
    assert {league.draw(f"q{n}", 3).name for n in range(40)} == {"start", "step 2"}
    again = League(tmp_path, START, 1e9, 0)
    assert [again.draw(f"q{n}", 9) for n in range(40)] == [league.draw(f"q{n}", 9) for n in range(40)]
    assert again.known(4) and not again.known(6)
    assert {again.draw(f"q{n}", 9).adapter for n in range(40)} == {
        "sft", str(tmp_path / "step-000002"), str(tmp_path / "step-000004"),
    }  # fmt: skip


def test_named_players_are_drawn_alike():
    players = [Debater(name=name, model="m") for name in "abc"]
    drawn = Counter(draw_player(players, 0)("q", step).name for step in range(900))
    assert min(drawn.values()) > 240
