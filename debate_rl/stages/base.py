"""What every stage is: its settings, what it builds on, what it plays, what it would ask for, and what it does.

A stage is one module of this room with a subclass of `Stage` and, where it measures something, a `StageResult`. It is
listed in `debate_rl.config.kinds`; no other module asks which kind a stage is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from debate_rl.arena.rollout import play
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater
from debate_rl.records import Record
from debate_rl.stages.workload import Rehearsed, TrainingLoad, some_games
from debate_rl.trainers.common.settings import Kind, Lora

if TYPE_CHECKING:
    from debate_rl.config.settings import Models
    from debate_rl.judges.settings import JudgeSettings
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

Metrics = dict[str, Any]
"""What a stage measured, as it stands in its metrics.json: numbers, estimates as {"value", "low", "high", ...}."""


class StageResult(BaseModel):
    """Base of typed results. A metrics.json may hold more than its record names, so unknown fields are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def is_absent(value: Any) -> bool:
    """Whether a field of a result says nothing, so that metrics.json goes without it (`exclude_if` of the field)."""
    return value is None or value == ()


def is_path(name: str) -> bool:
    """Whether a player or judge is named by a folder (runs/quickstart/dpo) and not by a stage of its own run."""
    return "/" in name or "\\" in name


class Stage(Record):
    """Settings of a stage.

    Attributes:
        repeats: whether the stage is done on every run, finished or not (the report).
        makes_players: whether later stages may name its weights as a player.
        trains_judge: whether stages after it are judged by what it trains.
        uses_models: whether it plays or judges with the models of the config.
    """

    repeats: ClassVar[bool] = False
    makes_players: ClassVar[bool] = False
    trains_judge: ClassVar[bool] = False
    uses_models: ClassVar[bool] = True

    kind: str

    def references(self) -> set[str]:
        """Names of the earlier stages and players that it builds on, as the config gives them (`base`, `dpo@4`)."""
        return set()

    @property
    def named_stages(self) -> set[str]:
        """The stages of its own run among its references: without `base`, paths, and the @N of players."""
        names = {name.partition("@")[0] for name in self.references()} - {"base"}
        return {name for name in names if not is_path(name)}

    def makes(self, name: str) -> dict[str, str]:
        """What later stages may name, and the folder in the run's that holds it.

        Example:
            IterationsStage(iterations=2).makes("iterations") == {
                "iterations": "iterations/iteration2", "iterations.1": "iterations/iteration1",
                "iterations.2": "iterations/iteration2"}
        """
        return {name: name}

    @property
    def makes_model(self) -> bool:
        """Whether its weights are a model of their own; else they are an adapter (see `start_of`)."""
        return False

    def start_of(self, made: str) -> str:
        """The player or judge whose base carries the adapter of this name, which is one of those that it makes."""
        return getattr(self, "start", None) or "base"

    @property
    def asks_judge(self) -> bool:
        """Whether the run's judge decides its games, so that it builds on the judge stages before it."""
        return False

    def makes_judges(self, name: str) -> set[str]:
        """Those of the names that it makes (`makes`) that are judges."""
        return {name} if self.trains_judge else set()

    def judged_as(self, settings: JudgeSettings) -> JudgeSettings:
        """How the judge that it trains comes to a verdict, where the run's judge does so as `settings` say."""
        return settings

    @property
    def rated_players(self) -> tuple[str, ...]:
        """Players that it rates against one another."""
        return ()

    def builds_on(self, name: str, other: Stage) -> bool:
        """Whether it reads what an earlier stage, `other`, made under this name."""
        named = bool(set(other.makes(name)) & self.named_stages)
        return named or (self.asks_judge and other.trains_judge)

    def table_name(self, name: str) -> str | None:
        """The weak-to-strong table in which this stage is a column; None for stages of other kinds."""
        return None

    def trainings(self) -> Iterator[tuple[Kind, TrainingStage]]:
        """Kind and settings of each training that it does."""
        return iter(())

    def input_files(self) -> Iterator[tuple[str, str]]:
        """Key and path of each file or folder that its settings name."""
        return iter(())

    def protocols_named(self) -> Iterator[str]:
        """Each protocol that its settings name."""
        protocol = getattr(self, "protocol", None)
        if protocol is not None:
            yield protocol
        yield from getattr(self, "protocols", ())

    def check_playable(self, run: Run) -> None:
        """Refuse a protocol or questions that the stage can not play, before anything is played.

        Raises:
            UserError: the protocol has other sides or turns than the stage needs, or a question stands in two stories.
        """

    def models_used(self, models: Models) -> Iterator[tuple[str, str]]:
        """Key and name of each model that it uses; `models` are the config's."""
        if self.uses_models:
            yield "models.debater", models.debater
            yield "models.judge", models.judge

    def games(self, run: Run) -> list[Transcript]:
        """The games that it plays, before anybody speaks; empty where it plays none."""
        return []

    def tested_questions(self, run: Run) -> list[Question]:
        """Questions beside the test questions that something is measured on; no story of theirs is learnt from."""
        return []

    def speaker(self, run: Run, name: str) -> Debater:
        """The player of a name, as this stage has it speak."""
        return run.debater(name, getattr(self, "opponents", 2))

    def players_of(self, run: Run, games: list[Transcript]) -> dict[str, Debater]:
        """Everybody who speaks in some games, by name."""
        names: set[str] = set()
        for game in games:
            names.update(game.players.values())
        return {name: self.speaker(run, name) for name in names - {"-"}}

    def play_some(self, run: Run, name: str, engine: CountingEngine) -> tuple[list[JudgedDebate], int, float]:
        """Play the games on some of its questions on an engine that counts, judged where the run's judge decides them.

        Returns:
            The games played, how many the stage has in all, and how many of all each one stands for.
        """
        games = self.games(run)
        shown = some_games(games)
        legs: list[JudgedDebate] = []
        if shown:
            judge = run.judge(name) if self.asks_judge else None
            legs = play(shown, self.players_of(run, shown), engine, judge, asker=judge or untrained_judge(run))
        return legs, len(games), len(games) / max(len(shown), 1)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Count what it would ask of models: by default what some of its games ask, for all of them.

        Raises:
            UserError: as the stage itself would: questions can not be read, or a player is not there.
        """
        _, debates, scale = self.play_some(run, name, engine)
        return Rehearsed(debates, scale, engine.asked)

    def plan_note(self, run: Run) -> str:
        """What a plan's counts do not say."""
        return ""

    def training_load(self, run: Run, name: str, like: Path | None) -> TrainingLoad | None:
        """Rows and lengths of its training, estimated; None where it trains nothing.

        Args:
            run: the experiment.
            name: of the stage.
            like: folder of a finished run whose speeches are like those that this one will play.
        """
        return None

    def execute(self, run: Run, out: Path) -> BaseModel | Metrics:
        """Do the stage's work in its working folder, and return what was measured.

        Raises:
            UserError: it can not be done as asked.
        """
        raise NotImplementedError


def untrained_judge(run: Run) -> Judge:
    """The run's judge model as it came: it asks `judge_questions` in games that no judge decides."""
    return Judge(name="base judge", model=run.config.models.judge)


class TrainingStage(Stage):
    """What every stage that trains has."""

    makes_players: ClassVar[bool] = True

    lora: Lora | None = Lora()
    """null trains all weights."""
    train: dict[str, Any] = {}
    """Arguments of the TRL or transformers config, passed on unchanged."""
    quantize: Literal["nf4"] | None = None
    """Hold the base's weights in 4 bits while training; needs `lora`."""
    launch: str | None = None
    """accelerate config to launch with; empty trains in this process."""

    @model_validator(mode="after")
    def _trains_an_adapter_in_4_bits(self) -> TrainingStage:
        if self.quantize is not None and self.lora is None:
            raise ValueError("quantize needs lora: 4-bit weights can not be trained; set lora, or quantize null")
        return self

    @property
    def makes_model(self) -> bool:
        """Whether every weight is trained."""
        return self.lora is None

    def plan_note(self, run: Run) -> str:
        """Say that it trains."""
        return "trains"
