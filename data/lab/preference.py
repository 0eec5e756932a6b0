"""Preference: a guest states wishes, two replies bring things; which reply is better?

The analogue of pairs of replies in reward modelling: the criteria are stated (the wishes, each counts the same), the
better reply meets more of them, and the worse one meets some, so a true sentence backs it as well.
"""

from __future__ import annotations

from random import Random

from pydantic import Field, model_validator

from debate_rl.data.lab.story import Item, Span, Story
from debate_rl.data.lab.vocabulary import COLOURS, LOOKS, PEOPLE, PLACES, THINGS
from debate_rl.records import Record

REPLIES = ("one", "two")


class Knobs(Record):
    """How hard a story is.

    Example:
        Knobs(wishes=3, gap=1, extras=1, fillers=(0, 2))
    """

    wishes: int = Field(default=3, ge=2, le=6)
    """Things that the guest wants."""
    gap: int = Field(default=1, ge=1, le=5)
    """How many wishes the better reply meets more than the other, which meets at least one."""
    extras: int = Field(default=1, ge=0, le=3)
    """Things nobody asked for that the better reply brings; the other one brings as many things in all."""
    fillers: Span = (0, 2)
    """Fewest and most sentences that settle nothing."""

    @model_validator(mode="after")
    def _fits(self) -> Knobs:
        if self.gap >= self.wishes:
            raise ValueError("gap must be below wishes, so that the worse reply meets one as well")
        return self


def story(rng: Random, knobs: Knobs) -> Story:
    """Tell the wishes, then both replies in any order, and ask which is better."""
    fewer = rng.randint(1, knobs.wishes - knobs.gap)
    more, better = fewer + knobs.gap, rng.randrange(2)
    things = rng.sample(THINGS, knobs.wishes + 2 * knobs.extras + knobs.gap)
    wanted, spare = things[: knobs.wishes], things[knobs.wishes :]
    met = {better: rng.sample(wanted, more), 1 - better: rng.sample(wanted, fewer)}
    brought = {better: met[better] + spare[: knobs.extras], 1 - better: met[1 - better] + spare[knobs.extras :]}
    told = [_brings(reply, thing) for reply in (0, 1) for thing in brought[reply]]
    told += [_filler(rng) for _ in range(rng.randint(*knobs.fillers))]
    wishes = [_wish(thing) for thing in wanted]
    rng.shuffle(told)
    return Story(
        sentences=(*wishes, *told),
        items=(_item(rng, better, met),),
        facts=tuple(_facts(rng, better, met, brought)),
    )


def _wish(thing: str) -> str:
    return f"the guest wants the {thing}."


def _brings(reply: int, thing: str) -> str:
    return f"reply {REPLIES[reply]} brings the {thing}."


def _filler(rng: Random) -> str:
    """A sentence that settles nothing."""
    who = rng.choice(PEOPLE)
    place = rng.choice(PLACES)
    return rng.choice(
        (f"the {place} was {rng.choice(LOOKS)} and {who} knew.", f"{who} wore a {rng.choice(COLOURS)} hat.")
    )


def _item(rng: Random, better: int, met: dict[int, list[str]]) -> Item:
    """Which reply is better, the replies named in either order."""
    order = rng.sample((0, 1), 2)
    backs = [tuple(_brings(reply, thing) for thing in met[reply]) for reply in order]
    return Item(
        name="reply",
        text=rng.choice(("which reply is better for the guest?", "which reply meets more wishes?")),
        answers=(REPLIES[order[0]], REPLIES[order[1]]),
        correct=1 if order[1] == better else 0,
        evidence=(backs[0], backs[1]),
    )


def _facts(rng: Random, better: int, met: dict[int, list[str]], brought: dict[int, list[str]]) -> list[tuple[str, str]]:
    """Who brings what, whether it was wanted, how many wishes a reply meets, and which reply is better."""
    facts = [(f"reply {REPLIES[reply]} wishes", str(len(met[reply]))) for reply in (0, 1)]
    for reply in (0, 1):
        thing = rng.choice(brought[reply])
        facts.append((f"guest wants {thing}", "yes" if thing in met[reply] else "no"))
        facts.append((f"reply {REPLIES[reply]} brings {thing}", "yes"))
        other = rng.choice(brought[1 - reply])
        facts.append((f"reply {REPLIES[reply]} brings {other}", "yes" if other in brought[reply] else "no"))
    facts.append(("better reply", REPLIES[better]))
    return facts
