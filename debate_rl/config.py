"""One typed tree for a whole experiment: read from YAML, changed by `key.path=value`, unknown keys refused.

The text under a field is its help: `debate-rl run --help` and errors point here.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from debate_rl.config_file import read_tree
from debate_rl.errors import UserError, nearest
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.records import Record, explain
from debate_rl.trainers.settings import Lora, Objective


class Questions(Record):
    """Where the questions come from and how many are used of each split."""

    source: Literal["lab", "quality", "nyu", "file"] = "lab"
    path: str | None = None
    """File or folder of the source; the lab needs none."""
    family: str = "whereabouts"
    """Family of lab stories."""
    knobs: dict[str, Any] = {}
    """Knobs of the lab family, such as the number of moves."""
    hard_only: bool = False
    """Of QuALITY: questions marked difficult only."""
    train: int = Field(default=400, ge=1)
    """Questions for transcripts, preferences and judge training."""
    test: int = Field(default=80, ge=1)
    """Questions for tournaments and judge accuracy; their stories are in no other split."""
    seed: int | None = Field(default=None, ge=0)
    """Of the test questions and of the weak-to-strong items; empty is the config's seed. A study over seeds keeps it
    the same for all of them; the other questions follow each run's own seed."""


class Models(Record):
    """Model of each role: a lab model, a folder or a hub name."""

    debater: str = "lab-base"
    judge: str = "lab-base"
    weak: str = "lab-small"
    strong: str = "lab-base"


class EngineSettings(Record):
    """How models are run."""

    device: str | None = None
    """cpu, cuda, cuda:1...; empty takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] | None = None
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at once; lower it if memory runs out."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch; empty keeps its own choice (OMP_NUM_THREADS)."""
    temperature: float = Field(default=0.5, ge=0)
    """Of every debater."""
    revision: str | None = None
    """Revision of models from the hub."""


class Tracking(Record):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: online where a key is set and the server answers, else offline."""
    project: str = "debate-rl"
    entity: str | None = None
    group: str | None = None
    """Stands before the run's name; a study puts its own name here for the runs of its seeds."""


class ProtocolSettings(Record):
    """The game of every stage that does not name another, and what changes in every protocol."""

    name: str = "debate"
    """A shipped protocol or a YAML file."""
    turns: int | None = None
    max_new_tokens: int | None = None
    max_words: int | None = None
    near_quotes: float | None = None
    scratchpad: Literal["none", "private", "public"] | None = None
    identities: Literal["hidden", "shown"] | None = None
    needs_passage: bool | None = None
    prompts: str | None = None
    """Prompt set of every protocol: default, lab, or a folder."""

    def load(self, name: str | None = None) -> Protocol:
        """The protocol of this name (else the default one) with the changes applied.

        `turns` changes the default protocol, and of the others only those that have speeches.
        """
        changes = self.model_dump(exclude_none=True, exclude={"name", "turns"})
        found = load_protocol(name or self.name, **changes)
        if self.turns is not None and found.turns > 0:
            found = load_protocol(name or self.name, turns=self.turns, **changes)
        return found


class TrainingStage(Record):
    """What every stage that trains has."""

    lora: Lora | None = Lora()
    """null trains all weights."""
    train: dict[str, Any] = {}
    """Arguments of the TRL or transformers config, passed on unchanged."""
    launch: str | None = None
    """accelerate config to launch with; empty trains in this process."""


class SftStage(TrainingStage):
    """Supervised finetuning of the debater on transcripts."""

    kind: Literal["sft"] = "sft"
    transcripts: tuple[str, ...] = ("lab-human", "lab-gpt")
    """Sources: lab-human, lab-gpt, nyu, or a file of transcripts or legs."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most so many questions' transcripts."""
    rows: int | None = Field(default=None, ge=1)
    """Train on at most so many rows, drawn by seed; all are built and counted."""
    start: str | None = None
    """Earlier stage whose adapter is trained further."""


class JudgeStage(TrainingStage):
    """Finetuning and calibrating the judge on verdict labels."""

    kind: Literal["judge"] = "judge"
    from_: Literal["self_play"] = Field(default="self_play", alias="from")
    """Transcripts: the players' self-play on training questions."""
    players: tuple[str, ...] = ("base", "sft")
    """Whose debates the judge learns from."""
    protocols: tuple[str, ...] = ("debate", "single")
    questions: int = Field(default=200, ge=2)
    """Training questions; a quarter of the stories is held out to calibrate on."""
    calibrate: Literal["temperature", "platt", "isotonic", "none"] = "temperature"


class PreferencesStage(Record):
    """Best-of-N pools on training questions, judged: the rows of DPO."""

    kind: Literal["preferences"] = "preferences"
    player: str = "sft"
    best_of: int = Field(default=4, ge=2)
    opponents: int = Field(default=2, ge=0)
    questions: int = Field(default=200, ge=1)
    pairs_per_pool: int = Field(default=1, ge=1)
    min_gap: float = Field(default=0.0, ge=0, le=1)
    """Least difference in the judge's probability between chosen and rejected."""
    protocol: str | None = None


class DpoStage(TrainingStage):
    """Preference training of the debater."""

    kind: Literal["dpo"] = "dpo"
    start: str = "sft"
    """Earlier stage whose adapter is trained further and is the reference."""
    preferences: str = "preferences"
    """Stage that made the rows."""
    objective: Objective = Objective()
    share_prompt: bool = False
    """Encode each prompt once for both speeches: the same numbers in about half the time, for models with full
    attention in every layer (Llama, Qwen 2 and 3, Mixtral)."""


class TournamentStage(Record):
    """Round robin with sides swapped, ratings, and judge accuracy in self-play."""

    kind: Literal["tournament"] = "tournament"
    players: tuple[str, ...] = ("base", "sft", "dpo")
    """Names: base, or a training stage; @N plays Best-of-N."""
    protocol: str | None = None
    questions: int | None = Field(default=None, ge=1)
    """Test questions; empty takes all."""
    opponents: int = Field(default=2, ge=0)
    """Simulated opponents of Best-of-N players."""
    ridge: float = Field(default=0.1, ge=0)
    """Penalty that keeps the ratings of undefeated players finite."""
    resamples: int = Field(default=1000, ge=10)

    @field_validator("players")
    @classmethod
    def _two_players(cls, players: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(players)) != len(players) or len(players) < 2:
            raise ValueError("needs at least two players, each once")
        return players


class OversightStage(Record):
    """Judge accuracy under each protocol on the same questions and debaters."""

    kind: Literal["oversight"] = "oversight"
    protocols: tuple[str, ...] = ("debate", "double", "ensembled", "single", "blind", "open_book")
    players: tuple[str, ...] = ("dpo",)
    questions: int | None = Field(default=None, ge=1)
    opponents: int = Field(default=2, ge=0)


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
    context: tuple[Literal["none", "debate"], ...] = ("none", "debate")
    """What the supervisor reads beside the claim."""
    ensemble: int = Field(default=4, ge=1)
    """Supervisors whose soft labels are averaged; with debates each reads its own draw."""
    debater: str = "dpo"
    task: str = "questions"
    """questions (those above, of the validation split), claims (the same, each naming one answer as the correct one),
    sciq, boolq, cosmosqa or hh."""
    protocol: str | None = None
    """Of the debates; empty is the run's own for questions and `claim` for the others."""
    readout: Literal["answers", "head"] = "answers"
    """How models answer: by their probabilities of the two answers, or by a new classification head."""
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


class ReportStage(Record):
    """The HTML page."""

    kind: Literal["report"] = "report"
    transcripts: int = Field(default=12, ge=0)
    """Transcripts shown in full."""


Stage = (
    SftStage
    | JudgeStage
    | PreferencesStage
    | DpoStage
    | TournamentStage
    | OversightStage
    | ReadingStage
    | WeakToStrongStage
    | ReportStage
)
STAGES: dict[str, type[BaseModel]] = {kind.model_fields["kind"].default: kind for kind in get_args(Stage)}


def references(stage: Stage) -> set[str]:
    """Names of the earlier stages that a stage builds on, without `base` and the @N of players."""
    fields = stage.model_dump()
    named = [fields.get(key) for key in ("start", "preferences", "player", "debater")] + list(fields.get("players", ()))
    return {name.partition("@")[0] for name in named if name} - {"base"}


class Config(Record):
    """One experiment."""

    name: str = Field(default="experiment", pattern=r"^[\w][\w.-]*$")
    """The run's folder is runs/NAME: letters, digits, dots and dashes."""
    seed: int = Field(default=0, ge=0)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """A study: every stage is run once for each of these seeds, in runs/NAME/seedN, on the same test questions."""
    processes: int = Field(default=1, ge=1)
    """How many seeds of a study run at a time; each takes its own memory, and `engine.threads` cores."""
    runs: str = "runs"
    """Folder of all runs."""
    questions: Questions = Questions()
    models: Models = Models()
    engine: EngineSettings = EngineSettings()
    protocol: ProtocolSettings = ProtocolSettings()
    tracking: Tracking = Tracking()
    stages: dict[str, Stage] = {}
    """Stages by name, run in this order. A name that is not a kind needs `kind:`."""

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
        if twice is not None:
            raise ValueError(f"seed {twice} stands there twice; give each seed once, such as [0, 1, 2]")
        return seeds

    @property
    def question_seed(self) -> int:
        """Of the test questions and of the weak-to-strong items."""
        return self.seed if self.questions.seed is None else self.questions.seed

    @model_validator(mode="after")
    def _in_order(self) -> Config:
        names = list(self.stages)
        for at, (name, stage) in enumerate(self.stages.items()):
            for wanted in sorted(references(stage) - set(names[:at])):
                where = (
                    "comes later; move it up"
                    if wanted in names
                    else f"is not there; {nearest(wanted, ['base', *names[:at]])}"
                )
                raise ValueError(f"stage {name!r} builds on {wanted!r}, which {where}")
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config and apply overrides.

    Args:
        path: a YAML file; `extends: FILE` beside its keys takes that file's keys first.
        overrides: `key.path=value`, the value read as YAML.

    Raises:
        UserError: the file is missing or is not YAML, a key is unknown (names the nearest), or a value does not fit.
    """
    return parse_config(read_tree(path, overrides), str(path))


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Check a tree of plain values (see `load_config`)."""
    if not isinstance(tree.get("stages") or {}, dict):
        raise UserError(f"{where}: stages: expected names with settings under them, such as stages: {{sft: {{}}}}")
    tree = {**tree, "stages": {name: _stage(name, value, where) for name, value in (tree.get("stages") or {}).items()}}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error, Config, '')}") from error


def _stage(name: str, value: Any, where: str) -> BaseModel:
    """Check one stage by its kind, which is its name unless it says otherwise."""
    if not isinstance(value, dict | BaseModel | None):
        raise UserError(f"{where}: stages.{name}: expected settings, found {value!r}")
    value = dict(value or {})
    kind = value.setdefault("kind", name)
    if kind not in STAGES:
        raise UserError(f"{where}: unknown key 'stages.{kind}'; {_suggest(str(kind), STAGES, 'stages.')}")
    try:
        return STAGES[kind].model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error, STAGES[kind], f'stages.{name}.')}") from error


def _suggest(key: str, known: Any, prefix: str) -> str:
    """The nearest key with its path, else the list."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean '{prefix}{close[0]}'?" if close else nearest(key, known)


def _complaint(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    """One line about the first thing wrong: an unknown key names the nearest, a bad value says what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] != "extra_forbidden":
        return f"{prefix}{explain(error)}"
    owner = _owner(model, path[:-1])
    known = [field.alias or name for name, field in owner.model_fields.items()]
    inner = "".join(f"{part}." for part in path[:-1])
    return f"unknown key '{prefix}{'.'.join(path)}'; {_suggest(path[-1], known, prefix + inner)}"


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model that a path of fields leads to."""
    for part in path:
        found = model.model_fields.get(part)
        kinds = [] if found is None else [found.annotation, *get_args(found.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            model = inner[0]
    return model


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
