"""What a judge is asked about a transcript, and how its answers become a verdict. Shared by every kind of judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from debate_rl.engines.request import Message
from debate_rl.game.prompts import Wording, judge_messages
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.judges.calibration import LEAST, Calibrator
from debate_rl.records import Record

Presentation = tuple[tuple[Side, ...], tuple[int, int]]
"""What the judge is shown: the sides in the order they appear, and the order in which the answers are listed."""

EQUAL_WITHIN = 1e-9
"""Probabilities of a judge no further apart than this are equal: rounding of sums in another order is no preference."""

Combine = Literal["mean", "majority", "weighted"]
"""How several probabilities become one.

mean: their mean. majority: the share that favours answer 0; a probability of 1/2 counts half. weighted: that share with
each vote weighted by how sure it is, |2p - 1| (our choice of weight)."""


class WritingJudge(Record):
    """Settings of a judge that writes a text before its verdict; see `reasoning` and `stated` for the two kinds."""

    name: str
    model: str
    adapter: str | None = None
    both_orders: bool = True
    votes: int = Field(default=1, ge=1)
    """Texts drawn for each presentation, each with its own seed; several need a temperature above 0."""
    combine: Combine = "mean"
    """How the votes become one probability; each vote is the mean over both orders."""
    temperature: float = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    """Longest text, in tokens."""
    seed: int = 0
    calibrator: Calibrator | None = None


@dataclass(frozen=True)
class View:
    """One question to a judge: the sides it reads, the order of the answers, and how many turns it has seen.

    Example:
        View(sides=("A", "B"), order=(0, 1), after_turn=None)   # after the last turn
    """

    sides: tuple[Side, ...]
    order: tuple[int, int]
    after_turn: int | None = None


def presentations(transcript: Transcript, both_orders: bool = True) -> list[Presentation]:
    """List what a judge is shown of a game: both sides together or each alone, in one order of answers or both."""
    present = transcript.present
    shown: list[tuple[Side, ...]] = [(side,) for side in present]
    if transcript.protocol.judge_sees == "together" or len(present) < 2:
        shown = [present]
    presentations: list[Presentation] = []
    for sides in shown:
        presentations.append((sides, (0, 1)))
        if both_orders:
            presentations.append((sides[::-1], (1, 0)))
    return presentations


def views(transcript: Transcript, both_orders: bool = True) -> list[View]:
    """List every question that the protocol and the judge want asked about a transcript, the final ones last."""
    moments: list[int | None] = [None]
    if transcript.protocol.verdict_after_each_turn:
        moments = [*range(1, transcript.protocol.turns), None]
    shown = presentations(transcript, both_orders)
    asked = []
    for moment in moments:
        asked += [View(sides, order, moment) for sides, order in shown]
    return asked


def drawn_views(transcript: Transcript, both_orders: bool, votes: int) -> list[tuple[View, int]]:
    """List the views of a transcript for a judge that samples: each with the numbers of its draws, 0 to votes - 1."""
    drawn = []
    for view in views(transcript, both_orders):
        drawn += [(view, draw) for draw in range(votes)]
    return drawn


def prompt(transcript: Transcript, view: View, reply: Wording | None = None) -> tuple[Message, ...]:
    """Render the judge's prompt for a view, up to where it answers with a candidate (worded as `reply` says)."""
    return as_messages(judge_messages(transcript, view.sides, view.order, view.after_turn, reply))


def as_messages(messages: Sequence[dict[str, str]]) -> tuple[Message, ...]:
    """Convert rendered messages to the engine's type."""
    return tuple(Message.model_validate(message) for message in messages)


def probability(logprobs: tuple[float, float]) -> float:
    """Probability of answer 0 from the two raw log-probabilities."""
    # math.exp overflows above 709.
    gap = max(min(logprobs[1] - logprobs[0], 700.0), -700.0)
    return 1 / (1 + math.exp(gap))


def logprobs_of(p: float) -> tuple[float, float]:
    """Log-probabilities of answers 0 and 1 from the probability of answer 0, clipped to [LEAST, 1 - LEAST]."""
    clipped = min(max(p, LEAST), 1 - LEAST)
    return math.log(clipped), math.log1p(-clipped)


def mean_probability(verdict: Verdict, order: tuple[int, int]) -> float:
    """Mean final probability of answer 0 in one presentation order; for a panel, the mean over its members."""
    if verdict.members:
        p = [mean_probability(member, order) for member in verdict.members]
        return sum(p) / len(p)
    p = []
    for ask in verdict.asks:
        if ask.after_turn is None and ask.order == order:
            p.append(probability(ask.logprobs))
    return sum(p) / len(p)


def combined(p: Sequence[float], how: Combine) -> float:
    """Combine several probabilities into one (see `Combine`).

    Example:
        >>> combined([0.9, 0.4, 0.45], "mean"), combined([0.9, 0.4, 0.45], "majority")
        (0.5833333333333334, 0.3333333333333333)
    """
    if how == "mean":
        return sum(p) / len(p)
    weights = [1.0] * len(p)
    if how == "weighted":
        weights = [abs(2 * vote - 1) for vote in p]
    total = sum(weights)
    # Weighted votes that are all 1/2 have no weight at all.
    if not total:
        return 0.5
    favour = 0.0
    for vote, weight in zip(p, weights, strict=True):
        if vote > 0.5:
            favour += weight
        elif vote == 0.5:
            favour += weight * 0.5
    return favour / total


def verdict(
    name: str,
    asked: Sequence[Ask | Failure],
    calibrator: Calibrator | None = None,
    revision: str | None = None,
    combine: Combine = "mean",
    in_logits: bool = False,
) -> Verdict | Failure:
    """Build the verdict on one transcript from the judge's answers, or return the first failure among them.

    The views of one draw are averaged (both orders, both sides alone), then draws are combined, then the judge's
    calibrator is applied (see `calibrated` for one with a map for lone speakers).

    Args:
        name: the judge's name.
        asked: answers to all of the transcript's views.
        calibrator: maps the combined probability; None leaves it as it is.
        revision: fingerprint of the model that answered.
        combine: how several draws become one.
        in_logits: average presentation orders in log-odds, for a judge that is asked once a view.
    """
    asks = []
    for ask in asked:
        if isinstance(ask, Failure):
            return ask
        asks.append(ask)
    moments: list[int | None] = [*sorted({ask.after_turn for ask in asks if ask.after_turn is not None}), None]
    pairs = []
    for moment in moments:
        p = calibrated([ask for ask in asks if ask.after_turn == moment], combine, calibrator, in_logits)
        pairs.append((p, 1 - p))
    return Verdict(judge=name, p=pairs[-1], asks=tuple(asks), after_turn=tuple(pairs[:-1]), revision=revision)


def calibrated(
    asks: Sequence[Ask], how: Combine = "mean", calibrator: Calibrator | None = None, in_logits: bool = False
) -> float:
    """Calibrated probability of answer 0 from the answers given at one moment.

    A side that was read alone is calibrated as a lone speaker: the one of a single consultancy, or each of the two of
    an ensembled consultancy, whose results are then averaged. Sides read together (debates, double consultancies) are
    not lone speakers.
    """
    if calibrator is None:
        return _pooled(asks, how, in_logits)
    alone = sorted({ask.sides for ask in asks if len(ask.sides) == 1})
    if calibrator.lone is None or not alone:
        return float(calibrator.apply([_pooled(asks, how, in_logits)])[0])
    total = 0.0
    for sides in alone:
        p = _pooled([ask for ask in asks if ask.sides == sides], how, in_logits)
        # The map for lone speakers takes the probability of the speaker's own answer, not of answer 0.
        if sides == ("A",):
            total += float(calibrator.lone.apply([p])[0])
        else:
            total += 1 - float(calibrator.lone.apply([1 - p])[0])
    return total / len(alone)


def _pooled(asks: Sequence[Ask], how: Combine, in_logits: bool) -> float:
    """Probability of answer 0 from all views of one moment."""
    return _over_orders(asks) if in_logits else _over_draws(asks, how)


def _over_orders(asks: Sequence[Ask]) -> float:
    """Probability of answer 0: orders averaged in log-odds, then sides that were read apart in probability."""
    # In log-odds a preference for a position cancels whatever its size. In probability it only pulls towards 1/2.
    gaps: dict[frozenset[Side], list[float]] = {}
    for ask in asks:
        gaps.setdefault(frozenset(ask.sides), []).append(ask.logprobs[0] - ask.logprobs[1])
    total = 0.0
    for values in gaps.values():
        total += probability((sum(values) / len(values), 0.0))
    return total / len(gaps)


def _over_draws(asks: Sequence[Ask], how: Combine) -> float:
    """Probability of answer 0: the views of each draw averaged, then the draws combined."""
    draws: dict[int, list[float]] = {}
    for ask in asks:
        draws.setdefault(ask.draw, []).append(probability(ask.logprobs))
    return combined([sum(values) / len(values) for values in draws.values()], how)
