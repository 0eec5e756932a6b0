import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from debate_rl.engines.request import Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import DAY, Store, StoredEngine, contents, prune
from debate_rl.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


def requests(count, adapter=None, seed=0):
    return [
        Request(messages=(Message(role="user", content=f"say {at}"),), model="m", adapter=adapter, seed=seed)
        for at in range(count)
    ]


@pytest.fixture
def store(tmp_path):
    """Two processes' answers of two adapters, half of them the same."""
    for count in (10, 20):
        one = StoredEngine(ScriptedEngine(), tmp_path / str(count))
        one.generate(requests(count) + requests(count, "runs/dpo/adapter"))
        for file in (tmp_path / str(count)).glob("*.jsonl"):
            (tmp_path / "store").mkdir(exist_ok=True)
            file.rename(tmp_path / "store" / file.name)
    return tmp_path / "store"


def left(folder):
    """Answers that need no engine."""
    engine = ScriptedEngine()
    stored = StoredEngine(engine, folder)
    stored.generate(requests(20) + requests(20, "runs/dpo/adapter"))
    return stored.hits


def test_the_contents_of_a_store_by_weights(store):
    rows = contents(store)
    assert [(row.model, row.adapter, row.answers, row.files) for row in rows] == [
        ("m", "runs/dpo/adapter", 20, 2),
        ("m", None, 20, 2),
    ]
    assert sum(row.size for row in rows) == sum(file.stat().st_size for file in store.glob("*.jsonl"))


def test_pruning_alone_puts_files_together_and_loses_nothing(store):
    with next(store.glob("*.jsonl")).open("ab") as file:
        file.write(b'["0123456789abcdef","cut of')
    done = prune(store)
    assert (done.kept, done.removed) == (40, 0) and len(list(store.glob("*.jsonl"))) == 2
    assert done.after < done.before and left(store) == 40
    assert len(Store(store)) == 40
    again = prune(store)
    assert (again.kept, again.before) == (40, again.after)


def test_answers_of_an_adapter_can_be_removed(store):
    done = prune(store, of="dpo")
    assert (done.kept, done.removed) == (20, 20) and left(store) == 20


def test_files_not_written_to_for_long_can_be_removed(store):
    old = sorted(store.glob("*.jsonl"), key=lambda file: file.stat().st_size)[:2]  # the 10 answers of each adapter
    for file in old:
        os.utime(file, (time.time() - 40 * DAY,) * 2)
    assert prune(store, days=50).removed == 0  # merged, each as young as its youngest
    for file in store.glob("*.jsonl"):
        os.utime(file, (time.time() - 40 * DAY,) * 2)
    assert prune(store, days=50).removed == 0 and all(row.days > 39 for row in contents(store))
    assert prune(store, days=30).removed == 40 and not list(store.glob("*.jsonl"))


def test_a_reader_goes_on_while_a_store_is_pruned(store):
    reader = StoredEngine(ScriptedEngine(), store)
    prune(store, of="dpo")
    assert len(reader.generate(requests(20) + requests(20, "runs/dpo/adapter"))) == 40
    assert (reader.hits, reader.misses) == (20, 20)


def test_no_store_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no store there"):
        prune(tmp_path)


WRITER = """
import sys
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from tests.engines.test_store_upkeep import requests
stored = StoredEngine(ScriptedEngine(), sys.argv[1])
for count in (30, 40):
    stored.generate(requests(count))
    print(count, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("words", [{}, {"of": "dpo"}])
def test_a_store_may_be_pruned_beside_a_process_that_writes_to_it_and_nothing_is_lost(store, words):
    command = [sys.executable, "-c", WRITER, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout.readline() == b"30\n"
        assert prune(store, **words).removed == 20 * len(words)
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == b"40\n"
        writer.kill()
    stored = StoredEngine(ScriptedEngine(), store)
    stored.generate(requests(40))
    assert stored.misses == 0 and prune(store).kept == 60 - 20 * len(words)


ENDLESS_WRITER = """
import itertools, sys
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from tests.engines.test_store_upkeep import requests
stored = StoredEngine(ScriptedEngine(), sys.argv[1])
for count in itertools.count(1):
    stored.generate(requests(count)[-1:])
    print(count, flush=True)
"""


def test_no_answer_that_was_acknowledged_is_lost_while_a_store_is_pruned_again_and_again(tmp_path):
    command = [sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        counts = []
        for _ in range(8):
            counts.append(writer.stdout.readline())
            prune(tmp_path)
        writer.kill()
        counts += writer.stdout.readlines()  # none where the writer waited for the lock all the while
        acknowledged = int(counts[-1])
    stored = StoredEngine(ScriptedEngine(), tmp_path)
    stored.generate(requests(acknowledged))
    assert (stored.hits, stored.misses) == (acknowledged, 0)


def test_parts_that_killed_processes_left_in_a_store_are_swept(store):
    (store / ".abc.jsonl.77.partial").write_text("half")
    assert prune(store).kept == 40 and not list(store.glob("*.partial"))


def test_a_store_without_locks_is_not_pruned(store, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched, pytest.raises(UserError, match="file system without locks"):
        patched.setattr(fcntl, "flock", flock)
        prune(store)
    assert left(store) == 40
