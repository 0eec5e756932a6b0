"""Generated word problems: their workings, their slips, and what no split shares with another."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.config.tree import load_config, parse_config
from debate_rl.data.questions import Generated, load_questions
from debate_rl.data.sources.word_problems import Knobs, questions
from debate_rl.errors import UserError
from debate_rl.game.prompts import judge_messages
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import open_transcript
from debate_rl.runs.run import Run
from tests import ROOT

SUM = re.compile(r"Step \d+: (\d+) ([-+x/]) (\d+) = (\d+)\.")


def worked(sentences):
    """What each line of a working says, what it should say, and the answer that it ends with."""
    said, true = [], []
    for first, sign, second, result in SUM.findall(" ".join(sentences)):
        one, two = int(first), int(second)
        said.append(int(result))
        true.append({"+": one + two, "-": one - two, "x": one * two, "/": one / two}[sign])
    return said, true, re.search(r"So the answer is (\d+)", sentences[-1])[1]


def told(text):
    """The answer of a problem, found from its words alone."""
    sentences = text.split(". ")
    value = int(re.search(r"has (\d+)", sentences[0])[1])
    parts = {"half": 2, "a third": 3, "a quarter": 4, "a fifth": 5}
    for sentence in sentences[1:-1]:
        numbers = [int(number) for number in re.findall(r"\d+", sentence)]
        if " boxes " in sentence:
            value += numbers[0] * numbers[1]
        elif " gets " in sentence:
            value += numbers[0]
        elif " gives " in sentence:
            value -= numbers[0]
        elif " times as many " in sentence:
            value *= numbers[0]
        elif " equal parts " in sentence:
            value //= numbers[0]
        else:
            (part,) = [size for name, size in parts.items() if f"loses {name} of" in sentence]
            value -= value // part
    return value


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_the_right_answer_follows_from_the_words_and_the_wrong_one_does_not(seed, steps):
    for question in questions("train", 5, seed, least_steps=steps, most_steps=steps):
        right, wrong = question.answers[question.correct], question.answers[1 - question.correct]
        assert int(right) == told(question.text) and right != wrong and int(wrong) >= 2
        assert 1 / 4 <= int(wrong) / int(right) <= 4
        said, true, end = worked(question.evidence[question.correct])
        assert said == true and end == right and len(said) >= steps
        said, true, end = worked(question.evidence[1 - question.correct])
        # A slip is one wrong sum at most; a step left out or misread has sums that are all true.
        assert sum(one != two for one, two in zip(said, true, strict=True)) <= 1 and end == wrong
        assert all(" ".join(working) in question.passage for working in question.evidence)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_a_smaller_draw_is_part_of_a_larger_one_and_splits_share_no_text(seed):
    many = questions("train", 30, seed)
    assert questions("train", 12, seed) == many[:12]
    others = {question.text for split in ("validation", "test") for question in questions(split, 10, seed + 1)}
    assert len({question.id for question in many}) == 30 and not others & {question.text for question in many}


def test_neither_the_size_nor_the_place_of_an_answer_gives_it_away():
    many = questions("train", 1000, 3)
    larger = sum(int(one.answers[one.correct]) > int(one.answers[1 - one.correct]) for one in many)
    first = sum(one.passage.index(one.evidence[one.correct][-1]) < one.passage.index("Second") for one in many)
    # Fair draws stay within 4 standard errors of a half; for the size some leaning is left, which is known to be small.
    assert 430 < sum(one.correct for one in many) < 570 and 430 < first < 570 and 400 < larger < 600


def test_the_working_is_hidden_from_the_judge_or_absent():
    (shown,) = load_questions("word_problems", split="test", limit=1)
    game = open_transcript(shown, load_protocol("debate"), {"A": "x", "B": "y"})
    seen = " ".join(message["content"] for message in judge_messages(game, game.present, (0, 1)))
    assert shown.text in seen and "Step 1" not in seen
    (alone,) = load_questions(Generated(source="word_problems", knobs={"passage": "none"}), split="test", limit=1)
    assert alone.passage is None and alone.text == shown.text
    open_transcript(alone, load_protocol("debate", needs_passage=False), {"A": "x", "B": "y"})
    (one,) = load_questions(Generated(source="word_problems", knobs={"passage": "solution"}), limit=1)
    assert one.answers[one.correct] in one.passage and "Second working" not in one.passage


def test_steps_are_in_the_id_and_within_what_was_asked_for():
    found = {question.id.split("-")[1] for question in questions("train", 60, least_steps=3, most_steps=4)}
    assert found == {"3", "4"} and Knobs().least_steps == 2


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"step": 3}, "no knob 'step'; did you mean"),
        ({"least_steps": 6}, "least_steps 6 is above most_steps 5; swap them"),
        ({"passage": "all"}, "questions.knobs of word_problems: passage"),
        ({"most_steps": 0}, "most_steps"),
    ],
)
def test_mistakes_in_knobs_are_a_line(knobs, said):
    with pytest.raises(UserError, match=said) as error:
        questions("train", 1, **knobs)
    assert "\n" not in str(error.value)


def test_a_run_asks_them_and_its_splits_are_apart():
    source = {"source": "word_problems", "knobs": {"most_steps": 3}, "train": 20, "test": 10}
    run = Run(parse_config({"questions": source, "stages": {"sft": {}}}))
    train, test = run.questions("train"), run.questions("test")
    assert (len(train), len(test)) == (20, 10) and {one.source for one in train} == {"word_problems"}
    assert not {one.id for one in train} & {one.id for one in test}


def test_the_config_has_a_column_for_each_number_of_steps():
    found = load_config(ROOT / "configs/library/word_problems.yaml")
    columns = [stage.knobs["most_steps"] for stage in found.stages.values() if getattr(stage, "table", None) == "steps"]
    assert columns == [2, 4, 8]
