"""Cohen's kappa: how often two judges decide alike, beyond what their habits alone would give (Cohen 1960)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from debate_rl.errors import UserError
from debate_rl.intervals import Estimate, Floats, bootstrap_totals


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], labels: Sequence[Hashable] | None = None
) -> Estimate | None:
    """Kappa = (observed agreement - expected agreement) / (1 - expected agreement), with an interval over clusters.

    Args:
        first: (n,) decisions of one judge.
        second: (n,) decisions of the other judge on the same games.
        labels: (n,) clusters.

    Returns:
        The estimate; None where kappa is undefined, since both judges always decide the same.

    Raises:
        UserError: no decisions, or lengths that differ.
    """
    if len(first) != len(second):
        raise UserError(f"{len(first)} and {len(second)} decisions; kappa compares two judges on the same games")
    names = [str(decision) for decision in (*first, *second)]
    kinds, codes = np.unique(names, return_inverse=True)
    member = np.eye(len(kinds))[codes]
    one, two = member[: len(first)], member[len(first) :]
    # All that kappa needs are counts: of games, of equal decisions, and of each judge's decisions of each kind.
    agree = (one * two).sum(axis=1)
    table = np.column_stack([np.ones(len(first)), agree, one, two])

    def kappa(sums: Floats) -> Floats:
        n, observed = sums[:, 0], sums[:, 1] / sums[:, 0]
        by_first, by_second = np.split(sums[:, 2:] / n[:, None], 2, axis=1)
        expected = (by_first * by_second).sum(axis=1)
        undefined = np.full(len(sums), np.nan)
        return np.divide(observed - expected, 1 - expected, out=undefined, where=expected < 1 - 1e-12)

    replicates = bootstrap_totals(kappa, table, labels)
    return None if np.isnan(replicates.value) else replicates.estimate()
