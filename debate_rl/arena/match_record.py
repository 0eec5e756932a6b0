"""Match record: who won how many matches against whom.

A match is one question with sides swapped: two legs. It is won by the player with the judge's higher mean confidence
over both legs, so that neither the side nor the correct answer decides it (`game.verdict.Match`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from debate_rl.game.verdict import JudgedDebate, Match
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Printed, Record

if TYPE_CHECKING:
    import pandas as pd


class Wins(Record):
    """Matches of one player, or of one player against another.

    Example:
        Wins(player="dpo", opponent="sft", won=51, tied=1, lost=28, share=Estimate(value=0.644, low=0.54, ...))
    """

    player: str
    opponent: str | None = None
    """None counts all opponents."""
    won: int
    tied: int
    lost: int
    share: Estimate
    """Matches won, a tie counting half, with an interval over stories."""


class MatchRecord(Printed):
    """The matches of a tournament.

    Example:
        MatchRecord(players=(Wins(player="dpo", ...), ...), pairs=(Wins(player="dpo", opponent="sft", ...), ...),
                    unfinished=0, byes={})
    """

    players: tuple[Wins, ...]
    """By share of matches won, the highest first."""
    pairs: tuple[Wins, ...]
    """Every two players that met, seen from both: the win matrix."""
    unfinished: int = 0
    """Matches of which a leg failed: nobody won them."""
    byes: dict[str, int] = {}
    """Rounds of a Swiss schedule in which a player had no opponent."""

    def cell(self, player: str, opponent: str) -> Wins | None:
        """The matches of one player against another; None where they never met."""
        return next((row for row in self.pairs if (row.player, row.opponent) == (player, opponent)), None)

    def to_frame(self) -> pd.DataFrame:
        """The win matrix as a data frame: one row for every two players that met, from the first one's side."""
        import pandas as pd  # here: it takes a second, and the command line does without

        rows = []
        for wins in self.pairs:
            share = {"share": wins.share.value, "share_low": wins.share.low, "share_high": wins.share.high}
            rows.append({**wins.model_dump(exclude={"share"}), **share})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        """Match wins of each player, then the win matrix in percent."""
        names = [row.player for row in self.players]
        width = max(6, *(len(name) for name in names))
        lines = [f"{'player':<{width}}  {'matches won':<20}  won-tied-lost"]
        for row in self.players:
            bye = f"  byes {self.byes[row.player]}" if row.player in self.byes else ""
            lines.append(
                f"{row.player:<{width}}  {row.share:.2f}".ljust(width + 24) + f"{row.won}-{row.tied}-{row.lost}{bye}"
            )
        columns = [max(5, len(name)) for name in names]
        lines.append("matches won against, %: " + ", ".join(names))
        for name in names:
            cells = []
            for opponent, column in zip(names, columns, strict=True):
                met = self.cell(name, opponent)
                cells.append(("-" if met is None else f"{100 * met.share.value:.0f}").rjust(column))
            lines.append(f"{name:<{width}}  {' '.join(cells)}")
        if self.unfinished:
            lines.append(f"{self.unfinished} matches have no winner, since a leg failed")
        return "\n".join(lines)


class MatchTally:
    """Collects matches from legs that go by, without keeping the legs."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str, str], JudgedDebate] = {}
        self._scores: dict[tuple[str, str], list[tuple[float, str]]] = {}
        self._unfinished = 0

    def add(self, leg: JudgedDebate) -> None:
        """Add a leg; self-play and consultancies are left out."""
        players = sorted(set(leg.transcript.players.values()))
        if len(players) != 2:
            return
        pair = players[0], players[1]
        key = leg.transcript.question.id, *pair
        first = self._waiting.pop(key, None)
        if first is None:
            self._waiting[key] = leg
            return
        match = Match(legs=(first, leg))
        if match.probability(players[0]) is None:
            self._unfinished += 1
            return
        score = 0.5 if match.winner is None else float(match.winner == players[0])
        self._scores.setdefault(pair, []).append((score, leg.transcript.question.cluster))

    def points(self) -> dict[str, float]:
        """For each player the share of matches won, added up over its opponents."""
        total: dict[str, float] = {}
        for (first, second), scores in self._scores.items():
            share = sum(score for score, _ in scores) / len(scores)
            total[first] = total.get(first, 0.0) + share
            total[second] = total.get(second, 0.0) + 1 - share
        return total

    def record(self, byes: Iterable[str] = ()) -> MatchRecord | None:
        """The matches so far; None where no match has a result.

        Args:
            byes: a player for each round in which it had no opponent.
        """
        if not self._scores:
            return None
        pairs = []
        by_player: dict[str, list[list[tuple[float, str]]]] = {}
        for (first, second), scores in self._scores.items():
            turned = [(1 - score, cluster) for score, cluster in scores]
            pairs += [_wins(first, second, scores), _wins(second, first, turned)]
            by_player.setdefault(first, []).append(scores)
            by_player.setdefault(second, []).append(turned)
        rows = [_wins(player, None, list(chain(*groups))) for player, groups in by_player.items()]
        rows.sort(key=lambda row: (-row.share.value, row.player))
        rested: dict[str, int] = {}
        for player in byes:
            rested[player] = rested.get(player, 0) + 1
        # A leg that still waits has lost its other one.
        unfinished = self._unfinished + len(self._waiting)
        return MatchRecord(players=tuple(rows), pairs=tuple(pairs), unfinished=unfinished, byes=rested)


def match_record(legs: Iterable[JudgedDebate]) -> MatchRecord | None:
    """The matches of saved legs; None where no match has a result."""
    tally = MatchTally()
    for leg in legs:
        tally.add(leg)
    return tally.record()


def _wins(player: str, opponent: str | None, scores: list[tuple[float, str]]) -> Wins:
    values = [score for score, _ in scores]
    return Wins(
        player=player,
        opponent=opponent,
        won=values.count(1.0),
        tied=values.count(0.5),
        lost=values.count(0.0),
        share=mean(values, [cluster for _, cluster in scores]),
    )
