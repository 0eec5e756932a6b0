import json

import pytest

from debate_rl.data.questions import Generated, load_questions
from debate_rl.data.sources import nyu, quality
from debate_rl.errors import UserError


def line(number, **changes):
    record = {
        "id": f"q{number}",
        "text": "where ?",
        "answers": ["shed", "barn"],
        "correct": 0,
        "group": f"s{number // 2}",
    }
    return record | changes


def written(folder, rows):
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_lab_makes_as_many_as_are_asked_for():
    questions = load_questions("lab", split="test", limit=6, seed=3)
    assert len(questions) == 6
    assert {q.split for q in questions} == {"test"}
    assert questions == load_questions("lab", split="test", limit=6, seed=3)
    assert questions != load_questions("lab", split="test", limit=6, seed=4)
    with pytest.raises(UserError, match="family"):
        load_questions(Generated(family="whereabout"))


def test_a_file_that_names_splits_is_read_by_them(tmp_path):
    path = written(tmp_path, [line(n, split="test" if n > 6 else "train") for n in range(10)])
    assert [q.id for q in load_questions("file", path, "test")] == ["q7", "q8", "q9"]
    assert len(load_questions("file", path)) == 10


def test_a_file_without_splits_is_cut_by_story(tmp_path):
    path = written(tmp_path, [line(n) for n in range(40)])
    parts = {split: load_questions("file", path, split) for split in ("train", "validation", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 28, "validation": 6, "test": 6}
    assert not {q.group for q in parts["train"]} & {q.group for q in parts["test"]}
    assert all(q.split == split for split, part in parts.items() for q in part)


def test_a_limit_is_a_draw_by_seed(tmp_path):
    path = written(tmp_path, [line(n) for n in range(40)])
    assert len(load_questions("file", path, limit=5)) == 5
    assert load_questions("file", path, limit=5) != load_questions("file", path, limit=5, seed=1)


@pytest.mark.parametrize(("source", "reader"), [("quality", quality), ("nyu", nyu)])
def test_the_readers_get_what_was_asked(monkeypatch, source, reader):
    asked = []
    name = "load" if source == "quality" else "questions"
    monkeypatch.setattr(reader, name, lambda *args: asked.append(args) or [])
    with pytest.raises(UserError, match=rf"no questions: source '{source}', split 'train', path 'p'"):
        load_questions(source, "p", "train", 9, 2, hard_only=True)
    expected = ("p", True, "train", 9, 2, set()) if source == "quality" else ("p", "train", None, 2)
    assert asked == [expected]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([line(1, answers=["shed"])], r"own.jsonl:1: answers.*no questions are left"),
        ([line(0), line(1, colour="red")], r"own.jsonl:2: colour: Extra inputs"),
        ([line(0), line(0)], r"own.jsonl:2: id 'q0' was used before"),
        ([line(0, split="train")], r"no questions: source 'file', split 'test', path '.*own.jsonl'"),
        ([], r"no questions: .*split 'test'"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, complaint):
    with pytest.raises(UserError, match=complaint):
        load_questions("file", written(tmp_path, rows), "test")


def test_wrong_names_and_missing_paths():
    with pytest.raises(UserError, match="unknown source 'qualty'; did you mean 'quality'"):
        load_questions("qualty")
    with pytest.raises(UserError, match="unknown split 'tests'; did you mean 'test'"):
        load_questions("lab", split="tests")
    for source in ("quality", "nyu", "file"):
        with pytest.raises(UserError, match=f"source {source} needs a path"):
            load_questions(source)
