"""Text enters once, clean; rows that can not be used are left out, counted and named."""

import gzip
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.data.binary_tasks import load
from debate_rl.data.chess_puzzles import load_lichess
from debate_rl.data.instructions import load_instructions
from debate_rl.data.left_out import question_fault
from debate_rl.data.questions import load_questions
from debate_rl.data.reward_pairs import load_pairs, turns
from debate_rl.data.transcripts import load_transcripts
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.records import lines, read_json
from debate_rl.tables import csv_rows

HEADER = "question,correct_answer,distractor1,distractor2,distractor3,support"


def row(number, **changes):
    answers = {f"distractor{at}": f"wrong {at}" for at in (1, 2, 3)}
    return {"question": f"what is {number}?", "correct_answer": "right", "support": "s", **answers, **changes}


def question(number, **changes):
    fields = {"id": f"q{number}", "text": "where ?", "answers": ["here", "there"], "correct": 0, "group": f"g{number}"}
    return {**fields, **changes}


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize(
    "answers", [["here", "here"], ["Here", " here "], ["here", ""], ["\uff48ere", "here"], [" ", "there"]]
)
def test_questions_whose_answers_can_not_be_told_apart_are_left_out_and_named(tmp_path, answers, caplog):
    path = write(tmp_path / "q.jsonl", [question(0), question(1, answers=answers), question(2)])
    assert [one.id for one in load_questions("file", path)] == ["q0", "q2"]
    assert "left out 1 questions" in caplog.text and "q.jsonl:2" in caplog.text


def test_texts_that_no_file_can_hold_are_clean_in_every_source(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(question(0, passage="a \ud83d b \x00 c", text="\udfff ?")) + "\n")
    found = load_questions("file", path)[0]
    assert (found.passage, found.text) == ("a \ufffd b \ufffd c", "\ufffd ?")
    found.model_dump_json()
    (tmp_path / "r.json").write_text(json.dumps([{"a": "\ud83d"}]))
    assert read_json(tmp_path / "r.json") == [{"a": "\ufffd"}]


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_answer_that_is_missing_is_not_offered(tmp_path, empty, caplog):
    rows = [row(n, distractor1=empty, distractor2=empty) for n in range(20)]
    found = load("sciq", write(tmp_path / "s.jsonl", rows), balanced=False)
    assert {item.answer for item in found.items} == {"right", "wrong 3"}
    assert "changed 20 rows of sciq (an empty answer is not offered" in caplog.text and "s.jsonl:1" in caplog.text


def test_a_row_without_a_right_answer_is_left_out(tmp_path, caplog):
    path = write(tmp_path / "s.jsonl", [row(0, correct_answer=None), *(row(n) for n in range(1, 30))])
    assert load("sciq", path, balanced=False).unused == 1
    assert "s.jsonl:1" in caplog.text


def test_what_one_says_twice_in_a_row_is_one_message():
    found = turns("\n\nHuman: a\n\nHuman: b\n\nAssistant: yes")
    assert found == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize("kind", ["bom", "crlf", "utf16", "gzip", "large"])
def test_a_csv_file_of_any_usual_kind_is_read(tmp_path, kind):
    cell = "x" * (200_000 if kind == "large" else 3)
    text = HEADER + "\n" + "".join(f"q {n},right {n},a,b,c,{cell}\n" for n in range(12))
    data = {
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "crlf": text.replace("\n", "\r\n").encode(),
        "utf16": text.encode("utf-16"),
        "gzip": gzip.compress(text.encode()),
        "large": text.encode(),
    }[kind]
    path = tmp_path / ("s.csv.gz" if kind == "gzip" else "s.csv")
    path.write_bytes(data)
    assert load("sciq", path, balanced=False).read == 12


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", "a\nb\xe9\n".encode("latin-1"), "iconv -f CP1252"),
        ("a.json", '["b\xe9"]'.encode("latin-1"), "iconv -f CP1252"),
        ("a.jsonl", '{"b": "\xe9"}\n'.encode("latin-1"), "iconv -f CP1252"),
        ("a.csv", b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        ("a.jsonl", b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        ("a.json", b"PK\x03\x04", "unzip"),
        ("a.json", b"\x1f\x8bno gzip", "a.json"),
        ("a.csv", b"a,b\n1\n", "a.csv:2: a row with another number of cells"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_can_not_be_read_is_one_line_that_says_what_to_do(tmp_path, name, data, said):
    path = tmp_path / name
    path.write_bytes(data)
    read = {".csv": csv_rows, ".json": read_json, ".jsonl": lines}[path.suffix]
    with pytest.raises(UserError, match=said) as caught:
        list(read(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_puzzles_with_a_byte_order_mark_are_read(tmp_path):
    pytest.importorskip("chess", reason="needs the extra `chess`")
    header = "PuzzleId,FEN,Moves,Rating,RatingDeviation,Popularity,NbPlays,Themes,GameUrl,OpeningTags"
    line = "1,6k1/5ppp/8/8/8/8/r7/R5K1 b - - 0 1,a2f2 a1a8,812,75,90,9,mateIn1 short,https://lichess.org/x/black#4,"
    (tmp_path / "p.csv").write_text(f"{header}\r\n{line}\r\n", encoding="utf-8-sig")
    assert len(load_lichess(tmp_path / "p.csv")) == 1


def test_answers_that_differ_are_no_fault():
    assert question_fault(Question(id="q", text="?", answers=("4", "5"))) is None


@pytest.mark.parametrize("answers", [("10\u00b2", "102"), ("H\u2082O", "HO"), ("x\u00b2", "x2"), ("a.", "a")])
def test_digits_that_are_raised_or_lowered_tell_answers_apart(answers):
    assert question_fault(Question(id="q", text="?", answers=answers)) is None


@pytest.mark.parametrize("answers", [("caf\u00e9", "cafe\u0301"), ("\u200bhere", "here"), ("STRASSE", "stra\u00dfe")])
def test_answers_that_look_the_same_are_the_same(answers):
    assert question_fault(Question(id="q", text="?", answers=answers)) == "both answers are the same"


BAD = [None, math.nan, "", "  ", "\u200b", [], ["a"], {}, True]
"""What stands in fields of rows that can not be used."""
WORDS = ("None", "none", "nan", "[]", "['a']", "{}", "True", "true")
"""What would be shown of them."""


@given(
    damage=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(sorted(row(0))), st.sampled_from(BAD)), max_size=5),
    gone=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(sorted(row(0)))), max_size=3),
)
def test_no_row_of_a_task_shows_what_is_no_text(tmp_path_factory, damage, gone):
    rows = [row(number) for number in range(10)]
    for number, field, value in damage:
        rows[number][field] = value
    for number, field in gone:
        rows[number].pop(field, None)
    untouched = set(range(10)) - {number for number, *_ in (*damage, *gone)}
    path = write(tmp_path_factory.getbasetemp() / "damaged.jsonl", rows)
    found = load("sciq", path, balanced=False)
    assert {f"what is {number}?" for number in untouched} <= {item.text.split(" A: ")[0][3:] for item in found.items}
    assert not any(item.answer in ("", *WORDS) or item.text.split(" A: ")[0][3:] in WORDS for item in found.items)
    assert found.read == 10 == len(found.items) + found.unused + found.repeated


@pytest.mark.parametrize("bad", [{}, 3, ["a"], math.nan])
@pytest.mark.parametrize("field", ["text", "answers", "id", "passage"])
def test_a_question_that_lacks_a_text_is_left_out_and_named(tmp_path, field, bad, caplog):
    path = write(tmp_path / "q.jsonl", [question(0), question(1, **{field: bad}), question(2)])
    assert [one.id for one in load_questions("file", path)] == ["q0", "q2"]
    assert f"{path}:2" in caplog.text and "left out 1 questions" in caplog.text


def test_a_file_without_a_usable_row_is_refused_with_the_first_of_them(tmp_path):
    path = write(tmp_path / "q.jsonl", [question(0, answers=["a", "A"]), question(1, answers=None)])
    with pytest.raises(UserError, match=r"q.jsonl:1: both answers are the same; none of 2 questions can be used"):
        load_questions("file", path)


def test_what_is_left_out_is_said_once_though_a_run_reads_its_questions_for_each_split(tmp_path, caplog):
    path = write(
        tmp_path / "q.jsonl", [question(number, answers=["a", "Ab"[: 1 + number % 2]]) for number in range(40)]
    )
    for split in ("train", "test"):
        load_questions("file", path, split)
    assert len(caplog.records) == 1
    assert "left out 20 questions" in caplog.text and f"{path}:1, {path}:3, {path}:5 and 17 more" in caplog.text


def article(number, **changes):
    asked = {"question": "where ?", "options": ["here", "there", "away"], "gold_label": 1,
             "question_unique_id": f"u{number}", "validation": [{"untimed_best_distractor": 2}]}  # fmt: skip
    return {
        "article_id": str(number),
        "article": "<p>a</p>",
        "set_unique_id": f"s{number}",
        "questions": [asked | changes],
    }


@pytest.mark.parametrize(
    "changes", [{"options": ["Here", "here ", "x"]}, {"options": ["here", None, "x"]}, {"options": ["here", "", "x"]},
                {"question": None}, {"question": " "}, {"options": None}, {"validation": None}]
)  # fmt: skip
def test_a_question_of_quality_that_can_not_be_used_is_left_out_and_named(tmp_path, changes, caplog):
    path = write(tmp_path / "own.jsonl", [article(0), article(1, **changes), article(2) | {"article": None}])
    assert [one.id for one in load_questions("quality", path)] == ["quality-u0"]
    assert f"{path}:2" in caplog.text and f"{path}:3" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"question": None}, {"correct": "Away"}, {"correct": ""}, {"distractor": ["away"]}, {"storyId": None}]
)
def test_a_debated_question_that_can_not_be_used_is_left_out_and_named(tmp_path, changes, caplog):
    asked = {"storyId": "s", "question": "where ?", "correct": "here", "distractor": "away"}
    path = write(tmp_path / "questions.jsonl", [asked, asked | changes])
    assert [sorted(one.answers) for one in load_questions("nyu", path)] == [["away", "here"]]
    assert f"{path}:2" in caplog.text


def test_games_and_instructions_that_can_not_be_used_are_counted_for_the_card(tmp_path):
    rules = load_protocol("blind")
    games = [open_transcript(Question.model_validate(question(0)), rules, {}),
             open_transcript(Question.model_validate(question(1, answers=["a", "A "])), rules, {})]  # fmt: skip
    path = tmp_path / "games.jsonl"
    path.write_text("".join(game.model_dump_json() + "\n" for game in games))
    corpus = load_transcripts(str(path), [], rules)
    assert len(corpus.transcripts) == 1 and corpus.left_out == {f"both answers are the same: {path}:2": 1}
    told = [
        {"instruction": "a", "output": "b"},
        {"instruction": None, "output": "b"},
        {"instruction": "a", "output": 3},
    ]
    found, left_out = load_instructions(write(tmp_path / "told.jsonl", [*told, {"instruction": "a"}]))
    assert len(found) == 1 and sum(left_out.values()) == 3
    assert any(f"{tmp_path / 'told.jsonl'}:3" in reason for reason in left_out)


def test_turns_of_one_speaker_in_a_row_are_joined_counted_and_named(tmp_path, caplog):
    start = "\n\nHuman: a\n\nHuman: b\n\nAssistant:"
    path = write(tmp_path / "hh.jsonl", [{"chosen": f"{start} yes", "rejected": f"{start} no"}])
    found = load_pairs("hh", path)
    assert found.pairs[0].prompt == [{"role": "user", "content": "a\n\nb"}]
    assert found.left_out == {f"turns in a row of one speaker are joined: {path}:1": 1}
    assert f"changed 1 rows of hh (turns in a row of one speaker are joined): {path}:1" in caplog.text


def test_a_puzzle_that_is_none_is_left_out_and_named(tmp_path, caplog):
    pytest.importorskip("chess", reason="needs the extra `chess`")
    good = "1,6k1/5ppp/8/8/8/8/r7/R5K1 b - - 0 1,a2f2 a1a8,812,75,90,9,mateIn1 short,https://lichess.org/x/black#4,"
    bad = [good.replace("a1a8", "a1a9"), good.replace("6k1/", "9k1/"), good.replace(",812,", ",,"), good[1:]]
    header = "PuzzleId,FEN,Moves,Rating,RatingDeviation,Popularity,NbPlays,Themes,GameUrl,OpeningTags"
    (tmp_path / "p.csv").write_text("\n".join([header, good, *bad]) + "\n")
    assert len(load_lichess(tmp_path / "p.csv")) == 1
    assert all(f"p.csv:{line}" in caplog.text for line in (3, 4, 5, 6))


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "None", "null", "NULL", "<NA>"])
def test_a_missing_value_of_a_table_is_not_offered(tmp_path, cell):
    text = HEADER + "\n" + "".join(f"q {n},right {n},{cell},{cell},w {n},s\n" for n in range(30))
    (tmp_path / "s.csv").write_text(text)
    found = load("sciq", tmp_path / "s.csv", balanced=False)
    assert len(found.items) == 30
    assert {item.answer.split()[0] for item in found.items} == {"right", "w"}
