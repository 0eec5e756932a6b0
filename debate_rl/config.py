"""One typed tree for a whole experiment: read from YAML, changed by `key.path=value`, unknown keys refused.

The text under a field is its help: `debate-rl run --help` and errors point here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from debate_rl.config_file import read_tree
from debate_rl.config_judge import JudgeSettings
from debate_rl.config_stages import STAGES, Stage, made_by, references
from debate_rl.engines.budget import Price
from debate_rl.errors import UserError, name_fault, nearest
from debate_rl.game.protocol import Protocol, load_protocol
from debate_rl.records import Record, explain

_ENGINE = {
    "concurrency", "retries", "timeout", "key_env", "load_adapters", "refused", "budget", "prices", "batch_tokens",
    "cache_tokens",
}  # fmt: skip
"""Of the engine's keys those that say how it works, not what it answers."""
_RUN = ("runs", "processes", "tracking", "hardware")


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
    human: str | None = None
    """Human debates (as source nyu) whose stories no test question may be about; known by id, title or text."""
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


class BudgetSettings(Record):
    """What a run may spend at a server; it stops before it would pass that, and what is finished is kept."""

    tokens: int | None = Field(default=None, ge=1)
    """Of prompts and answers together."""
    money: float | None = Field(default=None, gt=0)
    """In the currency of `prices`."""


class EngineSettings(Record):
    """How models are run."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a key or password typed into the wrong field stays unsaid

    kind: Literal["transformers", "server"] = "transformers"
    """transformers: in this process. server: any OpenAI-compatible endpoint; trainings still run here."""
    url: str | tuple[str, ...] | None = None
    """Of a server, for example http://localhost:8000/v1; a list names replicas of one another."""
    key_env: str | None = None
    """Environment variable that holds the server's key, for example OPENAI_API_KEY; empty sends none."""
    concurrency: int = Field(default=16, ge=1)
    """Requests to a server under way at a time."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds without a byte from a server until a try is given up."""
    retries: int = Field(default=5, ge=0)
    """Further tries at a server that is busy or does not answer."""
    refused: dict[str, tuple[Literal["max_tokens", "temperature", "top_p", "seed", "stop", "n"], ...]] = {}
    """Request fields that a server's model does not take: {gpt-5: [max_tokens, temperature, top_p]}; what is not named
    here is learnt from its first refusal. Without max_tokens, max_completion_tokens is sent."""
    load_adapters: bool = False
    """Have a vLLM server load adapters that it lacks; it must see their folders, and allow it."""
    budget: BudgetSettings = BudgetSettings()
    prices: dict[str, Price] = {}
    """Of a server's models, for a million tokens: {gpt-4o-mini: {prompt: 0.15, new: 0.60}}; `*` is all others."""
    device: str | None = None
    """cpu, cuda, cuda:1...; empty takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] | None = None
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at once; lower it if memory runs out."""
    cache_tokens: int = Field(default=32768, ge=0)
    """Tokens of prompts kept in memory for later rounds, beside those. 0 keeps none between calls, and then a run that
    was stopped ends the same to the last bit, not only to rounding."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of PyTorch; empty keeps its own choice (OMP_NUM_THREADS)."""
    temperature: float = Field(default=0.5, ge=0)
    """Of every debater."""
    reuse_opponents: bool = False
    """Best-of-N players simulate the other side by the draws that its own speech is chosen from: fewer texts, but the
    choice is then made against what the other side may really say."""
    revision: str | None = None
    """Revision of models from the hub; of a server, a name for the weights behind its url, which else is the url."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        from debate_rl.engines.endpoint import url_fault  # urllib3 only where a server is asked

        for one in (url,) if isinstance(url, str) else url or ():
            fault = url_fault(one)
            if fault is not None:
                raise ValueError(fault)
        return url or None

    @field_validator("key_env")
    @classmethod
    def _is_name(cls, name: str | None) -> str | None:
        from debate_rl.engines.endpoint import key_env_fault

        fault = None if name is None else key_env_fault(name)
        if fault is not None:
            raise ValueError(fault)
        return name

    @model_validator(mode="after")
    def _server_has_url(self) -> EngineSettings:
        if (self.kind == "server") != (self.url is not None):
            raise ValueError("kind: server and url belong together; set both, or neither")
        return self


class Hardware(Record):
    """The machine that a config is meant for: what does not fit is refused before anything runs."""

    card: str | float = "h100-80gb"
    """Name of a GPU, or its GiB (`debate_rl.trainers.memory.CARDS`)."""
    cards: int = Field(default=1, ge=1)
    """Processes of every training that has a `launch`, one for each card."""


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
    """Of this protocol; in others each side speaks as often, where they have no shape of their own (claim)."""
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

        `turns` is of the default protocol. In every other one each side speaks as often as in that, where its turns are
        whole passes of its order; a shape of its own stays (claim: A, B, A), and so does the most that market-making
        may take.
        """
        changes = self.model_dump(exclude_none=True, exclude={"name", "turns"})
        found = load_protocol(name or self.name, **changes)
        if self.turns is None or found.turns == 0:
            return found
        if name in (None, self.name):
            return load_protocol(self.name, turns=self.turns, **changes)
        if found.calls == "rejected" or found.turns % len(found.order):
            return found
        own = load_protocol(self.name)
        passes = -(-self.turns // (2 if own.calls == "rejected" else len(own.order)))
        return load_protocol(name or self.name, turns=passes * len(found.order), **changes)


class Config(Record):
    """One experiment."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = "experiment"
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
    judge: JudgeSettings = JudgeSettings()
    tracking: Tracking = Tracking()
    hardware: Hardware | None = None
    """Empty takes what is there."""
    stages: dict[str, Stage] = {}
    """Stages by name, run in this order. A name that is not a kind needs `kind:`."""

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, name: str) -> str:
        fault = None if re.fullmatch(r"seed[0-9]+", name) else name_fault(name, "a run")
        if fault is not None:
            raise ValueError(fault)
        return name

    @field_validator("stages")
    @classmethod
    def _are_folder_names(cls, stages: dict[str, Stage]) -> dict[str, Stage]:
        seen: dict[str, str] = {}
        for name in stages:
            fault = name_fault(name, "a stage")
            if fault is not None:
                raise ValueError(fault)
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise ValueError(f"{other!r} and {name!r} are one folder on many systems; rename one of the stages")
        return stages

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
        every = {made for name, stage in self.stages.items() for made in made_by(name, stage)}
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for wanted in sorted(references(stage) - set(earlier)):
                where = (
                    "comes later; move it up"
                    if wanted in every
                    else f"is not there; {nearest(wanted, ['base', *earlier])}"
                )
                raise ValueError(f"stage {name!r} builds on {wanted!r}, which {where}")
            earlier += made_by(name, stage)
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
    stages = tree.get("stages") or {}
    for name in stages:
        fault = name_fault(str(name), "a stage")
        if fault is not None:
            raise UserError(f"{where}: stages: {fault}")
    tree = {**tree, "stages": {str(name): _stage(str(name), value, where) for name, value in stages.items()}}
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


def settled(config: Config, *leave_out: str) -> dict[str, Any]:
    """The part of a config that its results depend on: what else there is may change while a run is at work.

    Where `engine.revision` names the weights behind a server, its url may change; replicas may be added to the first.
    """
    exclude: dict[str, Any] = {**dict.fromkeys((*_RUN, *leave_out), True), "engine": _ENGINE}
    tree = config.model_dump(mode="json", by_alias=True, exclude=exclude)
    url = config.engine.url if config.engine.revision is None else None
    tree["engine"]["url"] = url[0] if isinstance(url, tuple) else url
    return tree


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
