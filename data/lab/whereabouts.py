"""Whereabouts: people move things between places over a day; where was a thing at the end of it?

The wrong answer was true earlier (or later), so a true sentence backs it as well. A judge that reads both sentences
compares their times and knows. One that reads a single sentence is left in doubt, because only the first and the last
time of day settle anything alone. The thing that a question asks for stands at the head of its sentence, so that a
small model that writes from left to right can find the sentence it wants to quote.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field

from debate_rl.data.lab.story import Item, Span, Story
from debate_rl.data.lab.vocabulary import COLOURS, LOOKS, PEOPLE, PLACES, THINGS, TIMES
from debate_rl.records import Record

Ask = Literal["end", "start", "before", "who"]
QUESTIONS: dict[Ask, tuple[str, ...]] = {
    "end": (
        "where was the {thing} at the end of the day?",
        "where did the {thing} end the day?",
        "at the end of the day, where was the {thing}?",
    ),
    "start": ("where was the {thing} at the start of the day?", "where did the {thing} start the day?"),
    "before": ("where was the {thing} before {time}?", "before {time}, where was the {thing}?"),
    "who": ("who moved the {thing} last?", "who was the last to move the {thing}?"),
}


class Knobs(Record):
    """How hard a story is.

    Example:
        Knobs(things=2, third_move=0.3, gap=3, fillers=(1, 3), order="shuffled", asks=("end", "who"))
    """

    things: int = Field(default=2, ge=1, le=len(THINGS))
    """Number of things that move, with one question about each."""
    third_move: float = Field(default=0.3, ge=0, le=1)
    """Chance that a thing moves three times instead of twice."""
    gap: int = Field(default=3, ge=1, le=len(TIMES) - 1)
    """Most steps of time between the moves behind the two answers; each further step is half as likely."""
    fillers: Span = (1, 3)
    """Fewest and most filler sentences, which settle nothing."""
    order: Literal["shuffled", "time"] = "shuffled"
    """Order of the sentences: any, or by time of day."""
    asks: tuple[Ask, ...] = Field(default=("end",), min_length=1)
    """Questions to draw from: where it was at the end, at the start, before its last move, or who moved it last."""


class Move(Record):
    """One move of a thing to a place."""

    thing: str
    place: str
    time: int
    """Index into TIMES."""
    who: str

    @property
    def text(self) -> str:
        """The sentence that tells it."""
        return f"the {self.thing} was moved to the {self.place} at {TIMES[self.time]} by {self.who}."


def story(rng: Random, knobs: Knobs) -> Story:
    """Tell a day: moves and fillers in the order asked for, and one question about each thing."""
    days = [_day(rng, thing, knobs) for thing in rng.sample(THINGS, knobs.things)]
    timed: list[tuple[float, str]] = []
    for day in days:
        timed += [(float(move.time), move.text) for move in day]
    for _ in range(rng.randint(*knobs.fillers)):
        timed.append((rng.uniform(0, len(TIMES)), _filler(rng)))
    if knobs.order == "shuffled":
        rng.shuffle(timed)
    else:
        timed.sort(key=lambda pair: pair[0])
    facts = []
    for day in days:
        facts += _facts(day)
    return Story(
        sentences=tuple(text for _, text in timed),
        items=tuple(_item(rng, day, rng.choice(knobs.asks)) for day in days),
        facts=tuple(facts),
    )


def _day(rng: Random, thing: str, knobs: Knobs) -> list[Move]:
    """Moves of one thing: the one behind the wrong answer, then the last one, then perhaps an early third."""
    steps = range(1, knobs.gap + 1)
    gap = rng.choices(steps, [0.5**step for step in steps])[0]
    earlier = rng.randrange(len(TIMES) - gap)
    times = [earlier, earlier + gap]
    # A third move comes before the others, so that the two moves of the answers follow each other.
    if earlier and rng.random() < knobs.third_move:
        times.append(rng.randrange(earlier))
    places = rng.sample(PLACES, len(times))
    people = rng.sample(PEOPLE, len(times))
    return [
        Move(thing=thing, place=place, time=time, who=who)
        for place, time, who in zip(places, times, people, strict=True)
    ]


def _filler(rng: Random) -> str:
    """A sentence that settles nothing, though some mention a thing or a place of the story."""
    thing = rng.choice(THINGS)
    place = rng.choice(PLACES)
    who = rng.choice(PEOPLE)
    return rng.choice(
        (
            f"the {thing} was {rng.choice(COLOURS)} and {who} liked it.",
            f"the {place} was {rng.choice(LOOKS)} and {who} knew.",
            f"{who} sang in the {place} at {rng.choice(TIMES)}.",
            f"{who} wore a {rng.choice(COLOURS)} hat.",
        )
    )


def _item(rng: Random, day: list[Move], ask: Ask) -> Item:
    """A question about two moves of a thing that follow each other, with the answers in random order."""
    moves = sorted(day, key=lambda move: move.time)
    if ask == "start":
        right, other = moves[0], moves[1]
    elif ask == "before":
        right, other = moves[-2], moves[-1]
    else:
        right, other = moves[-1], moves[-2]
    correct: Literal[0, 1] = 1 if rng.random() < 0.5 else 0
    first, second = (other, right) if correct else (right, other)
    text = rng.choice(QUESTIONS[ask]).format(thing=right.thing, time=TIMES[moves[-1].time])
    return Item(
        name=right.thing,
        text=text,
        answers=(first.who, second.who) if ask == "who" else (first.place, second.place),
        correct=correct,
        evidence=((first.text,), (second.text,)),
    )


def _facts(day: list[Move]) -> list[tuple[str, str]]:
    """Short queries that the moves of a thing answer."""
    before, last = day[0], day[1]
    thing = last.thing
    facts = [(f"{thing} at {TIMES[move.time]}", move.place) for move in day]
    facts += [
        (f"{thing} end", last.place),
        (f"{thing} last who", last.who),
        (f"{thing} last {before.place} or {last.place}", last.place),
        (f"{thing} last {last.place} or {before.place}", last.place),
        (f"{thing} before {TIMES[last.time]}", before.place),
        (f"{thing} end when", TIMES[last.time]),
    ]
    return facts
