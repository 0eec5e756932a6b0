"""Iterated preference training: generate, judge, train, rate, repeat.

In the stage's folder:
    iteration1/preferences/   pools and rows of the first iteration, as a preferences stage leaves them
    iteration1/adapter/       its debater (or model/), with rows.jsonl and history.json beside it, as a dpo stage does
    iteration1/rating.json    its rating against the pool, as it stood then
    iteration2/ ...
    debates.jsonl                every game of the ratings

Each part is kept when it is finished, and what was begun goes on at the unit of one debate or one checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from debate_rl.analysis.behaviour.behaviour import Behaviour, behaviour
from debate_rl.analysis.iterations import Point, curve
from debate_rl.arena.ratings import Ratings
from debate_rl.arena.rollout import play, play_to_file
from debate_rl.arena.schedule import round_robin, self_play
from debate_rl.arena.tournament import TournamentSettings, play_tournament, scores
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import AnyJudge
from debate_rl.judges.scores import JudgeScores
from debate_rl.players.debater import Debater
from debate_rl.records import read, read_json, write, write_json
from debate_rl.stages import dpo, preferences
from debate_rl.stages.base import Metrics, Stage, StageResult, TrainingStage
from debate_rl.stages.cards import complete_cards
from debate_rl.stages.dpo import DpoResult, DpoStage
from debate_rl.stages.flat_metrics import with_interval
from debate_rl.stages.preferences import PreferencesStage
from debate_rl.stages.workload import Rehearsed, TrainingLoad, some_games
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import Kind

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

LEARNING_RATE = 1e-4
"""Learning rate of the first iteration where `dpo.train` names none, as in every dpo stage."""


class Iteration(StageResult):
    """How one iteration went."""

    iteration: int
    player: str
    learning_rate: float
    reference: str
    opponent: str
    questions: int
    met_before: int = 0
    """Questions among them that an earlier iteration played on."""
    preferences: dict[str, Any] = {}
    training: dict[str, Any] = {}
    rating: Point | None = None


class IterationsResult(StageResult):
    """Iterated training: the curve, and how each iteration went."""

    points: tuple[Point, ...] = Field(min_length=2)
    iterations: tuple[Iteration, ...] = ()
    ratings: Ratings | None = None
    judge_accuracy: dict[str, JudgeScores] = {}
    behaviour: tuple[Behaviour, ...] = ()
    legs: int
    failed: int = 0


class IterationsStage(Stage):
    """Generate, judge, train, rate, repeat. NAME.K is the debater after iteration K, NAME the one after the last."""

    makes_players: ClassVar[bool] = True

    kind: Literal["iterations"] = "iterations"
    start: str = "sft"
    """Earlier stage whose debater the first iteration plays and trains."""
    iterations: int = Field(default=2, ge=1)
    """How often games are played, judged and trained on."""
    preferences: PreferencesStage = PreferencesStage()
    """How each iteration makes its rows; the player is the newest debater."""
    dpo: DpoStage = DpoStage()
    """How each iteration trains, and with what learning rate the first one does."""
    learning_rate_factor: float = Field(default=0.5, gt=0)
    """Learning rate of an iteration over that of the one before (published: 1e-4, then 5e-5)."""
    reference: Literal["last", "start"] = "last"
    """Reference policy of the loss: the debater that each iteration starts from, or always the very first one."""
    opponents: Literal["current", "start"] = "current"
    """Who speaks for the other side in `preferences`: the newest debater or those it names, or in every iteration the
    very first one."""
    fresh_questions: bool = True
    """Each iteration plays on training questions that no other one does, as far as there are enough."""
    pool: tuple[str, ...] = ("base",)
    """Players that every iteration's debater meets on the test questions, besides the start and earlier iterations."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions of the ratings; empty takes all."""
    ridge: float = Field(default=0.1, ge=0)
    """See the tournament's."""
    resamples: int = Field(default=1000, ge=10)
    """Bootstrap resamples of the intervals."""

    @model_validator(mode="after")
    def _roles_are_its_own(self) -> IterationsStage:
        """The parts of an iteration name no stages: the iterations do."""
        named = {"preferences.player": self.preferences.player, "dpo.start": self.dpo.start}
        for key, value in named.items():
            if value not in ("sft", self.start):
                raise ValueError(f"{key} is the newest debater in each iteration; set `start` to {value!r} instead")
        if self.dpo.reference is not None or self.dpo.preferences != "preferences":
            raise ValueError("dpo.reference and dpo.preferences are set by the iterations; use `reference`")
        if self.opponents == "start" and self.preferences.opponents_from:
            raise ValueError("opponents: start names the other side; leave out preferences.opponents_from")
        return self

    @model_validator(mode="after")
    def _rate_is_a_number(self) -> IterationsStage:
        """Each iteration's learning rate is computed from it."""
        rate = self.dpo.train.get("learning_rate", 0.0)
        try:
            fine = 0 <= float(rate) < float("inf")
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ValueError(f"dpo.train.learning_rate is {rate!r}; give a number such as 1.0e-4")
        return self

    @property
    def pooled(self) -> tuple[str, ...]:
        """Whom all iterations meet: the pool and the start."""
        return self.pool if self.start in self.pool else (*self.pool, self.start)

    def references(self) -> set[str]:
        """Whom the iterations meet, the critic, and named opponents."""
        critic = {self.preferences.critic} if self.preferences.critic else set()
        return {*self.pooled, *self.preferences.opponents_from} | critic

    def makes(self, name: str) -> dict[str, str]:
        """A player of each iteration; the stage's own name is the last one's."""
        folders = {f"{name}.{k}": f"{name}/iteration{k}" for k in range(1, self.iterations + 1)}
        return {name: folders[f"{name}.{self.iterations}"], **folders}

    @property
    def makes_model(self) -> bool:
        """As its training."""
        return self.dpo.makes_model

    @property
    def asks_judge(self) -> bool:
        """Every speech is scored and every rating game judged."""
        return True

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """One, done once for each iteration."""
        yield "dpo", self.dpo

    def games(self, run: Run) -> list[Transcript]:
        """The pools of every iteration, then the games of the ratings."""
        return _games(self, run)

    def speaker(self, run: Run, name: str) -> Debater:
        """The player of a name, with the opponents that preferences are made with."""
        return run.debater(name, self.preferences.opponents)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Every iteration's pools, then the ratings."""
        return _rehearse(self, run, run.judge(name), engine)

    def plan_note(self, run: Run) -> str:
        """Say that it trains."""
        return "trains"

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad:
        """At most the pairs of an iteration, so many times."""
        rows = preferences.pair_rows(self.preferences, run)
        return TrainingLoad("dpo", run.config.models.debater, rows, self.iterations, share_prompt=self.dpo.share_prompt)

    def execute(self, run: Run, out: Path) -> IterationsResult:
        """Iterate, then draw the curve over all iterations."""
        return _execute(self, run, out)


def name_of(run: Run, stage: IterationsStage) -> str:
    """The stage's name in its run."""
    return next(name for name, other in run.config.stages.items() if other is stage)


def player(stage: IterationsStage, name: str, number: int) -> str:
    """The debater after so many iterations; after none the start."""
    return f"{name}.{number}" if number else stage.start


def players(stage: IterationsStage, name: str, number: int) -> list[str]:
    """Who is rated after so many iterations: the pool, and every iteration's debater so far."""
    return [*stage.pooled, *policies(stage, name, number)[1:]]


def policies(stage: IterationsStage, name: str, number: int) -> list[str]:
    """The start, and the debaters of so many iterations."""
    return [player(stage, name, k) for k in range(number + 1)]


def preferences_of(stage: IterationsStage, run: Run, name: str, number: int) -> PreferencesStage:
    """How an iteration, counted from 1, makes its rows."""
    start, count = share(stage, len(run.questions("train")), number)
    changes = {"player": player(stage, name, number - 1), "skip": start, "questions": count}
    if stage.opponents == "start":
        changes["opponents_from"] = (stage.start,)
    return stage.preferences.model_copy(update=changes)


def share(stage: IterationsStage, total: int, number: int) -> tuple[int, int]:
    """An iteration's training questions: how many are left out before the first, and how many there are.

    Shares are disjoint where there are enough questions, else they overlap as little as they can.

    Example:
        300 questions each of 600, second of two iterations: (300, 300); of 500: (200, 300); of 250: (0, 250)

    Raises:
        UserError: `preferences.skip` leaves none.
    """
    first = stage.preferences.skip
    if first >= total:
        raise UserError(f"iterations: preferences.skip {first} leaves no training questions of {total}; lower it")
    count = min(stage.preferences.questions, total - first)
    if not stage.fresh_questions or stage.iterations == 1:
        return first, count
    # A step of `count` makes the shares disjoint; else it is the largest one that leaves the last share whole.
    step = min(count, (total - first - count) // (stage.iterations - 1))
    return first + step * (number - 1), count


def dpo_of(stage: IterationsStage, name: str, number: int) -> DpoStage:
    """How an iteration, counted from 1, trains."""
    rate = float(stage.dpo.train.get("learning_rate", LEARNING_RATE))
    rate *= stage.learning_rate_factor ** (number - 1)
    return stage.dpo.model_copy(
        update={
            "start": player(stage, name, number - 1),
            "reference": stage.start if stage.reference == "start" else None,
            "train": {**stage.dpo.train, "learning_rate": rate},
        }
    )


def _games(stage: IterationsStage, run: Run) -> list[Transcript]:
    """The pools of every iteration, then the games of the ratings."""
    name = name_of(run, stage)
    games: list[Transcript] = []
    for number in range(1, stage.iterations + 1):
        games += preferences_of(stage, run, name, number).games(run)
    return games + _rating_games(stage, run, players(stage, name, stage.iterations))


def _rating_games(stage: IterationsStage, run: Run, names: list[str]) -> list[Transcript]:
    """Cross-play where the protocol has an opponent, and self-play."""
    questions = run.questions("test", stage.questions)
    protocol = run.protocol(stage.preferences.protocol)
    cross_play = round_robin(names, questions, protocol, run.config.seed) if protocol.sides == "both" else []
    return cross_play + self_play(names, questions, protocol, run.config.seed)


def _execute(stage: IterationsStage, run: Run, out: Path) -> IterationsResult:
    """Iterate, then draw the curve over all iterations."""
    name = name_of(run, stage)
    _, question_count = share(stage, len(run.questions("train")), 1)
    if question_count < stage.preferences.questions:
        run.say(f"  {question_count} training questions an iteration; {stage.preferences.questions} were asked for")
    iterations = [_iterate(stage, run, out, name, number) for number in range(1, stage.iterations + 1)]
    rated_players = players(stage, name, stage.iterations)
    legs, ratings = _rate(stage, run, out, rated_players)
    write(out / run_files.DEBATES, legs)
    points = curve(legs, policies(stage, name, stage.iterations), ratings)
    accuracy: dict[str, JudgeScores] = {}
    for player_name in rated_players:
        self_play_legs = [leg for leg in legs if set(leg.transcript.players.values()) == {player_name}]
        accuracy[player_name] = scores(self_play_legs)
    for point in points:
        _log(run, name, point)
        played = [leg for leg in legs if point.player in leg.transcript.players.values()]
        run.log_debates(name, played, step={f"{name}/iteration": float(point.iteration)})
    complete_cards(run, name, accuracy, ratings)
    return IterationsResult(
        points=tuple(points),
        iterations=tuple(iterations),
        ratings=ratings,
        judge_accuracy=accuracy,
        behaviour=tuple(behaviour(legs)),
        legs=len(legs),
        failed=sum(leg.verdict is None for leg in legs),
    )


def _iterate(stage: IterationsStage, run: Run, out: Path, name: str, number: int) -> Iteration:
    """One iteration: rows, training, rating. Each part is kept when it is finished."""
    folder = out / f"iteration{number}"
    settings = preferences_of(stage, run, name, number)
    training = dpo_of(stage, name, number)

    def learn() -> DpoResult:
        # From the file: the rows may have been made before the stage was stopped.
        rows = read(folder / "preferences" / "rows.jsonl", PreferenceRow)
        return dpo.learn(training, run, rows, folder, dpo.preference_facts(settings, run, name))

    def rate() -> Point:
        # The log holds the games of earlier iterations, so that only those with the newest debater are played.
        legs, ratings = _rate(stage, run, out, players(stage, name, number))
        return curve(legs, policies(stage, name, number), ratings)[-1]

    pools = _once(folder / "preferences.json", lambda: settings.execute(run, folder / "preferences"))
    trained = _once(folder / "training.json", learn)
    point = Point.model_validate(_once(folder / "rating.json", rate))
    run.say(f"  {point}")
    met: set[int] = set()
    for earlier in range(1, number):
        met |= _question_indices(preferences_of(stage, run, name, earlier))
    return Iteration(
        iteration=number,
        player=player(stage, name, number),
        learning_rate=training.train["learning_rate"],
        reference=training.reference or training.start,
        opponent=", ".join(settings.opponents_from) or settings.player,
        questions=settings.questions,
        met_before=len(met & _question_indices(settings)),
        preferences=pools,
        training=trained,
        rating=point,
    )


def _question_indices(settings: PreferencesStage) -> set[int]:
    """Indices of the training questions that an iteration plays on."""
    return set(range(settings.skip, settings.skip + settings.questions))


def _once(path: Path, work: Callable[[], BaseModel]) -> Metrics:
    """The result of a part as it stands in its file, measured only where that is not there yet."""
    if not path.is_file():
        write_json(path, work().model_dump(mode="json"))
    return dict(read_json(path))


def _rate(stage: IterationsStage, run: Run, out: Path, names: list[str]) -> tuple[list[JudgedDebate], Ratings | None]:
    """Play the rating games that have not been played yet.

    Returns:
        All rating games, and ratings where the protocol has two sides.
    """
    protocol = run.protocol(stage.preferences.protocol)
    questions = run.questions("test", stage.questions)
    debaters = [stage.speaker(run, name) for name in names]
    if protocol.sides == "both":
        result = play_tournament(
            debaters,
            questions,
            run.judge(),
            protocol,
            engine=run.engine,
            folder=out,
            settings=TournamentSettings(seed=run.config.seed, ridge=stage.ridge, resamples=stage.resamples),
            progress=run.progress(out),
        )
        return list(result.legs), result.ratings
    games = _rating_games(stage, run, names)
    by_name = {debater.name: debater for debater in debaters}
    legs = play_to_file(games, by_name, run.engine, run.judge(), out / run_files.DEBATES, progress=run.progress(out))
    return list(legs), None


def _log(run: Run, name: str, point: Point) -> None:
    """Log a point of the curve to W&B, over iterations."""
    estimates = {
        "elo": point.rating,
        "win_rate": point.win_rate,
        "persuaded": point.persuaded,
        "valid": point.valid,
        "words": point.words,
        "judge_accuracy": point.judge.accuracy,
    }
    # The W&B axis is the iteration, not the order of logging: a stage that goes on logs all of its points again.
    values: dict[str, float] = {}
    for key, estimate in estimates.items():
        values |= with_interval(f"{name}/{key}", estimate)
    run.tracker.log(values, {f"{name}/iteration": float(point.iteration)})


def _rehearse(stage: IterationsStage, run: Run, judge: AnyJudge, engine: CountingEngine) -> Rehearsed:
    """Count the pools of every iteration, then the ratings."""
    name = name_of(run, stage)
    planned_games, played_games = 0, 0
    for number in range(1, stage.iterations + 1):
        planned, played = preferences.rehearse(preferences_of(stage, run, name, number), run, judge, engine)
        planned_games += planned
        played_games += played
    rating_games = _rating_games(stage, run, players(stage, name, stage.iterations))
    shown = some_games(rating_games)
    play(shown, stage.players_of(run, shown), engine, judge)
    planned_games += len(rating_games)
    played_games += len(shown)
    return Rehearsed(len(_games(stage, run)), planned_games / max(played_games, 1), engine.asked)
