"""Performance gap recovered: PGR = (w2s - weak) / (ceiling - weak) (Burns et al. 2023, section 3).

weak is the accuracy of the weak model, w2s that of the strong student trained on its labels, ceiling that of the strong
model trained on ground truth, all on the same test items. Seeds and items are resampled together
(`seed_item_bootstrap`), with the same draws for all three accuracies. A ratio whose denominator may be 0 says nothing:
where the interval of the gap is not above 0, PGR is undefined and printed as such.
"""

from __future__ import annotations

from typing import TypeVar

from numpy.typing import ArrayLike

from debate_rl.intervals import LEVEL, RESAMPLES, Effect, Estimate
from debate_rl.records import Record
from debate_rl.weak_to_strong.results.seed_item_bootstrap import Crossed, Labels

E = TypeVar("E", bound=Estimate)


class Recovered(Record):
    """Share of the gap that a student recovered.

    Example:
        Recovered(weak=Estimate(value=.900, ...), student=Estimate(value=.926, ...), ceiling=Estimate(value=.934, ...),
                  gap=Effect(value=.034, low=.021, ...), pgr=Estimate(value=.765, low=.41, high=1.13, ...), seeds=5)
    """

    weak: Estimate
    student: Estimate
    ceiling: Estimate
    gap: Effect
    """ceiling - weak."""
    pgr: Estimate | None
    """None where the interval of the gap is not above 0, or so near it that the ratio's own interval is infinite."""
    seeds: int
    """Number of seeds resampled; with 1 the intervals hold for that training run only."""

    @property
    def text(self) -> str:
        """PGR with its interval, or why there is none."""
        if self.pgr is not None:
            return f"{self.pgr:.3f}"
        reason = "is too near" if above_zero(self.gap) else "is not above"
        return f"undefined: the gap {self.gap:.3f} {reason} 0"

    def __str__(self) -> str:
        """One line: accuracies and PGR, or why there is none."""
        accuracies = f"weak {self.weak.value:.3f}  student {self.student.value:.3f}  ceiling {self.ceiling.value:.3f}"
        if self.pgr is None:
            return f"{accuracies}  PGR {self.text}"
        seeds = "1 seed: training noise not included" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{accuracies}  PGR {self.pgr:.3f} ({seeds})"


class PgrDifference(Record):
    """Difference in the gap that two methods recover, on the same seeds and items.

    Example:
        PgrDifference(accuracy=Effect(value=.008, ...), pgr=Effect(value=.235, low=-.05, high=.51, ..., p=.11), seeds=5)
    """

    accuracy: Effect
    """First student - second student."""
    pgr: Effect | None
    """First PGR - second PGR; None where the gap is not above 0, or too near it."""
    seeds: int

    def __str__(self) -> str:
        """One line: both differences."""
        pgr = "undefined: the gap is not above 0" if self.pgr is None else f"{self.pgr:.3f}"
        return f"accuracy {self.accuracy:+.3f}  PGR difference {pgr}"


def pgr(weak: float, student: float, ceiling: float) -> float:
    """PGR of three accuracies; NaN where ceiling equals weak."""
    return (student - weak) / (ceiling - weak) if ceiling != weak else float("nan")


def recovered(
    weak: ArrayLike,
    student: ArrayLike,
    ceiling: ArrayLike,
    labels: Labels = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Recovered:
    """Compute PGR with intervals over seeds and test items.

    Args:
        weak: (S, N) right (1) or wrong (0) by seed and test item, row s from the same run as row s of the others; or
            (N,) where one model serves all seeds.
        student: (S, N) or (N,), the same.
        ceiling: (S, N) or (N,), the same.
        labels: (N,) clusters of the items; None takes items as independent.
        level: coverage of the intervals.
        resamples: number of resamples of seeds and clusters.
        seed: seed of the draws.

    Raises:
        UserError: no items, undefined values, or shapes that do not match.
    """
    sample = Crossed([weak, student, ceiling], labels, resamples, seed)
    gap = sample.contrast(-1, 0, 1).effect(level)
    # A ratio with a denominator that may be 0 can take any value, so a number here would mislead.
    ratio = None
    if above_zero(gap):
        ratio = _bounded(sample.ratio((-1, 1, 0), (-1, 0, 1)).estimate(level))
    return Recovered(
        weak=sample.contrast(1, 0, 0).estimate(level),
        student=sample.contrast(0, 1, 0).estimate(level),
        ceiling=sample.contrast(0, 0, 1).estimate(level),
        gap=gap,
        pgr=ratio,
        seeds=sample.seeds,
    )


def compare_pgr(
    weak: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    ceiling: ArrayLike,
    labels: Labels = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PgrDifference:
    """Compare two methods that share the weak model, ceiling, seeds and items; arguments as `recovered`.

    Raises:
        UserError: no items, undefined values, or shapes that do not match.
    """
    sample = Crossed([weak, first, second, ceiling], labels, resamples, seed)
    ratio = None
    if above_zero(sample.contrast(-1, 0, 0, 1).effect(level)):
        # Both ratios have the same denominator, so their difference is one ratio on the same draws.
        ratio = _bounded(sample.ratio((0, 1, -1, 0), (-1, 0, 0, 1)).effect(level))
    return PgrDifference(
        accuracy=sample.contrast(0, 1, -1, 0).effect(level),
        pgr=ratio,
        seeds=sample.seeds,
    )


def above_zero(effect: Effect) -> bool:
    """Whether the whole interval of an effect is above 0."""
    return effect.low is not None and effect.low > 0


def _bounded(ratio: E) -> E | None:
    """The ratio; None where its interval is infinite because too many resamples have no gap."""
    return None if ratio.low is None else ratio
