"""`debate-rl lab`: build, score and show, with models of a few steps."""

import re

import pytest

from debate_rl.data.lab import build as builder
from debate_rl.data.lab import score as scoring
from debate_rl.data.lab.world import questions
from tests.command import mistake
from tests.data.lab_solvers import whereabouts
from tests.tiny import tiny_adapter

STAGES = (builder.Stage(3000, {"open_book": 4}, builder.MIXED),)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Models of the usual names that take a second to make and to score."""
    for name in ("lab-base", "lab-small"):
        monkeypatch.setitem(builder.SHAPES, name, builder.Shape(16, 1, 2, 32, STAGES, speed=1000))
    monkeypatch.setattr(builder.torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(scoring, "N", 4)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", ["lab", "lab build", "lab score", "lab show"])
def test_every_command_has_help(call, words):
    code, out, _ = call(*words.split(), "--help")
    assert code == 0 and "Usage" in out and len(out) > 200


def test_build_says_what_it_takes_and_makes_both_models_with_cards(call, tmp_path):
    code, out, _ = call("lab", "build", "--out", tmp_path)
    assert code == 0
    for name in ("lab-base", "lab-small"):
        said = out.index(f"{name}: 3,000 tokens into {tmp_path / name}, about 0 minutes on one CPU thread")
        assert said < out.index(str(tmp_path / name / "README.md"))
        assert "| open_book_whereabouts |" in (tmp_path / name / "README.md").read_text()
    before = files(tmp_path)
    assert "holds finished lab-base and lab-small" in mistake(call("lab", "build", "--out", tmp_path))
    assert "another build" in mistake(call("lab", "build", "--out", tmp_path, "--seed", 1))
    assert "another build" in mistake(call("lab", "build", "--model", "lab-small", "--tokens", 99, "--out", tmp_path))
    assert before == files(tmp_path)


def test_a_stopped_build_goes_on_where_it_was(call, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert call("lab", "build", "--out", whole)[0] == 0
    advance, steps = builder.Run.advance, []

    def dies(run, progress):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(run.step)
        advance(run, progress)

    monkeypatch.setattr(builder, "EVERY", 0.0)
    monkeypatch.setattr(builder.Run, "advance", dies)
    assert call("lab", "build", "--out", tmp_path / "cut")[0] == 130
    monkeypatch.setattr(builder.Run, "advance", advance)
    assert "another seed" in mistake(call("lab", "build", "--out", tmp_path / "cut", "--seed", 1))
    assert call("lab", "build", "--out", tmp_path / "cut")[0] == 0
    for name in ("lab-base", "lab-small"):
        one, other = ((folder / name / "model.safetensors").read_bytes() for folder in (whole, tmp_path / "cut"))
        assert one == other


def test_a_build_stopped_before_the_card_writes_it(call, tmp_path):
    assert call("lab", "build", "--model", "lab-small", "--out", tmp_path)[0] == 0
    card = tmp_path / "lab-small" / "README.md"
    before, text = files(tmp_path), card.read_text()
    card.unlink()
    assert call("lab", "build", "--model", "lab-small", "--out", tmp_path)[0] == 0
    assert card.read_text() == text and files(tmp_path) == before


def test_build_refuses_what_it_did_not_make(call, tmp_path):
    assert "did you mean 'lab-base'" in mistake(call("lab", "build", "--model", "lab-bass", "--out", tmp_path))
    (tmp_path / "lab-base").mkdir()
    (tmp_path / "lab-base" / "mine.txt").write_text("x")
    assert "not empty" in mistake(call("lab", "build", "--out", tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(builder.SHAPES, "shown", builder.Shape(16, 1, 2, 32, STAGES, speed=1000))
        patched.setattr(builder.torch, "set_num_threads", lambda n: None)
        return builder.build("shown", tmp_path_factory.mktemp("models") / "shown")


def test_score_prints_and_writes_the_card_only_when_asked(call, model):
    code, out, _ = call("lab", "score", model, "--n", 4)
    scores = dict(re.findall(r"^(\w+) +([\d.]+)$", out, re.MULTILINE))
    assert code == 0 and {"open_book_whereabouts", "open_book_claims", "decisive"} < set(scores)
    assert not (model / "README.md").exists()
    assert call("lab", "score", model, "--n", 4, "--card")[0] == 0
    assert f"| decisive | {scores['decisive']} |" in (model / "README.md").read_text()
    assert "not found" in mistake(call("lab", "score", "no/such/model"))


def test_show_prints_story_question_debate_verdict_and_answer(call, model):
    code, out, _ = call("lab", "show", "--seed", 3, "--model", model)
    (question,) = questions("whereabouts", "test", 1, 3, per_story=1)
    words = " ".join(out.split())
    assert code == 0 and question.passage in words and question.text in words
    assert "the judge does not see it" in words and "A, turn 1" in words and "B, turn 1" in words
    chances = [float(re.search(rf"{answer}: (\d\.\d\d)", out)[1]) for answer in question.answers]
    assert sum(chances) == pytest.approx(1, abs=0.011)
    assert f"correct: {whereabouts(question.passage, question.text, question.answers)}" in words


def test_show_plays_an_adapter(call, model, tmp_path):
    plain = call("lab", "show", "--model", model)[1]
    adapter = tiny_adapter(str(model), tmp_path / "adapter")
    code, out, _ = call("lab", "show", "--model", model, "--adapter", adapter)
    assert code == 0 and "adapter" in out

    def said(text):
        return text.split("A, turn 1")[1].split("verdict")[0]

    assert said(out) != said(plain)
    assert call("lab", "show", "--model", model)[1] == plain


def test_show_says_what_is_wrong(call, model, tmp_path):
    assert "did you mean 'train'" in mistake(call("lab", "show", "--split", "trein", "--model", model))
    assert "adapter not found" in mistake(call("lab", "show", "--adapter", tmp_path / "none", "--model", model))
    assert "not found" in mistake(call("lab", "show", "--model", tmp_path / "none"))
