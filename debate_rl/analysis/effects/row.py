"""Rows of the table of effects; most are a mean over the games of all seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record

Unit = Literal["%", "points", "Elo", "words", "Brier", "ECE", "PGR", "points per 100 Elo"]
DIGITS: dict[Unit, int] = {
    "%": 1,
    "points": 1,
    "Elo": 0,
    "words": 1,
    "Brier": 3,
    "ECE": 3,
    "PGR": 2,
    "points per 100 Elo": 1,
}
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
    """Value of each seed alone; None where the seed has no such measurement."""
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
        value = self._rounded(self.estimate.value)
        if self.estimate.low is None:
            return f"{value} [no interval]"
        return f"{value} [{self._rounded(self.estimate.low)}, {self._rounded(self.estimate.high)}]"

    @property
    def by_seed(self) -> tuple[str, ...]:
        """The seeds' values, rounded for the unit."""
        return tuple(self._rounded(value) for value in self.seeds)

    def _rounded(self, value: float | None) -> str:
        """A number rounded for the unit; a dash for None."""
        if value is None:
            return "-"
        # Adding 0.0 turns -0.0 into 0.0, so that no minus stands before a zero.
        return f"{round(value, self.digits) + 0.0:.{self.digits}f}"


class Scored(NamedTuple):
    """A number of one game or speech, and its cluster."""

    value: float
    cluster: str


Scores = Mapping[Key, Scored]
"""Scores by what they are of, such as a question."""


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
    low, high = None, None
    if estimate.low is not None and estimate.high is not None:
        low, high = sorted((estimate.low * factor, estimate.high * factor))
    return Estimate(
        value=estimate.value * factor,
        low=low,
        high=high,
        n=estimate.n,
        clusters=estimate.clusters,
        level=estimate.level,
    )


def mean_rows(
    group: str, name: str, unit: Unit, seeds: Sequence[Sequence[Scored]], claim: int = 0, note: str = ""
) -> list[EffectRow]:
    """The row of a mean, over the games of all seeds and for each seed alone; no row if there are no games.

    Args:
        group: group of the row.
        name: name of the row.
        unit: unit of the row; shares become % or points.
        seeds: by seed, the numbers to average.
        claim: see `shown`.
        note: note of the row.
    """
    factor = 100 if unit in ("%", "points") else 1
    every = list(chain.from_iterable(seeds))
    if not every:
        return []
    estimate = mean([factor * score.value for score in every], [score.cluster for score in every])
    by_seed: list[float | None] = []
    for scores in seeds:
        by_seed.append(factor * sum(score.value for score in scores) / len(scores) if scores else None)
    row = EffectRow(
        group=group,
        name=name,
        estimate=estimate,
        seeds=tuple(by_seed),
        unit=unit,
        shown=shown(estimate, claim),
        note=note,
    )
    return [row]


def paired(first: Scores[Key], second: Scores[Key]) -> list[Scored]:
    """First - second, for every key that both have."""
    return [Scored(score.value - second[key].value, score.cluster) for key, score in first.items() if key in second]
