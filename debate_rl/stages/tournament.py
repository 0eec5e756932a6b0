"""The tournament: players of the run against one another, rated, with judge accuracy in self-play."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zlib import crc32

from pydantic import Field, field_validator, model_validator

from debate_rl.analysis.accuracy import CrossPlay, cross_play
from debate_rl.analysis.behaviour.behaviour import Behaviour, behaviour, spoken
from debate_rl.analysis.behaviour.debater_behaviour import Conduct, conduct
from debate_rl.analysis.behaviour.relevance import relevance
from debate_rl.analysis.honest_wins import HonestWins, honest_wins
from debate_rl.analysis.slopes import Rated, measure
from debate_rl.arena.match_record import MatchRecord
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.schedule import Schedule, mirrors, pairings
from debate_rl.arena.swiss import planned_rounds, seatings_of, swiss_fault
from debate_rl.arena.tournament import TournamentSettings, check_sides, play_tournament, save_tournament
from debate_rl.game.transcript import Quote, Speech, Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect
from debate_rl.judges.judge import Judge
from debate_rl.judges.scores import JudgeScores
from debate_rl.stages.base import Stage, StageResult
from debate_rl.stages.cards import complete_cards
from debate_rl.stages.habits import Habits
from debate_rl.stages.workload import Asked, Rehearsed, Weights, added

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run


class TournamentResult(StageResult):
    """A tournament: ratings and match record from cross-play, judge accuracy from self-play."""

    ratings: Ratings
    matches: MatchRecord | None = None
    judge_accuracy: dict[str, JudgeScores] = {}
    cross_play: CrossPlay | None = None
    accuracy_over_rating: Effect | None = None
    honest_wins: HonestWins | None = None
    behaviour: tuple[Behaviour, ...] = ()
    conduct: Conduct = Conduct()
    legs: int
    failed: int = 0


class TournamentStage(Stage):
    """Round robin or Swiss rounds with sides swapped, ratings, and judge accuracy in self-play."""

    kind: Literal["tournament"] = "tournament"
    players: tuple[str, ...] = ("base", "sft", "dpo")
    """Names: base, or a training stage; @N plays Best-of-N, @NcK also refines each candidate K times."""
    schedule: Literal["round_robin", "swiss"] = "round_robin"
    """round_robin: every pair meets. swiss: `rounds` rounds, each player against one with about as many points, for
    many players; with an odd number one rests each round."""
    rounds: int | None = Field(default=None, ge=1)
    """Rounds of a Swiss schedule."""
    protocol: str | None = None
    """Protocol of the games; empty takes the run's."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""
    opponents: int = Field(default=2, ge=0)
    """Simulated opponents of Best-of-N players."""
    ridge: float = Field(default=0.1, ge=0)
    """Penalty that keeps the ratings of undefeated players finite."""
    resamples: int = Field(default=1000, ge=10)
    """Bootstrap resamples of the intervals."""
    evidence_probes: int = Field(default=40, ge=0)
    """Speeches of each player and side whose quotes alone are shown to the untrained judge, who guesses the side."""

    @field_validator("players")
    @classmethod
    def _two_players(cls, players: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(players)) != len(players) or len(players) < 2:
            raise ValueError("needs at least two players, each once")
        return players

    @model_validator(mode="after")
    def _rounds_fit(self) -> TournamentStage:
        if (self.schedule == "swiss") != (self.rounds is not None):
            raise ValueError("schedule: swiss and rounds belong together; set both, or neither for a round robin")
        fault = None if self.rounds is None else swiss_fault(len(self.players), self.rounds)
        if fault:
            raise ValueError(fault)
        return self

    def references(self) -> set[str]:
        """The players."""
        return set(self.players)

    @property
    def asks_judge(self) -> bool:
        """Every game is judged."""
        return True

    @property
    def rated_players(self) -> tuple[str, ...]:
        """All of its players."""
        return self.players

    def check_playable(self, run: Run) -> None:
        """Two sides have to speak."""
        check_sides(run.protocol(self.protocol))

    def games(self, run: Run) -> list[Transcript]:
        """Cross-play with sides swapped, then self-play; of Swiss rounds as many games, since pairs are not known."""
        questions, protocol = run.questions("test", self.questions), run.protocol(self.protocol)
        met = pairings(self.players) if self.rounds is None else seatings_of(planned_rounds(self.players, self.rounds))
        alone = Schedule(mirrors(self.players), questions, protocol, run.config.seed)
        return [*Schedule(met, questions, protocol, run.config.seed), *alone]

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Play and judge some games, and read the evidence of as many speeches as the stage will."""
        legs, debates, scale = self.play_some(run, name, engine)
        counted = engine.take(scale)
        return Rehearsed(debates, 1.0, added(counted, _readings(self, run, legs, engine, scale)))

    def execute(self, run: Run, out: Path) -> TournamentResult:
        """Play, rate, and say what the players do."""
        result = play_tournament(
            [self.speaker(run, name) for name in self.players],
            run.questions("test", self.questions),
            run.judge(),
            run.protocol(self.protocol),
            engine=run.engine,
            folder=out,
            settings=TournamentSettings(
                seed=run.config.seed, ridge=self.ridge, resamples=self.resamples, swiss=self.rounds
            ),
            progress=run.progress(out),
        )
        legs = list(result.legs)  # the analyses go through them many times
        save_tournament(result, out)
        run.say(str(result.ratings))
        if result.matches is not None:
            run.say(str(result.matches))
        alone = [leg for leg in legs if len(set(leg.transcript.players.values())) == 1]
        slope, crossed = measure(Rated(legs, self.ridge), alone), cross_play(legs)
        honest = honest_wins(Rated(legs, self.ridge, self.resamples))
        if honest is not None:
            run.say(str(honest))
        run.log_debates(out.name.lstrip("."), legs)
        complete_cards(run, out.name.lstrip("."), result.judge_accuracy, result.ratings)
        reader = Judge(name="reader", model=run.config.models.judge)
        return TournamentResult(
            ratings=result.ratings,
            matches=result.matches,
            judge_accuracy=result.judge_accuracy,
            cross_play=crossed,
            accuracy_over_rating=None if slope is None else slope.replicates.effect(),
            honest_wins=honest,
            behaviour=tuple(behaviour(legs)),
            conduct=conduct(legs, self.players, reader, run.engine, self.evidence_probes),
            legs=len(legs),
            failed=sum(leg.verdict is None for leg in legs),
        )


def _readings(
    stage: TournamentStage, run: Run, legs: Sequence[JudgedDebate], engine: CountingEngine, scale: float
) -> dict[Weights, Asked]:
    """Readings of the quotes alone: so many speeches of each player and side, however many questions there are.

    Speeches quote as often and as much as is known of the players, else all of them from beginning to end.
    """
    if not stage.evidence_probes:
        return {}
    quoting = [said._replace(speech=_quoting(said.speech, engine.habits)) for said in spoken(legs)]
    rows = relevance(quoting, Judge(name="reader", model=run.config.models.judge), engine, stage.evidence_probes)
    speeches = Counter((said.player, said.argues) for said in quoting)
    rehearsed, whole = 0, 0
    for row in rows:
        count = speeches[row.player, row.argues]
        rehearsed += min(stage.evidence_probes, count)
        whole += min(stage.evidence_probes, round(scale * count))
    return engine.take(whole / max(rehearsed, 1))


def _quoting(speech: Speech, habits: Habits) -> Speech:
    """A speech with the quote that it would have, or with none; who quotes is drawn by the text."""
    if crc32(speech.text.encode()) % 1000 >= 1000 * habits.quoting:
        return speech
    # From its end: there is what tells one rehearsed speech from another.
    text = speech.text[-max(1, round(habits.quoted * len(speech.text))) :]
    return speech.model_copy(update={"quotes": (Quote(text=text, verdict="exact", start=0, end=len(speech.text)),)})
