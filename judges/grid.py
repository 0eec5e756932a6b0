"""Verdicts that lie on a grid: log-odds of models that compute their logits in 16 bits are multiples of 1/16 or more.

Such verdicts tie, and pairs of speeches are kept or dropped by rounding. The local engine reads probabilities in
float32; a server mostly computes in bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from debate_rl.records import Record

GRID_FILE = "verdict_grid.json"
"""File of a stage in which it is kept that its verdicts lie on a grid."""
STEP = 1 / 16
"""Distance of numbers between 8 and 16 in bfloat16. Between larger ones it is a multiple of this."""
_WITHIN = 1e-4
"""Rounding of a difference of log-probabilities; of exact verdicts one in 300 is this near to a step."""
FEWEST = 20
MOST = 2000
"""Verdicts that are looked at, the first of a stage."""
SHARE = 0.5
"""Share on steps from which it is said."""


class Grid(Record):
    """Log-odds of a stage's verdicts, as its judge gave them in one order.

    Example:
        Grid(asked=400, on_steps=396, ties=31)
    """

    asked: int
    on_steps: int
    """Log-odds that are multiples of `STEP`, ties included."""
    ties: int
    """Answers of exactly equal probability."""

    @property
    def matters(self) -> bool:
        """Whether so many lie on steps that it is no chance."""
        return self.asked >= FEWEST and self.on_steps >= SHARE * self.asked

    @property
    def line(self) -> str:
        """The grid in one line."""
        return (
            f"{self.on_steps} of {self.asked} log-odds of the judge are multiples of 1/16, {self.ties} of them exact "
            "ties: its logits have 16 bits, so close verdicts are rounding; have it compute them in float32 "
            "(engine.judge_dtype, or an option of the server), or count on ties"
        )


def grid_of(folder: Path) -> Grid:
    """Look at the verdicts in a stage's logs, at most `MOST` of them."""
    gaps: list[float] = []
    for path in sorted(folder.rglob("*.jsonl")):
        gaps += _gaps_in(path, MOST - len(gaps))
    on_steps = [gap for gap in gaps if abs(gap / STEP - round(gap / STEP)) * STEP <= _WITHIN]
    return Grid(asked=len(gaps), on_steps=len(on_steps), ties=sum(gap == 0 for gap in gaps))


def _gaps_in(path: Path, most: int) -> list[float]:
    """Differences of log-probabilities in the records of a file, the first `most`."""
    gaps: list[float] = []
    with path.open("rb") as file:
        for line in file:
            if len(gaps) >= most:
                break
            if b'"asks":[{' in line:
                gaps += _gaps(json.loads(line))
    return gaps[:most]


def _gaps(record: Any) -> Iterator[float]:
    """Differences of log-probabilities anywhere in a record."""
    if isinstance(record, list):
        for entry in record:
            yield from _gaps(entry)
    elif isinstance(record, dict):
        if isinstance(record.get("logprobs"), list) and len(record["logprobs"]) == 2:
            yield record["logprobs"][0] - record["logprobs"][1]
        for value in record.values():
            yield from _gaps(value)
