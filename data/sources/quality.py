"""QuALITY (Pang et al. 2022, arXiv 2112.08608): questions on long stories, from the owner's files.

The hard slice of Arnesen et al. 2024: questions that fewer than half of the timed annotators got right, the wrong
answer being the distractor that most untimed annotators named as the best.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from debate_rl.data.left_out import LeftOut, question_fault
from debate_rl.data.splits import sample, split_part
from debate_rl.data.stories import Story
from debate_rl.errors import UserError, existing
from debate_rl.game.question import Question, Split
from debate_rl.records import digest, explain, lines

DOWNLOAD = (
    "download QuALITY.v1.0.1.zip from https://github.com/nyu-mll/quality (data/v1.0.1), unpack it, and give the folder "
    "or one file of it as path"
)
FILES: dict[str, tuple[str, ...]] = {
    "train": ("QuALITY.v1.0.1.htmlstripped.train", "QuALITY.v1.0.1.train"),
    "dev": ("QuALITY.v1.0.1.htmlstripped.dev", "QuALITY.v1.0.1.dev"),
}
"""The owner's file names; the first that exists is read. The owner's test file has no labels, so it is not used."""

# Only these count as HTML: plain stories hold `<` and `>` of their own.
_MARKUP = re.compile(r"</?(?:html|body|p|br|hr|div|h[1-6]|i|b|pre|span)\b[^>]*>", re.IGNORECASE)
_BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote", "pre", "ul", "ol", "li", "tr", "table"}
_UNREAD = {"head", "script", "style", "table"}


class _Validation(BaseModel):
    """One untimed annotator's reply."""

    untimed_best_distractor: int | None = None


class _Speed(BaseModel):
    """One timed annotator's reply."""

    speed_answer: int


class _Item(BaseModel):
    """One question of an article, as the owner writes it; option numbers count from 1."""

    question: str
    question_unique_id: str | None = None
    options: list[str] = Field(min_length=2)
    gold_label: int = 0
    difficult: bool | None = None
    validation: list[_Validation] = []
    speed_validation: list[_Speed] = []

    @model_validator(mode="after")
    def _labels_in_range(self) -> _Item:
        if not self.gold_label:
            raise ValueError("no gold_label (the owner's test file has none); use the train or dev file")
        if not 1 <= self.gold_label <= len(self.options):
            raise ValueError(f"gold_label {self.gold_label} is not between 1 and {len(self.options)}")
        return self

    @property
    def hard(self) -> bool:
        """The owner's mark, else its definition: fewer than half of the timed annotators were right."""
        if self.difficult is not None:
            return self.difficult
        if not self.speed_validation:
            return False
        right = sum(reply.speed_answer == self.gold_label for reply in self.speed_validation)
        return 2 * right < len(self.speed_validation)


class _Row(BaseModel):
    """One line of a file: an article with one writer's questions."""

    article_id: str | int
    article: str | list[str]
    set_unique_id: str | None = None
    title: str = ""
    questions: list[_Item]

    @property
    def story(self) -> Story:
        """The article as plain text."""
        text = self.article if isinstance(self.article, str) else "".join(self.article)
        return Story(id=str(self.article_id), title=self.title, text=strip_html(text))

    @model_validator(mode="before")
    @classmethod
    def _from_older_layout(cls, row: Any) -> Any:
        if isinstance(row, dict) and "questions" not in row and "question1" in row:
            return {**row, "set_unique_id": row.get("unique_id"), "questions": list(_numbered_questions(row))}
        return row


def _numbered_questions(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Questions of the older layout, whose fields are numbered: question1, question1option1, question1_gold_label."""
    number = 1
    while (name := f"question{number}") in row:
        options = [row[f"{name}option{i}"] for i in range(1, 10) if f"{name}option{i}" in row]
        yield {
            "question": row[name],
            "options": options,
            "gold_label": row.get(f"{name}_gold_label", 0),
            "validation": [{"untimed_best_distractor": vote} for vote in row.get(f"{name}_eval3s", [])],
            "speed_validation": [{"speed_answer": vote} for vote in row.get(f"{name}_annotator_speed_answers", [])],
        }
        number += 1


class _Text(HTMLParser):
    """Collects the text of an HTML document, a blank line between blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.skipping: list[str] = []
        """Open tags whose text is left out."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a block, break a line, or begin to skip."""
        if tag in _UNREAD:
            self.skipping.append(tag)
        # A head that is never closed must not swallow the whole article.
        if tag == "body":
            self.skipping.clear()
        # Old books open a chapter with the picture of a letter, whose `alt` is that letter.
        alt = dict(attrs).get("alt") or ""
        if tag == "img" and len(alt) == 1:
            self.pieces.append(alt)
        if tag in _BLOCKS:
            self.pieces.append("\n\n")
        elif tag == "br":
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Close a block, or stop skipping."""
        if tag in self.skipping:
            self.skipping.remove(tag)
        if tag in _BLOCKS:
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Keep text; its own line breaks mean no more than spaces."""
        if not self.skipping:
            self.pieces.append(re.sub(r"\s+", " ", data))


def strip_html(text: str) -> str:
    """The text of an HTML article: a blank line between paragraphs, entities resolved, head and tables left out.

    A text without HTML tags comes back as it is, less the white space around it.
    """
    if not _MARKUP.search(text):
        return text.strip()
    parser = _Text()
    parser.feed(text)
    parser.close()
    # Spaces round line breaks come from tags between blocks, and blocks within blocks give more than one blank line.
    joined = re.sub(r"[ \t]*\n[ \t]*", "\n", "".join(parser.pieces))
    return re.sub(r"\n{3,}", "\n\n", joined).strip()


def best_distractor(item: _Item, name: str, seed: int) -> int:
    """The wrong option that most untimed annotators named as the best one (Arnesen et al. 2024).

    Votes for the correct answer or for no option do not count. Ties are drawn by seed and question; with no vote left
    every wrong option is a tie.

    Args:
        item: the question.
        name: id of the question.
        seed: of the draw.

    Returns:
        Number of the option, counted from 0.
    """
    wrong = [option for option in range(len(item.options)) if option + 1 != item.gold_label]
    # The owner counts options from 1.
    votes = Counter(
        reply.untimed_best_distractor - 1 for reply in item.validation if reply.untimed_best_distractor is not None
    )
    most = max(votes[option] for option in wrong)
    tied = [option for option in wrong if votes[option] == most]
    return tied[int(digest(["distractor", seed, name]), 16) % len(tied)]


def _question(item: _Item, name: str, group: str, passage: str, seed: int) -> Question:
    """Make a question with two answers; the correct one's side is a fair draw by seed and question."""
    # By a digest of the name, not by place: the side stays when a filter changes which questions are read.
    correct: Literal[0, 1] = 1 if int(digest(["side", seed, name]), 16) % 2 else 0
    right = item.options[item.gold_label - 1].strip()
    wrong = item.options[best_distractor(item, name, seed)].strip()
    return Question(
        id=name,
        text=item.question.strip(),
        answers=(wrong, right) if correct else (right, wrong),
        correct=correct,
        passage=passage,
        group=group,
        source="quality",
    )


def _rows(path: Path) -> Iterator[tuple[int, _Row]]:
    """Each line of a file, checked, with its number."""
    for number, value in lines(path):
        try:
            yield number, _Row.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {explain(error)}") from error


def _read_file(path: Path, seed: int) -> tuple[list[Question], set[str]]:
    """Questions of one file and the ids of the hard ones; a question repeated word for word is read once."""
    questions: dict[str, Question] = {}
    hard: set[str] = set()
    left_out = LeftOut("questions")
    for number, row in _rows(path):
        group = str(row.article_id)
        passage = row.story.text
        for place, item in enumerate(row.questions, start=1):
            unique_id = item.question_unique_id or f"{row.set_unique_id or group}-{place}"
            name = f"quality-{unique_id}"
            question = _question(item, name, group, passage, seed)
            fault = question_fault(question)
            if fault is not None:
                left_out.add(fault, f"{path}:{number} {name}")
                continue
            # The same question twice is no fault; two different questions of one name are.
            if questions.setdefault(name, question) != question:
                raise UserError(
                    f"{path}:{number}: another question is also called {name!r}; give each its question_unique_id"
                )
            if item.hard:
                hard.add(name)
    left_out.say()
    return list(questions.values()), hard


def _files(path: Path, split: Split | None) -> list[Path]:
    """Files to read: the path itself, or the owner's files of the split in a folder."""
    if path.is_file():
        return [path]
    if split is None:
        parts = ["train", "dev"]
    elif split == "train":
        parts = ["train"]
    else:
        parts = ["dev"]
    files = []
    for part in parts:
        present = [path / name for name in FILES[part] if (path / name).is_file()]
        if not present:
            raise UserError(f"{path} has no file {FILES[part][0]}; {DOWNLOAD}")
        files.append(present[0])
    return files


def _in_split(questions: list[Question], file: Path, split: Split | None) -> list[Question]:
    """Keep the questions of a split, with its name in them; None keeps all.

    The owner's dev file is cut by story into validation and test (Arnesen et al. 2024), a file of another name into all
    three. The cut does not depend on a run's seed: what one run tests on, another does not choose its settings by.
    """
    if file.name.endswith(".train"):
        if split not in (None, "train"):
            return []
        return [question.model_copy(update={"split": "train"}) for question in questions]
    if file.name.endswith(".dev"):
        halves: dict[Split, float] = {"validation": 0.5, "test": 0.5}
        chosen = []
        for part in halves:
            if split in (None, part):
                chosen += split_part(questions, part, halves)
        return chosen
    if split is None:
        return questions
    return split_part(questions, split)


def stories(path: str | Path | None, split: Split | None = None) -> dict[str, Story]:
    """Stories by their sets of questions (`set_unique_id`); several sets may share one.

    Args:
        path: as for `load`.
        split: read only the owner's file that holds this split; None reads both.

    Raises:
        UserError: as `load`.
    """
    if path is None:
        raise UserError(f"QuALITY's stories need a path: {DOWNLOAD}")
    by_set: dict[str, Story] = {}
    for file in _files(existing(path, "QuALITY file or folder", DOWNLOAD), split):
        for _, row in _rows(file):
            by_set[row.set_unique_id or str(row.article_id)] = row.story
    return by_set


def load(
    path: str | Path | None = None,
    hard_only: bool = False,
    split: Split | None = None,
    limit: int | None = None,
    seed: int = 0,
    without: Collection[str] = (),
) -> list[Question]:
    """Read QuALITY from the owner's files.

    Args:
        path: the folder of the owner's files, or one file (plain or HTML-stripped, any name).
        hard_only: keep the questions marked difficult.
        split: `train` is the owner's train file; `validation` and `test` are the halves of the dev file, cut by story.
            A file of another name is cut by story into three (`splits.FRACTIONS`); None keeps all of it.
        limit: draw this many questions, by seed.
        seed: decides sides, tied distractors and the draw; never which story is in which split.
        without: article ids to leave out, for example the stories of the human debates.

    Raises:
        UserError: no path (says where to download), a missing file, or a malformed row (file, line and field).
    """
    if path is None:
        raise UserError(f"source quality needs a path: {DOWNLOAD}")
    chosen: list[Question] = []
    for file in _files(existing(path, "QuALITY file or folder", DOWNLOAD), split):
        questions, hard = _read_file(file, seed)
        # Cut into splits before anything is left out: a filter must not move a story into another split.
        for question in _in_split(questions, file, split):
            if question.group in without:
                continue
            if question.id in hard or not hard_only:
                chosen.append(question)
    return sample(chosen, limit, seed)
