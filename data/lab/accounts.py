"""Accounts: people pay one another; how many coins did one of them pay in all?

The wrong total leaves a true payment out and counts one of somebody else in its place, so that the numbers alone
say nothing. Every sentence behind it is true as well. Who reads the quotes of both sides sees whose payments they are.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field, model_validator

from debate_rl.data.lab.story import Item, Span, Story
from debate_rl.data.lab.vocabulary import AMOUNTS, COLOURS, LOOKS, PEOPLE, PLACES, THINGS
from debate_rl.records import Record


class Knobs(Record):
    """How hard a story is.

    Example:
        Knobs(payers=2, payments=(2, 3), fillers=(1, 3))
    """

    payers: int = Field(default=2, ge=2, le=len(PEOPLE) // 2)
    """People who pay, with one question about each."""
    payments: tuple[int, int] = (2, 3)
    """Fewest and most payments of one payer, 2 to 6."""
    fillers: Span = (1, 3)
    """Fewest and most sentences that settle nothing."""

    @model_validator(mode="after")
    def _in_range(self) -> Knobs:
        if not 2 <= self.payments[0] <= self.payments[1] <= 6:
            raise ValueError("payments are two numbers from 2 to 6, the smaller one first")
        return self


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


def story(rng: Random, knobs: Knobs) -> Story:
    """Tell payments and fillers in any order, with one question about each payer."""
    paid = [_paid(rng, payer, knobs) for payer in rng.sample(PEOPLE, knobs.payers)]
    told = [payment.text for payments in paid for payment in payments]
    told += [_filler(rng) for _ in range(rng.randint(*knobs.fillers))]
    rng.shuffle(told)
    return Story(
        sentences=tuple(told),
        items=tuple(_item(rng, payments, rng.choice([p for p in paid if p is not payments])) for payments in paid),
        facts=tuple(fact for payments in paid for fact in _facts(rng, payments)),
    )


def _paid(rng: Random, payer: str, knobs: Knobs) -> list[Payment]:
    """Payments of one payer to different people for different things."""
    count = rng.randint(*knobs.payments)
    payees, things = rng.sample([who for who in PEOPLE if who != payer], count), rng.sample(THINGS, count)
    return [
        Payment(payer=payer, payee=payee, coins=int(rng.choice(AMOUNTS)), thing=thing)
        for payee, thing in zip(payees, things, strict=True)
    ]


def _filler(rng: Random) -> str:
    """A sentence that settles nothing."""
    who = rng.choice(PEOPLE)
    return rng.choice(
        (
            f"the {rng.choice(THINGS)} was {rng.choice(COLOURS)} and {who} liked it.",
            f"the {rng.choice(PLACES)} was {rng.choice(LOOKS)} and {who} knew.",
        )
    )


def _item(rng: Random, payments: list[Payment], others: list[Payment]) -> Item:
    """Ask for the total; the wrong one has one of another payer in place of one payment."""
    total, texts = sum(payment.coins for payment in payments), tuple(payment.text for payment in payments)
    # Own and foreign coins are drawn alike, so the two numbers say nothing of which total is whose.
    swaps = [(own, foreign) for own in payments for foreign in others if own.coins != foreign.coins]
    if swaps:
        own, foreign = rng.choice(swaps)
        wrong = total - own.coins + foreign.coins
        behind = (*(text for text in texts if text != own.text), foreign.text)
    else:
        odd = rng.choice(payments)
        wrong, behind = total - odd.coins, tuple(text for text in texts if text != odd.text)
    correct: Literal[0, 1] = 1 if rng.random() < 0.5 else 0
    payer = payments[0].payer
    return Item(
        name=payer,
        text=rng.choice(("how many coins did {payer} pay in all?", "what was the total that {payer} paid?")).format(
            payer=payer
        ),
        answers=(str(wrong), str(total)) if correct else (str(total), str(wrong)),
        correct=correct,
        evidence=(behind, texts) if correct else (texts, behind),
    )


def _facts(rng: Random, payments: list[Payment]) -> list[tuple[str, str]]:
    """Single payments, the sum of two, and the total."""
    payer = payments[0].payer
    facts = [(f"{payer} paid {payment.payee}", str(payment.coins)) for payment in payments]
    one, two = rng.sample(payments, 2)
    facts.append((f"{payer} paid {one.payee} and {two.payee}", str(one.coins + two.coins)))
    facts.append((f"{payer} total", str(sum(payment.coins for payment in payments))))
    return facts
