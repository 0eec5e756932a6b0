"""What a judge is asked about a transcript, and how its answers become a verdict: the same for every kind of judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from debate_rl.engines.request import Message
from debate_rl.game.prompts import judge_messages
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import LEAST, Calibrator

Presentation = tuple[tuple[Side, ...], tuple[int, int]]
"""What the judge is shown: sides, first shown first, and the order in which the answers are listed."""

Combine = Literal["mean", "majority", "weighted"]
"""How several probabilities become one: their mean; the share that favours answer 0 (1/2 favours neither and counts
half); or that share with each vote weighted by how sure it is, |2p - 1| (the weight is ours)."""


@dataclass(frozen=True)
class View:
    """One question to a judge: what it is shown, in which order, after how many turns (None at the end)."""

    sides: tuple[Side, ...]
    order: tuple[int, int]
    after_turn: int | None = None


def presentations(transcript: Transcript, both_orders: bool = True) -> list[Presentation]:
    """Everything a judge is shown of a game: together or each side alone, in one presentation order or both."""
    present = transcript.present
    shown: list[tuple[Side, ...]] = [(side,) for side in present]
    if transcript.protocol.judge_sees == "together" or len(present) < 2:
        shown = [present]
    orders: list[tuple[int, int]] = [(0, 1), (1, 0)] if both_orders else [(0, 1)]
    return [(sides if order == (0, 1) else sides[::-1], order) for sides in shown for order in orders]


def views(transcript: Transcript, both_orders: bool = True) -> list[View]:
    """Every question that the protocol and the judge want asked about a transcript."""
    moments: list[int | None] = [None]
    if transcript.protocol.verdict_after_each_turn:
        moments = [*range(1, transcript.protocol.turns), None]
    shown = presentations(transcript, both_orders)
    return [View(sides, order, moment) for moment in moments for sides, order in shown]


def prompt(transcript: Transcript, view: View) -> tuple[Message, ...]:
    """The judge's prompt for a view, up to where it answers with a candidate."""
    return as_messages(judge_messages(transcript, view.sides, view.order, view.after_turn))


def as_messages(messages: Sequence[dict[str, str]]) -> tuple[Message, ...]:
    """Rendered messages as an engine takes them."""
    return tuple(Message.model_validate(message) for message in messages)


def probability(logprobs: tuple[float, float]) -> float:
    """Probability of answer 0 from the two raw log-probabilities."""
    gap = max(min(logprobs[1] - logprobs[0], 700.0), -700.0)
    return 1 / (1 + math.exp(gap))


def logprobs_of(p: float) -> tuple[float, float]:
    """Log-probabilities of answer 0 and 1 from the probability of answer 0, kept LEAST away from 0 and 1."""
    kept = min(max(p, LEAST), 1 - LEAST)
    return math.log(kept), math.log1p(-kept)


def mean_probability(verdict: Verdict, order: tuple[int, int]) -> float:
    """Mean probability of answer 0 in one presentation order, at the end; of a panel the mean of its members'."""
    if verdict.members:
        return sum(mean_probability(member, order) for member in verdict.members) / len(verdict.members)
    asked = [ask for ask in verdict.asks if ask.after_turn is None and ask.order == order]
    return sum(probability(ask.logprobs) for ask in asked) / len(asked)


def combined(p: Sequence[float], how: Combine) -> float:
    """One probability of several (see `Combine`).

    Example:
        >>> combined([0.9, 0.4, 0.45], "mean"), combined([0.9, 0.4, 0.45], "majority")
        (0.5833333333333334, 0.3333333333333333)
    """
    if how == "mean":
        return sum(p) / len(p)
    weights = [1.0 if how == "majority" else abs(2 * one - 1) for one in p]
    favoured = [1.0 if one > 0.5 else 0.5 if one == 0.5 else 0.0 for one in p]
    total = sum(weights)
    return sum(w * f for w, f in zip(weights, favoured, strict=True)) / total if total else 0.5


def verdict(
    name: str,
    asked: Sequence[Ask | Failure],
    calibrator: Calibrator | None = None,
    revision: str | None = None,
    combine: Combine = "mean",
) -> Verdict | Failure:
    """Put the answers to one transcript's questions together: a verdict, or the first failure among them.

    The views of one draw are averaged (both orders, both sides alone), then draws are combined, then the judge's
    calibrator is applied; with one for lone speakers see `calibrated`.
    """
    asks = []
    for ask in asked:
        if isinstance(ask, Failure):
            return ask
        asks.append(ask)
    moments = sorted({ask.after_turn for ask in asks if ask.after_turn is not None})
    found = [
        calibrated([ask for ask in asks if ask.after_turn == moment], combine, calibrator)
        for moment in [*moments, None]
    ]
    pairs = [(p, 1 - p) for p in found]
    return Verdict(judge=name, p=pairs[-1], asks=tuple(asks), after_turn=tuple(pairs[:-1]), revision=revision)


def calibrated(asks: Sequence[Ask], how: Combine = "mean", calibrator: Calibrator | None = None) -> float:
    """Calibrated probability of answer 0 from what was asked at one moment.

    A side that was read alone is calibrated as a lone speaker: the one of a single consultancy, and each of the two of
    an ensembled one, whose verdicts are averaged then. Sides that were read together (debates, double consultancies)
    are no lone speakers.
    """
    lone = calibrator.lone if calibrator is not None else None
    alone = sorted({ask.sides for ask in asks if len(ask.sides) == 1})
    if calibrator is None or lone is None or not alone:
        p = _over_draws(asks, how)
        return p if calibrator is None else float(calibrator.apply([p])[0])
    return sum(_of_speaker([ask for ask in asks if ask.sides == sides], how, lone) for sides in alone) / len(alone)


def _of_speaker(asks: Sequence[Ask], how: Combine, lone: Calibrator) -> float:
    """Probability of answer 0 from what was asked of one side alone; the calibrator maps the side's own."""
    p, first = _over_draws(asks, how), asks[0].sides == ("A",)
    own = float(lone.apply([p if first else 1 - p])[0])
    return own if first else 1 - own


def _over_draws(asks: Sequence[Ask], how: Combine) -> float:
    """Probability of answer 0, the views of each draw averaged."""
    draws: dict[int, list[float]] = {}
    for ask in asks:
        draws.setdefault(ask.draw, []).append(probability(ask.logprobs))
    return combined([sum(one) / len(one) for one in draws.values()], how)
