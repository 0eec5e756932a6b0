"""Items of binary tasks: is the answer given (or the reply shown) the right one?

`tasks` says what a task is: SciQ, BoolQ, CosmosQA and Anthropic HH ship, any other is a few lines of YAML. One item is
made of each row; its label is drawn from the seed and the row, so neither the order of a file nor a limit changes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Literal

from debate_rl.data.left_out import LeftOut
from debate_rl.data.splits import sample
from debate_rl.data.tasks.task import Maker, Row, Task, hub_rows, load_task, local_rows
from debate_rl.errors import UserError
from debate_rl.game.question import Question, Split
from debate_rl.records import Record, digest


class BinaryItem(Record):
    """One statement to be classified.

    Example:
        BinaryItem(id="sciq-1c5b0a9e42d7f310", text="Q: Which gas do plants take in? A: carbon dioxide", label=1,
                   group="sciq-8e1f0c5577aa90d2", task="sciq", prefix="There is a science knowledge question, ...")
    """

    id: str
    text: str
    label: Literal[0, 1] | None = None
    """1 where the answer in the text is correct."""
    soft_label: float | None = None
    """Probability of label 1 that a supervisor gave, where the file has one."""
    group: str
    """The question, passage or conversation that items share: splits never cut it."""
    task: str
    prefix: str = ""
    """What a debate prompt says before the text."""
    answer: str = ""
    """The answer offered in the text, where the task has one: what `leaks.answer_leak` reads."""

    @property
    def cluster(self) -> str:
        """The unit of resampling."""
        return self.group


class Selection(Record):
    """Items with an account of what was left out.

    Example:
        Selection(items=(BinaryItem(...), ...), read=1500, repeated=0, unused=0, dropped=(0, 392))
    """

    items: tuple[BinaryItem, ...]
    read: int
    """Rows of the source."""
    repeated: int
    """Rows that say the same as an earlier one."""
    unused: int
    """Rows from which no fair item can be made, such as a question whose every wrong answer equals the right one."""
    dropped: tuple[int, int]
    """Items left out to balance the classes, with label 0 and label 1."""

    def __str__(self) -> str:
        """One line for the log."""
        zeros, ones = (sum(item.label == label for item in self.items) for label in (0, 1))
        return (
            f"{len(self.items)} items ({zeros} with label 0, {ones} with label 1) from {self.read} rows; "
            f"{self.repeated} repeated, {self.unused} unusable, {sum(self.dropped)} dropped for balance"
        )


def _labelled(row: Row, maker: Maker) -> BinaryItem:
    """An item of a row that has its text and labels already: txt, label (or hard_label), soft_label [P(0), P(1)]."""
    text, label, soft = row["txt"], row.get("label", row.get("hard_label")), row.get("soft_label")
    if not isinstance(text, str):
        raise ValueError(f"txt holds {type(text).__name__}, expected text")
    if label not in (0, 1, None):
        raise ValueError(f"label {label!r} is not 0 or 1")
    pair = isinstance(soft, list) and len(soft) == 2 and all(isinstance(p, int | float) and 0 <= p <= 1 for p in soft)
    if soft is not None and not (pair and sum(soft) > 0):
        raise ValueError(f"soft_label {soft!r} is not the pair [P(incorrect), P(correct)]")
    shared, answer = maker.split_finished(text)
    task = maker.task
    return BinaryItem(
        id=f"{task.name}-{digest(text)}", text=text, label=None if label is None else 1 if label else 0,
        soft_label=soft[1] / sum(soft) if soft else None, group=f"{task.name}-{digest(shared.strip())}",
        task=task.name, prefix=task.prefix, answer=answer,
    )  # fmt: skip


def make_item(row: Row, maker: Maker, seed: int = 0) -> BinaryItem | None:
    """Make the item of a native row, or of one with `txt` and labels; None where no fair item can be made.

    Raises:
        ValueError: a field is missing or out of range.
    """
    if "txt" in row:
        return _labelled(row, maker)
    task = maker.task
    name = digest([str(row.get(field)) for field in maker.fields])
    drawn = maker.draw(row, Random(f"{seed} {name}"))
    if drawn is None:
        return None
    return BinaryItem(
        id=f"{task.name}-{name}", text=drawn.text, label=drawn.label,
        group=f"{task.name}-{digest(drawn.shared.strip())}", task=task.name, prefix=task.prefix, answer=drawn.answer,
    )  # fmt: skip


def balance(items: list[BinaryItem], seed: int = 0) -> tuple[list[BinaryItem], tuple[int, int]]:
    """Drop items of the commoner label, by seed, until both are as common; items without a label stay.

    Returns:
        The items kept, in their order, and how many of label 0 and label 1 were dropped.
    """
    counts = Counter(item.label for item in items)
    keep = min(counts[0], counts[1])
    return _of_each(items, keep, seed), (counts[0] - keep, counts[1] - keep)


def _of_each(items: list[BinaryItem], count: int, seed: int) -> list[BinaryItem]:
    """Draw so many items of each label, in their order; items without a label stay."""
    kept = {item.id for label in (0, 1) for item in sample([i for i in items if i.label == label], count, seed)}
    return [item for item in items if item.label is None or item.id in kept]


def load(
    task: str,
    path: str | Path | None = None,
    split: Split = "train",
    limit: int | None = None,
    seed: int = 0,
    balanced: bool = True,
) -> Selection:
    """Read a task from a local file, or from the hub.

    Args:
        task: sciq, boolq, cosmosqa, hh, or the path of a task's YAML file (`tasks.Task`).
        path: local file of native rows, or of rows with `txt`, `label` and `soft_label`; None takes the task's own
            source: its file or the hub.
        split: which split of the hub; a local file is read whole.
        limit: at most so many items, drawn by seed; half of them of each label where balanced.
        seed: decides labels, answers and draws.
        balanced: drop items until both labels are as common.

    Raises:
        UserError: unknown task, a malformed row (file, line and field), an unreachable hub, no items, or, where
            balanced, no label or labels of one class only.
    """
    found = load_task(task)
    local = path or found.path
    source = local_rows(local) if local is not None else hub_rows(found, split)
    return _select(source, found, str(local or found.hub), limit, seed, balanced)


def _select(
    source: Iterable[tuple[str, Row]], task: Task, name: str, limit: int | None, seed: int, balanced: bool
) -> Selection:
    """Make the items of rows, each once, and balance them."""
    items: dict[str, BinaryItem] = {}
    read = repeated = unused = 0
    maker = Maker(task)
    left_out = LeftOut(f"rows of {task.name}")
    for where, row in source:
        read += 1
        try:
            item = make_item(row, maker, seed)
        except ValueError as error:
            raise UserError(f"{where}: {task.name}: {error}") from error
        if item is None:
            unused += 1
            left_out.add("no right answer, or no wrong one that differs from it", where)
        elif maker.empty_answers(row):
            left_out.add("of each an answer that is empty; the others are offered", where)
        repeated += item is not None and item.id in items
        if item is not None:
            items.setdefault(item.id, item)
    left_out.say()
    every = list(items.values())
    if not every:
        raise UserError(f"no items of {task.name} in {name}: {read} rows, {unused} of them unusable")
    if balanced:
        _check_classes(every, task.name, name)
    kept, dropped = balance(every, seed) if balanced else (every, (0, 0))
    if balanced and limit is not None and len(kept) > limit:
        kept = _of_each(kept, limit // 2, seed)
    kept = sample(kept, limit, seed)
    return Selection(items=tuple(kept), read=read, repeated=repeated, unused=unused, dropped=dropped)


def _check_classes(items: list[BinaryItem], task: str, name: str) -> None:
    """Check that items with labels are of both classes, so that balancing does not empty them."""
    known = {item.label for item in items} - {None}
    if len(known) == 1:
        raise UserError(
            f"{task}: all {len(items)} items of {name} have label {known.pop()}; take a split with labels of both "
            "classes, or check the task's label rule"
        )


def as_question(item: BinaryItem) -> Question:
    """The item as a claim to be debated: is the answer correct or incorrect? (Lang et al. 2025)."""
    return Question(
        id=item.id,
        text=f"{item.prefix}\n{item.text}".strip(),
        answers=("correct", "incorrect"),
        correct=None if item.label is None else 0 if item.label else 1,
        group=item.group,
        source=item.task,
    )
