"""The curve of iterated training: strength of each iteration's debater, beside judge accuracy and behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from debate_rl.analysis.behaviour.behaviour import behaviour
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.tournament import scores
from debate_rl.game.verdict import JudgedDebate
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
    """Scores of the judge in the debater's games with itself, or alone."""
    persuaded: Estimate | None = None
    """The judge's probability for the side of a consultant who argues alone."""
    valid: Estimate
    """Share of speeches with at least one quote, all of them exact or near."""
    words: Estimate
    """Words in a speech."""

    def __str__(self) -> str:
        """One line for the terminal."""
        parts = [
            f"Elo {self.over_start:.0f} over the start" if self.over_start else "",
            f"win rate {self.win_rate:.2f}" if self.win_rate else "",
            f"persuades {self.persuaded:.2f}" if self.persuaded else "",
            f"judge accuracy {self.judge.accuracy:.2f}",
            f"valid quotes {self.valid:.2f}",
            f"words {self.words:.1f}",
        ]
        return f"{self.player}: {'; '.join(part for part in parts if part)}"


def curve(legs: Sequence[JudgedDebate], players: Sequence[str], ratings: Ratings | None) -> list[Point]:
    """Measure every iteration's debater.

    Args:
        legs: games; only those of a player with itself or alone are used.
        players: the start, then each iteration's debater.
        ratings: of a tournament in which all of them met; None if the protocol has no opponent.

    Raises:
        UserError: a player has no leg with a verdict.
    """
    start = players[0]
    return [_point(iteration, player, start, legs, ratings) for iteration, player in enumerate(players)]


def _point(iteration: int, player: str, start: str, legs: Sequence[JudgedDebate], ratings: Ratings | None) -> Point:
    # Self-play only: against others, judge accuracy and quotes would depend on the opponent.
    own_legs = [leg for leg in legs if set(leg.transcript.players.values()) == {player}]
    (row,) = [row for row in behaviour(own_legs) if row.player == player]
    return Point(
        iteration=iteration,
        player=player,
        judge=scores(own_legs),
        persuaded=_persuaded(own_legs),
        valid=row.valid,
        words=row.words,
        **_rating_fields(ratings, player, start),
    )


def _rating_fields(ratings: Ratings | None, player: str, start: str) -> dict[str, Any]:
    """The fields of a point that come from ratings; empty where the player has none."""
    standings = {standing.player: standing for standing in ratings.standings} if ratings else {}
    if ratings is None or player not in standings:
        return {}
    standing = standings[player]
    return {
        "rating": standing.rating,
        "over_start": over(ratings, player, start) if player != start else None,
        "win_rate": standing.win_rate,
        "with_correct": standing.with_side.get("correct"),
        "against_correct": standing.against_side.get("correct"),
    }


def _persuaded(legs: Sequence[JudgedDebate]) -> Estimate | None:
    """The judge's mean probability for the side of a consultant who argues alone; None without such games."""
    probabilities, stories = [], []
    for leg in legs:
        if leg.verdict is None or len(leg.transcript.players) != 1:
            continue
        consultant = leg.transcript.present[0]
        probabilities.append(leg.verdict.p_side(consultant))
        stories.append(leg.transcript.question.cluster)
    if not probabilities:
        return None
    return mean(probabilities, stories)


def over(ratings: Ratings, high: str, low: str) -> Effect:
    """Elo of one player minus that of another."""
    pair = next(pair for pair in ratings.pairs if {pair.first, pair.second} == {high, low})
    difference = pair.difference
    if pair.first == high:
        return difference
    # The table has the pair the other way round: the sign turns, and the ends of the interval change places.
    turned = {"value": -difference.value}
    if difference.low is not None and difference.high is not None:
        turned.update(low=-difference.high, high=-difference.low)
    return difference.model_copy(update=turned)
