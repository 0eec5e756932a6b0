"""The question of a debate: two answers, one of them correct."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializationInfo, field_serializer

from debate_rl.records import Record
from debate_rl.records.passages import Passages

Split = Literal["train", "validation", "test"]


class Question(Record):
    """A question with two answers.

    Example:
        Question(id="lab-7-2", text="where is the pipe at the end ?", answers=("shed", "barn"), correct=0,
                 passage="the pipe was moved to the barn at noon and ines saw. ...", group="lab-7",
                 source="lab/whereabouts", split="train")
    """

    id: str
    text: str
    """The question as asked, or in a claim debate the statement to be judged correct or incorrect."""
    answers: tuple[str, str]
    """Side A argues for the first answer, side B for the second."""
    correct: Literal[0, 1] | None = None
    """Index of the correct answer; None where it is unknown. No model ever sees it."""
    passage: str | None = None
    """The text that debaters read and a hidden-passage judge does not; quotes are checked against it."""
    excerpt: str | None = Field(default=None, exclude_if=lambda excerpt: excerpt is None)
    """The part of the passage that prompts show; None shows all of it. Chosen once, before the first game."""
    group: str = ""
    """Name of the group of related questions, usually the story: statistics cluster by it, splits never cut it."""
    source: str = ""
    split: Split | None = None
    evidence: tuple[tuple[str, ...], ...] = Field(default=())
    """Sentences that back each answer best, where a data set names them; for analysis, never shown to a model."""

    @field_serializer("passage", "excerpt")
    def _by_reference(self, text: str | None, info: SerializationInfo) -> Any:
        """The text itself, or in a file with passages beside it what names it there."""
        if text is None or not isinstance(info.context, Passages):
            return text
        return info.context.reference(text)

    @property
    def shown_passage(self) -> str:
        """What those who may read the passage are shown of it; empty where there is none."""
        return self.passage or "" if self.excerpt is None else self.excerpt

    @property
    def cluster(self) -> str:
        """The unit of resampling: the story, else the question itself."""
        return self.group or self.id
