"""Rows of a data set that can not be used: left out, counted, and named on the terminal."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.records import explain

_NAMED = 3
_log = logging.getLogger(__name__)
_said: set[str] = set()
"""Lines that this process has logged: a run reads its questions once for each split."""


class Unusable(ValueError):
    """Why a row can not be used: a text is missing, empty or no text."""


class LeftOut:
    """Counts what was left out of a data set, and what is in but not as it was, by reason.

    Args:
        what: is counted, such as "questions".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._places: dict[str, list[str]] = defaultdict(list)
        self._changes: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, place: str) -> None:
        """Leave one out.

        Args:
            reason: why, the same words for all that share it.
            place: its file and row.
        """
        self._places[reason].append(place)

    def change(self, change: str, place: str) -> None:
        """Count one that is in, but not as it was."""
        self._changes[change].append(place)

    def counts(self) -> Counter[str]:
        """How many were left out, by reason."""
        return Counter({reason: len(places) for reason, places in self._places.items()})

    def named(self) -> dict[str, int]:
        """How many were left out or changed, by reason and first places: for cards and accounts."""
        return {
            f"{reason}: {_first(places)}": len(places)
            for reasons in (self._places, self._changes)
            for reason, places in reasons.items()
        }

    def say(self, used: int = 1) -> None:
        """Log the first places of each reason, once.

        Args:
            used: how many were not left out.

        Raises:
            UserError: none is left; a file of which every row is at fault is another file than was meant.
        """
        if not used and self._places:
            reason, places = next(iter(self._places.items()))
            every = sum(self.counts().values())
            raise UserError(
                f"{places[0]}: {reason}; none of {every} {self.what} can be used, see the file and its fields"
            )
        for verb, reasons in (("left out", self._places), ("changed", self._changes)):
            for reason, places in reasons.items():
                _log_once(f"{verb} {len(places)} {self.what} ({reason}): {_first(places)}")


def _first(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return ", ".join(places[:_NAMED]) + more


def _log_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        _log.warning("%s", line)


def question_fault(question: Question) -> str | None:
    """Why a question can not be debated; None where it can."""
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
        None where there is another complaint: a label, a number or an unknown field is wrong in more rows than one,
        and a row may not be left out for it.
    """
    for complaint in error.errors():
        if not complaint["loc"] or complaint["loc"][0] not in texts or complaint["type"] == "extra_forbidden":
            return None
    return explain(error)


def same_text(text: str) -> str:
    """A text without what does not tell two answers apart: case, spaces, forms of letters, characters without width.

    Raised and lowered digits stay what they are: 10² is not 102.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_plain_character, text)))
    return " ".join(text.casefold().split())


def _plain_character(character: str) -> str:
    if unicodedata.decomposition(character).startswith(("<super>", "<sub>", "<fraction>")):
        return character
    if unicodedata.category(character) == "Cf":
        return ""
    return unicodedata.normalize("NFKC", character)


def without_nulls(value: Any) -> Any:
    """A JSON-like value in which what is no number (NaN) is null, at any depth."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value
