"""Scores of a judge, computed from the probability it gave the correct answer.

Brier and log score come first: they reward a judge for saying what it knows. ECE is reported with the value that a
perfectly calibrated judge with the same confidences would get by chance. The Brier score is split into parts (Murphy
1973): Brier = reliability - resolution + .25 + what bins hide. Intervals are bootstraps over clusters of questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from debate_rl.errors import UserError
from debate_rl.intervals import Effect, Estimate, Floats, Replicates, bootstrap_totals, difference, finite, mean
from debate_rl.judges.selective import Coverage, area, coverage
from debate_rl.records import Record

Labels = Sequence[Hashable] | None

ROUND_COST = 0.05
"""Price of a round of debate for a judge, in bits (Michael et al. 2023)."""
LEAST = 1e-6
"""Least probability in a log score (ours): a judge that rules out the truth loses 19.9 bits, not infinitely many."""
BINS = 10
"""Bins of equal width over [0, 1]."""
SIMULATIONS = 2000
"""Draws behind a noise floor."""


class Bin(Record):
    """One bin of a reliability table.

    Example:
        Bin(low=0.7, high=0.8, n=41, confidence=0.752, accuracy=Estimate(value=0.683, low=0.55, high=0.81, n=41,
            clusters=30))
    """

    low: float
    high: float
    n: int
    confidence: float
    """Mean predicted probability in the bin."""
    accuracy: Estimate
    """Mean outcome in the bin."""


class NoiseFloor(Record):
    """Expected calibration error that a perfectly calibrated judge with the same confidences gets by chance.

    Example:
        NoiseFloor(median=0.098, high=0.141)
    """

    median: float
    high: float
    """95 % quantile: an ECE below it is no sign of miscalibration."""


class Parts(Record):
    """The parts of the Brier score, for the event "this answer is correct" and both answers of every question.

    Its base rate is 1/2, so its uncertainty is .25 for every judge: Brier = reliability - resolution + .25 + within.

    Example:
        Parts(reliability=Estimate(value=0.012, ...), resolution=Estimate(value=0.13, ...), within=0.002)
    """

    reliability: Estimate
    """Mean squared distance between the judge's probability and the frequency, bin by bin; 0 is calibrated. Like ECE it
    is above 0 by chance, and its interval lies high."""
    resolution: Estimate
    """Mean squared distance of the frequencies from 1/2: how well the judge tells answers apart; .25 is perfect."""
    within: float
    """What bins hide: the variance of probabilities inside them minus twice their covariance with the outcomes
    (Stephenson et al. 2008)."""


class JudgeScores(Record):
    """Every score of one judge on n verdicts.

    Example:
        JudgeScores(n=154, accuracy=..., brier=..., log_score=..., reward=..., ece=0.071,
                    floor=NoiseFloor(median=0.06, high=0.09), reliability=(Bin(...), ...))
    """

    n: int
    accuracy: Estimate
    brier: Estimate
    log_score: Estimate
    """Mean log2 P(correct), bits; 0 is perfect, -1 is always saying .5."""
    reward: Estimate | None = None
    """Mean log2 P(correct) - .05 per round; None where rounds are unknown."""
    ece: float
    """Expected calibration error of the confidence, max(p, 1-p), with BINS bins over [0, 1]."""
    floor: NoiseFloor
    reliability: tuple[Bin, ...] = Field(default=())
    parts: Parts | None = None
    """None in files of earlier versions."""
    coverage: Coverage | None = None
    """None in files of earlier versions."""

    def __str__(self) -> str:
        """One line: the scores with intervals, ECE with its floor."""
        reward = f"  reward {self.reward:.3f}" if self.reward else ""
        return (
            f"n {self.n}  accuracy {self.accuracy:.3f}  Brier {self.brier:.3f}  log score {self.log_score:.3f} bits"
            f"{reward}  ECE {self.ece:.3f} (calibrated judge: {self.floor.median:.3f}, 95 % {self.floor.high:.3f})"
        )


class Change(Record):
    """Scores of one judge minus those of another on the same verdicts, paired.

    Example:
        Change(accuracy=Effect(value=0.12, low=0.08, high=0.16, n=200, clusters=100, p=0.001), brier=..., ...)
    """

    accuracy: Effect
    brier: Effect
    """Below 0 is better."""
    log_score: Effect
    ece: Effect
    """Below 0 is better; see the noise floors of both."""
    reliability: Effect
    """Below 0 is better."""
    resolution: Effect
    area: Effect
    """Area of accuracy over coverage; above 0 is better."""


class OrderEffect(Record):
    """The effect of showing the two answers to a judge in the other order.

    Example:
        OrderEffect(first=Effect(value=0.06, low=0.02, high=0.1, n=80, clusters=80, p=0.004),
                    flips=Estimate(value=0.11, low=0.05, high=0.19, n=80, clusters=80))
    """

    first: Effect
    """Mean of P(an answer | shown first) - P(the same answer | shown second): above 0, the judge favours the first."""
    flips: Estimate
    """Share of questions on which the verdict changes; a probability of .5 counts half."""


def accuracy(p_correct: ArrayLike, labels: Labels = None) -> Estimate:
    """Share of (n,) verdicts that favour the correct answer; p = .5 favours neither and counts half.

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    return mean(hits(p_correct), labels)


def brier(p_correct: ArrayLike, labels: Labels = None) -> Estimate:
    """Mean (1 - p)^2 of (n,) probabilities of the correct answer: 0 is perfect, .25 is always saying .5.

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    return mean((1 - probabilities(p_correct)) ** 2, labels)


def log_score(p_correct: ArrayLike, labels: Labels = None) -> Estimate:
    """Mean log2 p in bits, p at least LEAST.

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    return mean(bits(p_correct), labels)


def reward(p_correct: ArrayLike, rounds: ArrayLike, labels: Labels = None) -> Estimate:
    """Mean log2 p - .05 rounds, (n,) each: what human judges were paid by (Michael et al. 2023).

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    return mean(bits(p_correct) - ROUND_COST * finite(rounds, "rounds"), labels)


def probabilities(values: ArrayLike, what: str = "probabilities") -> Floats:
    """Return (n,) probabilities.

    Raises:
        UserError: no rows, undefined ones, or some outside [0, 1].
    """
    array = finite(values, what)
    bad = array[(array < 0) | (array > 1)]
    if bad.size:
        raise UserError(f"{what}: {bad[0]:g} is not between 0 and 1 ({bad.size} of {array.size} rows)")
    return array


def hits(p_correct: ArrayLike) -> Floats:
    """1 where the verdict is correct, 0 where it is wrong, 1/2 at p = .5; (n,)."""
    return (1 + np.sign(probabilities(p_correct) - 0.5)) / 2


def bits(p_correct: ArrayLike) -> Floats:
    """log2 of probabilities of at least LEAST; (n,)."""
    return np.log2(np.maximum(probabilities(p_correct), LEAST))


def confidences(p_correct: ArrayLike) -> tuple[Floats, Floats]:
    """Return (n,) confidence max(p, 1-p), the probability of the favoured answer, and (n,) whether it is correct."""
    p = probabilities(p_correct)
    return np.maximum(p, 1 - p), hits(p)


def ece(predicted: ArrayLike, outcomes: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error: mean |outcome - prediction| over bins of equal width on [0, 1], weighted by rows.

    Args:
        predicted: (n,) probabilities of an event: confidences, or P(answer A).
        outcomes: (n,) whether it happened, in [0, 1].
        bins: number of bins. ECE grows with it and falls with n for any judge: see `noise_floor`.
    """
    p, y, which = _binned(predicted, outcomes, bins)
    return float(np.abs(np.bincount(which, weights=y - p)).sum() / len(p))


def _ece(predicted: ArrayLike, outcomes: ArrayLike, labels: Labels, bins: int = BINS) -> Replicates:
    """ECE of every resample. Resampling adds noise to every bin, so an interval of one ECE would lie too high."""
    p, y, which = _binned(predicted, outcomes, bins)
    gaps = np.eye(bins)[which] * (y - p)[:, None]
    columns = np.column_stack([gaps, np.ones(len(p))])
    return bootstrap_totals(lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1], columns, labels)


def brier_parts(p_correct: ArrayLike, labels: Labels = None, bins: int = BINS) -> Parts:
    """Reliability, resolution and the rest of the Brier score of (n,) probabilities of the correct answer.

    Murphy 1973, "A New Vector Partition of the Probability Score", over bins of equal width.

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    reliability, resolution = _parts(p_correct, labels, bins)
    score = float(np.mean((1 - probabilities(p_correct)) ** 2))
    return Parts(
        reliability=reliability.estimate(),
        resolution=resolution.estimate(),
        within=score - reliability.value + resolution.value - 0.25,
    )


def _parts(p_correct: ArrayLike, labels: Labels, bins: int = BINS) -> tuple[Replicates, Replicates]:
    """Reliability and resolution of every resample."""
    p = probabilities(p_correct)
    # One row a question, with both of its answers: for each bin a count, a sum of probabilities, a sum of outcomes.
    columns = np.zeros((len(p), 3 * bins))
    for predicted, outcome in ((p, 1.0), (1 - p, 0.0)):
        member = np.eye(bins)[np.minimum((predicted * bins).astype(np.intp), bins - 1)]
        columns += np.hstack([member, member * predicted[:, None], member * outcome])

    def mean_square(gaps: Floats, counts: Floats) -> Floats:
        squares = np.divide(gaps**2, counts, out=np.zeros_like(gaps), where=counts > 0)
        return squares.sum(axis=1) / counts.sum(axis=1)

    def reliability(sums: Floats) -> Floats:
        counts, predicted, outcomes = np.split(sums, 3, axis=1)
        return mean_square(outcomes - predicted, counts)

    def resolution(sums: Floats) -> Floats:
        counts, _, outcomes = np.split(sums, 3, axis=1)
        return mean_square(outcomes - counts / 2, counts)

    return bootstrap_totals(reliability, columns, labels), bootstrap_totals(resolution, columns, labels)


def noise_floor(predicted: ArrayLike, bins: int = BINS, *, simulations: int = SIMULATIONS, seed: int = 0) -> NoiseFloor:
    """ECE of a perfectly calibrated judge with these (n,) probabilities: outcomes drawn from them, independently.

    Where a question was judged several times the outcomes are not independent and the true floor is higher: average
    the verdicts of a question first.
    """
    p, _, which = _binned(predicted, np.zeros(np.size(predicted)), bins)
    random = np.random.default_rng(seed)
    member = np.eye(bins)[which]
    block = max(1, 4_000_000 // len(p))  # bounds the memory to 32 MB a block
    errors = []
    for start in range(0, simulations, block):
        outcomes = random.random((min(block, simulations - start), len(p))) < p
        errors.append(np.abs((outcomes - p) @ member).sum(axis=1) / len(p))
    median, high = np.quantile(np.concatenate(errors), [0.5, 0.95])
    return NoiseFloor(median=float(median), high=float(high))


def reliability(predicted: ArrayLike, outcomes: ArrayLike, labels: Labels = None, bins: int = BINS) -> tuple[Bin, ...]:
    """Reliability table of (n,) probabilities and outcomes, with a row for each bin that is not empty."""
    p, y, which = _binned(predicted, outcomes, bins)
    rows = []
    for index in np.unique(which):
        inside = np.flatnonzero(which == index)
        names = None if labels is None else [labels[int(i)] for i in inside]
        rows.append(
            Bin(
                low=index / bins,
                high=(index + 1) / bins,
                n=len(inside),
                confidence=float(p[inside].mean()),
                accuracy=mean(y[inside], names),
            )
        )
    return tuple(rows)


def order_effect(p_first: ArrayLike, p_second: ArrayLike, labels: Labels = None) -> OrderEffect:
    """Compare verdicts in both presentation orders.

    Args:
        p_first: (n,) P(answer A) where A is shown first.
        p_second: (n,) P(answer A) for the same questions where A is shown second.
        labels: (n,) clusters.

    Raises:
        UserError: no rows, probabilities outside [0, 1], or lengths that differ.
    """
    first = probabilities(p_first)
    second = probabilities(p_second)
    flips = np.abs(hits(first) - hits(second))
    return OrderEffect(first=difference(first, second, labels), flips=mean(flips, labels))


def judge_scores(p_correct: ArrayLike, labels: Labels = None, rounds: ArrayLike | None = None) -> JudgeScores:
    """Every score of (n,) verdicts on binary questions.

    Raises:
        UserError: no rows, or probabilities outside [0, 1].
    """
    confidence, correct = confidences(p_correct)
    return JudgeScores(
        n=len(confidence),
        accuracy=accuracy(p_correct, labels),
        brier=brier(p_correct, labels),
        log_score=log_score(p_correct, labels),
        reward=None if rounds is None else reward(p_correct, rounds, labels),
        ece=ece(confidence, correct),
        floor=noise_floor(confidence),
        reliability=reliability(confidence, correct, labels),
        parts=brier_parts(p_correct, labels),
        coverage=coverage(confidence, correct, labels),
    )


def judge_change(after: ArrayLike, before: ArrayLike, labels: Labels = None) -> Change:
    """Scores of (n,) probabilities of the correct answer minus those of another judge on the same (n,) questions.

    Raises:
        UserError: no rows, probabilities outside [0, 1], or lengths that differ.
    """
    new = probabilities(after)
    old = probabilities(before)
    if len(new) != len(old):
        raise UserError(f"paired values differ in number: {len(new)} and {len(old)}; match them by question first")
    # Each pair below is resampled with the same draws: what both judges owe to the questions cancels.
    new_confidence, new_correct = confidences(new)
    old_confidence, old_correct = confidences(old)
    new_reliability, new_resolution = _parts(new, labels)
    old_reliability, old_resolution = _parts(old, labels)
    new_ece = _ece(new_confidence, new_correct, labels)
    old_ece = _ece(old_confidence, old_correct, labels)
    new_area = area(new_confidence, new_correct, labels)
    old_area = area(old_confidence, old_correct, labels)
    return Change(
        accuracy=difference(hits(new), hits(old), labels),
        brier=difference((1 - new) ** 2, (1 - old) ** 2, labels),
        log_score=difference(bits(new), bits(old), labels),
        ece=new_ece.minus(old_ece).effect(),
        reliability=new_reliability.minus(old_reliability).effect(),
        resolution=new_resolution.minus(old_resolution).effect(),
        area=new_area.minus(old_area).effect(),
    )


def _binned(predicted: ArrayLike, outcomes: ArrayLike, bins: int) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Check probabilities and outcomes; return them with the bin of each, the last one closed above."""
    p = probabilities(predicted, "predictions")
    y = probabilities(outcomes, "outcomes")
    if len(p) != len(y) or bins < 1:
        raise UserError(f"{len(p)} predictions, {len(y)} outcomes, {bins} bins; give one outcome each, one bin or more")
    return p, y, np.minimum((p * bins).astype(np.intp), bins - 1)
