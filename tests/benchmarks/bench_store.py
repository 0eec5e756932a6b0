"""The store: what 100,000 answers cost on disk, to open and to look up. Prints a table, never fails.

The texts are those of human debates where they are at hand, else words of that length. The plain arm keeps whole
records as JSON lines and reads all of them to open, as a log does.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_store
"""

from __future__ import annotations

import json
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from debate_rl.engines.request import Completion, Message, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import Store, StoredEngine
from debate_rl.records import Record, append, read_log
from tests.conftest import SHARED

ENTRIES = 100_000
LOOKUPS = 5_000


class Line(Record):
    """A line of the plain arm."""

    key: str
    completion: Completion


def speeches() -> list[str]:
    """Texts of debaters, cut to what 64, 150 and 300 tokens are: 300, 700 and 1,400 characters."""
    path = SHARED / "data/nyu_2023/debates.jsonl"
    if not path.exists():
        return [" ".join(random.Random(0).choices(("pipe", "shed", "<quote>barn</quote>", "noon"), k=150))]
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [turn["text"] for row in rows for turn in row["turns"] if turn["role"] == "Debater" and turn["text"]]


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def table(name: str, texts: list[str]) -> None:
    """Write the answers both ways, open them and look some up."""
    drawn = random.Random(1)
    answers = {
        f"{drawn.getrandbits(64):016x}": Completion(
            text=drawn.choice(texts), prompt_tokens=8200, new_tokens=64, finish="stop", revision="9f86d081884c7d65"
        )
        for _ in range(ENTRIES)
    }
    size = sum(len(answer.text.encode()) for answer in answers.values())
    asked = drawn.sample(list(answers), LOOKUPS)
    with tempfile.TemporaryDirectory() as folder:
        write = seconds(lambda: Store(folder).put(answers, "lab-base", None))
        plain_write = seconds(
            lambda: append(f"{folder}/plain.log", (Line(key=key, completion=one) for key, one in answers.items()))
        )
        taken = sum(path.stat().st_size for path in Path(folder).glob("*.jsonl"))
        plain_taken = Path(f"{folder}/plain.log").stat().st_size
        start = time.process_time()
        store = Store(folder)
        opened = time.process_time() - start
        tracemalloc.start()
        held = (Store(folder), tracemalloc.get_traced_memory()[0] / 2**20)[1]
        tracemalloc.stop()
        found = seconds(lambda: [store.get(key, Completion) for key in asked]) / LOOKUPS
        assert all(store.get(key, Completion) == answers[key] for key in asked[:100]) and len(store) == ENTRIES
        plain_opened = seconds(lambda: {line.key: line for line in read_log(f"{folder}/plain.log", Line)})
    print(f"{name}, {size / ENTRIES:.0f} bytes a text")
    row("  file, times the text", f"{taken / size:.3f}", f"{plain_taken / size:.3f}", "1.2")
    row("  write all, CPU s", f"{write:.2f}", f"{plain_write:.2f}", "-")
    row("  open, CPU s", f"{opened:.3f}", f"{plain_opened:.3f}", "1")
    row("  look up, microseconds", f"{found * 1e6:.1f}", "-", "50")
    row("  memory when open, MiB", f"{held:.1f}", "-", "-")


def calls() -> None:
    """What a request costs that is answered from the store, its name included."""
    with tempfile.TemporaryDirectory() as folder:
        for length in (500, 27_700):
            said = "so it was . " * (length // 12)
            requests = [
                Request(messages=(Message(role="user", content=f"{said}{at}"),), model="m", seed=at)
                for at in range(2000)
            ]
            StoredEngine(ScriptedEngine(lambda request: "it is shed"), folder).generate(requests)
            stored = StoredEngine(ScriptedEngine(), folder)
            spent = seconds(lambda: stored.generate(requests)) / len(requests)  # noqa: B023
            assert stored.misses == 0
            row(f"answer of a prompt of {length:,} characters, microseconds", f"{spent * 1e6:.1f}", "-", "-")


def row(what: str, ours: str, plain: str, bar: str) -> None:
    """One line of the table."""
    print(f"{what:<58}{ours:>10}{plain:>10}{bar:>8}", flush=True)


def main() -> None:
    """Print the table."""
    row(f"{ENTRIES:,} answers, one thread", "store", "plain", "bar")
    texts = speeches()
    for tokens, characters in ((64, 300), (300, 1400)):
        table(f"speeches of {tokens} tokens", [text[:characters] for text in texts if len(text) >= characters / 2])
    calls()


if __name__ == "__main__":
    main()
