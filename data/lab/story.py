"""What a family of the lab world makes: a story, and the questions it settles."""

from __future__ import annotations

from typing import Literal

from debate_rl.records import Record


class Item(Record):
    """One question about a story, before it has an id and a split.

    Example:
        Item(name="pipe", text="where was the pipe at the end of the day?", answers=("shed", "barn"), correct=0,
             evidence=("the pipe was moved to the shed at dusk and ines saw.",
                       "the pipe was moved to the barn at noon and otto saw."),
             working="barn at noon then shed at dusk")
    """

    name: str
    text: str
    answers: tuple[str, str]
    correct: Literal[0, 1]
    evidence: tuple[str, str]
    """For each answer the sentence that backs it best; both stand in the story, and together they settle it."""
    working: str
    """The steps from the story to the correct answer, in a few words; pretraining shows them."""


class Story(Record):
    """Sentences in the order in which they are told, and the questions about them."""

    sentences: tuple[str, ...]
    items: tuple[Item, ...]

    @property
    def passage(self) -> str:
        """The text that a debater reads."""
        return " ".join(self.sentences)
