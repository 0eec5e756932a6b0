"""Items of weak-to-strong, their splits, and what each model reads of them.

An item is a question with two answers, for a binary task "correct" and "incorrect". What a model reads is the view of
a judge (`game.prompts.judge_messages`): the student has the passage; a supervisor has it where the config says so, and
under it the debate that is there to help it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from debate_rl.data.binary_tasks import BinaryItem, as_question
from debate_rl.data.splits import check_disjoint, divide
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

    @property
    def every(self) -> tuple[Item, ...]:
        """All items."""
        return (*self.supervisor, *self.student, *self.test)


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
    items = []
    for one in found:
        question = one if isinstance(one, Question) else as_question(one)
        if question.correct is None:
            raise UserError(f"item {one.id!r} has no correct answer; weak-to-strong needs ground truth")
        items.append(Item(question=question))
    return items


def split_items(items: Sequence[Item], supervisor: int, student: int, test: int, seed: int = 0) -> Splits:
    """Cut items into D1, D2 and test by story.

    Raises:
        UserError: there are too few items.
    """
    total = supervisor + student + test
    if len(items) < total:
        raise UserError(f"weak-to-strong needs {total} items (supervisor + student + test), found {len(items)}")
    shares = {"supervisor": supervisor / total, "student": student / total, "test": test / total}
    parts = divide(items, shares, seed)
    check_disjoint(parts)
    return Splits(
        supervisor=tuple(parts["supervisor"][:supervisor]),
        student=tuple(parts["student"][:student]),
        test=tuple(parts["test"][:test]),
    )


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
