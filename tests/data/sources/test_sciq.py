"""SciQ as a debate source: sides, distractors and splits are fair and stay; what is left out is counted."""

import json
import logging

import pytest

from debate_rl.data.questions import load_questions
from debate_rl.data.sources import sciq
from debate_rl.errors import UserError


def row(number, **changes):
    fields = {
        "question": f"What gas is number {number}?",
        "correct_answer": f"gas {number}",
        "distractor1": "stone",
        "distractor2": "wood",
        "distractor3": "water",
        "support": f"The gas of number {number} is called gas {number} by everyone who has met it.",
    }
    return fields | changes


def written(path, rows):
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(one) + "\n" for one in rows)
    path.write_text(text)
    return path


def by_id(questions):
    return {question.id: question for question in questions}


@pytest.mark.parametrize("name", ["test.json", "sciq_test.jsonl"])
def test_a_row_becomes_a_question_with_the_support_as_passage(tmp_path, name):
    (question,) = load_questions("sciq", written(tmp_path / name, [row(1)]))
    assert question.text == "What gas is number 1?" and question.passage == row(1)["support"]
    assert question.answers[question.correct] == "gas 1"
    assert question.answers[1 - question.correct] in ("stone", "wood", "water")
    assert question.source == "sciq"


def test_sides_and_distractors_are_fair_draws_by_seed(tmp_path):
    path = written(tmp_path / "all.jsonl", [row(number) for number in range(300)])
    questions = load_questions("sciq", path)
    assert 110 < sum(question.correct for question in questions) < 190
    wrong = [question.answers[1 - question.correct] for question in questions]
    assert all(60 < wrong.count(name) < 140 for name in ("stone", "wood", "water"))
    assert load_questions("sciq", path) == questions != load_questions("sciq", path, seed=1)


def test_one_file_is_cut_by_the_hash_of_the_support_whatever_else_is_in_it(tmp_path):
    rows = [row(number) for number in range(200)]
    whole = by_id(sciq.load(written(tmp_path / "whole.jsonl", rows)))
    part = by_id(sciq.load(written(tmp_path / "part.jsonl", rows[50:90]), seed=3))
    assert all(whole[name].split == question.split for name, question in part.items())
    sizes = [len(sciq.load(tmp_path / "whole.jsonl", split)) for split in ("train", "validation", "test")]
    assert sum(sizes) == 200 and 110 < sizes[0] < 165 and min(sizes) > 10
    shared = [row(number, support="One paragraph for all of them.") for number in range(9)]
    assert len({question.split for question in sciq.load(written(tmp_path / "shared.jsonl", shared))}) == 1


def test_rows_without_enough_support_are_left_out_and_counted(tmp_path, caplog):
    rows = [row(1), row(2, support=""), row(3, support="Too short."), row(4, support=None)]
    path = written(tmp_path / "some.jsonl", [*rows, row(1), row(5, **dict.fromkeys(["distractor1"], "gas 5"))])
    with caplog.at_level(logging.WARNING):
        questions = load_questions("sciq", path, min_passage_words=5)
    assert sorted(question.text for question in questions) == ["What gas is number 1?", "What gas is number 5?"]
    assert "left out 2 questions (no support)" in caplog.text
    assert "left out 1 questions (a support of fewer than 5 words)" in caplog.text
    assert "left out 1 questions (repeated word for word)" in caplog.text
    assert len(load_questions("sciq", path, min_passage_words=0)) == 5


def test_the_owners_folder_has_its_own_splits_and_no_support_in_two(tmp_path):
    written(tmp_path / "train.json", [row(1), row(2)])
    written(tmp_path / "valid.json", [row(3)])
    written(tmp_path / "test.json", [row(4), row(5, support=row(1)["support"])])
    assert {q.text[-2] for q in load_questions("sciq", tmp_path, "train")} == {"1", "2"}
    assert {q.text[-2] for q in load_questions("sciq", tmp_path, "validation")} == {"3"}
    assert {q.text[-2] for q in load_questions("sciq", tmp_path, "test")} == {"4"}
    assert len(load_questions("sciq", tmp_path)) == 4


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "What?"}], "correct_answer"),
        ([row(1, support=7)], "support"),
        ([row(1, **{f"distractor{n}": "gas 1" for n in (1, 2, 3)})], "no distractor differs"),
        ([row(1, support="")], "no support"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        load_questions("sciq", written(tmp_path / "bad.jsonl", rows))


def test_a_folder_without_the_file_says_which(tmp_path):
    with pytest.raises(UserError, match=r"has no file train\.json"):
        load_questions("sciq", tmp_path, "train")


def test_the_shared_rows_are_read(shared_data):
    path = shared_data / "binary_tasks" / "sciq_test.jsonl"
    questions = load_questions("sciq", path)
    assert len(questions) == 884
    assert len(load_questions("sciq", path, min_passage_words=26)) == 699
    assert all(question.passage for question in questions)
    # By chance half of the right answers stand on either side.
    assert 380 < sum(question.correct for question in questions) < 505
