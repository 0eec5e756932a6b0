"""People ask the debaters between rounds, in the terminal; scripted models and those of the lab answer."""

import builtins
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.arena.live import play_round
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.transcript import JudgeQuestion, Origin, open_transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.human import judge_in_person, planned_rounds, round_ends, rounds, turns_played
from debate_rl.judges.human_records import table
from debate_rl.players.debater import Debater
from debate_rl.records import read
from tests import ROOT
from tests.judges.games import asked, game, sit

RULES = load_protocol("debate_questions", turns=3)
PLAYERS = {"base": Debater(name="base", model="m")}


def answer_question(request):
    """A speech that says which question its prompt ends with."""
    heard = re.findall(r'<question from="judge">\n(.*)\n</question>', request.messages[-1].content)
    return f"I was asked: {heard[-1]}" if heard else "nobody asked"


def opened(count=3, rules=RULES):
    """Games that are still to be played, each on a story of its own."""
    return [open_transcript(asked(number), rules, {"A": "base", "B": "base"}) for number in range(count)]


def player(write=answer_question):
    """What plays rounds, by a script."""
    engine = ScriptedEngine(write)
    return lambda live: play_round(live, PLAYERS, engine)


def test_a_typed_question_is_answered_in_the_next_round_and_kept(tmp_path):
    _, out = sit(opened(), ["60", "who <|im_end|> moved it ?", "70", "", "80"], tmp_path / "log.jsonl", play=player())
    assert out.index("who \u2039|im_end|\u203a moved it ?") > out.index("nobody asked")
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    (question,) = leg.transcript.asked
    assert question == JudgeQuestion(turn=0, text="who <|im_end|> moved it ?", origin=Origin(player="human/ann"))
    assert leg.transcript.complete and leg.verdict.p[0] == pytest.approx(0.8) and rounds(leg) == 3
    assert leg.transcript.speeches[0].text == "nobody asked" and leg.transcript.speeches[0].origin.model == "m"
    assert out.count("question to the debaters") == 2  # after the last round nobody could answer


def test_who_decides_early_has_asked_no_more_and_leaves_the_game_there(tmp_path):
    sit(opened(), ["60", "why ?", "70 end"], tmp_path / "log.jsonl", play=player())
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert leg.transcript.protocol.turns == 2 and leg.transcript.complete and len(leg.transcript.speeches) == 4
    assert [question.text for question in leg.transcript.asked] == ["why ?"] and rounds(leg) == 2
    sit(opened(), ["60 end"], tmp_path / "other.jsonl", play=player())
    (leg,) = read(tmp_path / "other.jsonl", JudgedDebate)
    assert leg.transcript.asked == () and leg.transcript.protocol.turns == 1


def test_each_judge_has_a_game_of_its_own_and_both_are_scored(tmp_path):
    log = tmp_path / "log.jsonl"
    for name in ("human/ann", "human/bob"):
        typed = iter(["60", name, "70", "", "80"])
        judge_in_person(opened(1), name, log, lambda text: None, lambda prompt, typed=typed: next(typed), 1, player())
    legs = read(log, JudgedDebate)
    assert len({leg.transcript.id for leg in legs}) == 2
    assert [row.n for row in table(log)] == [1, 1]


def test_finished_games_show_what_their_judge_asked_and_ask_nothing(tmp_path):
    played = game(asked(1), "debate_questions", said="said {side}{turn}")
    played = played.ask(JudgeQuestion(turn=0, text="what of <b> ?", origin=Origin(player="lab-base")))
    out = sit([played], ["60", "70"], tmp_path / "log.jsonl")[1]
    assert "the judge asked\nwhat of \u2039b\u203a ?" in out and "question to the debaters" not in out
    assert out.index("said B0") < out.index("what of") < out.index("said A1")
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert leg.transcript == played


def test_debaters_who_fail_leave_the_game_unrecorded_and_the_next_one_comes(tmp_path):
    def fail_first(request):
        if "w0" in request.messages[-1].content:
            raise RuntimeError("lost")
        return "fine"

    _, out = sit(opened(), ["60 end"], tmp_path / "log.jsonl", play=player(fail_first))
    assert "the debaters could not go on: lost; this debate is not recorded" in out
    (leg,) = read(tmp_path / "log.jsonl", JudgedDebate)
    assert leg.transcript.question.id == "q1"


@given(
    st.sampled_from([(("A", "B"),), (("A",), ("B",)), (("B",), ("A",)), (("A",), ("A", "B"))]),
    st.integers(2, 7),
    st.sampled_from(["both", "drawn", "picked"]),
)
def test_rounds_that_are_played_one_by_one_are_those_of_the_finished_game(order, turns, sides):
    rules = Protocol(name="mine", order=order, turns=turns, sides=sides, needs_passage=False, prompts="lab")
    live = open_transcript(asked(1), rules, {"A": "base", "B": "base"})
    play = player(lambda request: "fine")
    plays = 0
    while not live.complete:
        live = play(live)
        plays += 1
        assert len(round_ends(live)) == plays and turns_played(live) >= round_ends(live)[-1]
    assert planned_rounds(live) == round_ends(live)
    assert play(live).speeches == live.speeches


def test_models_of_the_lab_answer_in_the_terminal(tmp_path, call, monkeypatch):
    typed = iter(["60", "where", "70"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(typed))
    words = ("protocol.name=debate_questions", "protocol.prompts=lab", "protocol.max_new_tokens=12", f"runs={tmp_path}")
    log = tmp_path / "log.jsonl"
    code, out, _ = call("judge", "play", ROOT / "configs" / "quickstart.yaml", *words, "--log", log)
    assert code == 0 and "1 judged" in out and "round 2 of 2" in out
    (leg,) = read(log, JudgedDebate)
    assert leg.transcript.asked[0].text == "where" and leg.transcript.complete
    assert all(speech.origin.model == "lab-base" for speech in leg.transcript.speeches)
