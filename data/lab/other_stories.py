"""Stories of three other kinds that the shipped models met while they were pretrained: chains, payments and wishes.

The shipped models can not answer questions about them better than by a guess, so no run asks any. They stay because
they are a part of the text that `lab-base` and `lab-small` were trained on: without them `debate-rl lab build` would
make other models.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Literal

from debate_rl.data.lab.story import Item, Story
from debate_rl.data.lab.vocabulary import AMOUNTS, COLOURS, LOOKS, PEOPLE, PLACES, QUALITIES, THINGS
from debate_rl.records import Record

REPLIES = ("one", "two")
Fact = tuple[str, str]
"""A short query and its answer of one word."""


def chain_story(rng: Random) -> Story:
    """Tell a chain of comparisons, and ask which of two that are one to three steps apart is older, taller, richer."""
    # One stands above the two compared and one below, so that being an end does not give the answer away.
    chain = rng.sample(PEOPLE, rng.randint(1, 3) + 3)
    quality = rng.sample(QUALITIES, 1)[0]
    links = [f"{above} is {quality} than {below}." for above, below in pairwise(chain)]
    sentences = list(links)
    for _ in range(rng.randint(0, 2)):
        sentences.append(_person_first_filler(rng))
    rng.shuffle(sentences)
    high, low = chain[1], chain[-2]
    # The right answer needs every link between the two; a true sentence backs the wrong one as well.
    backs_high = tuple(links[1:-1])
    backs_low = (links[-1],)
    correct = _draw_place(rng)
    item = Item(
        name=f"{quality}-{high}-{low}",
        text=rng.choice(("who is {quality}?", "which of the two is {quality}?")).format(quality=quality),
        answers=(low, high) if correct else (high, low),
        correct=correct,
        evidence=(backs_low, backs_high) if correct else (backs_high, backs_low),
    )
    return Story(sentences=tuple(sentences), items=(item,), facts=tuple(_chain_facts(rng, chain, quality)))


def _chain_facts(rng: Random, chain: list[str], quality: str) -> list[Fact]:
    """Neighbours in the chain, and who of a few pairs is higher."""
    facts = [(f"{above} {quality} than", below) for above, below in pairwise(chain)]
    for _ in range(4):
        high, low = sorted(rng.sample(range(len(chain)), 2))
        first, second = rng.sample((chain[high], chain[low]), 2)
        facts.append((f"{quality} {first} or {second}", chain[high]))
    return facts


class Payment(Record):
    """One payment."""

    payer: str
    payee: str
    coins: int
    thing: str

    @property
    def text(self) -> str:
        """The sentence that tells it."""
        return f"{self.payer} paid {self.payee} {self.coins} coins for the {self.thing}."


def payment_story(rng: Random) -> Story:
    """Tell two or three payments of each of two people, and ask how many coins each of them paid in all."""
    payers = [_payments_of(rng, payer) for payer in rng.sample(PEOPLE, 2)]
    sentences = []
    for payments in payers:
        sentences += [payment.text for payment in payments]
    for _ in range(rng.randint(0, 2)):
        sentences.append(_thing_first_filler(rng))
    rng.shuffle(sentences)
    items = []
    for payments in payers:
        # A draw from a list of one: it moves the generator, which the shipped models' texts depend on.
        others = rng.choice([other for other in payers if other is not payments])
        items.append(_total_item(rng, payments, others))
    facts = []
    for payments in payers:
        facts += _payment_facts(rng, payments)
    return Story(sentences=tuple(sentences), items=tuple(items), facts=tuple(facts))


def _payments_of(rng: Random, payer: str) -> list[Payment]:
    """Payments of one payer to different people for different things."""
    count = rng.randint(2, 3)
    payees = rng.sample([person for person in PEOPLE if person != payer], count)
    things = rng.sample(THINGS, count)
    payments = []
    for payee, thing in zip(payees, things, strict=True):
        coins = int(rng.choice(AMOUNTS))
        payments.append(Payment(payer=payer, payee=payee, coins=coins, thing=thing))
    return payments


def _total_item(rng: Random, payments: list[Payment], others: list[Payment]) -> Item:
    """Ask for a total; the wrong one has a payment of somebody else in place of one payment."""
    payer = payments[0].payer
    total = sum(payment.coins for payment in payments)
    backs_total = tuple(payment.text for payment in payments)
    # Both payments are drawn alike, so the two numbers do not tell whose total is whose.
    swaps = []
    for payment in payments:
        swaps += [(payment, foreign) for foreign in others if payment.coins != foreign.coins]
    added: tuple[Payment, ...] = ()
    if swaps:
        replaced, foreign = rng.choice(swaps)
        added = (foreign,)
    else:
        # Without a foreign payment of another amount the wrong total misses one payment.
        replaced = rng.choice(payments)
    remaining = [payment for payment in payments if payment.text != replaced.text]
    wrong = total - replaced.coins + sum(payment.coins for payment in added)
    backs_wrong = tuple(payment.text for payment in (*remaining, *added))
    correct = _draw_place(rng)
    text = rng.choice(("how many coins did {payer} pay in all?", "what was the total that {payer} paid?"))
    answers = (str(total), str(wrong))
    evidence = (backs_total, backs_wrong)
    if correct == 1:
        answers = (str(wrong), str(total))
        evidence = (backs_wrong, backs_total)
    return Item(name=payer, text=text.format(payer=payer), answers=answers, correct=correct, evidence=evidence)


def _payment_facts(rng: Random, payments: list[Payment]) -> list[Fact]:
    """Single payments, the sum of two, and the total."""
    payer = payments[0].payer
    facts = [(f"{payer} paid {payment.payee}", str(payment.coins)) for payment in payments]
    first, second = rng.sample(payments, 2)
    facts.append((f"{payer} paid {first.payee} and {second.payee}", str(first.coins + second.coins)))
    facts.append((f"{payer} total", str(sum(payment.coins for payment in payments))))
    return facts


def wish_story(rng: Random) -> Story:
    """Tell three wishes of a guest and what two replies bring, and ask which reply meets one wish more."""
    met_by_worse = rng.randint(1, 2)
    better = rng.randrange(2)
    things = rng.sample(THINGS, 6)
    wishes, spare = things[:3], things[3:]
    met = {better: rng.sample(wishes, met_by_worse + 1), 1 - better: rng.sample(wishes, met_by_worse)}
    # Both replies bring equally many things, so that their number does not give the answer away.
    brought = {better: met[better] + spare[:1], 1 - better: met[1 - better] + spare[1:]}
    sentences = []
    for reply in (0, 1):
        sentences += [_brings(reply, thing) for thing in brought[reply]]
    for _ in range(rng.randint(0, 2)):
        sentences.append(_place_first_filler(rng))
    rng.shuffle(sentences)
    item = _reply_item(rng, better, met)
    return Story(
        sentences=(*(f"the guest wants the {thing}." for thing in wishes), *sentences),
        items=(item,),
        facts=tuple(_wish_facts(rng, better, met, brought)),
    )


def _brings(reply: int, thing: str) -> str:
    """The sentence that a reply brings a thing."""
    return f"reply {REPLIES[reply]} brings the {thing}."


def _reply_item(rng: Random, better: int, met: dict[int, list[str]]) -> Item:
    """Ask which reply is better, the replies named in either order."""
    first, second = rng.sample((0, 1), 2)
    backs_first = tuple(_brings(first, thing) for thing in met[first])
    backs_second = tuple(_brings(second, thing) for thing in met[second])
    return Item(
        name="reply",
        text=rng.choice(("which reply is better for the guest?", "which reply meets more wishes?")),
        answers=(REPLIES[first], REPLIES[second]),
        correct=1 if second == better else 0,
        evidence=(backs_first, backs_second),
    )


def _wish_facts(rng: Random, better: int, met: dict[int, list[str]], brought: dict[int, list[str]]) -> list[Fact]:
    """Who brings what, whether it was wanted, how many wishes a reply meets, and which reply is better."""
    facts = [(f"reply {REPLIES[reply]} wishes", str(len(met[reply]))) for reply in (0, 1)]
    for reply in (0, 1):
        thing = rng.choice(brought[reply])
        facts.append((f"guest wants {thing}", "yes" if thing in met[reply] else "no"))
        facts.append((f"reply {REPLIES[reply]} brings {thing}", "yes"))
        other_thing = rng.choice(brought[1 - reply])
        is_brought = "yes" if other_thing in brought[reply] else "no"
        facts.append((f"reply {REPLIES[reply]} brings {other_thing}", is_brought))
    facts.append(("better reply", REPLIES[better]))
    return facts


def _draw_place(rng: Random) -> Literal[0, 1]:
    """Draw which of the two answers is the correct one."""
    return 1 if rng.random() < 0.5 else 0


# Three fillers, sentences that settle nothing: their draws come in different orders, which the shipped models' texts
# depend on, so they can not be one function.


def _person_first_filler(rng: Random) -> str:
    """A filler of chain stories."""
    person = rng.choice(PEOPLE)
    place = rng.choice(PLACES)
    return rng.choice(
        (f"{person} wore a {rng.choice(COLOURS)} hat.", f"the {place} was {rng.choice(LOOKS)} and {person} knew.")
    )


def _thing_first_filler(rng: Random) -> str:
    """A filler of payment stories."""
    person = rng.choice(PEOPLE)
    return rng.choice(
        (
            f"the {rng.choice(THINGS)} was {rng.choice(COLOURS)} and {person} liked it.",
            f"the {rng.choice(PLACES)} was {rng.choice(LOOKS)} and {person} knew.",
        )
    )


def _place_first_filler(rng: Random) -> str:
    """A filler of wish stories."""
    person = rng.choice(PEOPLE)
    place = rng.choice(PLACES)
    return rng.choice(
        (f"the {place} was {rng.choice(LOOKS)} and {person} knew.", f"{person} wore a {rng.choice(COLOURS)} hat.")
    )


OTHER_STORIES: dict[str, Callable[[Random], Story]] = {
    "order": chain_story,
    "accounts": payment_story,
    "preference": wish_story,
}
"""The kinds by the names that seed their draws."""
