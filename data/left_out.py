"""Rows of a data set that can not be used: left out, counted, and named on the terminal."""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict

from debate_rl.game.question import Question

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

    def say(self) -> None:
        """Name the first places of each reason."""
        for reason, places in self.places.items():
            more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            _log.warning("left out %d %s (%s): %s%s", len(places), self.what, reason, ", ".join(places[:_NAMED]), more)


def answers_fault(question: Question) -> str | None:
    """Why a question's answers can not be debated; None where they can."""
    first, second = (same_text(answer) for answer in question.answers)
    if not first or not second:
        return "an answer is empty"
    if first == second:
        return "both answers are the same"
    return None


def same_text(text: str) -> str:
    """A text without what does not tell two answers apart: case, spaces, and forms of letters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
