"""What intervals cost: our bootstraps against a plain loop that refits every resample. Prints a table, never fails.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_ratings
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import permutations

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


def main() -> None:
    """Print the table."""
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
