"""How many rows of each source go into a mix."""

from __future__ import annotations

import math
from collections.abc import Mapping

from debate_rl.errors import UserError


def counts(shares: Mapping[str, float], there: Mapping[str, int], total: int | None = None) -> dict[str, int]:
    """Divide a number of rows among sources by their shares; no row is taken twice.

    Args:
        shares: share of each source, relative to the others; counts will do as well.
        there: number of rows of each source.
        total: rows of the mix; None takes as many as the scarcest source allows.

    Example (the SFT mix of Arnesen et al. 2024):
        >>> counts({"human": 564, "gpt": 2010, "alpaca": 1716}, {"human": 600, "gpt": 2010, "alpaca": 52002})
        {'human': 564, 'gpt': 2010, 'alpaca': 1716}

    Raises:
        UserError: a source has too few rows for its share; names it, and the largest total that it allows.
    """
    whole = sum(shares.values())
    scarcest = min(shares, key=lambda name: there[name] / shares[name])
    # A rounding error of the division must not cost a row.
    most = math.floor(there[scarcest] / shares[scarcest] * whole + 1e-9)
    if total is None:
        total = most
    if total > most or total == 0:
        raise UserError(
            f"mix: {scarcest!r} has {there[scarcest]} rows for its share of {shares[scarcest] / whole:.1%}, "
            f"which allows a mix of {most} rows; lower its share or 'rows', or leave it out"
        )
    exact = {name: total * share / whole for name, share in shares.items()}
    rows = {name: min(math.floor(value + 1e-9), there[name]) for name, value in exact.items()}
    # Rows lost to rounding down go to the sources that lost most (largest remainder).
    by_remainder = sorted(exact, key=lambda name: rows[name] - exact[name])
    for name in by_remainder[: total - sum(rows.values())]:
        rows[name] += 1
    return rows
