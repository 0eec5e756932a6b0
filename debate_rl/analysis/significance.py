"""Significance: is one condition better than another?

Conditions are compared on the questions they share: questions differ far more than protocols do, and pairing takes
that out. Intervals and p-values are bootstraps over stories (`debate_rl.intervals`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import LEVEL, RESAMPLES, Effect, Estimate, difference, finite, mean
from debate_rl.records import Record


class Condition(NamedTuple):
    """Scores of one condition (a protocol, a checkpoint, a judge), one row for each verdict.

    Example:
        Condition("debate", questions=["lab-7-2", "lab-7-2"], values=[1, 0.5], labels=["lab-7", "lab-7"])
    """

    name: str
    questions: Sequence[str]
    """(n,) ids; several rows of a question (seeds, legs) are averaged first."""
    values: ArrayLike
    """(n,) the score to compare: correct or not, Brier, log score."""
    labels: Sequence[Hashable] | None = None
    """(n,) cluster of each row, usually the question's story; None clusters by question."""


class Comparison(Record):
    """Two conditions on the questions that both have.

    Example:
        Comparison(first="debate", second="single", first_mean=..., second_mean=..., unmatched=0,
                   difference=Effect(value=0.09, low=0.05, high=0.13, n=433, clusters=96, p=0.001))
    """

    first: str
    second: str
    first_mean: Estimate
    second_mean: Estimate
    difference: Effect
    """first - second; n counts questions."""
    unmatched: int
    """Number of questions that only one condition has; they are left out."""

    def __str__(self) -> str:
        """One line: both means, the difference with interval and p-value."""
        left_out = f"; {self.unmatched} unmatched questions left out" if self.unmatched else ""
        return (
            f"{self.first} {self.first_mean.value:.3f} - {self.second} {self.second_mean.value:.3f} = "
            f"{self.difference}{left_out}"
        )


def compare(
    first: Condition, second: Condition, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare two conditions, matched by question.

    Raises:
        UserError: no question in both, undefined values, columns of different lengths, or a question that lies in
            different clusters.
    """
    first_scores, second_scores = _by_question(first), _by_question(second)
    # Sorted: the bootstrap draws by position, so the order must not depend on the files.
    shared = sorted(first_scores.keys() & second_scores.keys())
    if not shared:
        raise UserError(f"{first.name!r} and {second.name!r} share no question; compare runs on the same questions")
    labels = []
    for question in shared:
        label, other_label = first_scores[question].label, second_scores[question].label
        if label != other_label:
            raise UserError(
                f"question {question!r} has cluster {label!r} in {first.name!r} and "
                f"{other_label!r} in {second.name!r}; give both the same"
            )
        labels.append(label)
    a = np.array([first_scores[question].value for question in shared])
    b = np.array([second_scores[question].value for question in shared])
    return Comparison(
        first=first.name,
        second=second.name,
        first_mean=mean(a, labels, level=level, resamples=resamples, seed=seed),
        second_mean=mean(b, labels, level=level, resamples=resamples, seed=seed),
        difference=difference(a, b, labels, level=level, resamples=resamples, seed=seed),
        unmatched=len(first_scores.keys() ^ second_scores.keys()),
    )


class _Score(NamedTuple):
    """Mean value of a question, and its cluster."""

    value: float
    label: Hashable


def _by_question(condition: Condition) -> dict[str, _Score]:
    values = finite(condition.values, condition.name)
    labels = condition.questions if condition.labels is None else condition.labels
    if not len(condition.questions) == len(labels) == len(values):
        raise UserError(
            f"{condition.name!r}: questions, values and labels differ in length; give one entry per verdict"
        )
    # Rows of one question are averaged first: otherwise a question played with more seeds would count for more.
    groups: dict[str, list[float]] = {}
    label_of: dict[str, Hashable] = {}
    for question, value, label in zip(condition.questions, values.tolist(), labels, strict=True):
        groups.setdefault(question, []).append(value)
        first_label = label_of.setdefault(question, label)
        if first_label != label:
            raise UserError(f"{condition.name!r}: question {question!r} has clusters {first_label!r} and {label!r}")
    return {question: _Score(float(np.mean(group)), label_of[question]) for question, group in groups.items()}
