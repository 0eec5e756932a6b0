import threading
import time

import pytest

from debate_rl.engines.parallel import Parallel, side_by_side
from debate_rl.engines.request import EngineFailure, Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError


def requests(count):
    return [Request(messages=(Message(role="user", content=f"say {n}"),), model="m") for n in range(count)]


def test_every_part_is_done_once_and_idle_lanes_help():
    done, busy, lock = [], set(), threading.Lock()

    def work(part):
        time.sleep(0.005)
        with lock:
            done.append(part)
            busy.add(threading.get_ident())

    side_by_side([list(range(30)), [], [30]], work)
    assert sorted(done) == list(range(31)) and len(busy) == 3


def test_a_lane_keeps_to_its_own_parts_while_it_has_some():
    here, found = threading.local(), {0: [], 1: []}
    barrier = threading.Barrier(2)

    def enter(lane):
        here.lane = lane

    def work(part):
        barrier.wait(timeout=5)
        found[here.lane].append(part)

    side_by_side([["a", "b"], ["x", "y"]], work, enter)
    assert found == {0: ["a", "b"], 1: ["x", "y"]}


def test_one_part_needs_no_thread():
    entered, threads = [], []
    side_by_side([[], [], ["only"]], lambda part: threads.append(threading.get_ident()), entered.append)
    assert entered == [2] and threads == [threading.get_ident()]
    side_by_side([], threads.append)
    side_by_side([[], []], threads.append)
    assert len(threads) == 1


def test_after_an_error_what_is_under_way_is_finished_and_nothing_begun():
    begun, finished, started, failing = [], [], threading.Event(), threading.Event()

    def work(part):
        begun.append(part)
        if part == 0:
            started.wait(5)
            failing.set()
            raise UserError("spent")
        started.set()
        failing.wait(5)
        time.sleep(0.1)
        finished.append(part)

    with pytest.raises(UserError, match="spent"):
        side_by_side([[0, 2, 4], [1, 3, 5]], work)
    assert sorted(begun) == [0, 1] and finished == [1]


class Dealt(ScriptedEngine):
    """A scripted engine that takes one request a part, in three lanes."""

    def plan(self, questions):
        return [[[at] for at in range(lane, len(questions), 3)] for lane in range(3)]

    def enter(self, lane):
        pass


def test_answers_come_in_order_and_are_in_the_store_before_the_call_ends(tmp_path):
    def write(request):
        number = int(request.messages[0].content.split()[1])
        if number == 7:
            raise ValueError("no")
        return f"text {number}"

    engine = Dealt(write)
    front = Parallel(StoredEngine(engine, tmp_path), engine)
    found = front.generate(requests(20))
    assert [getattr(one, "text", None) for one in found] == [None if n == 7 else f"text {n}" for n in range(20)]
    assert isinstance(found[7], EngineFailure) and len(engine.requests) == 20
    assert front.revision("m", None) == engine.revision("m", None) and front.generate([]) == []


def test_a_budget_that_is_spent_in_the_middle_keeps_what_was_answered(tmp_path):
    lock, left = threading.Lock(), [9]

    class Spending(Dealt):
        def generate(self, asked):
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    raise UserError("the budget is spent")
            return super().generate(asked)

    engine = Spending()
    with pytest.raises(UserError, match="spent"):
        Parallel(StoredEngine(engine, tmp_path), engine).generate(requests(20))
    left[0] = 100
    again = Spending()
    found = Parallel(StoredEngine(again, tmp_path), again).generate(requests(20))
    assert len(engine.requests) == 9 and len(again.requests) == 11 and len(found) == 20
