"""The ledger of a run: tokens and money paid to a server, and a budget that is never passed.

Before a request is sent, the most that it may cost is set aside: a token of the prompt is at least one byte, and the
answer is as long as it may get. Where that does not fit any more, requests wait for those under way, which mostly cost
less; where none is under way, the budget is spent. What was paid is written to a file, so the budget is that of a run,
however often the run is stopped and started. Tries that never came back are not counted: nobody says what they cost.
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
    """Price of a model's tokens, for a million of them, in the currency of the budget.

    Example:
        Price(prompt=0.15, new=0.60, cached=0.075)
    """

    prompt: float = Field(ge=0)
    """For a million tokens that the model reads."""
    new: float = Field(ge=0)
    """For a million tokens that the model writes."""
    cached: float | None = Field(default=None, ge=0)
    """Prompt tokens that the server says it took from its cache; empty is the price of others."""


class Paid(Record):
    """One answer of a server: a line of the ledger.

    Example:
        Paid(model="gpt-4o-mini", prompt=4102, cached=3968, new=188)
    """

    model: str
    prompt: int
    """Prompt tokens, cached ones included."""
    new: int
    """Tokens of the answer."""
    cached: int = 0
    count: int = 1
    """Answers that the line stands for."""

    def __add__(self, other: Paid) -> Paid:
        """The sum of both lines, under the name of this model."""
        return Paid(
            model=self.model,
            prompt=self.prompt + other.prompt,
            new=self.new + other.new,
            cached=self.cached + other.cached,
            count=self.count + other.count,
        )


class Budget:
    """Counts what is paid, and stops before a limit is passed.

    Args:
        path: the ledger; None keeps it in memory.
        tokens: limit on the tokens of prompts and answers together; None is no limit.
        money: limit on the cost; None is no limit.
        prices: prices by the names that models are asked for; `*` is for all others.
        rank: rank of this process, where several ask at a time. Each writes a ledger of its own beside the path
            (paid-1.jsonl) and counts those of all. It does not see what the others have under way.
    """

    def __init__(
        self,
        path: Path | None = None,
        tokens: int | None = None,
        money: float | None = None,
        prices: Mapping[str, Price] | None = None,
        rank: int = 0,
    ) -> None:
        self.path = path
        self.tokens = tokens
        self.money = money
        self.prices = dict(prices or {})
        self._ledger = path
        if path is not None and rank:
            self._ledger = path.with_name(f"{path.stem}-{rank}{path.suffix}")
        self._held_tokens = 0
        self._held_money = 0.0
        self._under_way = 0
        self._changed = Condition()
        self._by_model: dict[str, Paid] = {}
        self._read: dict[Path, int] = {}
        """Bytes of each ledger that are counted already."""
        self._catch_up()

    @property
    def spent_tokens(self) -> int:
        """Tokens paid so far, in all runs of the ledger."""
        return sum(paid.prompt + paid.new for paid in self._by_model.values())

    @property
    def spent_money(self) -> float | None:
        """Money paid so far; None where a model that was asked has no price."""
        costs = []
        for paid in self._by_model.values():
            cost = self._cost(paid)
            if cost is None:
                return None  # a sum without the unknown prices would be too low
            costs.append(cost)
        return sum(costs)

    def summary(self) -> dict[str, Any]:
        """Count of answers, tokens and (where all prices are known) money so far."""
        lines = list(self._by_model.values())
        counts: dict[str, Any] = {
            "answers": sum(paid.count for paid in lines),
            "prompt_tokens": sum(paid.prompt for paid in lines),
            "cached_tokens": sum(paid.cached for paid in lines),
            "new_tokens": sum(paid.new for paid in lines),
        }
        money = self.spent_money
        if self.prices and money is not None:
            counts["cost"] = round(money, 6)
        return counts

    @contextlib.contextmanager
    def hold(self, model: str, prompt: int, new: int) -> Iterator[None]:
        """Set aside what a request may cost, until it is answered.

        Args:
            model: name that is asked for.
            prompt: tokens of the prompt, at most.
            new: tokens of the answer, at most.

        Raises:
            UserError: it does not fit what is left, or money is limited and the model has no price.
        """
        cost = self._cost(Paid(model=model, prompt=prompt, new=new)) or 0.0
        if self.money is not None and self._price(model) is None:
            raise UserError(f"engine.budget is in money, and {model!r} has no price; set engine.prices.{model}, or '*'")
        with self._changed:
            self._catch_up()
            while not self._fits(prompt + new, cost):
                # Requests under way were held at their most; when one is answered there may be room again.
                if not self._under_way:
                    raise UserError(self._over(prompt + new, cost))
                self._changed.wait()
            self._set_aside(prompt + new, cost, 1)
        try:
            yield
        finally:
            with self._changed:
                self._set_aside(-prompt - new, -cost, -1)
                self._changed.notify_all()  # all: a small request may fit where the first in line does not

    def pay(self, paid: Paid) -> None:
        """Write down what an answer cost."""
        with self._changed:
            if self._ledger is None:
                self._count(paid)
            else:
                # Counted by reading it back: then a line counts once, whichever engine of the run wrote it.
                append(self._ledger, [paid])
                self._catch_up()

    def _catch_up(self) -> None:
        """Count what was added to the ledgers since they were last read; other engines of the run write there too."""
        if self.path is None:
            return
        # paid.jsonl, paid-1.jsonl, ...: the ledgers of all ranks.
        for path in sorted(self.path.parent.glob(f"{self.path.stem}*{self.path.suffix}")):
            read = self._read.get(path, 0)
            if path.stat().st_size <= read:
                continue
            with path.open("rb") as file:
                file.seek(read)
                for line in file:
                    # A line without its end is being written, or a crash cut it off: left for the next time.
                    if line.endswith(b"\n"):
                        self._count(_parse_line(line, path))
                        read += len(line)
            self._read[path] = read

    def _set_aside(self, tokens: int, cost: float, requests: int) -> None:
        """Add to what requests under way may cost at most; negative amounts give it back."""
        self._held_tokens += tokens
        self._held_money += cost
        self._under_way += requests

    def _fits(self, tokens: int, cost: float) -> bool:
        """Whether a further request stays within both limits, whatever those under way turn out to cost."""
        if self.tokens is not None and self.spent_tokens + self._held_tokens + tokens > self.tokens:
            return False
        if self.money is None:
            return True
        # Sums of floats: without the allowance a request that costs exactly what is left might not fit.
        return (self.spent_money or 0.0) + self._held_money + cost <= self.money + 1e-12

    def _over(self, tokens: int, cost: float) -> str:
        """Error message for a budget that is spent."""
        resume = "what is finished is kept, and the same command goes on"
        if self.tokens is not None and self.spent_tokens + tokens > self.tokens:
            return (
                f"engine.budget.tokens: {self.spent_tokens:,} of {self.tokens:,} tokens are spent, and the next "
                f"request may take {tokens:,}; raise it to go on ({resume})"
            )
        return (
            f"engine.budget.money: {self.spent_money:.4f} of {self.money:g} are spent, and the next request may cost "
            f"{cost:.4f}; raise it to go on ({resume})"
        )

    def _count(self, paid: Paid) -> None:
        """Add a line to the sum of its model."""
        before = self._by_model.get(paid.model)
        self._by_model[paid.model] = paid if before is None else before + paid

    def _price(self, model: str) -> Price | None:
        """Price of a model, else the price of all others."""
        return self.prices.get(model, self.prices.get("*"))

    def _cost(self, paid: Paid) -> float | None:
        """Cost of a line; None where its model has no price."""
        price = self._price(paid.model)
        if price is None:
            return None
        cached_price = price.prompt if price.cached is None else price.cached
        uncached = paid.prompt - paid.cached
        return (uncached * price.prompt + paid.cached * cached_price + paid.new * price.new) / _MILLION


def _parse_line(line: bytes, path: Path) -> Paid:
    """The record of a line of a ledger.

    Raises:
        UserError: it is damaged.
    """
    try:
        return Paid.model_validate_json(line)
    except ValidationError as error:
        raise UserError(f"{path}: a line is damaged ({explain(error)}); mend or remove it: it counts money") from error


def most_prompt_tokens(messages: tuple[Message, ...]) -> int:
    """Upper bound on the tokens of a prompt: one a byte, and the template's."""
    return sum(len(message.content.encode()) for message in messages) + TEMPLATE
