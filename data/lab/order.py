"""Order: comparisons that form chains; who of two that are several steps apart is older, taller, richer?

The right answer needs every link between the two. The wrong answer is backed by a part of the chain: a true sentence
says of it that it is older than somebody. One link of either side settles nothing.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Literal

from pydantic import Field, model_validator

from debate_rl.data.lab.story import Item, Span, Story
from debate_rl.data.lab.vocabulary import COLOURS, LOOKS, PEOPLE, PLACES, QUALITIES
from debate_rl.records import Record


class Knobs(Record):
    """How hard a story is.

    Example:
        Knobs(chains=2, steps=(2, 3), fillers=(1, 3))
    """

    chains: int = Field(default=2, ge=1, le=len(QUALITIES))
    """Chains, each of a quality of its own, with one question about each."""
    steps: tuple[int, int] = (2, 3)
    """Fewest and most links between the two who are compared, 1 to 5."""
    fillers: Span = (1, 3)
    """Fewest and most sentences that settle nothing."""

    @model_validator(mode="after")
    def _in_range(self) -> Knobs:
        if not 1 <= self.steps[0] <= self.steps[1] <= 5:
            raise ValueError("steps are two numbers from 1 to 5, the smaller one first")
        return self


def story(rng: Random, knobs: Knobs) -> Story:
    """Tell chains and fillers in any order, with one question about each chain."""
    chains = [_chain(rng, knobs) for _ in range(knobs.chains)]
    qualities = rng.sample(QUALITIES, knobs.chains)
    told = [_link(chain, at, q) for chain, q in zip(chains, qualities, strict=True) for at in range(len(chain) - 1)]
    told += [_filler(rng) for _ in range(rng.randint(*knobs.fillers))]
    rng.shuffle(told)
    pairs = list(zip(chains, qualities, strict=True))
    return Story(
        sentences=tuple(told),
        items=tuple(_item(rng, chain, quality) for chain, quality in pairs),
        facts=tuple(fact for chain, quality in pairs for fact in _facts(rng, chain, quality)),
    )


def _chain(rng: Random, knobs: Knobs) -> list[str]:
    """People from the highest to the lowest: one above the two compared and one below, so that no end gives it away."""
    return rng.sample(PEOPLE, rng.randint(*knobs.steps) + 3)


def _link(chain: list[str], at: int, quality: str) -> str:
    return f"{chain[at]} is {quality} than {chain[at + 1]}."


def _filler(rng: Random) -> str:
    """A sentence that settles nothing."""
    who, place = rng.choice(PEOPLE), rng.choice(PLACES)
    return rng.choice(
        (f"{who} wore a {rng.choice(COLOURS)} hat.", f"the {place} was {rng.choice(LOOKS)} and {who} knew.")
    )


def _item(rng: Random, chain: list[str], quality: str) -> Item:
    """Compare the second of a chain with the last but one, the answers in random order."""
    high, low = chain[1], chain[-2]
    backs_high = tuple(_link(chain, at, quality) for at in range(1, len(chain) - 2))
    backs_low = (_link(chain, len(chain) - 2, quality),)
    correct: Literal[0, 1] = 1 if rng.random() < 0.5 else 0
    return Item(
        name=f"{quality}-{high}-{low}",
        text=rng.choice(("who is {quality}?", "which of the two is {quality}?")).format(quality=quality),
        answers=(low, high) if correct else (high, low),
        correct=correct,
        evidence=(backs_low, backs_high) if correct else (backs_high, backs_low),
    )


def _facts(rng: Random, chain: list[str], quality: str) -> list[tuple[str, str]]:
    """Neighbours, and who of a few pairs is higher."""
    facts = [(f"{one} {quality} than", other) for one, other in pairwise(chain)]
    for _ in range(4):
        high, low = sorted(rng.sample(range(len(chain)), 2))
        first, second = rng.sample((chain[high], chain[low]), 2)
        facts.append((f"{quality} {first} or {second}", chain[high]))
    return facts
