"""Items of binary tasks: is the answer given (or the reply shown) the right one?

A task is described in `task`: SciQ, BoolQ, CosmosQA and Anthropic HH ship, any other is a few lines of YAML. Each row
gives one item. Its label is drawn from the seed and the row, so neither the order of a file nor a limit changes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, Literal

from debate_rl.data.left_out import LeftOut
from debate_rl.data.splits import sample
from debate_rl.data.tasks.task import Maker, Row, hub_rows, load_task, local_rows
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
    """Items, and counts of what was left out.

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
        counts = Counter(item.label for item in self.items)
        return (
            f"{len(self.items)} items ({counts[0]} with label 0, {counts[1]} with label 1) from {self.read} rows; "
            f"{self.repeated} repeated, {self.unused} unusable, {sum(self.dropped)} dropped for balance"
        )


def make_item(row: Row, maker: Maker, seed: int = 0) -> BinaryItem | None:
    """Make the item of a native row, or of one with `txt` and labels.

    Args:
        row: fields by name.
        maker: the task.
        seed: of the label and of the answer offered.

    Returns:
        None where no fair item can be made.

    Raises:
        ValueError: a field is missing or out of range.
    """
    if "txt" in row:
        return _finished_item(row, maker)
    task = maker.task
    # The fields name the row and seed its draw, so its item is the same wherever it stands. They are taken as text,
    # because a CSV has no numbers.
    name = digest([str(row.get(field)) for field in maker.fields])
    drawn = maker.draw(row, Random(f"{seed} {name}"))
    if drawn is None:
        return None
    return BinaryItem(
        id=f"{task.name}-{name}",
        text=drawn.text,
        label=drawn.label,
        group=f"{task.name}-{digest(drawn.shared.strip())}",
        task=task.name,
        prefix=task.prefix,
        answer=drawn.answer,
    )


def _finished_item(row: Row, maker: Maker) -> BinaryItem:
    """The item of a row that has its text already: txt, label (or hard_label), soft_label [P(0), P(1)]."""
    text = row["txt"]
    if not isinstance(text, str):
        raise ValueError(f"txt holds {type(text).__name__}, expected text")
    label = row.get("label", row.get("hard_label"))
    if label not in (0, 1, None):
        raise ValueError(f"label {label!r} is not 0 or 1")
    hard_label: Literal[0, 1] | None = None
    if label is not None:
        hard_label = 1 if label else 0  # files may hold true or 1.0, which equal 1
    soft_label = _soft_label(row.get("soft_label"))
    shared, answer = maker.split_finished(text)
    task = maker.task
    return BinaryItem(
        id=f"{task.name}-{digest(text)}",
        text=text,
        label=hard_label,
        soft_label=soft_label,
        group=f"{task.name}-{digest(shared.strip())}",
        task=task.name,
        prefix=task.prefix,
        answer=answer,
    )


def _soft_label(pair: Any) -> float | None:
    """Probability of label 1, from a pair of weights that need not sum to 1."""
    if pair is None:
        return None
    is_pair = isinstance(pair, list) and len(pair) == 2
    if not is_pair or not all(isinstance(p, int | float) and 0 <= p <= 1 for p in pair) or sum(pair) <= 0:
        raise ValueError(f"soft_label {pair!r} is not the pair [P(incorrect), P(correct)]")
    return float(pair[1] / sum(pair))


def balance(items: list[BinaryItem], seed: int = 0) -> tuple[list[BinaryItem], tuple[int, int]]:
    """Drop items of the commoner label, by seed, until both are as common; items without a label stay.

    Returns:
        The items that stay, in their order, and how many of label 0 and label 1 were dropped.
    """
    counts = Counter(item.label for item in items)
    count = min(counts[0], counts[1])
    return _sample_per_label(items, count, seed), (counts[0] - count, counts[1] - count)


def _sample_per_label(items: list[BinaryItem], count: int, seed: int) -> list[BinaryItem]:
    """Draw this many items of each label, in their order; items without a label stay."""
    drawn = set()
    for label in (0, 1):
        of_label = [item for item in items if item.label == label]
        drawn |= {item.id for item in sample(of_label, count, seed)}
    return [item for item in items if item.label is None or item.id in drawn]


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
        task: sciq, boolq, cosmosqa, hh, or the path of a task's YAML file (`task.Task`).
        path: local file of native rows, or of rows with `txt`, `label` and `soft_label`; None takes the task's own
            source: its file or the hub.
        split: which split of the hub; a local file is read whole.
        limit: largest number of items, drawn by seed; half of them of each label where balanced.
        seed: decides labels, answers and draws.
        balanced: drop items until both labels are as common.

    Raises:
        UserError: unknown task, a malformed row (file, line and field), an unreachable hub, no items, or, where
            balanced, no label or labels of one class only.
    """
    description = load_task(task)
    local = path or description.path
    rows = local_rows(local) if local is not None else hub_rows(description, split)
    everything = _make_items(rows, Maker(description), str(local or description.hub), seed)
    items = list(everything.items)
    dropped = (0, 0)
    if balanced:
        _check_classes(items, description.name, str(local or description.hub))
        items, dropped = balance(items, seed)
        # Half of each label first: a plain draw from balanced items need not be balanced.
        if limit is not None and len(items) > limit:
            items = _sample_per_label(items, limit // 2, seed)
    items = sample(items, limit, seed)
    return everything.model_copy(update={"items": tuple(items), "dropped": dropped})


def _make_items(rows: Iterable[tuple[str, Row]], maker: Maker, source: str, seed: int) -> Selection:
    """Make the items of rows, each once; nothing is balanced yet.

    Raises:
        UserError: a row is malformed (names where it stands), or no row gives an item.
    """
    task = maker.task.name
    items: dict[str, BinaryItem] = {}
    read = repeated = unused = 0
    left_out = LeftOut(f"rows of {task}")
    for where, row in rows:
        read += 1
        try:
            item = make_item(row, maker, seed)
        except ValueError as error:
            raise UserError(f"{where}: {task}: {error}") from error
        if item is None:
            unused += 1
            left_out.add("no right answer, or no wrong one that differs from it", where)
            continue
        if maker.empty_answers(row):
            left_out.add("of each an answer that is empty; the others are offered", where)
        if item.id in items:
            repeated += 1
        else:
            items[item.id] = item
    left_out.say()
    if not items:
        raise UserError(f"no items of {task} in {source}: {read} rows, {unused} of them unusable")
    return Selection(items=tuple(items.values()), read=read, repeated=repeated, unused=unused, dropped=(0, 0))


def _check_classes(items: list[BinaryItem], task: str, source: str) -> None:
    """Check that items with labels are of both classes, so that balancing does not empty them."""
    labels = {item.label for item in items} - {None}
    if len(labels) == 1:
        raise UserError(
            f"{task}: all {len(items)} items of {source} have label {labels.pop()}; take a split with labels of both "
            "classes, or check the task's label rule"
        )


def as_question(item: BinaryItem) -> Question:
    """The item as a claim to be debated: is the answer correct or incorrect? (Lang et al. 2025, arXiv 2501.13124)."""
    correct: Literal[0, 1] | None = None
    if item.label is not None:
        correct = 0 if item.label else 1
    return Question(
        id=item.id,
        text=f"{item.prefix}\n{item.text}".strip(),
        answers=("correct", "incorrect"),
        correct=correct,
        group=item.group,
        source=item.task,
    )
