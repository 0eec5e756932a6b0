"""Metrics of a judge that learns online: the points of its curve, and the alarms that they set off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from debate_rl.game.verdict import JudgedDebate, Verdict
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.judge import mean_probability
from debate_rl.judges.scores import confidences, ece, hits
from debate_rl.records import Record
from debate_rl.trainers.grpo.eval_metrics import Value, logged_numbers, mean_value, paired_change
from debate_rl.trainers.grpo.settings import Alarms

STATES_LESS = 0.1
"""Fall in the share of games with a statement that is an alarm."""


class JudgePoint(Record):
    """One measurement of a judge's curve, after `step` steps; its answers are drawn at temperature 0.

    Example:
        JudgePoint(step=40, accuracy=Estimate(value=0.74, ...), brier=Estimate(value=0.19, ...), ece=0.06,
                   consistent=Estimate(value=0.91, ...), stated=Estimate(value=1.0, ...))
    """

    step: int
    accuracy: Estimate | None = None
    """None where no game has a verdict."""
    accuracy_change: Effect | None = None
    """Change since step 0, paired by game."""
    brier: Estimate | None = None
    brier_change: Effect | None = None
    """Change since step 0, paired by game; below 0 is better."""
    ece: float | None = None
    """Expected calibration error of the confidence, max(p, 1 - p)."""
    consistent: Estimate | None = None
    """Share of games in which both presentation orders favour the same answer; 1/2 where one favours neither."""
    first: Estimate | None = None
    """Share of presentations in which it favours the answer listed first."""
    stated: Estimate | None = None
    """Share of games in which every answer of the judge states a probability; the others have no verdict."""
    stated_change: Effect | None = None
    entropy: float | None = None
    """Entropy of the judge in nats per token, from training's last log."""
    kl: float | None = None
    """KL divergence from the start per token, from training's last log."""
    unstated: int = 0
    """Games without a verdict."""
    alarms: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        """The values by name, for a log."""
        return logged_numbers(self, self.alarms)


def judge_point(step: int, games: Sequence[JudgedDebate], before: Sequence[JudgedDebate], alarms: Alarms) -> JudgePoint:
    """Compute the point of a measurement from its games.

    Args:
        step: training steps so far.
        games: with the judge's verdicts, or with its failures.
        before: the games of step 0, or `games` at step 0.
        alarms: limits of the alarms.
    """
    right, right_before = _values(games, _hit), _values(before, _hit)
    squared, squared_before = _values(games, _squared), _values(before, _squared)
    stated, stated_before = _values(games, _stated), _values(before, _stated)
    p_correct = [leg.p_correct for leg in games if leg.p_correct is not None]
    measured = JudgePoint(
        step=step,
        accuracy=mean_value(list(right.values())),
        accuracy_change=paired_change(right, right_before),
        brier=mean_value(list(squared.values())),
        brier_change=paired_change(squared, squared_before),
        ece=ece(*confidences(p_correct)) if p_correct else None,
        consistent=consistency(games),
        first=mean_value(list(_values(games, _first).values())),
        stated=mean_value(list(stated.values())),
        stated_change=paired_change(stated, stated_before),
        unstated=sum(leg.verdict is None for leg in games),
    )
    return measured.model_copy(update={"alarms": judge_alarms(measured, alarms)})


def judge_alarms(measured: JudgePoint, limits: Alarms) -> tuple[str, ...]:
    """The alarms that a point sets off, in words; each needs the whole interval past its limit."""
    alarms = []
    change = measured.accuracy_change
    if change is not None and change.high is not None and change.high < -limits.accuracy_falls:
        alarms.append(f"accuracy falls: of the judge by {change:.2f}")
    first = measured.first
    if first is not None and first.low is not None and first.low > limits.one_side:
        alarms.append(f"one side: the answer listed first is chosen in {first:.2f} of cases")
    if first is not None and first.high is not None and first.high < 1 - limits.one_side:
        alarms.append(f"one side: the answer listed first is chosen in {first:.2f} of cases, the other in the rest")
    stated = measured.stated_change
    if stated is not None and stated.high is not None and stated.high < -STATES_LESS:
        alarms.append(f"statements: the judge states a probability less often than at the start, by {stated:.2f}")
    return tuple(alarms)


def _values(games: Sequence[JudgedDebate], measure: Callable[[JudgedDebate], float | None]) -> dict[str, Value]:
    """A number for each game that has one, with the game's cluster."""
    values = {}
    for leg in games:
        number = measure(leg)
        if number is not None:
            values[leg.transcript.id] = (number, leg.transcript.question.cluster)
    return values


def consistency(games: Sequence[JudgedDebate]) -> Estimate | None:
    """Share of games in which both presentation orders favour the same answer; None without such games."""
    return mean_value(list(_values(games, _consistent).values()))


def _hit(leg: JudgedDebate) -> float | None:
    return None if leg.p_correct is None else float(hits([leg.p_correct])[0])


def _squared(leg: JudgedDebate) -> float | None:
    return None if leg.p_correct is None else (1 - leg.p_correct) ** 2


def _stated(leg: JudgedDebate) -> float:
    return float(leg.verdict is not None)


def _of_orders(verdict: Verdict | None) -> tuple[float, float] | None:
    """1 where answer 0 is favoured when it is listed first, and when it is listed second."""
    if verdict is None or {ask.order for ask in verdict.asks} != {(0, 1), (1, 0)}:
        return None
    first, second = hits([mean_probability(verdict, order) for order in ((0, 1), (1, 0))])
    return float(first), float(second)


def _consistent(leg: JudgedDebate) -> float | None:
    """1 where both orders favour the same answer, 1/2 where one of them favours neither, else 0."""
    orders = _of_orders(leg.verdict)
    return None if orders is None else 1 - abs(orders[0] - orders[1])


def _first(leg: JudgedDebate) -> float | None:
    """Share of both orders in which the answer listed first is favoured."""
    orders = _of_orders(leg.verdict)
    return None if orders is None else (orders[0] + 1 - orders[1]) / 2
