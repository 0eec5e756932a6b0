"""Whereabouts: people move things between places over a day; where was a thing at the end of it?

The wrong answer was true earlier, so a true sentence backs it as well. Who reads both sentences compares their times
and knows; who reads one is left in doubt, because a time of day (but the first and the last) belongs to a right and to
a wrong answer equally often. What a question asks for stands at the head of its sentence: a small model that writes
from left to right can then find the sentence it wants to quote.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field

from debate_rl.data.lab.story import Item, Story
from debate_rl.records import Record

TIMES = ("dawn", "morning", "noon", "afternoon", "dusk", "night", "midnight")
"""The times of a day, in order."""
THINGS = (
    "pipe", "rope", "lamp", "book", "coat", "drum", "flag", "jar", "kite", "ladder",
    "map", "net", "oar", "plough", "quilt", "ring", "spade", "tent", "urn", "vase",
)  # fmt: skip
PLACES = (
    "shed", "barn", "attic", "cellar", "garden", "kitchen", "mill", "tower", "stable", "chapel",
    "cabin", "dock", "forge", "hall", "inn", "library", "market", "office", "porch", "school",
)  # fmt: skip
PEOPLE = (
    "ines", "otto", "mira", "jonas", "lena", "pavel", "rosa", "tariq",
    "vera", "wim", "anna", "boris", "clara", "dario", "elsa", "felix",
)  # fmt: skip
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
LOOKS = ("cold", "warm", "dark", "bright", "quiet", "noisy", "clean", "dusty")
WITNESSED = ("saw", "helped", "knew", "laughed")
KINDS = (TIMES, THINGS, PLACES, PEOPLE, COLOURS, LOOKS, WITNESSED)
"""Words that may be exchanged for one another without spoiling a sentence."""
QUESTIONS = (
    "where was the {thing} at the end of the day?",
    "where did the {thing} end the day?",
    "at the end of the day, where was the {thing}?",
)


class Knobs(Record):
    """How hard a story is.

    Example:
        Knobs(things=2, third_move=0.3, gap=3, fillers=(1, 3), order="shuffled")
    """

    things: int = Field(default=2, ge=1, le=len(THINGS))
    """Things that move, with one question about each."""
    third_move: float = Field(default=0.3, ge=0, le=1)
    """Chance that a thing moves three times instead of twice."""
    gap: int = Field(default=3, ge=1, le=len(TIMES) - 1)
    """Most steps of time between the two moves that the answers name; each further step is half as likely."""
    fillers: tuple[int, int] = (1, 3)
    """Fewest and most sentences that settle nothing."""
    order: Literal["shuffled", "time"] = "shuffled"
    """Whether the sentences are told in any order or as the day went."""


class Move(Record):
    """One thing comes to one place at one time."""

    thing: str
    place: str
    time: int
    """Index into TIMES."""
    text: str


def story(rng: Random, knobs: Knobs) -> Story:
    """Tell a day: moves and fillers in the order asked for, and one question about each thing."""
    days = [_day(rng, thing, knobs) for thing in rng.sample(THINGS, knobs.things)]
    moves = [move for day in days for move in day]
    told: list[tuple[float, str]] = [(float(move.time), move.text) for move in moves]
    told += [(rng.uniform(0, len(TIMES)), _filler(rng)) for _ in range(rng.randint(*knobs.fillers))]
    if knobs.order == "shuffled":
        rng.shuffle(told)
    else:
        told.sort(key=lambda pair: pair[0])
    return Story(sentences=tuple(text for _, text in told), items=tuple(_item(rng, day) for day in days))


def _day(rng: Random, thing: str, knobs: Knobs) -> list[Move]:
    """Moves of one thing: first the one behind the wrong answer, then the last one, then perhaps an early third."""
    steps = range(1, knobs.gap + 1)
    gap = rng.choices(steps, [0.5**step for step in steps])[0]
    wrong = rng.randrange(len(TIMES) - gap)
    times = [wrong, wrong + gap]
    free = [time for time in range(wrong + gap) if time != wrong]
    if free and rng.random() < knobs.third_move:
        times.append(rng.choice(free))
    places = rng.sample(PLACES, len(times))
    return [_move(rng, thing, place, time) for place, time in zip(places, times, strict=True)]


def _move(rng: Random, thing: str, place: str, time: int) -> Move:
    who, did = rng.choice(PEOPLE), rng.choice(WITNESSED)
    text = f"the {thing} was moved to the {place} at {TIMES[time]} and {who} {did}."
    return Move(thing=thing, place=place, time=time, text=text)


def _filler(rng: Random) -> str:
    """A sentence that settles nothing; some are about a thing or a place all the same."""
    thing, place, who = rng.choice(THINGS), rng.choice(PLACES), rng.choice(PEOPLE)
    return rng.choice(
        (
            f"the {thing} was {rng.choice(COLOURS)} and {who} liked it.",
            f"the {place} was {rng.choice(LOOKS)} and {who} knew.",
            f"{who} sang in the {place} at {rng.choice(TIMES)}.",
            f"{who} wore a {rng.choice(COLOURS)} hat.",
        )
    )


def _item(rng: Random, day: list[Move]) -> Item:
    """Ask where the thing was last, with the answers in random order."""
    wrong, right = day[:2]
    correct: Literal[0, 1] = 1 if rng.random() < 0.5 else 0
    first, second = (wrong, right) if correct else (right, wrong)
    return Item(
        name=right.thing,
        text=rng.choice(QUESTIONS).format(thing=right.thing),
        answers=(first.place, second.place),
        correct=correct,
        evidence=(first.text, second.text),
        working=" then ".join(
            f"{move.place} at {TIMES[move.time]}" for move in sorted(day, key=lambda move: move.time)
        ),
    )
