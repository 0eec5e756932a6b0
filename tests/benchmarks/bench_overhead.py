"""What the framework itself costs: tournaments of players that answer at once, to disk. Prints a table, never fails.

Prompts are rendered, quotes checked, both presentation orders judged, every leg written and, at the end, read again and
rated; only the models are left out. Memory is read after 1,000, 10,000 and 100,000 debates of one run.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_overhead [debates of the long run, else 100,000]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from debate_rl.arena.tournament import TournamentSettings, play_tournament
from debate_rl.engines.request import Choice, Engine, Request
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.engines.store import StoredEngine
from debate_rl.game.question import Question
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from tests.benchmarks.memory import resident

STORY = "the pipe was moved to the barn at noon and ines saw . later omar took it to the shed . " * 6
LONG = 100_000


def speech(request: Request) -> str:
    """Two sentences with a true and a false quote, other ones for each player and question."""
    place = request.messages[-1].content.split("day ", 1)[1].split(" ", 1)[0]
    return (
        f"{request.model} says it is the shed on day {place} . <quote>later omar took it to the shed</quote> is what "
        f"the story says . my opponent has <quote>the pipe stayed in house {place}</quote> which is nowhere ."
    )


def belief(choice: Choice) -> list[float]:
    """A judge of no great use."""
    return [-0.5 - len(choice.messages[-1].content) % 7 / 10, -0.9]


def questions(count: int) -> list[Question]:
    """Questions over one story, four to a cluster."""
    return [
        Question(
            id=f"q{at}", text=f"where is the pipe at the end of day {at} ?", answers=("shed", "barn"), correct=0,
            passage=STORY, group=f"s{at // 4}",
        )
        for at in range(count)
    ]  # fmt: skip


class Meter:
    """Memory after so many debates."""

    def __init__(self) -> None:
        self.seen: dict[int, float] = {}

    def __call__(self, done: int, failed: int, total: int) -> None:
        for mark in (1_000, 10_000, LONG, total):
            if done >= mark and mark not in self.seen:
                self.seen[mark] = resident()


def tournament(players: int, debates: int, store: bool = False) -> tuple[float, dict[int, float]]:
    """Play about so many debates; gives debates a CPU second, all included, and the memory on the way."""
    named = [Debater(name=f"p{at}", model=f"m{at}") for at in range(players)]
    asked = questions(-(-debates // players**2))
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        engine: Engine = ScriptedEngine(speech, belief, keep=False)
        if store:
            engine = StoredEngine(engine, Path(folder) / "store")
        start = time.process_time()
        settings = TournamentSettings(resamples=100)
        found = play_tournament(
            named, asked, Judge(model="judge"), engine=engine, folder=folder, settings=settings, progress=meter
        )
        spent = time.process_time() - start
        meter.seen[-1] = resident()
    return len(found.legs) / spent, meter.seen


def main() -> None:
    """Print the table."""
    long = int(sys.argv[1]) if len(sys.argv) > 1 else LONG
    print(f"{'tournaments to disk, one thread':<58}{'debates/s':>10}{'bar':>8}")
    speed, seen = tournament(8, long)
    row(f"8 players, {long:,} debates", speed, "2,000")
    for players, debates, store in ((8, 4_000, False), (2, 4_000, False), (2, 20_000, False), (8, 4_000, True)):
        speed, _ = tournament(players, debates, store)
        what = f"{players} players, {debates:,} debates{', store in front' if store else ''}"
        row(what, speed, "-" if store else "2,000")
    marks = [mark for mark in (1_000, 10_000, long) if mark in seen]
    said = ", ".join(f"{seen[mark]:.1f} MiB after {mark:,}" for mark in marks)
    print(f"resident memory of the first: {said}; {seen[-1]:.1f} MiB after the ratings")


def row(what: str, speed: float, bar: str) -> None:
    """One line of the table."""
    print(f"{what:<58}{speed:>10,.0f}{bar:>8}", flush=True)


if __name__ == "__main__":
    main()
