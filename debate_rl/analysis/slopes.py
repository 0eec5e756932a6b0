"""How judge accuracy in self-play moves with the debaters' rating: the one place where such a slope is measured.

A table of effects, a stage's metrics and its page show the same slope, so all of them take it from here. In each
resample of stories both the ratings and the accuracies are made anew: the interval holds the noise of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from debate_rl.arena.bradley_terry import RIDGE, fit, refits, sum_matches
from debate_rl.arena.ratings import ELO, RESAMPLES
from debate_rl.arena.tournament import outcomes
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect, Floats, Replicates, resample
from debate_rl.judges.scores import hits
from debate_rl.records import Record


class Slope(Record):
    """How judge accuracy in self-play moves with the players' rating, under one protocol.

    Example:
        Slope(protocol="debate", players=("base", "sft", "dpo"), accuracy=Effect(value=0.13, low=0.09, high=0.17, ...))
    """

    protocol: str
    players: tuple[str, ...]
    """Those with a rating."""
    accuracy: Effect
    """For 100 Elo points."""


class Rated(NamedTuple):
    """The games by which debaters are rated, and how.

    Example:
        Rated(legs=[Leg(...), ...], ridge=0.1)
    """

    legs: Sequence[Leg]
    """Of players with each other; all others are left out."""
    ridge: float = RIDGE
    resamples: int = RESAMPLES


class Measured(NamedTuple):
    """A slope of shares right for 100 Elo points."""

    players: tuple[str, ...]
    replicates: Replicates


def measure(rated: Rated, alone: Sequence[Leg], stories: Collection[str] | None = None) -> Measured | None:
    """Least-squares slope over players of their judge accuracy in self-play; None for fewer than two of them.

    Only stories that stand in both kinds of games are used, so that both are resampled together.

    Args:
        rated: the games that give the ratings.
        alone: games of players with themselves, of a consultancy with nobody.
        stories: use no other ones; slopes over the same stories are of the same draws.
    """
    cross = [leg for leg in _judged(rated.legs) if len(set(leg.transcript.players.values())) == 2]
    known = {name for leg in cross for name in leg.transcript.players.values()}
    own = [leg for leg in _judged(alone) if _player(leg) in known]
    shared = {_story(leg) for leg in cross} & {_story(leg) for leg in own}
    shared = shared if stories is None else shared & set(stories)
    cross, own = ([leg for leg in legs if _story(leg) in shared] for legs in (cross, own))
    met = {name for leg in cross for name in leg.transcript.players.values()}
    players = tuple(dict.fromkeys(_player(leg) for leg in own if _player(leg) in met))
    own = [leg for leg in own if _player(leg) in players]
    if len(players) < 2:
        return None
    elo = _elo(cross, players, rated)
    draws = np.concatenate([np.ones((1, len(shared))), *resample(len(shared), rated.resamples)])
    values = _least_squares(elo / 100, _accuracies(own, players, draws))
    if np.isnan(values[0]):
        return None
    return Measured(players, Replicates(float(values[0]), values[1:], len(own), len(shared)))


def slopes(legs: Mapping[tuple[str, str], Sequence[Leg]], rated: Rated) -> list[Slope]:
    """The slope under every protocol with speeches.

    Args:
        legs: self-play by (protocol, player).
        rated: the games that give the ratings.
    """
    found: list[Slope] = []
    for protocol in dict.fromkeys(protocol for protocol, _ in legs):
        alone = [leg for (name, _), own in legs.items() if name == protocol for leg in own if leg.transcript.players]
        slope = measure(rated, alone)
        if slope is not None:
            found.append(Slope(protocol=protocol, players=slope.players, accuracy=slope.replicates.effect()))
    return found


def stories_of(legs: Sequence[Leg]) -> set[str]:
    """Stories with a verdict."""
    return {_story(leg) for leg in _judged(legs)}


def _judged(legs: Sequence[Leg]) -> list[Leg]:
    """Legs that count: with a verdict on a question whose answer is known."""
    return [leg for leg in legs if leg.failure is None and leg.p_correct is not None and leg.transcript.players]


def _story(leg: Leg) -> str:
    return leg.transcript.question.cluster


def _player(leg: Leg) -> str:
    return next(iter(leg.transcript.players.values()))


def _elo(cross: Sequence[Leg], players: Sequence[str], rated: Rated) -> Floats:
    """(1 + resamples, P) ratings, the data's first; stories are drawn as by `resample` with the same count."""
    cells = sum_matches(outcomes(cross))
    fits = [fit(cells, rated.ridge)[None], *(theta for theta, *_ in refits(cells, rated.ridge, rated.resamples, 0))]
    return ELO * np.concatenate(fits)[:, [cells.players.index(name) for name in players]]


def _accuracies(alone: Sequence[Leg], players: Sequence[str], draws: Floats) -> Floats:
    """(1 + resamples, P) judge accuracy with each player, stories in sorted order as everywhere."""
    stories = {name: place for place, name in enumerate(sorted({_story(leg) for leg in alone}))}
    sums, counts = np.zeros((2, len(stories), len(players)))
    right = hits([leg.p_correct for leg in alone if leg.p_correct is not None])
    for leg, hit in zip(alone, right, strict=True):
        at = stories[_story(leg)], players.index(_player(leg))
        sums[at] += hit
        counts[at] += 1
    with np.errstate(invalid="ignore"):  # a resample without a game of a player: NaN
        return (draws @ sums) / (draws @ counts)


def _least_squares(x: Floats, y: Floats) -> Floats:
    """(B,) slopes of (B, P) points, each row a fit of its own; NaN where all x are the same to rounding."""
    x = x - x.mean(axis=1, keepdims=True)
    spread = (x**2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, (x * y).sum(axis=1) / spread, np.nan)
