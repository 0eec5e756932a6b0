"""What a trainer logged, as series to draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_POINTS = 240
"""Points of a curve; of a longer one, means of equal stretches are drawn."""
MAX_CURVES = 6
FIRST = (
    "loss",
    "eval_loss",
    "rewards/accuracies",
    "rewards/margins",
    "eval_accuracy",
    "mean_token_accuracy",
    "eval_rewards/accuracies",
    "grad_norm",
    "learning_rate",
)
"""Numbers that are drawn before all others, most important first."""
BOOKKEEPING = ("step", "epoch", "total_flos", "num_tokens")
"""Clocks and counters, which say nothing about learning."""
BOOKKEEPING_ENDINGS = ("_runtime", "_per_second", "train_loss")


class Series(NamedTuple):
    """One logged number over training steps.

    Example:
        Series("loss", points=[(1.0, 0.93), (2.0, 0.88)])
    """

    name: str
    points: list[tuple[float, float]]
    """(step, value), in order of steps."""


def logged_series(history: Sequence[Mapping[str, Any]], most: int = MAX_CURVES) -> tuple[list[Series], list[str]]:
    """Choose what to draw of a training history.

    Args:
        history: the trainer's log; rows have "step".
        most: series at most.

    Returns:
        The series, those that matter most first, and the names of the numbers left out.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in sorted(history, key=lambda row: float(row["step"])):
        for name, value in row.items():
            # bool is an int in Python, but a flag is no curve.
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                points.setdefault(name, []).append((float(row["step"]), float(value)))
    names = [name for name, values in points.items() if len(values) > 1 and not _is_bookkeeping(name)]
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return [Series(name, _thinned(points[name])) for name in names[:most]], names[most:]


def _is_bookkeeping(name: str) -> bool:
    # What an online training is watched by stands in its own section, with intervals, which the log does not have.
    return name in BOOKKEEPING or name.endswith(BOOKKEEPING_ENDINGS) or name.startswith("watch/")


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points: the means of equal stretches."""
    size = math.ceil(len(points) / MAX_POINTS)
    if size == 1:
        return points
    means = []
    for start in range(0, len(points), size):
        steps, values = zip(*points[start : start + size], strict=True)
        means.append((sum(steps) / len(steps), sum(values) / len(values)))
    return means
