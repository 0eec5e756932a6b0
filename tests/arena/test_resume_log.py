import pytest

from debate_rl.arena.resume_log import Log, LoggedRecords
from debate_rl.errors import UserError
from debate_rl.records import Record, append, read_log, write


class Square(Record):
    number: int
    square: int
    failed: bool = False


class Numbers:
    """Work that is made as it is asked for."""

    def __init__(self, count):
        self.count = count
        self.made = 0

    def __len__(self):
        return self.count

    def __contains__(self, number):
        return 0 <= number < self.count

    def __iter__(self):
        for number in range(self.count):
            self.made += 1
            yield number


def log(path):
    return Log(path, Square, str, lambda done: str(done.number), lambda done: done.failed)


def square(worked):
    def work(numbers):
        worked.append(list(numbers))
        return [Square(number=n, square=n * n, failed=n == 3) for n in numbers]

    return work


def test_work_is_done_in_chunks_and_read_back_in_order(tmp_path):
    worked, told = [], []
    each = []
    kept = log(tmp_path / "log").work_off(Numbers(7), square(worked), 3, lambda *now: told.append(now), each.append)
    assert each == list(kept)
    assert worked == [[0, 1, 2], [3, 4, 5], [6]]
    assert told == [(0, 0, 7), (3, 0, 7), (6, 1, 7), (7, 1, 7)]
    assert [done.square for done in kept] == [0, 1, 4, 9, 16, 25, 36]
    assert (len(kept), kept[-1].square, [done.number for done in kept[2:4]]) == (7, 36, [2, 3])
    with pytest.raises(IndexError):
        kept[7]


def test_work_is_taken_up_chunk_by_chunk(tmp_path):
    numbers, seen = Numbers(9), []
    log(tmp_path / "log").work_off(numbers, square([]), 2, lambda done, *_: seen.append((done, numbers.made)))
    assert all(made <= done + 2 for done, made in seen)


def test_what_the_log_holds_is_not_done_again_wherever_it_lies(tmp_path):
    path = tmp_path / "log"
    append(path, [Square(number=n, square=-1, failed=n == 5) for n in (5, 0)])
    worked, told = [], []
    kept = log(path).work_off(Numbers(7), square(worked), 3, lambda *now: told.append(now))
    assert worked == [[1, 2], [3, 4], [6]]
    assert [done.square for done in kept] == [-1, 1, 4, 9, 16, -1, 36]
    assert told[0] == (0, 1, 7) and told[-1] == (7, 2, 7)
    each = []
    finished = log(path).work_off(Numbers(7), square(worked), 3, lambda *now: told.append(now), each.append)
    assert each == list(kept)
    assert len(worked) == 3 and list(finished) == list(kept) and told[-1] == (7, 2, 7)


def test_the_same_work_twice_is_the_same_answer_twice(tmp_path):
    worked = []
    kept = log(tmp_path / "log").work_off([1, 1, 2, 1], square(worked), 3)
    assert [done.square for done in kept] == [1, 1, 4, 1] and worked[0] == [1, 2]


def test_no_work(tmp_path):
    kept = log(tmp_path / "log").work_off([], square([]), 3)
    assert list(kept) == [] and not kept and isinstance(kept, LoggedRecords)


def test_a_log_may_be_written_anew_from_what_is_read_of_it(tmp_path):
    path = tmp_path / "log"
    append(path, [Square(number=1, square=1), Square(number=0, square=0)])
    kept = log(path).work_off(Numbers(4), square([]), 2)
    write(path, kept)
    assert [done.number for done in read_log(path, Square)] == [done.number for done in kept] == [0, 1, 2, 3]


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "log"
    append(path, [Square(number=1, square=1)])
    with path.open("ab") as file:
        file.write(b'{"number": 2}\n')
    with pytest.raises(UserError, match=r"log:2: not a Square \(square: Field required\)"):
        log(path).work_off(Numbers(4), square([]), 2)
