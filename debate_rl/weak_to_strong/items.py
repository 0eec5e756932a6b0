"""Items of weak-to-strong: claims that are correct or not, with what the weak and the strong model may read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from debate_rl.data.binary_tasks import BinaryItem, as_question
from debate_rl.data.splits import check_disjoint, divide
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, shown_text
from debate_rl.records import Record, digest


class Item(Record):
    """A claim to be judged.

    Example:
        Item(id="lab-7-2", text="story : ... the answer is shed", weak_text="question : ... the answer is shed",
             label=1, group="lab-7", question=Question(id="lab-7-2", ...))
    """

    id: str
    text: str
    """What the strong student reads."""
    weak_text: str
    """What the weak supervisor reads, before a debate is added to it."""
    label: Literal[0, 1]
    """1 where the claim is correct."""
    group: str
    question: Question
    """What is debated to help the supervisor."""

    @property
    def cluster(self) -> str:
        """The story, else the item."""
        return self.group or self.id


class Splits(Record):
    """D1 (ground truth for the supervisor), D2 (weak labels for the student) and the test set; no story is in two."""

    supervisor: tuple[Item, ...]
    student: tuple[Item, ...]
    test: tuple[Item, ...]


def claims(questions: Sequence[Question], seed: int = 0, supervisor_reads_passage: bool = False) -> list[Item]:
    """Turn two-answer questions into claims "the answer is X", X a fair draw by question and seed.

    Raises:
        UserError: a question's correct answer is unknown.
    """
    items = []
    for question in questions:
        if question.correct is None:
            raise UserError(f"question {question.id!r} has no correct answer; weak-to-strong needs ground truth")
        side = int(digest(["claim", question.id, seed]), 16) % 2
        listed = " or ".join(question.answers)
        short = f"question : {question.text} answers : {listed} . the answer is {question.answers[side]}"
        whole = f"story : {question.passage} {short}" if question.passage else short
        items.append(
            Item(
                id=question.id, text=whole, weak_text=whole if supervisor_reads_passage else short,
                label=1 if side == question.correct else 0, group=question.cluster, question=question,
            )
        )  # fmt: skip
    return items


def task_items(items: Sequence[BinaryItem]) -> list[Item]:
    """Items of a binary task; supervisor and student read the same text.

    Raises:
        UserError: an item has no label.
    """
    found = []
    for item in items:
        if item.label is None:
            raise UserError(f"item {item.id!r} has no label; weak-to-strong needs ground truth")
        found.append(
            Item(
                id=item.id, text=item.text, weak_text=item.text, label=item.label, group=item.cluster,
                question=as_question(item),
            )
        )  # fmt: skip
    return found


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


def with_debate(text: str, transcript: Transcript) -> str:
    """A supervisor's text with a debate after it, speeches as a judge is shown them (Lang et al. 2025)."""
    sides = {"A": 0, "B": 1}
    speeches = [
        f"for {transcript.question.answers[sides[speech.side]]} : {shown_text(speech, transcript.protocol)}"
        for speech in transcript.speeches
    ]
    return "\n".join([text, *speeches])
