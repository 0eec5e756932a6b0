"""Probabilities of given answers, read from the likeliest first tokens: all that most servers show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def candidate_scores(candidates: Sequence[str], top: Sequence[tuple[str, float]]) -> tuple[float, ...] | None:
    """Log-probability of each candidate, from the likeliest first tokens.

    Spaces round a token do not count: "A" and " A" are one answer, their probabilities added. A candidate that is not
    among the tokens gets the largest value that it can have: at most that of the least likely token shown, and at most
    what all tokens shown leave.

    Args:
        candidates: the answers to choose from.
        top: likeliest first tokens with their log-probabilities (natural).

    Returns:
        One natural log-probability a candidate. None where no candidate is among the tokens, or where a missing one may
        have begun in pieces: "c" is the first token of "cabin" as of any other word with c.

    Example:
        >>> candidate_scores(("A", "B"), [("A", -0.1), (" A", -4.0), ("The", -3.2)])
        (-0.0799..., -4.0)
    """
    masses = [_mass(candidate, top) for candidate in candidates]
    if not any(masses):
        return None
    tokens = [token for token, _ in top]
    logprobs = [p for _, p in top]
    # Rounding may leave nothing or less, which has no logarithm.
    left = max(1 - sum(map(math.exp, logprobs)), 1e-9)
    bound = min(*logprobs, math.log(left))
    scores = []
    for candidate, mass in zip(candidates, masses, strict=True):
        if mass:
            scores.append(math.log(mass))
        elif any(_begins(candidate, token) for token in tokens):
            return None
        else:
            scores.append(bound)
    return tuple(scores)


def _mass(candidate: str, top: Sequence[tuple[str, float]]) -> float:
    """Probability of the tokens that are a candidate, spaces aside."""
    return sum(math.exp(p) for token, p in top if token.strip() == candidate.strip())


def _begins(candidate: str, token: str) -> bool:
    """Whether a token is the beginning of a candidate, and not all of it."""
    whole = candidate.strip()
    piece = token.strip()
    return bool(piece) and piece != whole and whole.startswith(piece)


def logprob(value: Any) -> float:
    """A log-probability, no less than the -9999 that servers write for impossible tokens.

    Raises:
        ValueError: it is no number, or clearly above 0.
    """
    p = float(value)
    if not p <= 0.01:  # true of nan as well
        raise ValueError(f"{p} is no log-probability")
    return max(p, -9999.0)
