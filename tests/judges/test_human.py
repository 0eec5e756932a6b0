import io
import math
import os
import subprocess
import sys

import pytest

from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Origin, open_transcript, read_speech
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
from debate_rl.judges.human import judge_in_person, judgements, reward, round_ends, rounds, saved_games, unjudged
from debate_rl.judges.human_records import table
from debate_rl.records import append, read
from tests import ROOT
from tests.command import mistake
from tests.judges.games import asked, game, sit


def test_rounds_are_shown_one_by_one_and_the_passage_never(tmp_path):
    played = game(asked(1, passage="secret words"), said="<quote>secret</quote> {side}{turn} <v_quote>", turns=2)
    seen = []

    def listen(prompt):
        seen.append(list(shown))
        return "60" if len(seen) == 1 else "80%"

    shown = []
    assert judge_in_person([played], "human/ann", tmp_path / "log.jsonl", shown.append, listen) == 1
    first, second = ("\n".join(one) for one in seen)
    assert "A0" in first and "B0" in first and "A1" not in first and "A1" in second
    assert "<v_quote>secret</v_quote> A0 \u2039v_quote\u203a" in first and "secret words" not in "\n".join(shown)
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert leg.transcript == played and leg.verdict.judge == "human/ann"
    assert leg.verdict.p == pytest.approx((0.8, 0.2)) and leg.verdict.after_turn[0] == pytest.approx((0.6, 0.4))
    assert [ask.after_turn for ask in leg.verdict.asks] == [1, None]
    assert reward(leg) == pytest.approx(math.log2(0.8) - 0.1)
    assert f"{math.log2(0.8) - 0.1:+.3f} bits" in shown[-1]


def test_deciding_early_costs_less_and_keeps_what_was_read(tmp_path):
    _, out = sit([game(asked(1, correct=1), turns=3)], ["30 end"], tmp_path / "log.jsonl")
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert leg.transcript.protocol.turns == 1 and len(leg.transcript.speeches) == 2 and leg.transcript.complete
    assert reward(leg) == pytest.approx(math.log2(0.7) - 0.05) and "A1" not in out


def test_what_is_no_probability_is_asked_again(tmp_path):
    lines = ["", "what", "0", "100", "nan", "-3", "60 stop", "70 END"]
    judged, out = sit([game(asked(1), turns=2)], lines, tmp_path / "log.jsonl")
    assert judged == 1 and out.count("not read") == 7
    assert read(tmp_path / "log.jsonl", JudgedDebate)[0].verdict.p[0] == pytest.approx(0.7)


def test_an_input_that_ends_keeps_what_was_finished(tmp_path):
    judged, out = sit([game(asked(n)) for n in range(3)], ["60", "70"], tmp_path / "log.jsonl", count=3)
    assert judged == 2 and "not recorded" in out and len(read(tmp_path / "log.jsonl", JudgedDebate)) == 2


def test_no_question_is_judged_twice(tmp_path):
    log = tmp_path / "log.jsonl"
    games = [game(asked(n // 2), name) for n, name in enumerate(["debate", "double"] * 3)]
    assert sit(unjudged(games, "human/ann", log), ["60", "70"], log, count=2)[0] == 2
    left = unjudged(games, "human/ann", log)
    assert len({one.question.id for one in left}) == 1 and len(unjudged(games, "human/bob", log)) == 6
    assert sit(left, ["60"] * 9, log, count=9)[0] == 1 and unjudged(games, "human/ann", log) == []


def test_the_log_is_scored_like_recorded_judges(tmp_path):
    log = tmp_path / "log.jsonl"
    sit([game(asked(n, correct=n % 2)) for n in range(4)], ["80", "40", "80", "50"], log, count=4)
    (row,) = table(log)
    assert (row.condition, row.n, row.stories) == ("human/ann, debate", 4, 4)
    assert row.accuracy == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    bits = [math.log2(p) - 0.05 for p in (0.8, 0.6, 0.8, 0.5)]
    assert row.mean_reward == pytest.approx(sum(bits) / 4)
    again = read(log, JudgedDebate)[0]
    append(log, [again])
    with pytest.raises(UserError, match="is there 2 times"):
        table(log)


def test_the_games_of_a_run(tmp_path):
    half = game(asked(2), turns=2)
    legs = [
        JudgedDebate(transcript=game(asked(1)), verdict=Verdict(judge="j", p=(0.5, 0.5))),
        JudgedDebate(transcript=half.model_copy(update={"speeches": half.speeches[:2]})),
        JudgedDebate(transcript=game(asked(3), "blind")),
        JudgedDebate(transcript=game(asked(4, correct=None))),
    ]
    append(tmp_path / "run" / "oversight" / "debates.jsonl", legs)
    append(tmp_path / "run" / "tournament" / "debates.jsonl", [legs[0], JudgedDebate(transcript=game(asked(5)))])
    append(tmp_path / "run" / ".judge" / "debates.jsonl", [JudgedDebate(transcript=game(asked(6)))])
    assert [one.question.id for one in saved_games(tmp_path / "run")] == ["q1", "q5"]
    assert [one.question.id for one in saved_games(tmp_path / "run" / "oversight" / "debates.jsonl")] == ["q1"]
    with pytest.raises(UserError, match="no finished debate in stage 'dpo'"):
        saved_games(tmp_path / "run", "dpo")


def play(tmp_path, typed, *words):
    """`debate-rl judge play` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "debate_rl", "judge", "play", *map(str, words)],
        input=typed,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_person_judges_a_run_through_a_real_process(tmp_path, call):
    path = tmp_path / "run" / "tournament" / "debates.jsonl"
    append(path, [JudgedDebate(transcript=game(asked(n, passage="hidden"), turns=2)) for n in range(3)])
    done = play(tmp_path, "60\n70\nmaybe\n20 end\n", tmp_path / "run", "--name", "ann", "--count", "5")
    assert done.returncode == 0, done.stderr
    assert "2 judged; verdicts: judgements.jsonl" in done.stdout and "hidden" not in done.stdout
    assert done.stdout.count("bits\n") == 2 and "not read: 'maybe'" in done.stdout
    legs = read(tmp_path / "judgements.jsonl", JudgedDebate)
    assert [(leg.verdict.judge, leg.verdict.p[0]) for leg in legs] == [("human/ann", 0.7), ("human/ann", 0.2)]
    code, out, _ = call("judge", "evaluate", "--recorded", tmp_path / "judgements.jsonl")
    assert code == 0 and "human/ann, debate" in out
    assert "no finished debate" in mistake(call("judge", "play", tmp_path / "run", "--stage", "sft"))
    assert "run not found" in mistake(call("judge", "play", tmp_path / "none"))


def test_a_person_judges_fresh_debates_of_the_lab(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("55\n"))
    code, out, said = call("judge", "play", "--name", "ann")
    assert code == 0, said
    (leg,) = read(tmp_path / "judgements.jsonl", JudgedDebate)
    assert leg.transcript.players == {"A": "base", "B": "base"} and leg.verdict.p[0] == 0.55
    assert leg.transcript.question.passage not in out


def leg(number=1, **changes):
    return JudgedDebate(transcript=game(asked(number), **changes), verdict=Verdict(judge="human/ann", p=(0.5, 0.5)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("my notes, with no line break", 1),
        ("my notes\nand more\n", 1),
        (f"{leg().model_dump_json()}\nmy notes", 2),
        (f"{leg().model_dump_json()}\n[1]\n{leg(2).model_dump_json()}\n", 2),
        ('{"transcript": 1}\n', 1),
        ('{"a": 1}', 1),
        (leg().model_dump_json(), 1),
        (f"{leg().model_dump_json()}\n{leg(2).model_dump_json()}", 2),
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, text, line):
    log = tmp_path / "notes.txt"
    log.write_text(text)
    with pytest.raises(UserError, match=rf"notes\.txt:{line}: ") as raised:
        sit([game(asked(7))], ["60"], log)
    assert log.read_text() == text and "\n" not in str(raised.value)
    with pytest.raises(UserError, match="notes.txt"):
        unjudged([game(asked(7))], "human/ann", log)


def test_a_log_that_a_crash_tore_goes_on(tmp_path):
    log = tmp_path / "log.jsonl"
    whole = leg().model_dump_json()
    for tail in (whole[:5], whole[:40], whole[:-1]):
        log.write_text(f"{whole}\n{tail}")
        assert [one.transcript.question.id for one in judgements(log)] == ["q1"]
        assert sit([game(asked(7))], ["60"], log)[0] == 1
        assert [one.transcript.question.id for one in read(log, JudgedDebate)] == ["q1", "q7"]
    log.write_text("")
    assert judgements(log) == judgements(tmp_path / "new" / "log.jsonl") == []


def test_a_log_that_can_not_be_one_is_said_before_anything_is_judged(tmp_path):
    (tmp_path / "file").write_text("x")
    for log in (tmp_path, tmp_path / "file" / "log.jsonl"):
        with pytest.raises(UserError, match="--log .* is a (folder|file)"):
            sit([game(asked(7))], ["60"], log)


def test_a_round_is_over_when_everyone_has_spoken(tmp_path):
    assert round_ends(game(asked(1), turns=3)) == (1, 2, 3)
    assert round_ends(game(asked(1), "sequential", turns=4)) == (2, 4)
    assert round_ends(game(asked(1), "claim")) == (2, 3)
    assert round_ends(game(asked(1), "single", turns=2)) == (1, 2)
    assert round_ends(game(asked(1), "debate", order=(("A", "B"), ("A",), ("B",)), turns=3)) == (1, 3)
    assert round_ends(game(asked(1), "blind")) == ()
    _, out = sit([game(asked(1), "sequential", turns=4)], ["60", "80"], tmp_path / "log.jsonl")
    (found,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert [ask.after_turn for ask in found.verdict.asks] == [2, None] and "round 2 of 2" in out
    assert reward(found) == pytest.approx(math.log2(0.8) - 0.1)


def test_market_making_that_settled_early_has_no_empty_rounds(tmp_path):
    opened = open_transcript(asked(1), load_protocol("market_making"), {"A": "x", "B": "y"})
    played = opened.model_copy(update={"called": ("A", "B")})
    for turn, side in enumerate("AB"):
        played = played.add([read_speech(f"said {side}", played, side, turn, Origin(player="p"))])
    assert played.complete and played.protocol.turns == 4
    _, out = sit([played], ["60", "80", "90"], tmp_path / "log.jsonl")
    (found,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert found.transcript == played and len(found.verdict.asks) == 2 and "round 3" not in out
    assert rounds(found) == 2 and reward(found) == pytest.approx(math.log2(0.8) - 0.1)


@pytest.mark.parametrize(
    ("moments", "paid"), [([None], 3), ([None, None], 3), ([0, None], 1), ([0, 1, None], 2), ([1, 1, None, None], 2)]
)
def test_rounds_are_those_that_were_asked_for(moments, paid):
    asks = tuple(Ask(sides=("A", "B"), logprobs=(-0.7, -0.7), after_turn=moment) for moment in moments)
    one = JudgedDebate(transcript=game(asked(1), turns=3), verdict=Verdict(judge="j", p=(0.5, 0.5), asks=asks))
    assert rounds(one) == paid


def test_what_can_not_be_judged_is_refused_in_one_line(tmp_path, call):
    path = tmp_path / "debates.jsonl"
    append(path, [leg()])
    assert "'seed=3' changes nothing" in mistake(call("judge", "play", path, "seed=3"))
    config = tmp_path / "c.yaml"
    config.write_text("name: x\n")
    for name, said in (
        ("market_making", "needs a judge to call"),
        ("blind", "no speeches"),
        ("open_book", "no speech"),
    ):
        assert said in mistake(call("judge", "play", config, f"protocol.name={name}"))
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert "notes.txt:1: not a leg" in mistake(call("judge", "play", path, "--log", notes))
    assert notes.read_text() == "mine"
