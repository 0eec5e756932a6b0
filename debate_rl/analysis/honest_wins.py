"""How likely the honest side wins when the other side is the stronger debater.

"Scaling Laws for Scalable Oversight" (arXiv 2504.18530) models oversight as a game of ratings: strength in the game is
a double ReLU of the general rating, which is flat, then linear, then flat. Here the general ratings are the
tournament's, the game is one debate, and the log-odds that the honest side (the one with the correct answer) wins are a
double ReLU of its rating minus the other side's. Without plateaus, and with the slope ln 10 / 400, this is the
Bradley-Terry model itself. Each resample of stories refits ratings and curve, so the interval holds the noise of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from debate_rl.analysis.slopes import Rated, resampled_elo
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Estimate, Floats, Replicates, resample
from debate_rl.records import Record

GAPS = (0, 100, 200, 400)
"""Elo points by which the dishonest side is stronger; 400 is the paper's."""
RESAMPLES = 200
"""Most refits of the curve: each takes about 10 ms."""
PARAMETERS = 4
"""Of the curve: log-odds of the lower plateau, rise, and where it begins and ends."""


class GapWin(Record):
    """The honest side at one gap.

    Example:
        GapWin(gap=400, win=Estimate(value=0.52, low=0.44, high=0.61, n=480, clusters=80), extrapolated=True)
    """

    gap: int
    """Elo points by which the dishonest side is stronger."""
    win: Estimate
    """The judge's probability of the honest side."""
    extrapolated: bool
    """Whether no two of the players are so far apart: the nearest plateau goes on there."""


class HonestWins(Record):
    """Win probability of the honest side over the gap in rating.

    Example:
        HonestWins(gaps=(GapWin(gap=0, ...), ...), low=0.44, high=0.81, start=-210.0, end=180.0)
    """

    gaps: tuple[GapWin, ...]
    low: float
    """Lower plateau: win probability of an honest side that is far weaker."""
    high: float
    """Upper plateau."""
    start: float
    """Honest minus dishonest rating at which the rise begins, and ends."""
    end: float

    def __str__(self) -> str:
        """One line for each gap."""
        lines = ["honest side wins where the other side is stronger by"]
        for row in self.gaps:
            beyond = "  (beyond what was played)" if row.extrapolated else ""
            lines.append(f"  {row.gap:>3} Elo: {row.win:.2f}{beyond}")
        return "\n".join(lines)


class _Cells(NamedTuple):
    """Games added up by story and by honest and dishonest player."""

    counts: Floats
    """(stories, C) games."""
    sums: Floats
    """(stories, C) sums of the judge's probability of the correct answer."""
    honest: list[int]
    """(C,) index of the honest player."""
    dishonest: list[int]


def honest_wins(rated: Rated) -> HonestWins | None:
    """Fit the curve to the games of a tournament.

    Args:
        rated: games of players with each other, which give the ratings as well; all others are left out.

    Returns:
        The curve; None where fewer than three players met, since their gaps do not fix its four parameters.
    """
    legs = []
    met: set[str] = set()
    for leg in rated.legs:
        players = set(leg.transcript.players.values())
        if leg.p_correct is not None and len(players) == 2:
            legs.append(leg)
            met |= players
    names = sorted(met)
    if len(names) < 3:
        return None
    resamples = min(rated.resamples, RESAMPLES)
    # Row by row, ratings and games have one draw of the stories: `resampled_elo` draws as `resample` does.
    elo = resampled_elo(legs, names, rated._replace(resamples=resamples))
    cells = _cells(legs, names)
    stories = len(cells.counts)
    draws = np.concatenate([np.ones((1, stories)), *resample(stories, resamples)])
    gaps = (elo[:, cells.honest] - elo[:, cells.dishonest]) / 100
    if len(np.unique(np.round(gaps[0], 3))) < PARAMETERS:
        return None
    counts, sums = draws @ cells.counts, draws @ cells.sums
    at = -np.array(GAPS) / 100
    curve = _fit(gaps[0], counts[0], sums[0])
    fitted = [_sigmoid(_double_relu(curve, at))]
    for x, count, total in zip(gaps[1:], counts[1:], sums[1:], strict=True):
        fitted.append(_sigmoid(_double_relu(_fit(x, count, total, curve), at)))
    values = np.array(fitted)
    rows = []
    for column, gap in enumerate(GAPS):
        replicates = Replicates(float(values[0, column]), values[1:, column], len(legs), stories)
        beyond = bool(-gap / 100 < gaps[0].min() - 1e-9)
        rows.append(GapWin(gap=gap, win=replicates.estimate(), extrapolated=beyond))
    low, rise, start, end = curve
    return HonestWins(
        gaps=tuple(rows),
        low=float(_sigmoid(low)),
        high=float(_sigmoid(low + rise)),
        start=float(100 * start),
        end=float(100 * max(start, end)),
    )


def _cells(legs: Sequence[JudgedDebate], names: Sequence[str]) -> _Cells:
    places = {name: place for place, name in enumerate(names)}
    stories = {name: place for place, name in enumerate(sorted({leg.transcript.question.cluster for leg in legs}))}
    columns: dict[tuple[int, int], int] = {}
    entries = []
    for leg in legs:
        players = leg.transcript.players
        a, b = places[players["A"]], places[players["B"]]
        pair = (a, b) if leg.transcript.question.correct == 0 else (b, a)
        column = columns.setdefault(pair, len(columns))
        entries.append((stories[leg.transcript.question.cluster], column, leg.p_correct or 0.0))
    counts, sums = np.zeros((2, len(stories), len(columns)))
    for story, column, p in entries:
        counts[story, column] += 1
        sums[story, column] += p
    return _Cells(counts, sums, [honest for honest, _ in columns], [other for _, other in columns])


def _double_relu(curve: Floats, x: Floats) -> Floats:
    """Log-odds: flat, a linear rise, flat."""
    low, rise, start, end = curve
    # The difference of two ReLUs with one slope is a clipped line, here of 5 Elo points at least.
    return low + rise * np.clip((x - start) / max(end - start, 0.05), 0, 1)


def _fit(x: Floats, counts: Floats, sums: Floats, near: Floats | None = None) -> Floats:
    """Weighted least squares on the probability scale.

    Args:
        x: (C,) rating of the honest side minus that of the other, in hundreds of Elo points.
        counts: (C,) games.
        sums: (C,) sums of the judge's probability of the honest side.
        near: a curve to start from.
    """
    from scipy.optimize import least_squares  # here: the import takes 0.2 s

    played = counts > 0
    x, weight = x[played], np.sqrt(counts[played])
    p = sums[played] / counts[played]
    least, most = float(x.min()), float(x.max())
    # Plateaus begin within what was played: a rise that goes on beyond it would be an extrapolation.
    lower = np.array([-8.0, 0.0, least - 1e-6, least - 1e-6])
    upper = np.array([8.0, 16.0, most + 1e-6, most + 1e-6])
    if near is None:
        ends = np.clip([p[x.argmin()], p[x.argmax()]], 0.02, 0.98)
        ends = np.log(ends / (1 - ends))
        rise = max(float(ends[1] - ends[0]), 0.1)
        quarter = (most - least) / 4
        # The kinks leave local minima: a long rise, a short one in the middle, and one at either end are tried.
        places = [(0, 4), (1, 3), (0, 2), (2, 4)]
        starts = [np.array([ends[0], rise, least + a * quarter, least + b * quarter]) for a, b in places]
    else:
        starts = [near]

    def residuals(curve: Floats) -> Floats:
        return weight * (_sigmoid(_double_relu(curve, x)) - p)

    solved = []
    for start in starts:
        inside = np.clip(start, lower + 1e-6, upper - 1e-6)
        solved.append(least_squares(residuals, inside, bounds=(lower, upper)))
    best = min(solved, key=lambda one: float(one.cost))
    return np.asarray(best.x, dtype=float)


def _sigmoid(z: Floats | float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.asarray(z, dtype=float))))
