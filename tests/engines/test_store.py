import subprocess
import sys

import pytest

from debate_rl.engines.request import Choice, EngineFailure, Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine


def requests(count, **fields):
    return [Request(messages=(Message(role="user", content=f"say {i}"),), model="m", **fields) for i in range(count)]


def test_no_answer_is_paid_for_twice(tmp_path):
    engine = ScriptedEngine()
    stored = StoredEngine(engine, tmp_path)
    first = stored.generate(requests(5) + requests(5))
    assert first[:5] == first[5:] and len(engine.requests) == 5
    again = StoredEngine(engine, tmp_path)
    assert again.generate(requests(5)) == first[:5] and len(engine.requests) == 5
    assert (again.hits, again.misses) == (5, 0)


def test_a_name_is_made_of_the_request_and_the_weights(tmp_path):
    engine = ScriptedEngine()
    stored = StoredEngine(engine, tmp_path)
    stored.generate(requests(1))
    stored.generate(requests(1, seed=1))
    stored.generate(requests(1, adapter="other"))
    assert len(engine.requests) == 3


def test_scores_are_kept_beside_texts(tmp_path):
    engine = ScriptedEngine(score=lambda choice: [-1.0, -2.0])
    choice = Choice(messages=(Message(role="user", content="which"),), model="m", candidates=("a", "b"))
    scores = StoredEngine(engine, tmp_path).choose([choice])
    assert StoredEngine(engine, tmp_path).choose([choice]) == scores and len(engine.choices) == 1


def test_failures_are_asked_again(tmp_path):
    broken = {"now": True}

    def write(request):
        if broken["now"] and request.messages[0].content == "say 1":
            raise RuntimeError("down")
        return "fine"

    stored = StoredEngine(ScriptedEngine(write), tmp_path)
    assert isinstance(stored.generate(requests(3))[1], EngineFailure)
    broken["now"] = False
    assert stored.generate(requests(3))[1].text == "fine"


def test_a_crash_between_waves_loses_one_wave(tmp_path):
    asked = []

    def write(request):
        asked.append(request)
        return "text"

    class Dying(ScriptedEngine):
        def generate(self, some):
            if len(asked) >= 4:
                raise KeyboardInterrupt
            return super().generate(some)

    with pytest.raises(KeyboardInterrupt):
        StoredEngine(Dying(write), tmp_path, wave=2).generate(requests(8))
    engine = ScriptedEngine()
    StoredEngine(engine, tmp_path).generate(requests(8))
    assert len(engine.requests) == 4


def test_no_prompt_is_stored(tmp_path):
    StoredEngine(ScriptedEngine(lambda request: "short"), tmp_path).generate(
        [Request(messages=(Message(role="user", content="secret " * 1000),), model="m")]
    )
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "secret" not in text and len(text) < 400


def test_two_processes_share_a_store(tmp_path):
    script = (
        "import sys\n"
        "from debate_rl.engines.request import Message, Request\n"
        "from debate_rl.engines.scripted import ScriptedEngine\n"
        "from debate_rl.engines.store import StoredEngine\n"
        "stored = StoredEngine(ScriptedEngine(), sys.argv[1], wave=3)\n"
        "said = [(Message(role='user', content=f'say {i}'),) for i in range(50)]\n"
        "stored.generate([Request(messages=one, model='m', seed=int(sys.argv[2])) for one in said])\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(seed)]) for seed in (0, 1)]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    engine = ScriptedEngine()
    StoredEngine(engine, tmp_path).generate(requests(50) + requests(50, seed=1))
    assert not engine.requests
