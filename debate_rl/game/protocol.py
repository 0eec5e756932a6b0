"""Protocols as data: who speaks when, who sees what, and what the judge sees."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from debate_rl.errors import UserError, nearest
from debate_rl.records import Record, digest, explain, read_yaml

Side = Literal["A", "B"]
SIDES: tuple[Side, Side] = ("A", "B")


def _is_absent(value: object) -> bool:
    return not value


def other(side: Side) -> Side:
    """The opposite side."""
    return "B" if side == "A" else "A"


class Protocol(Record):
    """The rules of one game.

    Example (two simultaneous rounds, as in Arnesen et al. 2024):
        Protocol(name="debate", order=(("A", "B"),), turns=2)
    Example (claim debate of Lang et al. 2025: A, B, A):
        Protocol(name="claim", order=(("A",), ("B",)), turns=3)
    """

    name: str
    order: tuple[tuple[Side, ...], ...] = (("A", "B"),)
    """Sides that speak in each turn, repeated until `turns` are played; sides in one turn speak at the same time."""
    calls: Literal["order", "rejected"] = "order"
    """`rejected`: in each turn the side speaks whose answer the judge now believes less (market-making); `order` is
    ignored then."""
    settled: float = Field(default=0.05, ge=0, le=1)
    """With `calls: rejected` the game ends once the judge's probability moved by less than this in a turn."""
    turns: int = Field(default=1, ge=0)
    """Number of turns; 0 asks the judge without any speech."""
    sides: Literal["both", "drawn", "picked"] = "both"
    """`drawn`: one side, drawn by seed and question, speaks; the other is silent (single consultancy). `picked`: one
    side speaks, that of the answer which the player itself holds for true (open consultancy, Kenton et al. 2024)."""
    opens: Literal["order", "picked", "drawn"] = "order"
    """Side that takes the part of A in `order`. `picked`: the side of the answer which the player holds for true (open
    debate, Kenton et al. 2024). `drawn`: a side drawn by seed and question (Lang et al. 2025)."""
    speakers_see: Literal["all", "own"] = "all"
    """Earlier speeches that a speaker reads: those of all sides, or only its own."""
    judge_sees: Literal["together", "apart"] = "together"
    """`apart`: the judge reads each side alone and the verdicts are averaged."""
    judge_reads_passage: bool = False
    """Whether the judge reads the passage; true only for the open-book control."""
    needs_passage: bool = True
    """Whether a question without a passage is refused."""
    max_new_tokens: int = Field(default=300, ge=1)
    """Tokens a debater may write in one turn."""
    max_words: int | None = Field(default=None, ge=1)
    """Maximum words of a speech that others are shown; the stored speech stays whole."""
    verdict_after_each_turn: bool = False
    """Ask the judge after every turn as well as at the end."""
    # Left out of a file where it says nothing, so that games of other protocols keep their names and their bytes.
    judge_questions: bool = Field(default=False, exclude_if=_is_absent)
    """Whether the judge may put one question to the debaters after each round but the last, a round being one pass of
    `order` (Michael et al. 2023, Khan et al. 2024). Everybody reads it from the next turn on."""
    scratchpad: Literal["none", "private", "public"] = "none"
    """Whether debaters may think in <scratchpad> tags first, and whether others are shown that text."""
    identities: Literal["hidden", "shown"] = "hidden"
    """Whether the players' names are shown beside the sides."""
    near_quotes: float = Field(default=90.0, ge=0, le=100)
    """Minimum similarity, in percent, of a quote that is not exact but counts as near."""
    prompts: str = "default"
    """Name of a shipped prompt set, or a folder with templates."""

    @model_validator(mode="after")
    def _check_speakers(self) -> Protocol:
        if self.turns > 0 and not self.order:
            raise ValueError("'order' is empty but 'turns' is not 0")
        if self.turns > 0 and not all(self.order):
            raise ValueError("every turn of 'order' needs at least one side")
        # The judge calls either side in any turn, by a verdict on both.
        needed = ("both", "order", "together")
        if self.calls == "rejected" and (self.sides, self.opens, self.judge_sees) != needed:
            raise ValueError("'calls: rejected' needs both sides, 'opens: order' and a judge who sees them together")
        return self

    @model_validator(mode="after")
    def _check_questions(self) -> Protocol:
        if not self.judge_questions:
            return self
        # A question would move the judge's own probability, whose rest ends the game.
        if self.calls == "rejected":
            raise ValueError("judge_questions needs 'calls: order'; leave one of the two out")
        if self.judge_sees == "apart":
            raise ValueError("judge_questions needs 'judge_sees: together': a judge of one side has read half a round")
        if self.sides == "both" and self.speakers_see == "own":
            raise ValueError(
                "judge_questions would tell each consultant what the other said; set sides: drawn, or speakers_see: all"
            )
        return self

    @property
    def open(self) -> bool:
        """Whether a player picks its side before the game."""
        return self.turns > 0 and "picked" in (self.sides, self.opens)

    def asks_after(self, turn: int) -> bool:
        """Whether the judge may ask after a turn (counted from 0): a round ends there, and another one follows."""
        return self.judge_questions and turn + 1 < self.turns and (turn + 1) % len(self.order) == 0

    def speakers(self, turn: int, present: tuple[Side, ...]) -> tuple[Side, ...]:
        """Sides that speak in a turn (counted from 0), of those present in the game."""
        return tuple(side for side in self.order[turn % len(self.order)] if side in present)


@cache
def shipped_protocols() -> dict[str, dict[str, Any]]:
    """Fields of the shipped protocols by name, from `protocols.yaml`."""
    text = resources.files("debate_rl.game").joinpath("protocols.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def load_protocol(name: str, **changes: Any) -> Protocol:
    """Load a shipped protocol, or one from a YAML file, and change fields of it.

    Args:
        name: a shipped name (see `protocols.yaml`) or a path that ends in .yaml or .yml.
        changes: fields to replace, for example `turns=2`.

    Raises:
        UserError: no such protocol, a field is unknown or out of range, or the judge is to ask questions and can not.

    Example:
        >>> import debate_rl as dr
        >>> rules = dr.load_protocol("debate", turns=3, max_new_tokens=150)
        >>> rules.name, rules.turns
        ('debate', 3)
    """
    protocol = read_protocol(name, **changes)
    if not protocol.judge_questions:
        return protocol
    if not any(map(protocol.asks_after, range(protocol.turns))):
        raise UserError(
            f"protocol {name!r}: judge_questions needs two rounds or more; set turns to {2 * len(protocol.order)}"
        )
    from debate_rl.game.prompts import check_questions  # here: prompts are made by protocols

    check_questions(protocol)
    return protocol


def read_protocol(name: str, **changes: Any) -> Protocol:
    """Like `load_protocol`, without a check that the judge's questions can be asked: the changes may not be all."""
    if name.endswith((".yaml", ".yml")):
        fields = {"name": Path(name).stem, **read_yaml(name, "protocol file")}
    elif name in shipped_protocols():
        fields = {"name": name, **shipped_protocols()[name]}
    else:
        if name == "consultancy":
            raise UserError("unknown protocol 'consultancy'; a consultancy is called single, double or ensembled")
        raise UserError(f"unknown protocol {name!r}; {nearest(name, shipped_protocols())}")
    fields |= changes
    unknown = sorted(set(fields) - set(Protocol.model_fields))
    if unknown:
        raise UserError(f"protocol {name!r}: unknown key {unknown[0]!r}; {nearest(unknown[0], Protocol.model_fields)}")
    try:
        return Protocol(**fields)
    except ValidationError as error:
        raise UserError(f"protocol {name!r}: {explain(error)}") from error


def drawn_side(question_id: str, seed: int) -> Side:
    """The side a consultant argues: a fair draw by question and seed."""
    # By content and not by a running generator: a question's side does not change with the other questions of a run.
    return SIDES[int(digest(["drawn side", question_id, seed]), 16) % 2]
