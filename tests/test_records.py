import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debate_rl.errors import UserError, nearest
from debate_rl.records import (
    Record,
    append,
    digest,
    read,
    read_checked,
    read_log,
    write,
    write_checked,
    write_text,
)


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

    monkeypatch.setattr("debate_rl.records.os.fsync", full)
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


LOCKER = """
import sys
from pathlib import Path
from debate_rl.records import locked
path = Path(sys.argv[1])
with locked(path, "busy", 60):
    count = int(path.with_name("count").read_text())
    for turn in range(200):
        assert path.with_name("count").read_text() == str(count + turn)
        path.with_name("count").write_text(str(count + turn + 1))
    path.unlink()
"""


def test_one_process_at_a_time_holds_a_lock_that_is_removed_with_it(tmp_path):
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", LOCKER, str(tmp_path / "lock")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(5)]
    assert [process.communicate()[1] for process in processes] == [b""] * 5
    assert (tmp_path / "count").read_text() == "1000" and not (tmp_path / "lock").exists()


def test_a_line_of_a_log_that_was_changed_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    append(path, [Point(x=1, label="one"), Point(x=2, label="two")])
    path.write_bytes(path.read_bytes().replace(b"two", b"ten"))
    with pytest.raises(UserError, match=r"log.jsonl:2: damaged .*; remove the line"):
        read_log(path, Point)


@given(st.data())
def test_a_damaged_byte_of_a_log_or_document_is_another_record_never(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("log")
    points = [Point(x=n, label=label) for n, label in enumerate(data.draw(st.lists(st.text(), min_size=1, max_size=4)))]
    append(folder / "log", points)
    value = {"points": [point.model_dump() for point in points], "share": 0.1}
    write_checked(folder / "value", value)
    for name in ("log", "value"):
        content = bytearray((folder / name).read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        (folder / name).write_bytes(content)
    try:
        # The last line break may be what was damaged: then the line counts as torn, and is done again.
        found = read_log(folder / "log", Point)
        assert found == points[: len(found)] and len(found) >= len(points) - 1
    except UserError as error:
        assert "\n" not in str(error)
    try:
        assert read_checked(folder / "value") == value
    except UserError as error:
        assert "damaged" in str(error)
