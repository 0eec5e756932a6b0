"""Errors put into verdicts, labels or hits at a known rate; `inject` is the one place where errors are made.

- flip: p becomes 1 - p with probability `rate`, drawn by name and seed. A verdict that is wrong at one rate is wrong at
  every higher one, so that rates can be compared.
- mix: every p becomes (1 - rate) p + rate (1 - p), the mean of the flips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import Floats
from debate_rl.judges.scores import probabilities

Kind = Literal["flip", "mix"]


def inject(p: ArrayLike, names: Sequence[str], rate: float, kind: Kind = "flip", seed: int = 0) -> Floats:
    """Put errors into probabilities or labels.

    Args:
        p: (n,) probabilities, targets or hits; a wrong one becomes 1 - p.
        names: (n,) names that errors are drawn by; rows of one name are wrong together.
        rate: share of errors, 0 to 1.
        kind: flip or mix.
        seed: seed of the draws.

    Raises:
        UserError: a rate outside [0, 1], probabilities outside [0, 1], or another number of names.
    """
    values = probabilities(p)
    if not 0 <= rate <= 1:
        raise UserError(f"a rate of errors is a share between 0 and 1 (such as 0.1), not {rate:g}")
    if len(names) != len(values):
        raise UserError(f"{len(names)} names for {len(values)} verdicts; give one each")
    if kind == "mix":
        return (1 - rate) * values + rate * (1 - values)
    drawn = np.array([uniform(name, seed) for name in names])
    return np.where(drawn < rate, 1 - values, values)


def uniform(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on name and seed alone, by which errors are drawn."""
    # A hash, not a random generator: the draw of a row must not depend on which other rows there are.
    digest = hashlib.sha256(f"judge error\x00{seed}\x00{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
