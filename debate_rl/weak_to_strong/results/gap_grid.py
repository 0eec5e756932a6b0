"""Signs that transfer goes wrong over sizes of supervisor and student, and how far apart both are in compute.

The gap of a column is the compute of its ceiling over that of its weak model, in orders of magnitude, by the rule of
six operations a parameter and token read (6ND; Kaplan et al. 2020, 2001.08361). Tokens of pretraining count where both
models' folders say how many there were (training.json, as of the lab's); else those of the trainings on labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from debate_rl.records import Record

if TYPE_CHECKING:
    from debate_rl.weak_to_strong.results.results import MethodResult
    from debate_rl.weak_to_strong.results.tables import Column, Table

COPIES = 0.5
"""Share of its supervisor's errors above which a student imitates too much (ours)."""
UNCHANGED = 0.01
"""Spread of agreement over a grid below which it does not change (ours)."""


class Compute(Record):
    """Operations of the trainings of one column, 6ND.

    Example:
        Compute(weak=1.2e12, strong=9.8e12)
    """

    weak: float
    """Of the weak model on D1's ground truth."""
    strong: float
    """Of the strong model on D2's, the ceiling."""

    @property
    def gap(self) -> float:
        """Orders of magnitude between both."""
        return math.log10(self.strong / self.weak)


def by_gap(table: Table) -> list[Column]:
    """The columns whose compute is known, those with the smallest gap first."""
    known = [(column.compute.gap, column) for column in table.columns if column.compute is not None]
    return [column for _, column in sorted(known, key=lambda entry: entry[0])]


def alarms(table: Table) -> list[str]:
    """What of a grid should be looked at before it is believed; none where columns are of the same models."""
    if not table.grid:
        return []
    found = []
    for name in table.methods:
        methods = []
        for column in table.columns:
            method = _of(column, name)
            if method is not None:
                methods.append(method)
                found += _copies(column, method)
        found += _falls(name, table)
        found += _never_changes(name, methods)
    return found


def _of(column: Column, name: str) -> MethodResult | None:
    """A method's results in a column."""
    return next((method for method in column.results.methods if method.name == name), None)


def _copies(column: Column, method: MethodResult) -> list[str]:
    """Over-imitation: the whole interval of copied errors lies above the limit."""
    wrong = None if method.agreement is None else method.agreement.wrong
    if wrong is None or wrong.low is None or wrong.low <= COPIES:
        return []
    who = f"the student of {method.name} copies {wrong:.2f} of its supervisor's errors"
    return [f"{column.label}: over-imitation: {who}"]


def _falls(name: str, table: Table) -> list[str]:
    """PGR at the largest gap below that at the smallest one, beyond both intervals."""
    ends = []
    for column in by_gap(table):
        method = _of(column, name)
        if method is not None and method.pgr.pgr is not None and method.pgr.pgr.low is not None:
            ends.append((column, method.pgr.pgr))
    if len(ends) < 2:
        return []
    (near, first), (far, last) = ends[0], ends[-1]
    if last.high is None or first.low is None or last.high >= first.low:
        return []
    return [f"PGR falls with the gap: {name} recovers {first:.2f} at {near.label} and {last:.2f} at {far.label}"]


def _never_changes(name: str, methods: Sequence[MethodResult]) -> list[str]:
    """Agreement that is the same whatever the sizes: the labels are copied, or play no part."""
    shares = []
    for method in methods:
        if method.agreement is not None and method.agreement.right is not None and method.agreement.wrong is not None:
            shares.append((method.agreement.right.value, method.agreement.wrong.value))
    if len(shares) < 3:
        return []
    for side in zip(*shares, strict=True):
        if max(side) - min(side) > UNCHANGED:
            return []
    right, wrong = shares[0]
    return [
        f"agreement never changes: students of {name} agree with their supervisors on {right:.2f} of what these get "
        f"right and {wrong:.2f} of their errors in all {len(shares)} columns"
    ]
