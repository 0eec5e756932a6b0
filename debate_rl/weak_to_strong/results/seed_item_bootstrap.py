"""Bootstrap over seeds and test items together, for means of several models and their differences and ratios.

Seeds and whole clusters of items are drawn with replacement (the pigeonhole bootstrap of Owen 2007, whose intervals err
on the wide side). The same draws serve all models, so noise that models share cancels in differences and ratios. The
tails allow for few seeds (Satterthwaite's degrees of freedom).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import BLOCK, RESAMPLES, Floats, Replicates, clusters, finite, resample, totals

Labels = Sequence[Hashable] | None


class Crossed:
    """Means of M models on resamples of S seeds and k clusters; resample 0 is the data themselves.

    Args:
        models: M tables (S, N), row s of each from the same run; or (N,) where one model serves all seeds.
        labels: (N,) clusters of the items; None takes items as independent.
        resamples: number of resamples.
        seed: seed of the draws.

    Raises:
        UserError: no items, undefined values, or shapes that do not match.
    """

    def __init__(
        self, models: Sequence[ArrayLike], labels: Labels = None, resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        tables = _tables(models)
        self.seeds, self.items = tables.shape[1:]
        self.codes = clusters(labels, self.items)
        self.clusters = int(self.codes.max()) + 1
        self.sizes = totals(self.codes, np.ones(self.items))
        sums = np.empty((*tables.shape[:2], self.clusters))
        for index in np.ndindex(*tables.shape[:2]):
            sums[index] = totals(self.codes, tables[index])
        # (M, S, k) sums over the items of each cluster: all that a resample of whole clusters needs.
        self.sums = sums
        self.by_seed, self.by_cluster = _draws(self.seeds, self.clusters, resamples, seed)
        resampled = np.stack([((self.by_cluster @ table.T) * self.by_seed).sum(axis=1) for table in sums])
        # Divided by the items drawn, which vary where clusters differ in size: (M, r + 1) means.
        self.means = resampled / (self.by_cluster @ self.sizes) / self.seeds

    def contrast(self, *weights: float) -> Replicates:
        """Weighted sum of the M means."""
        return self._replicates(np.asarray(weights) @ self.means, weights)

    def ratio(self, part: Sequence[float], gap: Sequence[float]) -> Replicates:
        """Ratio of two contrasts; a gap of 0 or less counts as an arbitrarily small one: infinite, signed as part."""
        top = np.asarray(part) @ self.means
        bottom = np.asarray(gap) @ self.means
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(bottom > 0, top / bottom, np.where(top == 0, 0.0, np.sign(top) * np.inf))
        # To first order the ratio varies as part - ratio * gap, whose degrees of freedom it therefore takes.
        return self._replicates(values, np.asarray(part) - values[0] * np.asarray(gap))

    def share(self, part: Sequence[float], whole: Sequence[float]) -> Replicates:
        """Share of one contrast in another that contains it, such as a count of some items; undefined where it is 0."""
        top = np.asarray(part) @ self.means
        bottom = np.asarray(whole) @ self.means
        values = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
        return self._replicates(values, np.asarray(part) - np.nan_to_num(values[0]) * np.asarray(whole))

    def auroc(self, model: int, p: Floats, truth: ArrayLike) -> Replicates:
        """Mean over seeds of the area under the ROC curve of a model's probabilities, (S, N), for truth 1.

        Args:
            model: index of the table of its `placements`, whose means vary as the areas do.
            p: (S, N) probabilities.
            truth: (N,) 1 or 0.
        """
        areas = np.empty((len(self.by_cluster), self.seeds))
        # In blocks of resamples, which bounds the memory for weights of every item.
        size = max(1, BLOCK // self.items)
        for start in range(0, len(areas), size):
            weights = self.by_cluster[start : start + size][:, self.codes]
            for seed, row in enumerate(p):
                areas[start : start + size, seed] = _areas(row, truth, weights)
        # `where`, as 0 times undefined is undefined: a seed that was not drawn must not make the mean so.
        drawn = np.where(self.by_seed > 0, areas * self.by_seed, 0.0).sum(axis=1) / self.seeds
        return self._replicates(drawn, np.eye(len(self.sums))[model])

    def _replicates(self, values: Floats, weights: ArrayLike) -> Replicates:
        return Replicates(float(values[0]), values[1:], self.items, self.clusters, self._freedom(np.asarray(weights)))

    def _freedom(self, weights: Floats) -> float | None:
        """Degrees of freedom (Satterthwaite) of a contrast; its variance adds those over seeds and over clusters."""
        if self.seeds == 1 or self.clusters == 1:
            return None
        sums = np.tensordot(weights, self.sums, axes=1)
        over_seeds = np.var(sums.sum(axis=1) / self.items, ddof=1) / self.seeds
        cluster_sums = sums.mean(axis=0)
        # From the sum that a cluster of this size would have at the overall mean.
        residuals = cluster_sums - cluster_sums.sum() / self.items * self.sizes
        over_clusters = np.var(residuals, ddof=1) * self.clusters / self.items**2
        total = over_seeds + over_clusters
        if total == 0:
            return None
        return float(total**2 / (over_seeds**2 / (self.seeds - 1) + over_clusters**2 / (self.clusters - 1)))


@lru_cache(maxsize=4)
def _draws(seeds: int, count: int, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """How often each seed, (r + 1, seeds), and each cluster, (r + 1, count), was drawn; the first row is all ones."""
    by_seed, by_cluster = np.random.SeedSequence(seed).spawn(2)
    return (
        np.concatenate([np.ones((1, seeds)), *resample(seeds, resamples, by_seed)]),
        np.concatenate([np.ones((1, count)), *resample(count, resamples, by_cluster)]),
    )


def _areas(p: Floats, truth: ArrayLike, weights: Floats) -> Floats:
    """Area under the ROC curve by each row of weights, (b, N) to (b,); ties count half, NaN without both classes.

    The rank statistic of Hanley and McNeil 1982, as `sklearn.metrics.roc_auc_score` with `sample_weight`, for all rows
    at once.
    """
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-1.0))  # of runs of equal probabilities
    true = np.asarray(truth, dtype=float)[order]
    weights = weights[:, order]
    above = weights * true
    below = weights * (1 - true)
    if len(starts) < len(p):  # slow, and only needed where probabilities tie
        above = np.add.reduceat(above, starts, axis=1)
        below = np.add.reduceat(below, starts, axis=1)
    passed = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return np.divide(passed, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def placements(p: Floats, truth: ArrayLike) -> Floats:
    """(S, N) numbers whose mean is the area under the ROC curve of (S, N) probabilities, and varies as it does.

    The value of an item of one class grows with the share of the other class that it is ranked correctly against
    (DeLong et al. 1988).
    """
    true = np.asarray(truth, dtype=float)
    positives = true.sum()
    negatives = (1 - true).sum()
    values = []
    for row in p:
        above_negatives = _share_below(row, row[true == 0])
        below_positives = 1 - _share_below(row, row[true == 1])
        area = above_negatives[true == 1].mean()
        influence = np.where(true == 1, (above_negatives - area) / positives, (below_positives - area) / negatives)
        # Scaled by N, so that the mean of the values varies as much as the area.
        values.append(area + influence * len(true))
    return np.array(values)


def _share_below(values: Floats, others: Floats) -> Floats:
    """Share of the others that are below each value; equal ones count half."""
    ordered = np.sort(others)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high) / 2 / len(others)


def _tables(models: Sequence[ArrayLike]) -> Floats:
    """Stack M tables (S, N) or (N,) into one (M, S, N)."""
    tables = [np.atleast_2d(np.asarray(model, dtype=float)) for model in models]
    for table in tables:
        finite(table.ravel(), "test items")
    try:
        return np.stack(np.broadcast_arrays(*tables))
    except ValueError as error:
        shapes = ", ".join(str(table.shape) for table in tables)
        raise UserError(f"models differ in (seeds, items): {shapes}; score all on the same seeds and items") from error
