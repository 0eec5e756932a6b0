"""What intervals cost: our bootstraps against a plain loop that refits every resample. Prints tables, never fails.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_ratings

`debate-rl ratings` on votes of players who meet at random, every vote a cluster of its own, 1,000 resamples; one thread
of a virtual machine, start of the program included:

| players | votes | CPU seconds | memory, MB |
|---|---|---|---|
| 50 | 10,000 | 1.5 | 250 |
| 50 | 100,000 | 3.5 | 250 |
| 500 | 100,000 | 27 | 460 |
| 2,000 | 100,000 | 82 | 600 |
"""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from debate_rl.arena.bradley_terry import fit, sum_matches
from debate_rl.arena.ratings import Outcomes, rate, read_votes
from debate_rl.intervals import clusters, mean
from tests.conftest import SHARED

RESAMPLES = 1000


def seconds(call: Callable[[], object], repeats: int = 2) -> float:
    """CPU seconds of this process, best of some."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def tournament(players: int, questions: int) -> Outcomes:
    """A round robin with both orders and soft verdicts."""
    random = np.random.default_rng(0)
    strength = np.linspace(-1, 1, players)
    rows = []
    for question in range(questions):
        known = strength + random.normal(0, 0.7, players)
        rows += [(f"p{i}", f"p{j}", expit(known[i] - known[j]), question) for i, j in permutations(range(players), 2)]
    return Outcomes(*zip(*rows, strict=True))


def refit_rows(outcomes: Outcomes, resamples: int) -> None:
    """Draw clusters, gather their rows, minimise over rows with L-BFGS; again for each resample."""
    names, ids = np.unique([*outcomes.left, *outcomes.right], return_inverse=True)
    left, right = ids.reshape(2, -1)
    score, codes = np.asarray(outcomes.score), clusters(outcomes.labels, len(outcomes.left))
    groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    random = np.random.default_rng(0)
    for _ in range(resamples):
        rows = np.concatenate([groups[c] for c in random.integers(len(groups), size=len(groups))])
        i, j, y = left[rows], right[rows], score[rows]

        def loss(theta: np.ndarray, i=i, j=j, y=y) -> tuple[float, np.ndarray]:
            z = theta[i] - theta[j]
            error = expit(z) - y
            gradient = np.bincount(i, error, len(names)) - np.bincount(j, error, len(names))
            return float((np.logaddexp(0, z) - y * z).sum() + 0.05 * theta @ theta), gradient + 0.1 * theta

        minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B")


def mean_rows(values: np.ndarray, labels: np.ndarray, resamples: int) -> None:
    """Draw clusters, gather their rows, average; again for each resample."""
    groups = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    random = np.random.default_rng(0)
    for _ in range(resamples):
        drawn = random.integers(len(groups), size=len(groups))
        values[np.concatenate([groups[c] for c in drawn])].mean()


def write_votes(path: Path, players: int, votes: int) -> None:
    """Write a file of votes; who is stronger wins more often, one in ten is a tie."""
    random = np.random.default_rng(0)
    strength = random.normal(0, 1, players)
    left = random.integers(players, size=votes)
    right = (left + 1 + random.integers(players - 1, size=votes)) % players
    wins = random.random(votes) < expit(strength[left] - strength[right])
    winner = np.where(random.random(votes) < 0.1, "tie", np.where(wins, "left", "right"))
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["left", "right", "winner"])
        table.writerows((f"p{i}", f"p{j}", who) for i, j, who in zip(left, right, winner, strict=True))


def command_table() -> None:
    """Time the command itself, with intervals."""
    print(f"{'debate-rl ratings: players':<28}{'votes':>9}{'CPU seconds':>13}{'peak of memory so far, MB':>28}")
    for players, votes in ((50, 10_000), (50, 100_000), (500, 100_000), (2000, 100_000)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "votes.csv")
            write_votes(path, players, votes)
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            command = [sys.executable, "-m", "debate_rl", "ratings", str(path)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"{players:<28}{votes:>9,}{used.ru_utime - before:>13.1f}{used.ru_maxrss / 1024:>28.0f}",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    command_table()
    print(f"{RESAMPLES} resamples, CPU seconds of one thread; the loop is timed on a few resamples and scaled")
    print(f"{'what':<60}{'ours':>8}{'loop':>9}{'ratio':>8}")

    def line(what: str, ours: Callable[[], object], loop: Callable[[int], object], few: int) -> None:
        fast, slow = seconds(ours), seconds(lambda: loop(few)) * RESAMPLES / few
        print(f"{what:<60}{fast:>8.3f}{slow:>9.2f}{slow / fast:>7.0f}x", flush=True)

    values, labels = np.random.default_rng(0).random(20_000), np.arange(20_000) // 50
    line("mean of 20,000 rows in 400 clusters", lambda: mean(values, labels.tolist(), resamples=RESAMPLES),
         lambda few: mean_rows(values, labels, few), 100)  # fmt: skip
    for players, questions in ((4, 80), (10, 200), (16, 433)):
        data = tournament(players, questions)
        what = f"ratings, {players} players, {questions} questions, {len(data.left):,} matches"
        line(what, lambda data=data: rate(data), lambda few, data=data: refit_rows(data, few), 20)
    votes = SHARED / "data/ratings/llmfao.csv"
    if votes.exists():
        data = read_votes(votes, "id")
        line(f"ratings, llmfao.csv, 59 players, {len(data.left):,} votes (bar 5)", lambda: rate(data, ridge=0),
             lambda few: refit_rows(data, few), 20)  # fmt: skip
        print(f"{'    of these the point fit (bar 0.1)':<60}{seconds(lambda: fit(sum_matches(data), 0.0)):>8.3f}")
    else:
        print(f"llmfao.csv not found under {SHARED}; left out")


if __name__ == "__main__":
    main()
