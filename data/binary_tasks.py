"""The four binary tasks of weak-to-strong work: is the answer given (or the reply shown) the right one?

SciQ, BoolQ, CosmosQA and Anthropic HH, in the texts of the public reference of Burns et al. 2023, from native files or
from the hub. One item is made of each row; its label is drawn from the seed and the row, so neither the order of a file
nor a limit changes it. Two leaks of the public texts are closed (ours): SciQ's distractors are put in lower case, as
all its correct answers are, and CosmosQA's "None of the above" is never offered, as it is never labelled correct.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

from debate_rl.data.splits import sample
from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Question, Split
from debate_rl.records import Record, digest, lines

Task = Literal["sciq", "boolq", "cosmosqa", "hh"]
TASKS: tuple[Task, ...] = get_args(Task)
HUB: dict[Task, str] = {
    "sciq": "allenai/sciq",
    "boolq": "google/boolq",
    "cosmosqa": "allenai/cosmos_qa",
    "hh": "Anthropic/hh-rlhf",
}
HUB_SPLITS: dict[Task, dict[Split, str]] = {
    "sciq": {"train": "train", "validation": "validation", "test": "test"},
    "boolq": {"train": "train", "test": "validation"},
    "cosmosqa": {"train": "train", "test": "validation"},
    "hh": {"train": "train", "test": "test"},
}
"""The hub's split behind each of ours; where the owner's test split has no labels, its validation split is the test."""
PREFIXES: dict[Task, str] = {
    "sciq": "There is a science knowledge question, followed by an answer.",
    "boolq": "There is a passage, followed by a question that can be answered with yes or no. The answer given is yes.",
    "cosmosqa": "There is a short story, followed by a question about it and an answer.",
    "hh": "There is a conversation between a human and an assistant. The answer to be judged is the assistant's last "
    "reply; it is correct if people prefer it, as more helpful and less harmful, to another reply.",
}
"""What opens a debate on an item: SciQ's is Lang et al. 2025 (arXiv 2501.13124), the others are (ours)."""


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
    task: Task
    prefix: str = ""
    """What a debate prompt says before the text."""

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


Row = dict[str, Any]
Drawn = tuple[str, Literal[0, 1], str] | None
"""Text, label, and what the row shares with others; None where the row can not be used."""


def _text(row: Row, *names: str) -> str:
    """The first of the fields that the row has, as text."""
    for name in names:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise ValueError(f"no text field {' or '.join(repr(name) for name in names)}")


def _coin(random: Random) -> Literal[0, 1]:
    return 1 if random.random() < 0.5 else 0


def _sciq(row: Row, random: Random) -> Drawn:
    """The correct answer or one of three distractors, with equal chance of either label."""
    question, right = _text(row, "question"), _text(row, "correct_answer").strip().lower()
    wrong = [_text(row, f"distractor{i}").strip().lower() for i in (1, 2, 3)]
    wrong = [answer for answer in wrong if answer and answer != right]
    label = _coin(random)
    if not wrong:
        return None
    answer = right if label else random.choice(wrong)
    return f"Q: {question} A: {answer}", label, question


def _boolq(row: Row, random: Random) -> Drawn:
    """Passage and question; label 1 for yes. The hub calls the field `answer`, SuperGLUE's files call it `label`."""
    value = row.get("answer", row.get("label"))
    if value not in (0, 1):
        raise ValueError("needs 'answer' (or 'label'), true or false")
    passage = _text(row, "passage")
    return f"Passage: {passage}\nQuestion: {_text(row, 'question')}", 1 if value else 0, passage


def _cosmosqa(row: Row, random: Random) -> Drawn:
    """Context, question and the true answer or a false one; where "None of the above" is true, a false one."""
    answers = [_text(row, f"answer{i}") for i in range(4)]
    if str(row.get("label")) not in ("0", "1", "2", "3"):
        raise ValueError("needs 'label' from 0 to 3 (the hub's test split has none)")
    right = answers[int(row["label"])]
    offered = [answer for answer in answers if "none of the above" not in answer.lower()]
    wrong = [answer for answer in offered if answer.strip() != right.strip()]
    label = _coin(random) if right in offered else 0
    if not wrong:
        return None
    context = _text(row, "context")
    answer = right if label else random.choice(wrong)
    return f"Context: {context}\nQuestion: {_text(row, 'question')}\nAnswer: {answer}", label, context


def _hh(row: Row, random: Random) -> Drawn:
    """One of two conversations that differ in the last reply: chosen (1) or rejected (0)."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    label = _coin(random)
    if chosen == rejected:
        return None
    return (chosen if label else rejected).strip(), label, chosen.rsplit("\n\nAssistant:", 1)[0]


_FIELDS: dict[Task, tuple[str, ...]] = {
    "sciq": ("question", "correct_answer", "distractor1", "distractor2", "distractor3"),
    "boolq": ("passage", "question"),
    "cosmosqa": ("context", "question", "answer0", "answer1", "answer2", "answer3", "label"),
    "hh": ("chosen", "rejected"),
}
"""What names a row: the same on the hub and in local files, whose other fields and types differ."""
_DRAW: dict[Task, Callable[[Row, Random], Drawn]] = {"sciq": _sciq, "boolq": _boolq, "cosmosqa": _cosmosqa, "hh": _hh}


def _labelled(row: Row, task: Task) -> BinaryItem:
    """An item of a row that has its text and labels already: txt, label (or hard_label), soft_label [P(0), P(1)]."""
    text, label, soft = _text(row, "txt", "text"), row.get("label", row.get("hard_label")), row.get("soft_label")
    if label not in (0, 1, None):
        raise ValueError(f"label {label!r} is not 0 or 1")
    pair = isinstance(soft, list) and len(soft) == 2 and all(isinstance(p, int | float) and 0 <= p <= 1 for p in soft)
    if soft is not None and not (pair and sum(soft) > 0):
        raise ValueError(f"soft_label {soft!r} is not the pair [P(incorrect), P(correct)]")
    shared = text.rsplit(" A: ", 1)[0].removeprefix("Q: ") if task == "sciq" else text.rsplit("\nQuestion:", 1)[0]
    return BinaryItem(
        id=f"{task}-{digest(text)}", text=text, label=None if label is None else 1 if label else 0,
        soft_label=soft[1] / sum(soft) if soft else None, group=f"{task}-{digest(shared.strip())}", task=task,
        prefix=PREFIXES[task],
    )  # fmt: skip


def make_item(row: Row, task: Task, seed: int = 0) -> BinaryItem | None:
    """Make the item of a native row, or of one with `txt` and labels; None where no fair item can be made.

    Raises:
        ValueError: a field is missing or out of range.
    """
    if "txt" in row:
        return _labelled(row, task)
    name = digest([str(row.get(field)) for field in _FIELDS[task]])
    drawn = _DRAW[task](row, Random(f"{seed} {name}"))
    if drawn is None:
        return None
    text, label, shared = drawn
    return BinaryItem(
        id=f"{task}-{name}", text=text, label=label, group=f"{task}-{digest(shared.strip())}", task=task,
        prefix=PREFIXES[task],
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


def _local_rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Rows of a JSON-lines file with the place of each."""
    for number, row in lines(path):
        yield f"{path}:{number}", row


def _hub_rows(task: Task, split: Split) -> Iterator[tuple[str, Row]]:
    """Rows from the hub with the place of each.

    Raises:
        UserError: the task has no such split there, or the hub can not be reached.
    """
    if split not in HUB_SPLITS[task]:
        raise UserError(f"{task} has no {split} split on the hub; {nearest(split, HUB_SPLITS[task])}")
    from datasets import load_dataset  # here: importing it takes longer than most commands

    name, part = HUB[task], HUB_SPLITS[task][split]
    try:
        # cosmos_qa's main branch holds a loading script, which datasets no longer runs; the hub keeps a parquet copy.
        rows = load_dataset(name, split=part, revision="refs/convert/parquet" if task == "cosmosqa" else None)
    except Exception as error:  # the client raises a dozen kinds, from several libraries
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"cannot load {name} from the hub ({first}); give a local JSON-lines file of its rows as path"
        ) from error
    for number, row in enumerate(rows):
        yield f"{name}/{part} row {number}", row


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
        task: sciq, boolq, cosmosqa or hh.
        path: JSON lines of native rows, or of rows with `txt`, `label` and `soft_label`; None asks the hub.
        split: which split of the hub; a local file is read whole.
        limit: at most so many items, drawn by seed; half of them of each label where balanced.
        seed: decides labels, answers and draws.
        balanced: drop items until both labels are as common.

    Raises:
        UserError: unknown task, a malformed row (file, line and field), an unreachable hub, or no items.
    """
    if task not in TASKS:
        raise UserError(f"unknown task {task!r}; {nearest(task, TASKS)}")
    source = _local_rows(path) if path is not None else _hub_rows(task, split)
    return _select(source, task, str(path or HUB[task]), limit, seed, balanced)


def _select(
    source: Iterable[tuple[str, Row]], task: Task, name: str, limit: int | None, seed: int, balanced: bool
) -> Selection:
    """Make the items of rows, each once, and balance them."""
    items: dict[str, BinaryItem] = {}
    read = repeated = unused = 0
    for where, row in source:
        read += 1
        try:
            item = make_item(row, task, seed)
        except ValueError as error:
            raise UserError(f"{where}: {task}: {error}") from error
        unused += item is None
        repeated += item is not None and item.id in items
        if item is not None:
            items.setdefault(item.id, item)
    kept, dropped = balance(list(items.values()), seed) if balanced else (list(items.values()), (0, 0))
    if balanced and limit is not None and len(kept) > limit:
        kept = _of_each(kept, limit // 2, seed)
    kept = sample(kept, limit, seed)
    if not kept:
        raise UserError(f"no items of {task} in {name}: {read} rows, {dropped[0] + dropped[1]} dropped for balance")
    return Selection(items=tuple(kept), read=read, repeated=repeated, unused=unused, dropped=dropped)


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
