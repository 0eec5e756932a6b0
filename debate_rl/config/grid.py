"""The grid of a sweep: every combination of the values of its keys, each with a name for its folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from debate_rl.errors import UserError, name_fault
from debate_rl.records import digest

MOST = 1000
"""Cells of a grid, at most: more are a mistake in writing it."""
_NOT_SWEPT = ("name", "runs", "seed", "seeds", "processes", "reuse", "sweep", "tracking", "hardware")
_LONGEST = 48
"""Characters of a cell's name before its digest."""


class Cell(NamedTuple):
    """One combination of values.

    Example:
        Cell(name="gamma-7_r-16", values={"stages.dpo.objective.gamma": 7, "stages.dpo.lora.r": 16})
    """

    name: str
    values: Mapping[str, Any]


def grid(sweep: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Every combination, the last key's values changing first.

    Raises:
        UserError: a key can not be swept, a value stands there twice, or there are too many combinations.
    """
    count = 1
    for key, values in sweep.items():
        _check(key, values)
        count *= len(values)
    if count > MOST:
        raise UserError(f"sweep: {count:,} combinations, and {MOST:,} are the most; give fewer values")
    cells = []
    for combination in itertools.product(*sweep.values()):
        of_cell = dict(zip(sweep, combination, strict=True))
        cells.append(Cell(_name(of_cell), of_cell))
    return cells


def _check(key: str, values: Sequence[Any]) -> None:
    """Refuse a key or values that make no grid.

    Raises:
        UserError: see `grid`.
    """
    first = key.partition(".")[0]
    if first in _NOT_SWEPT:
        seeds = "; give seeds beside it, such as seeds: [0, 1, 2]" if first in ("seed", "seeds") else ""
        raise UserError(f"sweep: {key!r} says where or how a run works, and is the same in every cell{seeds}")
    if not values:
        raise UserError(f"sweep: {key!r} has no values; give a list, such as [1, 2]")
    written = [digest(value) for value in values]
    twice = next((value for value, text in zip(values, written, strict=True) if written.count(text) > 1), None)
    if twice is not None:
        raise UserError(f"sweep: {key!r} has {twice!r} twice; give each value once")


def _name(values: Mapping[str, Any]) -> str:
    """Name of a cell's folder: the ends of its keys with their values, and a digest where that says too little."""
    last = [key.rpartition(".")[2] for key in values]
    parts = []
    for key, short, value in zip(values, last, values.values(), strict=True):
        # Two keys may end alike, such as the lora.r of two stages.
        shown = short if last.count(short) == 1 else key
        parts.append(f"{shown}-{value}")
    text = "_".join(parts)
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)
    # Where signs were replaced, two cells may read alike.
    if name != text or len(name) > _LONGEST or name_fault(name, "a cell") is not None:
        name = f"{name[:_LONGEST].strip('.-+_') or 'cell'}-{digest(dict(values))[:8]}"
    return name
