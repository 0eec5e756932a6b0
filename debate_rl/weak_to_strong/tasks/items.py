"""Items of weak-to-strong, their splits, and what each model reads of them.

An item is a question with two answers, for a binary task "correct" and "incorrect". What a model reads is the view of
a judge (`game.prompts.judge_messages`): the student has the passage; a supervisor has it where the config says so, and
under it the debate that is there to help it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from debate_rl.data.leaks import joined_groups, near_duplicates
from debate_rl.data.splits import check_disjoint, divide
from debate_rl.data.tasks.binary_items import BinaryItem, as_question
from debate_rl.engines.chat import candidate_ids, prompt_ids
from debate_rl.engines.request import Message as Said
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message, judge_candidates, judge_messages
from debate_rl.game.protocol import Protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.records import Record


class Item(Record):
    """A question of which a model is to say which answer is correct.

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
    """Groups that were taken together with another, as they hold nearly the same text."""
    unused: int = 0
    """Items that no part took: left over once the parts were full."""

    @property
    def every(self) -> tuple[Item, ...]:
        """All items."""
        return (*self.supervisor, *self.student, *self.test)

    @property
    def parts(self) -> dict[str, tuple[Item, ...]]:
        """The parts by name."""
        return {"supervisor": self.supervisor, "student": self.student, "test": self.test}


class PartReport(Record):
    """What is in a part of a split.

    Example:
        PartReport(items=200, groups=181, labels=(97, 103), tokens=(31, 88, 140), too_long=0)
    """

    items: int
    groups: int
    labels: tuple[int, int]
    """Items with label 0 and label 1."""
    tokens: tuple[int, int, int] | None = None
    """Median, 95th percentile and most tokens of what a model reads of an item."""
    too_long: int = 0
    """Items that are longer than the model's context."""

    def __str__(self) -> str:
        """One line for the log."""
        said = (
            f"{self.items} items in {self.groups} groups, {self.labels[0]} with label 0, {self.labels[1]} with label 1"
        )
        if self.tokens is None:
            return said
        median, high, most = self.tokens
        return f"{said}; tokens: median {median}, 95 % {high}, most {most}, {self.too_long} too long"


class Sample(Record):
    """What a model reads of an item, and how its two answers are worded.

    Example:
        Sample(prompt=[{"role": "user", "content": "story : ... the answer is"}], candidates=("shed", "barn"))
    """

    prompt: list[Message]
    candidates: tuple[str, str]


Samples = Mapping[str, Sample]
"""Samples by the id of their item."""


def items_of(found: Sequence[Question | BinaryItem]) -> list[Item]:
    """Make items of questions or of a binary task.

    Raises:
        UserError: ground truth is missing.
    """
    items = [Item(question=one if isinstance(one, Question) else as_question(one)) for one in found]
    missing = [item.id for item in items if item.question.correct is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(items)} items have no correct answer (the first is {missing[0]!r}); "
            "weak-to-strong needs ground truth on D1, and on D2 for the ceiling: take a split with labels, or leave "
            "these items out"
        )
    return items


def label_truth(items: Sequence[Item]) -> tuple[Literal[0, 1], ...]:
    """1 where answer 0 is correct."""
    return tuple(1 if item.label else 0 for item in items)


def _texts(items: Sequence[Item]) -> list[str]:
    """What an item says, with its passage."""
    return [f"{item.question.text}\n{item.question.passage or ''}" for item in items]


def split_items(items: Sequence[Item], supervisor: int, student: int, test: int, seed: int = 0) -> Splits:
    """Cut items into D1, D2 and test by story; stories with nearly the same text stay together.

    Raises:
        UserError: there are too few items, two have one id, or a part lacks a class.
    """
    total = supervisor + student + test
    if len(items) < total:
        raise UserError(f"weak-to-strong needs {total} items (supervisor + student + test), found {len(items)}")
    before = [item.cluster for item in items]
    groups = joined_groups(before, near_duplicates(_texts(items), before))
    sizes = {"supervisor": supervisor, "student": student, "test": test}
    while True:
        items = [_regrouped(item, group) for item, group in zip(items, groups, strict=True)]
        parts = divide(items, {name: size / total for name, size in sizes.items()}, seed)
        kept = {name: tuple(parts[name][:size]) for name, size in sizes.items()}
        found = Splits(joined=len(set(before)) - len(set(groups)), **kept)  # type: ignore[arg-type]
        # What is wording of the task depends on the texts at hand, so fewer of them may have more near-duplicates.
        pairs = _crossing(found)
        if not pairs:
            break
        place = {item.id: at for at, item in enumerate(items)}
        groups = joined_groups(groups, [(place[one.id], place[other.id]) for one, other in pairs])
    _check_parts(found)
    return found.model_copy(update={"unused": len(items) - len(found.every)})


def _regrouped(item: Item, group: str) -> Item:
    """The item in this group."""
    if item.cluster == group:
        return item
    return Item(question=item.question.model_copy(update={"group": group}))


def check_splits(splits: Splits) -> None:
    """Check that the parts share nothing and that each has both classes.

    Raises:
        UserError: an id stands twice, a story or nearly the same text is in two parts, or a part lacks a class.
    """
    where = _check_parts(splits)
    for one, other in _crossing(splits):
        raise UserError(
            f"items {one.id!r} of {where[one.id]!r} and {other.id!r} of {where[other.id]!r} say nearly the same; "
            "give them one group, so that splits keep them together"
        )


def _check_parts(splits: Splits) -> dict[str, str]:
    """The same but for nearly the same texts.

    Returns:
        The part of each item, by id.
    """
    where: dict[str, str] = {}
    for name, part in splits.parts.items():
        for item in part:
            if item.id in where:
                raise UserError(
                    f"item {item.id!r} is in {where[item.id]!r} and again in {name!r}; give each item its own id"
                )
            where[item.id] = name
        for label in (0, 1):
            if not any(item.label == label for item in part):
                raise UserError(
                    f"weak-to-strong: none of the {len(part)} items of part {name!r} has label {label}; "
                    "take more items, another seed, or balance the classes"
                )
    check_disjoint(splits.parts)
    return where


def _crossing(splits: Splits) -> list[tuple[Item, Item]]:
    """Near-duplicates of which one is in another part than the other."""
    every = splits.every
    part = [name for name, items in splits.parts.items() for _ in items]
    pairs = near_duplicates(_texts(every), [item.cluster for item in every])
    return [(every[first], every[second]) for first, second in pairs if part[first] != part[second]]


def report(
    splits: Splits, samples: Samples | None = None, count: Callable[[Sample], int] | None = None, limit: int = 0
) -> dict[str, PartReport]:
    """Items, classes and token lengths of each part.

    Args:
        splits: the parts.
        samples: what a model reads of each item; None leaves out the lengths.
        count: tokens of a sample, such as `token_counter` makes.
        limit: the most tokens the model reads; 0 where there is no limit.
    """
    found = {}
    for name, part in splits.parts.items():
        zeros = sum(item.label == 0 for item in part)
        lengths = [count(samples[item.id]) for item in part] if samples is not None and count is not None else []
        quantiles = np.percentile(lengths, [50, 95, 100], method="higher").astype(int).tolist() if lengths else None
        found[name] = PartReport(
            items=len(part), groups=len({item.cluster for item in part}), labels=(zeros, len(part) - zeros),
            tokens=tuple(quantiles) if quantiles else None,
            too_long=sum(length > limit for length in lengths) if limit else 0,
        )  # fmt: skip
    return found


def check_lengths(reports: Mapping[str, PartReport], limit: int) -> None:
    """Check that a model can read every item whole: none is cut or left out in silence.

    Raises:
        UserError: items of a part are longer than the limit.
    """
    for name, part in reports.items():
        if part.too_long and part.tokens is not None:
            raise UserError(
                f"weak-to-strong: {part.too_long} of {part.items} items of part {name!r} are longer than the model's "
                f"{limit} tokens (the longest has {part.tokens[2]}); take a model with a longer context, or leave "
                "them out with fitting(), which counts them"
            )


def fitting(
    items: Sequence[Item], samples: Samples, count: Callable[[Sample], int], limit: int
) -> tuple[list[Item], tuple[str, ...]]:
    """Items that a model can read whole, and the ids of those left out; to be called before a split."""
    fits = [count(samples[item.id]) <= limit for item in items]
    kept = [item for item, fit in zip(items, fits, strict=True) if fit]
    return kept, tuple(item.id for item, fit in zip(items, fits, strict=True) if not fit)


def token_counter(tokenizer: Any) -> Callable[[Sample], int]:
    """Count what a model reads of a sample: its prompt as engines encode it, and the longer answer."""

    def count(sample: Sample) -> int:
        messages = [Said.model_validate(message) for message in sample.prompt]
        answers = (len(candidate_ids(tokenizer, candidate)) for candidate in sample.candidates)
        return len(prompt_ids(tokenizer, messages)) + max(answers)

    return count


def sample_of(transcript: Transcript, reads_passage: bool) -> Sample:
    """What a supervisor reads of a game, with the passage or without."""
    rules = transcript.protocol.model_copy(update={"judge_reads_passage": reads_passage})
    shown = transcript.model_copy(update={"protocol": rules})
    prompt = judge_messages(shown, shown.present, (0, 1))
    return Sample(prompt=prompt, candidates=judge_candidates(shown, (0, 1)))


def plain_samples(items: Sequence[Item], blind: Protocol, reads_passage: bool) -> dict[str, Sample]:
    """Every item without a debate; a question that has no passage is read as it is."""
    return {
        item.id: sample_of(open_transcript(item.question, blind, {}), reads_passage and bool(item.question.passage))
        for item in items
    }
