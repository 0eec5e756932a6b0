from debate_rl.engines.once import Once
from debate_rl.engines.request import Choice, EngineFailure, Message, Request
from debate_rl.engines.scripted import ScriptedEngine


def request(number, **fields):
    return Request(messages=(Message(role="user", content=f"say {number}"),), model="m", **fields)


def test_each_question_of_a_call_is_asked_once_and_answered_in_every_place():
    engine = ScriptedEngine()
    wanted = [request(at % 3) for at in range(9)] + [request(0, seed=1), request(0, adapter="a")]
    answers = Once(engine).generate(wanted)
    assert answers == ScriptedEngine().generate(wanted)
    assert engine.requests == [request(0), request(1), request(2), request(0, seed=1), request(0, adapter="a")]


def test_choices_and_failures_alike():
    def broken(choice):
        raise RuntimeError("down")

    engine = ScriptedEngine(score=broken)
    choice = Choice(messages=(Message(role="user", content="which"),), model="m", candidates=("a", "b"))
    answers = Once(engine).choose([choice] * 4)
    assert len(engine.choices) == 1 and len(answers) == 4
    assert all(isinstance(answer, EngineFailure) for answer in answers)


def test_no_question_is_an_empty_call_and_weights_keep_their_name():
    engine = ScriptedEngine()
    assert Once(engine).generate([]) == [] and Once(engine).revision("m", "a") == engine.revision("m", "a")
