"""Text enters once, clean; rows that can not be used are left out, counted and named."""

import gzip
import json

import pytest

from debate_rl.data.left_out import question_fault
from debate_rl.data.questions import load_questions
from debate_rl.data.tasks.binary_items import load
from debate_rl.data.tasks.chess_puzzles import load_lichess
from debate_rl.data.tasks.reward_pairs import turns
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.records import csv_rows, lines, read_json

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
    "answers",
    [["here", "here"], ["Here", " here "], ["here", ""], ["\uff48ere", "here"], [" ", "there"], ["here", "\u3164"]],
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
    assert "left out 20 rows of sciq" in caplog.text and "s.jsonl:1" in caplog.text


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
        ("a.csv", "a\nb\xe9\n".encode("latin-1"), "iconv -f latin1"),
        ("a.json", '["b\xe9"]'.encode("latin-1"), "iconv -f latin1"),
        ("a.jsonl", '{"b": "\xe9"}\n'.encode("latin-1"), "iconv -f latin1"),
        ("a.csv", b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        ("a.jsonl", b"\x28\xb5\x2f\xfdrest", "zstd -d"),
        ("a.json", b"PK\x03\x04", "unzip"),
        ("a.csv", b"BZh91AY&SY", "bunzip2"),
        ("a.jsonl", b"\xfd7zXZ\x00", "unxz"),
        ("a.jsonl", b"PAR1\x15\x04", "a Parquet file; write its rows as JSON lines or CSV"),
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


@pytest.mark.parametrize("answers", [("10\u00b2", "102"), ("H\u2082O", "H2O"), ("x\u00b2", "x2"), ("a.", "a")])
def test_digits_that_are_raised_or_lowered_tell_answers_apart(answers):
    assert question_fault(Question(id="q", text="?", answers=answers)) is None


@pytest.mark.parametrize("answers", [("caf\u00e9", "cafe\u0301"), ("\u200bhere", "here"), ("STRASSE", "stra\u00dfe")])
def test_answers_that_look_the_same_are_the_same(answers):
    assert question_fault(Question(id="q", text="?", answers=answers)) == "both answers are the same"


@pytest.mark.parametrize("changes", [{"text": " "}, {"text": None}, {"answers": [None, "x"]}, {"answers": ["x"]}])
def test_a_question_that_lacks_a_text_is_left_out_and_named(tmp_path, changes, caplog):
    path = write(tmp_path / "q.jsonl", [question(0), question(1, **changes)])
    assert [one.id for one in load_questions("file", path)] == ["q0"]
    assert f"{path}:2" in caplog.text


def test_a_debated_question_with_equal_answers_is_left_out_and_named(tmp_path, caplog):
    asked = {"storyId": "s", "question": "where ?", "correct": "here", "distractor": "away"}
    path = write(tmp_path / "questions.jsonl", [asked, asked | {"distractor": "Here "}])
    assert [sorted(one.answers) for one in load_questions("nyu", path)] == [["away", "here"]]
    assert "both answers are the same" in caplog.text


@pytest.mark.parametrize("missing", [[], {}, float("nan")])
def test_what_is_no_text_is_not_offered_as_an_answer(tmp_path, missing):
    rows = [row(n, distractor1=missing, distractor2=missing) for n in range(20)]
    found = load("sciq", write(tmp_path / "s.jsonl", rows), balanced=False)
    assert {item.answer for item in found.items} == {"right", "wrong 3"}


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "None", "null", "NULL", "<NA>"])
def test_a_missing_value_of_a_table_is_not_offered(tmp_path, cell):
    text = HEADER + "\n" + "".join(f"q {n},right {n},{cell},{cell},w {n},s\n" for n in range(30))
    (tmp_path / "s.csv").write_text(text)
    found = load("sciq", tmp_path / "s.csv", balanced=False)
    assert len(found.items) == 30
    assert {item.answer.split()[0] for item in found.items} == {"right", "w"}


@pytest.mark.parametrize(
    ("data", "said"),
    [(b'a,b\n1,"x\n2,3\n', "not a row of a CSV file"), (b"a,a\n1,2\n", "two columns are called 'a'")],
)
def test_a_table_that_would_lose_cells_is_refused(tmp_path, data, said):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(UserError, match=said):
        list(csv_rows(tmp_path / "a.csv"))


@pytest.mark.parametrize("read", [lines, csv_rows, read_json])
def test_a_damaged_archive_is_one_line_wherever_the_damage_is(tmp_path, read):
    whole = gzip.compress(b"".join(b'{"a": %d, "b": %d}\n' % (n, n * n * 7919) for n in range(200)))
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path = tmp_path / "a.gz"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(read(path))
        except UserError as error:
            assert "\n" not in str(error)


def test_a_file_that_never_ends_is_refused():
    with pytest.raises(UserError, match="no file but a device or a pipe"):
        list(lines("/dev/zero"))


@pytest.mark.parametrize("path", ["a" * 5000, "a\0b"])
def test_a_path_that_no_file_can_have_is_not_found(path):
    with pytest.raises(UserError, match="not found"):
        list(lines(path))
