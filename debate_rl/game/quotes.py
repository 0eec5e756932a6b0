"""Quotes: `<quote>...</quote>` in a speech, checked against the passage before anyone else reads it.

A quote is exact (it stands in the passage after normalising case, spaces, dashes, quotation marks and forms of
letters), near, or invalid. Near means that a span of whole words of the passage shares so many characters with it, in
order: 2 M / (length of the quote + length of the span) >= the threshold, 90 % by default. That is a measure of spelling
and not of meaning: in a quote of twelve words one may be another word, even the one that matters. The page of a run
shows the words that differ. The speech itself is never changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal

from rapidfuzz import fuzz

from debate_rl.records import Record

OPEN, CLOSE = "<quote>", "</quote>"
LONG = 600
"""Characters from which a quote is placed by its first and last words."""
TRIED = 60
"""Runs of three words that are looked for from either end of a long quote."""
_WORD = re.compile(r"\S+")
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
    """Fold case, width, dashes, quotation marks and spaces; also give each character's place in the original.

    Letters with marks are taken apart, so that composed and decomposed text is the same.
    """
    folded: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character.isspace():
            if folded and folded[-1] != " ":
                folded.append(" ")
                places.append(place)
            continue
        for part in _folded(character):
            folded.append(part)
            places.append(place)
    _order_marks(folded, places)
    return "".join(folded), tuple(places)


def _order_marks(letters: list[str], places: list[int]) -> None:
    """Give marks on one letter their canonical order, whatever order they were typed in."""
    ranks = list(map(unicodedata.combining, letters))
    start = 0
    for at in range(len(letters) + 1):
        if at < len(letters) and ranks[at]:
            continue
        if at - start > 1:
            order = sorted(range(start, at), key=ranks.__getitem__)  # stable: marks of one rank stay as they are
            letters[start:at], places[start:at] = [letters[i] for i in order], [places[i] for i in order]
        start = at + 1


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    """A character as it is compared: forms of a letter become the letter, but a power stays apart from a digit."""
    character = character.translate(_SAME)
    form = unicodedata.decomposition(character).partition(" ")[0] if len(character) == 1 else ""
    same = form in ("<wide>", "<narrow>", "<font>", "<compat>") and unicodedata.category(character) not in ("Nl", "No")
    plain = unicodedata.normalize("NFKC", character) if same else character
    return unicodedata.normalize("NFD", plain.casefold())


_passage = lru_cache(maxsize=512)(_normalised)
"""Of passages, which are read again and again; quotes would only drive them out."""


def _find_whole_words(wanted: str, text: str) -> int:
    """Index of the first occurrence that does not begin or end inside a word, else -1."""
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        before = start > 0 and _in_word(text[start - 1]) and _in_word(wanted[0])
        after = end < len(text) and _in_word(text[end]) and _in_word(wanted[-1])
        if not before and not after:
            return start
        start = text.find(wanted, start + 1)
    return -1


def _in_word(character: str) -> bool:
    """Whether a character is part of a word: a letter, a digit or a mark on one."""
    return character.isalnum() or unicodedata.combining(character) > 0


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
    span = _alike(wanted, text, threshold)
    if span is None:
        return "invalid", None, None, 0.0
    low, high = _whole_words(text, *span)
    score = fuzz.ratio(wanted, text[low:high], score_cutoff=threshold)
    if score == 0:
        return "invalid", None, None, 0.0
    return "near", places[low], places[high - 1] + 1, round(score, 2)


def _alike(wanted: str, text: str, threshold: float) -> tuple[int, int] | None:
    """The span of a text that is most like a quote; None where none can reach the threshold."""
    if len(wanted) <= LONG:
        found = fuzz.partial_ratio_alignment(wanted, text, score_cutoff=threshold)
        return None if found is None or found.dest_end <= found.dest_start else (found.dest_start, found.dest_end)
    # Of a long quote the place is that of its first and last three words in a row which the text has: sliding it along
    # the whole text would take seconds, and a quote without such words is not nearly one.
    words = [(match.start(), match.end()) for match in _WORD.finditer(wanted)]
    runs = [(words[at][0], words[at + 2][1]) for at in range(max(0, len(words) - 2))]
    first = next(_placed(wanted, text, runs[:TRIED]), None)
    last = next(_placed(wanted, text, runs[: -TRIED - 1 : -1]), None)
    if first is None or last is None:
        return None
    start, end = max(0, first), min(len(text), last + len(wanted))
    return (start, end) if start < end <= start + 2 * len(wanted) else None


def _placed(wanted: str, text: str, runs: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Where a quote would begin in a text, for each of its runs of words that the text has."""
    for start, end in runs:
        place = text.find(wanted[start:end])
        if place >= 0:
            yield place - start


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span until it neither begins nor ends inside a word."""
    while start > 0 and _in_word(text[start - 1]) and _in_word(text[start]):
        start -= 1
    while end < len(text) and _in_word(text[end]) and _in_word(text[end - 1]):
        end += 1
    return start, end


def check_quotes(speech: str, passage: str | None, threshold: float = 90.0) -> tuple[Quote, ...]:
    """Check every quote of a speech against the passage (without a passage every quote is invalid).

    Tags round nothing but punctuation are not a quote.
    """
    quotes = []
    checked: dict[str, tuple[Found, int | None, int | None, float]] = {}
    for start, end in quote_spans(speech):
        text = speech[start + len(OPEN) : end - len(CLOSE)]
        if not any(character.isalnum() for character in text):
            continue
        if text not in checked:
            checked[text] = locate(text, passage or "", threshold)
        verdict, low, high, score = checked[text]
        quotes.append(
            Quote(text=text, verdict=verdict, start=start, end=end, passage_start=low, passage_end=high, score=score)
        )
    return tuple(quotes)


def other_words(quote: str, span: str) -> list[tuple[str, str]]:
    """Words in which a near quote differs from the passage: what it says, and what stands there.

    Example:
        >>> other_words("moved to the barn at dusk", "moved to the shed at dusk")
        [('barn', 'shed')]
    """
    said, there = quote.split(), span.split()
    same = SequenceMatcher(None, [_plain_word(word) for word in said], [_plain_word(word) for word in there], False)
    return [(" ".join(said[a:b]), " ".join(there[c:d])) for kind, a, b, c, d in same.get_opcodes() if kind != "equal"]


def _plain_word(word: str) -> str:
    return _normalised(word)[0].strip(_EDGES)


def quote_spans(speech: str) -> Iterator[tuple[int, int]]:
    """First character and end of each quote, tags included; a tag that nothing closes opens none.

    One pass over the speech: a pattern would look for the end of each of a million open tags anew.
    """
    start = speech.find(OPEN)
    while start >= 0:
        end = speech.find(CLOSE, start)
        if end < 0:
            return
        yield start, end + len(CLOSE)
        start = speech.find(OPEN, end)
