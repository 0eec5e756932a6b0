"""Write the reference pages from the code: config keys, commands, records and the Python API.

Each function returns the Markdown of one page; `write_reference` writes them where they changed.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.pycode import ModuleAnalyzer

import debate_rl
from debate_rl.cli.main import app
from debate_rl.config.kinds import STAGES
from debate_rl.config.tree import Config
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import JudgeQuestion, Speech, Transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Match, Verdict
from debate_rl.stages.base import Stage
from debate_rl.trainers.common.rows import ClassifierRow, JudgeRow, PreferenceRow, RewardRow, SftRow

RECORDS = (
    Question,
    Protocol,
    Speech,
    JudgeQuestion,
    Transcript,
    Verdict,
    Failure,
    JudgedDebate,
    Match,
    SftRow,
    PreferenceRow,
    JudgeRow,
    ClassifierRow,
    RewardRow,
)
"""Records that users read and write as lines of files."""
API = {
    "Load": ("load_questions", "load_protocol", "load_transcripts", "load_config", "load_environment"),
    "Play": ("play", "preferences", "play_tournament", "TournamentSettings", "Debates"),
    "Train": ("train_sft", "train_dpo", "train_judge", "train_grpo", "train_judge_grpo"),
    "Rate": ("rate", "read_votes"),
    "Transfer": ("train_weak_to_strong", "facilitate"),
    "Players and judges": ("Debater", "Judge", "ReasoningJudge", "StatedJudge", "Panel", "FunctionJudge"),
    "Records": ("Question", "Protocol", "Transcript", "UserError"),
}
"""Public names in the order of the page; a name of `debate_rl.__all__` that is missing here is added at its end."""


def help_text(model: type[BaseModel], name: str) -> str:
    """The text under a field in the source, which is its help; empty where there is none."""
    for owner in model.__mro__:
        if owner.__module__.startswith("debate_rl"):
            documented = ModuleAnalyzer.for_module(owner.__module__).find_attr_docs()
            lines = documented.get((owner.__qualname__, name))
            if lines:
                return " ".join(line.strip() for line in lines).strip()
    return ""


def type_text(annotation: Any) -> str:
    """A type as a reader of YAML would say it."""
    if annotation is type(None):
        return "null"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin is not None and not isinstance(origin, type):
        return " \\| ".join(type_text(argument) for argument in arguments)
    if origin in (list, tuple):
        return "list of " + type_text(arguments[0]) if arguments else "list"
    if origin is dict:
        return f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    if origin is not None:
        return " \\| ".join(type_text(argument) for argument in arguments)
    names = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "anything"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default_text(field: FieldInfo) -> str:
    """The default as it would stand in a config."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, (tuple, list, dict, set, frozenset)) and not value:
        return "empty"
    if isinstance(value, (tuple, list)):
        shown = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        return f"`{json.dumps(shown, default=str)}`"
    return "null" if value is None else f"`{json.dumps(value, default=str)}`"


def inner_records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Records that a field's type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from inner_records(argument)


def field_table(model: type[BaseModel], skip: frozenset[str] = frozenset()) -> list[str]:
    """Lines of a table of a record's fields."""
    table = ["| key | type | default | what it does |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in skip:
            meaning = help_text(model, name).replace("|", "\\|").replace("\n", " ")
            table.append(f"| `{name}` | {type_text(field.annotation)} | {default_text(field)} | {meaning} |")
    return table


def sections(model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> list[str]:
    """A record's table, then those of the records inside it, each shown where it is first met."""
    skip = frozenset({"kind"}) if issubclass(model, Stage) else frozenset()
    lines = [*field_table(model, skip), ""]
    for name, field in model.model_fields.items():
        inner_path = f"{path}.{name}" if path else name
        for inner in inner_records(field.annotation):
            if inner is Stage:
                continue
            if inner in seen:
                lines += [f"`{inner_path}` takes the keys of [`{seen[inner]}`](#{anchor(seen[inner])}).", ""]
                continue
            seen[inner] = inner_path
            lines += [f"({anchor(inner_path)})=", f"### `{inner_path}`", "", first_line(inner), ""]
            lines += sections(inner, inner_path, seen)
    return lines


def anchor(path: str) -> str:
    """The label of a section."""
    return "key-" + path.replace(".", "-").replace("_", "-").lower()


def first_line(thing: Any) -> str:
    """First line of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def config_page() -> str:
    """Every key of a config."""
    lines = [
        "# Config keys",
        "",
        "A config is a YAML file. Any key can be changed on the command line: "
        "`debate-rl run CONFIG questions.test=60 stages.dpo.lora.r=16`. Unknown keys are refused. "
        "`extends: other.yaml` starts from another file.",
        "",
        "## Keys of the whole run",
        "",
    ]
    seen: dict[type[BaseModel], str] = {}
    lines += sections(Config, "", seen)
    for kind, stage in STAGES.items():
        lines += [f"({anchor('stages.' + kind)})=", f"## Stages of kind `{kind}`", "", first_line(stage), ""]
        lines += sections(stage, f"stages.{kind}", seen)
    return "\n".join(lines)


def commands_page() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    lines = ["# Commands", "", "`debate-rl COMMAND --help` prints the same.", ""]
    for path, command in sorted(walk(root, ()), key=lambda found: found[0]):
        lines += command_section(path, command)
    return "\n".join(lines)


def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that are not hidden, with the words that call them."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, child in inner.items():
        if not child.hidden:
            yield from walk(child, (*path, name))


def command_section(path: tuple[str, ...], command: Any) -> list[str]:
    """One command."""
    arguments = {}
    options = {}
    for parameter in command.params:
        meaning = getattr(parameter, "help", None) or ""
        if parameter.param_type_name == "argument":
            word = str(parameter.name).upper()
            arguments[word if parameter.required else f"[{word}]"] = meaning
        else:
            options[", ".join(parameter.opts)] = meaning
    usage = " ".join(["debate-rl", *path, *arguments, *(["[OPTIONS]"] if options else [])])
    lines = [f"## `debate-rl {' '.join(path)}`", "", inspect.cleandoc(command.help or ""), ""]
    lines += ["```text", usage, "```", ""]
    for name, meaning in {**arguments, **options}.items():
        lines.append(f"- `{name}`: {meaning}")
    return [*lines, ""]


def records_page() -> str:
    """Records that stand in files, with examples."""
    lines = [
        "# Record formats",
        "",
        "Every file of a run is JSON or JSON lines. A line is one of these records, written and read by the same "
        "class. Unknown fields are refused.",
        "",
    ]
    for record in RECORDS:
        text = inspect.cleandoc(record.__doc__ or "")
        first, _, rest = text.partition("\n")
        lines += [f"## {record.__name__}", "", first, ""]
        if rest.strip():
            lines += ["```text", rest.strip("\n"), "```", ""]
        lines += [*field_table(record), ""]
    return "\n".join(lines)


def api_page() -> str:
    """Every public name of `import debate_rl`."""
    lines = ["# Python API", "", "`import debate_rl as dr`; each name below is `dr.NAME`.", ""]
    listed = {name for names in API.values() for name in names}
    rest = tuple(name for name in debate_rl.__all__ if name not in listed)
    for title, names in {**API, **({"Others": rest} if rest else {})}.items():
        lines += [f"## {title}", ""]
        for name in names:
            thing = getattr(debate_rl, name)
            home = f"{thing.__module__}.{thing.__qualname__}"
            directive = "autofunction" if inspect.isroutine(thing) else "autoclass"
            lines += ["```{eval-rst}", f".. {directive}:: {home}", "```", ""]
    return "\n".join(lines)


def write_reference(folder: Path) -> None:
    """Write all pages; those that did not change keep their time, so that Sphinx does not read them again."""
    folder.mkdir(exist_ok=True)  # git keeps no pages that are made, so a fresh clone has no folder
    pages = {"config": config_page, "commands": commands_page, "records": records_page, "api": api_page}
    for name, page in pages.items():
        path, text = folder / f"{name}.md", page() + "\n"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
