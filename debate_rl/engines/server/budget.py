"""What a server is paid: tokens and money, counted as they are spent, and a budget that is never passed.

Before a request is sent the most that it may cost is set aside: a token is at least one byte of the prompt, and the
answer is as long as it may get. Where that no longer fits, requests wait for those under way, which mostly cost less;
where none is under way, the budget is spent. What was paid is written to a file, so it is the budget of a run, however
often that is stopped and started. Tries that never came back are not counted: nobody says what they cost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Condition
from typing import Any

from pydantic import Field, ValidationError

from debate_rl.engines.request import Message
from debate_rl.errors import UserError
from debate_rl.records import Record, append, explain

TEMPLATE = 256
"""Tokens that a chat template may add to a prompt, at most."""
_MILLION = 1_000_000


class Price(Record):
    """Of a model, in the currency of the budget, for a million tokens.

    Example:
        Price(prompt=0.15, new=0.60, cached=0.075)
    """

    prompt: float = Field(ge=0)
    new: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    """Prompt tokens that the server says it took from its cache; empty is the price of others."""


class Paid(Record):
    """One answer of a server: the line of the ledger.

    Example:
        Paid(model="gpt-4o-mini", prompt=4102, cached=3968, new=188)
    """

    model: str
    prompt: int
    """Tokens, cached ones included."""
    new: int
    cached: int = 0
    count: int = 1
    """Answers that the line stands for."""

    def __add__(self, other: Paid) -> Paid:
        """Both together."""
        return Paid(
            model=self.model, prompt=self.prompt + other.prompt, new=self.new + other.new,
            cached=self.cached + other.cached, count=self.count + other.count,
        )  # fmt: skip


class Budget:
    """Keeps count of what is paid, and stops before a limit is passed.

    Args:
        path: the ledger; None keeps it in memory.
        tokens: at most so many, of prompts and answers together; None is no limit.
        money: at most so much; None is no limit.
        prices: by the names that models are asked for; `*` for all others.
        rank: of this process, where several ask at a time: each writes a ledger of its own beside the path
            (paid-1.jsonl) and counts those of all. What the others have under way it does not see.
    """

    def __init__(
        self,
        path: Path | None = None,
        tokens: int | None = None,
        money: float | None = None,
        prices: Mapping[str, Price] | None = None,
        rank: int = 0,
    ) -> None:
        self.path, self.tokens, self.money = path, tokens, money
        self._own = path.with_name(f"{path.stem}-{rank}{path.suffix}") if path and rank else path
        self.prices = dict(prices or {})
        self._held_tokens, self._held_money, self._under_way = 0, 0.0, 0
        self._changed = Condition()
        self._by_model: dict[str, Paid] = {}
        self._read: dict[Path, int] = {}
        self._catch_up()

    @property
    def spent_tokens(self) -> int:
        """So far, in all runs of the ledger."""
        return sum(paid.prompt + paid.new for paid in self._by_model.values())

    @property
    def spent_money(self) -> float | None:
        """So far; None where a model that was asked has no price."""
        costs = [self._cost(paid) for paid in self._by_model.values()]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def summary(self) -> dict[str, Any]:
        """Answers, tokens and money so far."""
        paid = list(self._by_model.values())
        money = self.spent_money
        return {
            "answers": sum(one.count for one in paid),
            "prompt_tokens": sum(one.prompt for one in paid),
            "cached_tokens": sum(one.cached for one in paid),
            "new_tokens": sum(one.new for one in paid),
            **({"cost": round(money, 6)} if self.prices and money is not None else {}),
        }

    @contextlib.contextmanager
    def hold(self, model: str, prompt: int, new: int) -> Iterator[None]:
        """Set aside what a request may cost, until it is answered.

        Args:
            model: as it is asked for.
            prompt: tokens, at most.
            new: tokens, at most.

        Raises:
            UserError: it does not fit what is left, or money is limited and the model has no price.
        """
        cost = self._cost(Paid(model=model, prompt=prompt, new=new)) or 0.0
        if self.money is not None and self._price(model) is None:
            raise UserError(f"engine.budget is in money, and {model!r} has no price; set engine.prices.{model}, or '*'")
        with self._changed:
            self._catch_up()
            while not self._fits(prompt + new, cost):
                if not self._under_way:
                    raise UserError(self._over(prompt + new, cost))
                self._changed.wait()
            self._move(prompt + new, cost, 1)
        try:
            yield
        finally:
            with self._changed:
                self._move(-prompt - new, -cost, -1)
                self._changed.notify_all()

    def pay(self, paid: Paid) -> None:
        """Write down what an answer cost."""
        with self._changed:
            if self._own is None:
                self._count(paid)
            else:
                append(self._own, [paid])
                self._catch_up()

    def _catch_up(self) -> None:
        """Count what stands in the ledgers since they were last read: other engines of the run write there as well."""
        if self.path is None:
            return
        for path in sorted(self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}")):
            read = self._read.get(path, 0)
            if path.stat().st_size <= read:
                continue
            with path.open("rb") as file:
                file.seek(read)
                for line in file:
                    if line.endswith(b"\n"):  # else a crash cut it off
                        self._count(_paid_of(line, path))
                        read += len(line)
            self._read[path] = read

    def _move(self, tokens: int, cost: float, requests: int) -> None:
        self._held_tokens += tokens
        self._held_money += cost
        self._under_way += requests

    def _fits(self, tokens: int, cost: float) -> bool:
        if self.tokens is not None and self.spent_tokens + self._held_tokens + tokens > self.tokens:
            return False
        return self.money is None or (self.spent_money or 0.0) + self._held_money + cost <= self.money + 1e-12

    def _over(self, tokens: int, cost: float) -> str:
        """Why nothing more is asked."""
        kept = "what is finished is kept, and the same command goes on"
        if self.tokens is not None and self.spent_tokens + tokens > self.tokens:
            return (
                f"engine.budget.tokens: {self.spent_tokens:,} of {self.tokens:,} tokens are spent, and the next "
                f"request may take {tokens:,}; raise it to go on ({kept})"
            )
        return (
            f"engine.budget.money: {self.spent_money:.4f} of {self.money:g} are spent, and the next request may cost "
            f"{cost:.4f}; raise it to go on ({kept})"
        )

    def _count(self, paid: Paid) -> None:
        held = self._by_model.get(paid.model)
        self._by_model[paid.model] = paid if held is None else held + paid

    def _price(self, model: str) -> Price | None:
        return self.prices.get(model, self.prices.get("*"))

    def _cost(self, paid: Paid) -> float | None:
        """Of some tokens; None where the model has no price."""
        price = self._price(paid.model)
        if price is None:
            return None
        cached = price.prompt if price.cached is None else price.cached
        return ((paid.prompt - paid.cached) * price.prompt + paid.cached * cached + paid.new * price.new) / _MILLION


def _paid_of(line: bytes, path: Path) -> Paid:
    """The record of a line of a ledger.

    Raises:
        UserError: it is damaged.
    """
    try:
        return Paid.model_validate_json(line)
    except ValidationError as error:
        raise UserError(f"{path}: a line is damaged ({explain(error)}); mend or remove it: it counts money") from error


def most_prompt_tokens(messages: tuple[Message, ...]) -> int:
    """Tokens of a prompt at most: a byte each, and the template's."""
    return sum(len(message.content.encode()) for message in messages) + TEMPLATE
