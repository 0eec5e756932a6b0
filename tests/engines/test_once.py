"""Equal requests of one call are computed once and get the same answer, whatever engine is asked."""

from itertools import count

import pytest

from debate_rl.engines.parallel import Parallel
from debate_rl.engines.request import Choice, EngineFailure, Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine


class OnePartEach(ScriptedEngine):
    """Takes one request a part, in three lanes."""

    def plan(self, questions):
        return [[[index] for index in range(lane, len(questions), 3)] for lane in range(3)]

    def enter(self, lane):
        pass


def request(number, **fields):
    return Request(messages=(Message(role="user", content=f"say {number}"),), model="m", **fields)


CHOICE = Choice(messages=(Message(role="user", content="which"),), model="m", candidates=("a", "b"))


@pytest.fixture(params=["scripted", "stored", "parallel"])
def front_of(request, tmp_path):
    """Puts a scripted engine behind what stands in front of it in a run."""

    def front(engine):
        if request.param == "scripted":
            return engine
        stored = StoredEngine(engine, tmp_path)
        return stored if request.param == "stored" else Parallel(stored, engine)

    return front


def test_each_question_of_a_call_is_asked_once_and_answered_in_every_place(front_of):
    drawn = count()
    engine = OnePartEach(lambda request: f"{request.messages[0].content}, draw {next(drawn)}")
    asked = [request(at % 3) for at in range(9)] + [request(0, seed=1), request(0, adapter="a")]
    answers = front_of(engine).generate(asked)
    assert sorted(map(str, engine.requests)) == sorted(map(str, dict.fromkeys(asked)))
    assert answers[:3] == answers[3:6] == answers[6:9] and len({answer.text for answer in answers}) == 5
    assert [answer.text[:5] for answer in answers] == [question.messages[0].content for question in asked]


def test_choices_and_failures_alike(front_of):
    def broken(choice):
        raise RuntimeError("down")

    engine = OnePartEach(score=broken)
    answers = front_of(engine).choose([CHOICE] * 4)
    assert len(engine.choices) == 1 and len(answers) == 4
    assert all(isinstance(answer, EngineFailure) for answer in answers)


def test_no_question_is_an_empty_call_and_weights_keep_their_name(front_of):
    engine = OnePartEach()
    front = front_of(engine)
    assert front.generate([]) == [] and front.revision("m", "a") == engine.revision("m", "a")
