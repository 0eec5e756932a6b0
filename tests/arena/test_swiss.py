import math

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl import Debater, Judge, TournamentSettings, UserError, play_tournament
from debate_rl.arena.swiss import next_round, planned_rounds, seatings_of, swiss_fault
from debate_rl.engines.scripted import ScriptedEngine


@settings(max_examples=25)
@given(st.integers(4, 13), st.data())
def test_everyone_plays_once_a_round_nobody_twice_and_all_are_linked(count, data):
    players = [f"p{at}" for at in range(count)]
    rounds = data.draw(st.integers(math.ceil(math.log2(count)), math.ceil(count / 2)))
    results = data.draw(st.lists(st.floats(0, 1), min_size=rounds * count, max_size=rounds * count))
    played, points = [], dict.fromkeys(players, 0.0)
    for _ in range(rounds):
        played.append(next_round(players, played, points))
        seated = [player for pair in played[-1].pairs for player in pair]
        rested = [played[-1].bye] if count % 2 else []
        assert sorted([*seated, *rested]) == sorted(players)
        for first, second in played[-1].pairs:
            share = results.pop()
            points[first] += share
            points[second] += 1 - share
    met = [frozenset(pair) for one in played for pair in one.pairs]
    assert len(met) == len(set(met)), "nobody meets the same player twice"
    assert nx.is_connected(nx.Graph([tuple(pair) for pair in met]))
    byes = [one.bye for one in played if one.bye]
    assert len(byes) == len(set(byes)) == (rounds if count % 2 else 0)


def test_winners_meet_winners():
    players = [f"p{at}" for at in range(8)]
    first = next_round(players, [], {})
    winners = {pair[0] for pair in first.pairs}
    second = next_round(players, [first], dict.fromkeys(winners, 1.0))
    assert all(len(winners & set(pair)) in (0, 2) for pair in second.pairs)


def test_the_last_one_rests_and_nobody_rests_twice():
    rounds = planned_rounds(["a", "b", "c", "d", "e"], 3)
    assert rounds[0].bye == "e" and len({one.bye for one in rounds}) == 3
    assert len(seatings_of(rounds)) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("players", "rounds", "said"),
    [
        (3, 2, "needs 4 players or more, got 3; schedule: round_robin"),
        (8, 2, "8 players need 3 Swiss rounds or more to be compared, got 2"),
        (6, 4, "6 players play 3 Swiss rounds without meeting twice, got 4"),
        (5, 4, "5 players play 3 Swiss rounds without meeting twice, got 4; set rounds to 3 or less"),
    ],
)
def test_rounds_that_do_not_fit_the_players_are_one_line(players, rounds, said):
    assert said in swiss_fault(players, rounds)
    with pytest.raises(UserError, match=said):
        planned_rounds([f"p{at}" for at in range(players)], rounds)


def power(choice):
    """A judge that believes whose speech names the larger number."""
    text = choice.messages[-1].content
    said = {}
    for line in text.split("<speech for=")[1:]:
        said[line.split('"')[1]] = float(line.split("power ")[1].split()[0])
    first = text.split("Answers: (A) ")[1].split(" (B)")[0]
    gap = said[first] - sum(said.values()) + said[first]
    return [gap if candidate == "A" else 0.0 for candidate in choice.candidates]


@pytest.mark.parametrize("count", [6, 7])
def test_a_swiss_tournament_rates_all_with_fewer_games_and_resumes(question, tmp_path, count):
    class Dying(ScriptedEngine):
        def choose(self, choices):
            if self.calls > 4:
                raise KeyboardInterrupt
            return super().choose(choices)

    def played(engine, folder):
        players = [Debater(name=f"p{at}", model=f"m{at}") for at in range(count)]
        asked = [question.model_copy(update={"id": f"q{at}", "group": f"g{at}"}) for at in range(4)]
        how = TournamentSettings(resamples=20, swiss=3)
        return play_tournament(players, asked, Judge(model="j"), engine=engine, folder=folder, settings=how)

    def write(request):
        return f"power {request.model[1:]}"

    whole = played(ScriptedEngine(write, power), tmp_path / "whole")
    names = [row.player for row in whole.ratings.standings]
    assert sorted(names) == [f"p{at}" for at in range(count)] and names[0] == f"p{count - 1}" and names[-1] == "p0"
    assert len(whole.legs) == 4 * (3 * 2 * (count // 2) + count), "three rounds, then self-play"
    assert len(whole.matches.byes) == (3 if count % 2 else 0)
    with pytest.raises(KeyboardInterrupt):
        played(Dying(write, power), tmp_path / "stopped")
    again = played(ScriptedEngine(write, power), tmp_path / "stopped")
    assert again.ratings == whole.ratings and again.matches == whole.matches and list(again.legs) == list(whole.legs)
    in_memory = played(ScriptedEngine(write, power), None)
    assert in_memory.ratings == whole.ratings and list(in_memory.legs) == list(whole.legs)


def test_three_players_in_a_swiss_tournament_are_one_line(question):
    players = [Debater(name=f"p{at}", model="m") for at in range(3)]
    with pytest.raises(UserError, match="needs 4 players or more"):
        play_tournament(players, [question], Judge(model="j"), settings=TournamentSettings(swiss=2))
