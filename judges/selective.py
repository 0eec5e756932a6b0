"""Accuracy at coverage: how often a judge is right if it answers only where it is sure (selective classification).

El-Yaniv and Wiener 2010; the area is one minus the area under their risk-coverage curve (Geifman et al. 2019, AURC).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import Estimate, Floats, Replicates, bootstrap_totals, finite, mean
from debate_rl.records import Record

LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Coverages that are listed."""
THRESHOLDS = 100
"""Most thresholds of the area: the distinct confidences, or this many quantiles of them."""


class Point(Record):
    """Accuracy on the questions that the judge is surest of.

    Example:
        Point(coverage=0.4, threshold=0.83, accuracy=Estimate(value=0.93, low=0.86, high=0.98, n=62, clusters=41))
    """

    coverage: float
    """Share of questions answered: at least the level asked for, more if confidences are equal."""
    threshold: float
    """Least confidence at which the judge answers."""
    accuracy: Estimate


class Coverage(Record):
    """Accuracy against coverage.

    Example:
        Coverage(points=(Point(coverage=0.2, ...), ..., Point(coverage=1.0, ...)), area=Estimate(value=0.88, ...))
    """

    points: tuple[Point, ...]
    area: Estimate
    """Mean accuracy over all coverages: the accuracy itself for a judge whose confidence says nothing, more for one
    that knows what it knows."""


def coverage(confidence: ArrayLike, correct: ArrayLike, labels: Sequence[Hashable] | None = None) -> Coverage:
    """Compute the curve of accuracy against coverage, and its area.

    Args:
        confidence: (n,) confidence in the favoured answer.
        correct: (n,) whether that answer is right, in [0, 1].
        labels: (n,) clusters. Every resample uses the thresholds of the data.

    Raises:
        UserError: no rows, or lengths that differ.
    """
    c = finite(confidence, "confidence")
    y = finite(correct, "correct")
    if len(c) != len(y):
        raise UserError(f"{len(c)} confidences and {len(y)} outcomes; give one of each a verdict")
    surest = np.sort(c)[::-1]
    points = []
    for level in LEVELS:
        # Rounded first, so that an error in the last digit of the product does not add a question.
        count = math.ceil(round(level * len(c), 9))
        points.append(_point(c, y, labels, float(surest[count - 1])))
    return Coverage(points=tuple(points), area=area(c, y, labels).estimate())


def area(confidence: ArrayLike, correct: ArrayLike, labels: Sequence[Hashable] | None = None) -> Replicates:
    """The area of `coverage`: the sum over thresholds of the accuracy times the step in coverage."""
    c = np.asarray(confidence, dtype=float)
    y = np.asarray(correct, dtype=float)
    levels = np.unique(c)
    if len(levels) > THRESHOLDS:
        levels = np.unique(np.quantile(c, np.linspace(0, 1, THRESHOLDS), method="lower"))
    member = np.eye(len(levels))[np.searchsorted(levels, c, side="right") - 1]

    def statistic(sums: Floats) -> Floats:
        # Reversed: the surest first, as they would be answered.
        counts = sums[:, : len(levels)][:, ::-1]
        rights = sums[:, len(levels) :][:, ::-1]
        answered = counts.cumsum(axis=1)
        right = np.divide(rights.cumsum(axis=1), answered, out=np.zeros_like(answered), where=answered > 0)
        return (right * counts).sum(axis=1) / answered[:, -1]

    return bootstrap_totals(statistic, np.hstack([member, member * y[:, None]]), labels)


def _point(c: Floats, y: Floats, labels: Sequence[Hashable] | None, threshold: float) -> Point:
    """Accuracy on the questions at or above a confidence."""
    answered = np.flatnonzero(c >= threshold)
    names = None if labels is None else [labels[int(index)] for index in answered]
    return Point(coverage=len(answered) / len(c), threshold=threshold, accuracy=mean(y[answered], names))
