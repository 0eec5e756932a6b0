"""The debate function D(E_strong, E_weak, J) of "Explanation, Debate, Align" (arXiv 2409.07335).

The strong model explains one answer to an item, the weak model the other, and a judge reads both explanations in both
orders. D is the logit of the probability that the strong one wins, averaged over the orders: in log-odds a preference
for a place cancels whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.game.protocol import Side
from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.intervals import Effect, Estimate, Floats, bootstrap_totals, mean
from debate_rl.judges.calibration import Calibrator, logits
from debate_rl.judges.scores import hits
from debate_rl.records import Record


class DebateScore(Record):
    """D of one item: one line of the log.

    Example:
        DebateScore(item="lab-7-2", group="lab-7", side="A", d=1.9, strong_is_right=True)
    """

    item: str
    group: str
    side: Side
    """Whose answer the strong model explained."""
    d: float
    """Log-odds by which the judge favours its explanation."""
    strong_is_right: bool | None = None
    """Whether that answer is correct; None where it is not known. Never used in training."""

    @property
    def p_first(self) -> float:
        """P(answer 0) by the debate function: sigma(D) goes to the strong model's answer."""
        towards_first = self.d if self.side == "A" else -self.d
        return 1 / (1 + math.exp(-max(min(towards_first, 700.0), -700.0)))


class DebateFunction(Record):
    """D against the truth, over all items.

    Example:
        DebateFunction(name="seed0/debate/refine", n=200, wins=Estimate(value=0.7, ...), right=Estimate(value=0.8, ...),
                       strong_right=Estimate(value=0.75, ...), truth_gap=Effect(value=1.1, low=0.6, high=1.6, ...))
    """

    name: str
    """Of the method and of what D is for."""
    n: int
    wins: Estimate
    """Share of items whose strong explanation wins; D = 0 counts half."""
    right: Estimate | None = None
    """Share of items whose winner explains the correct answer."""
    strong_right: Estimate | None = None
    """Share of items whose strong explanation is for the correct answer: what following it blindly would give."""
    truth_gap: Effect | None = None
    """Mean D where the strong model explains the correct answer minus mean D where it explains the wrong one, in
    log-odds: 0 where the judge favours the stronger text whatever is true. None where one of both never happens."""

    def __str__(self) -> str:
        """One line."""
        line = f"debate function, {self.name}: strong wins {self.wins:.2f}"
        if self.right is not None and self.strong_right is not None:
            line += f", winner right {self.right:.2f}, strong right {self.strong_right:.2f}"
        if self.truth_gap is not None:
            line += f", D for truth - for error {self.truth_gap:.2f}"
        return f"{line} (n {self.n})"


def debate_scores(
    legs: Sequence[JudgedDebate], sides: Mapping[str, Side], calibrator: Calibrator | None = None
) -> list[DebateScore]:
    """D of each judged game.

    Args:
        legs: games with a verdict, one an item.
        sides: the strong model's side, by item id.
        calibrator: of the judge; applied to each item's mean log-odds.
    """
    scores = []
    for leg in legs:
        assert leg.verdict is not None  # failed legs were refused
        question = leg.transcript.question
        side = sides[question.id]
        towards_first = _log_odds(leg.verdict, calibrator)
        right = None if question.correct is None else (question.correct == 0) == (side == "A")
        score = DebateScore(
            item=question.id,
            group=question.cluster,
            side=side,
            d=towards_first if side == "A" else -towards_first,
            strong_is_right=right,
        )
        scores.append(score)
    return scores


def _log_odds(verdict: Verdict, calibrator: Calibrator | None) -> float:
    """Log-odds of answer 0: the mean over the judge's final answers, or of a panel's or recorded verdict as it is."""
    final = [ask.logprobs for ask in verdict.asks if ask.after_turn is None]
    if not final:
        return float(logits([verdict.p[0]])[0])
    raw = sum(first - second for first, second in final) / len(final)
    return raw if calibrator is None else float(calibrator.apply_logits([raw])[0])


def summary(name: str, scores: Sequence[DebateScore]) -> DebateFunction:
    """D against the truth, with intervals over stories.

    Args:
        name: of the result.
        scores: one an item.
    """
    groups = [score.group for score in scores]
    wins = hits([1 / (1 + math.exp(-max(min(score.d, 30.0), -30.0))) for score in scores])
    measured = DebateFunction(name=name, n=len(scores), wins=mean(wins, groups))
    truth = [score.strong_is_right for score in scores]
    if None in truth:
        return measured
    strong = [float(bool(right)) for right in truth]
    # A strong win is right where its answer is, a strong loss where its answer is wrong.
    right = [win if is_right else 1 - win for win, is_right in zip(wins, strong, strict=True)]
    gap = None
    if len(set(strong)) == 2:
        table = [(one, one * s.d, 1 - one, (1 - one) * s.d) for one, s in zip(strong, scores, strict=True)]
        # A resample without one of both kinds would divide by 0: it is left out.
        gap = bootstrap_totals(_gap, table, groups).effect()
    return measured.model_copy(
        update={"right": mean(right, groups), "strong_right": mean(strong, groups), "truth_gap": gap}
    )


def _gap(sums: Floats) -> Floats:
    """Difference of two means, from (b, 4) counts and sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 1] / sums[:, 0] - sums[:, 3] / sums[:, 2])
