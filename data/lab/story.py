"""The records that a family of the lab world makes: a story, the questions it settles, and short facts about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from debate_rl.records import Record


def _in_order(span: tuple[int, int]) -> tuple[int, int]:
    """Refuse a span that no number can be drawn from."""
    if not 0 <= span[0] <= span[1]:
        raise ValueError("give two numbers from 0 up, the smaller one first")
    return span


Span = Annotated[tuple[int, int], AfterValidator(_in_order)]
"""Fewest and most, both included."""


class Item(Record):
    """One question about a story, before it has an id and a split.

    Example:
        Item(name="pipe", text="where was the pipe at the end of the day?", answers=("shed", "barn"), correct=0,
             evidence=(("the pipe was moved to the shed at dusk by ines.",),
                       ("the pipe was moved to the barn at noon by otto.",)))
    """

    name: str
    text: str
    answers: tuple[str, str]
    correct: Literal[0, 1]
    evidence: tuple[tuple[str, ...], tuple[str, ...]]
    """For each answer the sentences that back it best; all stand in the story, and together they settle it."""


class Story(Record):
    """Sentences in the order in which they are told, with the questions and facts about them."""

    sentences: tuple[str, ...]
    items: tuple[Item, ...]
    facts: tuple[tuple[str, str], ...] = ()
    """Short queries with answers of one word, such as ("pipe at dusk", "shed"); pretraining asks them."""

    @property
    def passage(self) -> str:
        """The text that a debater reads."""
        return " ".join(self.sentences)
