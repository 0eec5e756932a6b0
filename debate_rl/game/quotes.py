"""Quotes: `<quote>...</quote>` in a speech, checked against the passage before anyone else reads it.

A quote is exact (it stands in the passage, up to case, width, spaces, dashes, quotation marks and how accents are
encoded), near (a span of whole words is at least as similar as the threshold, and has the same numbers), or invalid.
The speech itself is never changed. Checking takes time linear in the speech. `docs/quotes.md` says what near means.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

from rapidfuzz import fuzz
from rapidfuzz.distance import Indel

from debate_rl.game.similar import most_similar
from debate_rl.records import Record

_TAG = re.compile(r"</?quote>")
_SAME = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "`": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2010": "-",
        "\u2011": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2212": "-",
        # Nothing is seen of these: soft hyphen, zero-width space, word joiner, byte order mark.
        "\u00ad": None,
        "\u200b": None,
        "\u2060": None,
        "\ufeff": None,
    }
)
_EDGES = " .,;:!?'\"-"
_JOINTS = ".,/\u2044"
"""What may stand inside a number."""
_TOKEN = re.compile(rf"(?:(?<![\w.-])[-.])?\w+(?:[{_JOINTS}]\w+)*")
_STYLES = (
    "<wide>",
    "<narrow>",
    "<small>",
    "<vertical>",
    "<font>",
    "<noBreak>",
    "<initial>",
    "<medial>",
    "<final>",
    "<isolated>",
)
"""Kinds of characters that are another one in another dress. Superscripts, fractions, circled and squared ones are
not: 10\u00b2 is not 102."""

Found = Literal["exact", "near", "invalid"]


class Quote(Record):
    """One quote of a speech and what checking it found.

    Example:
        Quote(text="The pipe was moved", verdict="exact", start=14, end=47, passage_end=138, score=100.0)
    """

    text: str
    """What stands between the tags, as written; tags inside it are left out when it is checked."""
    verdict: Found
    start: int
    end: int
    """Characters of the speech that the quote takes, tags included."""
    passage_start: int | None = None
    passage_end: int | None = None
    """Characters of the passage that match; None for an invalid quote."""
    score: float = 0.0
    """Similarity to the best span of the passage, in percent; 0 where none reaches the threshold."""


class Change(NamedTuple):
    """Words that a quote and the passage share, or that only one of them has.

    Example:
        Change(kind="added", text="barn")
    """

    kind: Literal["same", "added", "left out"]
    """Added by the quote, or left out of it."""
    text: str


@lru_cache(maxsize=1 << 16)
def _fold(character: str) -> str:
    """A character without case, width and style, its accents apart."""
    decomposition = unicodedata.decomposition(character)
    kind = decomposition.split(" ", maxsplit=1)[0]
    plain = unicodedata.normalize("NFKC", character)
    # Ligatures and dots in a row (ﬁ, \u2026) are so many characters; a number in brackets or a Roman one is itself.
    is_several = kind == "<compat>" and unicodedata.category(character)[0] != "N" and not any(map(str.isspace, plain))
    if kind in _STYLES or is_several:
        character = plain
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", character.translate(_SAME)).casefold())


def _normalised(text: str) -> tuple[str, tuple[int, ...]]:
    """Fold characters and spaces, accents in canonical order; also give each character's place in the original."""
    folded: list[tuple[str, int]] = []
    for place, character in enumerate(text):
        if not character.isspace():
            folded += [(part, place) for part in _fold(character)]
        elif folded and folded[-1][0] != " ":
            folded.append((" ", place))
    if not text.isascii():
        folded = _accents_in_order(folded)
    return "".join(part for part, _ in folded), tuple(place for _, place in folded)


def _accents_in_order(folded: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Sort the accents of each letter by their class, as two encodings of one letter may list them otherwise."""
    ordered: list[tuple[str, int]] = []
    for _, group in groupby(folded, key=lambda part: unicodedata.combining(part[0]) > 0):
        parts = list(group)
        if len(parts) > 1 and unicodedata.combining(parts[0][0]):
            parts.sort(key=lambda part: unicodedata.combining(part[0]))
        ordered += parts
    return ordered


_passage = lru_cache(maxsize=512)(_normalised)
"""Of passages, which are read again and again; quotes would only drive them out."""


def _is_word(character: str) -> bool:
    """Whether a character is part of words and numbers; accents and vowel signs are."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _is_inside(text: str, place: int) -> bool:
    """Whether a cut before this character would go through a word, a number or an accented letter."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if _is_word(before) and _is_word(after):
        return True
    if unicodedata.combining(after) and before != " ":
        return True
    # 10 does not stand in 10.5, nor 2 in 1/2.
    for joint in (place - 1, place):
        around = text[max(joint - 1, 0) : joint] + text[joint + 1 : joint + 2]
        if text[joint] in _JOINTS and len(around) == 2 and around.isnumeric():
            return True
    return False


def _trimmed(text: str) -> str:
    """A quote without the punctuation round it; the sign or point of a number stays."""
    start, end = 0, len(text)
    while start < end and text[start] in _EDGES and not unicodedata.combining(text[start + 1 : start + 2] or " "):
        start += 1
    signed = start > 0 and start < end and text[start].isdigit() and text[start - 1] in "-."
    if signed and (start == 1 or text[start - 2] not in "-."):
        start -= 1
    while end > start and text[end - 1] in _EDGES:
        end -= 1
    return text[start:end]


def _find_whole_words(quote: str, text: str) -> int:
    """Index of the first occurrence that does not begin or end inside a word, else -1."""
    start = text.find(quote)
    while start >= 0:
        if not _is_inside(text, start) and not _is_inside(text, start + len(quote)):
            return start
        start = text.find(quote, start + 1)
    return -1


def locate(quote: str, passage: str, threshold: float = 90.0) -> tuple[Found, int | None, int | None, float]:
    """Check one quote: (verdict, start and end in the passage or None, similarity in percent)."""
    folded = _trimmed(_normalised(quote)[0])
    text, places = _passage(passage)
    if not folded or not text:
        return "invalid", None, None, 0.0
    start = _find_whole_words(folded, text)
    if start >= 0:
        return "exact", *_original(places, start, start + len(folded)), 100.0
    if len(folded) > len(text):
        return "invalid", None, None, 0.0
    span = most_similar(folded, text, threshold)
    if span is None:
        return "invalid", None, None, 0.0
    low, high = _whole_words(text, *span)
    score = fuzz.ratio(folded, text[low:high], score_cutoff=threshold)
    # One character in a long quote makes another number of it.
    if score == 0 or _numbers(folded) != _numbers(text[low:high]):
        return "invalid", None, None, 0.0
    return "near", *_original(places, low, high), round(score, 2)


def _original(places: tuple[int, ...], start: int, end: int) -> tuple[int, int]:
    """A span of a folded text in the original; of accents that were put in order the last need not be last there."""
    return min(places[start:end]), max(places[start:end]) + 1


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span until it neither begins nor ends inside a word."""
    while _is_inside(text, start):
        start -= 1
    while _is_inside(text, end):
        end += 1
    return start, end


def _numbers(text: str) -> list[str]:
    """The words of a text that hold a figure, in order: 10, -5, 1/2, 10\u00b2, 2nd."""
    tokens: list[str] = _TOKEN.findall(text)
    return [token for token in tokens if any(unicodedata.category(character)[0] == "N" for character in token)]


def differences(quote: str, span: str) -> list[Change]:
    """Compare a near quote with what it matches in the passage, word by word, as checking reads words.

    Returns:
        The quote in order; what it left out stands before what it put in its place.
    """
    quoted, told = _words(_TAG.sub("", quote)), _words(span)
    changes: list[Change] = []
    for step in Indel.opcodes([key for key, _ in quoted], [key for key, _ in told]):
        mine = " ".join(text for _, text in quoted[step.src_start : step.src_end])
        theirs = " ".join(text for _, text in told[step.dest_start : step.dest_end])
        if step.tag == "equal":
            changes.append(Change("same", mine))
        elif step.tag == "delete":
            changes.append(Change("added", mine))
        elif changes and changes[-1].kind == "added":
            changes.insert(-1, Change("left out", theirs))
        else:
            changes.append(Change("left out", theirs))
    return changes


def _words(text: str) -> list[tuple[str, str]]:
    """Each word as it is compared and as it is written, with the punctuation that stands alone behind it."""
    words: list[tuple[str, str]] = []
    for written in text.split():
        key = _trimmed(_normalised(written)[0])
        if key or not words:
            words.append((key, written))
        else:
            words[-1] = words[-1][0], f"{words[-1][1]} {written}"
    return words


def _spans(speech: str) -> list[tuple[int, int]]:
    """Start and end of each opening tag with its own closing one, the outermost of such pairs.

    Tags without a partner are words: an opening that is never closed takes nothing with it.
    """
    openings: list[int] = []
    pairs: list[tuple[int, int]] = []
    for tag in _TAG.finditer(speech):
        if tag[0] == "<quote>":
            openings.append(tag.start())
        elif openings:
            start = openings.pop()
            while pairs and pairs[-1][0] > start:
                pairs.pop()
            pairs.append((start, tag.end()))
    return pairs


def check_quotes(speech: str, passage: str | None, threshold: float = 90.0) -> tuple[Quote, ...]:
    """Check every quote of a speech against the passage (without a passage every quote is invalid).

    Tags round nothing but punctuation are not a quote.
    """
    quotes: list[Quote] = []
    checked: dict[str, tuple[Found, int | None, int | None, float]] = {}
    for start, end in _spans(speech):
        text = speech[start + len("<quote>") : end - len("</quote>")]
        words = _TAG.sub("", text)
        if not any(character.isalnum() for character in words):
            continue
        if words not in checked:
            checked[words] = locate(words, passage or "", threshold)
        verdict, first, last, score = checked[words]
        quotes.append(
            Quote(text=text, verdict=verdict, start=start, end=end, passage_start=first, passage_end=last, score=score)
        )
    return tuple(quotes)
