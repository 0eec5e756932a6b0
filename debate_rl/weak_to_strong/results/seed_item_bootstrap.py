"""Numbers of several models over seeds and test items, and their resamples: seeds and items are drawn together.

Each is drawn with replacement (the pigeonhole bootstrap of Owen 2007, which errs to the wide side), whole clusters of
items at a time, and the same draws serve all models, so what seeds and items share cancels in differences and ratios.
The tails allow for few seeds (Satterthwaite's degrees of freedom).
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
    """Means of M models on resamples of S seeds and k clusters, the data first.

    Args:
        models: M tables (S, N), row s of each from the same run; or (N,) where one model serves all seeds.
        labels: (N,) clusters of the items; None takes items as independent.
        resamples: of seeds and clusters.
        seed: of the draws.

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
        # (M, S, k): what the items of each cluster sum to.
        self.sums = np.stack([[totals(self.codes, row) for row in table] for table in tables])
        self.by_seed, self.by_cluster = _draws(self.seeds, self.clusters, resamples, seed)
        sums = np.stack([((self.by_cluster @ sums.T) * self.by_seed).sum(axis=1) for sums in self.sums])
        self.means = sums / (self.by_cluster @ self.sizes) / self.seeds

    def contrast(self, *weights: float) -> Replicates:
        """A weighted sum of the M means."""
        return self._replicates(np.asarray(weights) @ self.means, weights)

    def ratio(self, part: Sequence[float], gap: Sequence[float]) -> Replicates:
        """One contrast over another. A gap of 0 or less counts as the limit of small ones: infinite, signed as part."""
        top, bottom = np.asarray(part) @ self.means, np.asarray(gap) @ self.means
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(bottom > 0, top / bottom, np.where(top == 0, 0.0, np.sign(top) * np.inf))
        # The ratio varies as part - ratio gap does, to first order.
        return self._replicates(values, np.asarray(part) - values[0] * np.asarray(gap))

    def share(self, part: Sequence[float], whole: Sequence[float]) -> Replicates:
        """One contrast over another that holds it, such as a count of some; undefined where there are none."""
        top, bottom = np.asarray(part) @ self.means, np.asarray(whole) @ self.means
        values = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
        return self._replicates(values, np.asarray(part) - np.nan_to_num(values[0]) * np.asarray(whole))

    def auroc(self, model: int, p: Floats, truth: ArrayLike) -> Replicates:
        """Mean over seeds of the area under the ROC curve of a model's probabilities, (S, N), for truth 1.

        Args:
            model: place of its placements (`placements`), whose means vary as the areas do.
            p: probabilities.
            truth: (N,).
        """
        found = np.empty((len(self.by_cluster), self.seeds))
        size = max(1, BLOCK // self.items)
        for start in range(0, len(found), size):
            weights = self.by_cluster[start : start + size][:, self.codes]
            for seed, row in enumerate(p):
                found[start : start + size, seed] = _areas(row, truth, weights)
        # Zero times undefined: a seed that was not drawn says nothing.
        drawn = np.where(self.by_seed > 0, found * self.by_seed, 0.0).sum(axis=1) / self.seeds
        return self._replicates(drawn, np.eye(len(self.sums))[model])

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


@lru_cache(maxsize=4)
def _draws(seeds: int, count: int, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """How often each seed, (r + 1, seeds), and each cluster, (r + 1, count), was drawn; in the first row once."""
    by_seed, by_cluster = np.random.SeedSequence(seed).spawn(2)
    return (
        np.concatenate([np.ones((1, seeds)), *resample(seeds, resamples, by_seed)]),
        np.concatenate([np.ones((1, count)), *resample(count, resamples, by_cluster)]),
    )


def _areas(p: Floats, truth: ArrayLike, weights: Floats) -> Floats:
    """Area under the ROC curve under each row of weights, (b, N) to (b,): ties count half; NaN without both classes.

    The rank statistic of Hanley and McNeil 1982, as `sklearn.metrics.roc_auc_score` with `sample_weight`, for all rows
    at once.
    """
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.diff(p[order], prepend=-1.0))  # of runs of equal probabilities
    true, weights = np.asarray(truth, dtype=float)[order], weights[:, order]
    above, below = weights * true, weights * (1 - true)
    if len(starts) < len(p):  # slow, and seldom needed
        above, below = np.add.reduceat(above, starts, axis=1), np.add.reduceat(below, starts, axis=1)
    passed = (above * (below.cumsum(axis=1) - below / 2)).sum(axis=1)
    pairs = above.sum(axis=1) * below.sum(axis=1)
    return np.divide(passed, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def placements(p: Floats, truth: ArrayLike) -> Floats:
    """(S, N) numbers whose mean is the area under the ROC curve of (S, N) probabilities, and varies as it does.

    An item of one class counts by the share of the other that it stands on the right side of (DeLong et al. 1988).
    """
    true = np.asarray(truth, dtype=float)
    ups, downs = true.sum(), (1 - true).sum()
    found = []
    for row in p:
        low, high = (np.searchsorted(np.sort(row[true == 0]), row, side=side) for side in ("left", "right"))
        beats = (low + high) / 2 / downs
        low, high = (np.searchsorted(np.sort(row[true == 1]), row, side=side) for side in ("left", "right"))
        beaten = 1 - (low + high) / 2 / ups
        area = beats[true == 1].mean()
        found.append(area + np.where(true == 1, (beats - area) / ups, (beaten - area) / downs) * len(true))
    return np.array(found)


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
