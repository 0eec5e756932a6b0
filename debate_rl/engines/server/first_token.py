"""Probabilities of given answers from the likeliest first tokens, which is all that most servers show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def candidate_scores(candidates: Sequence[str], top: Sequence[tuple[str, float]]) -> tuple[float, ...] | None:
    """Log-probability of each candidate from the likeliest first tokens; None where they do not tell.

    They do not where no candidate is among them, and where one that is not may have begun in pieces: "c" is the first
    token of "cabin" as of any other word with c.

    Spaces round a token do not count ("A" and " A" are one answer, their probabilities added). A candidate that is not
    among the tokens gets the largest value that it can have: no more than the least likely token shown, and no more
    than what all tokens shown leave.

    Example:
        >>> candidate_scores(("A", "B"), [("A", -0.1), (" A", -4.0), ("The", -3.2)])
        (-0.0799..., -4.0)
    """
    if not top:
        return None
    mass = {
        candidate: sum(math.exp(p) for token, p in top if token.strip() == candidate.strip())
        for candidate in candidates
    }
    if not any(mass.values()):
        return None
    if any(_begun(candidate, token) for candidate in candidates if not mass[candidate] for token, _ in top):
        return None
    left = max(1 - sum(math.exp(p) for _, p in top), 1e-9)
    bound = min(min(p for _, p in top), math.log(left))
    return tuple(math.log(mass[candidate]) if mass[candidate] else bound for candidate in candidates)


def _begun(candidate: str, token: str) -> bool:
    """Whether a token is the beginning of a candidate, and not all of it."""
    whole, piece = candidate.strip(), token.strip()
    return bool(piece) and piece != whole and whole.startswith(piece)


def logprob(value: Any) -> float:
    """A log-probability, no less than the -9999 that servers write for impossible tokens.

    Raises:
        ValueError: it is no number, or clearly above 0.
    """
    p = float(value)
    if not p <= 0.01:
        raise ValueError(f"{p} is no log-probability")
    return max(p, -9999.0)
