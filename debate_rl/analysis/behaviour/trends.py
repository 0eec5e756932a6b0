"""What goes with strength: behaviour over rating and over judge accuracy, so that hacking of the judge shows.

A player that wins more while the judge is right less often, or while its quotes are less true, persuades by something
other than the truth. Rank correlations over players say which way each measure goes; with three players they can only
be -1, -.5, .5 or 1, ties apart, so read the interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from debate_rl.analysis.behaviour.behaviour import MEASURES, spoken, wins
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect, Floats, bootstrap_totals
from debate_rl.judges.scores import hits
from debate_rl.records import Record

STRENGTH, JUDGE = "strength", "judge accuracy"
LEAST_PLAYERS = 3


class Trend(Record):
    """How a measure goes with the strength of the players and with judge accuracy.

    Example:
        Trend(measure="valid", with_rating=Effect(value=0.74, low=0.31, high=0.95, ...), with_accuracy=...)
    """

    measure: str
    """A field of `Behaviour`, or "judge accuracy"."""
    with_rating: Effect | None
    """Spearman's correlation over players with the judge's mean probability for them against the others, which ranks
    as the ratings of a round robin do; taken anew for each resample. None where the players have two values or one."""
    with_accuracy: Effect | None
    """The same with judge accuracy in their self-play."""


def trends(legs: Sequence[Leg]) -> list[Trend]:
    """Judge accuracy, then each behaviour, over the players that met others and themselves; none below three of them.

    Intervals are over stories; of each resample every measure and both scales are taken anew.
    """
    sums = _sums(legs)
    scales = {name: set(found) for name, found in sums.items() if name in (STRENGTH, JUDGE)}
    players = sorted(set.intersection(*scales.values())) if len(scales) == 2 else []
    if len(players) < LEAST_PLAYERS:
        return []
    measures = [name for name in (JUDGE, *MEASURES) if all(player in sums[name] for player in players)]
    return [
        Trend(
            measure=name,
            with_rating=_correlation(sums[STRENGTH], sums[name], players),
            with_accuracy=None if name == JUDGE else _correlation(sums[JUDGE], sums[name], players),
        )
        for name in measures
    ]


_Sums = dict[str, dict[str, list[float]]]
"""By player and story, the sum of a measure and how many it is of."""


def _sums(legs: Sequence[Leg]) -> dict[str, _Sums]:
    """By measure, player and story."""
    said = spoken(legs)
    rows: dict[str, Iterable[tuple[str, str, float]]] = {
        STRENGTH: ((win.player, win.cluster, win.p) for win in wins(legs)),
        JUDGE: (
            (game.players["A"], game.question.cluster, float(hits([leg.p_correct])[0]))
            for leg in legs
            for game in [leg.transcript]
            if leg.p_correct is not None and len(game.players) == 2 and len(set(game.players.values())) == 1
        ),
    }
    for name, measure in MEASURES.items():
        rows[name] = [(one.player, one.question.cluster, float(measure(one))) for one in said]
    found: dict[str, _Sums] = {}
    for name, entries in rows.items():
        for player, cluster, value in entries:
            cell = found.setdefault(name, {}).setdefault(player, {}).setdefault(cluster, [0.0, 0.0])
            cell[0] += value
            cell[1] += 1
    return found


def _correlation(one: _Sums, two: _Sums, players: Sequence[str]) -> Effect | None:
    """Spearman's correlation of two measures over players."""
    from scipy.stats import rankdata

    stories = sorted({cluster for found in (one, two) for player in players for cluster in found[player]})
    columns = np.hstack([_table(found[player], stories) for found in (one, two) for player in players])

    def statistic(sums: Floats) -> Floats:
        top, bottom = sums[:, 0::2], sums[:, 1::2]
        means = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0).round(12)
        ranks = [rankdata(part, axis=1) for part in np.split(means, 2, axis=1)]
        x, y = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
        size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        found = np.divide((x * y).sum(axis=1), size, out=np.full(len(x), np.nan), where=size > 0)
        return np.where(np.isnan(means).any(axis=1), np.nan, found)

    totals = columns.sum(axis=0)
    different = [len(set((part[0::2] / part[1::2]).round(12))) for part in np.split(totals, 2)]
    return bootstrap_totals(statistic, columns, stories).effect() if min(different) >= LEAST_PLAYERS else None


def _table(found: Mapping[str, Sequence[float]], stories: Sequence[str]) -> Floats:
    """(k, 2) sums and counts of each story."""
    return np.array([found.get(story, (0.0, 0.0)) for story in stories])
