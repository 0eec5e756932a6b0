"""The Python front door: what a user's script does, with the lab's models and with rules."""

import doctest
import importlib
import inspect
import types

import pytest

import debate_rl as dr
from debate_rl.engines.scripted import ScriptedEngine


@pytest.fixture
def rules():
    return dr.load_protocol("debate", prompts="lab", max_new_tokens=24)


def test_the_main_loop_is_a_page_of_calls(tmp_path, rules):
    train = dr.load_questions("lab", split="train", limit=4)
    test = dr.load_questions("lab", split="test", limit=3)
    base = dr.Debater("base@4", model="lab-base", best_of=4, temperature=1.0)
    judge = dr.Judge(model="lab-base")
    debates = dr.play(base, base, train, judge, rules, folder=tmp_path / "games")
    assert len(debates) == 4 and not debates.failed
    pairs = dr.preferences(debates)
    assert all(pair.p_chosen > pair.p_rejected for pair in pairs)
    dpo = dr.train_dpo(base, pairs, tmp_path / "dpo", beta=0.5, max_steps=2)
    assert dpo.name == "dpo" and (tmp_path / "dpo" / "adapter" / "adapter_model.safetensors").is_file()
    taught = dr.train_judge(judge, debates, tmp_path / "judge", max_steps=1)
    sft = dr.train_sft(dr.Debater("base", model="lab-base"), debates, tmp_path / "sft", max_steps=1)
    result = dr.play_tournament(
        [sft, dpo.model_copy(update={"best_of": 1})], test, taught, rules, folder=tmp_path / "t"
    )
    assert {row.player for row in result.ratings.standings} == {"sft", "dpo"}
    assert set(result.judge_accuracy) == {"sft", "dpo"}
    for printed in (result, result.ratings, result.matches):
        assert repr(printed) == str(printed) and "dpo" in str(printed) and str(printed).count("\n") < 10
        assert printed._repr_html_().startswith("<table") and set(printed.to_frame().player) == {"sft", "dpo"}


def test_games_in_a_folder_are_not_played_twice(tmp_path, rules):
    questions = dr.load_questions("lab", split="test", limit=3)
    player = dr.Debater("p", model="lab-base")
    engine = ScriptedEngine()
    first = dr.play(player, player, questions, None, rules, folder=tmp_path, engine=engine)
    second = dr.play(player, player, questions, None, rules, folder=tmp_path, engine=None)  # opens no model
    assert [leg.transcript for leg in first] == [leg.transcript for leg in second]


class Coin:
    """A judge with a method."""

    name = "coin"

    def judge(self, transcripts):
        return [0.5 for _ in transcripts]


def always_a(transcripts):
    return [0.9 for _ in transcripts]


@pytest.mark.parametrize(("judge", "name"), [(always_a, "always_a"), (Coin(), "coin")])
def test_a_judge_is_any_function_or_object(rules, judge, name):
    questions = dr.load_questions("lab", split="test", limit=3)
    player = dr.Debater("p", model="m")
    debates = dr.play(player, player, questions, judge, rules, engine=ScriptedEngine())
    assert {leg.verdict.judge for leg in debates} == {name}
    best = dr.Debater("b", model="m", best_of=2)
    assert len(dr.play(best, best, questions, judge, rules, engine=ScriptedEngine()).pools) == 6


@pytest.mark.parametrize(
    ("answers", "message"),
    [([0.5], "gave 1 answers to 3"), ([2, 0, 0], "between 0 and 1"), (["x"] * 3, "answered 'x'")],
)
def test_a_function_that_is_no_judge_is_said_in_a_line(rules, answers, message):
    questions = dr.load_questions("lab", split="test", limit=3)
    player = dr.Debater("p", model="m")
    with pytest.raises(dr.UserError, match=message):
        dr.play(player, player, questions, lambda games: answers, rules, engine=ScriptedEngine())


def test_debates_print_and_become_a_frame_and_hostile_text_stays_text(rules):
    questions = dr.load_questions("lab", split="test", limit=12)
    hostile = [questions[0].model_copy(update={"text": "<script>alert(1)</script>"}), *questions[1:]]
    player = dr.Debater("p", model="m")
    debates = dr.play(player, player, hostile, always_a, rules, engine=ScriptedEngine())
    assert repr(debates).startswith("12 debates, 0 failed, judge accuracy ") and "2 more" in repr(debates)
    assert "<script>" not in debates._repr_html_() and "&lt;script&gt;" in debates._repr_html_()
    frame = debates.to_frame()
    assert list(frame.p_a) == [0.9] * 12 and set(frame.columns) >= {"question", "p_correct", "right", "failure"}
    assert len(debates[:3]) == 3


def test_mistakes_are_one_line(rules, tmp_path):
    questions = dr.load_questions("lab", split="test", limit=2)
    player = dr.Debater("p", model="m")
    debates = dr.play(player, player, questions, always_a, rules, engine=ScriptedEngine())
    with pytest.raises(dr.UserError, match="best_of=4"):
        dr.preferences(debates)
    with pytest.raises(dr.UserError, match="at least one question"):
        dr.play(player, player, [], None, rules)
    with pytest.raises(dr.UserError, match="both named 'p'"):
        dr.play(player, dr.Debater("p", model="other"), questions, None, rules)
    with pytest.raises(dr.UserError, match="learning_rat"):
        dr.train_sft(dr.Debater("base", model="lab-base"), debates, tmp_path / "x", learning_rat=1)
    with pytest.raises(dr.UserError, match="is no judge"):
        dr.play(player, player, questions, 3, rules, engine=ScriptedEngine())


@pytest.mark.parametrize("home", sorted(set(dr._HOME.values())))
def test_the_examples_in_docstrings_run(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    importlib.import_module("transformers.integrations.integration_utils")  # it prints a line about W&B offline
    assert doctest.testmod(importlib.import_module(home)).failed == 0


def test_every_function_of_the_front_door_has_an_example_that_runs():
    functions = [name for name in dr.__all__ if isinstance(getattr(dr, name), types.FunctionType)]
    bare = [name for name in functions if ">>> " not in inspect.getdoc(getattr(dr, name))]
    assert bare == ["load_environment"]  # it needs the extra verifiers, with which tests/export tries it


def test_every_name_of_the_front_door_can_be_imported():
    for name in dr.__all__:
        assert getattr(dr, name) is not None
    assert set(dr.__all__) <= set(dir(dr))


def test_a_public_name_is_the_function_whatever_was_imported_before():
    for name in dr.__all__:
        importlib.import_module(dr._HOME[name])
    modules = [name for name in dr.__all__ if isinstance(getattr(dr, name), types.ModuleType)]
    assert modules == []


PROTOCOLS = [
    "debate",
    "sequential",
    "single",
    "double",
    "ensembled",
    "open_debate",
    "open_single",
    "market_making",
    "blind",
    "open_book",
]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_plays_in_one_call(name):
    questions = dr.load_questions("lab", split="test", limit=6)
    player = dr.Debater("p", model="lab-base")
    played = dr.play(player, player, questions, dr.Judge(model="lab-base"), name, engine=ScriptedEngine())
    assert len(played) == 6 and not played.failed
