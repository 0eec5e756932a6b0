import re

import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Failure, Verdict
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
    return Seat(game, side, turn, one, one)


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
