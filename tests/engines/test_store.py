import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import Store, StoredEngine
from debate_rl.errors import UserError


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
    text = "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))
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


def lines(folder):
    return [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def test_a_line_is_little_more_than_its_text(tmp_path):
    text = "it is the shed, \u201cat noon\u201d: <quote>omar took it</quote>\n" * 6
    StoredEngine(ScriptedEngine(lambda request: text), tmp_path).generate(requests(100))
    size = sum(len(line.encode()) + 1 for line in lines(tmp_path))
    assert 100 * len(text.encode()) < size < 1.2 * 100 * len(text.encode())


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_store_cut_off_in_a_line_keeps_what_is_whole(tmp_path, cut):
    StoredEngine(ScriptedEngine(), tmp_path).generate(requests(10))
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-cut])
    engine = ScriptedEngine()
    stored = StoredEngine(engine, tmp_path)
    assert stored.generate(requests(10)) == ScriptedEngine().generate(requests(10))
    assert (stored.hits, len(engine.requests)) == (9, 1)
    assert StoredEngine(ScriptedEngine(), tmp_path).generate(requests(10)) == stored.generate(requests(10))


@pytest.mark.parametrize("damage", [b"\x00" * 30, b'["zz', b'["', b"", b"[3, 4]"])
def test_a_damaged_line_is_an_answer_to_be_made_again(tmp_path, damage):
    StoredEngine(ScriptedEngine(), tmp_path).generate(requests(10))
    (file,) = tmp_path.glob("*.jsonl")
    broken = file.read_bytes().split(b"\n")
    broken[4] = damage
    broken[5] = broken[5][:18] + b'", 3]'  # a name without an answer
    file.write_bytes(b"\n".join(broken))
    stored = StoredEngine(ScriptedEngine(), tmp_path)
    assert stored.generate(requests(10)) == ScriptedEngine().generate(requests(10))
    assert (stored.hits, stored.misses) == (8, 2)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ('{"debate-rl store":4,"answer":["text"]}', "a newer version"),
        ('{"debate-rl store":2,"completion":["text"],"scores":[]}', "an older version"),
        ('{"key":"5f1d7a84db00d2fc","completion":null,"scores":null}', "an older version"),
        ("notes", "not the first line of a store"),
        ("[1]", "not the first line of a store"),
    ],
)
def test_a_file_of_another_version_is_one_line_and_stays(tmp_path, first, said):
    (tmp_path / "a.jsonl").write_text(first + "\n")
    with pytest.raises(UserError, match=said) as found:
        StoredEngine(ScriptedEngine(), tmp_path)
    assert "\n" not in str(found.value) and str(tmp_path / "a.jsonl") in str(found.value)
    assert (tmp_path / "a.jsonl").read_text() == first + "\n"


def test_a_file_that_has_just_been_made_is_empty(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"debate-rl sto')
    assert len(Store(tmp_path)) == 0


def test_a_run_finds_what_another_writes_meanwhile(tmp_path):
    first, second = (StoredEngine(ScriptedEngine(), tmp_path) for _ in range(2))
    first.generate(requests(5))
    assert second.generate(requests(8)) == ScriptedEngine().generate(requests(8))
    assert (second.hits, second.misses) == (5, 3)
    first.generate(requests(8))
    assert (first.hits, first.misses) == (8, 5)


def test_threads_share_a_store(tmp_path):
    stored = StoredEngine(ScriptedEngine(), tmp_path, wave=3)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: stored.generate(requests(30, seed=seed % 3)), range(12)))
    assert found == [ScriptedEngine().generate(requests(30, seed=seed % 3)) for seed in range(12)]
    assert len(Store(tmp_path)) == 90 and stored.hits + stored.misses == 360


def test_a_forked_process_writes_to_a_file_of_its_own(tmp_path):
    stored = StoredEngine(ScriptedEngine(), tmp_path)
    stored.generate(requests(3))
    child = os.fork()
    if child == 0:
        stored.generate(requests(3, seed=1))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stored.generate(requests(3, seed=2))
    assert len(list(tmp_path.glob("*.jsonl"))) == 2 and len(Store(tmp_path)) == 9


@given(text=st.text(), finish=st.sampled_from(["stop", "length"]), tokens=st.integers(0, 10**6))
@settings(max_examples=50)
def test_any_answer_comes_back_as_it_was(tmp_path_factory, text, finish, tokens):
    folder = tmp_path_factory.mktemp("store")
    answer = Completion(text=text, prompt_tokens=tokens, new_tokens=3, finish=finish, revision="r")
    scores = Scores(logprobs=(-0.1 * tokens, float("-inf")), prompt_tokens=tokens, revision="other/r")
    Store(folder).put({"00000000000000aa": answer, "00000000000000ab": scores}, "m", None)
    again = Store(folder)
    assert again.get("00000000000000aa", Completion) == answer and again.get("00000000000000ab", Scores) == scores
    assert again.get("00000000000000aa", Scores) is None and again.get("00000000000000ac", Completion) is None


def test_tokens_are_counted_where_they_are_spent(tmp_path):
    stored = StoredEngine(ScriptedEngine(lambda request: "three words said"), tmp_path)
    stored.generate(requests(4))
    assert stored.tokens == 4 * (2 + 3)
    stored.generate(requests(4))
    assert stored.tokens == 4 * (2 + 3)


def test_a_process_that_is_killed_loses_what_is_under_way_only(tmp_path):
    script = (
        "import sys\n"
        "from debate_rl.engines.request import Message, Request\n"
        "from debate_rl.engines.scripted import ScriptedEngine\n"
        "from debate_rl.engines.store import StoredEngine\n"
        "stored = StoredEngine(ScriptedEngine(), sys.argv[1], wave=1)\n"
        "for i in range(10**6):\n"
        "    stored.generate([Request(messages=(Message(role='user', content=f'say {i}'),), model='m')])\n"
        "    print(i, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        done = [int(next(process.stdout)) for _ in range(20)][-1]
        process.kill()
        done = max([done, *map(int, process.stdout.read().split("\n")[:-1])])
    engine = ScriptedEngine()
    assert StoredEngine(engine, tmp_path).generate(requests(done + 1)) == ScriptedEngine().generate(requests(done + 1))
    assert not engine.requests
