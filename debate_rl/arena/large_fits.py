"""Bradley-Terry fits of many players: Newton's method whose steps come from conjugate gradients, for many fits at once.

A dense step costs the cube of the number of players, for every resample: 5 billion operations with 2,000. Here one
dense matrix is inverted, the curvature of the fit to all matches; a resample's curvature differs from it so little that
some ten products of sparse matrices solve for its step.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit

from debate_rl.intervals import Floats

_STEPS = 200
_LOOSEST, _TIGHTEST = 0.1, 1e-6
"""How exactly a step is solved for, relative to its length: as the fit comes near, the more exactly."""


class LargeFits:
    """Fits to data sets that share a design and differ in their weights.

    Args:
        design: (C, P + Q) with z = design @ [theta, beta].
        players: P; their strengths sum to 0.
        ridge: of the penalty, above 0.
        start: (P + Q,) the fit to all matches.
        played: (C,) weight of all matches.
    """

    def __init__(self, design: csr_array, players: int, ridge: float, start: Floats, played: Floats) -> None:
        self._design, self._back = design, design.T.tocsr()
        self._players, self._ridge, self._start = players, ridge, start
        chance = expit(design @ start)
        weighted = design.multiply((played * chance * (1 - chance))[:, None]).tocsr()
        curvature = (self._back @ weighted).toarray() + ridge * np.eye(design.shape[1])
        curvature[:players, :players] += 1.0  # pins the mean, which the outcomes say nothing about
        self._inverse = np.linalg.inv(curvature)

    def fit(self, played: Floats, won: Floats) -> Floats | None:
        """Fit b data sets.

        Args:
            played: (b, C) weight of matches.
            won: (b, C) what the first player won.

        Returns:
            (b, P + Q) parameters, or None where they did not settle.
        """
        # Columns are data sets: sparse products then run along rows that lie together in memory.
        played, won = np.ascontiguousarray(played.T), np.ascontiguousarray(won.T)
        theta = np.repeat(self._start[:, None], played.shape[1], axis=1)
        longest = 1.0
        for _ in range(_STEPS):
            chance = expit(self._design @ theta)
            gradient = self._back @ (played * chance - won) + self._ridge * theta
            step = self._step(played * chance * (1 - chance), gradient, float(np.clip(longest, _TIGHTEST, _LOOSEST)))
            reach = np.abs(self._design @ step).max(axis=0)
            theta -= step / np.maximum(1, reach)
            longest = float(reach.max())
            if longest < 1e-9:
                return theta.T
        return None

    def _step(self, weights: Floats, gradient: Floats, tolerance: float) -> Floats:
        """Newton's step of each column, by conjugate gradients from the fit to all matches."""
        step = np.zeros_like(gradient)
        rest = gradient.copy()
        direction = self._inverse @ rest
        size = (rest * direction).sum(axis=0)
        enough = tolerance**2 * size
        for _ in range(10 * len(gradient)):
            if (size <= enough).all():
                break
            curved = self._curve(weights, direction)
            along = (direction * curved).sum(axis=0)
            # A column that is solved already stays where it is.
            length = np.divide(size, along, out=np.zeros_like(size), where=(along > 0) & (size > enough))
            step += length * direction
            rest -= length * curved
            solved = self._inverse @ rest
            before, size = size, np.where(size > enough, (rest * solved).sum(axis=0), size)
            direction = solved + np.divide(size, before, out=np.zeros_like(size), where=before > 0) * direction
        return step

    def _curve(self, weights: Floats, direction: Floats) -> Floats:
        """The curvature of each column's loss times its direction."""
        curved = self._back @ (weights * (self._design @ direction)) + self._ridge * direction
        curved[: self._players] += direction[: self._players].sum(axis=0)
        return curved
