"""Questions of every source, loaded by one function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

from pydantic import ValidationError

from debate_rl.data.left_out import LeftOut, question_fault, text_fault
from debate_rl.data.sources import nyu, quality, sciq, word_problems
from debate_rl.data.splits import sample, split_part
from debate_rl.data.stories import Story, same_stories
from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Question, Split
from debate_rl.records import Record, explain, lines

SOURCES = ("lab", "quality", "nyu", "sciq", "word_problems", "file")
GENERATED = ("lab", "word_problems")
SPLITS: tuple[Split, ...] = get_args(Split)


class Generated(Record):
    """A source whose questions are made, with settings of its own.

    Example:
        Generated(source="lab", family="whereabouts", knobs={"things": 3, "third_move": 0.5})
    """

    source: Literal["lab", "word_problems"] = "lab"
    family: str = "whereabouts"
    """Family of the lab's stories."""
    knobs: Mapping[str, Any] = {}
    """Knobs of the family (data/lab/README.md), or of word problems (`data.sources.word_problems.Knobs`)."""


def load_questions(
    source: str | Generated,
    path: str | Path | None = None,
    split: Split | None = None,
    limit: int | None = None,
    seed: int = 0,
    *,
    hard_only: bool = False,
    human: str | Path | None = None,
    min_passage_words: int = 1,
) -> list[Question]:
    """Load questions.

    Args:
        source: `lab` or `word_problems` (generated; `Generated` for settings of their own), `quality`, `nyu` (the human
            debates), `sciq`, or `file` (JSON lines of `Question`).
        path: the source's file or folder; what is generated needs none, and for `sciq` none is the hub.
        split: train, validation or test. None takes every question, and of generated ones the train split.
        limit: most questions, drawn by seed; None takes all, and 100 of generated ones.
        seed: decides the draw, sides and tied distractors, and the lab's stories; never which story is in which split.
        hard_only: only the questions that QuALITY marks as difficult.
        human: human debates (as the path of source `nyu`); questions on their stories are left out of the validation
            and test splits. A story is recognised by its id, its title, or its text (`stories.same_stories`).
        min_passage_words: shortest support of `sciq` in words; rows with less are left out and counted.

    Raises:
        UserError: unknown source or split, no path, a malformed file, or no question is left (names split and path).

    Example:
        >>> import debate_rl as dr
        >>> len(dr.load_questions("lab", split="test", limit=5, seed=3))
        5
    """
    made = Generated()
    if isinstance(source, Generated):
        made, source = source, source.source
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r}; {nearest(source, SOURCES)}")
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; {nearest(split, SPLITS)}")
    debated: set[str] = set()
    if human is not None and split in ("validation", "test"):
        debated = _debated_groups(source, path, split, nyu.stories(human))
    if source in GENERATED:
        count = 100 if limit is None else limit
        questions = _generate(source, made, split or "train", count, seed)
    elif source == "quality":
        questions = quality.load(path, hard_only, split, limit, seed, debated)
    elif source == "sciq":
        # Its supports are paragraphs of textbooks: no debated story is among them.
        questions = sciq.load(path, split, limit, seed, min_passage_words)
    else:
        every = nyu.questions(path, split, None, seed) if source == "nyu" else _from_file(path, split)
        # Leave out first and draw then, so that the limit is reached.
        questions = sample([question for question in every if question.cluster not in debated], limit, seed)
    if not questions:
        raise UserError(
            f"no questions: source {source!r}, split {split or 'any'!r}, path {str(path) if path else 'none'!r}; "
            "choose another split, raise the limit, or check the file"
        )
    return questions


def _generate(source: str, made: Generated, split: Split, count: int, seed: int) -> list[Question]:
    """Make questions of a generated source."""
    if source == "word_problems":
        return word_problems.questions(split, count, seed, **made.knobs)
    from debate_rl.data.lab import world  # here: the other sources do not need it

    return world.questions(made.family, split, count, seed, **made.knobs)


def _debated_groups(source: str, path: str | Path | None, split: Split, debated: Sequence[Story]) -> set[str]:
    """Groups of a source whose stories are among the debated ones; what is generated and SciQ never are."""
    if source in (*GENERATED, "sciq"):
        return set()
    if source == "quality":
        stories = {story.id: story for story in quality.stories(path, split).values()}
    else:
        questions = nyu.questions(path) if source == "nyu" else _from_file(path, split)
        stories = {q.cluster: Story(id=q.cluster, text=q.passage or "") for q in questions}
    return set(same_stories(stories.values(), debated))


def _from_file(path: str | Path | None, split: Split | None) -> list[Question]:
    """Read the questions of a JSON-lines file; if no line names a split, the file is cut by story.

    Raises:
        UserError: no path, a malformed line, or an id that is used twice; names file and line.
    """
    if path is None:
        raise UserError("source file needs a path: JSON lines with id, text, answers, correct, passage and group")
    questions: dict[str, Question] = {}
    left_out = LeftOut("questions")
    for number, value in lines(path):
        try:
            question = Question.model_validate(value)
        except ValidationError as error:
            missing_text = text_fault(error, ("text", "answers"))
            if missing_text is None:
                raise UserError(f"{path}:{number}: {explain(error)}") from error
            left_out.add(missing_text, f"{path}:{number}")
            continue
        fault = question_fault(question)
        if fault is not None:
            left_out.add(fault, f"{path}:{number}")
            continue
        if question.id in questions:
            raise UserError(f"{path}:{number}: id {question.id!r} was used before; give each question its own")
        questions[question.id] = question
    left_out.say(len(questions))
    every = list(questions.values())
    if split is None:
        return every
    if any(question.split for question in every):
        return [question for question in every if question.split == split]
    return split_part(every, split)


def claims(asked: Sequence[Question], seed: int = 0) -> list[Question]:
    """Put questions as claims: one of the answers is named, and is to be called correct or incorrect.

    Args:
        asked: questions with two answers.
        seed: draws the answer that each claim names; either is named equally often.

    Returns:
        As many questions with answers ("correct", "incorrect"); passage, story and split stay.
    """
    return [_claim(question, Random(f"claim/{seed}/{question.id}").randrange(2)) for question in asked]


def _claim(question: Question, named: int) -> Question:
    """A question as a claim that one of its answers is correct."""
    answer = question.answers[named]
    changes: dict[str, Any] = {
        "id": f"{question.id}-claim-{answer}",
        "text": f"{question.text} the answer is {answer}.",
        "answers": ("correct", "incorrect"),
    }
    if question.correct is not None:
        # Answer 0 is "correct", which is right if the right answer was named.
        changes["correct"] = int(named != question.correct)
    if question.evidence:
        changes["evidence"] = (question.evidence[named], question.evidence[1 - named])
    return question.model_copy(update=changes)
