"""One typed tree for a whole experiment: read from YAML, changed by `key.path=value`, unknown keys refused.

The text under a field is its help: `debate-rl run --help` and errors point here.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from debate_rl.config.files import read_tree, set_value
from debate_rl.config.grid import Cell, grid
from debate_rl.config.kinds import STAGES
from debate_rl.config.settings import EngineSettings, Hardware, Models, ProtocolSettings, Questions, Seed, Tracking
from debate_rl.errors import UserError, name_fault, nearest
from debate_rl.judges.settings import JudgeSettings
from debate_rl.players.debater import PlayerSettings
from debate_rl.records import Record, explain
from debate_rl.stages.base import Stage

_ENGINE = {
    "concurrency",
    "retries",
    "timeout",
    "key_env",
    "load_adapters",
    "software",
    "refused",
    "budget",
    "prices",
    "batch_tokens",
    "cache_tokens",
}
"""Keys of the engine that say how it works, not what it answers."""
RENAMED = {
    "least_mass": "min_answer_mass",
    "served": "server_roles",
    "readings": "evidence_probes",
    "unsure": "unsure_margin",
}
"""Old names of keys, by which they are refused."""
_RUN = ("runs", "reuse", "processes", "tracking", "hardware", "sweep")


class Config(Record):
    """One experiment."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = "experiment"
    """The run's folder is runs/NAME: letters, digits, dots and dashes."""
    seed: Seed = 0
    """Seed of everything that is drawn: questions, sides, speeches, trainings."""
    seeds: tuple[Seed, ...] = ()
    """A study: every stage is run once for each of these seeds, in runs/NAME/seedN, on the same test questions."""
    sweep: dict[str, tuple[Any, ...]] = {}
    """Values of other keys, by their paths: {stages.dpo.objective.gamma: [3.5, 7]}. Every combination is a run, or a
    study with `seeds`, in runs/NAME/CELL, and all of them stand in one table."""
    processes: int = Field(default=1, ge=1)
    """How many seeds of a study, or runs of a sweep, are at work at a time; each takes its own memory, and
    `engine.threads` cores."""
    runs: str = "runs"
    """Folder of all runs."""
    reuse: str | None = None
    """Folder of a finished run: stages that would be made from the very same settings are copied from it."""
    questions: Questions = Questions()
    """What is debated."""
    models: Models = Models()
    """Model of each role."""
    engine: EngineSettings = EngineSettings()
    """How models are run: in this process or at a server, number formats, temperature."""
    protocol: ProtocolSettings = ProtocolSettings()
    """Rules of the games: a protocol that ships or a YAML file, and changes to it."""
    players: PlayerSettings = PlayerSettings()
    """How players write their speeches, beside the temperature."""
    judge: JudgeSettings = JudgeSettings()
    """How judges come to a verdict."""
    tracking: Tracking = Tracking()
    """Weights & Biases."""
    hardware: Hardware | None = None
    """Empty takes what is there."""
    stages: dict[str, SerializeAsAny[Stage]] = {}
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
        """Seed of the test questions and the weak-to-strong items."""
        return self.seed if self.questions.seed is None else self.questions.seed

    @model_validator(mode="after")
    def _server_can_do_it(self) -> Config:
        players = self.players
        beyond = {
            "opening": bool(players.opening),
            "quotes.constrained": players.quotes.constrained,
            "repetition_penalty": players.repetition_penalty != 1,
        }
        named = next((key for key, wanted in beyond.items() if wanted), None)
        if named is not None and self.engine.kind == "server" and self.engine.software is None:
            raise ValueError(
                f"players.{named}: OpenAI's API has no field for it; set engine.software to vllm, sglang or llama.cpp "
                "if the server runs one of them, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Config:
        every: set[str] = set()
        for name, stage in self.stages.items():
            every.update(stage.makes(name))
        earlier: list[str] = []
        for name, stage in self.stages.items():
            for wanted in sorted(stage.named_stages - set(earlier)):
                where = (
                    "comes later; move it up"
                    if wanted in every
                    else f"is not there; {nearest(wanted, ['base', *earlier])}"
                )
                raise ValueError(f"stage {name!r} builds on {wanted!r}, which {where}")
            earlier += stage.makes(name)
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config and apply overrides.

    Args:
        path: a YAML file; `extends: FILE` beside its keys takes that file's keys first.
        overrides: `key.path=value`, the value read as YAML.

    Raises:
        UserError: the file is missing or is not YAML, a key is unknown (names the nearest), or a value does not fit.

    Example:
        >>> from pathlib import Path
        >>> import debate_rl as dr
        >>> characters = Path("mine.yaml").write_text("models: {debater: lab-base}\\nstages: {reading: {}}\\n")
        >>> dr.load_config("mine.yaml", ["seed=3"]).seed
        3
    """
    return parse_config(read_tree(path, overrides), str(path))


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Check a tree of plain values (see `load_config`)."""
    if "order" in tree and "stages" not in tree:
        raise UserError(f"{where}: this is a protocol, not a config; give it as --protocol FILE or protocol.name=FILE")
    if not isinstance(tree.get("stages") or {}, dict):
        raise UserError(f"{where}: stages: expected names with settings under them, such as stages: {{sft: {{}}}}")
    stages = tree.get("stages") or {}
    for name in stages:
        fault = name_fault(str(name), "a stage")
        if fault is not None:
            raise UserError(f"{where}: stages: {fault}")
    tree = {**tree, "stages": {str(name): _stage(str(name), value, where) for name, value in stages.items()}}
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error, Config, '')}") from error
    for _, _ in cells(config, where):
        pass  # what is wrong with any of them is said before the first one runs
    return config


def cells(config: Config, where: str = "config") -> Iterator[tuple[Cell, Config]]:
    """Each combination of a sweep's values, with its config; none for a config without `sweep`.

    Raises:
        UserError: a key is unknown or can not be swept, or a value does not fit.
    """
    if not config.sweep:
        return
    below = config.model_dump(mode="json", by_alias=True, exclude={"sweep"})
    group = config.tracking.group or config.name
    for cell in grid(config.sweep):
        tree = copy.deepcopy(below) | {"name": cell.name, "runs": str(Path(config.runs) / config.name)}
        # Seeds of all cells have the same names: a group of their own tells what W&B keeps of them apart.
        tree["tracking"]["group"] = f"{group}-{cell.name}" if config.seeds else group
        for key, value in cell.values.items():
            set_value(tree, key, value, "sweep")
        yield cell, parse_config(tree, f"{where}: sweep")


def _stage(name: str, value: Any, where: str) -> BaseModel:
    """Check one stage by its kind, which is its name unless it says otherwise."""
    if not isinstance(value, dict | BaseModel | None):
        raise UserError(f"{where}: stages.{name}: expected settings, found {value!r}")
    value = dict(value or {})
    kind = value.setdefault("kind", name)
    if not isinstance(kind, str) or kind not in STAGES:
        raise UserError(f"{where}: unknown key 'stages.{kind}'; {_suggest(str(kind), STAGES, 'stages.')}")
    try:
        return STAGES[kind].model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error, STAGES[kind], f'stages.{name}.')}") from error


def _suggest(key: str, known: Any, prefix: str) -> str:
    """The nearest key with its path, else the list."""
    # One clear match is a typing error; else the choices are listed.
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"did you mean '{prefix}{close[0]}'?" if close else nearest(key, known)


def _complaint(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    """One line about the first thing wrong: an unknown key names the nearest, a bad value says what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] != "extra_forbidden":
        return f"{prefix}{explain(error)}"
    if path[-1] in RENAMED:
        return f"'{prefix}{'.'.join(path)}' is called '{RENAMED[path[-1]]}' now"
    owner = _owner(model, path[:-1])
    known = [field.alias or name for name, field in owner.model_fields.items()]
    inner = "".join(f"{part}." for part in path[:-1])
    return f"unknown key '{prefix}{'.'.join(path)}'; {_suggest(path[-1], known, prefix + inner)}"


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model that a path of fields leads to."""
    for part in path:
        field = model.model_fields.get(part)
        # Of an optional field or a union the model stands among the arguments of its annotation.
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            model = inner[0]
    return model


def settled(config: Config, *leave_out: str) -> dict[str, Any]:
    """The part of a config that its results depend on: what else there is may change while a run is at work.

    Where `engine.revision` names the weights behind a server, its url may change.
    """
    exclude: dict[str, Any] = {**dict.fromkeys((*_RUN, *leave_out), True), "engine": _ENGINE}
    tree = config.model_dump(mode="json", by_alias=True, exclude=exclude)
    tree["engine"]["url"] = config.engine.url if config.engine.revision is None else None
    return tree


def dump_config(config: Config) -> str:
    """The resolved config as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
