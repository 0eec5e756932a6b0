"""Behaviour of a tournament's players in one record: by side, relevance of quotes, differences, trends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from debate_rl.analysis.behaviour.behaviour import Behaviour, by_side, spoken
from debate_rl.analysis.behaviour.relevance import Relevance, relevance
from debate_rl.analysis.behaviour.separation import Separation, separation
from debate_rl.analysis.behaviour.trends import Trend, trends
from debate_rl.engines.request import Engine
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge
from debate_rl.records import Record


class Conduct(Record):
    """Behaviour by side, relevance of quotes, differences between players, and trends with strength.

    Example:
        Conduct(sides=(Behaviour(player="sft", argues="correct", ...), ...), relevance=(Relevance(...), ...),
                separations=(Separation(first="base", second="sft", ...), ...),
                trends=(Trend(measure="valid", ...), ...))
    """

    sides: tuple[Behaviour, ...] = ()
    relevance: tuple[Relevance, ...] = ()
    separations: tuple[Separation, ...] = ()
    trends: tuple[Trend, ...] = ()


def conduct(
    legs: Sequence[JudgedDebate], players: Sequence[str], reader: AnyJudge, engine: Engine, readings: int = 0
) -> Conduct:
    """Measure the behaviour of a tournament's players.

    Args:
        legs: cross-play and self-play.
        players: neighbours in this order are compared.
        reader: guesses the side from the quotes.
        engine: answers for the reader.
        readings: speeches of each player and side that the reader is shown; 0 skips the readings.
    """
    every = spoken(legs)
    prompts = legs[0].transcript.protocol.prompts if legs else "default"
    separations = [separation(every, first, second) for first, second in pairwise(players)]
    return Conduct(
        sides=tuple(by_side(legs)),
        relevance=tuple(relevance(every, reader, engine, readings, prompts)) if readings else (),
        separations=tuple(row for row in separations if row is not None),
        trends=tuple(trends(legs)),
    )
