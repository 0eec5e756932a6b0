import re

import pytest

from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import self_play
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Seat, speak


def numbered(request):
    """Each seed writes another speech, whose number is its quality."""
    return f"speech {request.seed % 97}"


def quality(transcripts):
    """A judge that prefers high numbers: P(A) rises with the difference."""
    found = []
    for game in transcripts:
        values = {s.side: int(re.findall(r"\d+", s.text)[0]) for s in game.speeches}
        p = 0.5 + (values.get("A", 48) - values.get("B", 48)) / 200
        found.append(Verdict(judge="q", p=(p, 1 - p)))
    return found


def seat(question, side="A", protocol="debate", turn=0, game=None, **player):
    game = game or open_transcript(question, load_protocol(protocol), {"A": "x", "B": "y"}, seed=3)
    one = Debater(name="x", model="m", **player)
    return Seat(game, side, turn, one, (one,))


def test_a_plain_player_speaks_once(question):
    engine = ScriptedEngine(numbered)
    (spoken,) = speak([seat(question)], engine)
    assert len(engine.requests) == 1 and spoken.pool is None
    assert spoken.speech.origin.player == "x" and spoken.speech.origin.best_of == 1


def test_best_of_n_takes_the_best_against_simulated_opponents(question):
    engine = ScriptedEngine(numbered)
    (spoken,) = speak([seat(question, best_of=5, opponents=3)], engine, quality)
    pool = spoken.pool
    assert len(engine.requests) == 8 and len(pool.candidates) == 5 and len(pool.opponents) == 3
    assert all(len(row) == 3 for row in pool.p) and len(pool.p) == 5
    best = max(pool.candidates, key=lambda s: int(s.text.split()[1]))
    assert spoken.speech == best and pool.scores[pool.chosen] == max(pool.scores)
    assert {s.text for s in pool.opponents}.isdisjoint({s.text for s in pool.candidates})


def test_side_b_maximises_its_own_probability(question):
    (spoken,) = speak([seat(question, side="B", best_of=6, opponents=2)], ScriptedEngine(numbered), quality)
    assert spoken.speech == max(spoken.pool.candidates, key=lambda s: int(s.text.split()[1]))
    assert all(abs(sum(row) / 2 - score) < 1e-12 for row, score in zip(spoken.pool.p, spoken.pool.scores, strict=True))


def test_worst_case_takes_the_minimum(question):
    (spoken,) = speak([seat(question, best_of=4, opponents=3, aggregate="min")], ScriptedEngine(numbered), quality)
    assert spoken.pool.scores == tuple(min(row) for row in spoken.pool.p)


def test_best_of_sixteen_holds_best_of_four(question):
    pools = []
    for count in (4, 16):
        (spoken,) = speak([seat(question, best_of=count, opponents=2)], ScriptedEngine(numbered), quality)
        pools.append(spoken.pool)
    assert [s.text for s in pools[1].candidates[:4]] == [s.text for s in pools[0].candidates]
    assert [s.text for s in pools[1].opponents] == [s.text for s in pools[0].opponents]


def test_a_speech_does_not_depend_on_the_opponent(question):
    texts = set()
    for opponent in ("y", "z"):
        game = open_transcript(question, load_protocol("debate"), {"A": "x", "B": opponent}, seed=3)
        (spoken,) = speak([seat(question, game=game)], ScriptedEngine(numbered))
        texts.add(spoken.speech.text)
    assert len(texts) == 1


@pytest.mark.parametrize("protocol", ["single", "double", "ensembled"])
def test_consultants_are_judged_alone(question, protocol):
    seen = []

    def judge(transcripts):
        seen.extend(transcripts)
        return quality(transcripts)

    game = open_transcript(question, load_protocol(protocol), {"A": "x", "B": "x"}, seed=3)
    side = game.present[0]
    engine = ScriptedEngine(numbered)
    speak([seat(question, side=side, game=game, best_of=3, opponents=2)], engine, judge)
    assert len(engine.requests) == 3
    assert all(trial.present == (side,) for trial in seen)


def test_who_speaks_second_is_judged_on_what_was_really_said(question):
    game = open_transcript(question, load_protocol("sequential"), {"A": "x", "B": "x"}, seed=3)
    game = game.add([read_speech("speech 50", game, "A", 0, Origin(player="x"))])
    engine = ScriptedEngine(numbered)
    (spoken,) = speak([seat(question, side="B", turn=1, game=game, best_of=3, opponents=2)], engine, quality)
    assert len(engine.requests) == 3 and not spoken.pool.opponents


def test_a_seat_that_fails_says_so_and_the_others_speak(question):
    def write(request):
        if request.model == "broken":
            raise RuntimeError("no such luck")
        return "speech 1"

    broken = Debater(name="b", model="broken")
    game = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "b"})
    first, second = speak([seat(question, game=game), Seat(game, "B", 0, broken)], ScriptedEngine(write))
    assert first.speech is not None
    assert second.speech is None and second.failure == Failure(
        seat="B", turn=0, kind="scripted", message="no such luck"
    )


def test_a_judge_that_fails_is_never_scored(question):
    def judge(transcripts):
        return [Failure(seat="judge", kind="context", message="too long") for _ in transcripts]

    (spoken,) = speak([seat(question, best_of=2)], ScriptedEngine(numbered), judge)
    assert spoken.speech is None and spoken.failure.seat == "judge" and spoken.failure.turn == 0


def test_the_second_turn_is_chosen_against_simulated_speeches_of_that_turn(question):
    """Two simultaneous turns: the judge scores turn 2 on what was said in turn 1, and on no real speech of turn 2."""
    engine = ScriptedEngine()  # each request has a speech of its own
    player = Debater(name="n", model="m", best_of=3, opponents=2)
    games = self_play(["n"], [question], load_protocol("debate", turns=2))
    pools = []
    (leg,) = play(games, {"n": player}, engine, Judge(model="m", both_orders=False), pools=pools)
    assert [(pool.turn, pool.side) for pool in pools] == [(0, "A"), (0, "B"), (1, "A"), (1, "B")]
    said = leg.transcript.speeches
    assert [(s.turn, s.side) for s in said] == [(0, "A"), (0, "B"), (1, "A"), (1, "B")]
    second = engine.choices[2 * 3 * 2 : -1]  # the trials of turn 2: both sides, 3 candidates, 2 opponents
    assert len(second) == 12
    for pool, trials in ((pools[2], second[:6]), (pools[3], second[6:])):
        assert pool.transcript.speeches == said[:2] and len(pool.p) == 3 and len(pool.p[0]) == 2
        real = next(s for s in said[2:] if s.side != pool.side)
        for at, trial in enumerate(trials):
            read = trial.messages[-1].content
            assert all(s.text in read for s in (*said[:2], pool.candidates[at // 2], pool.opponents[at % 2]))
            assert real.text not in read and read.count("<speech") == 4
    later = [r for r in engine.requests if "turn 2 of 2" in r.messages[-1].content]
    assert len(later) == 2 * 5 and all(r.messages[-1].content.count("<speech") == 2 for r in later)


def test_opponents_are_taken_from_a_pool_each_once_before_any_twice(question):
    pool = tuple(Debater(name=name, model=name) for name in ("y", "z"))
    game = open_transcript(question, load_protocol("debate"), {"A": "x", "B": "x"}, seed=3)
    texts = {}
    for count, best_of in ((1, 2), (2, 2), (4, 2), (4, 5)):
        player = Debater(name="x", model="m", best_of=best_of, opponents=count)
        (spoken,) = speak([Seat(game, "A", 0, player, pool)], ScriptedEngine(numbered), quality)
        found = spoken.pool.opponents
        models = [speech.origin.model for speech in found]
        assert abs(models.count("y") - models.count("z")) == count % 2
        texts[(count, best_of)] = [(speech.origin.model, speech.text) for speech in found]
    assert texts[(4, 2)] == texts[(4, 5)] and texts[(4, 2)][:2] == texts[(2, 2)] and texts[(2, 2)][:1] == texts[(1, 2)]


def test_the_first_of_a_pool_depends_on_the_question(question):
    pool = tuple(Debater(name=name, model=name) for name in ("y", "z"))
    player = Debater(name="x", model="m", best_of=2, opponents=1)
    first = set()
    for number in range(20):
        asked = question.model_copy(update={"id": f"q{number}"})
        game = open_transcript(asked, load_protocol("debate"), {"A": "x", "B": "x"}, seed=3)
        (spoken,) = speak([Seat(game, "A", 0, player, pool)], ScriptedEngine(numbered), quality)
        first.add(spoken.pool.opponents[0].origin.model)
    assert first == {"y", "z"}


def test_the_real_opponent_can_be_simulated(question):
    engine = ScriptedEngine(numbered)
    players = {"n": Debater(name="n", model="n", best_of=2, opponents=1), "y": Debater(name="y", model="y")}
    game = open_transcript(question, load_protocol("debate"), {"A": "n", "B": "y"})
    pools = []
    play([game], players, engine, Judge(model="j"), "real", pools)
    (pool,) = pools
    assert [speech.origin.player for speech in pool.opponents] == ["y"]
    assert len({request.seed for request in engine.requests if request.model == "y"}) == 2  # simulated and real


@pytest.mark.parametrize(
    "text",
    [
        "<scratchpad>secret</scratchpad> plea",
        "plea <quote>the <scratchpad>secret",
        "<quote>the pipe <scratchpad>secret</scratchpad> was</quote> plea",
    ],
)
def test_a_private_scratchpad_reaches_neither_judge_nor_opponent_in_trials(question, text):
    def judged(scratchpad):
        engine = ScriptedEngine(lambda request: f"{text} {request.seed % 9973}")
        games = self_play(["n"], [question], load_protocol("debate", turns=2, scratchpad=scratchpad))
        player = Debater(name="n", model="m", best_of=2, opponents=1)
        pools = []
        play(games, {"n": player}, engine, Judge(model="m"), pools=pools)
        assert all("secret" in speech.text for pool in pools for speech in (*pool.candidates, *pool.opponents))
        return [m.content for asked in (*engine.choices, *engine.requests) for m in asked.messages]

    private = judged("private")
    assert len(private) > 30 and any("plea" in read for read in private)
    assert not any("secret" in read for read in private)
    assert any("secret" in read for read in judged("public"))


def test_a_best_of_n_player_needs_a_judge(question):
    with pytest.raises(UserError, match="needs a judge"):
        speak([seat(question, best_of=2)], ScriptedEngine(numbered))


def reusing(question, reuse, opponents=2, protocol="debate"):
    engine = ScriptedEngine(numbered)
    fields = {"best_of": 4, "opponents": opponents, "reuse_opponents": reuse}
    one = Debater(name="x", model="m", **fields)
    game = open_transcript(question, load_protocol(protocol), {"A": "x", "B": "x"}, seed=3)
    sides = game.speakers(0)
    return speak([Seat(game, side, 0, one, (one,)) for side in sides], engine, quality), engine


def test_opponents_are_other_draws_unless_the_config_says_so(question):
    (a, b), engine = reusing(question, False)
    assert len(engine.requests) == 2 * (4 + 2)
    assert not {id(s) for s in a.pool.opponents} & {id(s) for s in b.pool.candidates}


def test_reused_opponents_are_the_other_sides_own_candidates(question):
    (a, b), engine = reusing(question, True)
    assert len({request.seed for request in engine.requests}) == 4
    assert a.pool.opponents == b.pool.candidates[:2] and b.pool.opponents == a.pool.candidates[:2]
    (a, b), engine = reusing(question, True, opponents=6)  # more than there are candidates: two further draws
    assert a.pool.opponents[:4] == b.pool.candidates and len(set(engine.requests)) == 2 * 6


def test_nothing_is_reused_where_nobody_speaks_unseen(question):
    (a,), engine = reusing(question, True, protocol="sequential")
    assert a.pool.opponents == () and len(engine.requests) == 4
