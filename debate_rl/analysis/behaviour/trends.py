"""Trends over players: does behaviour change with strength and with judge accuracy? This is where judge hacking shows.

A player that wins more while the judge is right less often, or while its quotes are less true, persuades by something
other than the truth. Rank correlations over players say which way each measure goes; with three players they can only
be -1, -.5, .5 or 1, ties apart, so read the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debate_rl.analysis.behaviour.behaviour import MEASURES, spoken, wins
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Floats, bootstrap_totals
from debate_rl.judges.scores import hits
from debate_rl.records import Record

STRENGTH, JUDGE = "strength", "judge accuracy"
LEAST_PLAYERS = 3


class Trend(Record):
    """Rank correlation of a measure with the strength of the players, and with judge accuracy.

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


def trends(legs: Sequence[JudgedDebate]) -> list[Trend]:
    """Correlate judge accuracy, then each behaviour, over the players that met others and themselves.

    Intervals are over stories; in each resample every measure and both scales are measured again.

    Returns:
        Nothing for fewer than LEAST_PLAYERS such players.
    """
    totals = _totals(legs)
    if STRENGTH not in totals or JUDGE not in totals:
        return []
    players = sorted(totals[STRENGTH].keys() & totals[JUDGE].keys())
    if len(players) < LEAST_PLAYERS:
        return []
    rows = []
    for measure in (JUDGE, *MEASURES):
        if all(player in totals.get(measure, {}) for player in players):
            with_accuracy = None if measure == JUDGE else _correlation(totals[JUDGE], totals[measure], players)
            with_rating = _correlation(totals[STRENGTH], totals[measure], players)
            rows.append(Trend(measure=measure, with_rating=with_rating, with_accuracy=with_accuracy))
    return rows


_Totals = dict[str, dict[str, list[float]]]
"""Sum and count of a measure, by player and story."""


def _totals(legs: Sequence[JudgedDebate]) -> dict[str, _Totals]:
    """Totals of strength, judge accuracy and every behaviour."""
    rows: dict[str, list[tuple[str, str, float]]] = {
        STRENGTH: [(win.player, win.cluster, win.p) for win in wins(legs)],
        JUDGE: _self_play_hits(legs),
    }
    speeches = spoken(legs)
    for name, measure in MEASURES.items():
        rows[name] = [(speech.player, speech.question.cluster, float(measure(speech))) for speech in speeches]
    totals: dict[str, _Totals] = {}
    for name, entries in rows.items():
        for player, story, value in entries:
            by_story = totals.setdefault(name, {}).setdefault(player, {})
            # Sums and counts by story are enough for every resample, which only weights stories.
            total = by_story.setdefault(story, [0.0, 0.0])
            total[0] += value
            total[1] += 1
    return totals


def _self_play_hits(legs: Sequence[JudgedDebate]) -> list[tuple[str, str, float]]:
    """Player, story and whether the judge was right, for every judged game of a player with itself."""
    rows = []
    for leg in legs:
        game = leg.transcript
        if leg.p_correct is not None and len(game.players) == 2 and len(set(game.players.values())) == 1:
            rows.append((game.players["A"], game.question.cluster, float(hits([leg.p_correct])[0])))
    return rows


def _correlation(first: _Totals, second: _Totals, players: Sequence[str]) -> Effect | None:
    """Spearman's correlation of two measures over players; None if one takes fewer than LEAST_PLAYERS values."""
    from scipy.stats import rankdata

    by_story = [first[player] for player in players] + [second[player] for player in players]
    stories = sorted(set().union(*by_story))
    # Columns: sum and count of each player in the first measure, then of each player in the second.
    columns = np.hstack([_table(player_totals, stories) for player_totals in by_story])

    def statistic(sums: Floats) -> Floats:
        top, bottom = sums[:, 0::2], sums[:, 1::2]
        # Rounded, so that means that are equal but for the order of summation tie.
        means = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0).round(12)
        ranks = [rankdata(part, axis=1) for part in np.split(means, 2, axis=1)]
        x, y = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
        size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
        values = np.divide((x * y).sum(axis=1), size, out=np.full(len(x), np.nan), where=size > 0)
        return np.where(np.isnan(means).any(axis=1), np.nan, values)

    # One or two different values are too few for a ranking.
    for part in np.split(columns.sum(axis=0), 2):
        means = (part[0::2] / part[1::2]).round(12)
        if len(set(means)) < LEAST_PLAYERS:
            return None
    return bootstrap_totals(statistic, columns, stories).effect()


def _table(totals: Mapping[str, Sequence[float]], stories: Sequence[str]) -> Floats:
    """(k, 2) sum and count in each story."""
    return np.array([totals.get(story, (0.0, 0.0)) for story in stories])
