"""Checking quotes of a real story: ours against the edit distance to every window of it. Prints a table, never fails.

The plain arm takes the most similar window of the quote's length (rapidfuzz's indel similarity, in C) and applies the
same threshold; ours widens the best span to whole words first, and may find that it is then below the threshold.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_quotes
"""

from __future__ import annotations

import json
import random
import time

from rapidfuzz.distance import Indel

from debate_rl.game.quotes import _normalised, _normalised_passage, locate
from tests.conftest import SHARED

EACH, PLAIN = 40, 3
THRESHOLD = 90.0
WORDS = (5, 10, 20, 40, 80, 160)


def story() -> str:
    """The story nearest to 27,700 characters."""
    path = SHARED / "data/nyu_2023/stories.jsonl"
    if not path.exists():
        words = random.Random(0).choices(["pipe", "shed", "barn", "noon", "omar", "ines", "took", "saw"], k=5300)
        return " ".join(words)
    texts = [json.loads(line)["story"] for line in path.read_text(encoding="utf-8").splitlines()]
    return min(texts, key=lambda text: abs(len(text) - 27_700))


def by_windows(quote: str, passage: str) -> str:
    """The verdict of the edit distance over every window."""
    wanted, text = _normalised(quote)[0], _normalised_passage(passage)[0]
    if wanted in text:
        return "exact"
    size = len(wanted)
    best = max(Indel.normalized_similarity(wanted, text[at : at + size]) for at in range(len(text) - size + 1))
    return "near" if 100 * best >= THRESHOLD else "invalid"


def fabricated(words: list[str], count: int, drawn: random.Random) -> str:
    """Words of the story, put together anew."""
    return " ".join(drawn.choices(words, k=count))


def paraphrased(words: list[str], count: int, drawn: random.Random) -> str:
    """Words that follow one another in the story, with one in ten exchanged."""
    start = drawn.randrange(len(words) - count)
    quote = words[start : start + count]
    for _ in range(max(1, count // 10)):
        quote[drawn.randrange(count)] = drawn.choice(words)
    return " ".join(quote)


def main() -> None:
    """Print the table."""
    text, drawn = story(), random.Random(0)
    words = text.split()
    start = time.process_time()
    locate("once", text)
    print(f"story of {len(text):,} characters, read once in {1e3 * (time.process_time() - start):.1f} ms; one thread")
    print(f"{'quotes':<26}{'mean, ms':>9}{'most, ms':>9}{'plain, ms':>10}{'ratio':>8}{'same':>7}{'bar, ms':>9}")
    for make in (fabricated, paraphrased):
        for count in WORDS:
            quotes = [make(words, count, drawn) for _ in range(EACH)]
            spent, found = timed(lambda quote: locate(quote, text, THRESHOLD)[0], quotes)
            plain, wanted = timed(lambda quote: by_windows(quote, text), quotes[:PLAIN])
            same = sum(a == b for a, b in zip(found, wanted, strict=False))
            mean = sum(spent) / len(spent)
            ratio = sum(plain) / len(plain) / mean
            print(
                f"{f'{make.__name__}, {count} words':<26}{mean:>9.2f}{max(spent):>9.2f}"
                f"{sum(plain) / len(plain):>10.1f}{ratio:>7.0f}x{f'{same}/{PLAIN}':>7}{10:>9}", flush=True,
            )  # fmt: skip


def timed(check, quotes: list[str]) -> tuple[list[float], list[str]]:
    """CPU milliseconds and verdict of each quote."""
    spent, found = [], []
    for quote in quotes:
        start = time.process_time()
        found.append(check(quote))
        spent.append(1e3 * (time.process_time() - start))
    return spent, found


if __name__ == "__main__":
    main()
