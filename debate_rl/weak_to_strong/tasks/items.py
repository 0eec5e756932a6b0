"""Items of weak-to-strong, their splits, and what each model reads of them.

An item is a question with two answers, for a binary task "correct" and "incorrect". A model reads the view of a judge
(`game.prompts.judge_messages`): the student with the passage, a supervisor with or without it as configured, followed
by the debate that helps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal, TypeVar

import numpy as np

from debate_rl.data.leaks import joined_groups, near_duplicates
from debate_rl.data.splits import Grouped, check_disjoint, divide
from debate_rl.data.tasks.binary_items import BinaryItem, as_question
from debate_rl.engines.chat import candidate_ids, prompt_ids
from debate_rl.engines.request import Message as EngineMessage
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message, judge_candidates, judge_messages
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.records import Record, digest

T = TypeVar("T", bound=Grouped)
Name = TypeVar("Name", bound=str)
INTRODUCTION = 8
"""Words with which all questions must begin for them to be the task's introduction (ours)."""
INTRODUCED = 10
"""Items from which on that can be told from questions that are alike (ours)."""


class Item(Record):
    """A question with two answers, of which a model says which is correct.

    Example:
        Item(question=Question(id="lab-7-2", answers=("shed", "barn"), correct=0, ...))
    """

    question: Question

    @property
    def id(self) -> str:
        """The question's id."""
        return self.question.id

    @property
    def cluster(self) -> str:
        """The story, else the question."""
        return self.question.cluster

    @property
    def label(self) -> int:
        """1 where answer 0 is correct: the target is P(answer 0)."""
        return int(self.question.correct == 0)


class Splits(Record):
    """D1 (ground truth for the supervisor), D2 (weak labels for the student) and the test set; no story is in two."""

    supervisor: tuple[Item, ...]
    student: tuple[Item, ...]
    test: tuple[Item, ...]

    joined: int = 0
    """Groups merged with another one because they hold nearly the same text."""
    unused: int = 0
    """Items left over once all parts were full."""

    @property
    def every(self) -> tuple[Item, ...]:
        """All items."""
        return (*self.supervisor, *self.student, *self.test)

    @property
    def parts(self) -> dict[str, tuple[Item, ...]]:
        """The parts by name."""
        return {"supervisor": self.supervisor, "student": self.student, "test": self.test}


class PartReport(Record):
    """Size, classes and text lengths of one part of a split.

    Example:
        PartReport(items=200, groups=181, labels=(97, 103), tokens=(31, 88, 140), too_long=0)
    """

    items: int
    groups: int
    labels: tuple[int, int]
    """Items with label 0 and label 1."""
    tokens: tuple[int, int, int] | None = None
    """Median, 95th percentile and maximum of the tokens that a model reads of an item."""
    too_long: int = 0
    """Items that are longer than the model's context."""

    def __str__(self) -> str:
        """One line for the log."""
        line = (
            f"{self.items} items in {self.groups} groups, {self.labels[0]} with label 0, {self.labels[1]} with label 1"
        )
        if self.tokens is None:
            return line
        median, high, most = self.tokens
        return f"{line}; tokens: median {median}, 95 % {high}, most {most}, {self.too_long} too long"


class Sample(Record):
    """Text that a model reads of an item, and the wording of its two answers.

    Example:
        Sample(prompt=[{"role": "user", "content": "story : ... the answer is"}], candidates=("shed", "barn"))
    """

    prompt: list[Message]
    candidates: tuple[str, str]


Samples = Mapping[str, Sample]
"""Samples by the id of their item."""


def items_of(questions: Sequence[Question | BinaryItem]) -> list[Item]:
    """Make items of questions or of a binary task.

    Raises:
        UserError: ground truth is missing.
    """
    items = []
    for question in questions:
        items.append(Item(question=question if isinstance(question, Question) else as_question(question)))
    missing = [item.id for item in items if item.question.correct is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(items)} items have no correct answer (the first is {missing[0]!r}); "
            "weak-to-strong needs ground truth on D1, and on D2 for the ceiling: take a split with labels, or leave "
            "these items out"
        )
    return items


def label_truth(items: Sequence[Item]) -> tuple[Literal[0, 1], ...]:
    """1 where answer 0 is correct, else 0, for each item."""
    return tuple(1 if item.label else 0 for item in items)


def _texts(items: Sequence[Item]) -> list[str]:
    """Question and passage of each item, without the introduction with which every question of the task begins."""
    questions = sorted(item.question.text for item in items)
    # What the first and the last in alphabetical order begin with, all between them begin with as well.
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(questions[0], questions[-1], strict=False))
    introduction = "".join(letter for letter, _ in shared) if len(items) >= INTRODUCED else ""
    # Among few items an introduction of 40 words would count as text that they have in common, and join them all.
    start = len(introduction) if len(introduction.split()) >= INTRODUCTION else 0
    return [f"{item.question.text[start:]}\n{item.question.passage or ''}" for item in items]


def cut_parts(items: Sequence[T], sizes: Mapping[Name, int], seed: int = 0) -> dict[Name, tuple[T, ...]]:
    """Cut items into named parts of at most these sizes; no group is in two.

    Raises:
        UserError: there are fewer groups than parts; says how the items are grouped.
    """
    total = sum(sizes.values())
    shares = {str(name): size / total for name, size in sizes.items()}
    groups = Counter(item.cluster for item in items)
    if len(groups) < len(sizes):
        raise UserError(
            f"the {len(items)} items are {len(groups)} groups (items of one story, or with nearly the same text, stay "
            f"together), the largest of {max(groups.values(), default=0)}; {len(sizes)} parts need a group each: take "
            "more items, or items that say less of the same"
        )
    try:
        cut = divide(items, shares, seed)
    except UserError:
        # A part is empty: of few groups a large one lies across all of it. Dealt by size, each part gets a group.
        cut = _dealt(items, groups, {str(name): size for name, size in sizes.items()}, seed)
    return {name: tuple(cut[name][:size]) for name, size in sizes.items()}


def _dealt(items: Sequence[T], groups: Mapping[str, int], sizes: Mapping[str, int], seed: int) -> dict[str, list[T]]:
    """Deal groups to parts, the largest first, each to the part that lacks most of its size: no part stays empty."""
    filled = dict.fromkeys(sizes, 0)
    part_of: dict[str, str] = {}
    for group in sorted(groups, key=lambda name: (-groups[name], digest(["deal", seed, name]))):
        part = max(sizes, key=lambda name: 1 - filled[name] / sizes[name])
        part_of[group] = part
        filled[part] += groups[group]
    cut: dict[str, list[T]] = {name: [] for name in sizes}
    for item in items:
        cut[part_of[item.cluster]].append(item)
    return cut


def split_items(items: Sequence[Item], supervisor: int, student: int, test: int, seed: int = 0) -> Splits:
    """Cut items into D1, D2 and test by story; stories with nearly the same text stay together.

    Raises:
        UserError: there are too few items, two have one id, or a part lacks a class.
    """
    total = supervisor + student + test
    if len(items) < total:
        raise UserError(f"weak-to-strong needs {total} items (supervisor + student + test), found {len(items)}")
    sizes = {"supervisor": supervisor, "student": student, "test": test}
    original_groups = [item.cluster for item in items]
    groups = joined_groups(original_groups, near_duplicates(_texts(items), original_groups))
    # `near_duplicates` leaves out the wording that is common to the texts at hand. The parts are fewer texts than all
    # items, so less may count as common and new duplicates may show. Merge their groups and cut again until none is.
    while True:
        items = [_regrouped(item, group) for item, group in zip(items, groups, strict=True)]
        parts = cut_parts(items, sizes, seed)
        joined = len(set(original_groups)) - len(set(groups))
        splits = Splits(supervisor=parts["supervisor"], student=parts["student"], test=parts["test"], joined=joined)
        crossing = _crossing(splits)
        if not crossing:
            break
        index_of = {item.id: index for index, item in enumerate(items)}
        groups = joined_groups(groups, [(index_of[first.id], index_of[second.id]) for first, second in crossing])
    _check_parts(splits)
    return splits.model_copy(update={"unused": len(items) - len(splits.every)})


def _regrouped(item: Item, group: str) -> Item:
    """The item as a member of this group."""
    if item.cluster == group:
        return item
    # The group decides the cluster, by which parts are cut here and intervals are resampled later.
    return Item(question=item.question.model_copy(update={"group": group}))


def check_splits(splits: Splits) -> None:
    """Check that the parts share nothing and that each has both classes.

    Raises:
        UserError: an id appears twice, a story or nearly the same text is in two parts, or a part lacks a class.
    """
    part_of = _check_parts(splits)
    for first, second in _crossing(splits):
        raise UserError(
            f"items {first.id!r} of {part_of[first.id]!r} and {second.id!r} of {part_of[second.id]!r} say nearly the "
            "same; give them one group, so that splits keep them together"
        )


def _check_parts(splits: Splits) -> dict[str, str]:
    """Check ids, classes and stories, but not near-duplicates.

    Returns:
        The part of each item, by id.
    """
    part_of: dict[str, str] = {}
    for name, part in splits.parts.items():
        for item in part:
            if item.id in part_of:
                raise UserError(
                    f"item {item.id!r} is in {part_of[item.id]!r} and again in {name!r}; give each item its own id"
                )
            part_of[item.id] = name
        # A part of one class would train a model that gives one answer, or make its accuracy meaningless.
        labels = {item.label for item in part}
        for label in (0, 1):
            if label not in labels:
                raise UserError(
                    f"weak-to-strong: none of the {len(part)} items of part {name!r} has label {label}; "
                    "take more items, another seed, or balance the classes"
                )
    check_disjoint(splits.parts)
    return part_of


def _crossing(splits: Splits) -> list[tuple[Item, Item]]:
    """Pairs of near-duplicates whose items are in different parts."""
    items = splits.every
    part_names: list[str] = []
    for name, part in splits.parts.items():
        part_names += [name] * len(part)
    # Over all parts at once, as the common wording depends on the texts that are compared.
    pairs = near_duplicates(_texts(items), [item.cluster for item in items])
    return [(items[first], items[second]) for first, second in pairs if part_names[first] != part_names[second]]


def report(
    splits: Splits, samples: Samples | None = None, count: Callable[[Sample], int] | None = None, limit: int = 0
) -> dict[str, PartReport]:
    """Count items, classes and tokens of each part.

    Args:
        splits: the parts.
        samples: what a model reads of each item; None leaves out the lengths.
        count: counts the tokens of a sample, such as `token_counter` makes.
        limit: the model's context in tokens; 0 where there is no limit.
    """
    reports = {}
    for name, part in splits.parts.items():
        lengths: list[int] = []
        if samples is not None and count is not None:
            lengths = [count(samples[item.id]) for item in part]
        tokens = None
        if lengths:
            # Lengths that occur, not interpolated ones.
            median, high, most = np.percentile(lengths, [50, 95, 100], method="higher").astype(int).tolist()
            tokens = (median, high, most)
        zeros = sum(item.label == 0 for item in part)
        reports[name] = PartReport(
            items=len(part),
            groups=len({item.cluster for item in part}),
            labels=(zeros, len(part) - zeros),
            tokens=tokens,
            too_long=sum(length > limit for length in lengths) if limit else 0,
        )
    return reports


def token_counter(tokenizer: Any) -> Callable[[Sample], int]:
    """Make a function that counts the tokens of a sample: its prompt as engines encode it, and the longer answer."""

    def count(sample: Sample) -> int:
        messages = [EngineMessage.model_validate(message) for message in sample.prompt]
        # Either answer may be appended, so the longer one decides whether a sample fits.
        answers = [len(candidate_ids(tokenizer, candidate)) for candidate in sample.candidates]
        return len(prompt_ids(tokenizer, messages)) + max(answers)

    return count


def sample_of(transcript: Transcript, reads_passage: bool) -> Sample:
    """What a supervisor reads of a game, with the passage or without."""
    rules = transcript.protocol.model_copy(update={"judge_reads_passage": reads_passage})
    shown = transcript.model_copy(update={"protocol": rules})
    # (0, 1): answers in their own order, as the target is P(answer 0).
    prompt = judge_messages(shown, shown.present, (0, 1))
    return Sample(prompt=prompt, candidates=judge_candidates(shown, (0, 1)))


def plain_samples(items: Sequence[Item], blind: Protocol, reads_passage: bool) -> dict[str, Sample]:
    """What a model reads of every item without a debate, by id; a question without a passage is read as it is."""
    samples = {}
    for item in items:
        game = open_transcript(item.question, blind, {})
        samples[item.id] = sample_of(game, reads_passage and bool(item.question.passage))
    return samples
