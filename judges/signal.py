"""What a judge can tell, measured on a few games with known answers before debates are bought with it.

Small models may favour a label whatever is asked, say neither answer, or give every question the same probability. Such
a judge still returns verdicts, and everything that is trained or rated by them is noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from pydantic import Field

from debate_rl.engines.request import Engine, Scores
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.model import Judge, ask_model, view_choice
from debate_rl.judges.presentation import EQUAL_WITHIN, mean_probability, views
from debate_rl.judges.scores import hits
from debate_rl.records import Record

SIGNAL_FILE = "judge_signal.json"
"""File of a stage in which its judge's signal is kept."""
QUESTIONS = 16
"""Questions that are asked, at most."""
LONGEST_PASSAGE = 6000
"""Characters of a passage that is shown; longer ones would cost more than what they tell."""
LEAST_MASS = 0.5
MOST_BIAS = 0.2
LEAST_SPREAD = 0.02
CHANCE = 0.05
"""A judge can tell where guessing would be right as often with this probability at most."""


class SignalRow(Record):
    """A judge on questions of one kind.

    Example:
        SignalRow(protocol="open book", right=14, n=16, spread=0.21)
    """

    protocol: str
    right: float
    """Questions answered correctly; one of probability 1/2 counts half."""
    n: int
    failed: int = 0
    """Questions without a verdict."""
    spread: float
    """Standard deviation of the probability of answer 0."""


class Signal(Record):
    """What a judge can tell.

    Example:
        Signal(judge="base judge", first=0.8, mass=0.23, rows=(SignalRow(...),), warnings=("it favours ...",))
    """

    judge: str
    first: float = Field(ge=0, le=1)
    """Mean probability of the answer listed first; 1/2 without a preference."""
    mass: float
    """Mean probability of both answers together, as the judge words them."""
    rows: tuple[SignalRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The signal in one line."""
        parts = []
        for row in self.rows:
            failed = f", {row.failed} failed" if row.failed else ""
            parts.append(f"{row.protocol} {row.right:g} of {row.n} right (spread {row.spread:.2f}{failed})")
        asked = "; ".join(parts)
        return (
            f"judge {self.judge!r} on training questions: {asked}; gives what is listed first {self.first:.2f}, "
            f"both answers together {self.mass:.2g}"
        )


class _Reading(NamedTuple):
    """Verdicts on the questions of one kind, and how the judge favours what is listed first."""

    row: SignalRow
    first: list[float]


def measure_signal(
    questions: Sequence[Question], judge: Judge, blind: Protocol, open_book: Protocol, engine: Engine
) -> Signal | None:
    """Ask a judge a few questions with known answers, in both orders, without debates.

    Args:
        questions: the first with known answers are taken, 16 at most.
        judge: the judge, asked as it will be.
        blind: protocol that shows the question alone.
        open_book: protocol that shows the passage as well; asked where there is one that is not too long.
        engine: answers.

    Returns:
        The signal; None where no answer is known or no question got a verdict.

    Raises:
        UserError: the model is missing, or the engine can not be read as the judge wants.
    """
    known = [question for question in questions if question.correct is not None][:QUESTIONS]
    readable = [question for question in known if 0 < len(question.passage or "") <= LONGEST_PASSAGE]
    judge = judge.model_copy(update={"both_orders": True})
    groups = {
        "blind": [open_transcript(question, blind, {}) for question in known],
        "open book": [open_transcript(question, open_book, {}) for question in readable],
    }
    # Without a debate there is nothing but what this readout subtracts.
    if judge.readout == "answers_pmi":
        groups.pop("blind")
    readings = []
    games: list[Transcript] = []
    for name, group in groups.items():
        reading = _reading(name, group, judge, engine) if group else None
        if reading is not None:
            readings.append(reading)
            games += group
    if not readings:
        return None
    first = list(chain.from_iterable(reading.first for reading in readings))
    signal = Signal(
        judge=judge.name,
        first=sum(first) / len(first),
        mass=_answer_mass(games, judge, engine),
        rows=tuple(reading.row for reading in readings),
    )
    return signal.model_copy(update={"warnings": tuple(_warnings(signal, judge))})


def _reading(name: str, games: Sequence[Transcript], judge: Judge, engine: Engine) -> _Reading | None:
    """Judge games of one kind; None where none got a verdict."""
    p = []
    p_correct = []
    first = []
    for game, verdict in zip(games, ask_model(games, judge, engine), strict=True):
        if isinstance(verdict, Failure):
            continue
        p.append(verdict.p[0])
        own = verdict.p[game.question.correct or 0]
        # Both orders of a judge that takes a label add up to 1/2, but for rounding.
        p_correct.append(0.5 if abs(own - 0.5) <= EQUAL_WITHIN else own)
        first.append(_first(verdict))
    if not p:
        return None
    row = SignalRow(
        protocol=name,
        right=float(hits(p_correct).sum()),
        n=len(p),
        failed=len(games) - len(p),
        spread=float(np.std(p)),
    )
    return _Reading(row, first)


def _first(verdict: Verdict) -> float:
    """Mean probability of the answer listed first, over both orders."""
    return (mean_probability(verdict, (0, 1)) + 1 - mean_probability(verdict, (1, 0))) / 2


def _answer_mass(games: Sequence[Transcript], judge: Judge, engine: Engine) -> float:
    """Mean probability of both answers together."""
    choices = []
    for game in games:
        choices += [view_choice(game, view, judge) for view in views(game)]
    # The verdicts hold scores from which something may be subtracted. A store has these answers already.
    masses = []
    for scores in engine.choose(choices):
        if isinstance(scores, Scores):
            masses.append(sum(math.exp(logprob) for logprob in scores.logprobs))
    return sum(masses) / len(masses)


def _warnings(signal: Signal, judge: Judge) -> list[str]:
    """What speaks against trusting a judge."""
    warnings = []
    best = max(signal.rows, key=lambda row: row.right / row.n)
    if _chance_of(best.right, best.n) > CHANCE:
        warnings.append(
            f"it can not tell right answers from wrong ones ({best.right:g} of {best.n} right at best, as a coin may); "
            "finetune it (a judge stage), choose another model, or set judge.readout answers"
        )
    if max(row.spread for row in signal.rows) < LEAST_SPREAD:
        warnings.append("it gives nearly every question the same probability")
    if abs(signal.first - 0.5) > MOST_BIAS:
        place = "first" if signal.first > 0.5 else "second"
        warnings.append(f"it favours the answer listed {place}, whatever it says; set judge.debias prior")
    # The words of an answer are unlikely beside all other texts, and are only compared with each other.
    if judge.readout == "letters" and signal.mass < LEAST_MASS:
        warnings.append(
            f"it would rather say something else: both answers together have probability {signal.mass:.2g}; "
            "set judge.readout answers"
        )
    return warnings


def _chance_of(right: float, n: int) -> float:
    """Probability that guessing is right at least as often."""
    ways = sum(math.comb(n, k) for k in range(math.ceil(right), n + 1))
    return float(ways / 2**n)
