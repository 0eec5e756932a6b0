"""Settings of the stages that measure, every kind of stage, what a stage builds on and what it makes."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from debate_rl.config.judge import JudgeSettings
from debate_rl.config.training_stages import (
    DpoStage,
    GrpoStage,
    IterationsStage,
    JudgeStage,
    PreferencesStage,
    SftStage,
    TrainingStage,
)
from debate_rl.errors import UserError, name_fault
from debate_rl.records import Record
from debate_rl.trainers.common.settings import StudentLoss
from debate_rl.weak_to_strong.contexts import ROLES, SHIPPED, Context
from debate_rl.weak_to_strong.ensemble import Combination
from debate_rl.weak_to_strong.labels import Labelling
from debate_rl.weak_to_strong.methods import Method, check_methods


class TournamentStage(Record):
    """Round robin with sides swapped, ratings, and judge accuracy in self-play."""

    kind: Literal["tournament"] = "tournament"
    players: tuple[str, ...] = ("base", "sft", "dpo")
    """Names: base, or a training stage; @N plays Best-of-N, @NcK also refines each candidate K times."""
    protocol: str | None = None
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""
    opponents: int = Field(default=2, ge=0)
    """Simulated opponents of Best-of-N players."""
    ridge: float = Field(default=0.1, ge=0)
    """Penalty that keeps the ratings of undefeated players finite."""
    resamples: int = Field(default=1000, ge=10)
    readings: int = Field(default=40, ge=0)
    """Speeches of each player and side whose quotes alone are shown to the untrained judge, who guesses the side."""

    @field_validator("players")
    @classmethod
    def _two_players(cls, players: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(players)) != len(players) or len(players) < 2:
            raise ValueError("needs at least two players, each once")
        return players


class OversightStage(Record):
    """Judge accuracy under each protocol on the same questions and debaters."""

    kind: Literal["oversight"] = "oversight"
    protocols: tuple[str, ...] = Field(
        default=(
            "debate", "sequential", "open_debate", "double", "ensembled", "single", "open_single", "market_making",
            "blind", "open_book",
        ),
        min_length=1,
    )  # fmt: skip
    reference: str | None = None
    """The protocol that every other one is compared with; empty is debate, else the first."""
    players: tuple[str, ...] = Field(default=("dpo",), min_length=1)
    questions: int | None = Field(default=None, ge=1)
    opponents: int = Field(default=2, ge=0)
    second: str | JudgeSettings | None = None
    """An independent judge that is shown every finished game as well: a judge stage, `base` for the judge model as it
    is, another model, or settings as of `judge`."""
    unsure: float = Field(default=0.1, ge=0, lt=0.5)
    """Of the split by what the judge knows beforehand: a blind verdict so near to one half is neither right nor
    wrong."""

    @model_validator(mode="after")
    def _each_once(self) -> OversightStage:
        for key, names in (("protocols", self.protocols), ("players", self.players)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{key} has {twice!r} twice; give each once")
        if self.reference is not None and self.reference not in self.protocols:
            raise ValueError(f"reference {self.reference!r} is not among protocols: {', '.join(self.protocols)}")
        return self

    @property
    def compared_with(self) -> str:
        """The reference."""
        return self.reference or ("debate" if "debate" in self.protocols else self.protocols[0])


class ReadingStage(Record):
    """Untrained models as judges of the test questions without debates, with the passage and without it."""

    kind: Literal["reading"] = "reading"
    models: tuple[str, ...] = Field(default=("lab-base", "lab-small"), min_length=1)
    """Lab models, folders or hub names."""
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""


class WeakToStrongStage(TrainingStage):
    """Weak supervisors label data, with or without debates to help them; a strong student learns from the labels."""

    kind: Literal["weak_to_strong"] = "weak_to_strong"
    context: tuple[str, ...] = Field(default=("none", "debate"), min_length=1)
    """What the supervisor reads beside the item: none, debate, consultancy, market_making, explanations,
    explanations_weak, or one of `contexts`."""
    contexts: dict[str, Context] = {}
    """Further help by name, or changes to what ships: who speaks, in how many turns, under which protocol."""
    ensemble: int = Field(default=4, ge=1, le=8)
    """Supervisors whose labels are combined; with debates each reads its own draw."""
    combine: Combination = "mean"
    """How: mean (of probabilities), vote, confidence or boosting."""
    labels: Labelling = Labelling()
    """What becomes of their labels: soft, hard, confident, weighted or truth, with errors at a rate."""
    loss: StudentLoss = StudentLoss()
    """What students minimise: xent, confidence, product or entropy."""
    methods: dict[str, Method] = {}
    """Rows of the table, by name, the first being what the others are compared with; empty makes one of each context,
    with the settings above."""
    debater: str = "dpo"
    """Who speaks where a context names nobody."""
    naive: str = "none"
    """Context of the weak model alone: none, or one of kind recorded, whose labels are those of a file."""
    task: str = "questions"
    """questions (those above, of the validation split), claims (the same, each naming one answer as the correct one),
    sciq, boolq, cosmosqa or hh, the path of a binary task's YAML file, pairs (which of two replies of Anthropic HH do
    people prefer; with readout: reward), or chess-mate and chess-best (puzzles whose answers are written; of `methods`
    the members count, who vote)."""
    protocol: str | None = None
    """Of the debates; empty is the run's own for questions and `claim` for the others."""
    readout: Literal["answers", "head", "probe", "reward"] = "answers"
    """How models answer: by their probabilities of the two answers, by a new classification head, by a head on
    frozen weights, or by the rewards of both answers."""
    knobs: dict[str, Any] = {}
    """Knobs of the lab's stories in place of the run's, so that what is asked may be new to every model."""
    path: str | None = None
    """Local file of the task; empty loads it from the hub."""
    supervisor: int = Field(default=200, ge=2)
    """D1: items with ground truth for the weak supervisor."""
    student: int = Field(default=200, ge=2)
    """D2: items that the supervisor labels for the student."""
    test: int = Field(default=200, ge=2)
    seeds: int = Field(default=2, ge=1)
    supervisor_reads_passage: bool = True
    """Whether the weak supervisor may read the passage as well; the student always does."""
    family: str | None = None
    """Family of lab stories in place of the run's."""
    weak: str | None = None
    """Weak model in place of the run's (`models.weak`), for tables over sizes."""
    strong: str | None = None
    """Strong model in place of the run's."""
    table: str | None = None
    """Table in which this stage is a column; empty is a table of its own, by the stage's name."""
    curve: Literal["members", "turns", "errors"] | None = None
    """What the table's plot runs over: supervisors, turns of the context, or rate of errors in the labels. Methods that
    differ in nothing else are points of one line."""

    @field_validator("table")
    @classmethod
    def _is_file_name(cls, table: str | None) -> str | None:
        fault = None if table is None else name_fault(table, "a table")
        if fault is not None:
            raise ValueError(fault)
        return table

    @field_validator("methods")
    @classmethod
    def _folders(cls, value: dict[str, Method]) -> dict[str, Method]:
        for name in value:
            fault = name_fault(name, "a method")
            if fault is not None:
                raise ValueError(fault)
            if name in ("ceiling", "weak", "untrained"):
                raise ValueError(f"{name!r} can not name a method; use letters, digits and - and not a model's name")
        return value

    @model_validator(mode="after")
    def _reads_what_there_is(self) -> WeakToStrongStage:
        try:
            check_methods(self.rows, self.helps)
        except UserError as error:
            raise ValueError(str(error)) from error
        naive = self.helps.get(self.naive)
        if self.naive != "none" and (naive is None or naive.kind != "recorded"):
            raise ValueError(f"naive is none or a context of kind recorded, not {self.naive!r}")
        if self.readout == "probe" and self.lora is not None:
            raise ValueError("readout: probe trains a head on frozen weights; set lora: null, or readout: head")
        return self

    @model_validator(mode="after")
    def _writes_or_answers(self) -> WeakToStrongStage:
        if self.generative and any(row != Method(members=row.members) for row in self.rows.values()):
            raise ValueError(
                f"answers to {self.task} are written, so its methods differ in members alone; set context: [none]"
            )
        if self.generative and self.readout != "answers":
            raise ValueError(f"answers to {self.task} are written; leave out readout")
        return self

    @property
    def generative(self) -> bool:
        """Whether models write their answers, and an exact match counts."""
        return self.task in ("chess-mate", "chess-best")

    @property
    def helps(self) -> dict[str, Context]:
        """All contexts by name, with the stage's protocol for debates that name none."""
        known = {**SHIPPED, **self.contexts}
        return {
            name: one.model_copy(update={"protocol": self.protocol})
            if self.protocol and one.protocol is None and one.kind == "debate"
            else one
            for name, one in known.items()
        }

    @property
    def players(self) -> set[str]:
        """Who speaks for some method, as named."""
        used = [self.helps[row.context] for row in self.rows.values() if row.context != "none"]
        return {name for one in used if one.kind != "recorded" for name in (one.debater or self.debater, *one.players)}

    @property
    def rows(self) -> dict[str, Method]:
        """The methods by name, those made of `context` included."""
        if self.methods:
            return self.methods
        return {
            name: Method(context=name, members=self.ensemble, combine=self.combine, labels=self.labels, loss=self.loss)
            for name in self.context
        }

    @property
    def asks_judge(self) -> bool:
        """Whether the run's judge chooses for a Best-of-N player, calls sides or compares explanations."""
        best = any("@" in name for name in self.players)
        turns = any(self.helps[name].kind == "market_making" and self.helps[name].turns != 1 for name in self.draws)
        return best or turns or any(row.transfer.refine for row in self.rows.values())

    @property
    def draws(self) -> dict[str, int]:
        """Games of an item that some supervisor reads, by context."""
        found: dict[str, int] = {}
        for row in self.rows.values():
            if row.context != "none" and self.helps[row.context].kind != "recorded":
                found[row.context] = max(found.get(row.context, 0), 1 if row.same_sample else row.members)
        return found


class ReportStage(Record):
    """The HTML page."""

    kind: Literal["report"] = "report"
    transcripts: int = Field(default=12, ge=0)
    """Transcripts shown in full."""
    judge_errors: bool = False
    """Put errors into the run's verdicts and show what follows from them, as debate-rl judge errors does; of a study of
    the lab some 30 seconds."""


Stage = (
    SftStage
    | JudgeStage
    | PreferencesStage
    | DpoStage
    | GrpoStage
    | IterationsStage
    | TournamentStage
    | OversightStage
    | ReadingStage
    | WeakToStrongStage
    | ReportStage
)
STAGES: dict[str, type[BaseModel]] = {kind.model_fields["kind"].default: kind for kind in get_args(Stage)}


def references(stage: Stage) -> set[str]:
    """Names of the earlier stages and players that a stage builds on, without `base` and the @N of players."""
    fields = stage.model_dump()
    if isinstance(stage, IterationsStage):
        named = [*stage.pooled, stage.preferences.critic, *stage.preferences.opponents_from]
    elif isinstance(stage, GrpoStage):
        named = [stage.start, *stage.players, *(stage.watch.pool if stage.watch else ())]
    elif isinstance(stage, JudgeStage) and stage.from_ == "recorded":
        named = []
    elif isinstance(stage, WeakToStrongStage):
        named = [name for name in stage.players if name.partition("@")[0] not in ROLES]
    else:
        named = [fields.get(key) for key in ("start", "reference", "preferences", "player", "critic", "debater")]
        named += [*fields.get("players", ()), *fields.get("opponents_from", ())]
    return {name.partition("@")[0] for name in named if name} - {"base"}


def made_by(name: str, stage: Stage) -> dict[str, str]:
    """What a stage is named by later ones, and the folder in the run's that holds it.

    Example:
        made_by("iterations", IterationsStage(iterations=2)) == {
            "iterations": "iterations/iteration2", "iterations.1": "iterations/iteration1",
            "iterations.2": "iterations/iteration2"}
    """
    if isinstance(stage, JudgeStage) and stage.adversarial_rounds:
        return {name: f"{name}/round{stage.adversarial_rounds}"}
    if not isinstance(stage, IterationsStage):
        return {name: name}
    folders = {f"{name}.{k}": f"{name}/iteration{k}" for k in range(1, stage.iterations + 1)}
    return {name: folders[f"{name}.{stage.iterations}"], **folders}
