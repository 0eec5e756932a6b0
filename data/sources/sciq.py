"""SciQ (Welbl et al. 2017, arXiv 1707.06209) as a debate: two answers, and the support as the hidden passage.

Rows are the owner's: question, correct_answer, distractor1 to distractor3, support. The wrong answer is one distractor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from debate_rl.data.left_out import LeftOut, question_fault, same_text
from debate_rl.data.splits import FRACTIONS, sample
from debate_rl.data.tasks.task import Row, hub_rows, load_task, local_rows
from debate_rl.errors import UserError, existing
from debate_rl.game.question import Question, Split
from debate_rl.records import digest, explain

FILES: dict[Split, tuple[str, ...]] = {
    "train": ("train.json", "train.jsonl"),
    "validation": ("valid.json", "validation.json", "validation.jsonl"),
    "test": ("test.json", "test.jsonl"),
}
"""The owner's file names; the first that exists is read."""
_EARLIER: dict[Split, tuple[Split, ...]] = {"train": (), "validation": ("train",), "test": ("train", "validation")}


class _Row(BaseModel):
    """One row as the owner writes it."""

    question: str
    correct_answer: str
    distractor1: str
    distractor2: str
    distractor3: str
    support: str | None = ""

    @property
    def passage(self) -> str:
        """The support without spaces at its ends; empty where there is none."""
        return (self.support or "").strip()

    @property
    def group(self) -> str:
        """Questions on one support are one group; a question without support is its own."""
        return f"sciq-{digest(same_text(self.passage or self.question))}"

    def wrong_answers(self) -> list[str]:
        """The distractors that differ from the correct answer and are not empty."""
        right = same_text(self.correct_answer)
        options = (self.distractor1, self.distractor2, self.distractor3)
        return [option.strip() for option in options if same_text(option) not in ("", right)]


def _question(row: _Row, seed: int) -> Question | None:
    """A question with two answers; the distractor and the correct answer's side are fair draws by seed and question.

    Returns:
        None where no distractor differs from the correct answer.
    """
    name = f"sciq-{digest([row.question, row.correct_answer, row.passage])}"
    wrong_answers = row.wrong_answers()
    if not wrong_answers:
        return None
    # By digests of the name, not by place: a draw stays when a filter changes which rows are read.
    wrong = wrong_answers[int(digest(["distractor", seed, name]), 16) % len(wrong_answers)]
    right = row.correct_answer.strip()
    correct: Literal[0, 1] = 1 if int(digest(["side", seed, name]), 16) % 2 else 0
    return Question(
        id=name,
        text=row.question.strip(),
        answers=(wrong, right) if correct else (right, wrong),
        correct=correct,
        passage=row.passage or None,
        group=row.group,
        source="sciq",
    )


def hashed_split(group: str) -> Split:
    """The split of a group in a file without splits, by its hash alone: other rows of the file do not matter."""
    place = int(digest(["sciq split", group])[:12], 16) / 16**12
    end = 0.0
    for split, share in FRACTIONS.items():
        end += share
        if place < end:
            return split
    return "test"


def _checked(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, _Row]]:
    """Each row as the owner writes it, with the place it stands at."""
    for where, row in rows:
        try:
            yield where, _Row.model_validate(row)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error)}; SciQ has question, correct_answer, distractor1...3") from error


def _rows(path: Path | None, split: Split) -> Iterator[tuple[str, _Row]]:
    """Rows of one of the owner's splits, from the hub or a folder."""
    if path is None:
        return _checked(hub_rows(load_task("sciq"), split))
    for name in FILES[split]:
        if (path / name).is_file():
            return _checked(local_rows(path / name))
    raise UserError(f"{path} has no file {FILES[split][0]}; unpack SciQ.zip there, or give one file of it as path")


def _questions(
    rows: Iterable[tuple[str, _Row]], min_words: int, seed: int, elsewhere: frozenset[str]
) -> dict[str, Question]:
    """The questions of rows by id; what is left out is counted and logged by reason."""
    questions: dict[str, Question] = {}
    left_out = LeftOut("questions")
    for where, row in rows:
        question = _question(row, seed)
        fault = "no distractor differs from the correct answer" if question is None else question_fault(question)
        words = len(row.passage.split())
        if min_words and not words:
            fault = "no support"
        elif words < min_words:
            fault = f"a support of fewer than {min_words} words"
        elif row.group in elsewhere:
            fault = "its support stands in an earlier split"
        if question is None or fault is not None:
            left_out.add(fault or "", where)
        elif question.id in questions:
            left_out.add("repeated word for word", where)
        else:
            questions[question.id] = question
    left_out.say(len(questions))
    return questions


def load(
    path: str | Path | None = None,
    split: Split | None = None,
    limit: int | None = None,
    seed: int = 0,
    min_words: int = 1,
) -> list[Question]:
    """Read SciQ.

    Args:
        path: a folder with the owner's train.json, valid.json and test.json, or one file of rows (.json, .jsonl); None
            takes the hub's allenai/sciq.
        split: the owner's, of a folder or the hub; questions whose support stands in an earlier split are left out. One
            file is cut by the hash of the support into three (`splits.FRACTIONS`). None keeps everything.
        limit: draw this many questions, by seed.
        seed: decides distractors, sides and the draw; never which question is in which split.
        min_words: leave out supports with fewer words; 0 keeps questions without support.

    Raises:
        UserError: a missing file, a malformed row (where and which field), the hub can not be reached, or no question
            is left.
    """
    folder = None if path is None else existing(path, "SciQ file or folder")
    if folder is None or not folder.is_file():
        questions = []
        for part in FILES if split is None else (split,):
            questions += _of_split(folder, part, min_words, seed)
        return sample(questions, limit, seed)
    rows = _checked(local_rows(folder))
    questions = []
    for question in _questions(rows, min_words, seed, frozenset()).values():
        hashed = hashed_split(question.group)
        if split in (None, hashed):
            questions.append(question.model_copy(update={"split": hashed}))
    return sample(questions, limit, seed)


def _of_split(folder: Path | None, split: Split, min_words: int, seed: int) -> list[Question]:
    """The questions of one of the owner's splits whose supports stand in no earlier one."""
    earlier: set[str] = set()
    for other in _EARLIER[split]:
        earlier.update(row.group for _, row in _rows(folder, other))
    questions = _questions(_rows(folder, split), min_words, seed, frozenset(earlier)).values()
    return [question.model_copy(update={"split": split}) for question in questions]
