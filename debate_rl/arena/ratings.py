"""Ratings: Bradley-Terry on soft outcomes, on the Elo scale, with intervals over clusters of questions.

The model and its fit are in `bradley_terry`; Elo = 1000 + (400 / ln 10) (theta - mean theta). A tie is half a win each.
A judge's probability is a soft outcome, which halves the rating error against winners drawn from it. Intervals come
from refits on resampled clusters (`debate_rl.intervals`); compare two players by the interval of their difference, not
by whether their intervals overlap. Self-play carries no rating information, and a consultancy has no opponent.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array

from debate_rl.arena.bradley_terry import RIDGE, Cells, Outcomes, check, fit, refits, sum_matches
from debate_rl.errors import UserError, existing, nearest
from debate_rl.intervals import LEVEL, Effect, Estimate, Floats, Replicates, in_clusters
from debate_rl.records import LARGEST_CELL, Printed, Record, clean_text, not_text, open_text

if TYPE_CHECKING:
    import pandas as pd

ELO = 400 / np.log(10)
"""Elo points in one unit of theta (natural-log odds)."""
VOTES_RIDGE = 0.0
"""Default ridge for a file of votes: maximum likelihood, which is what published Bradley-Terry tables show. Our own
tournaments use RIDGE instead: they are small, and their players may be undefeated."""
RESAMPLES = 1000
MOST_PAIRED = 60
"""Players up to which every pair is compared."""
ERROR = 1e-6
"""Elo points that a fit may be away from its minimum: Newton's method ends at a step of 1e-9 in log-odds."""


class Standing(Record):
    """One player in the table.

    Example:
        Standing(player="dpo", rating=Estimate(value=1093.2, low=1061.0, high=1127.9, n=240, clusters=80),
                 win_rate=Estimate(value=0.71, low=0.66, high=0.76, n=240, clusters=80),
                 with_side={"correct": ...}, against_side={"correct": ...})
    """

    player: str
    rating: Estimate
    """Elo points; the mean of all players is 1000. n counts the player's matches."""
    win_rate: Estimate
    """Mean outcome."""
    with_side: dict[str, Estimate] = Field(default_factory=dict)
    """Mean outcome where the player holds the side, by name of the side; absent where it never holds it."""
    against_side: dict[str, Estimate] = Field(default_factory=dict)
    """Mean outcome where the opponent holds the side."""


class Pair(Record):
    """How much stronger the first of two players is.

    Example:
        Pair(first="dpo", second="sft", difference=Effect(value=93.1, low=60.2, high=128.4, n=480, clusters=80, p=.001))
    """

    first: str
    second: str
    difference: Effect
    """Elo points, first - second."""


class Ratings(Printed):
    """A rating table, best player first; `str` prints it, `to_json` gives the plain form."""

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    """Every pair, the better player first; with more than MOST_PAIRED players only neighbours in the table. p-values
    are not corrected for the number of pairs."""
    sides: dict[str, Effect] = Field(default_factory=dict)
    """Effect of holding a side, in Elo points, by name of the side."""
    matches: int
    """Matches used."""
    self_play: int = 0
    """Matches of a player with itself: left out."""
    clusters: int
    ridge: float

    def rows(self) -> list[dict[str, Any]]:
        """One row a player, best first: Elo and win rate with both ends of their intervals, and matches."""
        rows = []
        for row in self.standings:
            rows.append(
                {
                    "player": row.player,
                    "elo": row.rating.value,
                    "elo_low": row.rating.low,
                    "elo_high": row.rating.high,
                    "win_rate": row.win_rate.value,
                    "win_rate_low": row.win_rate.low,
                    "win_rate_high": row.win_rate.high,
                    "matches": row.rating.n,
                }
            )
        return rows

    def to_frame(self) -> pd.DataFrame:
        """The `rows` as a data frame."""
        import pandas as pd  # here: it takes a second, and the command line does without

        return pd.DataFrame(self.rows())

    def to_json(self) -> dict[str, Any]:
        """Plain form: {"ratings": {player: elo}, "intervals": {player: [low, high] or None}, ...}, best first."""
        columns: dict[str, dict[str, Any]] = {
            "ratings": {},
            "intervals": {},
            "win_rates": {},
            "win_rates_with_side": {},
            "win_rates_against_side": {},
        }
        for row in self.standings:
            columns["ratings"][row.player] = row.rating.value
            columns["intervals"][row.player] = _bounds(row.rating)
            columns["win_rates"][row.player] = row.win_rate.value
            columns["win_rates_with_side"][row.player] = _values(row.with_side)
            columns["win_rates_against_side"][row.player] = _values(row.against_side)
        differences = [
            {"first": pair.first, "second": pair.second, **pair.difference.model_dump()} for pair in self.pairs
        ]
        return {
            **columns,
            "sides": {name: side.model_dump() for name, side in self.sides.items()},
            "differences": differences,
            **self.model_dump(include={"matches", "self_play", "clusters", "ridge"}),
        }

    def __str__(self) -> str:
        """A table for the terminal: Elo and win rate with intervals, win rates by side, side effects."""
        width = max(6, *(len(row.player) for row in self.standings))
        lines = [f"{'player':<{width}}  {'Elo':<22}  {'win rate':<20}  matches"]
        for row in self.standings:
            line = f"{row.player:<{width}}  {row.rating:.0f}".ljust(width + 26)
            line += f"{row.win_rate:.2f}".ljust(22)
            line += f"{row.rating.n}"
            for name in self.sides:
                if name in row.with_side:
                    line += f"  {row.with_side[name].value:.2f} as {name}"
                if name in row.against_side:
                    line += f"  {row.against_side[name].value:.2f} against {name}"
            lines.append(line)
        lines += [f"worth of {name}, in Elo points: {side:.0f}" for name, side in self.sides.items()]
        left_out = f"; {self.self_play} of self-play left out" if self.self_play else ""
        lines.append(f"{self.matches} matches in {in_clusters(self.clusters)}, ridge {self.ridge:g}{left_out}")
        if any(row.rating.low is not None and row.rating.low == row.rating.high for row in self.standings):
            lines.append(
                "an interval without width says that every resample gives the same number, not that it is sure"
            )
        return "\n".join(lines)


def _bounds(estimate: Estimate) -> list[float | None] | None:
    """Both ends of an interval; None where there is none."""
    return None if estimate.low is None else [estimate.low, estimate.high]


def _values(estimates: dict[str, Estimate]) -> dict[str, float]:
    return {name: estimate.value for name, estimate in estimates.items()}


def rate(
    outcomes: Outcomes,
    *,
    ridge: float = RIDGE,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    all_pairs: int = MOST_PAIRED,
) -> Ratings:
    """Rate players from their matches.

    Args:
        outcomes: the matches.
        ridge: weight of the penalty. It keeps the ratings of undefeated players finite; 0 is maximum likelihood.
        level: coverage of the intervals.
        resamples: refits for the intervals. Their ridge is at least RIDGE, since a resample may leave a player
            undefeated where the data do not; resamples whose comparison graph falls apart are left out.
        seed: of the resampling.
        all_pairs: players up to which every pair is compared; with more, only neighbours in the table.

    Raises:
        UserError: no matches; scores outside [0, 1]; a comparison graph that is not connected (names its components);
            a side that players never swap; with ridge 0, a player or side without a finite maximum.

    Example:
        >>> from debate_rl.arena.bradley_terry import Outcomes
        >>> matches = Outcomes(left=["sft", "dpo", "sft"], right=["dpo", "sft", "dpo"], score=[0.25, 0.75, 0.25])
        >>> rating = {row.player: row.rating.value for row in rate(matches, ridge=0.0).standings}
        >>> round(rating["dpo"] - rating["sft"], 1)  # 400 log10(3)
        190.8
    """
    # Checked before fitting: what can not be rated would give numbers all the same, from the penalty alone.
    cells = sum_matches(outcomes)
    check(cells, ridge)
    sample = _sample(cells, ridge, resamples, seed)
    standings = _standings(cells, sample, level)
    index = {player: i for i, player in enumerate(cells.players)}
    order = [index[row.player] for row in standings]
    # With many players only neighbours are compared: 2,000 players would make two million pairs.
    compared = combinations(order, 2) if len(order) <= all_pairs else pairwise(order)
    pairs = [
        Pair(first=cells.players[i], second=cells.players[j], difference=sample.difference(i, j).effect(level))
        for i, j in compared
    ]
    sides = {name: sample.side(q).effect(level) for q, name in enumerate(cells.names)}
    return Ratings(
        standings=tuple(standings),
        pairs=tuple(pairs),
        sides=sides,
        matches=int(cells.matches.sum()),
        self_play=cells.self_play,
        clusters=sample.clusters,
        ridge=ridge,
    )


def read_votes(path: str | Path, cluster: str | None = None) -> Outcomes:
    """Read matches from a CSV file with a header and the columns left, right, winner (left, right or tie).

    Args:
        path: the file, UTF-8. Other columns are ignored.
        cluster: column to cluster the intervals by. None takes the column `cluster`; without one every row is
            independent.

    Raises:
        UserError: the file is missing, empty or not a table of votes; names file and line, and the nearest column.

    Example:
        >>> from pathlib import Path
        >>> table = Path("votes.csv")
        >>> characters = table.write_text("left,right,winner\\nsft,dpo,right\\ndpo,sft,tie\\n")
        >>> read_votes(table).score
        [0.0, 0.5]
    """
    path = existing(path, "votes file")
    left: list[str] = []
    right: list[str] = []
    score: list[float] = []
    labels: list[Hashable] = []
    # The limit is one for the whole process, so it is put back whatever happens.
    default_limit = csv.field_size_limit(LARGEST_CELL)
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            cluster_column = _cluster_column(path, reader.fieldnames, cluster)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                score.append(_score(where, row))
                left.append(_cell(where, row, "left"))
                right.append(_cell(where, row, "right"))
                labels.append(_cell(where, row, cluster_column) if cluster_column else len(labels))
    except (OSError, UnicodeError, EOFError) as error:
        raise not_text(path, error) from error
    except csv.Error as error:
        raise UserError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    finally:
        csv.field_size_limit(default_limit)
    if not score:
        raise UserError(f"{path}: no votes below the header; add lines such as 'A,B,left'")
    return Outcomes(left, right, score, labels)


def _cluster_column(path: Path, header: Sequence[str] | None, cluster: str | None) -> str | None:
    """Check the header and choose the column to cluster by; None where there is none."""
    if not header:
        raise UserError(f"{path}: empty file; its first line must be left,right,winner")
    required = ["left", "right", "winner"]
    if cluster:
        required.append(cluster)
    for name in required:
        if name not in header:
            raise UserError(f"{path}:1: no column {name!r}; {nearest(name, header)}")
    if cluster:
        return cluster
    return "cluster" if "cluster" in header else None


def _cell(where: str, row: dict[str, str], column: str) -> str:
    text = clean_text(row[column] or "").strip()
    if not text:
        raise UserError(f"{where}: nothing in column {column!r}; fill it in or remove the line")
    return text


def _score(where: str, row: dict[str, str]) -> float:
    if None in row:  # where csv.DictReader puts the cells beyond the header
        raise UserError(f"{where}: more fields than the header has; quote fields that contain commas")
    winner = (row["winner"] or "").strip()
    scores = {"left": 1.0, "right": 0.0, "tie": 0.5}
    if winner not in scores:
        raise UserError(f"{where}: winner is {winner!r}; it must be left, right or tie")
    return scores[winner]


_RateKey = tuple[int, str, int]
"""A win rate: player, side ("" for all matches), and 1 with the side, -1 against it."""


class _Sample(NamedTuple):
    """The fit and its refits: ratings of P players, effects of Q sides, and m win rates.

    The fit is row 0 of every array and the refits are the rows after it, so that an estimate and its interval come from
    the same column.
    """

    elo: Floats
    """(1 + resamples, P + Q) Elo points; strengths, then sides."""
    rates: Floats
    """(1 + resamples, m) mean outcomes."""
    names: list[str]
    """Names of the Q sides."""
    columns: dict[_RateKey, int]
    """Column of each of the m win rates."""
    counts: NDArray[np.intp]
    """(m,) matches behind each win rate."""
    players: int
    clusters: int

    def rating(self, player: int) -> Replicates:
        # The win rates over all matches come first, so the count of a player's matches has the player's index.
        return self._replicates(1000 + self.elo[:, player], self.counts[player])

    def difference(self, first: int, second: int) -> Replicates:
        return self._replicates(self.elo[:, first] - self.elo[:, second], self.counts[first] + self.counts[second])

    def side(self, index: int) -> Replicates:
        return self._replicates(self.elo[:, self.players + index], self.counts[: self.players].sum() // 2)

    def win_rates(self, player: int, sign: int, level: float) -> dict[str, Estimate]:
        """A player's win rates with (1) or against (-1) each side, by name; sides it never met are left out."""
        rates = {}
        for name in self.names:
            column = self.columns[player, name, sign]
            if self.counts[column]:
                rates[name] = self._replicates(self.rates[:, column], self.counts[column]).estimate(level)
        return rates

    def win_rate(self, player: int) -> Replicates:
        return self._replicates(self.rates[:, player], self.counts[player])

    def _replicates(self, values: Floats, rows: float) -> Replicates:
        return Replicates(float(values[0]), values[1:], int(rows), self.clusters, error=ERROR)


def _sample(cells: Cells, ridge: float, resamples: int, seed: int) -> _Sample:
    """Fit the data, and refit resampled clusters."""
    keys, first, second = _win_rate_sums(cells)

    def win_rates(played: Floats, won: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # a player that a resample left out: NaN
            return (won @ first + (played - won) @ second) / (played @ (first + second))

    played, won = cells.sums
    fits = [fit(cells, ridge)[None]]
    rates = [win_rates(played, won)[None]]
    for thetas, played, won in refits(cells, ridge, resamples, seed):
        fits.append(thetas)
        rates.append(win_rates(played, won))
    return _Sample(
        elo=ELO * np.concatenate(fits),
        rates=np.concatenate(rates),
        names=cells.names,
        columns={key: column for column, key in enumerate(keys)},
        counts=(cells.matches @ (first + second)).astype(int),
        players=len(cells.players),
        clusters=cells.played.shape[0],
    )


def _win_rate_sums(cells: Cells) -> tuple[list[_RateKey], csr_array, csr_array]:
    """Decide which win rates there are, and which cells each one adds up.

    Returns:
        The m keys, those over all matches first; (C, m) ones where a cell counts as its first player's; the same for
        its second player's.
    """
    players = range(len(cells.players))
    keys: list[_RateKey] = [(player, "", 0) for player in players]
    for player, name, sign in product(players, cells.names, (1, -1)):
        keys.append((player, name, sign))
    first = _count_cells(cells, cells.pairs[:, 0], cells.sides)
    # A side is seen from the first player: for the second one it has the opposite sign.
    second = _count_cells(cells, cells.pairs[:, 1], -cells.sides)
    return keys, first, second


def _count_cells(cells: Cells, player: NDArray[np.intp], sides: Floats) -> csr_array:
    """Match cells with the win rates they count for.

    Args:
        cells: C cells with Q sides.
        player: (C,) the player looked at in each cell.
        sides: (C, Q) sides as that player sees them.

    Returns:
        (C, m) ones; the columns are the keys of `_win_rate_sums`.
    """
    players = len(cells.players)
    row_parts = [np.arange(len(player))]
    column_parts = [player]
    for number in range(len(cells.names)):
        for offset, sign in enumerate((1, -1)):
            rows = np.flatnonzero(np.sign(sides[:, number]) == sign)
            row_parts.append(rows)
            column_parts.append(players + 2 * (player[rows] * len(cells.names) + number) + offset)
    rows = np.concatenate(row_parts)
    columns = np.concatenate(column_parts)
    shape = (len(player), players + 2 * players * len(cells.names))
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _standings(cells: Cells, sample: _Sample, level: float) -> list[Standing]:
    """One row per player, best first."""
    rows = [
        Standing(
            player=player,
            rating=sample.rating(i).estimate(level),
            win_rate=sample.win_rate(i).estimate(level),
            with_side=sample.win_rates(i, 1, level),
            against_side=sample.win_rates(i, -1, level),
        )
        for i, player in enumerate(cells.players)
    ]
    # Rounded, so that equal players stand in the order of their names whatever the last bits of the fit.
    return sorted(rows, key=lambda row: (-round(row.rating.value, 6), row.player))
