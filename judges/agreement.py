"""How near a judge's probabilities come to those of human judges on the same games, compared with a constant.

A model that follows nothing that is said still learns how far people believe a lone consultant. Only its gain over a
predictor that knows who speaks, and nothing else, is a sign that it follows the debates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from debate_rl.errors import UserError
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.judges.scores import accuracy, brier, probabilities
from debate_rl.records import Record


class Agreement(Record):
    """One judge compared with the humans on the same games.

    Example:
        Agreement(judge="finetuned judge", n=93, accuracy=Estimate(value=0.52, ...), brier=Estimate(value=0.25, ...),
                  distance=Estimate(value=0.131, ...), over_constant=Effect(value=-0.001, low=-0.004, high=0.002, ...))
    """

    judge: str
    n: int
    accuracy: Estimate
    """Against the truth."""
    brier: Estimate
    """Against the truth."""
    distance: Estimate | None = None
    """Mean squared difference from the human's final probability; None for the humans themselves."""
    over_constant: Effect | None = None
    """Its distance minus the constant's, game by game; below 0 if it predicts the humans better."""

    def __str__(self) -> str:
        """One line of the table."""
        near = "" if self.distance is None else f"{self.distance:.3f}"
        gap = "" if self.over_constant is None else f"{self.over_constant:.3f}"
        clusters = self.accuracy.clusters
        return (
            f"{self.judge:30} {self.n:4} {clusters:8}   {self.accuracy:.3f}   {self.brier:.3f}   {near:22} {gap}"
        ).rstrip()


def agreement(
    judge: str,
    p: ArrayLike,
    humans: ArrayLike,
    correct: Sequence[int],
    labels: Sequence[str],
    constant: ArrayLike | None = None,
) -> Agreement:
    """Compare a judge with the humans.

    Args:
        judge: name of the judge.
        p: (n,) the judge's probability of answer 0.
        humans: (n,) the humans' final probability; the same as `p` for the humans' own row.
        correct: (n,) index of the correct answer.
        labels: (n,) stories.
        constant: (n,) or one number, the constant predictor's probability of answer 0; None leaves the comparison out.

    Raises:
        UserError: no games, lengths that differ, or probabilities outside [0, 1].
    """
    predicted = probabilities(p, judge)
    human = probabilities(humans, "human probabilities")
    if not len(predicted) == len(human) == len(correct) == len(labels):
        raise UserError(f"{judge}: {len(predicted)} probabilities for {len(human)} human ones; compare the same games")
    p_correct = np.where(np.asarray(correct) == 0, predicted, 1 - predicted)
    distances = (predicted - human) ** 2
    over_constant = None
    if constant is not None:
        over_constant = difference(distances, (np.asarray(constant) - human) ** 2, labels)
    # The humans' own row: how far they are from themselves says nothing.
    is_human = constant is None and not distances.any()
    return Agreement(
        judge=judge,
        n=len(predicted),
        accuracy=accuracy(p_correct, labels),
        brier=brier(p_correct, labels),
        distance=None if is_human else mean(distances, labels),
        over_constant=over_constant,
    )


def verdict_on(rows: Iterable[Agreement]) -> str:
    """Say for each judge, in one line, how it compares with the constant predictor."""
    lines = []
    for row in rows:
        gap = row.over_constant
        if gap is None:
            continue
        claim = "is not told from"
        if gap.high is not None and gap.high < 0:
            claim = "predicts the humans better than"
        elif gap.low is not None and gap.low > 0:
            claim = "is worse than"
        lines.append(f"{row.judge} {claim} the constant predictor ({gap:.3f})")
    return "\n".join(lines)


def formatted(rows: Sequence[Agreement]) -> str:
    """The table as text, with the comparisons in words below it."""
    head = (
        f"{'judge':30} {'n':>4} {'stories':>8}   {'accuracy':20}   {'Brier':20}   {'from the humans':22} "
        "minus the constant's"
    )
    return "\n".join([head, *map(str, rows), verdict_on(rows)])
