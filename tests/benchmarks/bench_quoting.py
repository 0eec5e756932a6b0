"""Quotes by construction: what the masks cost while a real model speaks, and whether its quotes are valid. One table.

Both arms draw the same speeches of both sides (Best-of-4's candidates) over encoded passages, in turn; `masks` is the
CPU time of finding, reading and following the allowed tokens, compiling apart. Needs the model (`debate-rl models get
smollm2-135m`) and the real stories; never fails on a number.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_quoting [--model smollm2-135m] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from debate_rl.data.models import model_path
from debate_rl.engines.grammars import Grammars, Matcher
from debate_rl.engines.local import engine as engine_module
from debate_rl.engines.local import sampling
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.game.protocol import load_protocol
from debate_rl.game.question import Question
from debate_rl.game.quote_grammar import QuoteRules
from debate_rl.game.transcript import Speech, Transcript, open_transcript
from debate_rl.players.debater import Debater
from debate_rl.players.draw import Draw, write
from tests.benchmarks.bench_quotes import story

DRAWS = 4
OPENING = "The answer is {answer}. The text says: <quote>"
ARMS = {
    "free": QuoteRules(),
    "constrained": QuoteRules(constrained=True),
    "sentences": QuoteRules(constrained=True, sentences=True),
}


class Clock:
    """CPU seconds of some functions, by the name of the part."""

    def __init__(self) -> None:
        self.seconds = {"all": 0.0, "masks": 0.0, "compile": 0.0}

    def around(self, part: str, function: Callable, aside: str | None = None) -> Callable:
        """The function, timed; what passes in `aside` meanwhile is taken off."""

        def timed(*args, **kwargs):
            before = self.seconds[aside] if aside else 0.0
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                passed = time.process_time() - start
                self.seconds[part] += passed - (self.seconds[aside] - before if aside else 0.0)

        return timed


def install(clock: Clock) -> None:
    """Time the decode loop, the masks in it, and compiling."""
    sampling._forbidden = clock.around("masks", sampling._forbidden)
    Matcher.read = clock.around("masks", Matcher.read)
    Grammars._compile = clock.around("compile", Grammars._compile)
    Grammars.matcher = clock.around("masks", Grammars.matcher, aside="compile")
    engine_module.decode = clock.around("all", engine_module.decode)
    plain = torch.Tensor.masked_fill
    torch.Tensor.masked_fill = clock.around("masks", plain)


def games(words: int, new_tokens: int) -> list[Transcript]:
    """A debate about so many words of a story."""
    passage = " ".join(story().split()[:words])
    question = Question(
        id="story", text="What is the story about?", answers=("A voyage to another planet", "A war at home"),
        passage=passage,
    )  # fmt: skip
    rules = load_protocol("debate", max_new_tokens=new_tokens)
    return [open_transcript(question, rules, {"A": "x", "B": "x"}, seed=seed) for seed in (0, 1)]


def speeches(engine: TransformersEngine, model: str, played: list[Transcript], rules: QuoteRules) -> list[Speech]:
    """The candidates of both sides of some games."""
    player = Debater("x", model=model, temperature=0.8, opening=OPENING, quotes=rules)
    return write([Draw(game, side, 0, player, n) for game in played for side in "AB" for n in range(DRAWS)], engine)


def row(words: int, arm: str, found: list[Speech], spent: dict[str, float]) -> str:
    """A line of the table."""
    tokens = sum(speech.origin.new_tokens for speech in found)
    valid = 0
    for speech in found:
        valid += bool(speech.quotes) and all(quote.verdict == "exact" for quote in speech.quotes)
    length = sum(len(quote.text.split()) for speech in found for quote in speech.quotes)
    quotes = sum(len(speech.quotes) for speech in found)
    overhead = spent["masks"] / (spent["all"] - spent["masks"])
    return (
        f"{words:>6}  {arm:<12}{len(found):>9}{tokens:>8}{spent['all']:>9.2f}{1e3 * spent['all'] / tokens:>10.2f}"
        f"{spent['masks']:>9.3f}{overhead:>10.1%}{1e3 * spent['compile']:>12.0f}{valid / len(found):>11.0%}"
        f"{quotes:>8}{length / max(quotes, 1):>8.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--words", type=int, nargs="+", default=[150, 1000])
    parser.add_argument("--new", type=int, default=64, help="tokens of a speech")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clock = Clock()
    install(clock)
    engine = TransformersEngine(model_path, dtype=given.dtype)
    print(f"{given.model}, {given.dtype}, one thread; CPU seconds of decoding, rows of {2 * 2 * DRAWS} speeches")
    print(
        f"{'words':>6}  {'arm':<12}{'speeches':>9}{'tokens':>8}{'CPU, s':>9}{'ms/token':>10}{'masks, s':>9}"
        f"{'overhead':>10}{'compile, ms':>12}{'all exact':>11}{'quotes':>8}{'words':>8}"
    )
    speeches(engine, given.model, games(20, 1), ARMS["constrained"])  # opens the tokenizer
    for words in given.words:
        played = games(words, given.new)
        speeches(engine, given.model, games(words, 1), ARMS["free"])  # encodes the passage
        for arm, rules in ARMS.items():
            before = dict(clock.seconds)
            found = speeches(engine, given.model, played, rules)
            print(row(words, arm, found, {part: clock.seconds[part] - before[part] for part in before}), flush=True)


if __name__ == "__main__":
    main()
