import pytest

from debate_rl.arena.rollout import LogOptions, play, play_to_file
from debate_rl.arena.schedule import Schedule, mirrors, pairings, round_robin
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater

JUDGE = Judge(model="judge")


def questions(question, count):
    return [question.model_copy(update={"id": f"q{at}", "text": f"where on day {at} ?"}) for at in range(count)]


def wordy(request):
    """A text that depends on all of its request."""
    return f"{request.model} says {request.seed % 9973} of {sum(len(m.content) for m in request.messages)}"


def numbered(choice):
    return [-0.1 - sum(map(ord, choice.messages[-1].content)) % 13 / 10, -1.0]


def played(players, games):
    engine = ScriptedEngine(wordy, numbered)
    pools = []
    return play(games, {player.name: player for player in players}, engine, JUDGE, pools=pools), engine, pools


def test_games_are_opened_when_they_are_asked_for(question):
    asked = questions(question, 3)
    games = Schedule(pairings(["x", "y"]) + mirrors(["x", "y"]), asked, load_protocol("debate"), 7)
    assert len(games) == 12 and len({game.id for game in games}) == 12
    assert games[5].question is asked[1] and games[5].players == {"A": "y", "B": "x"} and games[-1].seed == 7
    assert [game.id for game in games[4:6]] == [games[4].id, games[5].id]
    assert list(games)[:2] == round_robin(["x", "y"], asked[:1], load_protocol("debate"), 7)
    with pytest.raises(IndexError):
        games[12]


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_speeches_of_simultaneous_turns_are_paid_for_once_a_player(question, count, turns):
    players = [Debater(name=f"p{at}", model=f"m{at}") for at in range(count)]
    names = [player.name for player in players]
    games = list(
        Schedule(pairings(names) + mirrors(names), questions(question, 3), load_protocol("debate", turns=turns))
    )
    legs, engine, _ = played(players, games)
    first = 2 * count * 3  # a side of a question for each player
    answers = 2 * len(games) if turns == 2 else 0  # the second turn answers an opponent
    assert len(engine.requests) == first + answers
    assert len(engine.choices) == 2 * len(games)
    assert len(legs) == 3 * count**2 and all(leg.verdict for leg in legs)


@pytest.mark.parametrize("count", [2, 5])
def test_consultants_read_nobody_so_every_turn_is_paid_for_once(question, count):
    players = [Debater(name=f"p{at}", model=f"m{at}") for at in range(count)]
    names = [player.name for player in players]
    rules = load_protocol("double", turns=3)
    _, engine, _ = played(players, list(Schedule(pairings(names), questions(question, 2), rules)))
    assert len(engine.requests) == 2 * 2 * 3 * count


def test_a_game_is_the_same_alone_and_in_a_crowd(question):
    players = [Debater(name=f"p{n}", model="m", best_of=n) for n in (1, 2, 4)]
    games = list(
        Schedule(pairings([player.name for player in players]), questions(question, 2), load_protocol("debate"))
    )
    together, _, pools = played(players, games)
    alone = [played(players, [game]) for game in games]
    assert together == [legs[0] for legs, _, _ in alone]
    assert pools == [pool for _, _, own in alone for pool in own]
    assert all(pool.transcript.players[pool.side] == pool.player for pool in pools)


def test_names_that_are_shown_keep_games_apart(question):
    players = [Debater(name=f"p{at}", model="m", best_of=2) for at in range(3)]
    rules = load_protocol("debate", identities="shown")
    games = list(Schedule(pairings([player.name for player in players]), [question], rules))
    together, _, _ = played(players, games)
    assert together == [played(players, [game])[0][0] for game in games]


def test_best_of_sixteen_holds_best_of_four(question):
    players = [Debater(name=f"p@{n}", model="m", best_of=n, opponents=2) for n in (4, 16)]
    games = list(Schedule(pairings([player.name for player in players]), [question], load_protocol("debate")))
    legs, engine, pools = played(players, games)
    assert len(engine.requests) == 2 * (16 + 2)  # on each side: candidates, and simulated opponents of the other
    # Each side's candidates with each opponent, in both orders, and the four pairs that are played.
    assert len(engine.choices) == len(set(engine.choices)) <= 2 * (2 * 16 * 2 + len(legs))
    by_best_of = {len(pool.candidates): pool for pool in pools if pool.side == "A"}
    texts = {count: [speech.text for speech in pool.candidates] for count, pool in by_best_of.items()}
    assert texts[16][:4] == texts[4] and by_best_of[16].p[:4] == by_best_of[4].p


def test_a_log_is_played_from_a_schedule_that_makes_its_games(question, tmp_path):
    players = {name: Debater(name=name, model=name) for name in ("x", "y", "z")}
    games = Schedule(pairings(list(players)) + mirrors(list(players)), questions(question, 4), load_protocol("debate"))
    engine = ScriptedEngine(wordy, numbered)
    options = LogOptions(chunk=len(games.seatings))
    legs = play_to_file(games, players, engine, JUDGE, tmp_path / "debates.jsonl", options=options)
    assert list(legs) == played(players.values(), list(games))[0]
    assert len(engine.requests) == 2 * 3 * 4  # whole questions in a chunk: nothing is written twice
