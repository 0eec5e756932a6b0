"""A binary task as data: where its rows are, the text made of each, and the rule that says which texts are correct.

The tasks that ship (sciq, boolq, cosmosqa, hh) stand in `tasks.yaml`; any other is a YAML file of the same fields:

    name: paws                                            # the file's name where it is left out
    hub: google-research-datasets/paws                    # or path: rows.csv, beside the YAML file
    config: labeled_final
    splits: {train: train, test: test}
    text: "First: {{ sentence1 }}\\nSecond: {{ sentence2 }}"
    label: label
    group: "{{ sentence1 }}"
    prefix: There are two sentences. The claim is that they mean the same.

Templates and expressions are Jinja2's, over the fields of a row, in its sandbox. To them come the filter `pick`
(`choices | pick(label)`: the element at a place, refused where there is no such place) and the test `containing`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import yaml
from jinja2 import StrictUndefined, UndefinedError, meta
from pydantic import ValidationError, model_validator

from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Split
from debate_rl.game.sandbox import Sandbox, fill, template_fault
from debate_rl.records import Record, csv_rows, explain, lines, read_json, read_yaml

Row = dict[str, Any]
Label = Literal[0, 1]
FORMATS = (".jsonl", ".json", ".csv", ".tsv")


class Task(Record):
    """A binary task.

    Example:
        Task(name="sciq", hub="allenai/sciq", text="Q: {{ question }} A: {{ offered }}", right="correct_answer",
             answers="[correct_answer, distractor1]", group="{{ question }}")
    """

    name: str
    hub: str | None = None
    """Name of the data set on the hub."""
    config: str | None = None
    """Configuration of the data set on the hub."""
    revision: str | None = None
    """Revision on the hub."""
    splits: dict[Split, str] = {}
    """The hub's split behind each of ours; only splits that have labels. A local file is read whole."""
    path: str | None = None
    """Local file in place of the hub: .jsonl, .json (a list), .csv or .tsv; relative to the YAML file."""
    text: str
    """Template of what is to be called correct or incorrect; `offered` is the answer drawn."""
    label: str | None = None
    """Expression of the label: true or 1 where the text is correct, None or -1 where it is not known."""
    right: str | None = None
    """In place of a label, expression of the right answer: a text offers it or another, with equal chance."""
    answers: str | None = None
    """With `right`, expression of the list of answers to draw from; where the right one is not among them a wrong one
    is offered."""
    group: str | None = None
    """Template of what rows share, such as the passage: splits never cut it. Empty: the text, or with `right` the text
    without its answer."""
    finished: str | None = None
    """Pattern for rows whose text is made already (`txt`): its first group is what they share, the second the
    answer."""
    prefix: str = ""
    """What a debate prompt says before the text."""

    @model_validator(mode="after")
    def _one_rule(self) -> Task:
        if (self.label is None) == (self.right is None) or (self.right is None) != (self.answers is None):
            raise ValueError("give 'label', or 'right' with 'answers': the rule that says which texts are correct")
        if self.hub is not None and self.path is not None:
            raise ValueError("give 'hub' or 'path', not both")
        if self.finished is not None and re.compile(self.finished).groups < 1:
            raise ValueError("'finished' needs a group in brackets: what rows share")
        return self


class Drawn(NamedTuple):
    """What is made of a row."""

    text: str
    label: Label | None
    shared: str
    """What the row shares with others."""
    answer: str
    """The answer offered; empty where the task has none."""


@cache
def shipped_tasks() -> dict[str, dict[str, Any]]:
    """Fields of the tasks that ship, by name, from `tasks.yaml`."""
    text = resources.files("debate_rl.data.tasks").joinpath("tasks.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def load_task(name: str) -> Task:
    """Look up a task that ships, or read one from a YAML file.

    Args:
        name: sciq, boolq, cosmosqa or hh, or a path that ends in .yaml.

    Raises:
        UserError: no such task, an unknown or missing field, or a template that Jinja2 does not read.
    """
    if not name.endswith((".yaml", ".yml")):
        if name not in shipped_tasks():
            raise UserError(
                f"unknown task {name!r}; {nearest(name, shipped_tasks())}; or give the path of a task's .yaml"
            )
        return Task(name=name, **shipped_tasks()[name])
    file = Path(name)
    fields = read_yaml(file, "task file")
    for key in sorted(set(map(str, fields)) - set(Task.model_fields)):
        raise UserError(f"unknown key {key!r} in {name}; {nearest(key, Task.model_fields)}")
    if fields.get("path"):
        fields["path"] = str(file.parent / fields["path"])
    try:
        task = Task(**{"name": file.stem, **fields})
        Maker(task)
    except ValidationError as error:
        raise UserError(f"{name}: {explain(error)}") from error
    except Exception as error:  # compiling a template may raise anything
        raise UserError(
            f"{name}: a template, expression or pattern is not readable: {template_fault(error)}"
        ) from error
    return task


def _pick(answers: Sequence[Any], place: Any) -> Any:
    """The element at a place, a number or its digits; labels that are hidden (-1, none) have no place."""
    if not str(place).isdigit() or int(place) >= len(answers):
        raise ValueError(f"{place!r} is not a place from 0 to {len(answers) - 1}; take a split that has labels")
    return answers[int(place)]


def _shown(value: Any) -> str:
    """What a template writes of a field: a text or a number, never "None"."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"a text field holds {type(value).__name__}, expected text")


_NULLS = ("nan", "NaN", "None", "null", "NULL", "<NA>")
"""What libraries write into a table for a value that is missing."""


def _is_empty(value: Any) -> bool:
    """Whether a field holds no answer: nothing, or what is no text and no number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or isinstance(value, list | dict) or (isinstance(value, float) and math.isnan(value))


def _of_text(change: Callable[..., Any]) -> Callable[..., Any]:
    """A filter for texts that leaves a missing one missing; Jinja2's own make the word "None" or "[]" of it."""
    return lambda value, *words: None if _is_empty(value) else change(value, *words)


class Maker:
    """The templates of a task, compiled: makes a text and a label of each row."""

    def __init__(self, task: Task) -> None:
        """Compile.

        Raises:
            Exception: a template or expression is malformed.
        """
        env = Sandbox(undefined=StrictUndefined, finalize=_shown, keep_trailing_newline=True)
        env.filters["pick"] = _pick
        for name in ("trim", "lower", "upper", "title", "capitalize"):
            env.filters[name] = _of_text(env.filters[name])
        env.tests["containing"] = lambda value, part: part in str(value).lower()

        def expression(source: str) -> Callable[..., Any]:
            return env.compile_expression(source, undefined_to_none=False)

        self.task = task
        self._text = env.from_string(task.text)
        self._group = env.from_string(task.group) if task.group is not None else None
        self._label = expression(task.label) if task.label is not None else None
        self._right = expression(task.right) if task.right is not None else None
        self._answers = expression(task.answers) if task.answers is not None else None
        self._finished = re.compile(task.finished, re.DOTALL) if task.finished else None
        # What names a row is what its text is made of: the same on the hub and in files whose other fields differ.
        named = [task.text, task.group or "", *(f"{{{{ {rule} }}}}" for rule in (task.right, task.answers) if rule)]
        found = set().union(*(meta.find_undeclared_variables(env.parse(source)) for source in named))
        self._answer_fields = (
            meta.find_undeclared_variables(env.parse(f"{{{{ {task.answers} }}}}")) if task.answers else ()
        )
        self.fields = tuple(sorted(found - ({"offered"} if task.right is not None else set())))

    def draw(self, row: Row, random: Random) -> Drawn | None:
        """Make the text of a row; None where no fair one can be made, as every wrong answer equals the right one.

        Raises:
            ValueError: a field is missing or out of range.
        """
        try:
            if self._right is None or self._answers is None:
                text = fill(self._text, row)
                return Drawn(text, self._read_label(row), self._shared(row, text), "")
            return self._offer(row, random)
        except Exception as error:  # an expression of a template may raise anything
            missing = re.fullmatch(r"'(\w+)' is undefined", str(error))
            said = str(error) if isinstance(error, ValueError | UndefinedError) else template_fault(error)
            raise ValueError(f"no field {missing[1]!r}" if missing else said) from error

    def empty_answers(self, row: Row) -> list[str]:
        """Fields of a row that should hold an answer and hold none."""
        return sorted(name for name in self._answer_fields if name in row and _is_empty(row[name]))

    def split_finished(self, text: str) -> tuple[str, str]:
        """What a finished text shares with others, and its answer where the pattern finds one."""
        found = self._finished.search(text) if self._finished else None
        if found is None:
            return text, ""
        return found[1], (found[2] if found.re.groups > 1 else "").strip()

    def _read_label(self, row: Row) -> Label | None:
        value = self._label(row) if self._label else None
        if isinstance(value, StrictUndefined):
            str(value)  # raises and names the field
        if value is None or str(value) == "-1":
            return None
        if str(value) not in ("0", "1", "True", "False"):
            raise ValueError(f"label {value!r} is not 0 or 1 (true or false)")
        return 1 if str(value) in ("1", "True") else 0

    def _offer(self, row: Row, random: Random) -> Drawn | None:
        """A text with the right answer or a wrong one, with equal chance."""
        assert self._right is not None and self._answers is not None
        right, offered = self._right(row), self._answers(row)
        if _is_empty(right):
            return None
        answers = [_shown(answer) for answer in offered if not _is_empty(answer)]
        right = _shown(str(right) if isinstance(right, StrictUndefined) else right)
        wrong = [answer for answer in answers if answer.strip() != right.strip()]
        label: Label = 1 if right in answers and random.random() < 0.5 else 0
        if not wrong:
            return None
        answer = right if label else random.choice(wrong)
        text = fill(self._text, {**row, "offered": answer})
        return Drawn(text, label, self._shared(row, fill(self._text, {**row, "offered": ""})), answer)

    def _shared(self, row: Row, otherwise: str) -> str:
        return fill(self._group, row) if self._group is not None else otherwise


def local_rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Rows of a .jsonl, .json (a list of objects), .csv or .tsv file, with the place of each.

    Raises:
        UserError: the file is missing, malformed, or of another kind.
    """
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    if suffix == ".zst":
        raise UserError(f"{path} is packed with zstd; unpack it first: zstd -d {path}")
    if suffix not in FORMATS:
        raise UserError(f"{path}: unknown kind of file {suffix!r}; choose one of: {', '.join(FORMATS)}")
    if suffix == ".jsonl":
        for number, row in lines(path):
            yield f"{path}:{number}", row
    elif suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: expected a list of objects; JSON lines belong in a .jsonl file")
        for number, row in enumerate(rows):
            yield f"{path} row {number}", row
    else:
        for number, cells in csv_rows(path, "\t" if suffix == ".tsv" else ","):
            yield f"{path}:{number}", {name: None if cell in _NULLS else cell for name, cell in cells.items()}


def hub_rows(task: Task, split: Split) -> Iterator[tuple[str, Row]]:
    """Rows from the hub with the place of each.

    Raises:
        UserError: the task has no such split there, or the hub can not be reached.
    """
    if task.hub is None:
        raise UserError(f"task {task.name} names no source; give 'hub' or 'path' in its YAML, or a path beside it")
    if split not in task.splits:
        raise UserError(f"{task.name} has no {split} split on the hub; {nearest(split, task.splits)}")
    from datasets import load_dataset  # here: importing it takes longer than most commands

    part = task.splits[split]
    try:
        rows = load_dataset(task.hub, task.config, split=part, revision=task.revision)
    except Exception as error:  # the client raises a dozen kinds, from several libraries
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load {task.hub} from the hub ({first}); give a local file of its rows as path"
        ) from error
    for number, row in enumerate(rows):
        yield f"{task.hub}/{part} row {number}", row
