"""Performance gap recovered: PGR = (w2s - weak) / (ceiling - weak) (Burns et al. 2023, section 3).

weak is the weak model's accuracy, w2s that of the strong student trained on its labels, ceiling that of the strong
model trained on ground truth, all on the same test items. Seeds and items are resampled together, each with
replacement (the pigeonhole bootstrap of Owen 2007, which errs to the wide side), and the same draws serve all three
accuracies, so what seeds and items share cancels. The tails allow for few seeds (Satterthwaite's degrees of freedom). A
ratio whose denominator may be 0 says nothing: where the interval of the gap is not above 0, PGR is undefined and
printed so.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import (
    LEVEL,
    RESAMPLES,
    Effect,
    Estimate,
    Floats,
    Replicates,
    clusters,
    finite,
    resample,
    totals,
)
from debate_rl.records import Record

Labels = Sequence[Hashable] | None


class Recovered(Record):
    """How much of the gap a student recovered.

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
    """None where the interval of the gap is not above 0, or where there is no interval to tell."""
    seeds: int
    """Seeds resampled; with 1 the intervals hold for that training run only."""

    def __str__(self) -> str:
        """One line: accuracies and PGR, or why there is none."""
        accuracies = f"weak {self.weak.value:.3f}  student {self.student.value:.3f}  ceiling {self.ceiling.value:.3f}"
        if self.pgr is None:
            return f"{accuracies}  PGR undefined: the gap {self.gap:.3f} is not above 0"
        seeds = "1 seed: training noise not included" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{accuracies}  PGR {self.pgr:.3f} ({seeds})"


class PgrDifference(Record):
    """How much more of the gap one method recovers than another, on the same seeds and items.

    Example:
        PgrDifference(accuracy=Effect(value=.008, ...), pgr=Effect(value=.235, low=-.05, high=.51, ..., p=.11), seeds=5)
    """

    accuracy: Effect
    """First student - second student."""
    pgr: Effect | None
    """First PGR - second PGR; None where the gap is not above 0."""
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
    """Measure PGR with intervals over seeds and test items.

    Args:
        weak: (S, N) right (1) or wrong (0) by seed and test item, row s from the same run as row s of the others; or
            (N,) where one model serves all seeds.
        student: (S, N) or (N,), the same.
        ceiling: (S, N) or (N,), the same.
        labels: (N,) clusters of the items; None takes items as independent.
        level: coverage of the intervals.
        resamples: of seeds and clusters.
        seed: of the draws.

    Raises:
        UserError: no items, undefined values, or shapes that do not match.
    """
    sample = _Sample([weak, student, ceiling], labels, resamples, seed)
    gap = sample.contrast(-1, 0, 1).effect(level)
    return Recovered(
        weak=sample.contrast(1, 0, 0).estimate(level),
        student=sample.contrast(0, 1, 0).estimate(level),
        ceiling=sample.contrast(0, 0, 1).estimate(level),
        gap=gap,
        pgr=sample.ratio((-1, 1, 0), (-1, 0, 1)).estimate(level) if _above_zero(gap) else None,
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
    sample = _Sample([weak, first, second, ceiling], labels, resamples, seed)
    defined = _above_zero(sample.contrast(-1, 0, 0, 1).effect(level))
    return PgrDifference(
        accuracy=sample.contrast(0, 1, -1, 0).effect(level),
        pgr=sample.ratio((0, 1, -1, 0), (-1, 0, 0, 1)).effect(level) if defined else None,
        seeds=sample.seeds,
    )


class _Sample:
    """Accuracies of M models on resamples of S seeds and k clusters, the data first."""

    def __init__(self, models: Sequence[ArrayLike], labels: Labels, resamples: int, seed: int) -> None:
        tables = _tables(models)
        self.seeds, self.items = tables.shape[1:]
        codes = clusters(labels, self.items)
        self.clusters = int(codes.max()) + 1
        self.sizes = totals(codes, np.ones(self.items))
        # (M, S, k): how many items of each cluster are right.
        self.sums = np.stack([[totals(codes, row) for row in table] for table in tables])
        by_seed, by_cluster = np.random.SeedSequence(seed).spawn(2)
        seeds = np.concatenate([np.ones((1, self.seeds)), *resample(self.seeds, resamples, by_seed)])
        drawn = np.concatenate([np.ones((1, self.clusters)), *resample(self.clusters, resamples, by_cluster)])
        right = np.stack([np.einsum("rk,rk->r", seeds @ sums, drawn) for sums in self.sums])
        self.accuracies = right / (drawn @ self.sizes) / self.seeds

    def contrast(self, *weights: float) -> Replicates:
        """A weighted sum of the M accuracies."""
        return self._replicates(np.asarray(weights) @ self.accuracies, weights)

    def ratio(self, part: Sequence[float], gap: Sequence[float]) -> Replicates:
        """One contrast over another. A gap of 0 or less counts as the limit of small ones: infinite, signed as part."""
        top, bottom = np.asarray(part) @ self.accuracies, np.asarray(gap) @ self.accuracies
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(bottom > 0, top / bottom, np.where(top == 0, 0.0, np.sign(top) * np.inf))
        # The ratio varies as part - ratio gap does, to first order.
        return self._replicates(values, np.asarray(part) - values[0] * np.asarray(gap))

    def _replicates(self, values: Floats, weights: ArrayLike) -> Replicates:
        return Replicates(float(values[0]), values[1:], self.items, self.clusters, self._freedom(np.asarray(weights)))

    def _freedom(self, weights: Floats) -> float | None:
        """Degrees of freedom (Satterthwaite) of a contrast; its variance is that over seeds plus that over clusters."""
        if self.seeds == 1 or self.clusters == 1:
            return None
        sums = np.tensordot(weights, self.sums, axes=1)
        over_seeds = np.var(sums.sum(axis=1) / self.items, ddof=1) / self.seeds
        residuals = sums.mean(axis=0) - sums.mean(axis=0).sum() / self.items * self.sizes
        over_clusters = np.var(residuals, ddof=1) * self.clusters / self.items**2
        total = over_seeds + over_clusters
        if total == 0:
            return None
        return float(total**2 / (over_seeds**2 / (self.seeds - 1) + over_clusters**2 / (self.clusters - 1)))


def _tables(models: Sequence[ArrayLike]) -> Floats:
    """Bring M tables (S, N) or (N,) to one (M, S, N)."""
    tables = [np.atleast_2d(np.asarray(model, dtype=float)) for model in models]
    for table in tables:
        finite(table.ravel(), "test items")
    try:
        return np.stack(np.broadcast_arrays(*tables))
    except ValueError as error:
        shapes = ", ".join(str(table.shape) for table in tables)
        raise UserError(f"models differ in (seeds, items): {shapes}; score all on the same seeds and items") from error


def _above_zero(gap: Effect) -> bool:
    return gap.low is not None and gap.low > 0
