"""Statements: what is read as the probability of an answer, and what is not."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.verdict import Failure
from debate_rl.judges import statement
from debate_rl.judges.judge import StatedJudge, judge_transcripts
from debate_rl.judges.settings import JudgeSettings, judge_of_kind
from debate_rl.judges.statement import Stated, read_stated
from tests.judges.games import game

LETTERS = ("A", "B")
WORDS = ("shed", "old barn")


@pytest.mark.parametrize(
    ("text", "answers", "stated"),
    [
        ("p ( a ) = 65 %", WORDS, Stated(0.65, True)),
        ("B's quote is not in the text.\nP(A) = 72.5%", LETTERS, Stated(0.725, True)),
        ("P(A) = 50%", LETTERS, Stated(0.5, None)),
        ("Answer: B, 80%", LETTERS, Stated(0.2, False)),
        ("thinking ...\nFinal answer: (A) (90 %).", LETTERS, Stated(0.9, True)),
        ("the answer is B with probability 0.75", LETTERS, Stated(0.25, False)),
        ("<answer>B</answer> since A lies\n<confidence>0.8</confidence>", LETTERS, Stated(0.2, False)),
        ("shed 30 %", WORDS, Stated(0.3, True)),
        ("Old  Barn: 85%", WORDS, Stated(0.15, False)),
        ("A 65% chance remains", LETTERS, None),
        ("B says 40 % of the text is quoted", LETTERS, None),
        ("A: -5%", LETTERS, None),
        ("A 0.6-0.7", LETTERS, None),
        ("A 180%", LETTERS, None),
        ("A 80", LETTERS, None),
        ("A 60%\nB 70%", LETTERS, None),
        ("P(A) = 65\nA 70%", LETTERS, None),
        ("mill 80 %", WORDS, None),
        ("", WORDS, None),
    ],
)
def test_what_is_read_and_what_is_not(text, answers, stated):
    assert read_stated(text, answers) == stated


@given(st.integers(0, 100), st.sampled_from([LETTERS, WORDS, ("a b", "b a")]))
def test_what_is_stated_is_read_again(percent, answers):
    written = statement.statement(percent / 100, answers)
    found = read_stated(written, answers)
    assert found is not None and found.p_first == pytest.approx(percent / 100)


@given(st.text(alphabet="AB shed0123456789.%P()=:\n<>answercof/", max_size=60))
def test_whatever_is_written_is_a_probability_or_nothing(text):
    found = read_stated(text, LETTERS)
    assert found is None or 0 <= found.p_first <= 1


def test_a_judge_of_the_lab_states_answer_and_probability(question):
    """The answer's own words, in either order of presentation."""
    name = question.answers[1]
    engine = ScriptedEngine(lambda request: f"{name} 80 %")
    (found,) = judge_transcripts([game(question)], StatedJudge(model="m"), engine)
    assert found.p[1] == pytest.approx(0.8) and {ask.text for ask in found.asks} == {f"{name} 80 %"}
    silent = ScriptedEngine(lambda request: name)
    (failed,) = judge_transcripts([game(question)], StatedJudge(model="m"), silent)
    assert isinstance(failed, Failure) and failed.kind == "unparsed"


def test_a_judge_may_be_asked_to_think_first(question):
    engine = ScriptedEngine(lambda request: "A quotes the text.\nP(A) = 80%")
    wanted = JudgeSettings(kind="stated", reasoning=True, max_new_tokens=200, both_orders=False)
    judge = judge_of_kind(wanted, StatedJudge(model="m"))
    (found,) = judge_transcripts([game(question, prompts="default")], judge, engine)
    asked = engine.requests[0]
    assert "First think in writing" in asked.messages[-1].content and asked.sampling.max_new_tokens == 200
    assert found.p[0] == pytest.approx(0.8) and "quotes" in found.asks[0].text
    with pytest.raises(ValueError, match="reasoning is of kind stated"):
        JudgeSettings(reasoning=True)


def test_the_examples_in_docstrings_run():
    result = doctest.testmod(statement)
    assert result.attempted and not result.failed
