"""The curve of iterated training: how strong each iteration's debater is, and what it pays for that."""

from __future__ import annotations

from collections.abc import Sequence

from debate_rl.analysis.behaviour.behaviour import behaviour
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.tournament import scores
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Effect, Estimate, mean
from debate_rl.judges.scores import JudgeScores
from debate_rl.records import Record


class Point(Record):
    """One iteration's debater on the test questions.

    Example:
        Point(iteration=1, player="iterations.1", rating=Estimate(value=1046, ...), over_start=Effect(value=61, ...),
              win_rate=Estimate(value=0.58, ...), with_correct=..., against_correct=..., judge=JudgeScores(...),
              persuaded=None, valid=Estimate(value=0.93, ...), words=Estimate(value=17.1, ...))
    """

    iteration: int
    """0 is the debater that the iterations started from."""
    player: str
    rating: Estimate | None = None
    """Elo among the pool and all iterations; None where the protocol has no opponent."""
    over_start: Effect | None = None
    """Elo above the start; None for the start itself."""
    win_rate: Estimate | None = None
    with_correct: Estimate | None = None
    """Mean outcome where it argues for the correct answer."""
    against_correct: Estimate | None = None
    judge: JudgeScores
    """Of the judge where the debater meets itself, or argues alone."""
    persuaded: Estimate | None = None
    """The judge's probability for the side of a consultant who argues alone."""
    valid: Estimate
    """Share of speeches with at least one quote, all of them exact or near."""
    words: Estimate
    """Words in a speech."""

    def __str__(self) -> str:
        """One line for the terminal."""
        found = [
            f"Elo {self.over_start:.0f} over the start" if self.over_start else "",
            f"win rate {self.win_rate:.2f}" if self.win_rate else "",
            f"persuades {self.persuaded:.2f}" if self.persuaded else "",
            f"judge accuracy {self.judge.accuracy:.2f}",
            f"valid quotes {self.valid:.2f}",
            f"words {self.words:.1f}",
        ]
        return f"{self.player}: {'; '.join(part for part in found if part)}"


def curve(legs: Sequence[Leg], players: Sequence[str], ratings: Ratings | None) -> list[Point]:
    """The points of a curve.

    Args:
        legs: games, of which those of the players with themselves or alone are used.
        players: the start, then each iteration's debater.
        ratings: of a tournament in which all of them met.

    Raises:
        UserError: a player has no leg with a verdict.
    """
    return [_point(number, name, players[0], legs, ratings) for number, name in enumerate(players)]


def _point(number: int, name: str, start: str, legs: Sequence[Leg], ratings: Ratings | None) -> Point:
    """One player's numbers."""
    own = [leg for leg in legs if set(leg.transcript.players.values()) == {name}]
    judged = scores(own)
    manner = next(row for row in behaviour(own) if row.player == name)
    alone = [leg for leg in own if leg.verdict is not None and len(leg.transcript.players) == 1]
    persuaded = [leg.verdict.p_side(leg.transcript.present[0]) for leg in alone if leg.verdict is not None]
    rated = next((row for row in ratings.standings if row.player == name), None) if ratings else None
    return Point(
        iteration=number,
        player=name,
        rating=rated.rating if rated else None,
        over_start=over(ratings, name, start) if ratings and name != start else None,
        win_rate=rated.win_rate if rated else None,
        with_correct=rated.with_side.get("correct") if rated else None,
        against_correct=rated.against_side.get("correct") if rated else None,
        judge=judged,
        persuaded=mean(persuaded, [leg.transcript.question.cluster for leg in alone]) if alone else None,
        valid=manner.valid,
        words=manner.words,
    )


def over(ratings: Ratings, high: str, low: str) -> Effect:
    """Elo of one player minus that of another."""
    pair = next(pair for pair in ratings.pairs if {pair.first, pair.second} == {high, low})
    if pair.first == high:
        return pair.difference
    found = pair.difference
    ends = (None, None) if found.low is None or found.high is None else (-found.high, -found.low)
    return found.model_copy(update={"value": -found.value, "low": ends[0], "high": ends[1]})
