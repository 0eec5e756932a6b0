"""A binary task as data: its rows, the text made of each row, and the rule that says which texts are correct.

The tasks that ship (sciq, boolq, cosmosqa, hh) are in `tasks.yaml`; any other is a YAML file of the same fields:

    name: paws                                            # the file's name where it is left out
    hub: google-research-datasets/paws                    # or path: rows.csv, beside the YAML file
    config: labeled_final
    splits: {train: train, test: test}
    text: "First: {{ sentence1 }}\\nSecond: {{ sentence2 }}"
    label: label
    group: "{{ sentence1 }}"
    prefix: There are two sentences. The claim is that they mean the same.

Templates and expressions are Jinja2, over the fields of a row, in a sandbox. Two things are added: the filter `pick`
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
    """Template of the text that is correct or incorrect; `offered` is the answer drawn."""
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
    def _has_one_rule(self) -> Task:
        has_label = self.label is not None
        has_right = self.right is not None
        if has_label == has_right or has_right != (self.answers is not None):
            raise ValueError("give 'label', or 'right' with 'answers': the rule that says which texts are correct")
        if self.hub is not None and self.path is not None:
            raise ValueError("give 'hub' or 'path', not both")
        if self.finished is not None and re.compile(self.finished).groups < 1:
            raise ValueError("'finished' needs a group in brackets: what rows share")
        return self


class Drawn(NamedTuple):
    """The text made of a row, with its label.

    Example:
        Drawn(text="Q: Which gas do plants take in? A: oxygen", label=0,
              shared="Q: Which gas do plants take in? A: ", answer="oxygen")
    """

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
        Maker(task)  # compiles the templates: what is malformed is said before any row is read
    except ValidationError as error:
        raise UserError(f"{name}: {explain(error)}") from error
    except Exception as error:  # compiling a template may raise anything
        raise UserError(
            f"{name}: a template, expression or pattern is not readable: {template_fault(error)}"
        ) from error
    return task


def _pick(answers: Sequence[Any], place: Any) -> Any:
    """Filter `pick`: the element at a place, given as a number or its digits.

    Raises:
        ValueError: there is no such place, as for labels that are hidden (-1, none).
    """
    if not str(place).isdigit() or int(place) >= len(answers):
        raise ValueError(f"{place!r} is not a place from 0 to {len(answers) - 1}; take a split that has labels")
    return answers[int(place)]


def _as_text(value: Any) -> str:
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
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or isinstance(value, list | dict)


def _skip_empty(change: Callable[..., Any]) -> Callable[..., Any]:
    """A text filter that leaves a missing value missing; Jinja2's own would make the word "None" or "[]" of it."""

    def apply(value: Any, *arguments: Any) -> Any:
        if _is_empty(value):
            return None
        return change(value, *arguments)

    return apply


def _environment() -> Sandbox:
    """The Jinja2 sandbox of task templates, with the filter `pick` and the test `containing`."""
    # StrictUndefined: a misspelt field must be an error, not an empty text in every row.
    env = Sandbox(undefined=StrictUndefined, finalize=_as_text, keep_trailing_newline=True)
    env.filters["pick"] = _pick
    for name in ("trim", "lower", "upper", "title", "capitalize"):
        env.filters[name] = _skip_empty(env.filters[name])
    env.tests["containing"] = lambda value, part: part in str(value).lower()
    return env


class Maker:
    """The compiled templates of a task: makes a text and a label of each row.

    Args:
        task: the task.

    Raises:
        Exception: a template or expression is malformed.
    """

    def __init__(self, task: Task) -> None:
        env = _environment()

        def expression(source: str | None) -> Callable[..., Any] | None:
            if source is None:
                return None
            return env.compile_expression(source, undefined_to_none=False)

        def variables(source: str) -> set[str]:
            return meta.find_undeclared_variables(env.parse(source))

        self.task = task
        self._text = env.from_string(task.text)
        self._group = env.from_string(task.group) if task.group is not None else None
        self._label = expression(task.label)
        self._right = expression(task.right)
        self._answers = expression(task.answers)
        # DOTALL: passages and conversations have several lines.
        self._finished = re.compile(task.finished, re.DOTALL) if task.finished else None
        # A row is named by the fields that its text is made of: the same on the hub and in files whose other fields
        # differ.
        fields = variables(task.text) | variables(task.group or "")
        for rule in (task.right, task.answers):
            if rule:
                fields |= variables(f"{{{{ {rule} }}}}")
        if task.right is not None:
            fields.discard("offered")
        self.fields = tuple(sorted(fields))
        """Fields of a row that its text is made of."""
        self._answer_fields = variables(f"{{{{ {task.answers} }}}}") if task.answers else set()

    def draw(self, row: Row, random: Random) -> Drawn | None:
        """Make the text of a row.

        Args:
            row: fields by name.
            random: draws the label and the answer offered.

        Returns:
            None where no fair text can be made, since every wrong answer equals the right one.

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
            if missing:
                message = f"no field {missing[1]!r}"
            elif isinstance(error, ValueError | UndefinedError):
                message = str(error)
            else:
                message = template_fault(error)
            raise ValueError(message) from error

    def empty_answers(self, row: Row) -> list[str]:
        """Fields of a row that should hold an answer and hold none."""
        return sorted(name for name in self._answer_fields if name in row and _is_empty(row[name]))

    def split_finished(self, text: str) -> tuple[str, str]:
        """What a finished text shares with others, and its answer where the pattern finds one."""
        match = self._finished.search(text) if self._finished else None
        if match is None:
            return text, ""
        answer = match[2] if match.re.groups > 1 else None
        return match[1], (answer or "").strip()

    def _read_label(self, row: Row) -> Label | None:
        """The label of a row by the task's expression; None where it is hidden."""
        value = self._label(row) if self._label else None
        if isinstance(value, StrictUndefined):
            str(value)  # raises and names the field
        # On the hub -1 is the label of test splits whose labels are hidden.
        if value is None or str(value) == "-1":
            return None
        if str(value) not in ("0", "1", "True", "False"):
            raise ValueError(f"label {value!r} is not 0 or 1 (true or false)")
        return 1 if str(value) in ("1", "True") else 0

    def _offer(self, row: Row, random: Random) -> Drawn | None:
        """A text with the right answer or a wrong one, with equal chance."""
        assert self._right is not None
        assert self._answers is not None
        right = self._right(row)
        offered = self._answers(row)
        if _is_empty(right):
            return None
        answers = [_as_text(answer) for answer in offered if not _is_empty(answer)]
        if isinstance(right, StrictUndefined):
            str(right)  # raises and names the field
        right = _as_text(right)
        # Space round an answer makes no other answer of it.
        wrong = [answer for answer in answers if answer.strip() != right.strip()]
        # A right answer that the task never offers would give the label away.
        label: Label = 1 if right in answers and random.random() < 0.5 else 0
        if not wrong:
            return None
        answer = right if label else random.choice(wrong)
        text = fill(self._text, {**row, "offered": answer})
        without_answer = fill(self._text, {**row, "offered": ""})
        return Drawn(text, label, self._shared(row, without_answer), answer)

    def _shared(self, row: Row, otherwise: str) -> str:
        """What a row shares with others: the task's group, where it has one."""
        if self._group is None:
            return otherwise
        return fill(self._group, row)


def local_rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Read the rows of a .jsonl, .json (a list of objects), .csv or .tsv file, plain or packed (.gz).

    Yields:
        Where the row stands, and its fields by name.

    Raises:
        UserError: the file is missing, malformed, or of another kind.
    """
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()  # `open_text` unpacks .gz by itself
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
            # A table has no null of its own; "None" as an answer would be a wrong answer that is easily seen.
            row = dict(cells)
            for name, cell in cells.items():
                if cell in _NULLS:
                    row[name] = None
            yield f"{path}:{number}", row


def hub_rows(task: Task, split: Split) -> Iterator[tuple[str, Row]]:
    """Read rows from the hub.

    Yields:
        Where the row stands, and its fields by name.

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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load {task.hub} from the hub ({reason}); give a local file of its rows as path"
        ) from error
    for number, row in enumerate(rows):
        yield f"{task.hub}/{part} row {number}", row
