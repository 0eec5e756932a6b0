"""One line of the table of effects, and the commonest way to it: a mean over the games of all seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record

Unit = Literal["%", "points", "Elo", "words", "Brier", "ECE", "PGR", "points per 100 Elo"]
DIGITS: dict[Unit, int] = {
    "%": 1, "points": 1, "Elo": 0, "words": 1, "Brier": 3, "ECE": 3, "PGR": 2, "points per 100 Elo": 1,
}  # fmt: skip
"""Decimals that are shown."""
Key = TypeVar("Key", bound=Hashable)


class EffectRow(Record):
    """An effect over all seeds of a study.

    Example:
        EffectRow(group="skill", name="sft over base, Elo", estimate=Estimate(value=214.0, low=171.2, high=259.8, ...),
                  seeds=(201.3, 229.0, 212.4), unit="Elo", shown="yes")
    """

    group: str
    name: str
    estimate: Estimate | None
    """Over all seeds, clustered by story; None where it is undefined, which the note explains."""
    seeds: tuple[float | None, ...]
    """Of each seed alone; None where that seed has no such measurement."""
    unit: Unit
    shown: Literal["yes", "no", "-"] = "-"
    """Whether the whole interval lies on the claimed side of 0; "-" where nothing is claimed."""
    note: str = ""

    @property
    def digits(self) -> int:
        """Decimals that are shown."""
        return DIGITS[self.unit]

    @property
    def text(self) -> str:
        """Value and interval, rounded for the unit."""
        if self.estimate is None:
            return "undefined"
        ends = [self._rounded(end) for end in (self.estimate.low, self.estimate.high)]
        interval = "[no interval]" if self.estimate.low is None else f"[{', '.join(ends)}]"
        return f"{self._rounded(self.estimate.value)} {interval}"

    @property
    def by_seed(self) -> tuple[str, ...]:
        """The seeds' values, rounded for the unit."""
        return tuple(self._rounded(value) for value in self.seeds)

    def _rounded(self, value: float | None) -> str:
        """A number for the unit; a dash for none, and no minus before a zero."""
        return "-" if value is None else f"{round(value, self.digits) + 0.0:.{self.digits}f}"


class Scored(NamedTuple):
    """A number of one game or speech, and its cluster."""

    value: float
    cluster: str


Scores = Mapping[Key, Scored]
"""By what it is a score of, such as the question."""


def shown(estimate: Estimate | None, claim: int) -> Literal["yes", "no", "-"]:
    """Whether an interval lies on the claimed side of 0.

    Args:
        estimate: with its interval.
        claim: 1 for above 0, -1 for below, 0 where nothing is claimed.
    """
    if claim == 0:
        return "-"
    if estimate is None or estimate.low is None or estimate.high is None:
        return "no"
    return "yes" if min(claim * estimate.low, claim * estimate.high) > 0 else "no"


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in another unit; a factor of -1 turns a difference round."""
    ends = sorted(end * factor for end in (estimate.low, estimate.high) if end is not None)
    low, high = ends if ends else (None, None)
    return Estimate(
        value=estimate.value * factor, low=low, high=high, n=estimate.n, clusters=estimate.clusters,
        level=estimate.level,
    )  # fmt: skip


def mean_rows(
    group: str, name: str, unit: Unit, seeds: Sequence[Sequence[Scored]], claim: int = 0, note: str = ""
) -> list[EffectRow]:
    """The row of a mean: over the games of all seeds, and of each seed alone; no row where there are no games.

    Args:
        group: of the row.
        name: of the row.
        unit: shares become % or points.
        seeds: by seed, what is averaged.
        claim: see `shown`.
        note: of the row.
    """
    factor = 100 if unit in ("%", "points") else 1
    every = [one for found in seeds for one in found]
    if not every:
        return []
    estimate = mean([factor * one.value for one in every], [one.cluster for one in every])
    values = tuple(factor * sum(one.value for one in found) / len(found) if found else None for found in seeds)
    return [
        EffectRow(
            group=group, name=name, estimate=estimate, seeds=values, unit=unit, shown=shown(estimate, claim), note=note
        )
    ]


def paired(first: Scores[Key], second: Scores[Key]) -> list[Scored]:
    """First - second of what both have."""
    return [Scored(one.value - second[key].value, one.cluster) for key, one in first.items() if key in second]
