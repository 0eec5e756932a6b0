"""Quotes: `<quote>...</quote>` in a speech, checked against the passage before anyone else reads it.

A quote is exact (it stands in the passage after normalising case, spaces, dashes, quotation marks and forms of
letters), near, or invalid. It is near if some span of whole words of the passage shares M characters with it, in order,
and 2 M / (length of the quote + length of the span) >= the threshold, 90 % by default. That measures spelling and not
meaning: in a quote of twelve words one may be another word, even the one that matters. The page of a run shows the
words that differ. The speech itself is never changed.
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
"""Characters above which a quote is located by its first and last words."""
TRIED = 60
"""Runs of three words that are searched for from either end of a long quote."""
_WORD = re.compile(r"\S+")
_RUN = re.compile(r"\S+|\s+")
_SAME = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    }
)
_EDGES = " .,;:!?'\"-"
_INSIDE = tuple(".,:")
"""Marks that stand between the digits of one number."""
_SIGN = re.compile(r"(?<![-.])-?\.?\Z")
"""A minus and a decimal point that end what stands before a number; dots and dashes in a row are punctuation."""


QuoteVerdict = Literal["exact", "near", "invalid"]
Location = tuple[QuoteVerdict, int | None, int | None, float]
"""Verdict, start and end in the passage or None, similarity in percent."""
_NOWHERE: Location = ("invalid", None, None, 0.0)


class Quote(Record):
    """One quote of a speech with the result of checking it.

    Example:
        Quote(text="The pipe was moved", verdict="exact", start=14, end=47, passage_end=138, score=100.0)
    """

    text: str
    """Text between the tags, as written."""
    verdict: QuoteVerdict
    start: int
    end: int
    """Span of the quote in the speech, tags included: `speech[start:end]`."""
    passage_start: int | None = None
    passage_end: int | None = None
    """Span of the passage that matches; None for an invalid quote."""
    score: float = 0.0
    """Similarity to the best span of the passage, in percent; 0 where none reaches the threshold."""


def _normalised(text: str) -> tuple[str, tuple[int, ...]]:
    """Fold case, width, dashes, quotation marks and spaces; also return each character's index in the original.

    Letters with marks are taken apart, so that composed and decomposed text is the same.
    """
    plain = text.translate(_SAME)
    if plain.isascii():
        return _normalised_ascii(plain)
    folded: list[str] = []
    origins: list[int] = []
    for index, character in enumerate(text):
        if character.isspace():
            if folded and folded[-1] != " ":
                folded.append(" ")
                origins.append(index)
            continue
        parts = _folded(character)
        folded += parts
        origins += [index] * len(parts)
    _order_marks(folded, origins)
    return "".join(folded), tuple(origins)


def _normalised_ascii(text: str) -> tuple[str, tuple[int, ...]]:
    """`_normalised` of a text of ASCII alone, word by word: many times as fast as letter by letter."""
    pieces: list[str] = []
    origins: list[int] = []
    for run in _RUN.finditer(text.lower()):
        if not run[0].isspace():
            pieces.append(run[0])
            origins += range(*run.span())
        elif pieces:
            pieces.append(" ")
            origins.append(run.start())
    return "".join(pieces), tuple(origins)


def _order_marks(letters: list[str], origins: list[int]) -> None:
    """Sort the marks on each letter into their canonical order, in place.

    `unicodedata.normalize` would do it for the whole text, but then the indices of the original would be lost.
    """
    ranks = list(map(unicodedata.combining, letters))
    start = 0
    for end in range(len(letters) + 1):
        if end < len(letters) and ranks[end]:
            continue
        if end - start > 1:
            order = sorted(range(start, end), key=ranks.__getitem__)  # stable: marks of one rank stay as they are
            letters[start:end] = [letters[i] for i in order]
            origins[start:end] = [origins[i] for i in order]
        start = end + 1


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    """Fold a character to the form in which it is compared: wide, bold and other forms become the plain letter."""
    character = character.translate(_SAME)
    form = unicodedata.decomposition(character).partition(" ")[0]
    # Powers (form "<super>"), Roman and enclosed numbers keep their form: a quote of ten cubed is not one of 103.
    is_number_form = unicodedata.category(character) in ("Nl", "No")
    if form in ("<wide>", "<narrow>", "<font>", "<compat>") and not is_number_form:
        character = unicodedata.normalize("NFKC", character)
    return unicodedata.normalize("NFD", character.casefold())


_normalised_passage = lru_cache(maxsize=512)(_normalised)
"""`_normalised` for passages, which are read again and again. Quotes do not use it: they would evict the passages."""


def _find_whole_words(quote: str, text: str) -> int:
    """Index of the first occurrence that does not begin or end inside a word, else -1."""
    start = text.find(quote)
    while start >= 0:
        end = start + len(quote)
        if not _splits_word(text, start) and not _splits_word(text, end):
            return start
        start = text.find(quote, start + 1)
    return -1


def _splits_word(text: str, index: int) -> bool:
    """Whether a cut before the character at an index goes through a word, or a number such as 2.5 or 12:30."""
    if not 0 < index < len(text):
        return False
    if _in_word(text[index - 1]) and _in_word(text[index]):
        return True
    return _splits_number(text, index)


def _splits_number(text: str, index: int) -> bool:
    """Whether a cut stands beside a point, comma or colon between two digits."""
    before, after = text[max(0, index - 2) : index], text[index : index + 2]
    if before[-1:] in _INSIDE and before[:1].isdigit() and after[:1].isdigit():
        return True
    return before[-1:].isdigit() and after[:1] in _INSIDE and after[1:2].isdigit()


def _in_word(character: str) -> bool:
    """Whether a character is part of a word: a letter, a digit or a mark on one."""
    return character.isalnum() or unicodedata.combining(character) > 0


@lru_cache(maxsize=4096)
def in_word(character: str) -> bool:
    """Whether a character of a passage is read as part of a word, in the form in which it is compared."""
    return any(map(_in_word, _folded(character)))


def locate(quote: str, passage: str, threshold: float = 90.0) -> Location:
    """Check one quote against a passage: verdict, span in the passage, similarity in percent."""
    normalised_quote = _trimmed(_normalised(quote)[0])
    text, origins = _normalised_passage(passage)
    if not normalised_quote or not text:
        return _NOWHERE
    start = _find_whole_words(normalised_quote, text)
    if start >= 0:
        return "exact", origins[start], origins[start + len(normalised_quote) - 1] + 1, 100.0
    if len(normalised_quote) > len(text):
        return _NOWHERE
    span = _most_similar_span(normalised_quote, text, threshold)
    if span is None:
        return _NOWHERE
    start, end = _widen_to_words(text, *span)
    # Scored anew: a span that ended inside a word may fall below the threshold with the rest of the word.
    score = fuzz.ratio(normalised_quote, text[start:end], score_cutoff=threshold)
    if score == 0:
        return _NOWHERE
    return "near", origins[start], origins[end - 1] + 1, round(score, 2)


def _trimmed(quote: str) -> str:
    """A quote without the punctuation around it; the sign of a number is none: a quote of -5 is not one of 5."""
    trimmed = quote.strip(_EDGES)
    if not trimmed[:1].isdigit():
        return trimmed
    sign = _SIGN.search(quote[: quote.find(trimmed)])
    return (sign[0] if sign else "") + trimmed


def _most_similar_span(quote: str, text: str, threshold: float) -> tuple[int, int] | None:
    """The span of a text that is most like a quote; None where none can reach the threshold."""
    if len(quote) <= LONG:
        alignment = fuzz.partial_ratio_alignment(quote, text, score_cutoff=threshold)
        if alignment is None or alignment.dest_end <= alignment.dest_start:
            return None
        return alignment.dest_start, alignment.dest_end
    # Sliding a long quote along the whole text would take seconds. It is placed by its first and its last run of three
    # words that the text contains; a quote without such a run is far from near.
    words = [match.span() for match in _WORD.finditer(quote)]
    runs = [(first[0], third[1]) for first, third in zip(words, words[2:], strict=False)]
    from_front = _implied_start(quote, text, runs[:TRIED])
    from_back = _implied_start(quote, text, runs[: -TRIED - 1 : -1])
    if from_front is None or from_back is None:
        return None
    start = max(0, from_front)
    end = min(len(text), from_back + len(quote))
    # The two runs may lie in different parts of the text; a span of twice the quote's length is no match.
    return (start, end) if start < end <= start + 2 * len(quote) else None


def _implied_start(quote: str, text: str, runs: Sequence[tuple[int, int]]) -> int | None:
    """Index in the text at which a quote would begin, by the first of its runs of words that the text contains."""
    for start, end in runs:
        index = text.find(quote[start:end])
        if index >= 0:
            return index - start
    return None


def _widen_to_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span until it neither begins nor ends inside a word."""
    while _splits_word(text, start):
        start -= 1
    while _splits_word(text, end):
        end += 1
    return start, end


def check_quotes(speech: str, passage: str | None, threshold: float = 90.0) -> tuple[Quote, ...]:
    """Check every quote of a speech against the passage (without a passage every quote is invalid).

    Tags around nothing but punctuation are not a quote.
    """
    quotes = []
    checked: dict[str, Location] = {}  # a speech may repeat a quote a thousand times
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
    """List the words in which a near quote differs from the passage: (words of the quote, words of the passage).

    Example:
        >>> other_words("moved to the barn at dusk", "moved to the shed at dusk")
        [('barn', 'shed')]
    """
    quote_words = quote.split()
    span_words = span.split()
    matcher = SequenceMatcher(None, list(map(_plain_word, quote_words)), list(map(_plain_word, span_words)), False)
    differences = []
    for kind, quote_start, quote_end, span_start, span_end in matcher.get_opcodes():
        if kind != "equal":
            differences.append(
                (" ".join(quote_words[quote_start:quote_end]), " ".join(span_words[span_start:span_end]))
            )
    return differences


def _plain_word(word: str) -> str:
    return _trimmed(_normalised(word)[0])


def quote_spans(speech: str) -> Iterator[tuple[int, int]]:
    """Yield the span of each quote, tags included; an opening tag that nothing closes is no quote."""
    # One pass over the speech: a regular expression would search for the end of each of a million open tags anew.
    start = speech.find(OPEN)
    while start >= 0:
        end = speech.find(CLOSE, start)
        if end < 0:
            return
        yield start, end + len(CLOSE)
        start = speech.find(OPEN, end)
