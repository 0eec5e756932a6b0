"""Slope of judge accuracy in self-play over the debaters' rating.

The table of effects, the metrics of a stage and the page all take the slope from here, so they show the same one. Each
resample of stories refits the ratings and recomputes the accuracies: the interval holds the noise of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from debate_rl.arena.bradley_terry import RIDGE, fit, refits, sum_matches
from debate_rl.arena.ratings import ELO, RESAMPLES
from debate_rl.arena.tournament import outcomes
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Floats, Replicates, resample
from debate_rl.judges.scores import hits
from debate_rl.records import Record


class Slope(Record):
    """Slope of judge accuracy in self-play over the players' rating, under one protocol.

    Example:
        Slope(protocol="debate", players=("base", "sft", "dpo"), accuracy=Effect(value=0.13, low=0.09, high=0.17, ...))
    """

    protocol: str
    players: tuple[str, ...]
    """The players with a rating."""
    accuracy: Effect
    """Change of accuracy for 100 Elo points."""


class Rated(NamedTuple):
    """The games by which debaters are rated, and the settings of the fit.

    Example:
        Rated(legs=[JudgedDebate(...), ...], ridge=0.1)
    """

    legs: Sequence[JudgedDebate]
    """Games of players with each other are used; all others are left out."""
    ridge: float = RIDGE
    resamples: int = RESAMPLES


class Measured(NamedTuple):
    """A slope in shares of correct verdicts for 100 Elo points."""

    players: tuple[str, ...]
    replicates: Replicates


def measure(rated: Rated, alone: Sequence[JudgedDebate], stories: Collection[str] | None = None) -> Measured | None:
    """Least-squares slope over players of their judge accuracy in self-play; None for fewer than two players.

    Only stories that stand in both kinds of games are used, so that both are resampled together.

    Args:
        rated: the games that give the ratings.
        alone: games of players with themselves; in a consultancy, games of a lone player.
        stories: use only these; slopes over the same stories have the same draws.
    """
    cross = [leg for leg in _judged(rated.legs) if len(set(leg.transcript.players.values())) == 2]
    # A player without games against others has no rating, and no place on the x axis.
    rated_players = _players(cross)
    own = [leg for leg in _judged(alone) if _player(leg) in rated_players]
    shared = {_story(leg) for leg in cross} & {_story(leg) for leg in own}
    if stories is not None:
        shared &= set(stories)
    cross = [leg for leg in cross if _story(leg) in shared]
    own = [leg for leg in own if _story(leg) in shared]
    # Again, over the shared stories only: a player may have met others on other stories alone.
    rated_players = _players(cross)
    own = [leg for leg in own if _player(leg) in rated_players]
    players = tuple(dict.fromkeys(_player(leg) for leg in own))
    if len(players) < 2:
        return None
    elo = resampled_elo(cross, players, rated)
    # The first draw is the data itself: every story once.
    draws = np.concatenate([np.ones((1, len(shared))), *resample(len(shared), rated.resamples)])
    values = _least_squares(elo / 100, _accuracies(own, players, draws))
    if np.isnan(values[0]):
        return None
    return Measured(players, Replicates(float(values[0]), values[1:], len(own), len(shared)))


def slopes(legs: Mapping[tuple[str, str], Sequence[JudgedDebate]], rated: Rated) -> list[Slope]:
    """The slope under every protocol with speeches.

    Args:
        legs: self-play by (protocol, player).
        rated: the games that give the ratings.
    """
    by_protocol: dict[str, list[JudgedDebate]] = {}
    for (protocol, _), group in legs.items():
        by_protocol.setdefault(protocol, []).extend(leg for leg in group if leg.transcript.players)
    slopes: list[Slope] = []
    for protocol, alone in by_protocol.items():
        slope = measure(rated, alone)
        if slope is not None:
            slopes.append(Slope(protocol=protocol, players=slope.players, accuracy=slope.replicates.effect()))
    return slopes


def stories_of(legs: Sequence[JudgedDebate]) -> set[str]:
    """Stories with a verdict."""
    return {_story(leg) for leg in _judged(legs)}


def _judged(legs: Sequence[JudgedDebate]) -> list[JudgedDebate]:
    """Legs of players with a verdict on a question whose answer is known."""
    return [leg for leg in legs if leg.failure is None and leg.p_correct is not None and leg.transcript.players]


def _story(leg: JudgedDebate) -> str:
    return leg.transcript.question.cluster


def _player(leg: JudgedDebate) -> str:
    return next(iter(leg.transcript.players.values()))


def _players(legs: Sequence[JudgedDebate]) -> set[str]:
    names: set[str] = set()
    for leg in legs:
        names.update(leg.transcript.players.values())
    return names


def resampled_elo(cross: Sequence[JudgedDebate], players: Sequence[str], rated: Rated) -> Floats:
    """Ratings of the data and of resamples of its stories.

    Args:
        cross: games of players with each other.
        players: (P,) the columns.
        rated: ridge and number of resamples; its own games are not read.

    Returns:
        (1 + resamples, P) Elo points around 0, the data's first.
    """
    cells = sum_matches(outcomes(cross))
    # `refits` draws stories as `resample` does for the same count: row by row, ratings and accuracies have one draw.
    fits = [fit(cells, rated.ridge)[None]]
    for theta, _, _ in refits(cells, rated.ridge, rated.resamples, 0):
        fits.append(theta)
    columns = [cells.players.index(name) for name in players]
    return ELO * np.concatenate(fits)[:, columns]


def _accuracies(alone: Sequence[JudgedDebate], players: Sequence[str], draws: Floats) -> Floats:
    """(1 + resamples, P) judge accuracy with each player; stories in sorted order, as everywhere."""
    stories = sorted({_story(leg) for leg in alone})
    story_index = {name: index for index, name in enumerate(stories)}
    sums, counts = np.zeros((2, len(story_index), len(players)))
    right = hits([leg.p_correct for leg in alone if leg.p_correct is not None])
    for leg, hit in zip(alone, right, strict=True):
        cell = story_index[_story(leg)], players.index(_player(leg))
        sums[cell] += hit
        counts[cell] += 1
    with np.errstate(invalid="ignore"):  # a resample without a game of some player gives NaN
        return (draws @ sums) / (draws @ counts)


def _least_squares(x: Floats, y: Floats) -> Floats:
    """(B,) slopes of (B, P) points, each row a fit of its own; NaN where all x are the same to rounding."""
    x = x - x.mean(axis=1, keepdims=True)
    spread = (x**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, (x * y).sum(axis=1) / spread, np.nan)
