"""Tournaments: a round robin or Swiss rounds with sides swapped, rated; and self-play, where judge accuracy is
measured."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import SkipValidation

from debate_rl.arena.bradley_terry import RIDGE, Outcomes
from debate_rl.arena.match_record import MatchRecord, MatchTally
from debate_rl.arena.ratings import RESAMPLES, Ratings, rate
from debate_rl.arena.rollout import LogOptions, Progress, check_played, own_engine, play, play_to_file
from debate_rl.arena.schedule import Schedule, Seating, mirrors, pairings
from debate_rl.arena.swiss import Round, next_round, seatings_of, swiss_fault
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.game.question import Question
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge
from debate_rl.judges.scores import JudgeScores, judge_scores
from debate_rl.players.debater import Debater
from debate_rl.records import Printed, write

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 128
"""Approximate number of games between two writes to the log."""


class Tournament(Printed):
    """The result of a tournament.

    Example:
        Tournament(ratings=Ratings(...), judge_accuracy={"sft": JudgeScores(...)}, legs=(JudgedDebate(...), ...))
    """

    ratings: Ratings
    judge_accuracy: dict[str, JudgeScores]
    """The judge's scores on each player's self-play."""
    legs: SkipValidation[Sequence[JudgedDebate]]
    """Cross-play, then self-play, question by question. Those of a tournament in a folder are read from its log when
    they are asked for."""
    matches: MatchRecord | None = None
    """Matches won: both legs of a question count together. None where no match has a result."""

    @property
    def failed(self) -> int:
        """Legs without a verdict; they count for no one."""
        return sum(leg.verdict is None for leg in self.legs)

    def to_frame(self) -> pd.DataFrame:
        """One row a player, best first: rating and win rate, matches won, the judge's accuracy on its self-play."""
        table = self.ratings.to_frame()
        accuracy = {name: scores.accuracy for name, scores in self.judge_accuracy.items()}
        ends = {"judge_accuracy": "value", "judge_accuracy_low": "low", "judge_accuracy_high": "high"}
        for column, end in ends.items():
            # None for a player without self-play.
            table[column] = [getattr(accuracy.get(name), end, None) for name in table["player"]]
        if self.matches is not None:
            won = {row.player: row.share.value for row in self.matches.players}
            table["matches_won"] = table["player"].map(won)
        return table

    def __str__(self) -> str:
        """The ratings, and the judge's accuracy on each player's self-play."""
        lines = [str(self.ratings)]
        for player, scores in self.judge_accuracy.items():
            lines.append(f"judge accuracy in debates of {player} with itself: {scores.accuracy:.2f}")
        return "\n".join(lines)


_CORRECT_SIDE = {0: 1, 1: -1, None: 0}
"""The covariate `correct` by the index of the correct answer: 1 where side A (left) holds it, -1 where B does."""


class Matches:
    """Collects the columns of `Outcomes` from cross-play legs, without keeping the legs."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.right: list[str] = []
        self.labels: list[Hashable] = []
        self.score = array("d")
        self.correct = array("b")

    def add(self, leg: JudgedDebate) -> None:
        """Add a leg; one without a verdict is left out."""
        game = leg.transcript
        if leg.verdict is not None and len(game.players) == 2:
            self.left.append(game.players["A"])
            self.right.append(game.players["B"])
            self.labels.append(game.question.cluster)
            self.score.append(leg.verdict.p[0])
            self.correct.append(_CORRECT_SIDE[game.question.correct])

    def outcomes(self) -> Outcomes:
        """The matches so far (see `outcomes`)."""
        # One question without a known answer makes the covariate a guess, so it is left out for all matches.
        all_known = bool(self.left) and 0 not in self.correct
        sides = {"correct": self.correct} if all_known else None
        return Outcomes(self.left, self.right, self.score, self.labels, sides=sides)


class Tally:
    """Collects what judge scores need from self-play legs, without keeping the legs."""

    def __init__(self) -> None:
        self.p = array("d")
        self.labels: list[str] = []
        self.failure = "none"

    def add(self, leg: JudgedDebate) -> None:
        """Add a leg."""
        if leg.p_correct is not None:
            self.p.append(leg.p_correct)
            self.labels.append(leg.transcript.question.cluster)
        elif leg.failure is not None and self.failure == "none":
            self.failure = leg.failure.message

    def scores(self) -> JudgeScores:
        """The scores so far (see `scores`)."""
        if not self.p:
            raise UserError(f"no leg with a verdict and a known answer; first failure: {self.failure}")
        return judge_scores(self.p, self.labels)


def outcomes(legs: Iterable[JudgedDebate]) -> Outcomes:
    """The matches of cross-play legs, with the judge's probability of side A as a soft outcome.

    The side covariate `correct` measures what holding the correct answer is worth. Legs without a verdict are left out.
    """
    matches = Matches()
    for leg in legs:
        matches.add(leg)
    return matches.outcomes()


def scores(legs: Iterable[JudgedDebate]) -> JudgeScores:
    """The judge's scores over legs with a verdict and a known answer, clustered by story.

    Raises:
        UserError: there is no such leg.
    """
    tally = Tally()
    for leg in legs:
        tally.add(leg)
    return tally.scores()


@dataclass(frozen=True)
class TournamentSettings:
    """Settings of a tournament that few callers change.

    Example:
        TournamentSettings(seed=3, ridge=0.1, resamples=2000)
    """

    seed: int = 0
    """Seed of all speeches."""
    ridge: float = RIDGE
    """Penalty of the ratings, see `ratings.rate`."""
    resamples: int = RESAMPLES
    """Refits for the intervals of the ratings."""
    opponents: dict[str, Debater] | None = None
    """Debater simulated as the other side, by name of the Best-of-N player; None simulates the player's own model."""
    swiss: int | None = None
    """Rounds of a Swiss schedule (`arena.swiss`); None plays a round robin."""


def play_tournament(
    players: Sequence[Debater],
    questions: Sequence[Question],
    judge: AnyJudge,
    protocol: str | Protocol = "debate",
    *,
    engine: Engine | None = None,
    folder: str | Path | None = None,
    settings: TournamentSettings | None = None,
    progress: Progress | None = None,
) -> Tournament:
    """Play pairs on every question with sides swapped, and every player against itself; judge and rate.

    In a round robin every pair meets, in a Swiss schedule (`settings.swiss`) each player meets one a round.

    Args:
        players: at least two, with different names.
        questions: what they debate.
        judge: decides, and chooses for Best-of-N players.
        protocol: a name, a YAML file or a `Protocol`, with both sides present.
        engine: answers for all models; None runs them with transformers in this process.
        folder: logs games as they finish and holds the store; a tournament that was stopped resumes there.
        settings: seed, ridge, resamples, simulated opponents, Swiss rounds; None takes the defaults.
        progress: called after each chunk of games with (done, failed, all).

    Raises:
        UserError: fewer than two players, names that repeat, a protocol without two sides, no questions, a folder
            that can not be written, Swiss rounds that do not fit the number of players, or every game failed.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="test", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> base = dr.Debater("base", model="lab-base", temperature=1.0)
        >>> best = base.model_copy(update={"name": "base@2", "best_of": 2})
        >>> result = dr.play_tournament([base, best], questions, dr.Judge(model="lab-base"), rules)
        >>> sorted(row.player for row in result.ratings.standings)
        ['base', 'base@2']
    """
    rules = load_protocol(protocol) if isinstance(protocol, str) else protocol
    settings = settings or TournamentSettings()
    names = [player.name for player in players]
    _check(names, questions, rules, settings)
    players_by_name = {player.name: player for player in players}
    engine = engine or own_engine(folder)
    kept: dict[str, JudgedDebate] = {}

    def play_all(seatings: Sequence[Seating], on_leg: Callable[[JudgedDebate], None]) -> Sequence[JudgedDebate]:
        """Play the games of some seatings that were not played yet, and give all of them to `on_leg`."""
        games = Schedule(seatings, questions, rules, settings.seed)
        if folder is None:
            missing = [game for game in games if game.id not in kept]
            played = play(missing, players_by_name, engine, judge, settings.opponents)
            kept.update((leg.transcript.id, leg) for leg in played)
            legs = [kept[game.id] for game in games]
            for leg in legs:
                on_leg(leg)
            return legs
        # Whole questions: what a player says on one is written, read and judged once for all who meet it.
        chunk = len(seatings) * max(1, CHUNK // len(seatings))
        log, options = Path(folder) / run_files.DEBATES, LogOptions(chunk=chunk, on_leg=on_leg)
        return play_to_file(games, players_by_name, engine, judge, log, settings.opponents, progress, options)

    rounds: list[Round] = []
    standings = MatchTally()
    for _ in range(settings.swiss or 0):
        rounds.append(next_round(names, rounds, standings.points()))
        play_all(rounds[-1].seatings, standings.add)
    seatings = pairings(names) if settings.swiss is None else seatings_of(rounds)
    counts = _Counts(Matches(), MatchTally(), {name: Tally() for name in names})
    legs = play_all([*seatings, *mirrors(names)], counts.add)
    check_played(legs)
    return Tournament(
        ratings=rate(counts.cross_play.outcomes(), ridge=settings.ridge, resamples=settings.resamples),
        judge_accuracy={name: tally.scores() for name, tally in counts.self_play.items()},
        legs=legs,
        matches=counts.matches.record(one.bye for one in rounds if one.bye is not None),
    )


class _Counts(NamedTuple):
    """What is counted as the legs go by: a tournament of many debates is never held in memory as a whole."""

    cross_play: Matches
    matches: MatchTally
    self_play: dict[str, Tally]

    def add(self, leg: JudgedDebate) -> None:
        """Count one leg."""
        player_a = leg.transcript.players["A"]
        if player_a == leg.transcript.players["B"]:
            self.self_play[player_a].add(leg)
        else:
            self.cross_play.add(leg)
            self.matches.add(leg)


def _check(names: Sequence[str], questions: Sequence[Question], rules: Protocol, settings: TournamentSettings) -> None:
    """Refuse what can not be played, before anything is."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f"a tournament needs at least two players with different names, got {', '.join(names) or 'none'}"
        )
    check_sides(rules)
    if not questions:
        raise UserError("a tournament needs at least one question")
    fault = None if settings.swiss is None else swiss_fault(len(names), settings.swiss)
    if fault:
        raise UserError(fault)


def check_sides(rules: Protocol) -> None:
    """Check that two sides speak under a protocol.

    Raises:
        UserError: one side speaks, or none.
    """
    if rules.sides != "both" or rules.turns == 0:
        raise UserError(f"protocol {rules.name!r} has no opponent in it; a tournament needs a debate of two sides")


def save_tournament(result: Tournament, folder: Path) -> None:
    """Write the legs in the order of the schedule, so that a run that was stopped leaves the same file."""
    write(folder / run_files.DEBATES, result.legs)
