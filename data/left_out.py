"""Rows of a data set that can not be used: they are left out, counted, and named in the log."""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Collection

from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.records import explain
from debate_rl.records.text import BLANK

_NAMED = 3
"""Places that are named for each reason."""
_log = logging.getLogger(__name__)


class LeftOut:
    """Counts the rows that were left out of a data set, by reason.

    Args:
        what: noun for the rows, such as "questions".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, place: str) -> None:
        """Count one row.

        Args:
            reason: why it is left out, in the same words for all rows that share it.
            place: its file and row.
        """
        self.places[reason].append(place)

    def say(self, used: int = 1) -> None:
        """Log the first places of each reason.

        Args:
            used: number of rows that were not left out.

        Raises:
            UserError: no row is left; a file in which every row is at fault is probably the wrong file.
        """
        if not used and self.places:
            reason, places = next(iter(self.places.items()))
            raise UserError(f"{places[0]}: {reason}; no {self.what} are left; see the file and its fields")
        for reason, places in self.places.items():
            more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            _log.warning("left out %d %s (%s): %s%s", len(places), self.what, reason, ", ".join(places[:_NAMED]), more)


def question_fault(question: Question) -> str | None:
    """Why a question can not be debated; None if it can."""
    first = same_text(question.answers[0])
    second = same_text(question.answers[1])
    if not same_text(question.text):
        return "the question is empty"
    if not first or not second:
        return "an answer is empty"
    if first == second:
        return "both answers are the same"
    return None


def text_fault(error: ValidationError, texts: Collection[str]) -> str | None:
    """Explain what is wrong with a row that lacks a text or holds something else in its place.

    Args:
        error: all complaints about the row.
        texts: fields that hold texts.

    Returns:
        None if there is any other complaint. A wrong label or an unknown field is a fault of the file, not of one row,
        so the row may not be left out for it.
    """
    for complaint in error.errors():
        field = complaint["loc"][0] if complaint["loc"] else None
        if field not in texts or complaint["type"] == "extra_forbidden":
            return None
    return explain(error)


def same_text(text: str) -> str:
    """Normalise a text for comparing answers: case, spaces, forms of letters and characters without width are ignored.

    Raised and lowered digits stay what they are: 10\u00b2 is not 102.
    """
    plain = unicodedata.normalize("NFC", "".join(map(_plain_character, text)))
    return " ".join(plain.casefold().split())


def _plain_character(character: str) -> str:
    """The plain form of a character; empty for one without width."""
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>", "<fraction>")):
        return character
    if unicodedata.category(character) == "Cf" or character in BLANK:
        return ""
    return unicodedata.normalize("NFKC", character)
