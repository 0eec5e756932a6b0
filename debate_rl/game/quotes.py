"""Quotes: `<quote>...</quote>` in a speech, checked against the passage before anyone else reads it.

A quote is exact (it stands in the passage after normalising case, spaces, dashes and quotation marks), near (rapidfuzz
finds a span of whole words at least as similar as the threshold), or invalid. The speech itself is never changed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

from rapidfuzz import fuzz

from debate_rl.records import Record

QUOTE = re.compile(r"<quote>(.*?)</quote>", re.DOTALL)
_SAME = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "`": "'"}
)
_EDGES = " .,;:!?'\"-"


Found = Literal["exact", "near", "invalid"]


class Quote(Record):
    """One quote of a speech and what checking it found.

    Example:
        Quote(text="The pipe was moved", verdict="exact", start=14, end=47, passage_end=138, score=100.0)
    """

    text: str
    """What stands between the tags, as written."""
    verdict: Found
    start: int
    end: int
    """Characters of the speech that the quote takes, tags included."""
    passage_start: int | None = None
    passage_end: int | None = None
    """Characters of the passage that match; None for an invalid quote."""
    score: float = 0.0
    """Similarity to the best span of the passage, in percent; 0 where none reaches the threshold."""


def _normalised(text: str) -> tuple[str, tuple[int, ...]]:
    """Fold case, width, dashes, quotation marks and spaces; also give each character's place in the original."""
    folded: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character.isspace():
            if folded and folded[-1] != " ":
                folded.append(" ")
                places.append(place)
            continue
        for part in unicodedata.normalize("NFKC", character.translate(_SAME)).casefold():
            folded.append(part)
            places.append(place)
    return "".join(folded), tuple(places)


_passage = lru_cache(maxsize=512)(_normalised)
"""Of passages, which are read again and again; quotes would only drive them out."""


def _find_whole_words(wanted: str, text: str) -> int:
    """Index of the first occurrence that does not begin or end inside a word, else -1."""
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        before = start > 0 and text[start - 1].isalnum() and wanted[0].isalnum()
        after = end < len(text) and text[end].isalnum() and wanted[-1].isalnum()
        if not before and not after:
            return start
        start = text.find(wanted, start + 1)
    return -1


def locate(quote: str, passage: str, threshold: float = 90.0) -> tuple[Found, int | None, int | None, float]:
    """Check one quote: (verdict, start and end in the passage or None, similarity in percent)."""
    wanted = _normalised(quote)[0].strip(_EDGES)
    text, places = _passage(passage)
    if not wanted or not text:
        return "invalid", None, None, 0.0
    start = _find_whole_words(wanted, text)
    if start >= 0:
        return "exact", places[start], places[start + len(wanted) - 1] + 1, 100.0
    if len(wanted) > len(text):
        return "invalid", None, None, 0.0
    found = fuzz.partial_ratio_alignment(wanted, text, score_cutoff=threshold)
    if found is None or found.dest_end <= found.dest_start:
        return "invalid", None, None, 0.0
    low, high = _whole_words(text, found.dest_start, found.dest_end)
    score = fuzz.ratio(wanted, text[low:high], score_cutoff=threshold)
    if score == 0:
        return "invalid", None, None, 0.0
    return "near", places[low], places[high - 1] + 1, round(score, 2)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span until it neither begins nor ends inside a word."""
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    return start, end


def check_quotes(speech: str, passage: str | None, threshold: float = 90.0) -> tuple[Quote, ...]:
    """Check every quote of a speech against the passage (without a passage every quote is invalid).

    Tags round nothing but punctuation are not a quote.
    """
    quotes = []
    for match in QUOTE.finditer(speech):
        if not any(character.isalnum() for character in match[1]):
            continue
        verdict, start, end, score = locate(match[1], passage or "", threshold)
        quotes.append(
            Quote(text=match[1], verdict=verdict, start=match.start(), end=match.end(),
                  passage_start=start, passage_end=end, score=score)
        )  # fmt: skip
    return tuple(quotes)
