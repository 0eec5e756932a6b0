"""Rows of a data set that can not be used: left out, counted, and named on the terminal."""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Collection

from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.records import explain

_NAMED = 3
_log = logging.getLogger(__name__)


class LeftOut:
    """Counts what was left out of a data set, by reason.

    Args:
        what: is counted, such as "questions".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, place: str) -> None:
        """Leave one out.

        Args:
            reason: why, the same words for all that share it.
            place: its file and row.
        """
        self.places[reason].append(place)

    def say(self, used: int = 1) -> None:
        """Name the first places of each reason.

        Args:
            used: how many were not left out.

        Raises:
            UserError: none is left; a file of which every row is at fault is another file than was meant.
        """
        if not used and self.places:
            reason, places = next(iter(self.places.items()))
            raise UserError(f"{places[0]}: {reason}; no {self.what} are left; see the file and its fields")
        for reason, places in self.places.items():
            more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            _log.warning("left out %d %s (%s): %s%s", len(places), self.what, reason, ", ".join(places[:_NAMED]), more)


def question_fault(question: Question) -> str | None:
    """Why a question can not be debated; None where they can."""
    first, second = (same_text(answer) for answer in question.answers)
    if not same_text(question.text):
        return "the question is empty"
    if not first or not second:
        return "an answer is empty"
    if first == second:
        return "both answers are the same"
    return None


def text_fault(error: ValidationError, texts: Collection[str]) -> str | None:
    """What is wrong with a row that lacks a text or holds something else in its place.

    Args:
        error: all complaints about the row.
        texts: fields that hold texts.

    Returns:
        None where there is another complaint: a label or an unknown field is wrong in more rows than one, and a row
        may not be left out for it.
    """
    for complaint in error.errors():
        if not complaint["loc"] or complaint["loc"][0] not in texts or complaint["type"] == "extra_forbidden":
            return None
    return explain(error)


def same_text(text: str) -> str:
    """A text without what does not tell two answers apart: case, spaces, forms of letters, characters without width.

    Raised and lowered digits stay what they are: 10\u00b2 is not 102.
    """
    plain = unicodedata.normalize("NFC", "".join(map(_plain_character, text)))
    return " ".join(plain.casefold().split())


def _plain_character(character: str) -> str:
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>", "<fraction>")):
        return character
    return "" if unicodedata.category(character) == "Cf" else unicodedata.normalize("NFKC", character)
