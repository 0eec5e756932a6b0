import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.engines.request import Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import Store, StoredEngine
from debate_rl.engines.upkeep import DAY, contents, prune
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
        for file in (tmp_path / str(count)).iterdir():
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
    assert sum(row.size for row in rows) == sum(file.stat().st_size for file in store.iterdir())


def test_pruning_alone_puts_files_together_and_loses_nothing(store):
    with next(store.iterdir()).open("ab") as file:
        file.write(b'["0123456789abcdef","cut of')
    done = prune(store)
    assert (done.kept, done.removed) == (40, 0) and len(list(store.iterdir())) == 2
    assert done.after < done.before and left(store) == 40
    assert len(Store(store)) == 40
    again = prune(store)
    assert (again.kept, again.before) == (40, again.after)


def test_answers_of_an_adapter_can_be_removed(store):
    done = prune(store, of="dpo")
    assert (done.kept, done.removed) == (20, 20) and left(store) == 20


def test_files_not_written_to_for_long_can_be_removed(store):
    old = sorted(store.iterdir(), key=lambda file: file.stat().st_size)[:2]  # the 10 answers of each adapter
    for file in old:
        os.utime(file, (time.time() - 40 * DAY,) * 2)
    assert prune(store, days=50).removed == 0  # merged, each as young as its youngest
    for file in store.iterdir():
        os.utime(file, (time.time() - 40 * DAY,) * 2)
    assert prune(store, days=50).removed == 0 and all(row.days > 39 for row in contents(store))
    assert prune(store, days=30).removed == 40 and not list(store.iterdir())


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
from tests.engines.test_upkeep import requests
stored = StoredEngine(ScriptedEngine(), sys.argv[1])
for count in (30, 40):
    stored.generate(requests(count))
    print(count, flush=True)
    sys.stdin.readline()
"""


def test_a_store_is_not_pruned_beside_a_process_that_writes_to_it(store):
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    command = [sys.executable, "-c", WRITER, str(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout.readline() == b"30\n"
        for words in ({}, {"of": "dpo"}, {"days": 0}):
            with pytest.raises(UserError, match="another process is at work"):
                prune(store, **words)
        assert all((store / name).read_bytes() == data for name, data in before.items())
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == b"40\n"
        writer.kill()
    done = prune(store)
    assert (done.kept, done.removed) == (60, 0) and left(store) == 40


def test_parts_that_killed_processes_left_in_a_store_are_swept(store):
    (store / ".abc.jsonl.77.partial").write_text("half")
    assert prune(store).kept == 40 and not list(store.glob(".*"))


def test_a_store_without_locks_is_not_pruned(store, monkeypatch):
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="without locks .*copy it to a local disk"):
        prune(store)
    assert left(store) == 40


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_byte_of_a_store_is_another_answer_never(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    engine = ScriptedEngine()
    answers = StoredEngine(engine, folder).generate(requests(8))
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert StoredEngine(engine, folder).generate(requests(8)) == answers
        assert prune(folder).kept >= 8 and StoredEngine(engine, folder).generate(requests(8)) == answers
    except UserError as error:
        assert "not the first line of a store" in str(error) or "version of debate-rl" in str(error)


def test_a_store_from_before_checksums_is_read_and_not_added_to(tmp_path):
    engine = ScriptedEngine()
    answers = StoredEngine(engine, tmp_path).generate(requests(3))
    (path,) = tmp_path.iterdir()
    old = [re.sub(r',("crc32":)?"[0-9a-f]{8}"([\]}])$', r"\2", line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(old) + "\n")
    size, again = path.stat().st_size, StoredEngine(engine, tmp_path)
    assert again.generate(requests(3)) == answers and again.misses == 0
    again.generate(requests(5))
    assert path.stat().st_size == size and len(Store(tmp_path)) == 5
    del again
    assert prune(tmp_path).kept == 5 and StoredEngine(engine, tmp_path).generate(requests(3)) == answers
