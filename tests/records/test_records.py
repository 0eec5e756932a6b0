import fcntl

import pytest

from debate_rl.errors import UserError, nearest
from debate_rl.records import Record, append, digest, locked, read, read_log, write, write_text


class Point(Record):
    x: int
    label: str = ""


def test_records_go_to_a_file_and_back(tmp_path):
    points = [Point(x=1, label="\u00fc\n\u2028"), Point(x=2)]
    write(tmp_path / "points.jsonl", points)
    assert read(tmp_path / "points.jsonl", Point) == points


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"x": 1', r"points.jsonl:2: not valid JSON"),
        ("[1]", "points.jsonl:2: expected a JSON object"),
        ('{"x": "a"}', "points.jsonl:2: x:"),
        ('{"x": 1, "y": 2}', "points.jsonl:2: y:"),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path, line, said):
    (tmp_path / "points.jsonl").write_text('{"x": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=said):
        read(tmp_path / "points.jsonl", Point)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="file not found"):
        read(tmp_path / "none.jsonl", Point)


def test_a_torn_line_is_left_out_and_cut_by_the_next_append(tmp_path):
    path = tmp_path / "log.jsonl"
    append(path, [Point(x=1), Point(x=2)])
    with path.open("ab") as file:
        file.write(b'{"x": 3, "la')
    assert [p.x for p in read_log(path, Point)] == [1, 2]
    append(path, [Point(x=4)])
    assert [p.x for p in read_log(path, Point)] == [1, 2, 4]


def test_a_log_that_is_one_torn_line_longer_than_a_block(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"x": 1}\n' + b"y" * 200_000)
    append(path, [Point(x=2)])
    assert [p.x for p in read_log(path, Point)] == [1, 2]
    path.write_bytes(b"y" * 200_000)
    append(path, [Point(x=3)])
    assert [p.x for p in read_log(path, Point)] == [3]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    append(path, [Point(x=1)])
    write_text(tmp_path / "whole.txt", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("debate_rl.records.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        append(path, [Point(x=2)])
    with pytest.raises(UserError, match="No space left"):
        write_text(tmp_path / "whole.txt", "new")
    assert [p.x for p in read_log(path, Point)] == [1]
    assert (tmp_path / "whole.txt").read_text() == "old"
    assert not list(tmp_path.glob(".*partial"))


def test_digests_depend_on_content_only():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest(Point(x=1)) != digest(Point(x=2))


def test_the_nearest_name_or_the_choices():
    assert nearest("dop", ["sft", "dpo"]) == "did you mean 'dpo'?"
    assert nearest("zzz", ["sft", "dpo"]) == "choose one of: dpo, sft"


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_on_the_new_file(tmp_path, monkeypatch):
    path, lock, tries = tmp_path / "lock", fcntl.flock, []

    def removed_first(file, how):
        tries.append(how)
        if len(tries) == 1:
            path.unlink()  # by who held it, after this process opened it
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with locked(path, "busy"), pytest.raises(UserError, match="busy"), locked(path, "busy"):
        pass
